"""Do networks learn the same by the hand-written rules as by automatic differentiation?

    python -m experiments.same_curve
    python -m experiments.same_curve --dataset mnist --network LeNet-5 --epochs 5

Claim: one network, trained from the same parameters on the same batches, has the same
curve however its gradients are made, to within rounding:

    rules      jaxcnn, by the hand-written rules
    autodiff   jaxcnn's operations, whose steps JAX differentiates (jaxcnn.derivatives)
    lax        lax's operations and jax.grad; nothing of jaxcnn is used
    one bit    the rules again, every first parameter larger by one rounding error

Method: the last run shows how much training makes rounding errors grow. The others may not
be further from the first than it is, in float32 and in float64. A distance is that between
all parameters together, divided by the size of those of the first run.

Results: docs/exactness.md.
"""

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from rich.console import Console
from rich.table import Table

import jaxcnn
from experiments.benchmarking import networks
from experiments.benchmarking.cases import Network
from experiments.data import sets
from experiments.data.sets import DataSet
from experiments.pages import pictures
from experiments.run import command

RUNS = ("rules", "autodiff", "lax", "one bit")
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#7f7f7f")
DTYPES = ("float32", "float64")


@dataclass(frozen=True)
class Settings:
    """What is trained, and where the picture goes.

    Attributes:
      dataset: scikit-learn's digits, or MNIST, whose files are in ``data_dir`` or fetched.
      data_dir: see there.
      network: of the benchmark's, by stochastic gradient descent with momentum.
      epochs: how often through the training set.
      batch_size: images in a batch.
      seed: of the order of the images.
      output: the picture of the curves.
    """

    dataset: Literal["digits", "mnist"] = "digits"
    data_dir: Path | None = None
    network: Network = "MNIST CNN"
    epochs: int = 20
    batch_size: int = 32
    seed: int = 0
    output: Path = Path("runs/same_curve.png")

    def __post_init__(self):
        command.must_be_at_least(0, seed=self.seed)
        command.must_be_at_least(1, epochs=self.epochs, batch_size=self.batch_size)


class Curve(NamedTuple):
    """One run.

    Attributes:
      losses: of every batch before its step, ``(epochs, steps)``.
      distances: from the first run, after every epoch.
    """

    losses: np.ndarray
    distances: list[float]


def trained(
    dataset: DataSet, settings: Settings, run: str, dtype: str
) -> Iterator[tuple[np.ndarray, Any]]:
    """After every epoch the losses of its batches, and the parameters."""
    description = dataset.description
    mean, std = (np.array(each, dtype) for each in (description.mean, description.std))
    images = (jnp.asarray(dataset.train.images, dtype) - mean) / std
    labels = jnp.asarray(dataset.train.labels)
    size, _, channels = description.shape
    model = networks.model_of(settings.network, "NHWC", size, channels)
    factor = 1 + np.finfo(dtype).eps if run == "one bit" else 1
    state = jax.tree.map(
        lambda each: each.astype(dtype) * factor, networks.initial_state(model)
    )
    contestant = "lax" if run == "lax" else "jaxcnn"
    loss = networks.loss_of(settings.network, contestant, model)
    step = jax.jit(networks.training_step(loss))
    kind = jaxcnn.derivatives("autodiff") if run == "autodiff" else nullcontext()
    order = sets.batches(dataset.train, settings.batch_size, settings.epochs, settings.seed)
    with kind:
        for epoch in order:
            losses = []
            for batch in epoch:
                state, value = step(state, (images[batch], labels[batch]))
                losses.append(value)
            yield np.asarray(jnp.stack(losses)), jax.device_get(state.parameters)


def compared(dataset: DataSet, settings: Settings) -> dict[str, dict[str, Curve]]:
    """Every run's curve, by dtype and by its name."""
    curves: dict[str, dict[str, Curve]] = {}
    for dtype in DTYPES:
        with jax.enable_x64(dtype == "float64"):
            epochs = {run: list(trained(dataset, settings, run, dtype)) for run in RUNS}
        first = [parameters for _, parameters in epochs[RUNS[0]]]
        curves[dtype] = {
            run: Curve(
                np.stack([losses for losses, _ in epochs[run]]),
                [
                    distance(parameters, reference)
                    for (_, parameters), reference in zip(epochs[run], first, strict=True)
                ],
            )
            for run in RUNS
        }
    return curves


def distance(parameters, reference) -> float:
    """‖θ − θ'‖ / ‖θ'‖, over all parameters."""

    def vector(tree):
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])

    ours, theirs = vector(parameters), vector(reference)
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs))


def drawn(curves: dict[str, dict[str, Curve]], title: str) -> Figure:
    """Left the losses in float32, one on the other; right the distances."""
    figure = Figure(figsize=(9, 3.8), layout="constrained")
    figure.suptitle(title)
    left, right = figure.subplots(1, 2)
    for number, (run, colour) in enumerate(zip(RUNS, COLOURS, strict=True)):
        losses = curves["float32"][run].losses.mean(axis=1)
        epochs = np.arange(1, len(losses) + 1)
        style = {"linewidth": 8 - 2 * number, "color": colour, "label": run}
        left.plot(epochs, losses, **style)
        if run == RUNS[0]:
            continue
        for dtype, line in zip(DTYPES, ("-", "--"), strict=True):
            right.plot(
                epochs,
                curves[dtype][run].distances,
                line,
                color=colour,
                label=f"{run}, {dtype}",
            )
    left.set(xlabel="epoch", ylabel="loss of the training batches, float32", yscale="log")
    right.set(xlabel="epoch", ylabel="distance from the parameters of rules", yscale="log")
    for axes in (left, right):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        pictures.plain(axes)
        axes.legend(frameon=False, fontsize="small")
    return figure


def main(settings: Settings) -> dict[str, dict[str, Curve]]:
    dataset = sets.load(settings.dataset, settings.data_dir)
    curves = compared(dataset, settings)
    table = Table("", "", "loss of the last epoch", "distance after 1 epoch", "after all")
    for dtype, of_dtype in curves.items():
        for run, curve in of_dtype.items():
            loss = f"{curve.losses[-1].mean():.10g}"
            ends = (f"{curve.distances[at]:.0e}" for at in (0, -1))
            table.add_row(dtype, run, loss, *ends)
    Console().print(table)
    title = f"{settings.network} on {settings.dataset}: four runs, one curve"
    pictures.save(drawn(curves, title), settings.output)
    return curves


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
