"""Convolution and its three gradients, as public functions.

Each checks its arguments, describes the problem statically and hands its arrays to
:mod:`jaxcnn.convolution_rule`, where JAX is told how to differentiate and to map them.
"""

from collections.abc import Sequence

from jax.lax import PrecisionLike
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from jaxcnn import arguments, convolution_rule, rules
from jaxcnn.arguments import Padding
from jaxcnn.layout import spatial_size, weight_layout, with_spatial
from jaxcnn.plan import Problem


def conv2d(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    layout: str = "NCHW",
    precision: PrecisionLike = None,
    engine: str = "auto",
    derivatives: str | None = None,
) -> Float[Array, "..."]:
    r"""Slide a kernel over images: two-dimensional convolution with a hand-written VJP.

    .. math::

        Y_{b, c_{out}, i, j} = b_{c_{out}} + \sum_{c_{in}} \sum_{m=0}^{K_h-1}
            \sum_{n=0}^{K_w-1} W_{c_{out}, c_{in}, m, n} \;
            X_{b, c_{in},\; s i + d m - p,\; s j + d n - p}

    with :math:`H_{out} = \lfloor (H + 2p - d (K_h - 1) - 1) / s \rfloor + 1`, and zeros
    outside the image. As everywhere in machine learning this is a cross-correlation:
    the kernel is not flipped.

    Args:
      x: images ``(B, C_in, H, W)``, or one image ``(C_in, H, W)``; with
        ``layout="NHWC"``, ``(B, H, W, C_in)`` or ``(H, W, C_in)``. One of float32,
        float64, bfloat16, float16; half precisions are summed in float32 and rounded
        once, gradients included.
      w: weights of x's dtype, ``(C_out, C_in/groups, K_h, K_w)``; with
        ``layout="NHWC"``, ``(K_h, K_w, C_in/groups, C_out)``.
      b: bias of x's dtype, ``(C_out,)``, or None for none.
      stride: s, the step of the window: an int, or one for each dimension.
      padding: p, zeros around the image: an int, one for each dimension, a
        (low, high) pair for each dimension, or ``"VALID"`` (none), ``"SAME"`` (so much
        that H_out = ⌈H/s⌉, an odd zero on the high side) or ``"SAME_LOWER"`` (likewise,
        on the low side). Negative padding crops.
      dilation: d, the distance between kernel elements: an int, or one for each
        dimension.
      groups: G: the g-th run of C_out/G outputs sees the g-th run of C_in/G inputs.
      layout: ``"NCHW"`` or ``"NHWC"``.
      precision: of the products, as for :func:`jax.lax.dot_general`.
      engine: how the sums are computed: ``"auto"`` lets the plan choose.
      derivatives: ``"custom"`` for the hand-written rule; ``"autodiff"`` drops it, so
        that JAX differentiates the loops itself. By default
        ``"custom"``, or what ``with`` :func:`jaxcnn.derivatives` says.

    Returns:
      Images ``(B, C_out, H_out, W_out)`` in the same layout and dtype, without B where x
      had none.

    Raises:
      TypeError: when an array is not of a supported float dtype, or dtypes differ.
      ValueError: when ranks, channels, groups or the window do not fit each other, or an
        option is unknown.

    Derivatives: the rule keeps x and w for the backward pass, which computes
    :func:`conv2d_bias_gradient`, :func:`conv2d_weight_gradient` and
    :func:`conv2d_input_gradient`; each of them has a rule too, so every order of
    gradient is hand-written. Forward mode (``jax.jvp``, ``jax.hessian``) needs
    ``derivatives="autodiff"``. ``vmap`` over images, weights or both folds the mapped
    axis into the batch, the channels or the groups.

    Cost: B · C_out · H_out · W_out · C_in/G · K_h · K_w multiply-adds; each of the two
    large gradients costs the same.

    Source: the document, "Convolution Operation".

    >>> import jax.numpy as jnp
    >>> image = jnp.arange(9.0).reshape(1, 3, 3)
    >>> edges = jnp.array([[[[-1.0, 1.0]]]])
    >>> conv2d(image, edges, jnp.array([0.5]))
    Array([[[1.5, 1.5],
            [1.5, 1.5],
            [1.5, 1.5]]], dtype=float32)
    """
    arguments.one_layout(layout)
    x, is_batch = arguments.images("x", x, layout)
    w = arguments.weights("w", w, layout)
    arguments.same_dtype("w", w, "x", x)
    problem = arguments.convolution_problem(
        spatial_size(x, layout),
        spatial_size(w, weight_layout(layout)),
        stride,
        padding,
        dilation,
        groups,
        layout,
        precision,
        engine,
    )
    c_out = _output_channels(w, problem)
    arguments.groups_divide(problem, "x", x.shape[layout.index("C")])
    _check_input_channels(x, w, problem)
    if b is not None:
        b = arguments.float_array("b", b)
        arguments.same_dtype("b", b, "x", x)
        arguments.shape_is("b", b, (c_out,), "one entry for each output channel of w")
    rule = rules.one_rule(
        derivatives, convolution_rule.convolution, convolution_rule.convolution_autodiff
    )
    y = rule(x, w, b, problem)
    return y if is_batch else y[0]


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

    Source: the document, "Bias Gradient".

    >>> import jax.numpy as jnp
    >>> conv2d_bias_gradient(jnp.ones((2, 3, 4, 5)))
    Array([40., 40., 40.], dtype=float32)
    """
    arguments.one_layout(layout)
    dy, _ = arguments.images("dy", dy, layout)
    rule = rules.one_rule(
        derivatives, convolution_rule.bias_gradient, convolution_rule.bias_gradient_autodiff
    )
    return rule(dy, dy.shape, layout)


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
) -> Float[Array, "..."]:
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
      TypeError, ValueError: as for :func:`conv2d`, and when dy has not the shape of the
        convolution's output.

    Derivatives: linear in x and in dy; its gradients are
    :func:`conv2d_input_gradient` and :func:`conv2d`.

    Cost: as many multiply-adds as the convolution.

    Source: the document, "Weight Gradient".

    >>> import jax.numpy as jnp
    >>> x = jnp.arange(9.0).reshape(1, 3, 3)
    >>> conv2d_weight_gradient(x, jnp.ones((1, 2, 2)), kernel_size=2)
    Array([[[[ 8., 12.],
             [20., 24.]]]], dtype=float32)
    """
    arguments.one_layout(layout)
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
        stride,
        padding,
        dilation,
        groups,
        layout,
        precision,
        engine,
    )
    channels = layout.index("C")
    arguments.groups_divide(problem, "x", x.shape[channels])
    arguments.groups_divide(problem, "dy", dy.shape[channels])
    _check_output_shape(dy, x.shape[layout.index("N")], dy.shape[channels], problem)
    rule = rules.one_rule(
        derivatives,
        convolution_rule.weight_gradient,
        convolution_rule.weight_gradient_autodiff,
    )
    return rule(x, dy, problem)


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
) -> Float[Array, "..."]:
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
      TypeError, ValueError: as for :func:`conv2d`, and when dy has not the shape of the
        convolution's output.

    Derivatives: linear in dy and in w; its gradients are :func:`conv2d` and
    :func:`conv2d_weight_gradient`.

    Cost: as many multiply-adds as the convolution; none is spent on the zeros that a
    stride would put between the entries of dy.

    Source: the document, "Input Gradient".

    >>> import jax.numpy as jnp
    >>> w = jnp.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    >>> conv2d_input_gradient(jnp.ones((1, 1, 2)), w, (2, 5), stride=2)
    Array([[[1., 2., 1., 2., 0.],
            [3., 4., 3., 4., 0.]]], dtype=float32)
    """
    arguments.one_layout(layout)
    dy, is_batch = arguments.images("dy", dy, layout)
    w = arguments.weights("w", w, layout)
    arguments.same_dtype("w", w, "dy", dy)
    problem = arguments.convolution_problem(
        arguments.one_for_each("input_size", input_size, len(layout) - 2),
        spatial_size(w, weight_layout(layout)),
        stride,
        padding,
        dilation,
        groups,
        layout,
        precision,
        engine,
    )
    c_out = _output_channels(w, problem)
    _check_output_shape(dy, dy.shape[layout.index("N")], c_out, problem)
    rule = rules.one_rule(
        derivatives,
        convolution_rule.input_gradient,
        convolution_rule.input_gradient_autodiff,
    )
    dx = rule(dy, w, problem)
    return dx if is_batch else dx[0]


def _output_channels(w, problem: Problem) -> int:
    c_out = w.shape[weight_layout(problem.layout).index("O")]
    arguments.groups_divide(problem, "the output of w", c_out)
    return c_out


def _check_input_channels(x, w, problem: Problem) -> None:
    c_in = x.shape[problem.layout.index("C")]
    per_group = weight_layout(problem.layout).index("I")
    wanted = list(w.shape)
    wanted[per_group] = c_in // problem.groups
    arguments.shape_is(
        "w",
        w,
        wanted,
        f"because x has {c_in} channels in {problem.groups} group(s) "
        f"(w is laid out as {weight_layout(problem.layout)})",
    )


def _check_output_shape(dy, batch: int, c_out: int, problem: Problem) -> None:
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
