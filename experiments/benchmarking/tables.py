"""What :mod:`experiments.benchmark` measured, as tables on a terminal."""

from collections.abc import Sequence

from rich import box
from rich.table import Table

from experiments.benchmarking.figures import (
    PEERS,
    by_case,
    fastest,
    microseconds,
    number,
)
from experiments.benchmarking.layers import WITHOUT_LOOPS
from experiments.benchmarking.timing import Measurement


def empty_table(title: str, *columns: str) -> Table:
    table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def time_table(measurements: Sequence[Measurement], suite: str, mode: str) -> Table:
    """A row for each case: milliseconds, and how many times faster jaxcnn is."""
    groups = {
        case: group
        for (its_suite, case, its_mode), group in by_case(measurements).items()
        if (its_suite, its_mode) == (suite, mode)
    }
    took_part = {each.contestant for group in groups.values() for each in group}
    peers = [peer for peer in PEERS if peer in took_part]
    has_peak = any(each.peak_fraction for group in groups.values() for each in group)
    columns = ["jaxcnn", "spread", "layout", *peers, *(f"× {peer}" for peer in peers)]
    if WITHOUT_LOOPS in took_part:
        columns += ["without\nloops", *(f"× {peer}" for peer in peers)]
    if has_peak:
        columns.append("of\npeak")
    table = empty_table(f"{suite}, {mode}: ms, × is times faster", *columns)
    for case, group in groups.items():
        own = fastest(group, "jaxcnn")
        if own is None:
            continue
        spread = (own.quartile3_ms - own.quartile1_ms) / own.median_ms
        others = [fastest(group, peer) for peer in peers]
        cells = [number(own), f"{100 * spread:.0f} %", own.layout, *map(number, others)]
        cells += [times_faster(own, other) for other in others]
        if WITHOUT_LOOPS in took_part:
            advised = fastest(group, WITHOUT_LOOPS)
            cells += [number(advised), *(times_faster(advised, o) for o in others)]
        if has_peak:
            cells.append(f"{100 * (own.peak_fraction or 0):.0f} %")
        table.add_row(case, *cells)
    return table


def cost_table(measurements: Sequence[Measurement], suite: str, mode: str) -> Table:
    """A row for each case: error, time to compile and temporary memory."""
    chosen = [each for each in measurements if (each.suite, each.mode) == (suite, mode)]
    peers = [
        name
        for name in ("jaxcnn", "lax", "flax")
        if any(each.contestant == name for each in chosen)
    ]
    columns = [f"MiB\n{name}" for name in peers] + [f"compile, s\n{name}" for name in peers]
    has_error = any(each.error is not None for each in chosen)
    if has_error:
        columns += [f"error\n{name}" for name in peers]
    table = empty_table(f"{suite}, {mode}: what it costs", *columns)
    for (_, case, _), group in by_case(chosen).items():
        of_peers = [fastest(group, peer) for peer in peers]
        cells = [
            f"{(each.temporary_bytes or 0) / 2**20:.1f}" if each else ""
            for each in of_peers
        ]
        cells += [f"{each.compile_seconds or 0:.2f}" if each else "" for each in of_peers]
        if has_error:
            cells += [f"{each.error or 0:.0e}" if each else "" for each in of_peers]
        table.add_row(case, *cells)
    return table


def scan_table(measurements: Sequence[Measurement]) -> Table:
    """A row for each network: a step alone, a step in a scan, and their ratio."""
    chosen = [each for each in measurements if each.suite == "scan"]
    names = list(dict.fromkeys(each.contestant for each in chosen))
    columns = [
        f"{name.replace(' with ', chr(10) + 'with ')}\n{what}"
        for name in names
        for what in ("alone", "in scan", "slower")
    ]
    table = empty_table("scan: ms for a step", *columns, "× lax\nin scan")
    for case in dict.fromkeys(each.case for each in chosen):
        group = [each for each in chosen if each.case == case]
        cells = []
        for name in names:
            alone, inside = fastest(group, name, "step"), fastest(group, name, "scan")
            slower = (
                f"{inside.median_ms / alone.median_ms:.2f}" if alone and inside else "–"
            )
            cells += [number(alone), number(inside), slower]
        own = fastest(group, "jaxcnn", "scan")
        table.add_row(case, *cells, times_faster(own, fastest(group, "lax", "scan")))
    return table


def eager_table(measurements: Sequence[Measurement]) -> Table:
    """A row for each call: microseconds, and jaxcnn's divided by lax's."""
    columns = "jaxcnn", "spread", "lax", "jaxcnn / lax"
    table = empty_table("eager: µs for a call outside of jit", *columns)
    for (_, case, _), group in by_case(measurements).items():
        own, other = fastest(group, "jaxcnn"), fastest(group, "lax")
        if own and other:
            spread = (own.quartile3_ms - own.quartile1_ms) / own.median_ms
            quotient = f"{own.median_ms / other.median_ms:.2f}"
            cells = microseconds(own), f"{100 * spread:.0f} %", microseconds(other)
            table.add_row(case, *cells, quotient)
    return table


def times_faster(own: Measurement | None, other: Measurement | None) -> str:
    if own is None or other is None:
        return "–"
    ratio = other.median_ms / own.median_ms
    return f"[red]{ratio:.2f}" if ratio < 1 else f"{ratio:.2f}"
