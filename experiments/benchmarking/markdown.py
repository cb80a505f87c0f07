"""What :mod:`experiments.benchmark` measured, as tables in the README and in the docs.

    python -m experiments.benchmarking.markdown runs/benchmark/results.json
    python -m experiments.benchmarking.markdown

The first line takes what was measured into ``docs/results``, a file for each version of
jax: its suites take the place of earlier ones. Both lines then write the tables anew, each
between ``<!-- speed: NAME -->`` and ``<!-- end -->``, and draw the chart of the newest jax.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import tyro

from experiments.benchmarking.chart import chart_of
from experiments.benchmarking.figures import (
    by_case,
    fastest,
    figure,
    geometric_mean,
    microseconds,
    number,
    ratios,
    table,
)
from experiments.benchmarking.layers import WITHOUT_LOOPS
from experiments.benchmarking.timing import Measurement
from experiments.benchmarking.training import IN_FLOAT32
from experiments.pages import pictures
from experiments.run import command
from experiments.run.files import replacing

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "docs" / "results"
PAGES = (ROOT / "README.md", ROOT / "docs" / "speed.md")
PLACE = re.compile(r"(<!-- speed: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)

SETTING = ("versions", "date", "device", "processor", "cores", "peak_gflops")
"""What is kept of a run besides its measurements."""

PEERS = {"lax": "lax", "flax": "flax", "torch": "PyTorch"}
MODES = {
    ("layers", "forward"): "layers, forward",
    ("layers", "forward + backward"): "layers, forward + backward",
    ("pools", "forward"): "pools, forward",
    ("pools", "forward + backward"): "pools, forward + backward",
    ("networks", "step"): "networks, a training step",
    ("bfloat16", "step"): "networks, a training step in bfloat16",
    ("scan", "scan"): "networks, a training step inside `lax.scan`",
}


# --- Results in files -----------------------------------------------------------------


class Results(NamedTuple):
    """What was measured with one version of jax.

    Attributes:
      setting: the versions, the date and the machine.
      measurements: of all suites.
    """

    setting: dict[str, Any]
    measurements: list[Measurement]

    @property
    def version(self) -> str:
        return self.setting["versions"]["jax"]

    @property
    def file_name(self) -> str:
        major, minor, *_ = self.version.split(".")
        return f"speed-jax-{major}.{minor}.json"

    def of(self, suite: str, mode: str) -> dict[str, list[Measurement]]:
        """The measurements of a suite in a mode, case by case."""
        return {
            case: group
            for (its_suite, case, its_mode), group in by_case(self.measurements).items()
            if (its_suite, its_mode) == (suite, mode)
        }

    def to_json(self) -> str:
        """A line for each measurement, with what some table shows."""
        setting = json.dumps(self.setting, indent=1).removesuffix("\n}")
        lines = []
        for each in self.measurements:
            said = asdict(replace(each, errors=None, peak_fraction=None)).items()
            lines.append(json.dumps({name: brief(value) for name, value in said if value}))
        measurements = ",\n  ".join(lines)
        return f'{setting},\n "measurements": [\n  {measurements}\n ]\n}}\n'


def brief(value: Any) -> Any:
    """A float to four digits."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def results_in(content: dict[str, Any]) -> Results:
    setting = {name: content[name] for name in SETTING}
    return Results(setting, [Measurement(**each) for each in content["measurements"]])


def read(path: Path) -> dict[str, Any]:
    """The content of a file of results.

    Raises:
      OSError: when it cannot be read.
      ValueError: when it holds something else.
    """
    try:
        content = json.loads(path.read_text())
        results_in(content)
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} holds no results of experiments.benchmark: {error}"
        ) from error
    return content


def published() -> list[Results]:
    """The results in ``docs/results``, the oldest version of jax first.

    Raises:
      FileNotFoundError: when there are none.
    """
    everything = [results_in(read(path)) for path in RESULTS.glob("speed-jax-*.json")]
    if not everything:
        raise FileNotFoundError(f"there are no results in {RESULTS}")
    return sorted(everything, key=lambda each: [*map(int, each.version.split(".")[:2])])


def take(path: Path) -> None:
    """Keep what a run measured, in the place of its suites' earlier results.

    Raises:
      ValueError: when the run left out cases.
    """
    content = read(path)
    options = content.get("options", {})
    if options.get("quick") or options.get("only"):
        raise ValueError(f"{path} is of a run with --quick or --only: it left out cases")
    results = results_in(content)
    place = RESULTS / results.file_name
    if place.exists():
        earlier = results_in(read(place))
        if earlier.version == results.version:
            suites = {each.suite for each in results.measurements}
            others = [each for each in earlier.measurements if each.suite not in suites]
            results = results._replace(measurements=[*others, *results.measurements])
    with replacing(place) as partial:
        partial.write_text(results.to_json())


# --- Tables ---------------------------------------------------------------------------


