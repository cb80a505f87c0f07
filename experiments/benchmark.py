"""How fast is jaxcnn, beside lax, flax and PyTorch?

    python -m experiments.benchmark                       # everything
    python -m experiments.benchmark --quick               # about a minute
    python -m experiments.benchmark --suite layers --only depthwise

Claim: with hand-written gradients a network trains faster than with those that JAX derives,
and a training loop in ``lax.scan`` many times faster.

Method: contestants take turns (:mod:`experiments.benchmarking.timing`), each in the better
of its layouts; a number is the median of the rounds. Suites are *layers* (convolutions with
bias, forward alone and with all gradients), *pools*, *networks* (a whole training step),
*bfloat16* (the same step computed in bfloat16), *scan* (the same step in ``lax.scan``) and
*eager* (calls outside of ``jit``, and gradients, of small arrays); and, only where it is
asked for, *random*: 200 convolutions and poolings of every kind, drawn at random. Time to
compile, temporary memory and the error are measured, too, where there are any: a layer that
is off by more than 1e-4 from float64, a pool that differs from lax by more than 1e-6, or a
call by more than 1e-4, makes the command fail.

Results: docs/speed.md.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import jax
from rich.console import Console
from rich.progress import track

import jaxcnn
from experiments.benchmarking import cases
from experiments.benchmarking.chart import chart_of
from experiments.benchmarking.eager import measure_call
from experiments.benchmarking.figures import ratios, summaries
from experiments.benchmarking.layers import measure_layer, measure_pool
from experiments.benchmarking.random_problems import (
    LIMITS,
    cliffs,
    drawn,
    measure_random,
    random_table,
)
from experiments.benchmarking.tables import (
    cost_table,
    eager_table,
    scan_table,
    time_table,
)
from experiments.benchmarking.timing import Measurement, matrix_product_peak
from experiments.benchmarking.torch_process import TorchWorker
from experiments.benchmarking.training import (
    measure_bfloat16,
    measure_network,
    measure_scan,
)
from experiments.pages import pictures
from experiments.run import command
from experiments.run.command import ClaimError
from experiments.run.files import write_together
from experiments.run.origin import origin
from experiments.run.terminal import shown

SUITES = ("layers", "pools", "networks", "bfloat16", "scan", "eager")
TOLERANCE = {"layers": 1e-4, "pools": 1e-6, "eager": 1e-4, "random": 1e-4}


@dataclass(frozen=True)
class Settings:
    """Time jaxcnn, lax, flax and PyTorch."""

    suite: Literal[
        "layers", "pools", "networks", "bfloat16", "scan", "eager", "random", "all"
    ] = "all"
    """What to time."""

    quick: bool = False
    """A few cases of each suite, three rounds."""

    only: str = ""
    """Only the cases whose name contains this."""

    rounds: int = 0
    """How many rounds; 0 is 5 to 15, as many as a few seconds allow, or 100 of eager."""

    count: int = 200
    """How many random problems."""

    seed: int = 0
    """Of the random problems."""

    torch_python: Path = Path(sys.executable)
    """The interpreter that has PyTorch."""

    output_dir: Path = Path("runs/benchmark")
    """The folder for results.json and chart.png."""

    def __post_init__(self):
        command.must_be_at_least(0, rounds=self.rounds, seed=self.seed)
        command.must_be_at_least(1, count=self.count)


Case = tuple[str, Callable[[], list[Measurement]]]


def cases_of(
    suite: str, settings: Settings, peak: float, torch: TorchWorker | None
) -> Iterator[Case]:
    """The name of each case of a suite, and what measures it."""
    quick, rounds = settings.quick, settings.rounds or (3 if settings.quick else 0)
    if suite == "layers":
        for layer in cases.QUICK_LAYERS if quick else cases.LAYERS:
            yield layer.name, partial(measure_layer, layer, rounds, peak, torch)
    elif suite == "pools":
        for pool in cases.QUICK_POOLS if quick else cases.POOLS:
            yield pool.name, partial(measure_pool, pool, rounds, torch)
    elif suite == "networks":
        for name in cases.QUICK_NETWORKS if quick else cases.NETWORKS:
            yield name, partial(measure_network, name, rounds, torch)
    elif suite == "bfloat16":
        for name in cases.QUICK_NETWORKS if quick else cases.NETWORKS:
            yield name, partial(measure_bfloat16, name, rounds, torch)
    elif suite == "scan":
        for name in cases.QUICK_SCANS if quick else cases.NETWORKS:
            yield name, partial(measure_scan, name, rounds)
    elif suite == "random":
        for problem in drawn(20 if quick else settings.count, settings.seed):
            yield problem.name, partial(measure_random, problem, rounds)
    else:
        for call in cases.QUICK_CALLS if quick else cases.CALLS:
            yield call.name, partial(measure_call, call, rounds)


def measure_suite(
    suite: str, settings: Settings, peak: float, torch: TorchWorker | None, console: Console
) -> list[Measurement]:
    chosen = [
        (name, measure)
        for name, measure in cases_of(suite, settings, peak, torch)
        if settings.only.lower() in name.lower()
    ]
    measurements = []
    for name, measure in track(chosen, suite, console=console, transient=True):
        try:
            measurements += measure()
        except Exception as error:
            error.add_note(f"while measuring {suite}: {name}")
            raise
        jax.clear_caches()
        if torch:
            torch.forget()
    return measurements


def report(suite: str, measurements: list[Measurement], console: Console) -> None:
    """The tables of a suite, and what they come to."""
    own = [each for each in measurements if each.suite == suite]
    if suite == "scan":
        console.print(scan_table(own))
    elif suite == "eager":
        console.print(eager_table(own))
    elif suite == "random":
        console.print(random_table(own))
        for contestant in dict.fromkeys(each.contestant for each in own):
            if contestant != "lax":
                for unit, cases_beyond in cliffs(own, contestant).items():
                    times, more = LIMITS[unit]
                    console.print(
                        f"{contestant}: {len(cases_beyond)} take over {times} times lax's "
                        f"{unit} and {more} more",
                        *cases_beyond,
                        sep="\n  ",
                        markup=False,
                    )
    else:
        for mode in dict.fromkeys(each.mode for each in own):
            console.print(time_table(own, suite, mode))
            console.print()
        console.print(cost_table(own, suite, own[-1].mode))
    console.print()
    for summary in summaries(ratios(own)):
        console.print(str(summary), markup=False)
    console.print()


def problems(measurements: list[Measurement]) -> list[str]:
    """The contestants that are less exact than they should be."""
    return [
        f"{each.suite}, {each.case}, {each.mode}: {each.contestant} ({each.layout}) is off "
        f"by {each.error:.1e}, not {TOLERANCE[each.suite]:.0e}"
        for each in measurements
        if each.error is not None and not each.error <= TOLERANCE[each.suite]
    ]


def setting(settings: Settings, peak: float, torch: TorchWorker | None) -> dict[str, Any]:
    """What the results came from."""
    made_by = origin()
    versions = made_by["versions"]
    for package in "jaxlib", "numpy", "flax":
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    versions["torch"] = torch.version if torch else None
    chosen = {
        name: value
        for name, value in asdict(settings).items()
        if not isinstance(value, Path)
    }
    return {
        "options": chosen,
        **made_by,
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor(),
        "cores": os.cpu_count(),
        "peak_gflops": peak / 1e9,
        "compiler_options": jaxcnn.compiler_options(),
    }


def processor() -> str:
    """The processor's name, as the system states it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def write(folder: Path, setting: dict[str, Any], measurements: list[Measurement]) -> None:
    """results.json and chart.png, each whole or not at all."""
    of_all = ratios(measurements)
    results = {
        **setting,
        "problems": problems(measurements),
        "summaries": list(map(asdict, summaries(of_all))),
        "ratios": list(map(asdict, of_all)),
        "measurements": list(map(asdict, measurements)),
    }
    content = json.dumps(results, indent=1, allow_nan=False) + "\n"
    write_together(
        folder,
        {"results.json": content.encode(), "chart.png": pictures.drawn(chart_of(of_all))},
    )


