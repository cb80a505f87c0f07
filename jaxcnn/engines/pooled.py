"""Pooling in one pass, or in one for each dimension.

The sums of :mod:`jaxcnn.equations`, written out tap by tap where taps are few: one
expression that XLA compiles to one pass, where a loop writes its running result to memory
at every tap. The maximum and its winner take two passes, which are faster than one that
carries both along.

A sum or a maximum of more is taken along one dimension after the other: K_h + K_w terms,
not K_h · K_w; and where K is large, of runs of taps instead of taps. Every such pass is a
``reduce_window`` of XLA's, which is as fast as what is written out, compiles as quickly for
many taps as for few, and leaves its result in memory. Who wins is asked of every tap: of a
few at a time, where they are many.

Channels are last, as for the convolutions around: between them nothing is transposed.
"""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from math import gcd, prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.core import max_dim
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Int

from jaxcnn.engines.averages import number_averaged
from jaxcnn.engines.sums import sum_of
from jaxcnn.engines.taps import First, over_groups
from jaxcnn.equations import lowest, winner_dtype
from jaxcnn.layout import (
    Integers,
    Length,
    Numbers,
    are_known,
    merge_axes,
    spatial_axes,
    spatial_size,
    split_axis,
    with_spatial,
)
from jaxcnn.originals import reduce_window
from jaxcnn.problem import Description
from jaxcnn.rounding import sum_dtype
from jaxcnn.sharding import varying_like
from jaxcnn.window import Edges, Pairs, Window, padded, tap, valid_positions

ANY_SIZE = True

MAX_TAPS = 64
"""More of them are compared a few at a time: written out, they compile too slowly."""

MAX_TAPS_AT_ONCE = 16
"""So many, where they are compared a few at a time, and where an average adds them up."""

A_PASS = 8
"""One more pass over an image costs as much as so many taps."""

NOBODY, NO_TAP = -2, -3
"""The winner where there is no output, and the number of a tap where there is none."""


def refuses(description: Description) -> str | None:
    window = description.window
    tiled = _is_tiled(window, description.problem.input_size)
    if not tiled and not are_known(window.kernel_size):
        return "wants a number of taps that is known"
    return None


def hides_from_autodiff(description: Description) -> bool:
    """JAX cannot transpose the maximum of windows with gaps."""
    window = description.window
    if description.name != "max_pool" or set(window.dilation) == {1}:
        return False
    return are_known(window.kernel_size) and window.number_of_taps > MAX_TAPS


# --- Maxima ---------------------------------------------------------------------------


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
    if window.number_of_taps > MAX_TAPS:
        Y = _over_taps(lax.max, X, window, layout)
        return Y, _winner(X, Y, window, layout)
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
    return lax.optimization_barrier((Y, _kept(winner)))


def _kept(winner: Integers) -> Integers:
    """The same, in memory: not computed anew for every input position that asks who won.

    XLA does so with what it holds to be cheap, and on jax 0.10 across barriers, too.
    Remainders of integers it holds to be expensive.
    """
    return lax.rem(winner, np.asarray(MAX_TAPS + 1, winner.dtype))


