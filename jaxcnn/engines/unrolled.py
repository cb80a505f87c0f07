"""Depthwise convolution, written out tap by tap.

A loop over taps writes its running sum to memory at every tap. Written out, all taps are
one expression, which XLA compiles to one pass. That is best where a tap does little work,
and memory is the limit.

The weight gradient is the odd one: for each channel and tap, a sum over all images and
positions. XLA's ``reduce`` is slow at it, since it makes the products, too. Written out as
a sum over the columns of an image, it is arithmetic on whole rows of channels.
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jax.lax import PrecisionLike

from jaxcnn.engines.memory import images_at_once, sum_over_blocks
from jaxcnn.engines.sums import sum_of
from jaxcnn.layout import Numbers, grouped, merge_channels, split_channels, taps_of
from jaxcnn.problem import Description
from jaxcnn.rounding import sum_dtype
from jaxcnn.window import Window, padded, tap, untap

MAX_TAPS = 64
"""With more of them written out, compiling takes too long."""


def refuses(description: Description) -> str | None:
    if description.c_in > 1:
        return "computes depthwise convolutions only (one input channel in each group)"
    taps = description.window.number_of_taps
    if taps > MAX_TAPS:
        return f"writes out no more than {MAX_TAPS} taps, and here they are {taps}"
    return None


def forward(
    X: Numbers,
    W: Numbers,
    *,
    window: Window,
    layout: str,
    groups: int = 1,
    precision: PrecisionLike = None,
) -> Numbers:
    """Y = Σ_m tap(X, m) · W[m], channel by channel."""
    del precision  # there are no matrix products
    X, window = padded(_split(X, groups, layout), window, grouped(layout))
    X = lax.optimization_barrier(X)  # padded once, not once for every tap
    Y = sum_of(
        tap(X, m, window, grouped(layout)) * W_m
        for m, W_m in zip(window.offsets(), _by_tap(W, groups, layout), strict=True)
    )
    return merge_channels(Y, layout)


def input_gradient(
    dY: Numbers,
    W: Numbers,
    *,
    window: Window,
    input_size: Sequence[int],
    layout: str,
    groups: int = 1,
    precision: PrecisionLike = None,
) -> Numbers:
    """dX = Σ_m untap(dY · W[m], m), channel by channel."""
    del precision
    dY = _split(dY, groups, layout)
    return sum_of(
        untap(jnp.sum(dY * W_m, -1), m, window, input_size, layout)
        for m, W_m in zip(window.offsets(), _by_tap(W, groups, layout), strict=True)
    )


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
    del precision
    multiplier = dY.shape[-1] // groups

    def by_rows(X: Numbers, dY: Numbers) -> list[Numbers]:
        X, dY = (_split(each, groups, layout) for each in (X, dY))
        X, inner = padded(X, window, grouped(layout))
        X, dY = lax.optimization_barrier((X, dY))
        seen = (tap(X, m, inner, grouped(layout)) for m in inner.offsets())
        return [_over_columns(each, dY) for each in seen]

    images = images_at_once((8, *X.shape[1:]), X.shape[0])
    sums = sum_over_blocks(by_rows, (X, dY), images)
    dW = jnp.stack([jnp.sum(each, range(each.ndim - 2)) for each in sums])
    return dW.reshape(*window.kernel_size, 1, groups * multiplier)


def _over_columns(seen: Numbers, dY: Numbers) -> Numbers:
    """Σ over the last dimension of the images, written out."""
    return sum_of(
        seen[..., column, :, :] * dY[..., column, :, :] for column in range(dY.shape[-3])
    )


def _split(x: Numbers, groups: int, layout: str) -> Numbers:
    """(…, G·c) to (…, G, c), in the dtype of sums."""
    return split_channels(x.astype(sum_dtype(x.dtype)), groups, layout)


def _by_tap(W: Numbers, groups: int, layout: str) -> Numbers:
    """(K…, 1, G·c) to (taps, 1…, G, c), which broadcasts against (B, …, G, c)."""
    W = taps_of(W.astype(sum_dtype(W.dtype)), groups, layout)
    return jnp.expand_dims(W, range(1, len(layout) - 1))
