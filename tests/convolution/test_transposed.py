"""Transposed convolution: the input gradient as a forward operation, and its sizes.

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
from tests import oracles, precision


def drawn(rng, layout, x_shape, w_shape):
    """x and w in a layout, from shapes with the channels first."""
    return (
        oracles.in_layout(rng.standard_normal(x_shape), layout),
        oracles.weights_in_layout(rng.standard_normal(w_shape), layout),
    )


def with_gradients(function, dy, *operands):
    @jax.jit
    def computed(dy, *operands):
        y, pullback = jax.vjp(function, *operands)
        return y, pullback(dy)

    return computed(dy, *operands)


def close(ours, theirs):
    # Float64, some hundred terms of order 1 added in another order: 100 · 2e-16 · 10.
    chex.assert_trees_all_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
def test_it_is_the_input_gradient_of_the_convolution(rng, layout):
    x, w = drawn(rng, layout, (2, 4, 3, 2), (4, 3, 3, 2))
    b = rng.standard_normal(6)
    options = {"stride": 2, "padding": ((1, 0), (0, -1)), "groups": 2, "layout": layout}
    along = b.reshape(1, 1, 1, 6) if layout == "NHWC" else b.reshape(1, 6, 1, 1)

    @jax.jit
    def both(x, w, b):
        y = jaxcnn.conv_transpose2d(x, w, b, **options)
        # 2 · (3 − 1) + 3 − 1 and 2 · (2 − 1) + 2 + 1
        return y, jaxcnn.conv2d_input_gradient(x, w, (6, 5), **options)

    y, dx = both(x, w, b)
    close(y, np.asarray(dx) + along)


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
@pytest.mark.parametrize(
    ("stride", "kernel_size", "dilation"),
    [
        (1, 3, 1),
        (1, 4, 1),
        (2, 3, 1),
        (2, 4, 1),
        (3, 2, 1),
        (3, 5, 1),
        (2, 2, 3),
        (4, 1, 1),
    ],
)
def test_named_paddings_are_those_of_lax(rng, padding, stride, kernel_size, dilation):
    x, w = drawn(rng, "NWC", (2, 3, 4), (3, 2, kernel_size))

    @jax.jit
    def ours_and_theirs(x, w):
        ours = jaxcnn.conv_transpose1d(
            x, w, stride=stride, padding=padding, dilation=dilation, layout="NWC"
        )
        theirs = lax.conv_transpose(
            x,
            w,
            (stride,),
            padding,
            rhs_dilation=(dilation,),
            dimension_numbers=("NWC", "WIO", "NWC"),
            transpose_kernel=True,
        )
        return ours, theirs

    close(*ours_and_theirs(x, w))


@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_the_gradients_under_named_paddings_are_those_of_lax(rng, padding):
    x, w = drawn(rng, "NHWC", (2, 3, 3, 4), (3, 2, 3, 2))
    ours = functools.partial(
        jaxcnn.conv_transpose2d, stride=(2, 3), padding=padding, layout="NHWC"
    )
    theirs = functools.partial(
        lax.conv_transpose,
        strides=(2, 3),
        padding=padding,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        transpose_kernel=True,
    )
    dy = rng.standard_normal(jax.eval_shape(ours, x, w).shape)
    close(with_gradients(ours, dy, x, w), with_gradients(theirs, dy, x, w))


# --- Sizes ----------------------------------------------------------------------------


@pytest.mark.parametrize("output_padding", [0, 1, 2])
def test_output_padding_tells_which_input_is_meant(rng, output_padding):
    # Sequences of length 7, 8 and 9 are all convolved to length 3.
    x, w = drawn(rng, "NCW", (2, 3, 7 + output_padding), (2, 3, 3))

    @jax.jit
    def there_and_back(x, w):
        y = jaxcnn.conv1d(x, w, stride=3, padding=1)
        assert y.shape == (2, 2, 3)
        back = jaxcnn.conv_transpose1d(
            y, w, stride=3, padding=1, output_padding=output_padding
        )
        assert back.shape == x.shape
        gradient = jaxcnn.conv1d_input_gradient(y, w, x.shape[2:], stride=3, padding=1)
        return back, gradient

    close(*there_and_back(x, w))


def test_output_padding_may_reach_beyond_the_stride_where_the_dilation_does():
    x, w = np.ones((1, 1)), np.array([[[1.0, 2.0]]])
    y = jaxcnn.conv_transpose1d(x, w, dilation=2, output_padding=1)
    np.testing.assert_array_equal(y, [[1, 0, 2, 0]])


def test_output_padding_adds_to_a_named_padding():
    x, w = np.ones((1, 2)), np.ones((1, 1, 1))
    y = jaxcnn.conv_transpose1d(x, w, stride=2, padding="SAME", output_padding=1)
    np.testing.assert_array_equal(y, [[1, 0, 1, 0, 0]])


def test_padding_crops_the_result_and_negative_padding_widens_it():
    x, w = np.array([[1.0, 2.0]]), np.array([[[1.0, 10.0, 100.0]]])
    whole = jaxcnn.conv_transpose1d(x, w, stride=2)
    np.testing.assert_array_equal(whole, [[1, 10, 102, 20, 200]])
    cropped = jaxcnn.conv_transpose1d(x, w, stride=2, padding=((2, 1),))
    np.testing.assert_array_equal(cropped, [[102, 20]])
    wider = jaxcnn.conv_transpose1d(x, w, stride=2, padding=((-1, -2),))
    np.testing.assert_array_equal(wider, [[0, 1, 10, 102, 20, 200, 0, 0]])


def test_the_bias_is_added_where_nothing_else_arrives():
    x, w, b = np.array([[2.0, 3.0]]), np.ones((1, 1, 1)), np.array([0.5])
    y = jaxcnn.conv_transpose1d(x, w, b, stride=3, output_padding=1)
    np.testing.assert_array_equal(y, [[2.5, 0.5, 0.5, 3.5, 0.5]])


# --- The rule -------------------------------------------------------------------------


def test_the_rule_keeps_the_operands_alone(rng):
    x, w = drawn(rng, "NCHW", (2, 4, 3, 2), (4, 3, 3, 2))

    def pullback(x, w):
        return jax.vjp(functools.partial(jaxcnn.conv_transpose2d, stride=3), x, w)[1]

    kept = jax.tree.leaves(jax.eval_shape(pullback, x, w))
    shapes = sorted(each.shape for each in kept)
    assert shapes == sorted([x.shape, w.shape])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_preferred_dtype_spares_the_rounding(rng, dtype):
    dtype = jnp.dtype(dtype)
    x, w = (each.astype(dtype) for each in drawn(rng, "NHWC", (2, 4, 3, 2), (4, 3, 3, 2)))
    convolve = functools.partial(jaxcnn.conv_transpose2d, stride=2, layout="NHWC")

    @jax.jit
    def preferred_wide_and_rounded(x, w):
        y = convolve(x, w, preferred_element_type="float32")
        return y, convolve(x.astype("float32"), w.astype("float32")), convolve(x, w)

    y, wide, rounded = map(np.asarray, preferred_wide_and_rounded(x, w))
    assert y.dtype == np.float32
    # Sixteen terms of order 1 in float32.
    np.testing.assert_allclose(y, wide, rtol=0, atol=1e-5)
    np.testing.assert_allclose(
        rounded.astype("float32"),
        y.astype(dtype).astype("float32"),
        **precision.of_halves_alike(dtype, y),
    )
