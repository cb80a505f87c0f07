"""Transposed convolution, as public functions.

It is the input gradient of a convolution, as a forward operation: "deconvolution", which
makes images larger by its stride. Each function here checks its arguments, describes the
convolution that it is the transpose of, and hands its arrays to
:mod:`jaxcnn.convolution.rule`.
"""

from collections.abc import Sequence
from typing import Any, Unpack

from jax.lax import PrecisionLike
from jax.typing import ArrayLike, DTypeLike

from jaxcnn import arguments
from jaxcnn.arguments import ConvolvingOptions, Padding
from jaxcnn.convolution import rule
from jaxcnn.layout import Floats, spatial_size, weight_layout
from jaxcnn.problem import Problem


class TransposedOptions(ConvolvingOptions, total=False):
    """The options of :func:`conv_transpose2d`, whatever the number of dimensions."""

    output_padding: int | Sequence[int]
    groups: int
    preferred_element_type: DTypeLike | None


def conv_transpose2d(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    layout: str = "NCHW",
    precision: PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    engine: str = "auto",
    derivatives: str | None = None,
) -> Floats:
    r"""Two-dimensional transposed convolution: what :func:`jaxcnn.conv2d` does, backwards.

    .. math::

        Y_{b, c_{out}, k, l} = b_{c_{out}} + \sum_{c_{in}} \sum_{m,n}
            X_{b, c_{in}, i, j} \; W_{c_{in}, c_{out}, m, n},
        \qquad i = \frac{k + p - d m}{s},\; j = \frac{l + p - d n}{s}

    where only whole-numbered i and j count: every pixel of x is multiplied by the kernel,
    and the results are added up, each s pixels from the last. It is the input gradient of
    the convolution that takes C_out channels of Y's size to C_in channels of x's size, with
    :math:`H_{out} = s (H - 1) + d (K_h - 1) + 1 - 2p` + ``output_padding``.

    Args:
      x: images ``(B, C_in, H, W)``, or one image ``(C_in, H, W)``; with
        ``layout="NHWC"``, channels last. One of float32, float64, bfloat16, float16; half
        precisions are summed in float32 and rounded once, gradients included.
      w: weights of x's dtype, ``(C_in, C_out/groups, K_h, K_w)``; with
        ``layout="NHWC"``, ``(K_h, K_w, C_out/groups, C_in)``: those of the convolution.
      b: bias of x's dtype, ``(C_out,)``, or None for none.
      stride: s, by how much larger the result is: an int, or one for each dimension.
      padding: p, by how much the result is cropped at each side: an int, one for each
        dimension, a (low, high) pair for each dimension, or the padding of the convolution
        by its name: ``"SAME"`` and ``"SAME_LOWER"`` make H_out = s·H, ``"VALID"`` makes
        H_out = s·H + max(d·(K_h − 1) + 1 − s, 0), as in :func:`jax.lax.conv_transpose`.
      output_padding: more rows and columns at the high side, fewer than s or d. Images of
        several sizes are convolved to the size of x; this tells which size is meant.
      dilation: d, the distance between kernel elements: an int, or one for each dimension.
      groups: G: the g-th run of C_out/G outputs sees the g-th run of C_in/G inputs.
      layout: ``"NCHW"`` or ``"NHWC"``.
      precision, preferred_element_type, engine, derivatives: as for
        :func:`jaxcnn.conv2d`.

    Returns:
      Images ``(B, C_out, H_out, W_out)`` in the same layout and dtype (or the preferred
      one), without B where x had none.

    Raises:
      TypeError: when an array is not of a supported float dtype, or dtypes differ.
      ValueError: when ranks, channels or groups do not fit each other, nothing is left of
        the result, or an option is unknown.

    Derivatives: x and w are kept; the gradients are a convolution, its weight
    gradient and its bias gradient.

    Cost: B · C_in · H · W · C_out/G · K_h · K_w multiply-adds; none is spent on the zeros
    that a stride would put between the pixels of x.

    Source: docs/equations.md, "Transposed convolution";
    ``torch.nn.functional.conv_transpose2d``.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.array([[[1.0, 2.0]]]), jnp.ones((1, 1, 2, 2))
    >>> conv_transpose2d(x, w, stride=2)
    Array([[[1., 1., 2., 2.],
            [1., 1., 2., 2.]]], dtype=float32)
    """
    return _transposed(
        dimensions=2,
        x=x,
        w=w,
        b=b,
        layout=layout,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
        precision=precision,
        preferred_element_type=preferred_element_type,
        engine=engine,
        derivatives=derivatives,
    )


