"""Activations, with their derivatives written down.

Every activation but ReLU is its equation y = f(x) and its derivative f', of which
:func:`elementwise` makes a primitive; the derivative at a kink is PyTorch's choice.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool

from jaxcnn import arguments
from jaxcnn.layout import Floats
from jaxcnn.primitives import (
    computing,
    formula,
    transposes_of_each_other,
    with_tangent,
)
from jaxcnn.rounding import rounded_once

# --- From f and f' to a primitive -----------------------------------------------------


def elementwise(
    name: str,
    f: Callable[..., Floats],
    derivative: Callable[..., Floats],
    kept: Callable[[Floats, Floats], jax.Array] = lambda x, y: x,
) -> Callable[..., Floats]:
    """The function y = f(x) of each element, with ẏ = f'(x) ẋ and dx = f'(x) dy.

    Args:
      name: of the function.
      f: of x and f's options.
      derivative: f', of what is kept and f's options.
      kept: from x and y, what is kept for the derivative.

    Returns:
      A function of x, of ``derivatives`` and of f's options.
    """

    @rounded_once
    def compute(x: Floats, *, parameters: tuple[float, ...]) -> Floats:
        return f(x, *parameters)

    @rounded_once
    def times_derivative(
        dy: Floats, kept: jax.Array, *, parameters: tuple[float, ...]
    ) -> Floats:
        return dy * derivative(kept, *parameters)

    primitive = formula(compute, name)
    gradient = formula(times_derivative, f"{name}_gradient")
    transposes_of_each_other(gradient, gradient)

    with_tangent(primitive, gradient, lambda x, y: [kept(x, y)])

    def activation(x: ArrayLike, derivatives: str | None, *parameters: float) -> Floats:
        x = arguments.float_array("x", x)
        return computing(primitive, derivatives)(x, parameters=parameters)

    return activation


# --- ReLU and what is like it ---------------------------------------------------------


def _relu(x: Floats) -> Floats:
    # The second branch is 0 or NaN; its derivative is 0.
    return jnp.where(x > 0, x, jax.lax.stop_gradient(jnp.maximum(x, 0)))


def _relu_gradient(dy: Floats, is_positive: Bool[Array, "..."]) -> Floats:
    """dx = dy where x > 0, else 0; and ẏ of ẋ likewise"""
    return jnp.where(is_positive, dy, jnp.zeros_like(dy))


RELU = formula(_relu, "relu")
RELU_GRADIENT = formula(_relu_gradient, "relu_gradient")
transposes_of_each_other(RELU_GRADIENT, RELU_GRADIENT)
with_tangent(RELU, RELU_GRADIENT, lambda x, y: [y > 0])


def relu(x: ArrayLike, *, derivatives: str | None = None) -> Floats:
    r"""Cut off what is negative: the rectified linear unit.

    .. math::

        f(x) = \max(0, x) \qquad f'(x) = 1 \text{ if } x > 0, \text{ else } 0

    At the kink f'(0) = 0. A NaN stays a NaN; its gradient is 0.

    Args:
      x: an array of any shape; float32, float64, bfloat16 or float16.
      derivatives: ``"custom"`` for the hand-written rule; ``"autodiff"`` drops it, so
        that JAX differentiates the formula itself. By default
        ``"custom"``, or what ``with`` :func:`jaxcnn.derivatives` says.

    Returns:
      An array of x's shape and dtype.

    Raises:
      TypeError: when x is not of a supported float dtype.
      ValueError: when ``derivatives`` is unknown.

    Derivatives: one truth value is kept for each element.

    Source: docs/equations.md, "ReLU and other activations".

    >>> relu(jnp.array([-1.0, 0.0, 2.0]))
    Array([0., 0., 2.], dtype=float32)
    >>> jax.vmap(jax.grad(relu))(jnp.array([-1.0, 0.0, 2.0]))
    Array([0., 0., 1.], dtype=float32)
    """
    x = arguments.float_array("x", x)
    return computing(RELU, derivatives)(x)


_leaky_relu = elementwise(
    "leaky_relu",
    lambda x, slope: jnp.where(x > 0, x, slope * x),
    lambda is_positive, slope: jnp.where(is_positive, 1.0, slope),
    kept=lambda x, y: x > 0,
)


def leaky_relu(
    x: ArrayLike, negative_slope: float = 0.01, *, derivatives: str | None = None
) -> Floats:
    r"""Flatten what is negative, but let it through: the leaky rectified linear unit.

    .. math::

        f(x) = x \text{ if } x > 0, \text{ else } a x \qquad
        f'(x) = 1 \text{ if } x > 0, \text{ else } a

    At the kink f'(0) = a.

    Args:
      x: an array of any shape; float32, float64, bfloat16 or float16. Half precisions are
        computed in float32 and rounded once, gradients included.
      negative_slope: a, a number.
      derivatives: ``"custom"`` or ``"autodiff"``, as for :func:`relu`.

    Returns:
      An array of x's shape and dtype.

    Raises:
      TypeError: when x is not of a supported float dtype, or an option is not a number.
      ValueError: when an option is out of its range, or ``derivatives`` is unknown.

    Derivatives: one truth value is kept for each element.

    Source: Maas, Hannun and Ng (2013), "Rectifier nonlinearities improve neural network
    acoustic models"; :func:`torch.nn.functional.leaky_relu`.

    >>> leaky_relu(jnp.array([-100.0, 2.0]))
    Array([-1.,  2.], dtype=float32)
    """
    return _leaky_relu(x, derivatives, arguments.number("negative_slope", negative_slope))


def _negative_part(x: Floats) -> Floats:
    """x where it is negative, else 0: what exp takes without overflowing."""
    return jnp.where(x > 0, 0, x)


_elu = elementwise(
    "elu",
    lambda x, alpha: jnp.where(x > 0, x, alpha * jnp.expm1(_negative_part(x))),
    lambda x, alpha: jnp.where(x > 0, 1, alpha * jnp.exp(_negative_part(x))),
)


def elu(x: ArrayLike, alpha: float = 1.0, *, derivatives: str | None = None) -> Floats:
    r"""Let what is negative approach −α: the exponential linear unit.

    .. math::

        f(x) = x \text{ if } x > 0, \text{ else } \alpha (e^x - 1) \qquad
        f'(x) = 1 \text{ if } x > 0, \text{ else } \alpha e^x

    Where α is not 1 there is a kink, and f'(0) = α.

    Args:
      x: as for :func:`leaky_relu`.
      alpha: α, a number.
      derivatives: ``"custom"`` or ``"autodiff"``, as for :func:`relu`.

    Returns:
      An array of x's shape and dtype.

    Raises:
      TypeError, ValueError: as for :func:`leaky_relu`.

    Derivatives: x is kept.

    Source: Clevert, Unterthiner and Hochreiter (2016), arXiv:1511.07289;
    :func:`torch.nn.functional.elu`.

    >>> elu(jnp.array([-jnp.log(2.0), 2.0]), alpha=4.0)
    Array([-2.,  2.], dtype=float32)
    """
    return _elu(x, derivatives, arguments.number("alpha", alpha))


def _within(x: Floats, bound: float) -> Floats:
    """x where it is no larger than the bound: what a power takes without overflowing."""
    return jnp.clip(x, -bound, bound)


_hard_swish = elementwise(
    "hard_swish",
    lambda x: jnp.where(
        x <= -3, 0, jnp.where(x < 3, _within(x, 3) * (_within(x, 3) + 3) / 6, x)
    ),
    lambda x: jnp.where(x <= -3, 0, jnp.where(x < 3, x / 3 + 0.5, 1)),
)


def hard_swish(x: ArrayLike, *, derivatives: str | None = None) -> Floats:
    r"""Come close to :func:`jaxcnn.silu` without an exponential.

    .. math::

        f(x) = x \, \frac{\min(\max(x + 3, 0), 6)}{6} \qquad
        f'(x) = \begin{cases} 0 & x \le -3 \\
            \frac{x}{3} + \frac{1}{2} & -3 < x < 3 \\ 1 & x \ge 3 \end{cases}

    At the kinks f'(−3) = 0 and f'(3) = 1.

    Args:
      x, derivatives: as for :func:`leaky_relu`.

    Returns:
      An array of x's shape and dtype.

    Raises:
      TypeError, ValueError: as for :func:`leaky_relu`.

    Derivatives: x is kept.

    Source: Howard et al. (2019), arXiv:1905.02244; :func:`torch.nn.functional.hardswish`.

    >>> hard_swish(jnp.array([-4.0, 1.5, 4.0]))
    Array([0.   , 1.125, 4.   ], dtype=float32)
    """
    return _hard_swish(x, derivatives)


# --- Without kinks ----------------------------------------------------------------------


_sigmoid = elementwise(
    "sigmoid",
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

    Derivatives: y is kept, as it is returned.

    Source: :func:`torch.nn.functional.sigmoid`.

    >>> sigmoid(jnp.array([-1000.0, 0.0, jnp.log(3.0)])).round(4)
    Array([0.  , 0.5 , 0.75], dtype=float32)
    """
    return _sigmoid(x, derivatives)


