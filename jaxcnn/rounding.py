"""Half precisions: computed in float32, rounded once."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike


def sum_dtype(*dtypes: DTypeLike) -> jnp.dtype:
    """The dtype in which numbers are summed: float32 at the least, for floats.

    Of several dtypes, that of the widest.

    >>> sum_dtype(jnp.bfloat16), sum_dtype(jnp.float64), sum_dtype(jnp.int32)
    (dtype('float32'), dtype('float64'), dtype('int32'))
    """
    dtype = max((jnp.dtype(each) for each in dtypes), key=lambda each: each.itemsize)
    is_half = jnp.issubdtype(dtype, jnp.floating) and dtype.itemsize < 4
    return jnp.dtype(jnp.float32) if is_half else dtype


def widened(x: jax.Array | np.ndarray) -> jax.Array:
    """x in the dtype in which numbers like it are summed: float32 at the least."""
    return jnp.astype(x, sum_dtype(x.dtype))


def rounded_once(formula: Callable[..., jax.Array]) -> Callable[..., jax.Array]:
    """A formula that sees its arrays widened, and whose result is rounded at the end.

    The result has the dtype of the first array. JAX differentiates the roundings, too: a
    gradient is computed in float32 likewise, and rounded once.

    >>> import jax.numpy as jnp
    >>> x = jnp.full(3, 1 / 3, jnp.bfloat16)
    >>> print(3 * x[0] - 1, rounded_once(lambda x: 3 * x - 1)(x)[0])
    0 0.00195312
    """

    @functools.wraps(formula)
    def computed(first: jax.Array | np.ndarray, *others: Any, **known: Any) -> jax.Array:
        given = (first, *others)
        arrays = (widened(x) if isinstance(x, jax.Array | np.ndarray) else x for x in given)
        return formula(*arrays, **known).astype(first.dtype)

    return computed
