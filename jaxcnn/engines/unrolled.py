"""Depthwise convolution, written out tap by tap.

A loop over taps writes its running sum to memory at every tap. Written out, up to
MAX_TERMS taps are one expression, which XLA compiles to one pass; a larger kernel takes a
few passes, in a loop. That is best where a tap does little work, and memory is the limit.

The weight gradient is the odd one: for each channel and tap, a sum over all images and
positions. XLA's ``reduce`` would first write the products of every tap to memory. So the
sums go block by block, and are kept for every position of a block until the end: adding a
block is arithmetic on whole rows of channels.
"""

from collections.abc import Sequence
from math import prod

import jax.numpy as jnp
from jax import lax
from jax.lax import PrecisionLike

from jaxcnn.engines.memory import Blocks
from jaxcnn.engines.rotation import by_rotation
from jaxcnn.engines.sums import sum_of
from jaxcnn.engines.taps import First, over_groups
from jaxcnn.layout import Numbers, merge_axes, spatial_size, split_axis
from jaxcnn.problem import Description
from jaxcnn.rounding import sum_dtype
from jaxcnn.sharding import varying_like
from jaxcnn.window import Window, padded, tap

MAX_TERMS = 32
"""With more of them written out, compiling takes too long."""

IN_CACHE = 2**13
"""So many numbers of a tap's sums stay in the nearest cache."""

AT_ONCE = 2**22
"""So many numbers of a padded copy at a time, where it is much larger than X: 16 MiB."""


def refuses(description: Description) -> str | None:
    if description.c_in > 1 or description.groups == 1:
        return "computes depthwise convolutions only (one input channel in each group)"
    if description.c_out > MAX_TERMS:
        return (
            f"writes out no more than {MAX_TERMS} output channels in each group, and here "
            f"they are {description.c_out}"
        )
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
    X, W = (each.astype(sum_dtype(each.dtype)) for each in (X, W))
    W = split_axis(W, W.ndim - 1, groups, W.shape[-1] // groups)  # K…, I, G, O

    *_, c_in, _, multiplier = W.shape

    def add(Y: Numbers, X: Numbers, window: Window, first: First) -> Numbers:
        """Y and the taps of one group."""
        size = [*window.kernel_size, *W.shape[-3:]]
        V = lax.dynamic_slice(W, [*first, 0, 0, 0], size, allow_negative_indices=False)
        V = jnp.expand_dims(V, range(V.ndim - 2, V.ndim + X.ndim - 3))  # K…, I, 1…, G, O
        inputs = _by_number(X, c_in)
        outputs = [
            sum_of(
                tap(x, m, window, layout) * V[*m, i, ..., number]
                for m in window.offsets()
                for i, x in enumerate(inputs)
            )
            for number in range(multiplier)
        ]
        return Y + _beside(outputs)

    def convolved(X: Numbers, window: Window) -> Numbers:
        X, window = padded(X, window, layout)
        X = lax.optimization_barrier(X)  # padded once, not once for every tap
        size = window.output_size(spatial_size(X, layout))
        Y = jnp.zeros((X.shape[0], *size, groups * multiplier), X.dtype)
        most = max(1, MAX_TERMS // (c_in * multiplier))
        return over_groups(add, varying_like(Y, X, W), X, window, layout, most)

    if not _is_swollen(X, window, layout):
        return convolved(X, window)
    seen = X.shape[-1] * prod(window.stride)
    return Blocks(X, window, layout, seen, AT_ONCE).put_together(convolved, X)


input_gradient = by_rotation(forward)


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
    X, dY = (each.astype(sum_dtype(each.dtype)) for each in (X, dY))
    multiplier = dY.shape[-1] // groups

    def by_position(X: Numbers, dY: Numbers, window: Window) -> list[Numbers]:
        X, window = padded(X, window, layout)
        outputs = _by_number(dY, multiplier)
        return [
            tap(X, m, window, layout) * output
            for m in window.offsets()
            for output in outputs
        ]

    def put(dW: Numbers, X: Numbers, window: Window, first: First) -> Numbers:
        """dW with the taps of one group."""
        blocks = Blocks(X, window, layout, X.shape[-1], IN_CACHE)
        sums = blocks.sum_over(by_position, X, dY)
        sums = lax.optimization_barrier(jnp.stack(sums))
        dV = jnp.sum(sums, range(1, sums.ndim - 1))
        dV = dV.reshape(*window.kernel_size, multiplier, groups)
        at = [*first, 0, 0]
        return lax.dynamic_update_slice(dW, dV, at, allow_negative_indices=False)

    most = max(1, MAX_TERMS // multiplier)
    if window.number_of_taps > most or not _is_swollen(X, window, layout):
        X, window = padded(X, window, layout)
    dW = jnp.zeros((*window.kernel_size, multiplier, groups), X.dtype)
    dW = over_groups(put, varying_like(dW, X, dY), X, window, layout, most)
    dW = jnp.expand_dims(jnp.swapaxes(dW, -1, -2), -3)
    return merge_axes(dW, dW.ndim - 2, 2)


def _is_swollen(X: Numbers, window: Window, layout: str) -> bool:
    """Whether padding makes X larger by a quarter and more, as it does small volumes."""
    size = spatial_size(X, layout)
    return 4 * prod(window.padded_size(size)) > 5 * prod(size)


def _by_number(x: Numbers, count: int) -> list[Numbers]:
    """(…, G·c) to c arrays (…, G)."""
    return [x] if count == 1 else [x[..., number::count] for number in range(count)]


def _beside(arrays: Sequence[Numbers]) -> Numbers:
    """The inverse of :func:`_by_number`."""
    if len(arrays) == 1:
        return arrays[0]
    return merge_axes(jnp.stack(arrays, -1), arrays[0].ndim - 1, 2)
