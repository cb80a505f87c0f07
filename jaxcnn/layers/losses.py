"""Losses: a classifier's, with its gradient written down, and two that optax computes."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool

from jaxcnn import arguments
from jaxcnn.layers.softmax import log_softmax, softmax
from jaxcnn.layout import Floats, Integers
from jaxcnn.primitives import (
    computing,
    formula,
    transposes_of_each_other,
    with_tangent,
)
from jaxcnn.rounding import rounded_once

# --- Softmax cross-entropy ------------------------------------------------------------


def _one_or_nan(labels: Integers, classes: int) -> Floats:
    """1 for a label that names a class, NaN for another.

    Whatever is multiplied by it has a derivative that is NaN, too, so that no number of a
    wrong label looks like one.
    """
    last = min(classes - 1, jnp.iinfo(labels.dtype).max)
    return jnp.where((labels >= 0) & (labels <= last), 1.0, jnp.nan)


@rounded_once
def _cross_entropy(logits: Floats, labels: Integers, *, smoothing: float) -> Floats:
    log_p = log_softmax(logits, derivatives="autodiff")
    at = jnp.expand_dims(labels.astype("int32"), -1)
    loss = -jnp.take_along_axis(log_p, at, axis=-1, mode="clip")[..., 0]
    if smoothing:
        loss = (1 - smoothing) * loss - smoothing * jnp.mean(log_p, axis=-1)
    return loss * _one_or_nan(labels, logits.shape[-1])


def _less_targets(logits: Floats, labels: Integers, smoothing: float) -> Floats:
    """P − T"""
    classes = logits.shape[-1]
    is_label = jax.nn.one_hot(labels.astype("int32"), classes, dtype=logits.dtype)
    less_targets = softmax(logits) - ((1 - smoothing) * is_label + smoothing / classes)
    return less_targets * jnp.expand_dims(_one_or_nan(labels, classes), -1)


@rounded_once
def _cross_entropy_tangent(
    logits_dot: Floats, logits: Floats, labels: Integers, *, smoothing: float
) -> Floats:
    """The tangent of L: Σ (P − T) Ż"""
    return jnp.sum(_less_targets(logits, labels, smoothing) * logits_dot, -1)


@rounded_once
def _cross_entropy_gradient(
    dloss: Floats, logits: Floats, labels: Integers, *, smoothing: float
) -> Floats:
    """dZ = P − T, times what arrives"""
    return _less_targets(logits, labels, smoothing) * jnp.expand_dims(dloss, -1)


CROSS_ENTROPY = formula(_cross_entropy, "softmax_cross_entropy")
CROSS_ENTROPY_TANGENT = formula(_cross_entropy_tangent, "softmax_cross_entropy_tangent")
CROSS_ENTROPY_GRADIENT = formula(_cross_entropy_gradient, "softmax_cross_entropy_gradient")
transposes_of_each_other(CROSS_ENTROPY_TANGENT, CROSS_ENTROPY_GRADIENT)
with_tangent(CROSS_ENTROPY, CROSS_ENTROPY_TANGENT, lambda z, t, loss: [z, t])


def softmax_cross_entropy(
    logits: ArrayLike,
    labels: ArrayLike,
    *,
    where: ArrayLike | None = None,
    label_smoothing: float = 0.0,
    derivatives: str | None = None,
) -> Floats:
    r"""How surprised a classifier is by the right answer.

    .. math::

        L = -\sum_j T_j \log P_j, \quad P = \operatorname{softmax}(Z) \qquad
        \frac{\partial L}{\partial Z} = P - T

    where T is the one-hot vector of the label t, so that L = −log P_t; or, smoothed,
    T = (1 − ε) · one-hot + ε/classes, which asks for no certainty.

    Args:
      logits: Z, ``(…, classes)``; float32, float64, bfloat16 or float16. Half precisions
        are computed in float32 and rounded once, gradients included.
      labels: t, ``(…)``, integers from 0 to classes − 1.
      where: truth values ``(…)``: the examples that count. The loss of the others is 0, and
        so is its gradient, whatever their logits and labels. What PyTorch calls
        ``ignore_index=-1`` is ``where=labels != -1``.
      label_smoothing: ε, from 0 to 1.
      derivatives: ``"custom"`` for the hand-written rule; ``"autodiff"`` drops it, so
        that JAX differentiates the formula itself. By default
        ``"custom"``, or what ``with`` :func:`jaxcnn.derivatives` says.

    Returns:
      The loss of every example, ``(…)``, of logits' dtype; take the mean for a batch, with
      ``where`` that of the examples that count: ``losses.mean(where=where)``.

    Raises:
      TypeError: when logits are not floats of a supported dtype, labels not integers, or
        ``where`` not truth values, or ``label_smoothing`` is not a number.
      ValueError: when the shapes do not fit, or a label that counts lies outside
        0 … classes − 1, or ``label_smoothing`` outside 0 … 1.
        Labels are only looked at where they are concrete: not under ``jit``. There the loss
        of such a label is NaN, and so are its derivatives.

    Derivatives: logits and labels are kept; labels have no gradient.

    Source: docs/equations.md, "Softmax and cross-entropy"; smoothing as in
    :func:`torch.nn.functional.cross_entropy`.

    >>> logits = jnp.array([[0.0, jnp.log(3.0)]])
    >>> jnp.exp(-softmax_cross_entropy(logits, jnp.array([1])))
    Array([0.75], dtype=float32)
    >>> jax.grad(lambda z: softmax_cross_entropy(z, jnp.array([1])).sum())(logits).round(4)
    Array([[ 0.25, -0.25]], dtype=float32)
    >>> labels = jnp.array([1, -1])
    >>> losses = softmax_cross_entropy(jnp.zeros((2, 4)), labels, where=labels != -1)
    >>> losses, losses.mean(where=labels != -1)
    (Array([1.3862944, 0.       ], dtype=float32), Array(1.3862944, dtype=float32))
    """
    logits = arguments.float_array("logits", logits)
    labels = arguments.integers(
        "labels",
        labels,
        "integers, one for each example (for one-hot rows, take argmax(-1))",
    )
    if logits.ndim == 0 or labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"labels have shape {labels.shape}; for logits of shape {logits.shape} "
            f"they must be {logits.shape[:-1]}: one for each row of logits"
        )
    arguments.has_entries("logits", logits, (-1,))
    compute = computing(CROSS_ENTROPY, derivatives)
    smoothing = arguments.fraction("label_smoothing", label_smoothing)
    if where is not None:
        where = arguments.truths("where", where, labels.shape, "as labels")
        logits = jnp.where(jnp.expand_dims(where, -1), logits, 0)
        labels = jnp.where(where, labels, 0)
    classes = logits.shape[-1]
    arguments.in_range(
        "labels", labels, classes, f"logits of shape {logits.shape} have classes"
    )
    losses = compute(logits, labels, smoothing=smoothing)
    return losses if where is None else jnp.where(where, losses, 0)


# --- Element by element ---------------------------------------------------------------

REDUCTIONS = ("mean", "sum", "none")


def mse_loss(
    predictions: ArrayLike,
    targets: ArrayLike,
    *,
    where: ArrayLike | None = None,
    reduction: str = "mean",
) -> Floats:
    r"""How far predictions are from their targets: the mean squared error.

    .. math::

        L = \frac{1}{n} \sum_i (y_i - t_i)^2 \qquad
        \frac{\partial L}{\partial y_i} = \frac{2}{n} (y_i - t_i)
            = -\frac{\partial L}{\partial t_i}

    Args:
      predictions: y, an array of any shape; float32, float64, bfloat16 or float16. Half
        precisions are computed in float32 and rounded once, gradients included.
      targets: t, of predictions' shape and dtype.
      where: truth values of predictions' shape: the elements that count. The loss of the
        others is 0, and so is its gradient, whatever they are.
      reduction: ``"mean"`` over all elements that count, ``"sum"``, or ``"none"`` for the
        loss of each element.

    Returns:
      A scalar of predictions' dtype, or for ``"none"`` an array of their shape. Where no
      element counts, the mean is NaN, and so are its derivatives.

    Raises:
      TypeError: when an array is not of a supported float dtype, dtypes differ, or
        ``where`` is not truth values.
      ValueError: when the shapes differ, ``reduction`` is unknown, or the mean of no
        elements is asked for.

    Derivatives: JAX's own, in forward and in reverse mode.

    Source: :func:`optax.losses.squared_error`, which computes it;
    :func:`torch.nn.functional.mse_loss`.

    >>> mse_loss(jnp.array([1.0, 2.0]), jnp.array([1.0, 4.0]))
    Array(2., dtype=float32)
    >>> y, t = jnp.array([3.0, 2.0]), jnp.array([jnp.nan, 4.0])
    >>> mse_loss(y, t, where=~jnp.isnan(t))
    Array(4., dtype=float32)
    """
    given = ("predictions", predictions, targets, where, reduction)
    return _reduced(optax.losses.squared_error, *given)


def binary_cross_entropy_with_logits(
    logits: ArrayLike,
    targets: ArrayLike,
    *,
    where: ArrayLike | None = None,
    reduction: str = "mean",
) -> Floats:
    r"""How surprised a classifier with two classes is, from its logits.

    .. math::

        L = -\frac{1}{n} \sum_i t_i \log \sigma(z_i) + (1 - t_i) \log \sigma(-z_i) \qquad
        \frac{\partial L}{\partial z_i} = \frac{1}{n} (\sigma(z_i) - t_i)

    Args:
      logits: z, an array of any shape; float32, float64, bfloat16 or float16. Half
        precisions are computed in float32 and rounded once, gradients included.
      targets: t, probabilities of logits' shape and dtype; 1 for the one class, 0 for the
        other.
      where, reduction: as for :func:`mse_loss`.

    Returns:
      A scalar of logits' dtype, or for ``"none"`` an array of their shape.

    Raises:
      TypeError, ValueError: as for :func:`mse_loss`.

    Derivatives: JAX's own, in forward and in reverse mode.

    Source: :func:`optax.losses.sigmoid_binary_cross_entropy`, which computes it;
    :func:`torch.nn.functional.binary_cross_entropy_with_logits`.

    >>> z, t = jnp.array([0.0, 1000.0, -1000.0]), jnp.array([1.0, 1.0, 0.0])
    >>> binary_cross_entropy_with_logits(z, t, reduction="none").round(4)
    Array([0.6931, 0.    , 0.    ], dtype=float32)
    """
    given = ("logits", logits, targets, where, reduction)
    return _reduced(optax.losses.sigmoid_binary_cross_entropy, *given)


def _reduced(
    loss: Callable[[Floats, Floats], Floats],
    name: str,
    values: ArrayLike,
    targets: ArrayLike,
    where: ArrayLike | None,
    reduction: str,
) -> Floats:
    """A loss of each element, computed and reduced, once the arguments are known to fit."""
    values = arguments.float_array(name, values)
    targets = arguments.float_array("targets", targets)
    arguments.same_dtype("targets", targets, name, values)
    arguments.shape_is("targets", targets, values.shape, f"as {name}")
    arguments.one_of("reduction", reduction, REDUCTIONS)
    if where is None:
        counted = None
    else:
        counted = arguments.truths("where", where, values.shape, f"as {name}")
    if reduction == "mean" and not values.size:
        raise ValueError(
            f"{name} has shape {values.shape}, and of no elements there is no mean: use "
            f"reduction='sum' or 'none'"
        )
    compute = partial(_reduced_formula, counted=counted, loss=loss, reduction=reduction)
    return rounded_once(compute)(values, targets)


def _reduced_formula(
    values: Floats,
    targets: Floats,
    *,
    counted: Bool[Array, "..."] | None,
    loss: Callable[[Floats, Floats], Floats],
    reduction: str,
) -> Floats:
    n = values.size
    if counted is not None:
        if reduction == "mean":
            # Of nothing the mean is NaN, and so that its gradient is, too, nothing is
            # taken out then.
            n = jnp.sum(counted)
            n, counted = jnp.where(n, n.astype(values.dtype), jnp.nan), counted | (n == 0)
        values, targets = (jnp.where(counted, each, 0) for each in (values, targets))
    losses = loss(values, targets)
    if counted is not None:
        losses = jnp.where(counted, losses, 0)
    if reduction == "none":
        return losses
    return jnp.sum(losses) if reduction == "sum" else jnp.sum(losses) / n
