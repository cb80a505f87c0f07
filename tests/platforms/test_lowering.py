"""Every operation, its gradient and tangent, lowered for platforms that need not be here.

One program for all of them, for any number of images.
"""

import functools

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn

PLATFORMS = ("cpu", "cuda", "rocm", "tpu")

# (function, the shapes of its arrays, "B" for the batch)
OPERATIONS = {
    "conv1d": (
        functools.partial(jaxcnn.conv1d, padding="CAUSAL", dilation=2),
        (("B", 4, 9), (6, 4, 3), (6,)),
    ),
    "conv2d, reflected": (
        functools.partial(jaxcnn.conv2d, padding=1, padding_mode="reflect"),
        (("B", 4, 6, 5), (6, 4, 3, 3)),
    ),
    "conv3d": (
        functools.partial(jaxcnn.conv3d, stride=2, layout="NDHWC"),
        (("B", 4, 5, 6, 4), (2, 2, 2, 4, 6)),
    ),
    "conv_transpose2d": (
        functools.partial(jaxcnn.conv_transpose2d, stride=2, output_padding=1, groups=2),
        (("B", 4, 3, 4), (4, 3, 3, 3), (6,)),
    ),
    "separable_conv2d": (
        functools.partial(jaxcnn.separable_conv2d, layout="NHWC"),
        (("B", 6, 5, 4), (3, 3, 1, 8), (1, 1, 8, 3)),
    ),
    "max_pool2d, rounded up": (
        functools.partial(jaxcnn.max_pool2d, kernel_size=3, stride=2, ceil_mode=True),
        (("B", 2, 6, 8),),
    ),
    "max pooling and back": (
        lambda x: jaxcnn.max_unpool2d(*jaxcnn.max_pool2d(x, 2, return_indices=True), 2),
        (("B", 2, 6, 8),),
    ),
    "avg_pool3d": (
        functools.partial(jaxcnn.avg_pool3d, kernel_size=2, dilation=2, layout="NDHWC"),
        (("B", 3, 4, 5, 2),),
    ),
    "lp_pool1d": (
        functools.partial(jaxcnn.lp_pool1d, norm_type=2, kernel_size=3),
        (("B", 2, 9),),
    ),
    "adaptive_max_pool2d": (
        functools.partial(jaxcnn.adaptive_max_pool2d, output_size=(3, 4)),
        (("B", 2, 7, 9),),
    ),
    "adaptive_avg_pool2d": (
        functools.partial(jaxcnn.adaptive_avg_pool2d, output_size=3, layout="NHWC"),
        (("B", 7, 9, 2),),
    ),
    "global_max_pool": (
        functools.partial(jaxcnn.global_max_pool, layout="NHWC"),
        (("B", 9, 10, 2),),
    ),
    "unfold and fold": (
        lambda x: jaxcnn.fold(jaxcnn.unfold(x, 3, padding=1), (5, 6), 3, padding=1),
        (("B", 2, 5, 6),),
    ),
}


@pytest.mark.parametrize("operation", OPERATIONS)
def test_one_program_is_lowered_for_every_platform_and_any_batch(operation, rng):
    function, shapes = OPERATIONS[operation]

    @jax.jit
    def in_both_modes(*arrays):
        y, pullback = jax.vjp(function, *arrays)
        _, dy = jax.jvp(function, arrays, arrays)
        return y, dy, pullback(jnp.sin(y))

    (batch,) = jax.export.symbolic_shape("batch")
    described = [
        jax.ShapeDtypeStruct([batch if size == "B" else size for size in shape], "float32")
        for shape in shapes
    ]
    exported = jax.export.export(in_both_modes, platforms=PLATFORMS)(*described)
    assert exported.platforms == PLATFORMS
    arrays = [
        np.float32(rng.standard_normal([3 if size == "B" else size for size in shape]))
        for shape in shapes
    ]
    # Float32: some hundred terms of order 1, added in another order.
    chex.assert_trees_all_close(
        exported.call(*arrays), in_both_modes(*arrays), rtol=1e-4, atol=1e-5
    )
