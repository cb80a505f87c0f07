"""What :mod:`experiments.compare_gradients` found, as a heat map."""

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from experiments.gradients.arguments import without_dimension
from experiments.gradients.tables import (
    BY_REFERENCE,
    Column,
    Comparison,
    by_engine,
    cells,
    grouped,
    in_dtype,
    number_of_gradients,
)
from jaxcnn.engines import ENGINES

BY_ENGINE = [by_engine(engine, "float32") for engine in ("auto", *ENGINES)]
BY_DTYPE = [in_dtype(dtype, "halves") for dtype in ("bfloat16", "float16")]
COLUMNS = [*BY_REFERENCE, *BY_ENGINE, *BY_DTYPE]
COLOURS = colormaps["YlGn_r"].with_extremes(over="#c00020", bad="white")
LEAST = 1e-7
SHARES = LogNorm(LEAST, 1)
"""Of what is allowed: dark where nothing is wrong at all, red where it is too much."""


def picture_of(comparisons: list[Comparison]) -> Figure:
    """A cell for each operation, of however many dimensions, and each column."""
    rows = grouped(comparisons, lambda each: without_dimension(each.operation))
    columns = [column for column in COLUMNS if any(map(column.has, comparisons))]
    table = [cells(row, columns) for row in rows.values()]
    width = 3.5 + 0.58 * len(columns)
    figure = Figure(figsize=(width, 2.6 + 0.25 * len(rows)), layout="constrained")
    axes = figure.subplots()
    shares = [[np.nan if one.is_empty else one.share for one in row] for row in table]
    shares = np.maximum(shares, LEAST)
    image = axes.imshow(shares, COLOURS, SHARES, aspect="auto", zorder=0)
    for i, row in enumerate(table):
        for j, worst in enumerate(row):
            if not worst.is_empty:
                ink = "white" if worst.share < 1e-4 or worst.is_wrong else "black"
                text = f"✗ {worst.text}" if worst.is_wrong else worst.text
                axes.text(j, i, text, ha="center", va="center", fontsize=7, color=ink)
    axes.set_yticks(range(len(rows)), rows, family="monospace", fontsize=9)
    titles = [column.title for column in columns]
    axes.set_xticks(range(len(columns)), titles, rotation=35, ha="left")
    axes.xaxis.tick_top()
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for i in range(len(rows)):
        axes.axhline(i + 0.5, color="white", linewidth=0.8)
    name_groups(axes, columns)
    bar = figure.colorbar(image, ax=axes, extend="max", pad=0.01, fraction=0.025)
    bar.set_label("deviation ÷ what is allowed")
    figure.suptitle(
        f"How far {number_of_gradients(comparisons):,} hand-written gradients, and as many "
        f"tangents, are from their references",
        fontsize=13,
        fontweight="bold",
    )
    return figure


def name_groups(axes: Axes, columns: Sequence[Column]) -> None:
    """Below the columns, and a gap between those of one group and of the next."""
    bottom = axes.get_ylim()[0]
    groups = grouped(range(len(columns)), lambda j: columns[j].group)
    for name, of_group in groups.items():
        first, last = of_group[0], of_group[-1]
        axes.text((first + last) / 2, bottom + 0.7, name, ha="center", fontweight="bold")
        if first:
            axes.axvline(first - 0.5, color="white", linewidth=4)
