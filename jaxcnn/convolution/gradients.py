"""The three gradients of a convolution, as public functions.

Each checks its arguments, describes the problem statically and hands its arrays to
:mod:`jaxcnn.convolution.rule`, where JAX is told how to differentiate and to map them.
"""

from collections.abc import Sequence
from typing import Any, Unpack

from jax.lax import PrecisionLike
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxcnn import arguments
from jaxcnn.arguments import ConvolvingOptions, Padding
from jaxcnn.convolution import rule
from jaxcnn.layout import Floats, Length, spatial_size, weight_layout, with_spatial
from jaxcnn.problem import Problem


class GradientOptions(ConvolvingOptions, total=False):
    """The options of the gradients that do not depend on the number of dimensions."""

    groups: int


def conv2d_bias_gradient(
    dy: ArrayLike, *, layout: str = "NCHW", derivatives: str | None = None
) -> Float[Array, " C_out"]:
    r"""The gradient of a loss with respect to the bias of :func:`conv2d`.

    .. math::

        \frac{\partial L}{\partial b_{c_{out}}} = \sum_b \sum_{i,j}
            \frac{\partial L}{\partial Y_{b, c_{out}, i, j}}

    The bias is added at every position, so its gradient is the sum over all of them.

    Args:
      dy: the gradient with respect to the output, ``(B, C_out, H_out, W_out)`` or
        ``(C_out, H_out, W_out)``; with ``layout="NHWC"``, channels last.
      layout: ``"NCHW"`` or ``"NHWC"``.
      derivatives: ``"custom"`` or ``"autodiff"``, as for :func:`conv2d`.

    Returns:
      db: ``(C_out,)``, of dy's dtype.

    Raises:
      TypeError, ValueError: when dy's dtype or rank, or an option, does not fit.

    Cost: B · C_out · H_out · W_out additions.

    Source: docs/equations.md, "Bias gradient".

    >>> import jax.numpy as jnp
    >>> conv2d_bias_gradient(jnp.ones((2, 3, 4, 5)))
    Array([40., 40., 40.], dtype=float32)
    """
    return _bias_gradient(2, dy, layout, derivatives)


def conv2d_weight_gradient(
    x: ArrayLike,
    dy: ArrayLike,
    kernel_size: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    layout: str = "NCHW",
    precision: PrecisionLike = None,
    engine: str = "auto",
    derivatives: str | None = None,
) -> Floats:
    r"""The gradient of a loss with respect to the weights of :func:`conv2d`.

    .. math::

        \frac{\partial L}{\partial W_{c_{out}, c_{in}, m, n}} = \sum_b \sum_{i,j}
            \frac{\partial L}{\partial Y_{b, c_{out}, i, j}} \;
            X_{b, c_{in},\; s i + d m - p,\; s j + d n - p}

    It is the correlation of the input with the gradient that arrives.

    Args:
      x: the input of the convolution, ``(B, C_in, H, W)`` or ``(C_in, H, W)``; with
        ``layout="NHWC"``, channels last.
      dy: the gradient with respect to its output, ``(B, C_out, H_out, W_out)`` or
        ``(C_out, H_out, W_out)``, of x's dtype and layout.
      kernel_size: (K_h, K_w), or one int for both.
      stride, padding, dilation, groups, layout, precision, engine, derivatives: those
        of the convolution, as for :func:`conv2d`.

    Returns:
      dw: ``(C_out, C_in/groups, K_h, K_w)``; with ``layout="NHWC"``,
      ``(K_h, K_w, C_in/groups, C_out)``. For unbatched x and dy, too.

    Raises:
      TypeError, ValueError: as for :func:`conv2d`, and when dy does not have the shape of
        the convolution's output.

    Derivatives: linear in x and in dy; its gradients are
    :func:`conv2d_input_gradient` and :func:`conv2d`.

    Cost: as many multiply-adds as the convolution.

    Source: docs/equations.md, "Weight gradient".

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(9.0).reshape(1, 3, 3)
    >>> conv2d_weight_gradient(x, jnp.ones((1, 2, 2)), kernel_size=2)
    Array([[[[ 8., 12.],
             [20., 24.]]]], dtype=float32)
    """
    return _weight_gradient(
        dimensions=2,
        x=x,
        dy=dy,
        kernel_size=kernel_size,
        layout=layout,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        precision=precision,
        engine=engine,
        derivatives=derivatives,
    )


