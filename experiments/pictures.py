"""The pictures of a run: its curves, its filters, its mistakes."""

from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure

from experiments.run_folder import replacing

TRAIN, TEST = "#1f77b4", "#d62728"


def save(figure: Figure, path: Path) -> None:
    with replacing(path) as partial:
        figure.savefig(partial, dpi=150)
    plt.close(figure)


def curves(records: list[dict[str, Any]], title: str) -> Figure:
    """Loss and error of the training batches and of the test set, epoch by epoch."""
    epochs = [record["epoch"] for record in records]
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    figure.suptitle(title)
    for part, label, colour in (
        ("train", "training batches", TRAIN),
        ("test", "test set", TEST),
    ):
        loss = [record[f"{part}_loss"] for record in records]
        accuracy = [100 * record[f"{part}_accuracy"] for record in records]
        left.plot(epochs, loss, ".-", color=colour, label=label)
        right.plot(epochs, accuracy, ".-", color=colour, label=label)
    left.set(xlabel="epoch", ylabel="softmax cross-entropy", yscale="log")
    last = 100 * records[-1]["test_accuracy"]
    right.set(
        xlabel="epoch", ylabel="accuracy, %", title=f"last: {last:.2f} % of the test set"
    )
    right.set_ylim(top=101)
    for axes in (left, right):
        axes.grid(alpha=0.3)
        axes.legend()
    return figure


def filters(w: np.ndarray, title: str) -> Figure:
    """The first layer's kernels, ``(K_h, K_w, C_in, C_out)``, one small image each."""
    kernels = np.moveaxis(w.mean(axis=2), -1, 0)
    columns = min(8, len(kernels))
    rows = -(-len(kernels) // columns)
    figure, grid = plt.subplots(
        rows, columns, figsize=(columns, rows + 0.8), layout="constrained", squeeze=False
    )
    figure.suptitle(title)
    limit = np.abs(kernels).max()
    scale = ScalarMappable(Normalize(-limit, limit), "RdBu_r")
    for axes in grid.flat:
        axes.axis("off")
    for axes, kernel in zip(grid.flat, kernels, strict=False):
        axes.imshow(kernel, cmap=scale.cmap, norm=scale.norm)
    figure.colorbar(scale, ax=grid, shrink=0.8, label="weight")
    return figure


def confusion(labels: np.ndarray, predictions: np.ndarray, title: str) -> Figure:
    """How many images of each class were taken for which."""
    classes = int(max(labels.max(), predictions.max())) + 1
    counts = np.zeros((classes, classes), int)
    np.add.at(counts, (labels, predictions), 1)
    figure, axes = plt.subplots(figsize=(6, 6), layout="constrained")
    # Shade by each row's share, on a scale that lets single mistakes be seen.
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(share**0.3, cmap="Blues", vmin=0, vmax=1)
    for truth, prediction in np.argwhere(counts):
        colour = "white" if share[truth, prediction] > 0.2 else "black"
        axes.text(
            prediction,
            truth,
            str(int(counts[truth, prediction])),
            ha="center",
            va="center",
            color=colour,
            fontsize=9,
        )
    axes.set(
        title=title,
        xlabel="predicted",
        ylabel="true",
        xticks=range(classes),
        yticks=range(classes),
    )
    return figure
