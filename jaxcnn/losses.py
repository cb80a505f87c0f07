"""The loss of a classifier, with its gradient written down."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxcnn import arguments, rules
from jaxcnn.activations import log_softmax, softmax


def _cross_entropy_formula(logits, labels, log_softmax):
    chosen = jnp.expand_dims(labels, -1)
    return -jnp.take_along_axis(log_softmax(logits), chosen, axis=-1)[..., 0]


@jax.custom_vjp
def _cross_entropy(logits, labels):
    return _cross_entropy_formula(logits, labels, log_softmax)


def _cross_entropy_fwd(logits, labels):
    return _cross_entropy(logits, labels), (logits, labels)


def _cross_entropy_bwd(residuals, dloss):
    logits, labels = residuals
    targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
    return (softmax(logits) - targets) * jnp.expand_dims(dloss, -1), None


_cross_entropy.defvjp(_cross_entropy_fwd, _cross_entropy_bwd)


def _cross_entropy_autodiff(logits, labels):
    plain = partial(log_softmax, derivatives="autodiff")
    return _cross_entropy_formula(logits, labels, plain)


def softmax_cross_entropy(
    logits: ArrayLike, labels: ArrayLike, *, derivatives: str | None = None
) -> Float[Array, "..."]:
    r"""How surprised a classifier is by the right answer.

    .. math::

        L = -\log P_t, \quad P = \operatorname{softmax}(Z) \qquad
        \frac{\partial L}{\partial Z} = P - T

    where t is the label and T its one-hot vector.

    Args:
      logits: Z, ``(…, classes)``; float32, float64, bfloat16 or float16.
      labels: t, ``(…)``, integers from 0 to classes − 1.
      derivatives: ``"custom"`` for the hand-written rule; ``"autodiff"`` drops it, so
        that JAX differentiates the formula itself (which forward mode needs). By default
        ``"custom"``, or what ``with`` :func:`jaxcnn.derivatives` says.

    Returns:
      The loss of every example, ``(…)``, of logits' dtype; take the mean for a batch.

    Raises:
      TypeError: when logits are not floats of a supported dtype, or labels not integers.
      ValueError: when the shapes do not fit, or a label lies outside 0 … classes − 1.
        Labels can only be looked at where they are concrete: not under ``jit``.

    Derivatives: the rule keeps logits and labels; labels have no gradient.

    >>> logits = jnp.array([[0.0, jnp.log(3.0)]])
    >>> jnp.exp(-softmax_cross_entropy(logits, jnp.array([1])))
    Array([0.75], dtype=float32)
    >>> jax.grad(lambda z: softmax_cross_entropy(z, jnp.array([1])).sum())(logits).round(4)
    Array([[ 0.25, -0.25]], dtype=float32)
    """
    logits = arguments.float_array("logits", logits)
    if labels is None:
        raise TypeError("labels is None; they must be integers, one for each example")
    labels = jnp.asarray(labels)
    if not jnp.issubdtype(labels.dtype, jnp.integer):
        raise TypeError(
            f"labels have dtype {labels.dtype}; they must be integers, one for each "
            f"example (for one-hot rows, take argmax(-1))"
        )
    if logits.ndim == 0 or labels.shape != logits.shape[:-1]:
        raise ValueError(
            f"labels have shape {labels.shape}; for logits of shape {logits.shape} "
            f"they must be {logits.shape[:-1]}: one for each row of logits"
        )
    classes = logits.shape[-1]
    if not isinstance(labels, Tracer) and labels.size:
        values = np.asarray(labels)  # under jit, np.min(labels) would be traced
        smallest, largest = values.min(), values.max()
        if smallest < 0 or largest >= classes:
            raise ValueError(
                f"labels run from {smallest} to {largest}; logits of shape "
                f"{logits.shape} have classes 0 to {classes - 1}"
            )
    rule = rules.one_rule(derivatives, _cross_entropy, _cross_entropy_autodiff)
    return rule(logits, labels)
