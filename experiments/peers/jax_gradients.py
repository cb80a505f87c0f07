"""The value of an operation and its gradients, as JAX pulls a cotangent back."""

from collections.abc import Callable, Sequence
from typing import Any

import jax


def value_and_gradients(
    function: Callable, arguments: Sequence[Any], cotangent: Any
) -> tuple[Any, ...]:
    """The value, and the gradients of ⟨f(arguments), cotangent⟩ by each argument."""
    value, pull_back = jax.vjp(function, *arguments)
    return value, *pull_back(cotangent)
