"""Convolution in one, two and three dimensions, as public functions.

Each checks its arguments, describes the problem statically and hands its arrays to
:mod:`jaxcnn.convolution.rule`, where JAX is told how to differentiate and to map them.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Unpack

from jax.lax import PrecisionLike
from jax.typing import ArrayLike, DTypeLike

from jaxcnn import arguments
from jaxcnn.arguments import ConvolvingOptions, Padding
from jaxcnn.convolution import rule
from jaxcnn.layout import Floats, spatial_size, weight_layout
from jaxcnn.rounding import widened
from jaxcnn.window import EXTENSIONS, extended


class ConvolutionOptions(ConvolvingOptions, total=False):
    """The options of :func:`conv2d` that do not depend on the number of dimensions."""

    padding_mode: str
    groups: int
    preferred_element_type: DTypeLike | None


def conv2d(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    padding_mode: str = "zeros",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    layout: str = "NCHW",
    precision: PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    engine: str = "auto",
    derivatives: str | None = None,
) -> Floats:
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
      padding_mode: what stands in the padding: ``"zeros"``, ``"reflect"`` (the image
        mirrored at its first and last pixels), ``"replicate"`` (the nearest pixel) or
        ``"circular"`` (the pixels of the other end).
      dilation: d, the distance between kernel elements: an int, or one for each
        dimension.
      groups: G: the g-th run of C_out/G outputs sees the g-th run of C_in/G inputs.
      layout: ``"NCHW"`` or ``"NHWC"``.
      precision: of the products, as for :func:`jax.lax.dot_general`.
      preferred_element_type: a float dtype no narrower than x's, for the result.
      engine: how the sums are computed: ``"auto"`` lets the plan choose.
      derivatives: ``"custom"`` for the hand-written rule; ``"autodiff"`` drops it, so
        that JAX differentiates the loops itself. By default ``"custom"``, or what ``with``
        :func:`jaxcnn.derivatives` says.

    Returns:
      Images ``(B, C_out, H_out, W_out)`` in the same layout and dtype (or the
      preferred one), without B where x had none.

    Raises:
      TypeError: when an array is not of a supported float dtype, or dtypes differ.
      ValueError: when ranks, channels, groups or the window do not fit each other, or an
        option is unknown.

    Derivatives: x and w are kept for the backward pass, which computes
    :func:`conv2d_bias_gradient`, :func:`conv2d_weight_gradient` and
    :func:`conv2d_input_gradient`; each of them has rules, too, so every order of
    derivative is hand-written. A tangent is a convolution of the tangents of x and of w,
    plus that of b. ``vmap`` over images, weights or both folds the mapped
    axis into the batch, the channels or the groups.

    Cost: B · C_out · H_out · W_out · C_in/G · K_h · K_w multiply-adds; each of the two
    large gradients costs the same.

    Source: docs/equations.md, "Convolution".

    >>> import jax.numpy as jnp
    >>> image = jnp.arange(9.0).reshape(1, 3, 3)
    >>> edges = jnp.array([[[[-1.0, 1.0]]]])
    >>> conv2d(image, edges, jnp.array([0.5]))
    Array([[[1.5, 1.5],
            [1.5, 1.5],
            [1.5, 1.5]]], dtype=float32)
    """
    return _convolution(
        dimensions=2,
        x=x,
        w=w,
        b=b,
        layout=layout,
        stride=stride,
        padding=padding,
        padding_mode=padding_mode,
        dilation=dilation,
        groups=groups,
        precision=precision,
        preferred_element_type=preferred_element_type,
        engine=engine,
        derivatives=derivatives,
    )


def conv1d(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    layout: str = "NCW",
    **options: Unpack[ConvolutionOptions],
) -> Floats:
    """Slide a kernel over sequences: one-dimensional convolution.

    Arguments, results and errors are those of :func:`conv2d`, for x ``(B, C_in, W)`` or
    ``(C_in, W)`` and w ``(C_out, C_in/groups, K)``; with ``layout="NWC"``,
    ``(B, W, C_in)`` or ``(W, C_in)`` and ``(K, C_in/groups, C_out)``. One more padding is
    known here: ``"CAUSAL"``, d·(K − 1) zeros before the sequence and none after it, so that
    no output sees what comes later.

    >>> import jax.numpy as jnp
    >>> sequence, ones = jnp.array([[1.0, 2.0, 3.0, 4.0]]), jnp.ones((1, 1, 3))
    >>> conv1d(sequence, ones, padding="CAUSAL")
    Array([[1., 3., 6., 9.]], dtype=float32)
    """
    return _convolution(1, x, w, b, layout, **options)


def conv3d(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    layout: str = "NCDHW",
    **options: Unpack[ConvolutionOptions],
) -> Floats:
    """Slide a kernel over volumes: three-dimensional convolution.

    Arguments, results and errors are those of :func:`conv2d`, for x ``(B, C_in, D, H, W)``
    or ``(C_in, D, H, W)`` and w ``(C_out, C_in/groups, K_d, K_h, K_w)``; with
    ``layout="NDHWC"``, ``(B, D, H, W, C_in)`` and ``(K_d, K_h, K_w, C_in/groups, C_out)``.

    >>> import jax.numpy as jnp
    >>> conv3d(jnp.ones((1, 2, 3, 3)), jnp.ones((1, 1, 2, 2, 2)))
    Array([[[[8., 8.],
             [8., 8.]]]], dtype=float32)
    """
    return _convolution(3, x, w, b, layout, **options)


def _convolution(
    dimensions: int,
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None,
    layout: str,
    *,
    padding_mode: str = "zeros",
    preferred_element_type: DTypeLike | None = None,
    derivatives: str | None = None,
    **options: Any,
) -> Floats:
    arguments.only(options, ConvolutionOptions)
    arguments.one_layout(layout, dimensions)
    arguments.one_of("padding_mode", padding_mode, ("zeros", *EXTENSIONS))
    x, is_batch = arguments.images("x", x, layout)
    w = arguments.weights("w", w, layout)
    arguments.same_dtype("w", w, "x", x)
    problem = arguments.convolution_problem(
        spatial_size(x, layout),
        spatial_size(w, weight_layout(layout)),
        layout=layout,
        **options,
    )
    dtype = arguments.result_dtype(preferred_element_type, x)
    c_out = arguments.output_channels(w, problem)
    arguments.groups_divide(problem.groups, "x", x.shape[layout.index("C")])
    arguments.input_channels_fit(x, w, problem)
    b = arguments.bias(b, x, c_out, "output channel of w")
    if padding_mode != "zeros":
        arguments.padding_mode_fits(padding_mode, problem)
        # The gradients of a pixel and of its copies are added: as wide as sums are.
        x, window = extended(widened(x), problem.window, layout, padding_mode)
        w, b = widened(w), None if b is None else widened(b)
        size = spatial_size(x, layout)
        problem = replace(problem, window=window, input_size=size)
    y = rule.convolution(x, w, problem, dtype, derivatives, b)
    return y if is_batch else y[0]
