"""What was measured, as ratios, and as numbers and tables in Markdown.

It wants nothing that a machine without a network may lack.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from experiments.benchmarking.layers import WITHOUT_LOOPS
from experiments.benchmarking.timing import Measurement

PEERS = ("lax", "flax", "torch")


@dataclass(frozen=True)
class Ratio:
    """How many times faster than a peer; both with the better of their layouts."""

    suite: str
    case: str
    mode: str
    contestant: str
    peer: str
    times_faster: float


@dataclass(frozen=True)
class Summary:
    """The ratios of a suite in one mode against one peer."""

    suite: str
    mode: str
    contestant: str
    peer: str
    cases: int
    geometric_mean: float
    worst: float
    worst_case: str

    def __str__(self):
        return (
            f"{self.suite}, {self.mode}: {self.contestant} is {self.geometric_mean:.2f} "
            f"times as fast as {self.peer} (geometric mean of {self.cases}; worst "
            f"{self.worst:.2f}, {self.worst_case})"
        )


def fastest(
    measurements: Sequence[Measurement], contestant: str, mode: str | None = None
) -> Measurement | None:
    """A contestant's measurement in the better of its layouts; None if it took no part."""
    own = [
        each
        for each in measurements
        if each.contestant == contestant and mode in (None, each.mode)
    ]
    return min(own, key=lambda each: each.median_ms, default=None)


def by_case(
    measurements: Sequence[Measurement],
) -> dict[tuple[str, str, str], list[Measurement]]:
    """The measurements, grouped by suite, case and mode."""
    groups = {}
    for each in measurements:
        groups.setdefault((each.suite, each.case, each.mode), []).append(each)
    return groups


def ratios(measurements: Sequence[Measurement]) -> list[Ratio]:
    """The ratios of jaxcnn, with and without loops, to each peer that took part."""
    of_all = []
    for which, group in by_case(measurements).items():
        for contestant in "jaxcnn", WITHOUT_LOOPS:
            own = fastest(group, contestant)
            for peer in PEERS:
                other = fastest(group, peer)
                if own and other:
                    ratio = other.median_ms / own.median_ms
                    of_all.append(Ratio(*which, contestant, peer, ratio))
    return of_all


def geometric_mean(values: Sequence[float]) -> float:
    return math.exp(sum(map(math.log, values)) / len(values))


def summaries(ratios: Sequence[Ratio]) -> list[Summary]:
    groups: dict[tuple[str, str, str, str], list[Ratio]] = {}
    for each in ratios:
        key = each.suite, each.mode, each.contestant, each.peer
        groups.setdefault(key, []).append(each)
    of_all = []
    for key, group in groups.items():
        worst = min(group, key=lambda each: each.times_faster)
        mean = geometric_mean([each.times_faster for each in group])
        of_all.append(Summary(*key, len(group), mean, worst.times_faster, worst.case))
    return of_all


# --- In words -------------------------------------------------------------------------


def number(measurement: Measurement | None) -> str:
    if measurement is None:
        return "–"
    milliseconds = measurement.median_ms
    return f"{milliseconds:,.{2 if milliseconds < 10 else 1 if milliseconds < 100 else 0}f}"


def microseconds(measurement: Measurement | None) -> str:
    return "–" if measurement is None else f"{1000 * measurement.median_ms:,.0f}"


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    ruler = ["---", *["---:"] * (len(titles) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (titles, ruler, *rows))


def figure(value: float) -> str:
    """Two digits, or all those before the point."""
    return f"{value:.{2 if value < 0.995 else 1 if value < 9.95 else 0}f}"
