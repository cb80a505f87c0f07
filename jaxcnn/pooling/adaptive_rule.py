"""How JAX differentiates a pooling to a size that does not divide that of its input.

Output i of H_out sees the inputs from ⌊i·H/H_out⌋ to ⌈(i+1)·H/H_out⌉ − 1: windows of two
sizes, some of which overlap. Laid out side by side, each with as many places as the largest
has, they are windows like any other, which :mod:`jaxcnn.pooling.rule` pools.

Laying them out copies inputs, and its transpose adds up what arrives at the copies. JAX
does that by a scatter, which XLA's CPU compiler turns into a loop over single entries. Here
every input gathers what is at its copies, unless they are many.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property

import jax.numpy as jnp
import numpy as np
from jax.interpreters import ad
from jaxtyping import Int, Shaped

from jaxcnn.engines.sums import sum_of
from jaxcnn.layout import Floats, Numbers, spatial_axes
from jaxcnn.pooling import rule
from jaxcnn.pooling.rule import Winner
from jaxcnn.primitives import (
    computing,
    formula,
    into_the_batch,
    transposes_of_each_other,
)
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
        there = np.flatnonzero(self.seen >= 0)
        there = there[np.argsort(self.seen[there], kind="stable")]  # input after input
        inputs = self.seen[there]
        counts = np.bincount(inputs, minlength=self.input_size)
        before = np.cumsum(counts) - counts
        places = np.full((counts.max(), self.input_size), -1)
        places[np.arange(len(there)) - before[inputs], inputs] = there
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


# --- Laying out, and its transpose ----------------------------------------------------

GATHERED = 2
"""Up to so many copies of an input are gathered; more only where the output is larger."""


def laid_out(x: Floats, *, adaptive: Adaptive, fill: int | float) -> Floats:
    """The windows side by side, ``fill`` in places without an input."""
    for axis, windows in adaptive.along_axes:
        if not windows.are_even:
            x = _take_or_fill(x, windows.seen, axis, fill)
    return x


def collected(x: Floats, *, adaptive: Adaptive, fill: int | float) -> Floats:
    """dX[k] = Σ over the windows that see k: what arrives at its place in them"""
    del fill
    for axis, windows in adaptive.along_axes:
        if windows.are_even:
            continue
        if len(windows.places) <= GATHERED:
            x = sum_of([_take_or_fill(x, each, axis, 0) for each in windows.places])
        else:
            shape = [*x.shape[:axis], windows.input_size, *x.shape[axis + 1 :]]
            there = np.flatnonzero(windows.seen >= 0)
            at = (*[slice(None)] * axis, windows.seen[there])
            x = jnp.zeros_like(x, shape=shape).at[at].add(jnp.take(x, there, axis))
    return x


def _take_or_fill(
    x: Numbers, entries: Int[np.ndarray, " entries"], axis: int, fill: int | float
) -> Numbers:
    """These entries of x along an axis, and ``fill`` for −1."""
    taken = jnp.take(x, np.maximum(entries, 0), axis, mode="clip")
    return jnp.where(along_axis(entries >= 0, axis, x.ndim), taken, fill)


def along_axis(
    vector: Shaped[np.ndarray, " length"], axis: int, ndim: int
) -> Shaped[np.ndarray, "..."]:
    """A vector along an axis, of length 1 along the others."""
    return vector.reshape([-1 if k == axis else 1 for k in range(ndim)])


LAID_OUT = formula(laid_out, "lay_out_windows", mapped=into_the_batch)
COLLECTED = formula(collected, "collect_windows", mapped=into_the_batch)
transposes_of_each_other(LAID_OUT, COLLECTED)


def _laid_out_jvp(
    operands: tuple, tangents: tuple, *, adaptive: Adaptive, fill: int | float
) -> tuple[Floats, Floats]:
    windows = LAID_OUT.bind(*operands, adaptive=adaptive, fill=fill)
    return windows, LAID_OUT.bind(*tangents, adaptive=adaptive, fill=0)


ad.primitive_jvps[LAID_OUT] = _laid_out_jvp


# --- The poolings ---------------------------------------------------------------------


def maxima(x: Floats, adaptive: Adaptive, derivatives: str | None) -> tuple[Floats, Winner]:
    """Y = max over each window, and the place of its winner"""
    lay_out = computing(LAID_OUT, derivatives)
    windows = lay_out(x, adaptive=adaptive, fill=-math.inf)
    return rule.max_pooling(windows, adaptive.side_by_side, derivatives)


def sums(x: Floats, adaptive: Adaptive, derivatives: str | None) -> Floats:
    """Y = Σ over each window"""
    windows = computing(LAID_OUT, derivatives)(x, adaptive=adaptive, fill=0)
    problem = replace(adaptive.side_by_side, divisor=1)
    return rule.average_pooling(windows, problem, derivatives)
