"""Sums that are written out, and sums of products."""

import operator
from collections.abc import Iterable
from functools import reduce

from jax import lax
from jax.lax import PrecisionLike
from jaxtyping import Array, Num

from jaxcnn.layout import Numbers


def sum_of(terms: Iterable[Numbers]) -> Numbers:
    """The first term plus the second plus …; there must be one."""
    return reduce(operator.add, terms)


def sum_of_outer_products(
    A: Num[Array, "*rows i"], B: Num[Array, "*rows j"], precision: PrecisionLike = None
) -> Num[Array, "i j"]:
    """Σ_r A[r]ᵀ·B[r] over all axes but the last: (…, i) and (…, j) to (i, j).

    It is one product of two matrices: XLA would transpose arrays of more axes in memory
    first. The narrower matrix comes first, which is up to 1.7 times quicker. The barrier
    keeps a transposition that follows out of the product.
    """
    A, B = (each.reshape(-1, each.shape[-1]) for each in (A, B))
    if A.shape[-1] > B.shape[-1]:
        return sum_of_outer_products(B, A, precision).T
    return lax.optimization_barrier(
        lax.dot_general(A, B, (((0,), (0,)), ((), ())), precision=precision)
    )
