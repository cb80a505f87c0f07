"""How JAX differentiates a normalization.

Over the n elements that share a mean μ and a variance σ², and with r = 1/√(σ² + ε),

    X̂ = r (X − μ)     Y = W X̂ + b

W and b have as many axes as X, some of length one. The gradients come in two steps. Y
depends on all of X, W, b, μ and σ², and what arrives at each is

    W r ∂Y     dW = Σ ∂Y X̂     db = Σ ∂Y     dμ = −Σ W r ∂Y     dσ² = −½ r² Σ W ∂Y X̂

and the statistics depend on X: it receives dμ/n + 2 (X − μ) dσ²/n besides. Together that is
the gradient that docs/equations.md derives, with dX̂ = W ∂Y:

    dX = r (dX̂ − mean(dX̂) − X̂ mean(dX̂ X̂))

Tangents go through the same two steps, the other way.

Only X may be of a half precision; all is then computed in float32.

Inside ``shard_map`` and ``vmap`` the n elements may lie along a named axis, too: between
the two steps every mean is taken along that.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn import differentiation
from jaxcnn.layout import Floats
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
    x: Floats,
    w: Floats,
    b: Floats,
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
    x: Floats,
    w: Floats,
    b: Floats,
    axes: Axes,
    eps: float,
    axis_name: str | None = None,
) -> Results:
    return _normalize_formula(x, w, b, axes, eps, axis_name)


@_normalize.defjvp
def _normalize_tangent(
    axes: Axes,
    eps: float,
    axis_name: str | None,
    operands: tuple,
    tangents: tuple,
) -> tuple[Results, Results]:
    x, w, b = operands
    y, mean, var = _normalize(x, w, b, axes, eps, axis_name)
    dx, dw, db = map(widened, tangents)
    of_x = varying_alike([dx, x, mean])
    dmean, dvar = (
        over_devices(each, axis_name) for each in STATISTICS_MOVED.bind(*of_x, axes=axes)
    )
    of_all = varying_alike([dx, dw, db, dmean, dvar, x, w, mean, var])
    (dy,) = APPLIED_MOVED.bind(*of_all, axes=axes, eps=eps)
    return (y, mean, var), (dy.astype(y.dtype), dmean, dvar)


# --- The statistics -------------------------------------------------------------------


def statistics_moved(
    dx: Floats, x: Floats, mean: Floats, *, axes: Axes
) -> tuple[Floats, Floats]:
    """dμ = mean(dX), dσ² = 2 mean((X − μ) dX): at its mean, σ² does not depend on μ."""
    centred = widened(x) - mean
    return (
        jnp.mean(dx, axes, keepdims=True),
        2 * jnp.mean(centred * dx, axes, keepdims=True),
    )


def statistics_gradient(
    dmean: Floats, dvar: Floats, x: Floats, mean: Floats, *, axes: Axes
) -> tuple[Floats]:
    """dX = dμ/n + 2 (X − μ) dσ²/n"""
    n = math.prod(x.shape[axis] for axis in axes)
    return (dmean / n + (widened(x) - mean) * (2 * dvar / n),)


STATISTICS_MOVED = formula(statistics_moved, "statistics_tangent", several=True)
STATISTICS_GRADIENT = formula(statistics_gradient, "statistics_gradient", several=True)
transposes_of_each_other(STATISTICS_MOVED, STATISTICS_GRADIENT, counts=(1, 2))


# --- Y, whatever they are -------------------------------------------------------------


def applied_moved(
    dx: Floats,
    dw: Floats,
    db: Floats,
    dmean: Floats,
    dvar: Floats,
    x: Floats,
    w: Floats,
    mean: Floats,
    var: Floats,
    *,
    axes: Axes,
    eps: float,
) -> tuple[Floats]:
    """dY = W r (dX − dμ − ½ r² (X − μ) dσ²) + X̂ dW + db"""
    r, centred = lax.rsqrt(var + eps), widened(x) - mean
    slope = r * dw - w * r**3 * dvar / 2
    return (w * r * (dx - dmean) + centred * slope + db,)


def applied_gradient(
    dy: Floats,
    x: Floats,
    w: Floats,
    mean: Floats,
    var: Floats,
    *,
    axes: Axes,
    eps: float,
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """W r ∂Y for X, then dW = Σ ∂Y X̂, db = Σ ∂Y, dμ = −Σ W r ∂Y, dσ² = −½ r² Σ W ∂Y X̂"""
    r, centred = lax.rsqrt(var + eps), widened(x) - mean
    # Every sum begins with the axes common to all: X and ∂Y are read only once.
    summed_for_w = tuple(k for k in range(-x.ndim, 0) if w.shape[k] == 1 != x.shape[k])
    by_all = tuple(axis for axis in axes if axis in summed_for_w)
    sum_dy = jnp.sum(dy, by_all, keepdims=True)
    sum_dy_x_hat = r * jnp.sum(dy * centred, by_all, keepdims=True)
    return (
        w * r * dy,
        jnp.sum(sum_dy_x_hat, summed_for_w, keepdims=True),
        jnp.sum(sum_dy, summed_for_w, keepdims=True),
        -r * jnp.sum(w * sum_dy, axes, keepdims=True),
        -jnp.square(r) / 2 * jnp.sum(w * sum_dy_x_hat, axes, keepdims=True),
    )


APPLIED_MOVED = formula(applied_moved, "normalization_tangent", several=True)
APPLIED_GRADIENT = formula(applied_gradient, "normalization_gradient", several=True)
transposes_of_each_other(APPLIED_MOVED, APPLIED_GRADIENT, counts=(5, 1))