def conv_transpose1d(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    layout: str = "NCW",
    **options: Unpack[TransposedOptions],
) -> Floats:
    """One-dimensional transposed convolution: what :func:`jaxcnn.conv1d` does, backwards.

    Arguments, results and errors are those of :func:`conv_transpose2d`, for x
    ``(B, C_in, W)`` or ``(C_in, W)`` and w ``(C_in, C_out/groups, K)``; with
    ``layout="NWC"``, ``(B, W, C_in)`` and ``(K, C_out/groups, C_in)``.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.array([[1.0, 2.0]]), jnp.array([[[1.0, 10.0, 100.0]]])
    >>> conv_transpose1d(x, w, stride=2)
    Array([[  1.,  10., 102.,  20., 200.]], dtype=float32)
    """
    return _transposed(1, x, w, b, layout, **options)


def conv_transpose3d(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    layout: str = "NCDHW",
    **options: Unpack[TransposedOptions],
) -> Floats:
    """Three-dimensional transposed convolution: :func:`jaxcnn.conv3d`, backwards.

    Arguments, results and errors are those of :func:`conv_transpose2d`, for x
    ``(B, C_in, D, H, W)`` or ``(C_in, D, H, W)`` and w
    ``(C_in, C_out/groups, K_d, K_h, K_w)``; with ``layout="NDHWC"``,
    ``(B, D, H, W, C_in)`` and ``(K_d, K_h, K_w, C_out/groups, C_in)``.

    >>> import jax.numpy as jnp
    >>> conv_transpose3d(jnp.ones((1, 1, 1, 1)), jnp.ones((1, 1, 1, 2, 3)))
    Array([[[[1., 1., 1.],
             [1., 1., 1.]]]], dtype=float32)
    """
    return _transposed(3, x, w, b, layout, **options)


def _transposed(
    dimensions: int,
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None,
    layout: str,
    *,
    groups: int = 1,
    precision: PrecisionLike = None,
    preferred_element_type: DTypeLike | None = None,
    engine: str = "auto",
    derivatives: str | None = None,
    **of_window: Any,
) -> Floats:
    arguments.only(of_window, TransposedOptions)
    arguments.one_layout(layout, dimensions)
    x, is_batch = arguments.images("x", x, layout)
    w = arguments.weights("w", w, layout)
    arguments.same_dtype("w", w, "x", x)
    letters = weight_layout(layout)
    window, size = arguments.transposed_window(
        spatial_size(x, layout), spatial_size(w, letters), **of_window
    )
    problem = Problem(
        window,
        size,
        layout,
        arguments.one_engine(engine),
        groups=arguments.number_of_groups(groups),
        precision=arguments.precision_of_products(precision),
    )
    dtype = arguments.result_dtype(preferred_element_type, x)
    c_in = x.shape[layout.index("C")]
    arguments.groups_divide(problem.groups, "x", c_in)
    wanted = list(w.shape)
    wanted[letters.index("O")] = c_in
    arguments.shape_is("w", w, wanted, f"because x has {c_in} channels")
    c_out = w.shape[letters.index("I")] * problem.groups
    b = arguments.bias(b, x, c_out, "output channel: groups times those of w")
    y = rule.input_gradient(x, w, problem, dtype, derivatives, b)
    return y if is_batch else y[0]
