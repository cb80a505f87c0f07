"""Softmax and its logarithm, with their gradients written down."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxcnn import arguments
from jaxcnn.layout import Floats
from jaxcnn.primitives import (
    computing,
    formula,
    transposes_of_each_other,
    with_tangent,
)
from jaxcnn.rounding import rounded_once


def _less_the_largest(x: Floats, axis: int) -> Floats:
    """x − max x, which has the same softmax, and whose exponentials do not overflow."""
    largest = jnp.max(x, axis, keepdims=True, initial=-jnp.inf)  # x may be empty
    return x - jax.lax.stop_gradient(largest)


@rounded_once
def _softmax(x: Floats, *, axis: int) -> Floats:
    e = jnp.exp(_less_the_largest(x, axis))
    return e / jnp.sum(e, axis, keepdims=True)


@rounded_once
def _softmax_gradient(dy: Floats, y: Floats, *, axis: int) -> Floats:
    """dx = y (dy − Σ y dy), and ẏ of ẋ likewise: the Jacobian is symmetric"""
    return y * (dy - jnp.sum(y * dy, axis, keepdims=True))


SOFTMAX = formula(_softmax, "softmax")
SOFTMAX_GRADIENT = formula(_softmax_gradient, "softmax_gradient")
transposes_of_each_other(SOFTMAX_GRADIENT, SOFTMAX_GRADIENT)
with_tangent(SOFTMAX, SOFTMAX_GRADIENT, lambda x, y: [y])


def softmax(x: ArrayLike, *, axis: int = -1, derivatives: str | None = None) -> Floats:
    r"""Turn logits into probabilities.

    .. math::

        y_i = \frac{e^{x_i}}{\sum_j e^{x_j}} \qquad
        \frac{\partial L}{\partial x_i} = y_i \Big( \frac{\partial L}{\partial y_i}
            - \sum_j y_j \frac{\partial L}{\partial y_j} \Big)

    The largest logit is subtracted first, so that no exponential overflows.

    Args:
      x: logits of any shape; float32, float64, bfloat16 or float16. Half precisions are
        computed in float32 and rounded once; so is the gradient, from the y returned.
      axis: over which the probabilities sum to one.
      derivatives: ``"custom"`` or ``"autodiff"``, as for :func:`jaxcnn.relu`.

    Returns:
      Probabilities of x's shape and dtype.

    Raises:
      TypeError: when x is not of a supported float dtype, or ``axis`` not an int.
      ValueError: when x has no such axis, or ``derivatives`` is unknown.

    Derivatives: y is kept.

    Source: docs/equations.md, "Softmax and cross-entropy".

    >>> softmax(jnp.array([0.0, 0.0, jnp.log(2.0)]))
    Array([0.25, 0.25, 0.5 ], dtype=float32)
    """
    x, axis = _along("x", x, axis)
    return computing(SOFTMAX, derivatives)(x, axis=axis)


@rounded_once
def _log_softmax(x: Floats, *, axis: int) -> Floats:
    x = _less_the_largest(x, axis)
    return x - jnp.log(jnp.sum(jnp.exp(x), axis, keepdims=True))


@rounded_once
def _log_softmax_tangent(x_dot: Floats, y: Floats, *, axis: int) -> Floats:
    """ẏ = ẋ − Σ e^y ẋ"""
    return x_dot - jnp.sum(jnp.exp(y) * x_dot, axis, keepdims=True)


@rounded_once
def _log_softmax_gradient(dy: Floats, y: Floats, *, axis: int) -> Floats:
    """dx = dy − e^y Σ dy"""
    return dy - jnp.exp(y) * jnp.sum(dy, axis, keepdims=True)


LOG_SOFTMAX = formula(_log_softmax, "log_softmax")
LOG_SOFTMAX_TANGENT = formula(_log_softmax_tangent, "log_softmax_tangent")
LOG_SOFTMAX_GRADIENT = formula(_log_softmax_gradient, "log_softmax_gradient")
transposes_of_each_other(LOG_SOFTMAX_TANGENT, LOG_SOFTMAX_GRADIENT)
with_tangent(LOG_SOFTMAX, LOG_SOFTMAX_TANGENT, lambda x, y: [y])


def log_softmax(x: ArrayLike, *, axis: int = -1, derivatives: str | None = None) -> Floats:
    r"""The logarithm of :func:`softmax`, computed without ever dividing.

    .. math::

        y_i = x_i - \log \sum_j e^{x_j} \qquad
        \frac{\partial L}{\partial x_i} = \frac{\partial L}{\partial y_i}
            - e^{y_i} \sum_j \frac{\partial L}{\partial y_j}

    Args:
      x, axis, derivatives: as for :func:`softmax`.

    Returns:
      Log-probabilities of x's shape and dtype.

    Raises:
      TypeError, ValueError: as for :func:`softmax`.

    Derivatives: y is kept.

    >>> log_softmax(jnp.array([1000.0, 0.0]))
    Array([    0., -1000.], dtype=float32)
    """
    x, axis = _along("x", x, axis)
    return computing(LOG_SOFTMAX, derivatives)(x, axis=axis)


def _along(name: str, value: ArrayLike, axis: int) -> tuple[Floats, int]:
    """A float array, and one of its axes, counted from the last."""
    array = arguments.float_array(name, value)
    axis = arguments.whole("axis", axis)
    if array.ndim == 0:
        raise ValueError(f"axis is {axis}, but {name} has shape (), a scalar: it has none")
    if not -array.ndim <= axis < array.ndim:
        raise ValueError(
            f"axis is {axis}, but {name} has shape {array.shape}: use an axis from "
            f"{-array.ndim} to {array.ndim - 1}"
        )
    return array, axis if axis < 0 else axis - array.ndim
