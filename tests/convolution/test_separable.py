"""Depthwise and separable convolution: what they are made of.

Random cases are compared with XLA and PyTorch in test_random_convolution.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jaxcnn
from jaxcnn import plan
from tests import oracles

# (the number of dimensions, layout, options)
CALLS = [
    (1, "NCW", {"padding": "CAUSAL", "dilation": 2}),
    (1, "NWC", {"padding": ((2, 1),), "padding_mode": "reflect"}),
    (2, "NHWC", {"padding": 1, "padding_mode": "circular", "stride": 2}),
    (3, "NCDHW", {"padding": ((0, 1), (1, -1), (0, 0)), "stride": (1, 2, 1)}),
]
every_call = pytest.mark.parametrize(("n", "layout", "options"), CALLS)


def drawn(rng, n, layout):
    """x of three channels, weights that make two of each, and weights that mix them."""
    x = oracles.in_layout(rng.standard_normal((2, 3, *(5, 4, 3)[:n])), layout)
    depthwise, pointwise = (
        oracles.weights_in_layout(rng.standard_normal(shape), layout)
        for shape in ((6, 1, *(3, 2, 2)[:n]), (4, 6, *[1] * n))
    )
    return x, depthwise, pointwise, rng.standard_normal(4)


def close(ours, theirs):
    # Float64, some dozens of terms of order 1 added in another order.
    chex.assert_trees_all_close(ours, theirs, rtol=0, atol=1e-13)


@every_call
def test_every_channel_is_convolved_by_itself(rng, n, layout, options):
    x, w, *_ = drawn(rng, n, layout)
    depthwise, convolve = (
        functools.partial(getattr(jaxcnn, f"{name}{n}d"), layout=layout, **options)
        for name in ("depthwise_conv", "conv")
    )
    channels = layout.index("C")
    outputs = 0 if channels == 1 else w.ndim - 1

    @jax.jit
    def together_and_alone(x, w):
        alone = [
            convolve(
                lax.slice_in_dim(x, c, c + 1, axis=channels),
                lax.slice_in_dim(w, 2 * c, 2 * c + 2, axis=outputs),
            )
            for c in range(3)
        ]
        return depthwise(x, w), jnp.concatenate(alone, channels)

    close(*together_and_alone(x, w))


@every_call
def test_separable_is_depthwise_and_then_pointwise(rng, n, layout, options):
    separable, depthwise, pointwise = (
        functools.partial(getattr(jaxcnn, f"{name}{n}d"), layout=layout)
        for name in ("separable_conv", "depthwise_conv", "conv")
    )

    @jax.jit
    def at_once_and_one_by_one(x, w_depthwise, w_pointwise, b):
        inner = depthwise(x, w_depthwise, **options)
        return (
            separable(x, w_depthwise, w_pointwise, b, **options),
            pointwise(inner, w_pointwise, b),
        )

    close(*at_once_and_one_by_one(*drawn(rng, n, layout)))


def test_both_convolutions_have_the_engine_and_the_derivatives(rng, opaque_engine):
    x, *weights, _ = drawn(rng, 2, "NCHW")
    dy = rng.standard_normal((2, 4, 3, 3))

    def gradients(**options):
        def loss(*operands):
            return jnp.vdot(jaxcnn.separable_conv2d(*operands, **options), dy)

        return jax.jit(jax.grad(loss, (0, 1, 2)))(x, *weights)

    # Neither is differentiated by JAX through the engine that hides its derivatives …
    hidden = gradients(engine=opaque_engine, derivatives="autodiff")
    close(hidden, tuple(map(np.zeros_like, hidden)))
    # … and both are by their rules.
    close(gradients(engine=opaque_engine), gradients())


def test_both_convolutions_have_the_precision(rng):
    x, *weights, _ = drawn(rng, 1, "NWC")
    separable = functools.partial(
        jaxcnn.separable_conv1d, layout="NWC", precision="highest"
    )
    sums = plan.sums_of(separable, *jax.eval_shape(lambda *each: each, x, *weights))
    assert [each.problem.precision for each in sums] == ["highest"] * 2 * 3


def test_a_half_between_the_two_is_rounded(rng):
    x, *operands = (each.astype(jnp.bfloat16) for each in drawn(rng, 2, "NHWC"))
    y = jaxcnn.separable_conv2d(x, *operands, layout="NHWC")
    assert y.dtype == jnp.bfloat16
    depthwise, pointwise, b = operands
    inner = jaxcnn.depthwise_conv2d(x, depthwise, layout="NHWC")
    np.testing.assert_array_equal(y, jaxcnn.conv2d(inner, pointwise, b, layout="NHWC"))
