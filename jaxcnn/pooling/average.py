"""Average and power-average pooling, as public functions.

Each checks its arguments, describes the problem statically and hands its array to
:mod:`jaxcnn.pooling.rule`, where JAX is told how to differentiate and to map it.
"""

from collections.abc import Sequence
from typing import Any, Unpack

from jax.typing import ArrayLike

from jaxcnn import arguments
from jaxcnn.arguments import Padding, PoolingOptions
from jaxcnn.layout import Floats, spatial_size
from jaxcnn.pooling import rule


class AverageOptions(PoolingOptions, total=False):
    """The options of :func:`avg_pool2d` that do not depend on the number of dimensions."""

    count_include_pad: bool
    divisor_override: float | None


def avg_pool2d(
    x: ArrayLike,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
    *,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: float | None = None,
    layout: str = "NCHW",
    engine: str = "auto",
    derivatives: str | None = None,
) -> Floats:
    r"""Average every window: two-dimensional average pooling.

    .. math::

        Y_{b,c,i,j} = \frac{1}{n_{i,j}} \sum_{m,n}
            X_{b,\, c,\; s i + d m - p,\; s j + d n - p}
        \qquad
        \frac{\partial L}{\partial X_{b,c,k,l}} = \sum_{i,j\,:\,(k,l) \in \text{window}}
            \frac{1}{n_{i,j}} \frac{\partial L}{\partial Y_{b,c,i,j}}

    Args:
      x, kernel_size, stride, padding, dilation, ceil_mode, layout, engine, derivatives: as
        for :func:`jaxcnn.max_pool2d`.
      count_include_pad: whether n counts the zeros of the padding, as in PyTorch and flax
        by default, or only elements of the image. With the zeros n is K_h·K_w, except for
        windows that ``ceil_mode`` lets reach beyond the padding.
      divisor_override: n itself, for every window; 1 makes it sum pooling.

    Returns:
      Images ``(B, C, H_out, W_out)`` in x's layout and dtype, without B where x had none.

    Raises:
      TypeError, ValueError: as for :func:`jaxcnn.max_pool2d`, and when
        ``divisor_override`` is not a positive, finite number.

    Derivatives: linear; nothing is kept for the backward pass.

    Cost: B · C · H_out · W_out · K_h · K_w additions. Half precisions are summed in
    float32 and rounded once.

    Source: docs/equations.md, "Average pooling".

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[[1.0, 5.0, 2.0, 2.0], [3.0, 3.0, 2.0, 2.0]]])
    >>> avg_pool2d(x, 2)
    Array([[[3., 2.]]], dtype=float32)
    >>> avg_pool2d(x, 2, padding=1, count_include_pad=False)
    Array([[[1. , 3.5, 2. ],
            [3. , 2.5, 2. ]]], dtype=float32)
    """
    return _avg_pool(
        dimensions=2,
        x=x,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        layout=layout,
        dilation=dilation,
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
        divisor_override=divisor_override,
        engine=engine,
        derivatives=derivatives,
    )


def avg_pool1d(
    x: ArrayLike,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
    *,
    layout: str = "NCW",
    **options: Unpack[AverageOptions],
) -> Floats:
    """Average every window: one-dimensional average pooling.

    Arguments, results and errors are those of :func:`avg_pool2d`, for sequences
    ``(B, C, W)`` or ``(C, W)``; with ``layout="NWC"``, channels last.

    >>> import jax.numpy as jnp
    >>> avg_pool1d(jnp.array([[1.0, 5.0, 2.0, 4.0, 3.0]]), 2, ceil_mode=True)
    Array([[3., 3., 3.]], dtype=float32)
    """
    return _avg_pool(1, x, kernel_size, stride, padding, layout, **options)


def avg_pool3d(
    x: ArrayLike,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
    *,
    layout: str = "NCDHW",
    **options: Unpack[AverageOptions],
) -> Floats:
    """Average every window: three-dimensional average pooling.

    Arguments, results and errors are those of :func:`avg_pool2d`, for volumes
    ``(B, C, D, H, W)`` or ``(C, D, H, W)``; with ``layout="NDHWC"``, channels last.

    >>> import jax.numpy as jnp
    >>> avg_pool3d(jnp.arange(8.0).reshape(1, 2, 2, 2), 2)
    Array([[[[3.5]]]], dtype=float32)
    """
    return _avg_pool(3, x, kernel_size, stride, padding, layout, **options)


def _avg_pool(
    dimensions: int,
    x: ArrayLike,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: Padding,
    layout: str,
    *,
    divisor_override: float | None = None,
    derivatives: str | None = None,
    **options: Any,
) -> Floats:
    arguments.only(options, AverageOptions)
    if divisor_override is not None:
        divisor_override = arguments.positive("divisor_override", divisor_override)
    arguments.one_layout(layout, dimensions)
    x, is_batch = arguments.images("x", x, layout)
    problem = arguments.pooling_problem(
        spatial_size(x, layout),
        kernel_size,
        stride,
        padding,
        layout,
        divisor=divisor_override,
        **options,
    )
    y = rule.average_pooling(x, problem, derivatives)
    return y if is_batch else y[0]