def main(settings: Settings) -> None:
    """Measure, print and write; complain of contestants that are not exact."""
    console = Console(width=130, highlight=False)
    measurements: list[Measurement] = []
    with ExitStack() as stack:
        try:
            torch = stack.enter_context(TorchWorker(str(settings.torch_python)))
        except (RuntimeError, OSError) as error:
            torch = None
            console.print(f"Without PyTorch: {error}", markup=False)
        peak = matrix_product_peak()
        known = setting(settings, peak, torch)
        versions = ", ".join(f"{k} {v}" for k, v in known["versions"].items() if v)
        console.print(
            f"{known['processor']}, {known['cores']} cores, a matrix product reaches "
            f"{known['peak_gflops']:.0f} GFLOP/s; {versions}\n"
        )
        for suite in SUITES if settings.suite == "all" else (settings.suite,):
            of_suite = measure_suite(suite, settings, peak, torch, console)
            if of_suite:
                measurements += of_suite
                report(suite, of_suite, console)
                write(settings.output_dir, known, measurements)
    if not measurements:
        raise ValueError(f"no case is named like {settings.only!r}")
    written = f"Written: {shown(settings.output_dir)}/results.json and chart.png"
    console.print(written, markup=False, emoji=False)
    if wrong := problems(measurements):
        raise ClaimError("\n".join(wrong))


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
