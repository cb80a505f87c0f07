"""The pictures of a run, drawn with axes or pixel by pixel.

What is signed has one colour scale everywhere: blue is negative, white is zero, red is
positive.
"""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, StrMethodFormatter

from experiments.data.sets import DIGITS
from experiments.run.files import replacing

TRAIN, TEST = "#1f77b4", "#d62728"
SIGNED = "RdBu_r"


def save(figure: Figure, path: Path) -> None:
    with replacing(path) as partial:
        partial.write_bytes(drawn(figure))


def drawn(figure: Figure) -> bytes:
    """The figure as a PNG."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150)
    return file.getvalue()


# --- With axes ------------------------------------------------------------------------


def plain(axes: Axes) -> None:
    """A faint grid, and no frame where there is no scale."""
    axes.grid(alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def curves(
    records: Sequence[dict[str, Any]], title: str = "", test_set: str = "test set"
) -> Figure:
    """Loss and accuracy of the training batches and of the test set, epoch by epoch."""
    epochs = [record["epoch"] for record in records]
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    left, right = figure.subplots(1, 2)
    figure.suptitle(title)
    for part, label, colour in (
        ("train", "training batches", TRAIN),
        ("test", test_set, TEST),
    ):
        loss = [record[f"{part}_loss"] for record in records]
        accuracy = [100 * record[f"{part}_accuracy"] for record in records]
        left.plot(epochs, loss, ".-", color=colour, label=label)
        right.plot(epochs, accuracy, ".-", color=colour, label=label)
    left.set(xlabel="epoch", ylabel="loss (softmax cross-entropy)", yscale="log")
    left.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    left.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    left.yaxis.set_minor_formatter(NullFormatter())
    right.set(xlabel="epoch", ylabel="accuracy, %")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        plain(axes)
        axes.legend(frameon=False)
    return figure


def filters(w: np.ndarray, title: str = "") -> Figure:
    """The first layer's kernels, ``(K_h, K_w, C_in, C_out)``, one small image each.

    Those of three input channels are in their colours, and grey is zero; others are the
    mean over input channels.
    """
    colour = w.shape[2] == 3
    kernels = np.moveaxis(w if colour else w.mean(axis=2), -1, 0)
    limit = float(np.abs(kernels).max()) or 1.0
    columns = min(8 if len(kernels) <= 32 else 16, len(kernels))
    rows = -(-len(kernels) // columns)
    figure = Figure(figsize=(9, 8 * rows / columns + 0.4), layout="constrained")
    figure.suptitle(title)
    grid = figure.subplots(rows, columns, squeeze=False)
    scale = ScalarMappable(Normalize(-limit, limit), SIGNED)
    for axes in grid.flat:
        axes.axis("off")
    for axes, kernel in zip(grid.flat, kernels, strict=False):
        if colour:
            axes.imshow((1 + kernel / limit) / 2)
        else:
            axes.imshow(kernel, cmap=scale.cmap, norm=scale.norm)
    if not colour:
        figure.colorbar(scale, ax=grid, aspect=12, fraction=0.05, label="weight")
    return figure


def confusion(
    labels: np.ndarray,
    predictions: np.ndarray,
    title: str = "",
    classes: Sequence[str] = DIGITS,
) -> Figure:
    """How many images of each class were taken for which."""
    counts = np.zeros((len(classes), len(classes)), int)
    np.add.at(counts, (labels, predictions), 1)
    figure = Figure(figsize=(7, 6.4), layout="constrained")
    axes = figure.subplots()
    # Shade by each row's share, on a scale that lets single mistakes be seen.
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share**0.3, cmap="Blues", vmin=0, vmax=1)
    for truth, prediction in np.argwhere(counts):
        axes.text(
            prediction,
            truth,
            f"{counts[truth, prediction]:,}",
            ha="center",
            va="center",
            color="white" if share[truth, prediction] > 0.2 else "black",
            fontsize=10,
        )
    axes.set(title=title, xlabel="predicted class", ylabel="true class")
    axes.set_yticks(range(len(classes)), classes)
    slanted = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    long = max(map(len, classes)) > 3
    axes.set_xticks(range(len(classes)), classes, **slanted if long else {})
    axes.spines[:].set_color("#cccccc")
    return figure


# --- Pixel by pixel -------------------------------------------------------------------


def image(values: np.ndarray, brightest: int) -> bytes:
    """An image as it is stored, ``(H, W, 1)`` or ``(H, W, 3)``, as a PNG of its size.

    Args:
      values: from 0 to ``brightest``.
      brightest: what is shown as white.
    """
    return _png(np.broadcast_to(values / brightest, (*values.shape[:2], 3)))


def signed(values: np.ndarray, limit: float) -> bytes:
    """Numbers ``(H, W)`` from −limit to limit, in colours, as a PNG of their size."""
    return _png(mpl.colormaps[SIGNED](Normalize(-limit, limit)(values)))


def _png(colours):
    file = io.BytesIO()
    imsave(file, np.ascontiguousarray(colours), format="png")
    return file.getvalue()
