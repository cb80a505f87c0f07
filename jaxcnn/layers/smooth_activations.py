"""Activations without kinks, with their derivatives written down.

The letters are those of :mod:`jaxcnn.layers.activations`.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxcnn import arguments
from jaxcnn.layers.activations import elementwise
from jaxcnn.layout import Floats

_sigmoid = elementwise(
    jax.nn.sigmoid,
    lambda y: y * (1 - y),
    kept=lambda x, y: y,
)


def sigmoid(x: ArrayLike, *, derivatives: str | None = None) -> Floats:
    r"""Turn a logit into a probability: the logistic function.

    .. math::

        \sigma(x) = \frac{1}{1 + e^{-x}} \qquad \sigma'(x) = y (1 - y)

    Args:
      x, derivatives: as for :func:`jaxcnn.leaky_relu`.

    Returns:
      An array of x's shape and dtype.

    Raises:
      TypeError, ValueError: as for :func:`jaxcnn.leaky_relu`.

    Derivatives: the rule keeps y, as it is returned.

    Source: :func:`torch.nn.functional.sigmoid`.

    >>> sigmoid(jnp.array([-1000.0, 0.0, jnp.log(3.0)])).round(4)
    Array([0.  , 0.5 , 0.75], dtype=float32)
    """
    return _sigmoid(x, derivatives)


_tanh = elementwise(
    jnp.tanh,
    lambda y: (1 + y) * (1 - y),
    kept=lambda x, y: y,
)


def tanh(x: ArrayLike, *, derivatives: str | None = None) -> Floats:
    r"""Squash to between −1 and 1: the hyperbolic tangent.

    .. math::

        f(x) = \frac{e^x - e^{-x}}{e^x + e^{-x}} \qquad f'(x) = 1 - y^2 = (1 + y)(1 - y)

    Args:
      x, derivatives: as for :func:`jaxcnn.leaky_relu`.

    Returns:
      An array of x's shape and dtype.

    Raises:
      TypeError, ValueError: as for :func:`jaxcnn.leaky_relu`.

    Derivatives: the rule keeps y, as it is returned.

    Source: :func:`torch.nn.functional.tanh`.

    >>> tanh(jnp.array([-1000.0, 0.0, jnp.log(3.0) / 2]))
    Array([-1. ,  0. ,  0.5], dtype=float32)
    """
    return _tanh(x, derivatives)


def _softplus_formula(x: Floats, beta: float, threshold: float) -> Floats:
    return jnp.where(beta * x > threshold, x, jax.nn.softplus(beta * x) / beta)


def _softplus_derivative(x: Floats, beta: float, threshold: float) -> Floats:
    return jnp.where(beta * x > threshold, 1, jax.nn.sigmoid(beta * x))


_softplus = elementwise(_softplus_formula, _softplus_derivative)


def softplus(
    x: ArrayLike,
    beta: float = 1.0,
    threshold: float = 20.0,
    *,
    derivatives: str | None = None,
) -> Floats:
    r"""Round off the kink of :func:`jaxcnn.relu`.

    .. math::

        f(x) = \frac{1}{\beta} \log(1 + e^{\beta x}) \qquad f'(x) = \sigma(\beta x)

    and where βx is above the threshold f(x) = x and f'(x) = 1.

    Args:
      x: as for :func:`jaxcnn.leaky_relu`.
      beta: β, positive: the larger, the sharper.
      threshold: where the linear part begins, for βx. No exponential overflows without it.
      derivatives: ``"custom"`` or ``"autodiff"``, as for :func:`jaxcnn.relu`.

    Returns:
      An array of x's shape and dtype.

    Raises:
      TypeError, ValueError: as for :func:`jaxcnn.leaky_relu`.

    Derivatives: the rule keeps x.

    Source: :func:`torch.nn.functional.softplus`.

    >>> softplus(jnp.array([-1000.0, 0.0, 1000.0]))
    Array([0.000000e+00, 6.931472e-01, 1.000000e+03], dtype=float32)
    """
    beta = arguments.positive("beta", beta)
    return _softplus(x, derivatives, beta, arguments.number("threshold", threshold))


def _times_sigmoid(
    v: Callable[[Floats], Floats], dv: Callable[[Floats], Floats]
) -> Callable[..., Floats]:
    """f(x) = x σ(v(x)) and f'(x) = σ(v) + x σ'(v) v'(x), with σ'(v) = σ(v) σ(−v)."""
    s = jax.nn.sigmoid
    return elementwise(
        lambda x: x * s(v(x)),
        # Multiplied from the left: σ(v) vanishes before v' can overflow.
        lambda x: s(v(x)) + x * s(v(x)) * s(-v(x)) * dv(x),
    )


_silu = _times_sigmoid(lambda x: x, jnp.ones_like)


def silu(x: ArrayLike, *, derivatives: str | None = None) -> Floats:
    r"""Let a logit through with its own probability: the sigmoid linear unit, or swish.

    .. math::

        f(x) = x \, \sigma(x) \qquad f'(x) = \sigma(x) + x \, \sigma(x) \, \sigma(-x)

    Args:
      x, derivatives: as for :func:`jaxcnn.leaky_relu`.

    Returns:
      An array of x's shape and dtype.

    Raises:
      TypeError, ValueError: as for :func:`jaxcnn.leaky_relu`.

    Derivatives: the rule keeps x.

    Source: Elfwing, Uchibe and Doya (2018), arXiv:1702.03118;
    :func:`torch.nn.functional.silu`.

    >>> silu(jnp.array([-1000.0, 0.0, 1000.0]))
    Array([  -0.,    0., 1000.], dtype=float32)
    """
    return _silu(x, derivatives)


def _normal_cdf(x: Floats) -> Floats:
    return jax.lax.erfc(-x / math.sqrt(2)) / 2


def _normal_density(x: Floats) -> Floats:
    return jnp.exp(-x * x / 2) / math.sqrt(2 * math.pi)


_GELU = {
    "none": elementwise(
        lambda x: x * _normal_cdf(x),
        lambda x: _normal_cdf(x) + x * _normal_density(x),
    ),
    # (1 + tanh u)/2 = σ(2u)
    "tanh": _times_sigmoid(
        lambda x: math.sqrt(8 / math.pi) * (x + 0.044715 * x**3),
        lambda x: math.sqrt(8 / math.pi) * (1 + 3 * 0.044715 * x**2),
    ),
}


def gelu(
    x: ArrayLike, approximate: str = "none", *, derivatives: str | None = None
) -> Floats:
    r"""Let x through if a normal variable is smaller: the Gaussian error linear unit.

    .. math::

        f(x) = x \, \Phi(x) \qquad f'(x) = \Phi(x) + x \, \varphi(x)

    with the normal distribution Φ and its density φ; or, approximately,

    .. math::

        f(x) = \frac{x}{2} (1 + \tanh u) \qquad
        f'(x) = \frac{1 + \tanh u}{2} + \frac{x}{2} (1 - \tanh^2 u) \, u' \qquad
        u = \sqrt{2 / \pi} \, (x + 0.044715 \, x^3)

    Args:
      x: as for :func:`jaxcnn.leaky_relu`.
      approximate: ``"none"`` for the first, ``"tanh"`` for the second.
      derivatives: ``"custom"`` or ``"autodiff"``, as for :func:`jaxcnn.relu`.

    Returns:
      An array of x's shape and dtype.

    Raises:
      TypeError, ValueError: as for :func:`jaxcnn.leaky_relu`.

    Derivatives: the rule keeps x.

    Source: Hendrycks and Gimpel (2016), arXiv:1606.08415;
    :func:`torch.nn.functional.gelu`.

    >>> print(f"{gelu(1.0):.4f} {gelu(1.0, 'tanh'):.4f}")
    0.8413 0.8412
    """
    return _GELU[arguments.one_of("approximate", approximate, tuple(_GELU))](x, derivatives)
