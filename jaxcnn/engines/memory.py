"""How many images to work on at a time.

An array that is made, read once and forgotten costs little while it fits into the cache, and
more than its arithmetic where it does not: the C library maps every buffer of more than
32 MiB anew at every execution, and each of its pages is faulted in.
"""

import math
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn.layout import merge_axes, split_axis

BLOCK = 2**20
"""So many numbers of temporary arrays at a time: 4 MiB."""


def images_at_once(image: Sequence[int], batch: int) -> int:
    """The largest divisor of ``batch`` whose images are within BLOCK; at least 1.

    Args:
      image: the shape of what is temporary, for one image.
      batch: how many images there are. All of them, if that is not known yet.
    """
    if not isinstance(batch, int):
        return batch
    most = max(1, BLOCK // max(1, math.prod(image)))
    return next((n for n in range(min(batch, most), 1, -1) if batch % n == 0), 1)


def block_of(x: jax.Array, number, images: int) -> jax.Array:
    """Some of the images of x: every so many-th one, from ``number`` on.

    Not a run of them: where the batch is spread over devices, each has its part of every
    block, and none has to fetch another's.
    """
    blocks = x.shape[0] // images
    split = split_axis(x, 0, images, blocks)
    return lax.dynamic_index_in_dim(split, number, 1, keepdims=False)


def in_blocks(
    function: Callable[[jax.Array], jax.Array], x: jax.Array, images: int
) -> jax.Array:
    """``function(x)``, for a function that treats all images alike, block by block."""
    if images == x.shape[0]:
        return function(x)

    def put(number, y):
        block = lax.optimization_barrier(block_of(x, number, images))
        part = lax.optimization_barrier(function(block))
        return lax.dynamic_update_index_in_dim(y, part, number, 1)

    blocks = x.shape[0] // images
    part = jax.eval_shape(function, jax.ShapeDtypeStruct((images, *x.shape[1:]), x.dtype))
    y = jnp.zeros((images, blocks, *part.shape[1:]), part.dtype)
    return merge_axes(lax.fori_loop(0, blocks, put, y), 0, 2)
