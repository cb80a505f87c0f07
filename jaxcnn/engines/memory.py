"""How much to work on at a time.

A temporary array costs little while it fits into the cache. A larger one costs more than
its arithmetic: the C library maps every buffer of more than 32 MiB anew at every execution,
and each of its pages is faulted in.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn.layout import (
    Integers,
    Length,
    Numbers,
    merge_axes,
    resized,
    spatial_size,
    split_axis,
)
from jaxcnn.sharding import varying_like
from jaxcnn.window import Window, without_padding

NUMBER = jax.ShapeDtypeStruct((), "int32")  # of a block

BLOCK = 2**21
"""How many numbers temporary arrays may have at a time: 8 MiB."""


def at_once(one: Sequence[int], how_many: Length, limit: int = 0) -> Length:
    """How many of ``how_many`` images, or rows, to work on at a time; at least 1.

    Args:
      one: the shape of what is temporary, for one image.
      how_many: images there are. If that is a symbol, the answer is all of them.
      limit: of the temporary numbers; by default BLOCK.
    """
    if not isinstance(how_many, int):
        return how_many
    return evenly(how_many, (limit or BLOCK) // max(1, math.prod(one)))


def evenly(how_many: int, most: int) -> int:
    """How large to make blocks of at most so many, or 1.

    The largest divisor, if it is at least half of that. Otherwise blocks have about equal
    sizes, but for the last.

    >>> evenly(12, 5), evenly(13, 12)
    (4, 7)
    """
    most = min(how_many, max(1, most))
    divisor = next(n for n in range(most, 0, -1) if how_many % n == 0)
    if 2 * divisor >= most:
        return divisor
    return math.ceil(how_many / math.ceil(how_many / most))


class Blocks:
    """What a sum over windows works on at a time: some images, or some rows of one.

    Rows are those of the output, along the first spatial dimension. A block of r rows sees
    a slab of s·(r − 1) + d·(K − 1) + 1 rows of X; channels are last. Where blocks do not
    divide images, or rows, the last block takes some of that before it.

    Where they divide the images, a block is no run of them: with n blocks it has every n-th
    image. Where the batch is sharded over devices, each device then holds its part of every
    block.
    """

    def __init__(
        self,
        X: Numbers,
        window: Window,
        layout: str,
        numbers: int,
        limit: int = 0,
        cuts: bool = True,
    ):
        """For arrays X, and ``numbers`` temporary ones for each output position.

        ``limit`` is of these numbers, by default BLOCK. Without ``cuts`` a block has whole
        images.
        """
        self.batch = X.shape[0]
        self.height, *others = window.output_size(spatial_size(X, layout))
        of_row = (*others, numbers)
        self.images = at_once((self.height, *of_row), self.batch, limit)
        cuts = cuts and self.images == 1
        self.rows = at_once(of_row, self.height, limit) if cuts else self.height
        self.window = window
        self.is_cut = self.rows < self.height
        self.divides = self.height % self.rows == 0
        self.divides_batch = self.batch % self.images == 0
        self.is_one = self.images == self.batch and not self.is_cut
        self.low, self.stride = window.padding[0][0], window.stride[0]
        self.reach = self.stride * (self.rows - 1) + window.extent[0]
        # A slab comes with its padding.
        self.inner = without_padding(window, 0) if self.is_cut else window

    def put_together(
        self, function: Callable[[Numbers, Window], Numbers], X: Numbers
    ) -> Numbers:
        """``function(X, window)``, which treats all windows alike, block by block.

        A loop's result is in memory. XLA may compute other results anew wherever they are
        read.
        """
        if self.is_one:
            return function(X, self.window)
        X, count, cuts = self._split(X)

        def part(number: Integers) -> tuple[Numbers, Any]:
            number = number.astype("int32")
            image, row = lax.div(number, cuts), self._first(number, cuts)
            slab = self._slab(X, image, row)
            return function(lax.optimization_barrier(slab), self.inner), (image, row)

        def put(number: Integers, result: Numbers) -> Numbers:
            block, (image, row) = part(number)
            if self.divides_batch:
                block, at = jnp.expand_dims(block, 1), (jnp.zeros_like(image), image)
            else:
                at = (self._begin(image),)
            block = lax.optimization_barrier(block)
            rest = [jnp.zeros_like(image)] * (result.ndim - len(at) - 1)
            return lax.dynamic_update_slice(
                result, block, (*at, row, *rest), allow_negative_indices=False
            )

        block, _ = jax.eval_shape(part, NUMBER)
        height = self.height if self.is_cut else block.shape[1]
        result = jnp.zeros((self.batch, height, *block.shape[2:]), block.dtype)
        result, *_ = self._split(result)
        result = lax.fori_loop(0, count, put, varying_like(result, X))
        return merge_axes(result, 0, 2) if self.divides_batch else result

    def sum_over(
        self, function: Callable[[Numbers, Numbers, Window], Any], X: Numbers, dY: Numbers
    ) -> Any:
        """``function(X, dY, window)``, which sums over images and rows, block by block.

        Images and rows of zeros must add nothing.
        """
        if self.is_one:
            return function(X, dY, self.window)
        X, count, cuts = self._split(X)
        dY, *_ = self._split(dY)

        def part(number: Integers) -> Any:
            number = number.astype("int32")
            image, row = lax.div(number, cuts), lax.rem(number, cuts) * self.rows
            slab, seen = self._slab(X, image, row), self._images(dY, image)
            if self.is_cut:
                seen = _rows(seen, row, self.rows, self.height, self.divides)
            if not self.divides_batch:
                slab, seen = (self._without_former(each, image) for each in (slab, seen))
            slab, seen = lax.optimization_barrier((slab, seen))
            return function(slab, seen, self.inner)

        zeros = jax.tree.map(
            lambda sum: varying_like(jnp.zeros(sum.shape, sum.dtype), X, dY),
            jax.eval_shape(part, NUMBER),
        )

        def add(number: Integers, totals: Any) -> Any:
            return jax.tree.map(jnp.add, totals, part(number))

        return lax.fori_loop(0, count, add, zeros)

    def _split(self, x: Numbers) -> tuple[Numbers, int, np.int32]:
        """(images, blocks of them, …), how many blocks in all, and how many of an image.

        Where blocks do not divide the images, those stay as they are.
        """
        blocks, cuts = -(-self.batch // self.images), -(-self.height // self.rows)
        if self.divides_batch:
            x = split_axis(x, 0, self.images, blocks)
        return x, blocks * cuts, np.int32(cuts)

    def _begin(self, image: Integers) -> Integers:
        """The first image of a block, where blocks do not divide them."""
        return jnp.minimum(image * self.images, self.batch - self.images)

    def _images(self, x: Numbers, image: Integers) -> Numbers:
        """A block of what was split."""
        if self.divides_batch:
            return lax.dynamic_index_in_dim(
                x, image, 1, keepdims=False, allow_negative_indices=False
            )
        return lax.dynamic_slice_in_dim(
            x, self._begin(image), self.images, 0, allow_negative_indices=False
        )

    def _without_former(self, block: Numbers, image: Integers) -> Numbers:
        """The block with zeros for images that were in the one before."""
        number = np.arange(self.images, dtype="int32") + self._begin(image)
        is_new = (number >= image * self.images).reshape(-1, *[1] * (block.ndim - 1))
        return jnp.where(is_new, block, jnp.zeros((), block.dtype))

    def _first(self, number: Integers, cuts: np.int32) -> Integers:
        """The first row of a block: the last one takes some rows of that before it."""
        row = lax.rem(number, cuts) * self.rows
        return jnp.minimum(row, self.height - self.rows)

    def _slab(self, X: Numbers, image: Integers, row: Integers) -> Numbers:
        """What the windows of a block see of X."""
        seen = self._images(X, image)
        if not self.is_cut:
            return seen
        is_inside = self.divides and max(self.window.padding[0]) <= 0
        last = self.stride * (self.height - 1) + self.window.extent[0] - self.low
        height = min(X.shape[2], last)  # rows after those that a window sees are left out
        return _rows(seen, self.stride * row - self.low, self.reach, height, is_inside)


def _rows(x: Numbers, first: Integers, count: int, height: int, is_inside: bool) -> Numbers:
    """x[:, first : first + count], zero before and after the rows 0 … height − 1."""
    if is_inside:
        return _sliced(x, first, count)
    there = min(count, height)
    start = jnp.clip(first, 0, height - there)
    rows = resized(_sliced(x, start, there), 1, -count, there + 2 * count)
    return _sliced(rows, jnp.clip(count + first - start, 0, there + count), count)


def _sliced(x: Numbers, first: Integers, count: int) -> Numbers:
    return lax.dynamic_slice_in_dim(x, first, count, 1, allow_negative_indices=False)
