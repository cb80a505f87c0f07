"""How JAX differentiates a pooling to a size that does not divide that of its input.

Output i of H_out sees the inputs from ⌊i·H/H_out⌋ to ⌈(i+1)·H/H_out⌉ − 1: windows of two
sizes, some of which overlap. Laid out side by side, each with as many places as the largest
has, they are windows like any other, which :mod:`jaxcnn.pooling.rule` pools.

Laying them out copies inputs, and its gradient adds up what arrives at the copies. JAX does
that by a scatter, which XLA's CPU compiler turns into a loop over single entries. Where the
output is smaller than the input, no more than two windows overlap at an input. There the
rules in this file gather, for every input, what its windows have for it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Int, Shaped

from jaxcnn.engines.sums import sum_of
from jaxcnn.layout import Floats, Numbers, spatial_axes
from jaxcnn.pooling import rule
from jaxcnn.pooling.rule import Winner
from jaxcnn.problem import Problem
from jaxcnn.window import Window


@dataclass(frozen=True)
class Windows:
    """The windows along one dimension; hashable, so static.

    Attributes:
      input_size: H.
      output_size: H_out, how many windows there are.

    >>> windows = Windows(5, 3)
    >>> windows.first.tolist(), windows.sizes.tolist()
    ([0, 1, 3], [2, 3, 2])
    """

    input_size: int
    output_size: int

    @cached_property
    def first(self) -> Int[np.ndarray, " H_out"]:
        """The first input of each."""
        return np.arange(self.output_size) * self.input_size // self.output_size

    @cached_property
    def sizes(self) -> Int[np.ndarray, " H_out"]:
        """How many inputs each sees."""
        i = np.arange(1, self.output_size + 1)
        return -(-i * self.input_size // self.output_size) - self.first

    @property
    def width(self) -> int:
        """K, the places of each: the size of the largest."""
        return int(self.sizes.max())

    @property
    def are_even(self) -> bool:
        """Whether they lie side by side already."""
        return self.width * self.output_size == self.input_size

    @cached_property
    def seen(self) -> Int[np.ndarray, " places"]:
        """The input in each of the H_out·K places, or −1 for none.

        >>> Windows(5, 3).seen.tolist()
        [0, 1, -1, 1, 2, 3, 3, 4, -1]
        """
        taps = np.arange(self.width)
        inputs = self.first[:, None] + taps
        return np.where(taps < self.sizes[:, None], inputs, -1).reshape(-1)

    @cached_property
    def places(self) -> Int[np.ndarray, "windows H"]:
        """The places of each input, one for each window that sees it, or −1 for none.

        >>> Windows(5, 3).places.tolist()
        [[0, 1, 4, 5, 7], [-1, 3, -1, 6, -1]]
        """
        of_each = [np.flatnonzero(self.seen == k) for k in range(self.input_size)]
        places = np.full((max(map(len, of_each)), self.input_size), -1)
        for k, of_input in enumerate(of_each):
            places[: len(of_input), k] = of_input
        return places


@dataclass(frozen=True)
class Adaptive:
    """The static description of an adaptive pooling, the windows one for each dimension."""

    windows: tuple[Windows, ...]
    layout: str
    engine: str

    @property
    def along_axes(self) -> Iterator[tuple[int, Windows]]:
        return zip(spatial_axes(self.layout), self.windows, strict=True)

    @property
    def side_by_side(self) -> Problem:
        """The pooling of the windows side by side."""
        widths = tuple(each.width for each in self.windows)
        n = len(widths)
        size = tuple(len(each.seen) for each in self.windows)
        window = Window(widths, widths, ((0, 0),) * n, (1,) * n)
        return Problem(window, size, self.layout, self.engine)

    @property
    def sums_side_by_side(self) -> Problem:
        return replace(self.side_by_side, divisor=1)

    @property
    def has_overlaps_of_two(self) -> bool:
        """Whether windows overlap, and no more than two of them at an input."""
        return max(len(each.places) for each in self.windows) == 2


def laid_out(x: Floats, adaptive: Adaptive, fill: int | float) -> Floats:
    """The windows side by side, ``fill`` in places without an input."""
    for axis, windows in adaptive.along_axes:
        if not windows.are_even:
            x = _take_or_fill(x, windows.seen, axis, fill)
    return x


# --- Maximum --------------------------------------------------------------------------


def maxima(x: Floats, adaptive: Adaptive) -> tuple[Floats, Winner]:
    """Y = max over each window, and the place of its winner."""
    pool = _maxima_of_overlapping if adaptive.has_overlaps_of_two else _maxima
    return pool(x, adaptive)


def _maxima(x: Floats, adaptive: Adaptive) -> tuple[Floats, Winner]:
    windows = laid_out(x, adaptive, -np.inf)
    return rule.max_pooling(windows, adaptive.side_by_side)


_maxima_of_overlapping = partial(jax.custom_vjp, nondiff_argnums=(1,))(_maxima)


def maxima_autodiff(x: Floats, adaptive: Adaptive) -> tuple[Floats, Winner]:
    windows = laid_out(x, adaptive, -np.inf)
    return rule.max_pooling_autodiff(windows, adaptive.side_by_side)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def place_at_winners(dy: Floats, winner: Winner, adaptive: Adaptive) -> Floats:
    """dX[k] = Σ over the windows that see k: dY · [winner = the place of k]"""
    terms = []
    for chosen in product(*(each.places for each in adaptive.windows)):
        theirs, winners, number = dy, winner, np.zeros((1,) * dy.ndim, int)
        is_seen = np.ones_like(number, bool)
        for (axis, windows), places in zip(adaptive.along_axes, chosen, strict=True):
            # Of −1, which is no place, this makes a tap, too; is_seen leaves it out.
            of_window, tap = np.divmod(places, windows.width)
            theirs, winners = (_take(each, of_window, axis) for each in (theirs, winners))
            number = number * windows.width + along_axis(tap, axis, dy.ndim)
            is_seen = is_seen & along_axis(places >= 0, axis, dy.ndim)
        wins = (winners == jnp.asarray(number, winner.dtype)) & is_seen
        terms.append(jnp.where(wins, theirs, 0))
    return sum_of(terms)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def take_from_winners(x: Floats, winner: Winner, adaptive: Adaptive) -> Floats:
    """Y = Σ over each window: X · [winner = its place]"""
    windows = laid_out(x, adaptive, 0)
    return rule.take_from_winners(windows, winner, adaptive.side_by_side)


def _maxima_fwd(x: Floats, adaptive: Adaptive) -> tuple[tuple[Floats, Winner], Winner]:
    results: tuple[Floats, Winner] = _maxima_of_overlapping(x, adaptive)
    return results, results[1]


_maxima_of_overlapping.defvjp(
    _maxima_fwd,
    lambda adaptive, winner, dy: (place_at_winners(dy[0], winner, adaptive),),
)
place_at_winners.defvjp(
    lambda dy, winner, adaptive: (place_at_winners(dy, winner, adaptive), winner),
    lambda adaptive, winner, dx: (take_from_winners(dx, winner, adaptive), None),
)
take_from_winners.defvjp(
    lambda x, winner, adaptive: (take_from_winners(x, winner, adaptive), winner),
    lambda adaptive, winner, dy: (place_at_winners(dy, winner, adaptive), None),
)


# --- Sum ------------------------------------------------------------------------------


def sums(x: Floats, adaptive: Adaptive) -> Floats:
    """Y = Σ over each window"""
    pool = _sums_of_overlapping if adaptive.has_overlaps_of_two else _sums
    return pool(x, adaptive)


def _sums(x: Floats, adaptive: Adaptive) -> Floats:
    windows = laid_out(x, adaptive, 0)
    return rule.average_pooling(windows, adaptive.sums_side_by_side)


_sums_of_overlapping = partial(jax.custom_vjp, nondiff_argnums=(1,))(_sums)


def sums_autodiff(x: Floats, adaptive: Adaptive) -> Floats:
    windows = laid_out(x, adaptive, 0)
    return rule.average_pooling_autodiff(windows, adaptive.sums_side_by_side)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def sums_gradient(dy: Floats, adaptive: Adaptive) -> Floats:
    """dX[k] = Σ over the windows that see k: dY"""
    for axis, windows in adaptive.along_axes:
        # The place −1, which is none, is in window −1.
        of_each = (places // windows.width for places in windows.places)
        dy = sum_of([_take_or_fill(dy, each, axis, 0) for each in of_each])
    return dy


_sums_of_overlapping.defvjp(
    lambda x, adaptive: (_sums_of_overlapping(x, adaptive), None),
    lambda adaptive, _, dy: (sums_gradient(dy, adaptive),),
)
sums_gradient.defvjp(
    lambda dy, adaptive: (sums_gradient(dy, adaptive), None),
    lambda adaptive, _, dx: (sums(dx, adaptive),),
)


def _take_or_fill(
    x: Numbers, entries: Int[np.ndarray, " entries"], axis: int, fill: int | float
) -> Numbers:
    """These entries of x along an axis, and ``fill`` for −1."""
    is_there = along_axis(entries >= 0, axis, x.ndim)
    return jnp.where(is_there, _take(x, entries, axis), fill)


def _take(x: Numbers, entries: Int[np.ndarray, " entries"], axis: int) -> Numbers:
    """These entries of x along an axis; any entry for −1."""
    return jnp.take(x, np.maximum(entries, 0), axis, mode="clip")


def along_axis(
    vector: Shaped[np.ndarray, " length"], axis: int, ndim: int
) -> Shaped[np.ndarray, "..."]:
    """A vector along an axis, of length 1 along the others."""
    return vector.reshape([-1 if k == axis else 1 for k in range(ndim)])