def conv2d_input_gradient(
    dy: ArrayLike,
    w: ArrayLike,
    input_size: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    layout: str = "NCHW",
    precision: PrecisionLike = None,
    engine: str = "auto",
    derivatives: str | None = None,
) -> Floats:
    r"""The gradient of a loss with respect to the input of :func:`conv2d`.

    .. math::

        \frac{\partial L}{\partial X_{b, c_{in}, k, l}} = \sum_{c_{out}} \sum_{m,n}
            \frac{\partial L}{\partial Y_{b, c_{out}, i, j}} \;
            W_{c_{out}, c_{in}, m, n},
        \qquad i = \frac{k + p - d m}{s},\; j = \frac{l + p - d n}{s}

    where only whole-numbered i and j count: every input pixel collects from the outputs
    that it fed. It is the "full" convolution of dy with the kernel rotated by 180°.

    Args:
      dy: the gradient with respect to the output of the convolution,
        ``(B, C_out, H_out, W_out)`` or ``(C_out, H_out, W_out)``; with
        ``layout="NHWC"``, channels last.
      w: its weights, ``(C_out, C_in/groups, K_h, K_w)``; with ``layout="NHWC"``,
        ``(K_h, K_w, C_in/groups, C_out)``. Of dy's dtype.
      input_size: (H, W), which dy does not tell when the stride is larger than 1; or
        one int for both.
      stride, padding, dilation, groups, layout, precision, engine, derivatives: those
        of the convolution, as for :func:`conv2d`.

    Returns:
      dx: ``(B, C_in, H, W)`` in dy's layout and dtype, without B where dy had none.

    Raises:
      TypeError, ValueError: as for :func:`conv2d`, and when dy does not have the shape of
        the convolution's output.

    Derivatives: linear in dy and in w; its gradients are :func:`conv2d` and
    :func:`conv2d_weight_gradient`.

    Cost: as many multiply-adds as the convolution; none is spent on the zeros that a
    stride would put between the entries of dy.

    Source: docs/equations.md, "Input gradient".

    >>> import jax.numpy as jnp
    >>> w = jnp.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> conv2d_input_gradient(jnp.ones((1, 1, 2)), w, (2, 5), stride=2)
    Array([[[1., 2., 1., 2., 0.],
            [3., 4., 3., 4., 0.]]], dtype=float32)
    """
    return _input_gradient(
        dimensions=2,
        dy=dy,
        w=w,
        input_size=input_size,
        layout=layout,
        stride=stride,
        padding=padding,
        dilation=dilation,
        groups=groups,
        precision=precision,
        engine=engine,
        derivatives=derivatives,
    )


def conv1d_bias_gradient(
    dy: ArrayLike, *, layout: str = "NCW", derivatives: str | None = None
) -> Float[Array, " C_out"]:
    """The gradient of a loss with respect to the bias of :func:`jaxcnn.conv1d`.

    As :func:`conv2d_bias_gradient`, for sequences: dy of layout ``"NCW"`` or ``"NWC"``.
    """
    return _bias_gradient(1, dy, layout, derivatives)


def conv1d_weight_gradient(
    x: ArrayLike,
    dy: ArrayLike,
    kernel_size: int | Sequence[int],
    *,
    layout: str = "NCW",
    **options: Unpack[GradientOptions],
) -> Floats:
    """The gradient of a loss with respect to the weights of :func:`jaxcnn.conv1d`.

    As :func:`conv2d_weight_gradient`, for sequences: of layout ``"NCW"`` or ``"NWC"``.
    """
    return _weight_gradient(1, x, dy, kernel_size, layout, **options)


def conv1d_input_gradient(
    dy: ArrayLike,
    w: ArrayLike,
    input_size: int | Sequence[int],
    *,
    layout: str = "NCW",
    **options: Unpack[GradientOptions],
) -> Floats:
    """The gradient of a loss with respect to the input of :func:`jaxcnn.conv1d`.

    As :func:`conv2d_input_gradient`, for sequences: of layout ``"NCW"`` or ``"NWC"``.
    """
    return _input_gradient(1, dy, w, input_size, layout, **options)


