"""The sums of :mod:`jaxcnn.equations`, written out tap by tap instead of looped over.

A loop over taps writes its running sum to memory at every tap. Written out, all taps are
one expression, that XLA compiles to one pass: this is for sums in which a tap does so little
work that the memory is all that counts, depthwise convolution and pooling.

The weight gradient of a depthwise convolution is the odd one: for each channel and tap, a
sum over all images and positions, which XLA's ``reduce`` is slow at when channels are last.
Written out as a sum over the columns of an image, it is arithmetic on whole rows of
channels. The images go through it a few at a time, so that they are read from memory once
and not once for every tap.
"""

import operator
from functools import reduce

import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn.engines.memory import block_of, images_at_once
from jaxcnn.equations import lowest, sum_dtype, winner_dtype
from jaxcnn.layout import merge_axes, spatial_axes, spatial_size, split_axis
from jaxcnn.window import padded, tap, untap, valid_positions

MAX_TAPS = 64
"""So many can be written out before compiling takes too long."""

MAX_TAPS_AT_ONCE = 16
"""Averages over more are taken one dimension after the other."""


def refuses(description) -> str | None:
    if description.is_convolution and description.c_in > 1:
        return "computes depthwise convolutions only (one input channel in each group)"
    window = description.window
    separable = description.name.startswith("average_pool")
    taps = sum(window.kernel_size) if separable else window.number_of_taps
    if taps > MAX_TAPS:
        return f"writes out no more than {MAX_TAPS} taps, and here they are {taps}"
    return None


# --- Depthwise convolution ------------------------------------------------------------


def forward(X, W, *, window, layout, groups=1, precision=None):
    """Y = Σ_m tap(X, m) · W[m], channel by channel."""
    del precision  # there are no matrix products
    X, window = padded(_split(X, groups), window, _grouped(layout))
    X = lax.optimization_barrier(X)  # padded once, not once for every tap
    Y = _sum(
        tap(X, m, window, _grouped(layout)) * W_m
        for m, W_m in zip(window.offsets(), _by_tap(W, groups, X.ndim), strict=True)
    )
    return _merged(Y)


def input_gradient(dY, W, *, window, input_size, layout, groups=1, precision=None):
    """dX = Σ_m untap(dY · W[m], m), channel by channel."""
    del precision
    dY = _split(dY, groups)
    return _sum(
        untap(jnp.sum(dY * W_m, -1), m, window, input_size, layout)
        for m, W_m in zip(window.offsets(), _by_tap(W, groups, dY.ndim), strict=True)
    )


