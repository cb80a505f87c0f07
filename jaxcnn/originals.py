"""JAX's own convolution and windowed reduction, whatever :mod:`jaxcnn.patching.patch` does.

They are copies, made before anything is exchanged: the engines compute with them, and
:mod:`jaxcnn.patching.drop_in` hands them what it does not serve.
"""

from collections.abc import Callable
from types import FunctionType

import jax
from jax import lax

EXCHANGED = (lax.conv_general_dilated, lax.reduce_window)
"""JAX's functions whose code a patch exchanges, also for those who imported them before."""

serving = jax.make_user_context(False)
"""Whether jaxcnn answers a call of one of them, while their code is exchanged."""


def _copied(function: Callable) -> Callable:
    if not isinstance(function, FunctionType):
        return function  # patching refuses to exchange it
    copy = FunctionType(
        function.__code__,
        function.__globals__,
        function.__name__,
        function.__defaults__,
        function.__closure__,
    )
    copy.__kwdefaults__ = function.__kwdefaults__
    return copy


conv_general_dilated, reduce_window = map(_copied, EXCHANGED)
