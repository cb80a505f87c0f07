"""How JAX differentiates a normalization.

Over the n elements that share a mean μ and a variance σ², and with r = 1/√(σ² + ε),

    X̂ = r (X − μ)     Y = W X̂ + b

W and b have as many axes as X, some of length one. The gradients come in two steps, and
tangents take them the other way. Y depends on X, W, b, μ and σ², which receive

    r W dY     dW = Σ dY X̂     db = Σ dY     dμ = −Σ r W dY     dσ² = −½ r² Σ W dY X̂

μ and σ² depend on X, which receives dμ/n + 2 (X − μ) dσ²/n besides. With dX̂ = W dY that is
together

    dX = r (dX̂ − mean(dX̂) − X̂ mean(dX̂ X̂))

Only X may be of a half precision; all is then computed in float32.

Inside ``shard_map`` and ``vmap`` the n elements may lie along a named axis, too: every mean
is then taken along that, between the two steps.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn import differentiation
from jaxcnn.layout import Floats, Operand
from jaxcnn.primitives import formula, transposes_of_each_other
from jaxcnn.rounding import rounded_once, widened
from jaxcnn.sharding import varying_alike

Axes = tuple[int, ...]
"""Counted from the last."""
Results = tuple[Floats, Floats, Floats]
"""Y, μ and σ²."""


@rounded_once
def applied(
    x: Floats, w: Floats, b: Floats, mean: Floats, var: Floats, eps: float
) -> Floats:
    """Y = W r (X − μ) + b, whatever μ and σ² are."""
    return (x - mean) * (lax.rsqrt(var + eps) * w) + b


def normalize(which: str | None) -> Callable[..., Results]:
    """(x, w, b, axes, eps, axis_name) to (Y, μ, σ²), differentiated as ``which`` says."""
    return differentiation.choose(which, _normalize, _normalize_formula)


def _normalize_formula(
    x: Operand,
    w: Operand,
    b: Operand,
    axes: Axes,
    eps: float,
    axis_name: str | None = None,
) -> Results:
    wide = widened(x)
    mean = over_devices(jnp.mean(wide, axes, keepdims=True), axis_name)
    # Not mean(X²) − μ², which loses its digits where the mean is large.
    var = over_devices(jnp.mean(jnp.square(wide - mean), axes, keepdims=True), axis_name)
    return applied(x, w, b, mean, var, eps), mean, var


def over_devices(mean: Floats, axis_name: str | None) -> Floats:
    """The mean over the devices along an axis, which all have as many elements."""
    return mean if axis_name is None else lax.pmean(mean, axis_name)


@partial(jax.custom_jvp, nondiff_argnums=(3, 4, 5))
def _normalize(
    x: Operand,
    w: Operand,
    b: Operand,
    axes: Axes,
    eps: float,
    axis_name: str | None = None,
) -> Results:
    return _normalize_formula(x, w, b, axes, eps, axis_name)


@_normalize.defjvp
def _normalize_jvp(
    axes: Axes,
    eps: float,
    axis_name: str | None,
    operands: tuple,
    tangents: tuple,
) -> tuple[Results, Results]:
    x, w, b = operands
    y, mean, var = _normalize(x, w, b, axes, eps, axis_name)
    x_dot, w_dot, b_dot = map(widened, tangents)
    of_x = varying_alike([x_dot, x, mean])
    mean_dot, var_dot = (
        over_devices(each, axis_name) for each in STATISTICS_TANGENT.bind(*of_x, axes=axes)
    )
    dots = (x_dot, w_dot, b_dot, mean_dot, var_dot)
    of_all = varying_alike([*dots, x, w, mean, var])
    (y_dot,) = APPLIED_TANGENT.bind(*of_all, axes=axes, eps=eps)
    return (y, mean, var), (y_dot.astype(y.dtype), mean_dot, var_dot)


# --- The statistics -------------------------------------------------------------------


def statistics_tangent(
    x_dot: Floats, x: Floats, mean: Floats, *, axes: Axes
) -> tuple[Floats, Floats]:
    """mean(Ẋ) for μ and 2 mean((X − μ) Ẋ) for σ², which does not move with its own mean."""
    centred = widened(x) - mean
    return (
        jnp.mean(x_dot, axes, keepdims=True),
        2 * jnp.mean(centred * x_dot, axes, keepdims=True),
    )


def statistics_gradient(
    dmean: Floats, dvar: Floats, x: Floats, mean: Floats, *, axes: Axes
) -> tuple[Floats]:
    """dX = dμ/n + 2 (X − μ) dσ²/n"""
    n = math.prod(x.shape[axis] for axis in axes)
    return (dmean / n + (widened(x) - mean) * (2 * dvar / n),)


STATISTICS_TANGENT = formula(statistics_tangent, "statistics_tangent", several=True)
STATISTICS_GRADIENT = formula(statistics_gradient, "statistics_gradient", several=True)
transposes_of_each_other(STATISTICS_TANGENT, STATISTICS_GRADIENT, counts=(1, 2))


# --- Y, whatever they are -------------------------------------------------------------


def applied_tangent(*operands: Floats, axes: Axes, eps: float) -> tuple[Floats]:
    """Ẏ = r W (Ẋ − μ̇) + (X − μ) (r Ẇ − ½ r³ W v̇) + ḃ, where σ² moves by v̇"""
    x_dot, w_dot, b_dot, mean_dot, var_dot, x, w, mean, var = operands
    r, centred = lax.rsqrt(var + eps), widened(x) - mean
    slope = r * w_dot - r**3 * w * var_dot / 2
    return (r * w * (x_dot - mean_dot) + centred * slope + b_dot,)


def applied_gradient(*operands: Floats, axes: Axes, eps: float) -> tuple[Floats, ...]:
    """r W dY for X, dW = Σ dY X̂, db = Σ dY, dμ = −Σ r W dY, dσ² = −½ r² Σ W dY X̂"""
    dy, x, w, mean, var = operands
    r, centred = lax.rsqrt(var + eps), widened(x) - mean
    # Every sum begins with the axes common to all: X and dY are read only once.
    summed_for_w = tuple(k for k in range(-x.ndim, 0) if w.shape[k] == 1 != x.shape[k])
    by_all = tuple(axis for axis in axes if axis in summed_for_w)
    sum_dy = jnp.sum(dy, by_all, keepdims=True)
    sum_dy_x_hat = r * jnp.sum(dy * centred, by_all, keepdims=True)
    return (
        r * w * dy,
        jnp.sum(sum_dy_x_hat, summed_for_w, keepdims=True),
        jnp.sum(sum_dy, summed_for_w, keepdims=True),
        -r * jnp.sum(w * sum_dy, axes, keepdims=True),
        -jnp.square(r) / 2 * jnp.sum(w * sum_dy_x_hat, axes, keepdims=True),
    )


APPLIED_TANGENT = formula(applied_tangent, "normalization_tangent", several=True)
APPLIED_GRADIENT = formula(applied_gradient, "normalization_gradient", several=True)
transposes_of_each_other(APPLIED_TANGENT, APPLIED_GRADIENT, counts=(5, 1))