def weight_gradient(X, dY, *, window, layout, groups=1, precision=None):
    """dW[m] = Σ tap(X, m) · dY, channel by channel."""
    del precision
    images = images_at_once((4, *X.shape[1:]), X.shape[0])
    output_rows = window.output_size(spatial_size(X, layout))[:-1]

    def add_block(number, totals):
        block = (block_of(each, number, images) for each in (X, dY))
        X_block, dY_block = (_split(each, groups) for each in block)
        X_block, inner = padded(X_block, window, _grouped(layout))
        X_block, dY_block = lax.optimization_barrier((X_block, dY_block))
        seen = (tap(X_block, m, inner, _grouped(layout)) for m in inner.offsets())
        return [
            total + _over_columns(each, dY_block)
            for total, each in zip(totals, seen, strict=True)
        ]

    multiplier = dY.shape[-1] // groups
    zeros = jnp.zeros((images, *output_rows, groups, multiplier), sum_dtype(X.dtype))
    totals = [zeros] * window.number_of_taps
    totals = lax.fori_loop(0, X.shape[0] // images, add_block, totals)
    dW = jnp.stack([jnp.sum(total, range(total.ndim - 2)) for total in totals])
    return dW.reshape(*window.kernel_size, 1, groups * multiplier)


def _over_columns(seen, dY):
    """Σ over the last dimension of the images, written out."""
    return _sum(
        seen[..., column, :, :] * dY[..., column, :, :] for column in range(dY.shape[-3])
    )


def _grouped(layout):
    """Channels as (group, channel of the group)."""
    return layout[:-1] + "GC"


def _split(x, groups):
    """(…, G·c) to (…, G, c), as wide as sums want it."""
    x = x.astype(sum_dtype(x.dtype))
    return split_axis(x, x.ndim - 1, groups, x.shape[-1] // groups)


def _merged(x):
    return merge_axes(x, x.ndim - 2, 2)


def _by_tap(W, groups, ndim):
    """(K…, 1, G·c) to (taps, 1…, G, c), which broadcasts against (…, G, c)."""
    W = W.astype(sum_dtype(W.dtype))
    return W.reshape(-1, *[1] * (ndim - 2), groups, W.shape[-1] // groups)


# --- Pooling --------------------------------------------------------------------------


def max_pool(X, *, window, layout):
    """Y = max_m tap(X, m), then the first tap that is equal to it."""
    input_size = spatial_size(X, layout)
    X, inner = padded(X, window, layout, lowest(X.dtype))
    seen = [tap(X, m, inner, layout) for m in window.offsets()]
    Y = reduce(jnp.maximum, seen)
    winner = jnp.full(Y.shape, -1, winner_dtype(window))
    for (number, m), value in reversed(list(zip(_numbered(window), seen, strict=True))):
        found = (value == Y) | jnp.isnan(value)
        if window.is_padded:
            found &= valid_positions(m, window, input_size, layout)
        winner = jnp.where(found, number, winner)
    # Whoever reads the winner shall not compute it anew at every reading.
    return Y, lax.optimization_barrier(winner)


def max_pool_gradient(dY, winner, *, window, input_size, layout):
    """dX = Σ_m untap(dY · [winner = m], m)"""
    dY = dY.astype(sum_dtype(dY.dtype))
    return _sum(
        untap(_where(winner == number, dY), m, window, input_size, layout)
        for number, m in _numbered(window)
    )


def take_winners(X, winner, *, window, layout):
    """Y = Σ_m tap(X, m) · [winner = m]"""
    return _sum(
        _where(winner == number, tap(X, m, window, layout))
        for number, m in _numbered(window)
    )


def average_pool(X, *, window, layout, count_include_pad=True):
    """Y = 1/n · Σ_m tap(X, m), for large windows one dimension at a time."""
    X = X.astype(sum_dtype(X.dtype))
    n = _divisor(window, spatial_size(X, layout), layout, count_include_pad, X.dtype)
    for part, _ in _parts(window, spatial_size(X, layout)):
        X = _sum(tap(X, m, part, layout) for m in part.offsets())
    return X / n


def average_pool_gradient(dY, *, window, input_size, layout, count_include_pad=True):
    """dX = Σ_m untap(dY / n, m), for large windows one dimension at a time."""
    dY = dY.astype(sum_dtype(dY.dtype))
    share = dY / _divisor(window, input_size, layout, count_include_pad, dY.dtype)
    for part, size in reversed(_parts(window, input_size)):
        share = _sum(untap(share, m, part, size, layout) for m in part.offsets())
    return share


def _parts(window, input_size):
    """Windows that sum one after the other what ``window`` does; each with its input."""
    if window.number_of_taps <= MAX_TAPS_AT_ONCE:
        return [(window, tuple(input_size))]
    output_size = window.output_size(input_size)
    return [
        (
            window.only(dimension),
            (*output_size[:dimension], *input_size[dimension:]),
        )
        for dimension in range(len(input_size))
    ]


def _divisor(window, input_size, layout, count_include_pad, dtype):
    """n, which is a product with one factor for each dimension."""
    if count_include_pad or not window.is_padded:
        return jnp.asarray(window.number_of_taps, dtype)
    n = jnp.ones((), dtype)
    for dimension, axis in enumerate(spatial_axes(layout)):
        one = window.along(slice(dimension, dimension + 1))
        size = input_size[dimension : dimension + 1]
        inside = [valid_positions(m, one, size, "W").astype(dtype) for m in one.offsets()]
        shape = [1] * len(layout)
        shape[axis] = -1
        n = n * _sum(inside).reshape(shape)
    return n


# --- What both are made of ------------------------------------------------------------


def _sum(terms):
    return reduce(operator.add, terms)


def _where(condition, x):
    return jnp.where(condition, x, jnp.zeros((), x.dtype))


def _numbered(window):
    """Every tap with its number, as winners are numbered."""
    taps = window.offsets()
    return list(zip(np.arange(len(taps), dtype=winner_dtype(window)), taps, strict=True))
