"""How JAX differentiates a pooling, and maps it.

Max pooling is not linear. Once the winners are known, taking their entries is:

    max_pool                Y = max_m tap(X, m), and the winner of each window
    take_winners            Ẏ = Σ_m tap(Ẋ, m) · [winner = m]
    max_pool_gradient       dX = Σ_m untap(dY · [winner = m], m)

The tangent of the first is the second, and the transpose of that the third. The other
poolings are linear, and come in pairs, each of which is the other's transpose:

    average_pool            Y = 1/n · Σ_m tap(X, m)
    average_pool_gradient   dX = Σ_m untap(dY / n, m)

    unfold                  P[m] = tap(X, m)
    fold                    X = Σ_m untap(P[m], m)

A pooling treats all images alike: ``vmap`` adds to its batch.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.interpreters import ad

from jaxcnn import differentiation
from jaxcnn.layout import Floats, Integers, Operand, grouped
from jaxcnn.primitives import (
    at_rest,
    computing,
    into_the_batch,
    transposes_of_each_other,
    window_sum,
)
from jaxcnn.problem import ROLES, Problem
from jaxcnn.rounding import sum_dtype
from jaxcnn.sharding import in_auto_axes, varying_alike

Winner = Integers
"""Which tap won, for each window."""

# --- The poolings ---------------------------------------------------------------------


def max_pooling(
    x: Operand, problem: Problem, derivatives: str | None = "custom"
) -> tuple[Floats, Winner]:
    """Y = max_m tap(X, m), and the winner of each window"""
    y, winner = _pool("max_pool", problem, derivatives, x)
    return y, winner


def average_pooling(
    x: Operand, problem: Problem, derivatives: str | None = "custom"
) -> Floats:
    """Y = 1/n · Σ_m tap(X, m)"""
    return _pool("average_pool", problem, derivatives, x)


def unfolding(x: Operand, problem: Problem, derivatives: str | None = "custom") -> Floats:
    """P[m] = tap(X, m)"""
    return _pool("unfold", problem, derivatives, x)


def folding(p: Operand, problem: Problem, derivatives: str | None = "custom") -> Floats:
    """X = Σ_m untap(P[m], m)"""
    return _pool("fold", problem, derivatives, p)


def _pool(
    name: str, problem: Problem, derivatives: str | None, *operands: Operand | Winner
) -> Any:
    arrays = varying_alike(operands)

    def names() -> list[list[str | None]]:
        return [_images_and_channels(role, problem.layout) for role in ROLES[name]]

    compute = in_auto_axes(computing(POOLINGS[name], derivatives), arrays, names)
    return compute(*arrays, problem=problem, dtype=arrays[0].dtype)


def _images_and_channels(role: str, layout: str) -> list[str | None]:
    """The axes N and C of an array by name."""
    letters = grouped(layout) if role == "p" else layout
    return [letter if letter in "NC" else None for letter in letters]


# --- The primitives -------------------------------------------------------------------


POOLINGS = {
    name: window_sum(name, into_the_batch)
    for name in (
        "max_pool",
        "take_winners",
        "max_pool_gradient",
        "average_pool",
        "average_pool_gradient",
        "unfold",
        "fold",
    )
}


def _max_pooling_jvp(
    operands: tuple, tangents: tuple, *, problem: Problem, **_: Any
) -> Any:
    (x,), (x_dot,) = operands, tangents
    y, winner = max_pooling(x, problem)
    y_dot = _pool("take_winners", problem, "custom", x_dot, winner)
    return (y, winner), (y_dot, at_rest(winner))


ad.primitive_jvps[POOLINGS["max_pool"]] = _max_pooling_jvp
transposes_of_each_other(POOLINGS["take_winners"], POOLINGS["max_pool_gradient"])
transposes_of_each_other(POOLINGS["average_pool"], POOLINGS["average_pool_gradient"])
transposes_of_each_other(POOLINGS["unfold"], POOLINGS["fold"])


# --- Power-average pooling ------------------------------------------------------------
#
# Y = S^(1/p), where S is the sum of X^p. S moves by the sum of p·X^(p−1)·Ẋ, and Y by
# Y^(1−p)/p times that: p cancels.


def _power_formula(
    x: Operand, p: int | float, problem: Problem, derivatives: str = "custom"
) -> Floats:
    """Y, as wide as sums are; and 0 where S is 0, so that its gradient is 0 there, too."""
    # A sum of fewer elements than the kernel has is scaled up to as many.
    n = jnp.asarray(problem.window.number_of_taps, x.dtype)
    S = average_pooling(x**p, problem, derivatives) * n
    return jnp.where(S == 0, 0, _nonzero(S) ** (1 / p))


def _nonzero(x: Floats) -> Floats:
    return jnp.where(x == 0, 1, x)


@partial(jax.custom_jvp, nondiff_argnums=(1, 2))
def _power_pooling(x: Operand, p: int | float, problem: Problem) -> Floats:
    return _power_formula(x, p, problem)


@_power_pooling.defjvp
def _power_pooling_jvp(
    p: int | float, problem: Problem, operands: tuple, tangents: tuple
) -> tuple[Floats, Floats]:
    """Ẏ = Y^(1−p) · Σ_m tap(X^(p−1) · Ẋ, m)"""
    (x,), (x_dot,) = operands, tangents
    y = _power_pooling(x, p, problem)
    slope = jnp.where(y == 0, 0, _nonzero(y) ** (1 - p))
    slope *= jnp.asarray(problem.window.number_of_taps, y.dtype)
    return y, slope * average_pooling(x ** (p - 1) * x_dot, problem)


def power_pooling(
    x: Floats, p: int | float, problem: Problem, derivatives: str | None
) -> Floats:
    """Y = (Σ_m tap(X, m)^p)^(1/p)"""
    by_loops = partial(_power_formula, derivatives="autodiff")
    compute = differentiation.choose(derivatives, _power_pooling, by_loops)
    return compute(x.astype(sum_dtype(x.dtype)), p, problem).astype(x.dtype)
