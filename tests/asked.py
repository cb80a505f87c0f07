"""What jaxcnn is asked for: how a test knows that it computes, and not JAX."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import jax
import pytest

from jaxcnn.convolution.rule import SUMS
from jaxcnn.plan import sums_in
from jaxcnn.pooling.rule import POOLINGS
from jaxcnn.problem import Description


def traced(function: Callable, *operands) -> list[Description]:
    """The sums that are in a function, as JAX traces it."""
    return list(sums_in(jax.make_jaxpr(function)(*operands).jaxpr))


@contextmanager
def noted() -> Iterator[list[str]]:
    """The names of the sums that are computed, or traced anew, in a ``with``."""
    names = []

    def noting(name, bind, *operands, **known):
        names.append(name)
        return bind(*operands, **known)

    with pytest.MonkeyPatch.context() as patch:
        for name, primitive in (SUMS | POOLINGS).items():
            patch.setattr(primitive, "bind", partial(noting, name, primitive.bind))
        yield names
