"""By how much an average pooling divides."""

from collections.abc import Sequence

import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxcnn.engines.sums import sum_of
from jaxcnn.layout import Length, Numbers, spatial_axes
from jaxcnn.window import Pairs, Window, valid_positions


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
        size = input_size[dimension : dimension + 1]
        inside = [valid_positions(m, one, size, "W").astype(dtype) for m in one.offsets()]
        shape = [1] * len(layout)
        shape[axis] = -1
        n = n * sum_of(inside).reshape(shape)
    return n
