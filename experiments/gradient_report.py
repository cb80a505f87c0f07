"""What :mod:`experiments.compare_gradients` found, as tables and as a picture."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rich import box
from rich.table import Table

TOLERANCE = {"float64": 1e-10, "float32": 1e-5}
REFERENCES = {
    "float64": ("autodiff", "XLA", "differences"),
    "float32": ("autodiff", "XLA", "float64"),
}


@dataclass(frozen=True)
class Comparison:
    """A gradient by the hand-written rule, beside one reference.

    Attributes:
      operation, configuration, argument: which gradient.
      dtype: in which the rule computed it.
      reference: autodiff, XLA or differences; float64 is all three, in float64.
      error: the largest deviation by the reference's largest entry; None if there is
        no such number.
      problem: what is wrong, or empty.
    """

    operation: str
    configuration: str
    argument: str
    dtype: str
    reference: str
    error: float | None
    problem: str

    def __str__(self):
        return (
            f"{self.operation}, {self.configuration}: the {self.dtype} gradient of "
            f"{self.argument}, compared with {self.reference}, {self.problem}"
        )


@dataclass(frozen=True)
class Timing:
    """Milliseconds for the value and the gradients of one operation, in float32."""

    operation: str
    shapes: str
    custom: float
    autodiff: float
    xla: float


def table_of(comparisons: list[Comparison]) -> Table:
    """A row for each operation and configuration."""
    title = "Hand-written gradients: largest deviation, relative to the largest entry"
    table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, padding=0)
    table.add_column("\nconfiguration", no_wrap=True)
    table.add_column("\nof", no_wrap=True)
    for dtype, references in REFERENCES.items():
        for reference in references:
            table.add_column(f"{dtype}\n{reference}", justify="right", no_wrap=True)
    table.add_column("")
    by_row = {}
    for each in comparisons:
        by_row.setdefault((each.operation, each.configuration), []).append(each)
    previous = None
    for (operation, configuration), row in by_row.items():
        if operation != previous:
            table.add_section()
            table.add_row(f"[bold]{operation}")
            previous = operation
        wrong = any(each.problem for each in row)
        table.add_row(
            f" {configuration}",
            " ".join(dict.fromkeys(each.argument for each in row)),
            *(
                worst_of([c for c in row if (c.dtype, c.reference) == (dtype, reference)])
                for dtype, references in REFERENCES.items()
                for reference in references
            ),
            "[red]✗" if wrong else "[green]✓",
        )
    return table


def worst_of(comparisons: list[Comparison]) -> str:
    if not comparisons:
        return "–"
    errors = [each.error for each in comparisons if each.error is not None]
    if len(errors) < len(comparisons):
        return "[red]none"
    worst = max(errors)
    text = f"{worst:.1e}" if worst else "0"
    return f"[red]{text}" if any(each.problem for each in comparisons) else text


def timing_table(timings: list[Timing]) -> Table:
    title = "Value and gradients, float32: times as long as the hand-written rule"
    table = Table(title=title, box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("operation", no_wrap=True)
    table.add_column("arguments")
    for column in ("rule, ms", "autodiff", "XLA"):
        table.add_column(column, justify="right", no_wrap=True)
    for each in timings:
        ratios = (f"{other / each.custom:.2f} ×" for other in (each.autodiff, each.xla))
        table.add_row(each.operation, each.shapes, f"{each.custom:.2f}", *ratios)
    return table


def summary_of(comparisons: list[Comparison]) -> str:
    wrong = sum(each.problem != "" for each in comparisons)
    lines = [
        f"{number_of_gradients(comparisons)} gradients, {len(comparisons)} comparisons: "
        + (f"{wrong} disagree." if wrong else "all agree.")
    ]
    for dtype, tolerance in TOLERANCE.items():
        worst = max(c.error or 0 for c in comparisons if c.dtype == dtype)
        lines.append(f"{dtype}: {worst:.1e} at worst; {tolerance:.0e} is allowed.")
    return "\n".join(lines)


def number_of_gradients(comparisons: list[Comparison]) -> int:
    return len({(c.operation, c.configuration, c.argument) for c in comparisons})


MARKS = {
    "autodiff": ("#0072b2", "autodiff of the same loops"),
    "XLA": ("#e69f00", "XLA's own operation"),
    "differences": ("#009e73", "finite differences"),
    "float64": ("#cc79a7", "all three, in float64"),
}
ZERO = {"float64": 1e-18, "float32": 1e-14}  # where a deviation of zero is drawn


def picture_of(comparisons: list[Comparison]) -> Figure:
    """Every error, by operation; float64 on the left and float32 on the right."""
    operations = list(dict.fromkeys(each.operation for each in comparisons))
    figure = Figure(figsize=(10, 2.2 + 0.42 * len(operations)), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, dtype in zip(panels, REFERENCES, strict=True):
        draw(axes, dtype, comparisons, operations)
    handles = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(
        handles.values(),
        handles.keys(),
        title="the hand-written gradient, compared with",
        loc="outside lower center",
        ncols=len(handles),
        frameon=False,
        markerscale=2,
        handletextpad=0.2,
    )
    gradients = number_of_gradients(comparisons)
    figure.suptitle(
        f"How far {gradients} hand-written gradients are from their references",
        fontsize=14,
        fontweight="bold",
    )
    return figure


def draw(
    axes: Axes, dtype: str, comparisons: list[Comparison], operations: list[str]
) -> None:
    """One dot for each comparison in this dtype, one lane for each reference."""
    tolerance, zero = TOLERANCE[dtype], ZERO[dtype]
    rng = np.random.default_rng(0)
    farthest = tolerance
    for lane, reference in enumerate(REFERENCES[dtype]):
        colour, label = MARKS[reference]
        drawn = [
            (each.error, operations.index(each.operation))
            for each in comparisons
            if (each.dtype, each.reference) == (dtype, reference) and each.error is not None
        ]
        errors = [max(error, zero) for error, _ in drawn]
        heights = [row + 0.26 * (lane - 1) + rng.uniform(-0.09, 0.09) for _, row in drawn]
        axes.scatter(
            errors, heights, s=16, color=colour, alpha=0.6, linewidths=0, label=label
        )
        farthest = max([farthest, *errors])
    right = 20 * farthest
    axes.axvspan(tolerance, right, color="#b00020", alpha=0.07, linewidth=0)
    axes.axvline(tolerance, color="#b00020", linewidth=1.2)
    axes.annotate(
        f"allowed: {tolerance:.0e}".replace("e-0", "e-"),
        (tolerance, 1),
        xycoords=("data", "axes fraction"),
        xytext=(0, 4),
        textcoords="offset points",
        ha="center",
        color="#b00020",
    )
    axes.set_title(f"in {dtype}", loc="left", fontweight="bold")
    axes.set_xscale("log")
    axes.set_xlim(zero / 6, right)
    between = 2 if farthest == tolerance else 4  # decades: room for the labels
    powers = range(round(np.log10(zero)) + 2, round(np.log10(farthest)) + 1, between)
    axes.set_xticks(
        [zero, *(10.0**power for power in powers)],
        ["equal", *(f"$10^{{{power}}}$" for power in powers)],
    )
    axes.set_xticks([], minor=True)
    axes.set_yticks(range(len(operations)), operations, family="monospace")
    axes.set_ylim(len(operations) - 0.5, -0.5)
    for boundary in range(1, len(operations)):
        axes.axhline(boundary - 0.5, color="#dddddd", linewidth=0.8)
    axes.tick_params(length=0)
    axes.grid(axis="x", color="#eeeeee")
    axes.set_axisbelow(True)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("largest deviation ÷ largest entry of the gradient")
