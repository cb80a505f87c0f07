"""Dropout, whose gradient is dropout again."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool

from jaxcnn import arguments
from jaxcnn.layout import Floats
from jaxcnn.primitives import computing, formula, transposes_of_each_other
from jaxcnn.rounding import rounded_once

Mask = Bool[Array, "..."]


@rounded_once
def _dropout_formula(x: Floats, is_kept: Mask, *, p: float) -> Floats:
    return jnp.where(is_kept, x / (1 - p), 0)


DROPOUT = formula(_dropout_formula, "dropout")
transposes_of_each_other(DROPOUT, DROPOUT)


def dropout(
    x: ArrayLike,
    key: jax.Array | None,
    p: float = 0.5,
    *,
    training: bool = True,
    derivatives: str | None = None,
) -> Floats:
    r"""Forget elements at random, so that a network relies on none of them.

    .. math::

        Y = \frac{M X}{1 - p} \qquad
        \frac{\partial L}{\partial X} = \frac{M}{1 - p} \frac{\partial L}{\partial Y}

    Every element of the mask M is 1 with probability 1 − p, else 0. The mean of Y over all
    masks is X. So a trained network is used without dropout, and nothing else changes.

    Args:
      x: an array of any shape; float32, float64, bfloat16 or float16. Half precisions are
        computed in float32 and rounded once, gradients included.
      key: of :mod:`jax.random`, one for every call: the same key gives the same mask. Under
        ``vmap``, map keys as well, or all examples share one mask. None will do where
        ``training`` is False.
      p: the probability with which an element is forgotten, from 0 to 1.
      training: False to return x.
      derivatives: ``"custom"`` or ``"autodiff"``, as for :func:`jaxcnn.relu`.

    Returns:
      An array of x's shape and dtype: zeros for p = 1, and x itself for p = 0.

    Raises:
      TypeError: when x is not of a supported float dtype, key is not a key, p not a
        number, or ``training`` not a truth value.
      ValueError: when there are several keys, p lies outside 0 … 1, or ``derivatives`` is
        unknown.

    Derivatives: M is kept, one truth value for each element. Tangent and gradient are
    dropout with the same M.

    Source: Srivastava et al. (2014), "Dropout: a simple way to prevent neural networks
    from overfitting"; :func:`torch.nn.functional.dropout`.

    >>> y = dropout(jnp.ones(1000), jax.random.key(0), p=0.75)
    >>> jnp.unique(y)
    Array([0., 4.], dtype=float32)
    """
    x = arguments.float_array("x", x)
    p = arguments.fraction("p", p)
    compute = computing(DROPOUT, derivatives)
    if not arguments.flag("training", training):
        return x
    key = _one_key(key)
    if p == 0:
        return x
    if p == 1:
        return jnp.zeros_like(x)
    # In float32 even where float64 is enabled: a key has the same mask everywhere.
    return compute(x, jax.random.bernoulli(key, np.float32(1 - p), x.shape), p=p)


def _one_key(key: jax.Array | None) -> jax.Array:
    wanted = "it must be a key of jax.random, as jax.random.key(0) makes one"
    if not isinstance(key, jax.Array):
        raise TypeError(f"key is {key!r}; {wanted}")
    is_typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    if not is_typed and key.dtype != jnp.uint32:
        raise TypeError(f"key has dtype {key.dtype}; {wanted}")
    if key.ndim != (0 if is_typed else 1):
        raise ValueError(
            f"key has shape {key.shape}; it must be a single one, for one mask"
        )
    return key
