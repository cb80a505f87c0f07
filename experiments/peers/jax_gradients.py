"""The value of an operation, its gradients and its tangents, as JAX computes them."""

from collections.abc import Callable, Sequence
from typing import Any

import jax


def value_and_gradients(
    function: Callable, arguments: Sequence[Any], cotangent: Any
) -> tuple[Any, ...]:
    """The value, and the gradients of ⟨f(arguments), cotangent⟩ by each argument."""
    value, pull_back = jax.vjp(function, *arguments)
    return value, *pull_back(cotangent)


def one_gradient(
    function: Callable, number: int, arguments: Sequence[Any], cotangent: Any
) -> Any:
    """The gradient of ⟨f(arguments), cotangent⟩ by one of the arguments, by its number."""

    def of_one(argument: Any) -> Any:
        return function(*arguments[:number], argument, *arguments[number + 1 :])

    return jax.vjp(of_one, arguments[number])[1](cotangent)[0]


def tangents(
    function: Callable, arguments: Sequence[Any], directions: Sequence[Any]
) -> list[Any]:
    """For each argument, how the value moves where it alone moves along its direction."""

    def along(k: int) -> Any:
        def of_one(argument: Any) -> Any:
            return function(*arguments[:k], argument, *arguments[k + 1 :])

        return jax.jvp(of_one, (arguments[k],), (directions[k],))[1]

    return list(map(along, range(len(arguments))))
