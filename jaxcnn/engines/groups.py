"""Groups, one by one.

XLA's own grouped convolution is a naive loop nest on a CPU, 20 to 200 times slower than the
dense convolutions that it consists of; its weight gradient is slower still. So the engines
compute each group by itself. A NaN in one group then stays there, and the best way to
compute a group does not depend on how many there are.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

import jax.numpy as jnp
from jax import lax

from jaxcnn.layout import Numbers, merge_axes, split_axis

WRITTEN_OUT, WIDE = 4, 8
"""Up to so many groups are written out, and twice as many of WIDE channels, whose products
are worth it; more go through a loop, compiled once."""


def group_by_group(
    dense: Callable[..., Numbers], result_axis: int = -1
) -> Callable[..., Numbers]:
    """One of the three sums for any number of groups, from the same sum without groups.

    The groups are runs of channels, and channels are the last axis of X, of dY and (those
    of the output) of W: every array is cut along it, and the results are put together along
    ``result_axis``.
    """

    @wraps(dense)
    def grouped(
        first: Numbers, second: Numbers, *, groups: int = 1, **known: Any
    ) -> Numbers:
        if groups == 1:
            return dense(first, second, **known)
        is_wide = first.shape[-1] >= groups * WIDE
        if groups <= WRITTEN_OUT * (1 + is_wide):
            parts = zip(*(jnp.split(x, groups, -1) for x in (first, second)), strict=True)
            return jnp.concatenate([dense(*part, **known) for part in parts], result_axis)
        split = (split_axis(x, x.ndim - 1, groups, -1) for x in (first, second))
        mapped = tuple(jnp.moveaxis(x, -2, 0) for x in split)
        result = lax.map(lambda part: dense(*part, **known), mapped)
        axis = result_axis % (result.ndim - 1)
        return merge_axes(jnp.moveaxis(result, 0, axis), axis, 2)

    return grouped