def mean_and_worst(values: Sequence[float]) -> str:
    if not values:
        return ""
    return f"{figure(geometric_mean(values))} ({figure(min(values))})"


def span(values: Sequence[float]) -> str:
    return f"{figure(min(values))} to {figure(max(values))}" if values else ""


def times_faster(
    results: Results, suite: str, mode: str, peer: str, contestant: str = "jaxcnn"
) -> list[float]:
    return [
        each.times_faster
        for each in ratios(results.measurements)
        if (each.suite, each.mode, each.peer) == (suite, mode, peer)
        and each.contestant == contestant
    ]


def named(everything: Sequence[Results], suite: str, mode: str) -> str:
    """The name of a suite in a mode, and how many cases it has."""
    count = max(len(results.of(suite, mode)) for results in everything)
    return f"{count} {MODES[suite, mode]}"


def readme(everything: Sequence[Results]) -> str:
    """The figures that matter most: how many times faster, by version of jax."""
    rows = []
    for suite, mode, peers in (
        ("layers", "forward + backward", ("lax", "torch")),
        ("pools", "forward + backward", ("lax",)),
        ("networks", "step", ("lax", "torch")),
        ("scan", "scan", ("lax",)),
    ):
        for peer in peers:
            name = f"{named(everything, suite, mode)}, × {PEERS[peer]}"
            cells = (times_faster(each, suite, mode, peer) for each in everything)
            rows.append([name, *map(mean_and_worst, cells)])
    titles = (f"jax {each.version}" for each in everything)
    return table(["", *titles], rows)


def summary(everything: Sequence[Results]) -> str:
    """All suites and modes, against everyone, and what it costs."""
    columns = [
        (results, contestant)
        for results in everything
        for contestant in ("jaxcnn", WITHOUT_LOOPS)
        if any(each.contestant == contestant for each in results.measurements)
    ]
    rows = []
    for suite, mode in MODES:
        for peer, name in PEERS.items():
            cells = (
                mean_and_worst(times_faster(results, suite, mode, peer, contestant))
                for results, contestant in columns
            )
            rows.append([f"{named(everything, suite, mode)}, × {name}", *cells])
    for title, text in COSTS.items():
        rows.append([title, *(text(*column) for column in columns)])
    titles = (
        f"jax {results.version}" + (", without loops" if who == WITHOUT_LOOPS else "")
        for results, who in columns
    )
    said = [row for row in rows if any(row[1:])]
    return table(["", *titles], said)


def in_scan_by_alone(results: Results, contestant: str) -> str:
    """The time of a step in a scan, divided by its time alone."""
    inside, alone = results.of("scan", "scan"), results.of("scan", "step")
    pairs = (
        (fastest(inside[case], contestant), fastest(alone[case], contestant))
        for case in inside
    )
    return span([a.median_ms / b.median_ms for a, b in pairs if a and b])


def first_by_last(results: Results, contestant: str) -> str:
    """How much longer a step takes with channels first."""
    quotients = []
    for group in results.of("networks", "step").values():
        own = {each.layout: each for each in group if each.contestant == contestant}
        if own.keys() == {"NCHW", "NHWC"}:
            quotients.append(own["NCHW"].median_ms / own["NHWC"].median_ms)
    if not quotients:
        return ""
    return f"{figure(geometric_mean(quotients))} ({figure(max(quotients))})"


def beside_lax(quantity: str) -> Callable[[Results, str], str]:
    """How much of a quantity a step takes, divided by what lax's takes."""

    def text(results: Results, contestant: str) -> str:
        quotients = []
        for group in results.of("networks", "step").values():
            pair = fastest(group, contestant), fastest(group, "lax")
            ours, theirs = (each and getattr(each, quantity) for each in pair)
            if ours and theirs:
                quotients.append(ours / theirs)
        return span(quotients)

    return text


def largest_error(results: Results, contestant: str) -> str:
    """The largest error of a layer, against float64."""
    errors = [
        each.error
        for each in results.measurements
        if each.suite == "layers" and each.contestant == contestant and each.error
    ]
    return f"{max(errors):.0e}" if errors else ""


COSTS: dict[str, Callable[[Results, str], str]] = {
    "a step inside `lax.scan` / alone": in_scan_by_alone,
    "the same of lax": lambda results, who: (
        in_scan_by_alone(results, "lax") if who == "jaxcnn" else ""
    ),
    "a network's step, NCHW / NHWC": first_by_last,
    "time to compile a network's step / lax's": beside_lax("compile_seconds"),
    "temporary memory of a network's step / lax's": beside_lax("temporary_bytes"),
    "largest error of a layer, against float64": largest_error,
}