# --- Power averages -------------------------------------------------------------------


def lp_pool2d(
    x: ArrayLike,
    norm_type: float,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
    *,
    dilation: int | Sequence[int] = 1,
    ceil_mode: bool = False,
    layout: str = "NCHW",
    engine: str = "auto",
    derivatives: str | None = None,
) -> Floats:
    r"""The p-norm of every window: two-dimensional power-average pooling.

    .. math::

        Y_{b,c,i,j} = \Big( \sum_{m,n} X_{b,\, c,\; s i + d m,\; s j + d n}^{\,p}
            \Big)^{1/p}
        \qquad
        \frac{\partial L}{\partial X} = X^{p-1} \sum_{i,j\,:\,(k,l) \in \text{window}}
            Y_{i,j}^{1-p} \, \frac{\partial L}{\partial Y_{i,j}}

    p = 1 is sum pooling, and the larger p, the nearer it comes to max pooling (of x ≥ 0).
    Where Y is zero its gradient is taken to be zero, as in PyTorch. As there, X is raised
    to the p-th power as it is: for an odd p, a sum may be negative, and its root NaN; and
    with ``ceil_mode`` the sum of a window that reaches beyond the image is scaled up to
    K_h·K_w elements.

    Args:
      x: as for :func:`jaxcnn.max_pool2d`.
      norm_type: p, a positive number.
      kernel_size, stride, padding, dilation, ceil_mode, layout, engine, derivatives: as
        for :func:`jaxcnn.max_pool2d`; padding is with zeros.

    Returns:
      Images ``(B, C, H_out, W_out)`` in x's layout and dtype, without B where x had none.

    Raises:
      TypeError, ValueError: as for :func:`jaxcnn.max_pool2d`, and when ``norm_type`` is
        not a positive, finite number.

    Derivatives: X^(p−1) and Y^(1−p) are kept.

    Source: ``torch.nn.functional.lp_pool2d``.

    >>> import jax.numpy as jnp
    >>> lp_pool2d(jnp.array([[[3.0, 0.0], [0.0, 4.0]]]), 2, kernel_size=2)
    Array([[[5.]]], dtype=float32)
    """
    return _lp_pool(
        dimensions=2,
        x=x,
        norm_type=norm_type,
        kernel_size=kernel_size,
        stride=stride,
        padding=padding,
        layout=layout,
        dilation=dilation,
        ceil_mode=ceil_mode,
        engine=engine,
        derivatives=derivatives,
    )


def lp_pool1d(
    x: ArrayLike,
    norm_type: float,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
    *,
    layout: str = "NCW",
    **options: Unpack[PoolingOptions],
) -> Floats:
    """The p-norm of every window: one-dimensional power-average pooling.

    Arguments, results and errors are those of :func:`lp_pool2d`, for sequences.

    >>> import jax.numpy as jnp
    >>> lp_pool1d(jnp.array([[3.0, 4.0, 5.0, 12.0]]), 2, kernel_size=2)
    Array([[ 5., 13.]], dtype=float32)
    """
    return _lp_pool(1, x, norm_type, kernel_size, stride, padding, layout, **options)


def lp_pool3d(
    x: ArrayLike,
    norm_type: float,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None = None,
    padding: Padding = 0,
    *,
    layout: str = "NCDHW",
    **options: Unpack[PoolingOptions],
) -> Floats:
    """The p-norm of every window: three-dimensional power-average pooling.

    Arguments, results and errors are those of :func:`lp_pool2d`, for volumes.

    >>> import jax.numpy as jnp
    >>> lp_pool3d(jnp.ones((1, 4, 2, 2)), 2, kernel_size=(4, 1, 1))
    Array([[[[2., 2.],
             [2., 2.]]]], dtype=float32)
    """
    return _lp_pool(3, x, norm_type, kernel_size, stride, padding, layout, **options)


def _lp_pool(
    dimensions: int,
    x: ArrayLike,
    norm_type: float,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] | None,
    padding: Padding,
    layout: str,
    *,
    derivatives: str | None = None,
    **options: Any,
) -> Floats:
    arguments.only(options, PoolingOptions)
    norm_type = arguments.positive("norm_type", norm_type)
    arguments.one_layout(layout, dimensions)
    x, is_batch = arguments.images("x", x, layout)
    problem = arguments.pooling_problem(
        spatial_size(x, layout), kernel_size, stride, padding, layout, **options
    )
    y = rule.power_pooling(x, norm_type, problem, derivatives)
    return y if is_batch else y[0]
