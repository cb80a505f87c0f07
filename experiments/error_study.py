"""How much does each engine round, as the sums of a convolution grow?

    python -m experiments.error_study

Claim: all round as lax and PyTorch do. In bfloat16 nothing tells them apart, since all sums
are made in float32 and rounded once.

Method: an entry of y and of dx is a sum of C·K² products here (as many channels go out as
come in), one of dw a sum of B·H·W. Each engine of :mod:`jaxcnn.engines` computes those
that it is good for, from normally distributed numbers; so do the plan's own choice (auto),
lax and, where it is installed, PyTorch. The reference is NumPy's, tap by tap in float64
(:mod:`experiments.benchmarking.reference`), of the numbers as they are in the dtype. An
error is the largest deviation, divided by the largest entry.

Results: docs/exactness.md.
"""

# pyright: reportMissingImports=false

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from experiments.benchmarking.cases import Layer
from experiments.benchmarking.reference import convolution, relative_error
from experiments.pages import pictures
from experiments.peers import lax_operations
from experiments.run import command
from jaxcnn import plan
from jaxcnn.engines import ENGINES
from jaxcnn.problem import Problem, describe
from jaxcnn.window import Window

DTYPES = ("float32", "bfloat16")
SUMS = {"forward": "y", "input_gradient": "dx", "weight_gradient": "dw"}
PEERS = {"lax": "black", "PyTorch": "gold"}

Errors = dict[tuple[str, str, str], list[tuple[int, float]]]
"""By dtype, result and who computed it: numbers of terms C·K², and the error for each."""


@dataclass(frozen=True)
class Settings:
    """Which layers, and where the picture goes.

    Attributes:
      channels: C, those that come in and those that go out.
      kernels: K, odd.
      size: H and W; images keep their size.
      batch: B.
      seed: of the numbers.
      output: the picture of the errors.
    """

    channels: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
    kernels: tuple[int, ...] = (3, 5)
    size: int = 12
    batch: int = 4
    seed: int = 0
    output: Path = Path("runs/error_study.png")

    def __post_init__(self):
        command.must_be_at_least(0, seed=self.seed)
        command.must_be_at_least(1, channels=self.channels, kernels=self.kernels)
        command.must_be_at_least(max(self.kernels), size=self.size)
        command.must_be_at_least(1, batch=self.batch)


