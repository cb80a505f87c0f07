"""How JAX differentiates a pooling.

Max pooling is not linear. Once the winners are known, taking their entries is:

    max_pooling         Y = max_m tap(X, m), and the winner of each window
    place_at_winners    dX = Σ_m untap(dY · [winner = m], m)
    take_from_winners   Y = Σ_m tap(X, m) · [winner = m]

The gradient of the first is the second; the second and the third are each other's
transpose, so each is the other's gradient. Average pooling is linear; it and its gradient
are each other's transpose.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxcnn import plan
from jaxcnn.layout import Cotangent, Floats, Integers
from jaxcnn.mapping import mapped_pooling
from jaxcnn.problem import Problem, loops_by_default
from jaxcnn.rounding import sum_dtype

Winner = Integers
"""Which tap won, for each window."""


# --- Max pooling ----------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def max_pooling(x: Floats, problem: Problem) -> tuple[Floats, Winner]:
    """Y = max_m tap(X, m), and the winner of each window"""
    return mapped_pooling("max_pool", problem, x)


def _max_pooling_fwd(x: Floats, problem: Problem) -> tuple[tuple[Floats, Winner], Winner]:
    results: tuple[Floats, Winner] = max_pooling(x, problem)
    return results, results[1]


def _max_pooling_bwd(
    problem: Problem, winner: Winner, cotangents: tuple[Cotangent, Any]
) -> tuple[Floats]:
    dy, _ = cotangents
    return (place_at_winners(dy, winner, problem),)


max_pooling.defvjp(_max_pooling_fwd, _max_pooling_bwd)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def place_at_winners(dy: Floats, winner: Winner, problem: Problem) -> Floats:
    """dX = Σ_m untap(dY · [winner = m], m)"""
    return mapped_pooling("max_pool_gradient", problem, dy, winner).astype(dy.dtype)


def _place_at_winners_fwd(
    dy: Floats, winner: Winner, problem: Problem
) -> tuple[Floats, Winner]:
    return place_at_winners(dy, winner, problem), winner


def _place_at_winners_bwd(
    problem: Problem, winner: Winner, ddx: Cotangent
) -> tuple[Floats, None]:
    return take_from_winners(ddx, winner, problem), None


place_at_winners.defvjp(_place_at_winners_fwd, _place_at_winners_bwd)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def take_from_winners(x: Floats, winner: Winner, problem: Problem) -> Floats:
    """Y = Σ_m tap(X, m) · [winner = m]"""
    return mapped_pooling("take_winners", problem, x, winner)


def _take_from_winners_fwd(
    x: Floats, winner: Winner, problem: Problem
) -> tuple[Floats, Winner]:
    return take_from_winners(x, winner, problem), winner


def _take_from_winners_bwd(
    problem: Problem, winner: Winner, dy: Cotangent
) -> tuple[Floats, None]:
    return place_at_winners(dy, winner, problem), None


take_from_winners.defvjp(_take_from_winners_fwd, _take_from_winners_bwd)


# --- Average pooling ------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def average_pooling(x: Floats, problem: Problem) -> Floats:
    """Y = 1/n · Σ_m tap(X, m)"""
    return mapped_pooling("average_pool", problem, x).astype(x.dtype)


def _average_pooling_fwd(x: Floats, problem: Problem) -> tuple[Floats, None]:
    return average_pooling(x, problem), None


def _average_pooling_bwd(problem: Problem, _: None, dy: Cotangent) -> tuple[Floats]:
    return (average_pooling_gradient(dy, problem),)


average_pooling.defvjp(_average_pooling_fwd, _average_pooling_bwd)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def average_pooling_gradient(dy: Floats, problem: Problem) -> Floats:
    """dX = Σ_m untap(dY / n, m)"""
    return mapped_pooling("average_pool_gradient", problem, dy).astype(dy.dtype)


def _average_pooling_gradient_fwd(dy: Floats, problem: Problem) -> tuple[Floats, None]:
    return average_pooling_gradient(dy, problem), None


def _average_pooling_gradient_bwd(
    problem: Problem, _: None, ddx: Cotangent
) -> tuple[Floats]:
    return (average_pooling(ddx, problem),)


average_pooling_gradient.defvjp(
    _average_pooling_gradient_fwd, _average_pooling_gradient_bwd
)


# --- Power-average pooling ------------------------------------------------------------
#
# Y = S^(1/p), where S is the sum of X^p. With dS = Y^(1−p)·dY/p and dX = p·X^(p−1)·dS at
# every position that was summed, p cancels.


def _power_formula(
    average: Callable[..., Any],
    x: Floats,
    p: int | float,
    problem: Problem,
) -> Floats:
    """Y, as wide as sums are; and 0 where S is 0, so that its gradient is 0 there, too."""
    x = x.astype(sum_dtype(x.dtype))
    # A sum of fewer elements than the kernel has is scaled up to as many.
    S = average(x**p, problem) * jnp.asarray(problem.window.number_of_taps, x.dtype)
    return jnp.where(S == 0, 0, _nonzero(S) ** (1 / p))


def _nonzero(x: Floats) -> Floats:
    return jnp.where(x == 0, 1, x)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def power_pooling(x: Floats, p: int | float, problem: Problem) -> Floats:
    """Y = (Σ_m tap(X, m)^p)^(1/p)"""
    return _power_pooling_fwd(x, p, problem)[0]


def _power_pooling_fwd(
    x: Floats, p: int | float, problem: Problem
) -> tuple[Floats, tuple[Floats, Floats]]:
    y = _power_formula(average_pooling, x, p, problem)
    return y.astype(x.dtype), (x, y)


def _power_pooling_bwd(
    p: int | float, problem: Problem, residuals: tuple[Floats, Floats], dy: Cotangent
) -> tuple[Floats]:
    x, y = residuals
    arriving = jnp.where(y == 0, 0, dy.astype(y.dtype) * _nonzero(y) ** (1 - p))
    arriving *= jnp.asarray(problem.window.number_of_taps, y.dtype)
    shared: Floats = average_pooling_gradient(arriving, problem)
    dx = x.astype(y.dtype) ** (p - 1) * shared
    return (dx.astype(x.dtype),)


power_pooling.defvjp(_power_pooling_fwd, _power_pooling_bwd)


# --- Patches --------------------------------------------------------------------------


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def unfolding(x: Floats, problem: Problem) -> Floats:
    """P[m] = tap(X, m)"""
    return mapped_pooling("unfold", problem, x)


def _unfolding_fwd(x: Floats, problem: Problem) -> tuple[Floats, None]:
    return unfolding(x, problem), None


def _unfolding_bwd(problem: Problem, _: None, dp: Cotangent) -> tuple[Floats]:
    return (folding(dp, problem),)


unfolding.defvjp(_unfolding_fwd, _unfolding_bwd)


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def folding(p: Floats, problem: Problem) -> Floats:
    """X = Σ_m untap(P[m], m)"""
    return mapped_pooling("fold", problem, p).astype(p.dtype)


def _folding_fwd(p: Floats, problem: Problem) -> tuple[Floats, None]:
    return folding(p, problem), None


def _folding_bwd(problem: Problem, _: None, dx: Cotangent) -> tuple[Floats]:
    return (unfolding(dx, problem),)


folding.defvjp(_folding_fwd, _folding_bwd)


# --- The same without the rules: what ``derivatives="autodiff"`` means ----------------


def max_pooling_autodiff(x: Floats, problem: Problem) -> tuple[Floats, Winner]:
    return plan.compute("max_pool", loops_by_default(problem), x)


def average_pooling_autodiff(x: Floats, problem: Problem) -> Floats:
    return plan.compute("average_pool", loops_by_default(problem), x).astype(x.dtype)


def unfolding_autodiff(x: Floats, problem: Problem) -> Floats:
    return plan.compute("unfold", loops_by_default(problem), x)


def folding_autodiff(p: Floats, problem: Problem) -> Floats:
    return plan.compute("fold", loops_by_default(problem), p).astype(p.dtype)


def power_pooling_autodiff(x: Floats, p: int | float, problem: Problem) -> Floats:
    return _power_formula(average_pooling_autodiff, x, p, problem).astype(x.dtype)
