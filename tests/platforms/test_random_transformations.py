"""Transformations stacked in random order: what the rules give is what autodiff gives.

The rules compute in float32, with the engines that the plan chooses; JAX differentiates the
loops of the equations in float64.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st

import jaxcnn
from tests.random_cases.cases import every_number, for_every
from tests.random_cases.strategies import one_for_each

SIZE = (2, 3, 6, 5)


@pytest.fixture(autouse=True)
def float64_on_request():
    """Both precisions, and float32 from who asks for it."""
    jax.config.update("jax_numpy_rank_promotion", "allow")


class Stack(NamedTuple):
    """What is called, within what.

    Attributes:
      operation: its name, a key of OPERATIONS.
      stride, padding: for operations that have a window.
      transformations: by name, from the inside out.
      seed: of x, and of the parameters.
    """

    operation: str
    stride: int | tuple[int, int]
    padding: int
    transformations: tuple[str, ...]
    seed: int


def kernels(rng, x, *shape):
    return jnp.asarray(rng.standard_normal(shape) / 3, x.dtype)


OPERATIONS = {
    "conv2d": lambda rng, x, **window: jaxcnn.conv2d(
        x, kernels(rng, x, 4, 3, 3, 2), kernels(rng, x, 4), **window
    ),
    "conv_transpose2d": lambda rng, x, **window: jaxcnn.conv_transpose2d(
        x, kernels(rng, x, 3, 2, 2, 3), **window
    ),
    "depthwise_conv2d": lambda rng, x, **window: jaxcnn.depthwise_conv2d(
        x, kernels(rng, x, 6, 1, 3, 3), **window
    ),
    "avg_pool2d": lambda _, x, **window: jaxcnn.avg_pool2d(x, 3, **window),
    "max_pool2d": lambda _, x, **window: jaxcnn.max_pool2d(x, 3, **window),
    "adaptive_avg_pool2d": lambda _, x, **__: jaxcnn.adaptive_avg_pool2d(x, (4, 2)),
    "layer_norm": lambda rng, x, **_: jaxcnn.layer_norm(x, 5, kernels(rng, x, 5)),
    "softmax": lambda _, x, **__: jaxcnn.softmax(x),
    "gelu": lambda _, x, **__: jaxcnn.gelu(x),
    "dense": lambda rng, x, **_: jaxcnn.dense(x, kernels(rng, x, 5, 3)),
}


def gradient(f):
    return jax.grad(lambda x: jnp.sum(jnp.sin(f(x))))


def scan(f):
    return lambda xs: jax.lax.scan(lambda _, x: (None, f(x)), None, xs)[1]


TRANSFORMATIONS = {
    "jit": jax.jit,
    "grad": gradient,
    "checkpoint": jax.checkpoint,
    "vmap": jax.vmap,
    "vmap over the last axis": lambda f: jax.vmap(f, in_axes=-1, out_axes=1),
    "scan": scan,
}
LEADING = {"vmap": 0, "scan": 0, "vmap over the last axis": -1}
"""Where the array gets another axis, of two entries."""


@st.composite
def stacks(draw):
    names = st.sampled_from(sorted(TRANSFORMATIONS))
    return Stack(
        draw(st.sampled_from(sorted(OPERATIONS))),
        draw(one_for_each(2, st.integers(1, 2)))[0],
        draw(st.integers(0, 1)),
        # Two gradients within a third are a minute of compiling.
        tuple(
            draw(
                st.lists(names, min_size=1, max_size=4).filter(
                    lambda each: each.count("grad") <= 2
                )
            )
        ),
        draw(st.integers(0, 2**32 - 1)),
    )


def result(stack: Stack, dtype: str):
    rng = np.random.default_rng(stack.seed)
    shape = list(SIZE)
    for name in stack.transformations:
        if name in LEADING:
            shape.insert(len(shape) if LEADING[name] else 0, 2)
    x = jnp.asarray(rng.standard_normal(shape).astype("float32"), dtype)

    def function(x):
        window = {"stride": stack.stride, "padding": stack.padding}
        parameters = np.random.default_rng(stack.seed + 1)
        return OPERATIONS[stack.operation](parameters, x, **window)

    for name in stack.transformations:
        function = TRANSFORMATIONS[name](function)
    return np.asarray(jax.jit(function)(x), np.float64)


def agrees(stack: Stack):
    with jaxcnn.derivatives("autodiff"):
        wanted = result(stack, "float64")
    computed = result(stack, "float32")
    # Float32: sums of up to a hundred terms, and of their sines' derivatives' sums.
    largest = max(1.0, np.abs(wanted).max(initial=0))
    np.testing.assert_allclose(computed, wanted, rtol=0, atol=1e-4 * largest)


@every_number
def test_every_stack_of_transformations_gives_what_autodiff_gives(number):
    for_every(stacks(), number, agrees)