def conv3d_bias_gradient(
    dy: ArrayLike, *, layout: str = "NCDHW", derivatives: str | None = None
) -> Float[Array, " C_out"]:
    """The gradient of a loss with respect to the bias of :func:`jaxcnn.conv3d`.

    As :func:`conv2d_bias_gradient`, for volumes: dy of layout ``"NCDHW"`` or ``"NDHWC"``.
    """
    return _bias_gradient(3, dy, layout, derivatives)


def conv3d_weight_gradient(
    x: ArrayLike,
    dy: ArrayLike,
    kernel_size: int | Sequence[int],
    *,
    layout: str = "NCDHW",
    **options: Unpack[GradientOptions],
) -> Floats:
    """The gradient of a loss with respect to the weights of :func:`jaxcnn.conv3d`.

    As :func:`conv2d_weight_gradient`, for volumes: of layout ``"NCDHW"`` or ``"NDHWC"``.
    """
    return _weight_gradient(3, x, dy, kernel_size, layout, **options)


def conv3d_input_gradient(
    dy: ArrayLike,
    w: ArrayLike,
    input_size: int | Sequence[int],
    *,
    layout: str = "NCDHW",
    **options: Unpack[GradientOptions],
) -> Floats:
    """The gradient of a loss with respect to the input of :func:`jaxcnn.conv3d`.

    As :func:`conv2d_input_gradient`, for volumes: of layout ``"NCDHW"`` or ``"NDHWC"``.
    """
    return _input_gradient(3, dy, w, input_size, layout, **options)


# --- For any number of dimensions -----------------------------------------------------


def _bias_gradient(
    dimensions: int, dy: ArrayLike, layout: str, derivatives: str | None
) -> Float[Array, " C_out"]:
    arguments.one_layout(layout, dimensions)
    dy, _ = arguments.images("dy", dy, layout)
    return rule.bias_gradient(dy, layout, derivatives)


def _weight_gradient(
    dimensions: int,
    x: ArrayLike,
    dy: ArrayLike,
    kernel_size: int | Sequence[int],
    layout: str,
    *,
    derivatives: str | None = None,
    **options: Any,
) -> Floats:
    arguments.only(options, GradientOptions)
    arguments.one_layout(layout, dimensions)
    x, is_batch = arguments.images("x", x, layout)
    dy, dy_is_batch = arguments.images("dy", dy, layout)
    arguments.same_dtype("dy", dy, "x", x)
    if is_batch != dy_is_batch:
        raise ValueError(
            f"dy has {dy.ndim - (not dy_is_batch)} dimensions, but x has "
            f"{x.ndim - (not is_batch)}: give both with a batch axis, or both without"
        )
    problem = arguments.convolution_problem(
        spatial_size(x, layout),
        kernel_size,
        layout=layout,
        **options,
    )
    channels = layout.index("C")
    arguments.groups_divide(problem.groups, "x", x.shape[channels])
    arguments.groups_divide(problem.groups, "dy", dy.shape[channels])
    _check_output_shape(dy, x.shape[layout.index("N")], dy.shape[channels], problem)
    return rule.weight_gradient(x, dy, problem, None, derivatives)


def _input_gradient(
    dimensions: int,
    dy: ArrayLike,
    w: ArrayLike,
    input_size: int | Sequence[int],
    layout: str,
    *,
    derivatives: str | None = None,
    **options: Any,
) -> Floats:
    arguments.only(options, GradientOptions)
    arguments.one_layout(layout, dimensions)
    dy, is_batch = arguments.images("dy", dy, layout)
    w = arguments.weights("w", w, layout)
    arguments.same_dtype("w", w, "dy", dy)
    problem = arguments.convolution_problem(
        arguments.size("input_size", input_size, dimensions, at_least=0),
        spatial_size(w, weight_layout(layout)),
        layout=layout,
        **options,
    )
    c_out = arguments.output_channels(w, problem)
    _check_output_shape(dy, dy.shape[layout.index("N")], c_out, problem)
    dx = rule.input_gradient(dy, w, problem, None, derivatives)
    return dx if is_batch else dx[0]


def _check_output_shape(dy: Floats, batch: Length, c_out: int, problem: Problem) -> None:
    wanted = [0] * dy.ndim
    wanted[problem.layout.index("N")] = batch
    wanted[problem.layout.index("C")] = c_out
    output_size = problem.window.output_size(problem.input_size)
    arguments.shape_is(
        "dy",
        dy,
        with_spatial(wanted, output_size, problem.layout),
        f"the {problem.layout} shape of the convolution's output",
    )