def layers(settings: Settings) -> Iterator[Layer]:
    size = settings.size, settings.size
    for kernel in settings.kernels:
        for c in settings.channels:
            yield Layer(settings.batch, c, c, size, kernel, padding=kernel // 2)


# --- Who computes: from x, w and dy, each (B, H, W, C) or (K, K, C, C), to what is known --


def by_engine(engine: str, layer: Layer, x, w, dy) -> dict[str, jax.Array]:
    """All of y, dx and dw that the engine computes for this layer."""
    pair, side = (layer.kernel, layer.kernel), (layer.padding, layer.padding)
    window = Window(pair, (1, 1), (side, side), (1, 1))
    problem = Problem(window, layer.size, "NHWC", engine)
    operands = {
        "forward": (x, w),
        "input_gradient": (dy, w),
        "weight_gradient": (x, dy),
    }
    return {
        SUMS[name]: plan.compute(name, problem, *each).astype(x.dtype)
        for name, each in operands.items()
        if engine == "auto" or not plan.refusal(engine, describe(name, problem, *each))
    }


@jax.jit
def by_lax(x, w, dy) -> dict[str, jax.Array]:
    forward = partial(lax_operations.conv, padding=w.shape[0] // 2, layout="NHWC")
    y, pull_back = jax.vjp(forward, x, w)
    dx, dw = pull_back(dy)
    return {"y": y, "dx": dx, "dw": dw}


def by_torch(x, w, dy) -> dict[str, np.ndarray]:
    import torch
    from torch.nn.functional import conv2d

    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[str(x.dtype)]

    def tensor(array, axes):
        exact = np.asarray(array, np.float32).transpose(axes).copy()
        return torch.from_numpy(exact).to(dtype)

    def array(tensor, axes):
        return tensor.detach().float().numpy().transpose(axes)

    images, weights = tensor(x, (0, 3, 1, 2)), tensor(w, (3, 2, 0, 1))
    images.requires_grad_()
    weights.requires_grad_()
    y = conv2d(images, weights, padding=w.shape[0] // 2)
    dx, dw = torch.autograd.grad(y, (images, weights), tensor(dy, (0, 3, 1, 2)))
    back = (0, 2, 3, 1)
    return {"y": array(y, back), "dx": array(dx, back), "dw": array(dw, (2, 3, 1, 0))}


def contestants() -> dict[str, Callable]:
    """Everyone, by name: the plan's own choice first."""
    everyone: dict[str, Callable] = {
        engine: partial(by_engine, engine) for engine in ("auto", *ENGINES)
    }
    everyone["lax"] = lambda _, *arrays: by_lax(*arrays)
    if find_spec("torch"):
        everyone["PyTorch"] = lambda _, *arrays: by_torch(*arrays)
    return everyone


# --- What they make of it -------------------------------------------------------------


def studied(settings: Settings) -> Errors:
    errors: Errors = defaultdict(list)
    rng = np.random.default_rng(settings.seed)
    everyone = contestants()
    for layer in layers(settings):
        shapes = layer.shapes("NHWC")
        normal = {name: rng.standard_normal(shapes[name]) for name in ("x", "w", "dy")}
        terms = layer.c_in * layer.kernel**2
        for dtype in DTYPES:
            x, w, dy = (jnp.asarray(normal[name], dtype) for name in ("x", "w", "dy"))
            wanted = convolution(x, w, np.zeros(layer.c_out), dy, layer)
            for name, compute in everyone.items():
                for result, array in compute(layer, x, w, dy).items():
                    error = relative_error(array, wanted[result])
                    errors[dtype, result, name].append((terms, error))
    return dict(errors)


def drawn(errors: Errors) -> Figure:
    """A row for each dtype, a column for each result, a line for each contestant."""
    figure = Figure(figsize=(11, 6.4), layout="constrained")
    grid = figure.subplots(len(DTYPES), len(SUMS), sharex=True, squeeze=False)
    names = list(dict.fromkeys(name for _, _, name in errors))
    others = [name for name in names if name not in PEERS]
    colours = {name: f"C{number}" for number, name in enumerate(others)} | PEERS
    for row, dtype in zip(grid, DTYPES, strict=True):
        for axes, result in zip(row, SUMS.values(), strict=True):
            for name in names:
                points = sorted(errors.get((dtype, result, name), []))
                if points:
                    style = {"marker": ".", "markersize": 4, "linewidth": 1}
                    style |= {"linewidth": 2.5, "zorder": 3} if name in PEERS else {}
                    axes.plot(*zip(*points, strict=True), **style, color=colours[name])
            axes.set(xscale="log", yscale="log", title=f"{result}, {dtype}")
            pictures.plain(axes)
        row[0].set_ylabel("largest deviation / largest entry")
    for axes in grid[-1]:
        axes.set_xlabel("C · K²")
    lines = [figure.axes[0].plot([], [], color=colours[name])[0] for name in names]
    figure.legend(lines, names, loc="outside right center", frameon=False)
    return figure


def main(settings: Settings) -> Errors:
    errors = studied(settings)
    names = list(dict.fromkeys(name for _, _, name in errors))
    columns = [f"{result}, {dtype}" for dtype in DTYPES for result in SUMS.values()]
    table = Table("the largest error", *columns)
    for name in names:
        row = []
        for dtype in DTYPES:
            for result in SUMS.values():
                of_all = [error for _, error in errors.get((dtype, result, name), [])]
                row.append(f"{max(of_all):.1e}" if of_all else "")
        table.add_row(name, *row)
    Console().print(table)
    pictures.save(drawn(errors), settings.output)
    return errors


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
