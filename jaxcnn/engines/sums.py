"""Sums that are written out."""

import operator
from collections.abc import Iterable
from functools import reduce

import jax


def sum_of(terms: Iterable[jax.Array]) -> jax.Array:
    """The first term plus the second plus …; there must be one."""
    return reduce(operator.add, terms)
