"""Max and average pooling, as public functions.

Each checks its arguments, describes the problem statically and hands its array to
:mod:`jaxcnn.pooling_rule`, where JAX is told how to differentiate and to map it.
"""

from collections.abc import Sequence

from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxcnn import arguments, pooling_rule, rules
from jaxcnn.arguments import Padding
from jaxcnn.layout import spatial_size


def max_pool2d(
    x: ArrayLike,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
    *,
    layout: str = "NCHW",
    engine: str = "auto",
    derivatives: str | None = None,
) -> Float[Array, "..."]:
    r"""Keep the largest value of every window: two-dimensional max pooling.

    .. math::

        Y_{b,c,i,j} = \max_{m,n} X_{b,\, c,\; s i + m - p,\; s j + n - p}
        \qquad
        \frac{\partial L}{\partial X_{b,c,k,l}} = \sum_{i,j}
            \frac{\partial L}{\partial Y_{b,c,i,j}}
            \big[(k, l) \text{ is the maximum of window } (i, j)\big]

    Of several equal maxima the first in row-major order receives the gradient, as in
    PyTorch and in XLA. A NaN beats every number. Padding never wins.

    Args:
      x: images ``(B, C, H, W)``, or one image ``(C, H, W)``; with ``layout="NHWC"``,
        channels last. One of float32, float64, bfloat16, float16.
      kernel_size: (K_h, K_w), or one int for both.
      stride: s, an int or one for each dimension; by default the kernel size.
      padding: p, an int, one for each dimension, a (low, high) pair for each dimension,
        or ``"VALID"``, ``"SAME"``, ``"SAME_LOWER"``, as for :func:`jaxcnn.conv2d`.
      layout: ``"NCHW"`` or ``"NHWC"``.
      engine: how it is computed: ``"auto"`` lets the plan choose.
      derivatives: ``"custom"`` for the hand-written rule; ``"autodiff"`` drops it, so
        that JAX differentiates the loops itself. By default
        ``"custom"``, or what ``with`` :func:`jaxcnn.derivatives` says.

    Returns:
      Images ``(B, C, H_out, W_out)`` in x's layout and dtype, without B where x had none.

    Raises:
      TypeError: when x is not of a supported float dtype.
      ValueError: when x's rank or the window does not fit, a window could lie wholly in
        padding, or an option is unknown.

    Derivatives: the rule keeps the winner of each window, one byte where a window has
    at most 128 elements, and not x. Every order of gradient is hand-written. Forward
    mode needs ``derivatives="autodiff"``.

    Cost: B · C · H_out · W_out · K_h · K_w comparisons.

    Source: the document, "Pooling (e.g., max pooling) … takes the max value in each
    patch", and "place gradient only at max position".

    >>> import jax, jax.numpy as jnp
    >>> x = jnp.array([[[1.0, 5.0, 2.0, 2.0], [3.0, 4.0, 2.0, 2.0]]])
    >>> max_pool2d(x, 2)
    Array([[[5., 2.]]], dtype=float32)
    >>> jax.grad(lambda x: max_pool2d(x, 2).sum())(x)
    Array([[[0., 1., 1., 0.],
            [0., 0., 0., 0.]]], dtype=float32)
    """
    x, is_batch, problem = _described(x, kernel_size, stride, padding, layout, engine)
    rule = rules.one_rule(
        derivatives, pooling_rule.max_pooling, pooling_rule.max_pooling_autodiff
    )
    y, _ = rule(x, problem)
    return y if is_batch else y[0]


def avg_pool2d(
    x: ArrayLike,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
    *,
    count_include_pad: bool = True,
    layout: str = "NCHW",
    engine: str = "auto",
    derivatives: str | None = None,
) -> Float[Array, "..."]:
    r"""Average every window: two-dimensional average pooling.

    .. math::

        Y_{b,c,i,j} = \frac{1}{n_{i,j}} \sum_{m,n} X_{b,\, c,\; s i + m - p,\; s j + n - p}
        \qquad
        \frac{\partial L}{\partial X_{b,c,k,l}} = \sum_{i,j\,:\,(k,l) \in \text{window}}
            \frac{1}{n_{i,j}} \frac{\partial L}{\partial Y_{b,c,i,j}}

    Args:
      x, kernel_size, stride, padding, layout, engine, derivatives: as for
        :func:`max_pool2d`.
      count_include_pad: whether n counts the zeros of the padding (n is then K_h·K_w
        everywhere), as PyTorch and flax do by default, or only elements of the image.

    Returns:
      Images ``(B, C, H_out, W_out)`` in x's layout and dtype, without B where x had none.

    Raises:
      TypeError, ValueError: as for :func:`max_pool2d`.

    Derivatives: linear; nothing is kept for the backward pass. Every order of gradient
    is hand-written. Forward mode needs ``derivatives="autodiff"``.

    Cost: B · C · H_out · W_out · K_h · K_w additions. Half precisions are summed in
    float32 and rounded once.

    Source: the document, "for pooling, backward pass upsamples the gradient".

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[[1.0, 5.0, 2.0, 2.0], [3.0, 3.0, 2.0, 2.0]]])
    >>> avg_pool2d(x, 2)
    Array([[[3., 2.]]], dtype=float32)
    >>> avg_pool2d(x, 2, padding=1, count_include_pad=False)
    Array([[[1. , 3.5, 2. ],
            [3. , 2.5, 2. ]]], dtype=float32)
    """
    x, is_batch, problem = _described(
        *(x, kernel_size, stride, padding, layout, engine),
        count_include_pad=count_include_pad,
    )
    rule = rules.one_rule(
        derivatives, pooling_rule.average_pooling, pooling_rule.average_pooling_autodiff
    )
    y = rule(x, problem)
    return y if is_batch else y[0]


def _described(x, kernel_size, stride, padding, layout, engine, **options):
    """The batch, whether it was one, and the static description of the pooling."""
    arguments.one_layout(layout)
    x, is_batch = arguments.images("x", x, layout)
    problem = arguments.pooling_problem(
        *(spatial_size(x, layout), kernel_size, stride, padding, layout, engine),
        **options,
    )
    return x, is_batch, problem
