"""By how much an average pooling divides."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxcnn.layout import Integers, Length, Numbers, spatial_axes
from jaxcnn.window import Pairs, Window


def number_averaged(
    window: Window,
    input_size: Sequence[Length],
    layout: str,
    counted: Pairs | None,
    divisor: int | float | None,
    dtype: DTypeLike,
) -> Numbers:
    """n, which is a product with one factor for each dimension."""
    if counted in (None, window.padding) or divisor is not None:
        return jnp.asarray(window.number_of_taps if divisor is None else divisor, dtype)
    window, input_size = window.within(counted, input_size)
    n = jnp.ones((), dtype)
    for dimension, axis in enumerate(spatial_axes(layout)):
        one = window.along(slice(dimension, dimension + 1))
        shape = [1] * len(layout)
        shape[axis] = -1
        n *= _taps_inside(one, input_size[dimension]).astype(dtype).reshape(shape)
    return n


def _taps_inside(window: Window, size: Length) -> Integers:
    """How many taps meet the input at each position, in one dimension."""
    (k,), (s,), (d,) = window.kernel_size, window.stride, window.dilation
    ((low, _),) = window.padding
    (out,) = window.output_size((size,))
    start = s * jnp.arange(out, dtype=jnp.int32) - low
    first, end = -(start // d), (size - 1 - start) // d + 1
    return jnp.maximum(jnp.minimum(end, k) - jnp.maximum(first, 0), 0)
