"""Depthwise weight gradients as sums over images and positions, for GPUs.

A GPU's vendor has quick convolutions for depthwise kernels of 3×3 and 5×5, and slow ones
for larger kernels. There a tap is a sum of products over all images and positions. XLA
makes the sums of eight taps in one pass over X and dY where the positions of an image lie
side by side in memory; with channels last it makes two at a time. So the arrays are turned
around in memory, whatever lies around this sum.

Every image is summed by itself first. What is left is small, and one more sum for all taps.

The other two sums are XLA's convolutions.
"""

from collections.abc import Iterable

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.experimental.layout import Layout, with_layout_constraint
from jax.lax import PrecisionLike

from jaxcnn.engines.xla import forward, input_gradient
from jaxcnn.layout import (
    Numbers,
    channels_last,
    grouped,
    split_channels,
    turned,
    weights_of,
    with_channels_first,
)
from jaxcnn.problem import Description
from jaxcnn.rounding import sum_dtype
from jaxcnn.window import Tap, Window, padded, tap

__all__ = ["forward", "input_gradient", "refuses", "weight_gradient"]

ANY_LAYOUT = CONVOLVES = SETS_LAYOUT = True
WRITTEN_OUT = 64
"""Up to so many taps are written out; more go through a loop, which compiles once."""
AT_A_TURN = 32
"""How many taps each turn of that loop sums."""


def refuses(description: Description) -> str | None:
    if description.c_in > 1:
        return "computes depthwise convolutions only (one input channel in each group)"
    return None


def weight_gradient(
    X: Numbers,
    dY: Numbers,
    *,
    window: Window,
    layout: str,
    groups: int = 1,
    precision: PrecisionLike = None,
) -> Numbers:
    """dW[m] = Σ tap(X, m) · dY, channel by channel."""
    del precision  # there are no matrix products
    first, dtype = with_channels_first(layout), sum_dtype(dY.dtype)
    X, dY = (_in_memory(turned(each, layout, first)) for each in (X, dY))
    X, dY = (split_channels(each, groups, first) for each in (X, dY))
    X, window = padded(X, window, grouped(first))
    positions = tuple(range(3, X.ndim))

    def at_tap(m: Tap) -> Numbers:
        seen = tap(X, m, window, grouped(first))
        return jnp.sum(seen.astype(dtype) * dY.astype(dtype), positions)

    def at_taps(taps: Iterable[Tap]) -> Numbers:
        return jnp.sum(jnp.stack([at_tap(m) for m in taps]), 1)

    taps = window.offsets()
    if len(taps) <= WRITTEN_OUT:
        dW = at_taps(taps)
    else:
        turns = -(-len(taps) // AT_A_TURN)
        filled_up = np.resize(taps, (turns, AT_A_TURN, taps.shape[1]))
        dW = lax.map(at_taps, filled_up).reshape(-1, *dY.shape[1:3])[: len(taps)]
    return weights_of(
        jnp.expand_dims(dW, 1 if channels_last(layout) else -1), window.kernel_size, layout
    )


def _in_memory(x: Numbers) -> Numbers:
    """x, which from here on lies in memory in the order of its axes."""
    return with_layout_constraint(x, Layout(tuple(range(x.ndim))))