def case_by_case(
    everything: Sequence[Results],
    suite: str,
    mode: str,
    titles: Sequence[str],
    cells: Callable[[Results, str], list[str]],
) -> str:
    """A row for each case, and in it so many cells for each version of jax."""
    cases = dict.fromkeys(case for each in everything for case in each.of(suite, mode))
    header = [""]
    for each in everything:
        header += [f"jax {each.version}: {titles[0]}", *titles[1:]]
    rows = [
        [case, *(cell for each in everything for cell in cells(each, case))]
        for case in cases
    ]
    return table(header, rows)


def times(suite: str, mode: str, peers: Sequence[str]) -> Callable[..., str]:
    """The table of milliseconds, and of how many times faster jaxcnn is than each peer."""

    def cells(results: Results, case: str) -> list[str]:
        group = results.of(suite, mode).get(case, [])
        own = fastest(group, "jaxcnn")
        return [number(own), *(quotient(fastest(group, peer), own) for peer in peers)]

    titles = ["ms", *(f"× {PEERS[peer]}" for peer in peers)]
    return lambda everything: case_by_case(everything, suite, mode, titles, cells)


def bfloat16(everything: Sequence[Results]) -> str:
    """A step in bfloat16, beside jaxcnn's own in float32 and beside each peer's."""

    def cells(results: Results, case: str) -> list[str]:
        group = results.of("bfloat16", "step").get(case, [])
        own = fastest(group, "jaxcnn")
        others = (fastest(group, name) for name in (IN_FLOAT32, "lax", "torch"))
        return [number(own), *(quotient(other, own) for other in others)]

    titles = ["ms", "× float32", "× lax", "× PyTorch"]
    return case_by_case(everything, "bfloat16", "step", titles, cells)


def scan(everything: Sequence[Results]) -> str:
    """A step alone, one in a scan, and how many times faster that is than lax's."""

    def cells(results: Results, case: str) -> list[str]:
        inside, alone = (
            results.of("scan", mode).get(case, []) for mode in ("scan", "step")
        )
        own = fastest(inside, "jaxcnn")
        step = fastest(alone, "jaxcnn")
        return [number(step), number(own), quotient(fastest(inside, "lax"), own)]

    titles = ["alone, ms", "in a scan, ms", "× lax"]
    return case_by_case(everything, "scan", "scan", titles, cells)


def eager(everything: Sequence[Results]) -> str:
    """The microseconds of calls outside of ``jit``, of the versions that were timed."""
    timed = [each for each in everything if each.of("eager", "call")]
    if not timed:
        return ""

    def cells(results: Results, case: str) -> list[str]:
        group = results.of("eager", "call").get(case, [])
        own, other = fastest(group, "jaxcnn"), fastest(group, "lax")
        return [microseconds(own), microseconds(other), quotient(own, other)]

    titles = ["µs", "lax, µs", "/ lax's"]
    return case_by_case(timed, "eager", "call", titles, cells)


def quotient(one: Measurement | None, other: Measurement | None) -> str:
    return figure(one.median_ms / other.median_ms) if one and other else "–"


TABLES: dict[str, Callable[[Sequence[Results]], str]] = {
    "readme": readme,
    "summary": summary,
    "layers": times("layers", "forward + backward", ("lax", "torch")),
    "pools": times("pools", "forward + backward", ("lax", "torch")),
    "networks": times("networks", "step", ("lax", "flax", "torch")),
    "bfloat16": bfloat16,
    "scan": scan,
    "eager": eager,
}


# --- Pages ----------------------------------------------------------------------------


def filled(text: str, everything: Sequence[Results]) -> str:
    """A page with its tables written anew.

    Raises:
      ValueError: when there is no table of a name that it has.
    """

    def written(place: re.Match[str]) -> str:
        begin, name, end = place.groups()
        command.must_be_known("speed", [name], TABLES)
        return f"{begin}{TABLES[name](everything)}\n{end}"

    return PLACE.sub(written, text)


def tables_of(text: str) -> list[str]:
    """The names of the tables that a page has a place for."""
    return [name for _, name, _ in PLACE.findall(text)]


# --- The command ----------------------------------------------------------------------


@dataclass(frozen=True)
class Settings:
    """Write what the benchmark measured into the README and the docs."""

    results: tyro.conf.Positional[tuple[Path, ...]] = ()
    """Files results.json of runs that timed all cases of their suites; they are taken into
    docs/results first."""


def main(settings: Settings) -> None:
    """Take the results, write the tables and draw the chart anew."""
    for path in settings.results:
        take(path)
    everything = published()
    for page in PAGES:
        text = filled(page.read_text(), everything)
        with replacing(page) as partial:
            partial.write_text(text)
        print(f"{page.relative_to(ROOT)}: {', '.join(tables_of(text)) or 'no table'}")
    chart = ROOT / "docs" / "pictures" / "benchmark.png"
    pictures.save(chart_of(ratios(everything[-1].measurements)), chart)
    print(f"{chart.relative_to(ROOT)}: jax {everything[-1].version}")


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
