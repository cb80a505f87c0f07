"""Which axis of an array means what.

A layout is a string with one letter for each axis: N batch, C channels, G groups (only
inside the library, where channels have been split), and any other letter a spatial
dimension. Images are channels-first (``"NCHW"``, with weights ``OIHW``) or channels-last
(``"NHWC"``, with weights ``HWIO``); other numbers of spatial dimensions likewise.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.errors import InconclusiveDimensionOperation
from jaxtyping import Array, Float, Int, Num, Shaped

# Arrays of any shape.
Anything = Shaped[Array, "..."]
Numbers = Num[Array, "..."]
Floats = Float[Array, "..."]
Integers = Int[Array, "..."]

Operand = Float[Array | np.ndarray, "..."]
"""What JAX hands to a rule: also an array of NumPy's, which was given to a jvp or a vjp."""

Length = Any
"""The length of an axis: an int, or a symbol while a function is exported for any."""

LAYOUTS = {1: ("NCW", "NWC"), 2: ("NCHW", "NHWC"), 3: ("NCDHW", "NDHWC")}
"""The layouts that the public functions take, by number of spatial dimensions."""


def are_known(sizes: Sequence[Length]) -> bool:
    """Whether sizes are numbers, and no symbols."""
    return all(isinstance(size, int) for size in sizes)


def is_known(condition: Callable[[], bool]) -> bool:
    """Whether a condition holds, whatever the symbols in it stand for."""
    try:
        return condition()
    except InconclusiveDimensionOperation:
        return False


def channels_last(layout: str) -> bool:
    return layout.endswith("C")


def with_channels_last(layout: str) -> str:
    """The layout with its channels last.

    >>> with_channels_last("NCHW"), with_channels_last("NHWC")
    ('NHWC', 'NHWC')
    """
    return f"N{layout.replace('N', '').replace('C', '')}C"


def with_channels_first(layout: str) -> str:
    """The layout with its channels before the positions.

    >>> with_channels_first("NCHW"), with_channels_first("NHWC")
    ('NCHW', 'NCHW')
    """
    return f"NC{layout.replace('N', '').replace('C', '')}"


def turned(x: Anything, layout: str, other: str) -> Anything:
    """An array from one layout to another of the same letters.

    >>> turned(jnp.ones((8, 3, 28, 30)), "NCHW", "NHWC").shape
    (8, 28, 30, 3)
    """
    return x.transpose([layout.index(letter) for letter in other])


def weight_layout(layout: str) -> str:
    """The layout of the weights that go with images in ``layout``.

    >>> weight_layout("NCHW"), weight_layout("NHWC")
    ('OIHW', 'HWIO')
    """
    positions = layout.replace("N", "").replace("C", "")
    return f"{positions}IO" if channels_last(layout) else f"OI{positions}"


def spatial_axes(layout: str) -> tuple[int, ...]:
    """The axes of the spatial dimensions: those that are not N, G, C, I or O.

    >>> spatial_axes("NCHW"), spatial_axes("NHWC"), spatial_axes("HWIO")
    ((2, 3), (1, 2), (0, 1))
    """
    return tuple(axis for axis, letter in enumerate(layout) if letter not in "NGCIO")


def axes_but(letters: str, layout: str) -> tuple[int, ...]:
    """The axes of all letters but these, counted from the last: others may come before.

    >>> axes_but("C", "NCHW"), axes_but("C", "NHWC")
    ((-4, -2, -1), (-4, -3, -2))
    """
    return tuple(
        axis - len(layout) for axis, letter in enumerate(layout) if letter not in letters
    )


def spatial_size(x: Anything, layout: str) -> tuple[Length, ...]:
    """The sizes of an array's spatial dimensions."""
    return tuple(x.shape[axis] for axis in spatial_axes(layout))


def with_spatial(entries: Sequence, spatial: Sequence, layout: str) -> list:
    """One entry for each axis, the spatial ones replaced by those of ``spatial``.

    >>> with_spatial((8, 3, 28, 28), (14, 14), "NCHW")
    [8, 3, 14, 14]
    """
    replaced = list(entries)
    for axis, entry in zip(spatial_axes(layout), spatial, strict=True):
        replaced[axis] = entry
    return replaced


def grouped(layout: str) -> str:
    """The layout after :func:`split_channels`: ``"NCHW"`` becomes ``"NGCHW"``."""
    return layout.replace("C", "GC")


def split_channels(x: Anything, groups: int, layout: str) -> Anything:
    """(…, G·C, …) to (…, G, C, …)."""
    axis = layout.index("C")
    return split_axis(x, axis, groups, x.shape[axis] // groups)


def merge_channels(x: Anything, layout: str) -> Anything:
    """(…, G, C, …) to (…, G·C, …)."""
    return merge_axes(x, layout.index("C"), 2)


def split_axis(x: Anything, axis: int, *sizes: Length) -> Anything:
    """Replace one axis by several, of the given sizes."""
    return x.reshape(*x.shape[:axis], *sizes, *x.shape[axis + 1 :])


def merge_axes(x: Anything, axis: int, count: int) -> Anything:
    """Replace ``count`` axes, from ``axis`` on, by one."""
    size = math.prod(x.shape[axis : axis + count])
    return x.reshape(*x.shape[:axis], size, *x.shape[axis + count :])


def resized(x: Anything, axis: int, first: int, size: int) -> Anything:
    """x[first : first + size] along an axis, zero where x has nothing.

    >>> resized(jnp.array([1, 2, 3]), 0, -1, 3), resized(jnp.array([1, 2, 3]), 0, 1, 3)
    (Array([0, 1, 2], dtype=int32), Array([2, 3, 0], dtype=int32))
    """
    padding = [(0, 0, 0)] * x.ndim
    padding[axis] = (-first, first + size - x.shape[axis], 0)
    return lax.pad(x, jnp.zeros((), x.dtype), padding)


def over_channels(vector: Anything, layout: str) -> Anything:
    """(C,) with length 1 along every other axis, so that it broadcasts.

    >>> over_channels(jnp.ones(3), "NCHW").shape
    (1, 3, 1, 1)
    """
    return vector.reshape([len(vector) if letter == "C" else 1 for letter in layout])


def taps_of(w: Anything, groups: int, layout: str) -> Anything:
    """The weights as one matrix for each tap and group, the taps first.

    (C_out, C_in/G, K_h, K_w) becomes (taps, G, C_out/G, C_in/G), and channels-last
    (K_h, K_w, C_in/G, C_out) becomes (taps, C_in/G, G, C_out/G).
    """
    if channels_last(layout):
        *kernel_size, c_in, c_out = w.shape
        return w.reshape(math.prod(kernel_size), c_in, groups, c_out // groups)
    c_out, c_in, *kernel_size = w.shape
    taps = math.prod(kernel_size)
    return jnp.moveaxis(w.reshape(groups, c_out // groups, c_in, taps), -1, 0)


def weights_of(taps: Anything, kernel_size: Sequence[int], layout: str) -> Anything:
    """The inverse of :func:`taps_of`."""
    if channels_last(layout):
        _, c_in, groups, c_out = taps.shape
        return taps.reshape(*kernel_size, c_in, groups * c_out)
    _, groups, c_out, c_in = taps.shape
    return jnp.moveaxis(taps, 0, -1).reshape(groups * c_out, c_in, *kernel_size)
