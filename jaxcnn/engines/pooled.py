"""Pooling in one pass, or two.

The sums of :mod:`jaxcnn.equations`, written out tap by tap: one expression that XLA
compiles to one pass, where a loop writes its running result to memory at every tap. The
maximum and its winner take two passes, which are faster than one that carries both along.
"""

from collections.abc import Sequence
from functools import partial, reduce
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import max_dim
from jaxtyping import Array, Bool, Int

from jaxcnn.engines.averages import number_averaged
from jaxcnn.engines.sums import sum_of
from jaxcnn.equations import lowest, winner_dtype
from jaxcnn.layout import (
    Integers,
    Length,
    Numbers,
    merge_axes,
    spatial_axes,
    spatial_size,
    split_axis,
    with_spatial,
)
from jaxcnn.problem import Description
from jaxcnn.rounding import sum_dtype
from jaxcnn.window import Pairs, Window, padded, tap, untap, valid_positions

ANY_SIZE = True

MAX_TAPS = 64
"""With more of them written out, compiling takes too long."""

MAX_TAPS_AT_ONCE = 16
"""Averages over more are taken one dimension after the other, or by ``reduce``."""

NOBODY, NO_TAP = -2, -3
"""The winner where there is no output, and the number of a tap where there is none."""


def refuses(description: Description) -> str | None:
    window = description.window
    taps = window.number_of_taps
    if _is_tiled(window, description.problem.input_size):
        return None
    if description.name.startswith("average_pool"):
        taps = sum(window.kernel_size)  # one dimension after the other
    if taps > MAX_TAPS:
        return f"writes out no more than {MAX_TAPS} taps, and here they are {taps}"
    return None


def max_pool(X: Numbers, *, window: Window, layout: str) -> tuple[Numbers, Integers]:
    """Y = max_m tap(X, m), then the first tap that is equal to it."""
    input_size = spatial_size(X, layout)
    if _is_tiled(window, input_size, MAX_TAPS):
        tiles, within = _in_tiles(X, window, layout), _within_tiles(window)
        Y = jnp.max(tiles, within)
        is_largest = (tiles == jnp.expand_dims(Y, within)) | jnp.isnan(tiles)
        number = _numbers_in_tiles(window)
        winner = jnp.min(jnp.where(is_largest, number, number.max()), within)
        return Y, winner.astype(winner_dtype(window))
    X, inner = padded(X, window, layout, lowest(X.dtype))
    seen = [tap(X, m, inner, layout) for m in window.offsets()]
    Y = reduce(jnp.maximum, seen)
    winner = jnp.full(Y.shape, -1, winner_dtype(window))
    numbered = list(zip(_numbered(window), seen, strict=True))
    for (number, m), value in reversed(numbered):
        is_largest = (value == Y) | jnp.isnan(value)
        if window.is_padded:
            is_largest &= valid_positions(m, window, input_size, layout)
        winner = jnp.where(is_largest, number, winner)
    return lax.optimization_barrier((Y, winner))


