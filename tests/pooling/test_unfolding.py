"""unfold and fold: what is where, convolution as one product, and each other's transpose.

Random windows are compared with XLA and PyTorch in test_random_pooling.
"""

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
    return jnp.asarray(oracles.in_layout(x, layout))


@every_image
def test_patches_times_weights_are_a_convolution(rng, layout, size, kernel_size):
    x = images(rng, layout, size)
    w = rng.standard_normal((4, 3, *kernel_size))
    w = jnp.asarray(oracles.weights_in_layout(w, layout))
    y = getattr(jaxcnn, f"conv{len(size)}d")(x, w, layout=layout, **OPTIONS)
    patches = jaxcnn.unfold(x, kernel_size, layout=layout, **OPTIONS)
    if layout.endswith("C"):
        product = patches @ w.reshape(1, -1, 4)
    else:
        product = w.reshape(1, 4, -1) @ patches
    # Float64, 18 terms of order 1 added in another order.
    np.testing.assert_allclose(product.reshape(y.shape), y, rtol=0, atol=1e-13)


@every_image
def test_fold_is_the_transpose_of_unfold(rng, layout, size, kernel_size):
    x = images(rng, layout, size)
    patches = jaxcnn.unfold(x, kernel_size, layout=layout, **OPTIONS)
    p = jnp.asarray(rng.standard_normal(patches.shape))
    folded = jaxcnn.fold(p, size, kernel_size, layout=layout, **OPTIONS)
    # Float64, some hundred terms of order 1.
    np.testing.assert_allclose(jnp.vdot(patches, p), jnp.vdot(x, folded), rtol=1e-12)


@every_image
def test_patches_side_by_side_fold_to_the_images_again(rng, layout, size, kernel_size):
    size = tuple(2 * k for k in kernel_size)
    x = images(rng, layout, size)
    window = {"kernel_size": kernel_size, "stride": kernel_size, "layout": layout}
    np.testing.assert_array_equal(
        jaxcnn.fold(jaxcnn.unfold(x, **window), size, **window), x
    )


def test_where_patches_overlap_pixels_are_added():
    ones = jnp.ones((1, 3, 4))
    folded = jaxcnn.fold(jaxcnn.unfold(ones, 2), (3, 4), 2)
    np.testing.assert_array_equal(folded, [[[1, 2, 2, 1], [2, 4, 4, 2], [1, 2, 2, 1]]])


def test_channels_first_a_patch_is_channel_by_channel():
    x = jnp.arange(8.0).reshape(2, 2, 2)
    np.testing.assert_array_equal(jaxcnn.unfold(x, 2)[:, 0], np.arange(8))


def test_channels_last_a_patch_is_pixel_by_pixel():
    x = jnp.arange(8.0).reshape(2, 2, 2)
    np.testing.assert_array_equal(jaxcnn.unfold(x, 2, layout="NHWC")[0], np.arange(8))
    rows = jaxcnn.unfold(x, (1, 2), layout="NHWC")
    np.testing.assert_array_equal(rows, np.arange(8).reshape(2, 4))


def test_padding_is_zeros_in_the_patches_and_lost_when_folded():
    x = jnp.array([[1.0, 2.0]])
    patches = jaxcnn.unfold(x, 3, padding=1, layout="NCW")
    np.testing.assert_array_equal(patches, [[0, 1], [1, 2], [2, 0]])
    folded = jaxcnn.fold(jnp.ones((3, 2)), 2, 3, padding=1, layout="NCW")
    np.testing.assert_array_equal(folded, [[2, 2]])


def test_sequences_may_be_padded_causally():
    patches = jaxcnn.unfold(jnp.array([[1.0, 2.0, 3.0]]), 2, padding="CAUSAL", layout="NCW")
    np.testing.assert_array_equal(patches, [[0, 1, 2], [1, 2, 3]])


def test_what_no_window_sees_is_zero_when_folded():
    folded = jaxcnn.fold(jnp.ones((1, 2)), 5, 1, stride=3, layout="NCW")
    np.testing.assert_array_equal(folded, [[1, 0, 0, 1, 0]])