def _winner(X: Numbers, Y: Numbers, window: Window, layout: str) -> Integers:
    """The first tap that is equal to Y, where they are many."""
    input_size, dtype = spatial_size(X, layout), winner_dtype(window)
    last = np.asarray(window.number_of_taps - 1, dtype)
    inside = jnp.ones(with_spatial([1] * X.ndim, input_size, layout), bool)
    inside, _ = padded(inside, window, layout)
    X, inner = padded(X, window, layout, lowest(X.dtype))

    def challenge(winner: Integers, seen: Numbers, group: Window, first: First) -> Integers:
        earliest = jnp.full(winner.shape, last)
        for m in reversed(group.offsets()):
            value = tap(seen, m, group, layout)
            is_largest = (value == Y) | jnp.isnan(value)
            here = jnp.stack([*map(jnp.add, m, first)])
            if window.is_padded:
                is_largest &= tap(inside, here, inner, layout)
            earliest = jnp.where(is_largest, _number(here, window), earliest)
        return jnp.minimum(winner, earliest)

    winner = varying_like(jnp.full(Y.shape, last), X)
    winner = over_groups(challenge, winner, X, inner, layout, MAX_TAPS_AT_ONCE)
    if window.sees_only_padding(input_size):
        nothing = ((0, 0),) * len(input_size)
        seen = number_averaged(window, input_size, layout, nothing, None, jnp.float32)
        winner = jnp.where(seen > 0, winner, jnp.asarray(-1, dtype))
    return winner


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

    def arriving(distance: Sequence[int] | Integers, number: Any) -> Numbers:
        first = [len(table) - 1 - a for table, a in zip(tables, distance, strict=True)]
        each_position = [axis + 1 + k for k, axis in enumerate(axes)]
        start = with_spatial([0] * dY.ndim, first, layout)
        shape = with_spatial(dY.shape, steps, layout)
        dY_seen, winner_seen = (
            jnp.expand_dims(_part(x, start, shape), each_position) for x in (dY, winner)
        )
        shape = [1] * dY_seen.ndim
        for axis, s in zip(each_position, strides, strict=True):
            shape[axis] = s
        return _where(winner_seen == number.reshape(shape), dY_seen)

    dX = _sum_in_groups(arriving, *_tap_numbers(tables, window.kernel_size, winner.dtype))
    for axis in axes:
        dX = merge_axes(dX, axis, 2)
    crop = [
        (-low, size + low - step * s, 0)
        for low, size, step, s in zip(lows, input_size, steps, strides, strict=True)
    ]
    crop = with_spatial([(0, 0, 0)] * dX.ndim, crop, layout)
    return lax.pad(dX, jnp.zeros((), dX.dtype), crop)


def _part(x: Numbers, start: Sequence[Any], shape: Sequence[Length]) -> Numbers:
    if are_known(start):
        return lax.slice(x, start, [a + n for a, n in zip(start, shape, strict=True)])
    return lax.dynamic_slice(x, [*map(jnp.int32, start)], shape)


def _sum_in_groups(
    term: Callable[..., Numbers],
    distances: Int[np.ndarray, "terms dimensions"],
    numbers: Int[np.ndarray, "terms ..."],
) -> Numbers:
    """The sum of a term for each distance: a few at a time, where they are many."""
    count, most = len(distances), MAX_TAPS_AT_ONCE
    first = count if count <= MAX_TAPS else count % most or most
    total = sum_of(map(term, distances[:first].tolist(), numbers[:first]))
    if first == count:
        return total

    def add(total: Numbers, group: Sequence[Array]) -> tuple[Numbers, None]:
        return total + sum_of(map(term, *group)), None

    groups = [
        jnp.asarray(each[first:].reshape(-1, most, *each.shape[1:]))
        for each in (distances, numbers)
    ]
    return lax.scan(add, total, groups)[0]


