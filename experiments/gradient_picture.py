"""What :mod:`experiments.compare_gradients` found, as a heat map."""

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from experiments.gradient_arguments import without_dimension
from experiments.gradient_report import (
    BY_REFERENCE,
    Comparison,
    by_engine,
    cells,
    grouped,
    in_dtype,
    number_of_gradients,
)
from jaxcnn.engines import ENGINES

COLUMNS = [
    *BY_REFERENCE,
    *(by_engine(engine, "float32") for engine in ("auto", *ENGINES)),
    *(in_dtype(dtype, "halves") for dtype in ("bfloat16", "float16")),
]
COLOURS = colormaps["YlGn_r"].with_extremes(over="#c00020", bad="white")
LEAST = 1e-7
SHARES = LogNorm(LEAST, 1)
"""Of what is allowed: dark where nothing is wrong at all, red where it is too much."""


def picture_of(comparisons: list[Comparison]) -> Figure:
    """A cell for each operation, of however many dimensions, and each column."""
    rows = grouped(comparisons, lambda each: without_dimension(each.operation))
    table = [cells(row, COLUMNS) for row in rows.values()]
    figure = Figure(figsize=(12, 2.6 + 0.25 * len(rows)), layout="constrained")
    axes = figure.subplots()
    shares = [[one.share if one.text != "–" else np.nan for one in row] for row in table]
    image = axes.imshow(np.maximum(shares, LEAST), COLOURS, SHARES, aspect="auto", zorder=0)
    for i, row in enumerate(table):
        for j, worst in enumerate(row):
            if worst.text != "–":
                ink = "white" if worst.share < 1e-4 or worst.is_wrong else "black"
                axes.text(
                    *(j, i, worst.text), ha="center", va="center", fontsize=7, color=ink
                )
            if worst.is_wrong:
                axes.text(j + 0.38, i, "✗", color="white", ha="center", va="center")
    axes.set_yticks(range(len(rows)), rows, family="monospace", fontsize=9)
    axes.set_xticks(range(len(COLUMNS)), [column.title for column in COLUMNS], rotation=35)
    axes.xaxis.tick_top()
    for label in axes.get_xticklabels():
        label.set_horizontalalignment("left")
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    name_groups(axes)
    bar = figure.colorbar(image, ax=axes, extend="max", pad=0.01, fraction=0.025)
    bar.set_label("deviation ÷ what is allowed")
    figure.suptitle(
        f"How far {number_of_gradients(comparisons):,} hand-written gradients, and their "
        f"values, are from their references",
        fontsize=13,
        fontweight="bold",
    )
    return figure


def name_groups(axes: Axes) -> None:
    """Below the columns, and a gap between those of one group and of the next."""
    bottom = axes.get_ylim()[0]
    groups = grouped(enumerate(COLUMNS), lambda each: each[1].group)
    for name, columns in groups.items():
        first, last = columns[0][0], columns[-1][0]
        axes.text((first + last) / 2, bottom + 0.7, name, ha="center", fontweight="bold")
        if first:
            axes.axvline(first - 0.5, color="white", linewidth=4)
    for row in range(int(bottom)):
        axes.axhline(row + 0.5, color="white", linewidth=0.8)