_tanh = elementwise(
    "tanh",
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

    Derivatives: y is kept, as it is returned.

    Source: :func:`torch.nn.functional.tanh`.

    >>> tanh(jnp.array([-1000.0, 0.0, jnp.log(3.0) / 2]))
    Array([-1. ,  0. ,  0.5], dtype=float32)
    """
    return _tanh(x, derivatives)


def _softplus_formula(x: Floats, beta: float, threshold: float) -> Floats:
    return jnp.where(beta * x > threshold, x, jax.nn.softplus(beta * x) / beta)


def _softplus_derivative(x: Floats, beta: float, threshold: float) -> Floats:
    return jnp.where(beta * x > threshold, 1, jax.nn.sigmoid(beta * x))


_softplus = elementwise("softplus", _softplus_formula, _softplus_derivative)


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

    Derivatives: x is kept.

    Source: :func:`torch.nn.functional.softplus`.

    >>> softplus(jnp.array([-1000.0, 0.0, 1000.0]))
    Array([0.000000e+00, 6.931472e-01, 1.000000e+03], dtype=float32)
    """
    beta = arguments.positive("beta", beta)
    return _softplus(x, derivatives, beta, arguments.number("threshold", threshold))


FAR_OUT = 1000.0
"""Beyond it, x g(x) is 0 or x in every dtype, if g is σ or Φ: e^−1000 is 0."""


def _gated(
    name: str, g: Callable[[Floats], Floats], dg: Callable[[Floats], Floats]
) -> Callable[..., Floats]:
    """f(x) = x g(x) and f'(x) = g(x) + x g'(x), for g that rises from 0 to 1.

    Far out a power of x overflows where its factor vanishes, and 0 · ∞ is NaN. So g sees
    nothing from there.
    """

    def f(x: Floats) -> Floats:
        near = _within(x, FAR_OUT)
        return jnp.where(abs(x) > FAR_OUT, jnp.where(x > 0, x, 0), near * g(near))

    def derivative(x: Floats) -> Floats:
        near = _within(x, FAR_OUT)
        return g(near) + near * dg(near)

    return elementwise(name, f, derivative)


def _gated_by_sigmoid(
    name: str, v: Callable[[Floats], Floats], dv: Callable[[Floats], Floats]
) -> Callable[..., Floats]:
    """g = σ(v(x)), and g' = σ(v) σ(−v) v'(x)."""
    s = jax.nn.sigmoid
    return _gated(name, lambda x: s(v(x)), lambda x: s(v(x)) * s(-v(x)) * dv(x))


_silu = _gated_by_sigmoid("silu", lambda x: x, jnp.ones_like)


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

    Derivatives: x is kept.

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
    "none": _gated("gelu", _normal_cdf, _normal_density),
    # (1 + tanh u)/2 = σ(2u)
    "tanh": _gated_by_sigmoid(
        "gelu_tanh",
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

    Derivatives: x is kept.

    Source: Hendrycks and Gimpel (2016), arXiv:1606.08415;
    :func:`torch.nn.functional.gelu`.

    >>> print(f"{gelu(1.0):.4f} {gelu(1.0, 'tanh'):.4f}")
    0.8413 0.8412
    """
    return _GELU[arguments.one_of("approximate", approximate, tuple(_GELU))](x, derivatives)