def _arrivals(k: int, s: int, d: int) -> Int[np.ndarray, "steps s"]:
    """table[a, r]: the tap m with d·m = s·a + r, or −1 where there is none."""
    table = np.full((d * (k - 1) // s + 1, s), -1)
    for m in range(k):
        table[divmod(d * m, s)] = m
    return table


def _tap_numbers(
    tables: Sequence[Int[np.ndarray, "_ _"]],
    kernel_size: Sequence[int],
    dtype: DTypeLike,
) -> tuple[Int[np.ndarray, "terms dimensions"], Int[np.ndarray, "terms ..."]]:
    """All distances at which there are taps, and their row-major numbers by position.

    The number is NO_TAP where there is none.
    """
    n = len(tables)
    grids = np.meshgrid(*(table.ravel() for table in tables), indexing="ij")
    number = np.ravel_multi_index([np.maximum(grid, 0) for grid in grids], kernel_size)
    number = np.where(np.all([grid >= 0 for grid in grids], axis=0), number, NO_TAP)
    number = number.reshape([each for table in tables for each in table.shape])
    number = number.transpose([*range(0, 2 * n, 2), *range(1, 2 * n, 2)])
    there = np.any(number >= 0, axis=tuple(range(n, 2 * n)))
    return np.argwhere(there), number[there].astype(dtype)


def take_winners(X: Numbers, winner: Integers, *, window: Window, layout: str) -> Numbers:
    """Y = Σ_m tap(X, m) · [winner = m]"""
    if _is_tiled(window, spatial_size(X, layout), MAX_TAPS):
        tiles, within = _in_tiles(X, window, layout), _within_tiles(window)
        theirs = jnp.expand_dims(winner, within) == _numbers_in_tiles(window)
        return jnp.sum(_where(theirs, tiles), within)
    if window.number_of_taps <= MAX_TAPS:
        return sum_of(
            _where(winner == number, tap(X, m, window, layout))
            for number, m in _numbered(window)
        )
    X, inner = padded(X, window, layout)

    def add(Y: Numbers, seen: Numbers, group: Window, first: First) -> Numbers:
        numbers = (
            _number(jnp.stack([*map(jnp.add, m, first)]), window) for m in group.offsets()
        )
        return Y + sum_of(
            _where(winner == number, tap(seen, m, group, layout))
            for number, m in zip(numbers, group.offsets(), strict=True)
        )

    Y = varying_like(jnp.zeros(winner.shape, X.dtype), X, winner)
    return over_groups(add, Y, X, inner, layout, MAX_TAPS_AT_ONCE)


def _number(m: Integers, window: Window) -> Integers:
    """The row-major number of a tap, as winners are numbered."""
    number = m[0]
    for k, each in zip(window.kernel_size[1:], m[1:], strict=True):
        number = number * k + each
    return number.astype(winner_dtype(window))


# --- Averages -------------------------------------------------------------------------


def average_pool(
    X: Numbers,
    *,
    window: Window,
    layout: str,
    counted: Pairs | None = None,
    divisor: int | float | None = None,
) -> Numbers:
    """Y = 1/n · Σ_m tap(X, m)"""
    X = X.astype(sum_dtype(X.dtype))
    input_size = spatial_size(X, layout)
    n = number_averaged(window, input_size, layout, counted, divisor, X.dtype)
    if _is_tiled(window, input_size):
        return jnp.sum(_in_tiles(X, window, layout), _within_tiles(window)) / n
    taps = window.number_of_taps
    are_few = taps <= min(MAX_TAPS_AT_ONCE, 4 * prod(window.stride))
    if are_few and not window.is_padded:
        return sum_of(tap(X, m, window, layout) for m in window.offsets()) / n
    return _over_taps(lax.add, X, window, layout) / n


def average_pool_gradient(
    dY: Numbers,
    *,
    window: Window,
    input_size: Sequence[Length],
    layout: str,
    counted: Pairs | None = None,
    divisor: int | float | None = None,
) -> Numbers:
    """dX = Σ_m untap(dY / n, m), one dimension at a time."""
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
    for dimension in _by_stride(window, reverse=False):
        one = window.along(slice(dimension, dimension + 1))
        axis = spatial_axes(layout)[dimension]
        share = _shared(share, one, input_size[dimension], axis)
    return share


def _shared(share: Numbers, window: Window, size: Length, axis: int) -> Numbers:
    """Σ_m untap(share, m) along one axis.

    dX[s·q + r − p] = Σ_a share[q − a], over all a with a tap m such that d·m = s·a + r.
    Without dilation these are a = 0 … A − 2 for every r, and A − 1 for the first r only.
    """
    (k,), (s,), (d,) = window.kernel_size, window.stride, window.dilation
    ((low, _),) = window.padding
    out = share.shape[axis]
    if s == 1 or d > 1:
        before, after = d * (k - 1) - low, size + low - (s * (out - 1) + 1)
        share = _placed(share, axis, before, after, s - 1)
        return _along(lax.add, share, axis, k, 1, d)
    steps = max_dim(1, -(-(size + low) // s))
    A = -(-k // s)
    last = _placed(share, axis, A - 1, steps - out)
    always = jnp.zeros((), share.dtype)
    if A > 1:
        always = lax.slice_in_dim(last, 1, None, axis=axis)
        always = jnp.expand_dims(_along(lax.add, always, axis, A - 1, 1, 1), axis + 1)
    last = lax.slice_in_dim(last, 0, steps, axis=axis)
    shape = [1] * (share.ndim + 1)
    shape[axis + 1] = s
    has_last = (jnp.arange(s) < k - (A - 1) * s).reshape(shape)
    dX = always + _where(has_last, jnp.expand_dims(last, axis + 1))
    return _placed(merge_axes(dX, axis, 2), axis, -low, size + low - steps * s)


def _over_taps(
    operator: Callable[[Any, Any], Any], X: Numbers, window: Window, layout: str
) -> Numbers:
    """The sum, or the maximum, of all tap(X, m): one dimension at a time."""
    for dimension in _by_stride(window):
        axis = spatial_axes(layout)[dimension]
        one = window.along(slice(dimension, dimension + 1))
        (k,), (s,), (d,), (pads,) = one.kernel_size, one.stride, one.dilation, one.padding
        X = _placed(X, axis, *pads, fill=_start(operator, X))
        X = _along(operator, X, axis, k, s, d)
    return X


def _by_stride(window: Window, reverse: bool = True) -> list[int]:
    """The dimensions, those first along which an image loses, or last, gains most."""
    return sorted(
        range(len(window.stride)), key=lambda each: window.stride[each], reverse=reverse
    )


def _along(
    operator: Callable[[Any, Any], Any], X: Numbers, axis: int, k: int, s: int, d: int
) -> Numbers:
    """The same along one axis, without padding: of runs of taps, where they are many."""
    run = _run(k, s, d)
    if run == k:
        ones = [1] * X.ndim

        def with_own(entry: int) -> list[int]:
            return [*ones[:axis], entry, *ones[axis + 1 :]]

        return reduce_window(
            X,
            _start(operator, X),
            operator,
            with_own(k),
            with_own(s),
            "VALID",
            window_dilation=with_own(d),
        )
    step, (runs, rest) = gcd(s, run * d), divmod(k, run)
    Y = _along(operator, X, axis, run, step, d)
    Y = _along(operator, Y, axis, runs, s // step, run * d // step)
    if rest:
        others = lax.slice_in_dim(X, runs * run * d, None, axis=axis)
        others = _along(operator, others, axis, rest, s, d)
        Y = operator(lax.slice_in_dim(Y, 0, others.shape[axis], axis=axis), others)
    return Y


def _run(k: int, s: int, d: int) -> int:
    """How many of k taps to put together first; all of them, if that is no gain."""

    def cost(run: int) -> int:
        if run == k:
            return k
        return run * s // gcd(s, run * d) + sum(divmod(k, run)) + A_PASS

    return min(range(k, 1, -1), key=cost, default=k)


def _start(operator: Callable[[Any, Any], Any], X: Numbers) -> Any:
    """The number that changes no result."""
    if operator is lax.add:
        return np.zeros((), X.dtype)
    floats = jnp.issubdtype(X.dtype, jnp.floating)
    return np.asarray(-np.inf if floats else jnp.iinfo(X.dtype).min, X.dtype)


def _placed(
    x: Numbers, axis: int, low: Length, high: Length, between: int = 0, fill: Any = 0
) -> Numbers:
    """x with so much before, after and between its entries along an axis, or cropped.

    Cropping is a step of its own, since XLA cannot pad and crop a sharded image at once.
    """
    crops = [min(edge, 0) if isinstance(edge, int) else 0 for edge in (low, high)]
    for edges in ((low - crops[0], high - crops[1], between), (crops[0], crops[1], 0)):
        config: list[Edges] = [(0, 0, 0)] * x.ndim
        config[axis] = edges
        x = lax.pad(x, jnp.asarray(fill, x.dtype), config)
    return x


# --- Tiles ----------------------------------------------------------------------------


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


# --- What is written out --------------------------------------------------------------


def _where(condition: Bool[Array, "..."], x: Numbers) -> Numbers:
    return jnp.where(condition, x, jnp.zeros((), x.dtype))


def _numbered(window: Window) -> list[tuple[np.integer, Int[np.ndarray, " dimensions"]]]:
    """Every tap with its number, as winners are numbered."""
    taps = window.offsets()
    return list(zip(np.arange(len(taps), dtype=winner_dtype(window)), taps, strict=True))
