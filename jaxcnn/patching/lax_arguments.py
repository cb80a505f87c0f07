"""From what is written for ``jax.lax`` to what the library computes with.

It is for :mod:`jaxcnn.patching.drop_in` what :mod:`jaxcnn.arguments` is for jaxcnn's own
functions, except that nothing is refused here: what jaxcnn does not compute goes to JAX,
and so does what is malformed.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn.arguments import DTYPES
from jaxcnn.layout import Length, merge_axes, split_axis
from jaxcnn.window import Window

FLOATS = tuple(map(jnp.dtype, DTYPES))

LETTERS = "abcdefgh"
"""For the spatial dimensions of a layout: up to eight, as the equations have letters."""

IDLE = Window((1,), (1,), ((0, 0),), (1,))
"""The window along an axis where none slides."""


def served(jax_own: Callable, *operands: Any) -> jax.ShapeDtypeStruct | None:
    """What JAX's own function would return, if jaxcnn computes the same; else None.

    JAX itself is asked, so that malformed arguments raise JAX's own error.
    """
    if not all(isinstance(x, jax.Array | np.ndarray) for x in operands):
        return None
    shapes = [
        jax.ShapeDtypeStruct(x.shape, jax.dtypes.canonicalize_dtype(x.dtype))
        for x in operands
    ]
    result = jax.eval_shape(jax_own, *shapes)
    is_served = (
        all(x.dtype in FLOATS for x in (*shapes, result))
        # With explicit sharding, JAX says how the result is sharded.
        and all(axis is None for x in operands for axis in jax.typeof(x).sharding.spec)
    )
    return result if is_served else None


def entries(given: Sequence[int] | None, n: int) -> tuple[int, ...]:
    return (1,) * n if given is None else tuple(given)


def window_over(
    kernel_size: tuple[int, ...],
    stride: tuple[int, ...],
    padding: str | Sequence[tuple[int, int]],
    dilation: tuple[int, ...],
    input_size: Sequence[Length],
) -> Window:
    """The window, its padding given as pairs or by one of JAX's names.

    A symbol is the batch's size. No window slides along it, so that any number will do.
    """
    window = Window(kernel_size, stride, ((0, 0),) * len(kernel_size), dilation)
    if isinstance(padding, str):
        size = [each if isinstance(each, int) else 1 for each in input_size]
        padding = lax.padtype_to_pads(size, window.extent, stride, padding)
    pairs = tuple((int(low), int(high)) for low, high in padding)
    return replace(window, padding=pairs).bounded(input_size)


def layout_of_images(axes: lax.ConvDimensionNumbers) -> tuple[str, list[int]]:
    """jaxcnn's layout, and which of (N, C, …), as JAX orders them, each of its axes is.

    >>> layout_of_images(lax.conv_dimension_numbers((1,) * 4, (1,) * 4, None))
    ('NCab', [0, 1, 2, 3])
    >>> numbers = ("NHWC", "HWIO", "NHWC")
    >>> layout_of_images(lax.conv_dimension_numbers((1,) * 4, (1,) * 4, numbers))
    ('NabC', [0, 2, 3, 1])
    """
    in_order = tuple(range(len(axes.lhs_spec)))
    letters = LETTERS[: len(in_order) - 2]
    lax_order = f"NC{letters}"
    channels_first = tuple(axes.lhs_spec) == tuple(axes.out_spec) == in_order
    layout = lax_order if channels_first else f"N{letters}C"
    return layout, [lax_order.index(letter) for letter in layout]


def layout_of_pooled(shape: Sequence[int], spatial: slice) -> tuple[str, tuple[int, ...]]:
    """A layout whose dimensions are some of an array's axes, and the shape it has in it.

    >>> layout_of_pooled((2, 3, 8, 8), slice(2, 4)), layout_of_pooled((3, 8), slice(0, 2))
    (('NCab', (2, 3, 8, 8)), ('NCab', (1, 1, 3, 8)))
    >>> layout_of_pooled((2, 3, 8, 8, 5), slice(2, 4))
    ('NabC', (6, 8, 8, 5))
    """
    before, size, after = shape[: spatial.start], shape[spatial], shape[spatial.stop :]
    letters = LETTERS[: len(size)]
    if after:
        return f"N{letters}C", (math.prod(before), *size, math.prod(after))
    return f"NC{letters}", (math.prod(before[:-1]), math.prod(before[-1:]), *size)


def batch_groups_as_channels(x: jax.Array, groups: int, layout: str) -> jax.Array:
    """(G·B, …, C) to (B, …, G·C): G runs of images become G runs of channels."""
    x = split_axis(x, 0, groups, x.shape[0] // groups)
    channels = layout.index("C")
    return merge_axes(jnp.moveaxis(x, 0, channels), channels, 2)


def transpose_of(
    window: Window, spread: tuple[int, ...], size: Sequence[int]
) -> tuple[Window, tuple[int, ...]]:
    """The convolution, by its window and input size, of which this one is the transpose.

    This one slides, in steps of 1, over an input of ``size`` that is spread. It is the
    inverse of :func:`jaxcnn.engines.rotation.window_over_outputs`.

    >>> window_over_y, y_size = transpose_of(
    ...     Window((3,), (1,), ((1, 2),), (1,)), spread=(2,), size=(4,)
    ... )
    >>> window_over_y, y_size, window_over_y.output_size(y_size)
    (Window(kernel_size=(3,), stride=(2,), padding=((1, 0),), dilation=(1,)), (8,), (4,))
    """
    spread_size = [t * (h - 1) + 1 for t, h in zip(spread, size, strict=True)]
    padding = tuple(
        (extent - 1 - low, extent - 1 - high)
        for extent, (low, high) in zip(window.extent, window.padding, strict=True)
    )
    over_y = Window(window.kernel_size, spread, padding, window.dilation)
    return over_y, window.output_size(spread_size)
