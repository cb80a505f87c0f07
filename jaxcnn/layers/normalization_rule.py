"""How JAX differentiates a normalization.

Over the n elements that share a mean μ and a variance σ², and with r = 1/√(σ² + ε),

    X̂ = r (X − μ)     Y = W X̂ + b

W and b have as many axes as X, some of length one. With dX̂ = W dY the gradients are

    dX = r (dX̂ − mean(dX̂) − X̂ mean(dX̂ X̂)) + (dμ + 2 (X − μ) dσ²)/n
    dW = Σ dY X̂     db = Σ dY

The statistics are results, too. Their gradients dμ and dσ² arrive where the rule's own
gradients are differentiated in turn.

Only X may be of a half precision; all is then computed in float32.

Inside ``shard_map`` the n elements may lie on several devices: with the name of a mesh
axis every mean is taken along that, too.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import lax

from jaxcnn import differentiation
from jaxcnn.layout import Floats
from jaxcnn.rounding import rounded_once, widened
from jaxcnn.sharding import sharded_like

Axes = tuple[int, ...]
Results = tuple[Floats, Floats, Floats]
"""Y, μ and σ²."""
Kept = tuple[Floats, Floats, Floats, Floats, Floats]
"""X, w, b, μ and σ²."""


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


@partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _normalize(
    x: Floats,
    w: Floats,
    b: Floats,
    axes: Axes,
    eps: float,
    axis_name: str | None = None,
) -> Results:
    return _normalize_formula(x, w, b, axes, eps, axis_name)


def _normalize_fwd(
    x: Floats,
    w: Floats,
    b: Floats,
    axes: Axes,
    eps: float,
    axis_name: str | None,
) -> tuple[Results, Kept]:
    results: Results = _normalize(x, w, b, axes, eps, axis_name)
    _, mean, var = results
    return results, (x, w, b, mean, var)


def _normalize_bwd(
    axes: Axes,
    eps: float,
    axis_name: str | None,
    kept: Kept,
    cotangents: Results,
) -> tuple[Floats, Floats, Floats]:
    x, w, b, mean, var = map(widened, kept)
    dy, dmean, dvar = map(widened, cotangents)
    r, centred = lax.rsqrt(var + eps), x - mean
    # Every sum begins with the axes common to all: X and dY are read only once.
    summed_for_w = tuple(axis for axis, size in enumerate(w.shape) if size == 1)
    by_all = tuple(axis for axis in axes if axis in summed_for_w)
    sum_dy = jnp.sum(dy, by_all, keepdims=True)
    sum_dy_x_hat = r * jnp.sum(dy * centred, by_all, keepdims=True)
    dw = jnp.sum(sum_dy_x_hat, summed_for_w, keepdims=True)
    db = jnp.sum(sum_dy, summed_for_w, keepdims=True)
    n = math.prod(x.shape[axis] for axis in axes)
    mean_dx_hat = jnp.sum(w * sum_dy, axes, keepdims=True) / n
    mean_dx_hat_x_hat = jnp.sum(w * sum_dy_x_hat, axes, keepdims=True) / n
    if axis_name is not None:
        n *= lax.axis_size(axis_name)
        mean_dx_hat = over_devices(mean_dx_hat, axis_name)
        mean_dx_hat_x_hat = over_devices(mean_dx_hat_x_hat, axis_name)
    # dX, with X̂ = r (X − μ) written out: what the n elements share is computed once.
    dx = r * w * dy - (r * mean_dx_hat - dmean / n)
    dx -= centred * (jnp.square(r) * mean_dx_hat_x_hat - 2 * dvar / n)
    return dx.astype(kept[0].dtype), sharded_like(dw, w), sharded_like(db, b)


_normalize.defvjp(_normalize_fwd, _normalize_bwd)
