"""The contestants of single layers and pools: jaxcnn and lax, in both layouts."""

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxcnn
from experiments.benchmarking.cases import Layer, Pool
from experiments.benchmarking.reference import convolution, relative_error
from experiments.benchmarking.timing import Contestant, Measurement, compiled, race
from experiments.benchmarking.torch_process import TorchWorker
from experiments.peers import lax_operations
from experiments.peers.jax_gradients import one_gradient, value_and_gradients
from jaxcnn.engines.loops.library import at_hand

LAYOUTS = ("NHWC", "NCHW")
WITHOUT_LOOPS = "jaxcnn without loops"
MODES = ("forward", "forward + backward")
GRADIENTS = ("input gradient", "weight gradient")
"""Of a convolution, by the number of the argument."""


def has_loops() -> bool:
    return at_hand() is None


@contextmanager
def without_loops() -> Iterator[None]:
    """What is compiled within is compiled as where numba is not installed."""
    before = os.environ.get("JAXCNN_LOOPS")
    os.environ["JAXCNN_LOOPS"] = "0"
    try:
        yield
    finally:
        del os.environ["JAXCNN_LOOPS"]
        if before is not None:
            os.environ["JAXCNN_LOOPS"] = before


def compiled_without_loops(
    layout: str, mode: str, function: Callable, arguments: Sequence[Any], steps: int = 1
) -> Contestant:
    """A function of jaxcnn's as where numba is not installed, with what then helps."""
    anew = partial(function)  # JAX keeps how a function was lowered
    with without_loops():
        options = jaxcnn.compiler_options()
        return compiled(WITHOUT_LOOPS, layout, mode, anew, arguments, options, steps)


def layer_functions(layer: Layer) -> dict[str, Callable]:
    known = {
        name: getattr(layer, name) for name in ("stride", "padding", "dilation", "groups")
    }
    return {
        "jaxcnn": partial(jaxcnn.conv2d, **known),
        "lax": partial(lax_operations.conv, **known),
    }


def pool_functions(pool: Pool) -> dict[str, Callable]:
    window = {
        "kernel_size": pool.kernel,
        "stride": pool.stride,
        "padding": pool.padding,
    }
    ours, lax = (
        (jaxcnn.max_pool2d, lax_operations.max_pool)
        if pool.kind == "max"
        else (jaxcnn.avg_pool2d, lax_operations.avg_pool)
    )
    return {"jaxcnn": partial(ours, **window), "lax": partial(lax, **window)}


def contestants(
    functions: dict[str, Callable], arrays: dict[str, np.ndarray], mode: str
) -> list[Contestant]:
    """Each function in each layout; the arrays are given with channels last."""
    entries = []
    for layout in LAYOUTS:
        *given, dy = (jnp.asarray(in_layout(a, name, layout)) for name, a in arrays.items())
        for name, function in functions.items():
            timed, operands = timed_in(mode, partial(function, layout=layout), given, dy)
            entries.append(compiled(name, layout, mode, timed, operands))
            if name == "jaxcnn" and layout == "NHWC" and has_loops():
                entries.append(compiled_without_loops(layout, mode, timed, operands))
    return entries


def timed_in(
    mode: str, function: Callable, given: Sequence[Any], dy: Any
) -> tuple[Callable, Sequence[Any]]:
    """What a mode computes of a function, and its operands."""
    if mode == "forward":
        return function, given
    if mode in GRADIENTS:
        return partial(one_gradient, function, GRADIENTS.index(mode)), (given, dy)
    return partial(value_and_gradients, function), (given, dy)


def in_layout(array: np.ndarray, name: str, layout: str) -> np.ndarray:
    """An array, given with channels last, in this layout; w and dw are weights."""
    if layout.endswith("C") or array.ndim == 1:
        return array
    if name in ("w", "dw"):
        return np.moveaxis(array, (-1, -2), (0, 1))
    return np.moveaxis(array, -1, 1)


def unit_variance(shapes: dict[str, tuple[int, ...]], seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {name: rng.standard_normal(shape, np.float32) for name, shape in shapes.items()}


def measure_layer(
    layer: Layer, rounds: int, peak: float, torch: TorchWorker | None, seed: int = 0
) -> list[Measurement]:
    """Time one layer in both modes, and see how exact each contestant is."""
    arrays = unit_variance(layer.shapes("NHWC"), seed)
    expected = convolution(**arrays, layer=layer)
    measurements = []
    for mode in MODES:
        entries = contestants(layer_functions(layer), arrays, mode)
        for entry in entries:
            outputs = entry.outputs()
            outputs = (outputs,) if mode == "forward" else outputs[:3]
            errors = {
                name: relative_error(array, in_layout(expected[name], name, entry.layout))
                for name, array in zip(("y", "dx", "dw"), outputs, strict=False)
            }
            entry.facts |= {"errors": errors, "error": max(errors.values())}
        if torch:
            entries += torch.contestants("layer", layer, mode)
        flops = layer.flops * (1 if mode == "forward" else 3)
        measurements += [
            replace(each, peak_fraction=1000 * flops / each.median_ms / peak)
            for each in race(entries, rounds, "layers", layer.name)
        ]
    return measurements


def measure_pool(
    pool: Pool, rounds: int, torch: TorchWorker | None, seed: int = 0
) -> list[Measurement]:
    """Time one pool in both modes, and see whether every contestant agrees with lax."""
    arrays = unit_variance(pool.shapes("NHWC"), seed)
    measurements = []
    for mode in MODES:
        entries = contestants(pool_functions(pool), arrays, mode)
        outputs = {
            (each.name, each.layout): list(map(np.asarray, jax.tree.leaves(each.outputs())))
            for each in entries
        }
        for entry in entries:
            pairs = zip(
                outputs[entry.name, entry.layout],
                outputs["lax", entry.layout],
                strict=True,
            )
            errors = {
                name: relative_error(ours, theirs)
                for name, (ours, theirs) in zip(("y", "dx"), pairs, strict=False)
            }
            entry.facts |= {"errors": errors, "error": max(errors.values())}
        if torch:
            entries += torch.contestants("pool", pool, mode)
        measurements += race(entries, rounds, "pools", pool.name)
    return measurements