def max_pool_gradient(
    dY: Numbers,
    winner: Integers,
    *,
    window: Window,
    input_size: Sequence[Length],
    layout: str,
) -> Numbers:
    """dX[s·q + r − p] = Σ_a dY[q − a] · [winner[q − a] = the tap m with d·m = s·a + r]

    The same sum over taps m, ordered by the distance that the gradient travels: a steps of
    s. All s positions of step q, r = 0 … s − 1, are computed at once from output q − a,
    whose winner is compared with the number of each position's tap.
    """
    dY = dY.astype(sum_dtype(dY.dtype))
    if _is_tiled(window, input_size, MAX_TAPS):
        within, shape = _within_tiles(window), with_spatial(dY.shape, input_size, layout)
        winner, dY = (jnp.expand_dims(each, within) for each in (winner, dY))
        return _where(winner == _numbers_in_tiles(window), dY).reshape(shape)
    axes, sizes = spatial_axes(layout), spatial_size(dY, layout)
    strides = window.stride
    lows = [low for low, _ in window.padding]
    tables = [
        _arrivals(*each)
        for each in zip(window.kernel_size, strides, window.dilation, strict=True)
    ]
    steps = [
        max_dim(1, -(-(size + low) // s))
        for size, low, s in zip(input_size, lows, strides, strict=True)
    ]
    # Outputs from the farthest before the first step that reaches it, to the last step.
    pads = [
        (len(table) - 1, step - out, 0)
        for table, step, out in zip(tables, steps, sizes, strict=True)
    ]
    pads = with_spatial([(0, 0, 0)] * dY.ndim, pads, layout)
    dY = lax.pad(dY, jnp.zeros((), dY.dtype), pads)
    winner = lax.pad(winner, jnp.full((), NOBODY, winner.dtype), pads)
    dY, winner = lax.optimization_barrier((dY, winner))

    def arriving(distance: tuple[int, ...]) -> Numbers:
        first = [len(table) - 1 - a for table, a in zip(tables, distance, strict=True)]
        last = [f + step for f, step in zip(first, steps, strict=True)]
        start = with_spatial([0] * dY.ndim, first, layout)
        end = with_spatial(dY.shape, last, layout)
        each_position = [axis + 1 + k for k, axis in enumerate(axes)]
        dY_seen, winner_seen = (
            jnp.expand_dims(lax.slice(x, start, end), each_position) for x in (dY, winner)
        )
        number = _tap_number(
            [table[a] for table, a in zip(tables, distance, strict=True)],
            window.kernel_size,
        )
        shape = [1] * dY_seen.ndim
        for axis, s in zip(each_position, strides, strict=True):
            shape[axis] = s
        number = jnp.asarray(number.reshape(shape), winner.dtype)
        return _where(winner_seen == number, dY_seen)

    distances = product(*(range(len(table)) for table in tables))
    dX = sum_of(
        arriving(distance)
        for distance in distances
        if all(table[a].max() >= 0 for table, a in zip(tables, distance, strict=True))
    )
    for axis in axes:
        dX = merge_axes(dX, axis, 2)
    crop = [
        (-low, size + low - step * s, 0)
        for low, size, step, s in zip(lows, input_size, steps, strides, strict=True)
    ]
    crop = with_spatial([(0, 0, 0)] * dX.ndim, crop, layout)
    return lax.pad(dX, jnp.zeros((), dX.dtype), crop)


def _arrivals(k: int, s: int, d: int) -> Int[np.ndarray, "steps s"]:
    """table[a, r]: the tap m with d·m = s·a + r, or −1 where there is none."""
    table = np.full((d * (k - 1) // s + 1, s), -1)
    for m in range(k):
        table[divmod(d * m, s)] = m
    return table


def _tap_number(
    taps: Sequence[Int[np.ndarray, " _"]], kernel_size: Sequence[int]
) -> Int[np.ndarray, "..."]:
    """The row-major numbers of all combinations of taps; NO_TAP where one is −1."""
    grids = np.meshgrid(*taps, indexing="ij")
    number = np.ravel_multi_index([np.maximum(grid, 0) for grid in grids], kernel_size)
    return np.where(np.all([grid >= 0 for grid in grids], axis=0), number, NO_TAP)


def take_winners(X: Numbers, winner: Integers, *, window: Window, layout: str) -> Numbers:
    """Y = Σ_m tap(X, m) · [winner = m]"""
    if _is_tiled(window, spatial_size(X, layout), MAX_TAPS):
        tiles, within = _in_tiles(X, window, layout), _within_tiles(window)
        theirs = jnp.expand_dims(winner, within) == _numbers_in_tiles(window)
        return jnp.sum(_where(theirs, tiles), within)
    return sum_of(
        _where(winner == number, tap(X, m, window, layout))
        for number, m in _numbered(window)
    )


def average_pool(
    X: Numbers,
    *,
    window: Window,
    layout: str,
    counted: Pairs | None = None,
    divisor: int | float | None = None,
) -> Numbers:
    """Y = 1/n · Σ_m tap(X, m), for large windows one dimension at a time."""
    X = X.astype(sum_dtype(X.dtype))
    input_size = spatial_size(X, layout)
    n = number_averaged(window, input_size, layout, counted, divisor, X.dtype)
    if _is_tiled(window, input_size):
        return jnp.sum(_in_tiles(X, window, layout), _within_tiles(window)) / n
    for part, _ in _parts(window, input_size):
        X, inner = padded(X, part, layout)
        X = sum_of(tap(X, m, inner, layout) for m in inner.offsets())
    return X / n


def average_pool_gradient(
    dY: Numbers,
    *,
    window: Window,
    input_size: Sequence[Length],
    layout: str,
    counted: Pairs | None = None,
    divisor: int | float | None = None,
) -> Numbers:
    """dX = Σ_m untap(dY / n, m), for large windows one dimension at a time."""
    dY = dY.astype(sum_dtype(dY.dtype))
    share = dY / number_averaged(window, input_size, layout, counted, divisor, dY.dtype)
    if _is_tiled(window, input_size):
        shape = with_spatial(dY.shape, input_size, layout)
        tiles = jnp.expand_dims(share, _within_tiles(window))
        in_tiles = jax.eval_shape(
            partial(_in_tiles, window=window, layout=layout),
            jax.ShapeDtypeStruct(shape, dY.dtype),
        )
        return jnp.broadcast_to(tiles, in_tiles.shape).reshape(shape)
    for part, size in reversed(_parts(window, input_size)):
        share = sum_of(untap(share, m, part, size, layout) for m in part.offsets())
    return share


def _is_tiled(
    window: Window, input_size: Sequence[Length], large: int = MAX_TAPS_AT_ONCE
) -> bool:
    """Whether large windows cover the input without overlap, gap or padding."""
    sizes = zip(window.kernel_size, window.stride, input_size, strict=True)
    taps = window.number_of_taps
    return (
        (not isinstance(taps, int) or taps > large)
        and not window.is_padded
        and set(window.dilation) == {1}
        and all(size % k == 0 and (s == k or size == k) for k, s, size in sizes)
    )


def _in_tiles(X: Numbers, window: Window, layout: str) -> Numbers:
    """(B, H…, C) to (B, H_out, K…, C)."""
    for axis, k in reversed(
        list(zip(spatial_axes(layout), window.kernel_size, strict=True))
    ):
        X = split_axis(X, axis, X.shape[axis] // k, k)
    return X


def _within_tiles(window: Window) -> tuple[int, ...]:
    """The axes of the kernel in what :func:`_in_tiles` makes."""
    return tuple(range(2, 2 * len(window.kernel_size) + 1, 2))


def _numbers_in_tiles(window: Window) -> Integers:
    """The number of every tap, in a shape that broadcasts against :func:`_in_tiles`."""
    number = jnp.arange(window.number_of_taps, dtype=winner_dtype(window))
    return number.reshape([1, *(each for k in window.kernel_size for each in (1, k)), 1])


def _parts(
    window: Window, input_size: Sequence[Length]
) -> list[tuple[Window, tuple[Length, ...]]]:
    """Windows that sum, one after the other, what ``window`` does; each with its input."""
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


def _where(condition: Bool[Array, "..."], x: Numbers) -> Numbers:
    return jnp.where(condition, x, jnp.zeros((), x.dtype))


def _numbered(window: Window) -> list[tuple[np.integer, Int[np.ndarray, " dimensions"]]]:
    """Every tap with its number, as winners are numbered."""
    taps = window.offsets()
    return list(zip(np.arange(len(taps), dtype=winner_dtype(window)), taps, strict=True))
