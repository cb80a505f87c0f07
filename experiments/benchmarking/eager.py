"""The contestants outside of ``jit``: what a call costs besides its sums.

A small array takes a processor a few microseconds. The rest of such a call is Python: the
function's own, and JAX's to find the compiled program or to trace a gradient.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

import jaxcnn
from experiments.benchmarking.cases import Call
from experiments.benchmarking.layers import unit_variance
from experiments.benchmarking.reference import relative_error
from experiments.benchmarking.timing import Measurement, called, race

ROUNDS = 100
WINDOWS = (1, 1, 2, 2), (1, 1, 2, 2), "VALID"


def conv2d(x, w):
    return lax.conv_general_dilated(x, w, (1, 1), ((1, 1), (1, 1)))


def max_pool2d(x):
    return lax.reduce_window(x, -np.inf, lax.max, *WINDOWS)


def avg_pool2d(x):
    return lax.reduce_window(x, 0.0, lax.add, *WINDOWS) / 4


FUNCTIONS: dict[str, dict[str, Callable]] = {
    "conv2d": {"jaxcnn": partial(jaxcnn.conv2d, padding=1), "lax": conv2d},
    "max_pool2d": {"jaxcnn": partial(jaxcnn.max_pool2d, kernel_size=2), "lax": max_pool2d},
    "avg_pool2d": {"jaxcnn": partial(jaxcnn.avg_pool2d, kernel_size=2), "lax": avg_pool2d},
    "relu": {"jaxcnn": jaxcnn.relu, "lax": jax.nn.relu},
}


def gradient(function: Callable, count: int) -> Callable:
    """The gradient of ‖f‖² by all of its arguments, which are so many."""

    def squares(*arguments):
        return jnp.sum(jnp.square(function(*arguments)))

    return jax.grad(squares, argnums=tuple(range(count)))


def measure_call(call: Call, rounds: int, seed: int = 0) -> list[Measurement]:
    """Time one call, and see whether jaxcnn agrees with lax; ``rounds`` 0 is 100."""
    arrays = list(map(jnp.asarray, unit_variance(call.shapes, seed).values()))
    entries = []
    for name, function in FUNCTIONS[call.function].items():
        timed = gradient(function, len(arrays)) if call.gradient else function
        entries.append(called(name, "NCHW", "call", timed, arrays))
    # The first calls compile; the race must not take them for slow ones.
    ours, theirs = (map(np.asarray, jax.tree.leaves(each.outputs())) for each in entries)
    entries[0].facts["error"] = max(map(relative_error, ours, theirs))
    return race(entries, rounds or ROUNDS, "eager", call.name)
