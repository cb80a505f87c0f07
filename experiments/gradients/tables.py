"""What :mod:`experiments.compare_gradients` found: tables and a page."""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from rich import box
from rich.table import Table

from experiments.pages.web_page import Picture, rendered
from jaxcnn import checking

TEMPLATE = Path(__file__).with_name("page.html")
TOLERANCE = {"float64": 1e-10, "float32": 1e-5, "bfloat16": 1.2e-2, "float16": 1.5e-3}
"""For the halves one and a half units in the last place: a result may be rounded twice."""
KINDS = ("value", "gradient", "tangent")
"""What is compared: the value, and by each argument its gradient and its tangent."""
REFERENCES = ("autodiff", "XLA", "differences", "PyTorch")


@dataclass(frozen=True)
class Comparison:
    """What a hand-written rule gives, beside one reference.

    Attributes:
      operation, configuration: of what.
      engine: which computed it.
      dtype: in which it was computed; the reference is in float64.
      quantity: "value", or of an argument, say x, "gradient of x" or "tangent along x".
      reference: autodiff, XLA, differences or PyTorch.
      error: the largest deviation by the reference's largest entry; None if there is
        no such number.
      problem: what is wrong, or empty.
    """

    operation: str
    configuration: str
    engine: str
    dtype: str
    quantity: str
    reference: str
    error: float | None
    problem: str

    @property
    def kind(self) -> str:
        """One of KINDS."""
        return self.quantity.split()[0]

    def __str__(self):
        return (
            f"{self.operation}, {self.configuration}: the {self.dtype} {self.quantity} by "
            f"the engine {self.engine}, compared with {self.reference}, {self.problem}"
        )


def quantities(arguments: Iterable[str]) -> list[str]:
    """What is compared of an operation, in order.

    >>> quantities(["x", "w"])
    ['value', 'gradient of x', 'gradient of w', 'tangent along x', 'tangent along w']
    """
    arguments = list(arguments)
    return [
        "value",
        *(f"gradient of {name}" for name in arguments),
        *(f"tangent along {name}" for name in arguments),
    ]


@dataclass(frozen=True)
class Timing:
    """An operation beside others, set there by :func:`jaxcnn.compare`."""

    operation: str
    shapes: str
    autodiff: checking.Comparison
    XLA: checking.Comparison


# --- The worst of many ----------------------------------------------------------------


class Worst(NamedTuple):
    """The worst of some comparisons.

    Attributes:
      error: the largest; None if there is none, or one that is no number.
      share: of what is allowed, the largest; infinite where there is no number.
      is_wrong: whether one disagrees.
    """

    error: float | None
    share: float
    is_wrong: bool

    @property
    def is_empty(self) -> bool:
        return self.error is None and not self.is_wrong

    @property
    def text(self) -> str:
        if self.error is None:
            return "–" if self.is_empty else "none"
        return f"{self.error:.1e}" if self.error else "0"


def worst_of(comparisons: Iterable[Comparison]) -> Worst:
    chosen = list(comparisons)
    is_wrong = any(each.problem for each in chosen)
    errors = [(each.error, TOLERANCE[each.dtype]) for each in chosen]
    numbers = [(error, tolerance) for error, tolerance in errors if error is not None]
    if not numbers or len(numbers) < len(errors):
        return Worst(None, math.inf, is_wrong)
    share = max(error / tolerance for error, tolerance in numbers)
    return Worst(max(numbers)[0], share, is_wrong)


def grouped(things: Iterable, key: Callable[[Any], Any]) -> dict[Any, list]:
    """Lists of those that have the key in common, by that key."""
    groups = defaultdict(list)
    for each in things:
        groups[key(each)].append(each)
    return groups


class Column(NamedTuple):
    """A column of a table or of the heat map: which comparisons belong there."""

    group: str
    title: str
    has: Callable[[Comparison], bool]


def against(reference: str) -> Column:
    return Column(
        "float64, against",
        reference,
        lambda each: (each.dtype, each.reference) == ("float64", reference),
    )


def in_dtype(dtype: str, group: str = "") -> Column:
    return Column(group, dtype, lambda each: each.dtype == dtype)


def by_engine(engine: str, dtype: str) -> Column:
    return Column(
        f"{dtype}, by engine",
        engine,
        lambda each: (each.dtype, each.engine) == (dtype, engine),
    )


BY_REFERENCE = list(map(against, REFERENCES))
IN_OTHERS = [in_dtype(dtype) for dtype in TOLERANCE if dtype != "float64"]
OF_ALL = [*BY_REFERENCE, *IN_OTHERS]


def cells(comparisons: Sequence[Comparison], columns: Sequence[Column]) -> list[Worst]:
    return [worst_of(filter(column.has, comparisons)) for column in columns]


def nested(comparisons: Iterable[Comparison]) -> dict:
    """Errors by operation, configuration, engine, dtype, quantity and reference."""
    tree: dict[str, Any] = {}
    for each in comparisons:
        branch = tree
        for name in (each.operation, each.configuration, each.engine, each.dtype):
            branch = branch.setdefault(name, {})
        branch.setdefault(each.quantity, {})[each.reference] = each.error
    return tree


