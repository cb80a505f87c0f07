"""How many images to work on at a time.

A temporary array costs little while it fits into the cache. A larger one costs more than
its arithmetic: the C library maps every buffer of more than 32 MiB anew at every execution,
and each of its pages is faulted in.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn.layout import Integers, Length, Numbers, merge_axes, resized, split_axis
from jaxcnn.sharding import varying_like

BLOCK = 2**21
"""How many numbers temporary arrays may have at a time: 8 MiB."""


def images_at_once(image: Sequence[int], batch: Length) -> Length:
    """How many images of ``batch`` to work on at a time; at least 1.

    The largest divisor of the batch whose images fit into BLOCK, if they fill at least half
    of it. Otherwise blocks have about equal sizes, and images of zeros fill up the last.

    Args:
      image: the shape of what is temporary, for one image.
      batch: how many images there are. If that is a symbol, the answer is all of them.
    """
    if not isinstance(batch, int):
        return batch
    most = min(batch, max(1, BLOCK // max(1, math.prod(image))))
    divisor = next(n for n in range(most, 0, -1) if batch % n == 0)
    if 2 * divisor >= most:
        return divisor
    return math.ceil(batch / math.ceil(batch / most))


def block_of(x: Numbers, number: int | Integers, images: int) -> Numbers:
    """Block ``number`` of x: with n blocks, every n-th image from that number on.

    A block is no run of images: where the batch is sharded over devices, and a block has
    images for all of them, each device holds its part of every block.
    """
    blocks = x.shape[0] // images
    split = split_axis(x, 0, images, blocks)
    return lax.dynamic_index_in_dim(split, number, 1, keepdims=False)


def sum_over_blocks(
    function: Callable[..., Any], arrays: Sequence[Numbers], images: Length
) -> Any:
    """Σ ``function(*blocks)``, which sums over images, block by block of all the arrays.

    Images of zeros must add nothing.
    """
    if images == arrays[0].shape[0]:
        return function(*arrays)
    arrays = [_filled_up(x, images) for x in arrays]

    def add(number: Integers, totals: Any) -> Any:
        blocks = lax.optimization_barrier([block_of(x, number, images) for x in arrays])
        return jax.tree.map(jnp.add, totals, function(*blocks))

    of_block = [jax.ShapeDtypeStruct((images, *x.shape[1:]), x.dtype) for x in arrays]
    zeros = jax.tree.map(
        lambda part: varying_like(jnp.zeros(part.shape, part.dtype), *arrays),
        jax.eval_shape(function, *of_block),
    )
    return lax.fori_loop(0, arrays[0].shape[0] // images, add, zeros)


def in_blocks(function: Callable[[Numbers], Any], x: Numbers, images: Length) -> Any:
    """``function(x)``, for a function that treats all images alike, block by block.

    A loop's result is in memory. XLA may compute other results anew wherever they are read.
    """
    batch = x.shape[0]
    if images == batch:
        return function(x)
    x = _filled_up(x, images)

    def put(number: Integers, results: Any) -> Any:
        block = lax.optimization_barrier(block_of(x, number, images))
        parts = lax.optimization_barrier(function(block))
        return jax.tree.map(
            lambda result, part: lax.dynamic_update_index_in_dim(result, part, number, 1),
            results,
            parts,
        )

    blocks = x.shape[0] // images
    parts = jax.eval_shape(function, jax.ShapeDtypeStruct((images, *x.shape[1:]), x.dtype))
    results = jax.tree.map(
        lambda part: varying_like(
            jnp.zeros((images, blocks, *part.shape[1:]), part.dtype), x
        ),
        parts,
    )
    results = lax.fori_loop(0, blocks, put, results)
    return jax.tree.map(
        lambda result: lax.slice_in_dim(merge_axes(result, 0, 2), 0, batch), results
    )


def _filled_up(x: Numbers, images: int) -> Numbers:
    """x with images of zeros after the last, so that its last block is complete."""
    return resized(x, 0, 0, math.ceil(x.shape[0] / images) * images)
