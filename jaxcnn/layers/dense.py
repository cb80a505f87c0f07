"""Fully connected layers: convolutions of images without positions."""

import math

from jax.lax import PrecisionLike
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxcnn import arguments
from jaxcnn.convolution import rule
from jaxcnn.layout import Floats
from jaxcnn.problem import Problem
from jaxcnn.sharding import replicated_along
from jaxcnn.window import Window

NOWHERE = Window((), (), (), ())
"""A window without dimensions: it has one tap, and one position."""


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
        that JAX differentiates the formula itself. By default
        ``"custom"``, or what ``with`` :func:`jaxcnn.derivatives` says.

    Returns:
      ``(…, C_out)``, of x's dtype.

    Raises:
      TypeError: when an array is not of a supported float dtype, or dtypes differ.
      ValueError: when the shapes do not fit, or ``derivatives`` is unknown.

    Derivatives: those of :func:`jaxcnn.conv2d`, of which this is the case without spatial
    dimensions. x and w are kept, and the gradients are dense layers again.

    Cost: C_in · C_out multiply-adds for each row of x.

    Source: docs/equations.md, "Fully connected layer".

    >>> import jax.numpy as jnp
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
    precision = arguments.precision_of_products(precision)
    problem = Problem(NOWHERE, (), "NC", precision=precision)
    rows = x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    y = rule.convolution(rows, w, problem, None, derivatives, b)
    return y if x.ndim == 2 else y.reshape(*x.shape[:-1], w.shape[1])


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

    >>> import jax.numpy as jnp
    >>> flatten(jnp.ones((2, 3, 4, 5))).shape
    (2, 60)
    """
    x = arguments.float_array("x", x)
    if x.ndim == 0:
        raise ValueError("x is a scalar; it must have a batch axis: (B, …)")
    x = replicated_along(x, range(1, x.ndim))
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))