# --- In words, and as tables ----------------------------------------------------------


def summary_of(comparisons: list[Comparison]) -> str:
    wrong = sum(each.problem != "" for each in comparisons)
    lines = [
        f"{number_of_gradients(comparisons):,} gradients and as many tangents, "
        f"{len(comparisons):,} comparisons: "
        + (f"{wrong:,} disagree." if wrong else "all agree.")
    ]
    for dtype, of_dtype in grouped(comparisons, lambda each: each.dtype).items():
        worst = dict.fromkeys(KINDS, 0.0)
        for each in of_dtype:
            worst[each.kind] = max(worst[each.kind], each.error or 0)
        of_kinds = ", ".join(f"{error:.1e} of a {kind}" for kind, error in worst.items())
        lines.append(f"{dtype}: at worst {of_kinds}; {TOLERANCE[dtype]:.2g} is allowed.")
    return "\n".join(lines)


def number_of_gradients(comparisons: list[Comparison]) -> int:
    """How many gradients were compared, and tangents: each engine's and dtype's count."""
    return len(
        {
            (c.operation, c.configuration, c.quantity, c.engine, c.dtype)
            for c in comparisons
            if c.kind == "gradient"
        }
    )


def table_of(comparisons: list[Comparison]) -> Table:
    """A row for each operation, or, of a single one, for each configuration."""
    operations = grouped(comparisons, lambda each: each.operation)
    rows = operations
    if len(operations) == 1:
        rows = grouped(comparisons, lambda each: each.configuration)
    title = "Largest deviation, relative to the largest entry"
    table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("\n" + ("configuration" if rows is not operations else "operation"))
    for column in OF_ALL:
        heading = (
            f"float64\n{column.title}" if column in BY_REFERENCE else f"\n{column.title}"
        )
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for name, row in rows.items():
        wrong = any(each.problem for each in row)
        texts = (styled(each) for each in cells(row, OF_ALL))
        table.add_row(name, *texts, "[red]✗" if wrong else "[green]✓")
    return table


def styled(worst: Worst) -> str:
    return f"[red]{worst.text}" if worst.is_wrong else worst.text


def engine_table(comparisons: list[Comparison]) -> Table:
    title = "The same, by engine"
    table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("engine")
    table.add_column("gradients", justify="right")
    columns = [in_dtype(dtype) for dtype in TOLERANCE]
    for column in columns:
        table.add_column(column.title, justify="right", no_wrap=True)
    for engine, row in grouped(comparisons, lambda each: each.engine).items():
        texts = map(styled, cells(row, columns))
        table.add_row(engine, f"{number_of_gradients(row):,}", *texts)
    return table


def timing_table(timings: list[Timing]) -> Table:
    """Time and memory of the others, as multiples of the rule's."""
    title = "Value and gradients, float32: times as much as the hand-written rule"
    table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("operation", no_wrap=True)
    table.add_column("\nrule, ms", justify="right")
    for name in "autodiff", "XLA":
        table.add_column(f"{name}\ntime", justify="right", no_wrap=True)
        table.add_column("\nmemory", justify="right", no_wrap=True)
    table.add_column("second derivatives\noff by", justify="right", no_wrap=True)
    for row in map(timing_row, timings):
        table.add_row(*row)
    return table


def timing_row(timing: Timing) -> list[str]:
    row = [timing.operation, f"{timing.XLA.milliseconds[0]:.2f}"]
    for beside in timing.autodiff, timing.XLA:
        ours, theirs = beside.milliseconds
        row.append(f"{theirs / ours:.2f} ×")
        ours, theirs = beside.temporary_bytes
        row.append(f"{theirs / ours:.2f} ×" if ours and theirs is not None else "–")
    second = [
        each.error
        for beside in (timing.autodiff, timing.XLA)
        for each in beside.differences
        if each.what == "second derivative" and not each.problem
    ]
    return [*row, f"{max(second):.1e}" if second else "–"]


# --- The page -------------------------------------------------------------------------


def page_of(
    comparisons: list[Comparison],
    timings: list[Timing],
    picture: bytes,
    origin: dict[str, Any],
) -> str:
    """One page with all there is to see, which needs nothing but itself."""
    operations = []
    for operation, of in grouped(comparisons, lambda each: each.operation).items():
        rows = grouped(of, lambda each: (each.configuration, each.engine))
        operations.append(
            {
                "name": operation,
                "is_wrong": any(each.problem for each in of),
                "gradients": number_of_gradients(of),
                "rows": [(*names, cells(row, OF_ALL)) for names, row in rows.items()],
            }
        )
    return rendered(
        TEMPLATE,
        summary=summary_of(comparisons).splitlines(),
        problems=[str(each) for each in comparisons if each.problem],
        picture=Picture(
            picture,
            "A heat map of deviations, by operation, reference, engine and precision",
        ),
        columns=[column.title for column in OF_ALL],
        operations=operations,
        timings=list(map(timing_row, timings)),
        **origin,
    )
