"""Paddings with names, paddings of pixels, and causal padding, in one to three dimensions.

Random cases are compared with XLA and PyTorch in test_random_convolution.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from tests import oracles, precision

MODES = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}  # NumPy's names
# (layout, size, padding)
IMAGES = [
    ("NWC", (4,), ((3, 1),)),
    ("NCHW", (3, 4), ((2, 1), (0, 3))),
    ("NDHWC", (2, 3, 2), ((1, 0), (2, 2), (0, 1))),
]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("layout", "size", "padding"), IMAGES)
def test_a_kernel_of_one_shows_what_stands_in_the_padding(rng, mode, layout, size, padding):
    n = len(size)
    x = rng.standard_normal((2, 1, *size))
    convolve = functools.partial(
        getattr(jaxcnn, f"conv{n}d"), padding=padding, padding_mode=mode, layout=layout
    )
    y = jax.jit(convolve)(oracles.in_layout(x, layout), np.ones((1,) * (n + 2)))
    np.testing.assert_array_equal(
        oracles.channels_first(y, layout),
        np.pad(x, ((0, 0), (0, 0), *padding), MODES[mode]),
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_named_padding_is_filled_alike(rng, mode):
    x, w = (rng.standard_normal(each) for each in ((2, 5, 6), (3, 2, 2, 3)))

    @jax.jit
    def named_and_by_pairs(x, w):
        paddings = ("SAME", ((0, 1), (1, 1)))
        return [jaxcnn.conv2d(x, w, padding=p, padding_mode=mode) for p in paddings]

    np.testing.assert_array_equal(*named_and_by_pairs(x, w))


@pytest.mark.parametrize("name", ["SAME", "SAME_LOWER"])
def test_names_may_be_written_small(rng, name):
    x, w = (rng.standard_normal(each) for each in ((2, 5, 6), (3, 2, 2, 3)))

    def calls(x, w, padding):
        return (
            jaxcnn.conv2d(x, w, stride=2, padding=padding),
            jaxcnn.max_pool2d(x, 2, padding=padding),
            jaxcnn.unfold(x, 3, padding=padding),
            jaxcnn.conv_transpose2d(x, w[:2], stride=2, padding=padding),
        )

    @jax.jit
    def small_and_large(x, w):
        return calls(x, w, name.lower()), calls(x, w, name)

    for small, large in zip(*small_and_large(x, w), strict=True):
        np.testing.assert_array_equal(small, large)


# --- Causal ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stride", "dilation", "padding"),
    [(1, 3, "CAUSAL"), (2, 2, "causal"), (3, 1, "causal")],
)
def test_no_output_sees_what_comes_later_and_each_sees_its_own_time(
    rng, stride, dilation, padding
):
    x, w = (rng.standard_normal(each) for each in ((1, 8), (1, 1, 3)))

    def convolution(x):
        options = {"stride": stride, "dilation": dilation, "padding": padding}
        return jaxcnn.conv1d(x, w, **options)[0]

    seen = np.asarray(jax.jit(jax.jacrev(convolution))(x))[:, 0]
    outputs, inputs = np.indices(seen.shape)
    assert seen.shape == (-(-8 // stride), 8)
    np.testing.assert_array_equal(seen[inputs > stride * outputs], 0)
    np.testing.assert_array_equal(seen[inputs == stride * outputs], w[0, 0, -1])


def test_a_causal_padding_may_be_filled_with_pixels():
    x, w = np.array([[1.0, 2.0, 4.0]]), np.ones((1, 1, 3))
    y = jaxcnn.conv1d(x, w, padding="CAUSAL", padding_mode="replicate")
    np.testing.assert_array_equal(y, [[3, 4, 7]])


# --- Halves ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "dtype"),
    [("reflect", "bfloat16"), ("replicate", "float16"), ("circular", "bfloat16")],
)
def test_the_gradient_of_a_half_is_rounded_once(rng, mode, dtype):
    # … though a pixel has a gradient from everywhere that shows it.
    x, w, dy = (
        rng.standard_normal(each).astype(jnp.dtype(dtype))
        for each in ((3, 4, 6), (2, 4, 3), (3, 2, 12))
    )

    @jax.jit
    def gradients(dy, *operands):
        def convolution(x, w):
            return jaxcnn.conv1d(x, w, padding=4, padding_mode=mode)

        return jax.vjp(convolution, *operands)[1](dy)

    wide = gradients(*(each.astype("float32") for each in (dy, x, w)))
    for half, single in zip(gradients(dy, x, w), wide, strict=True):
        np.testing.assert_allclose(
            np.asarray(half).astype("float32"),
            single,
            **precision.of_halves(dtype, 1e-5, convolved=single),
        )
