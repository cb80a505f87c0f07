"""Half precisions: computed in float32, rounded once."""

import functools
from collections.abc import Callable

import jax

from jaxcnn.equations import sum_dtype


def widened(x: jax.Array) -> jax.Array:
    """x in the dtype in which numbers like it are summed: float32 at the least."""
    return x.astype(sum_dtype(x.dtype))


def rounded_once(formula: Callable) -> Callable:
    """A formula that sees its arrays widened, and whose result is rounded at the end.

    The result has the dtype of the first array. JAX differentiates the roundings, too: a
    gradient is computed in float32 likewise, and rounded once.

    >>> import jax.numpy as jnp
    >>> x = jnp.full(3, 1 / 3, jnp.bfloat16)
    >>> print(3 * x[0] - 1, rounded_once(lambda x: 3 * x - 1)(x)[0])
    0 0.00195312
    """

    @functools.wraps(formula)
    def computed(first, *others):
        arrays = (widened(x) if isinstance(x, jax.Array) else x for x in (first, *others))
        return formula(*arrays).astype(first.dtype)

    return computed
