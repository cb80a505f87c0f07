"""unfold and fold: what is where, convolution as one product, and each other's transpose.

Random windows are compared with XLA and PyTorch in test_random_pooling.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from tests import oracles

OPTIONS = {"stride": 2, "padding": "SAME_LOWER", "dilation": 2}
# (layout, size, kernel size)
IMAGES = [
    ("NWC", (7,), (3,)),
    ("NCHW", (5, 6), (3, 2)),
    ("NHWC", (5, 6), (3, 2)),
    ("NDHWC", (3, 4, 4), (1, 3, 2)),
]
every_image = pytest.mark.parametrize(("layout", "size", "kernel_size"), IMAGES)


def images(rng, layout, size, batch=2, channels=3):
    x = rng.standard_normal((batch, channels, *size))
    return oracles.in_layout(x, layout)


@every_image
def test_patches_times_weights_are_a_convolution(rng, layout, size, kernel_size):
    x = images(rng, layout, size)
    w = rng.standard_normal((4, 3, *kernel_size))
    w = oracles.weights_in_layout(w, layout)
    convolve = getattr(jaxcnn, f"conv{len(size)}d")

    @jax.jit
    def convolved_and_unfolded(x, w):
        patches = jaxcnn.unfold(x, kernel_size, layout=layout, **OPTIONS)
        return convolve(x, w, layout=layout, **OPTIONS), patches

    y, patches = map(np.asarray, convolved_and_unfolded(x, w))
    if layout.endswith("C"):
        product = patches @ w.reshape(1, -1, 4)
    else:
        product = w.reshape(1, 4, -1) @ patches
    # Float64, 18 terms of order 1 added in another order.
    np.testing.assert_allclose(product.reshape(y.shape), y, rtol=0, atol=1e-13)


@every_image
def test_fold_is_the_transpose_of_unfold(rng, layout, size, kernel_size):
    x = images(rng, layout, size)
    unfold = functools.partial(
        jaxcnn.unfold, kernel_size=kernel_size, layout=layout, **OPTIONS
    )
    p = rng.standard_normal(jax.eval_shape(unfold, x).shape)

    @jax.jit
    def unfolded_and_folded(x, p):
        return unfold(x), jaxcnn.fold(p, size, kernel_size, layout=layout, **OPTIONS)

    patches, folded = unfolded_and_folded(x, p)
    # Float64, some hundred terms of order 1.
    np.testing.assert_allclose(np.vdot(patches, p), np.vdot(x, folded), rtol=1e-12)


@every_image
def test_patches_side_by_side_fold_to_the_images_again(rng, layout, size, kernel_size):
    size = tuple(2 * k for k in kernel_size)
    x = images(rng, layout, size)
    window = {"kernel_size": kernel_size, "stride": kernel_size, "layout": layout}

    @jax.jit
    def there_and_back(x):
        return jaxcnn.fold(jaxcnn.unfold(x, **window), size, **window)

    np.testing.assert_array_equal(there_and_back(x), x)


def test_where_patches_overlap_pixels_are_added():
    # … and without jit, as whoever tries it out has it.
    ones = jnp.ones((1, 3, 4))
    folded = jaxcnn.fold(jaxcnn.unfold(ones, 2), (3, 4), 2)
    np.testing.assert_array_equal(folded, [[[1, 2, 2, 1], [2, 4, 4, 2], [1, 2, 2, 1]]])


def test_channels_first_a_patch_is_channel_by_channel():
    x = np.arange(8.0).reshape(2, 2, 2)
    (patch,) = np.asarray(jaxcnn.unfold(x, 2)).T
    np.testing.assert_array_equal(patch, np.arange(8))


def test_channels_last_a_patch_is_pixel_by_pixel():
    x = np.arange(8.0).reshape(2, 2, 2)
    unfold = jax.jit(functools.partial(jaxcnn.unfold, layout="NHWC"), static_argnums=1)
    np.testing.assert_array_equal(unfold(x, 2), np.arange(8)[None])
    np.testing.assert_array_equal(unfold(x, (1, 2)), np.arange(8).reshape(2, 4))


def test_padding_is_zeros_in_the_patches_and_lost_when_folded():
    @jax.jit
    def unfolded_and_folded(x, p):
        return (
            jaxcnn.unfold(x, 3, padding=1, layout="NCW"),
            jaxcnn.fold(p, 2, 3, padding=1, layout="NCW"),
        )

    patches, folded = unfolded_and_folded(np.array([[1.0, 2.0]]), np.ones((3, 2)))
    np.testing.assert_array_equal(patches, [[0, 1], [1, 2], [2, 0]])
    np.testing.assert_array_equal(folded, [[2, 2]])


def test_sequences_may_be_padded_causally():
    x = np.array([[1.0, 2.0, 3.0]])
    patches = jaxcnn.unfold(x, 2, padding="CAUSAL", layout="NCW")
    np.testing.assert_array_equal(patches, [[0, 1, 2], [1, 2, 3]])


def test_what_no_window_sees_is_zero_when_folded():
    folded = jaxcnn.fold(np.ones((1, 2)), 5, 1, stride=3, layout="NCW")
    np.testing.assert_array_equal(folded, [[1, 0, 0, 1, 0]])
