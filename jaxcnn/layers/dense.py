"""Fully connected layers, with their gradients written down."""

import math
from functools import partial

import jax
import jax.numpy as jnp
from jax.lax import PrecisionLike
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxcnn import arguments, differentiation
from jaxcnn.convolution.rule import Operands, bias_gradient
from jaxcnn.layout import Floats
from jaxcnn.rounding import sum_dtype
from jaxcnn.sharding import replicated_along, sharded_like, with_auto_axes


def _dense_formula(
    x: Float[Array, "rows C_in"],
    w: Float[Array, "C_in C_out"],
    b: Float[Array, " C_out"] | None,
    precision: PrecisionLike,
) -> Float[Array, "rows C_out"]:
    y = jnp.matmul(x, w, precision=precision, preferred_element_type=sum_dtype(x.dtype))
    if b is not None:
        y = y + jnp.expand_dims(b.astype(y.dtype), 0)
    return y.astype(x.dtype)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def _dense(x: Floats, w: Floats, b: Floats | None, precision: PrecisionLike) -> Floats:
    return _dense_formula(x, w, b, precision)


def _dense_fwd(
    x: Floats, w: Floats, b: Floats | None, precision: PrecisionLike
) -> tuple[Floats, Operands]:
    return _dense(x, w, b, precision), (x, w, b)


def _dense_bwd(precision: PrecisionLike, residuals: Operands, dy: Floats) -> Operands:
    x, w, b = residuals
    dx = _dense(dy, w.T, None, precision)
    dw = with_auto_axes(
        lambda x, dy: _dense(x.T, dy, None, precision), ["ri", "ro"], "io", x, dy
    )
    db: Floats | None = None if b is None else bias_gradient(dy, dy.shape, "NC")
    return sharded_like(dx, x), sharded_like(dw, w), db


_dense.defvjp(_dense_fwd, _dense_bwd)


def dense(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    precision: PrecisionLike = None,
    derivatives: str | None = None,
) -> Floats:
    r"""Connect every input to every output: a fully connected layer.

    .. math::

        Y = X W + b \qquad
        \frac{\partial L}{\partial X} = \frac{\partial L}{\partial Y} W^\top \quad
        \frac{\partial L}{\partial W} = X^\top \frac{\partial L}{\partial Y} \quad
        \frac{\partial L}{\partial b} = \sum_{\text{batch}} \frac{\partial L}{\partial Y}

    Args:
      x: ``(…, C_in)``; float32, float64, bfloat16 or float16; half precisions are summed
        in float32 and rounded once, gradients included.
      w: weights of x's dtype, ``(C_in, C_out)``.
      b: bias of x's dtype, ``(C_out,)``, or None for none.
      precision: of the products, as for :func:`jax.lax.dot_general`.
      derivatives: ``"custom"`` for the hand-written rule; ``"autodiff"`` drops it, so
        that JAX differentiates the formula itself (which forward mode needs). By default
        ``"custom"``, or what ``with`` :func:`jaxcnn.derivatives` says.

    Returns:
      ``(…, C_out)``, of x's dtype.

    Raises:
      TypeError: when an array is not of a supported float dtype, or dtypes differ.
      ValueError: when the shapes do not fit, or ``derivatives`` is unknown.

    Derivatives: the rule keeps x and w, and its gradients are dense layers again, so
    every order of gradient is hand-written.

    Cost: C_in · C_out multiply-adds for each row of x.

    Source: docs/equations.md, "Fully connected layer".

    >>> dense(jnp.array([1.0, 2.0]), jnp.array([[3.0], [4.0]]), jnp.array([0.5]))
    Array([11.5], dtype=float32)
    """
    x = arguments.float_array("x", x)
    w = arguments.float_array("w", w)
    arguments.same_dtype("w", w, "x", x)
    if x.ndim == 0:
        raise ValueError("x is a scalar; it must be (…, C_in)")
    if w.ndim != 2 or w.shape[0] != x.shape[-1]:
        raise ValueError(
            f"w has shape {w.shape}; for x of shape {x.shape} it must be "
            f"({x.shape[-1]}, C_out)"
        )
    if b is not None:
        b = arguments.float_array("b", b)
        arguments.same_dtype("b", b, "x", x)
        arguments.shape_is("b", b, w.shape[1:], "one entry for each column of w")
    operation = differentiation.choose(derivatives, _dense, _dense_formula)
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    y = operation(rows, w, b, precision)
    return y.reshape(*x.shape[:-1], w.shape[1])


def flatten(x: ArrayLike) -> Float[Array, "B features"]:
    """Lay out every image of a batch as one row, the last axis running fastest.

    A row's order is that of the layout: channels first for NCHW, last for NHWC. Its
    gradient is the same reshape backwards, which JAX knows.

    Args:
      x: ``(B, …)``; float32, float64, bfloat16 or float16.

    Returns:
      ``(B, features)``.

    Raises:
      TypeError: when x is not of a supported float dtype.
      ValueError: when x has no batch axis.

    >>> flatten(jnp.ones((2, 3, 4, 5))).shape
    (2, 60)
    """
    x = arguments.float_array("x", x)
    if x.ndim == 0:
        raise ValueError("x is a scalar; it must have a batch axis: (B, …)")
    x = replicated_along(x, range(1, x.ndim))
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))
