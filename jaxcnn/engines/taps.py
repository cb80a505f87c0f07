"""Some taps at a time, where a kernel has more than can be written out.

What is written out for each tap compiles to one pass over the image, but compiling takes
time for each of them. So a large kernel is cut along its longest dimension into groups of
taps, over which there is a loop; each group sees its part of the image.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from jax import lax

from jaxcnn.engines.memory import evenly
from jaxcnn.layout import Integers, Numbers, spatial_axes, spatial_size
from jaxcnn.window import Window

State = TypeVar("State")
First = Sequence[int | Integers]
"""The first tap of a group, counted in the whole kernel."""


def over_groups(
    step: Callable[[State, Numbers, Window, First], State],
    state: State,
    X: Numbers,
    window: Window,
    layout: str,
    most: int,
    first: First | None = None,
) -> State:
    """``state = step(state, X, window, first)`` for one group of taps after the other.

    Args:
      step: gets the part of X that a group sees, the group as a window, and its first tap.
      state: what it begins with: arrays, whose shapes and dtypes do not change.
      X: the input, with its padding around it.
      window: without padding, unless its taps are one group.
      layout: of X.
      most: so many taps are written out.
      first: of the window, if that is a group itself.
    """
    first = list(first or [0] * len(window.kernel_size))
    if window.number_of_taps <= most:
        return step(state, X, window, first)
    taps = max(window.kernel_size)
    dimension = window.kernel_size.index(taps)
    size = evenly(taps, most * taps // window.number_of_taps)
    axis, dilation = spatial_axes(layout)[dimension], window.dilation[dimension]
    last_output = window.output_size(spatial_size(X, layout))[dimension] - 1

    def of_group(start: int | Integers, taps: int, state: State) -> State:
        kernel = list(window.kernel_size)
        kernel[dimension] = taps
        reach = window.stride[dimension] * last_output + dilation * (taps - 1) + 1
        seen = lax.dynamic_slice_in_dim(
            X, start * dilation, reach, axis, allow_negative_indices=False
        )
        begin = [*first]
        begin[dimension] = begin[dimension] + start
        group = replace(window, kernel_size=tuple(kernel))
        return over_groups(step, state, seen, group, layout, most, begin)

    whole, rest = divmod(taps, size)
    state = lax.fori_loop(
        0, whole, lambda number, state: of_group(number * size, size, state), state
    )
    return of_group(whole * size, rest, state) if rest else state
