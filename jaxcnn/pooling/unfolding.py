"""Patches of images, and images of patches, as public functions: im2col and back."""

import math
from collections.abc import Sequence

from jax.typing import ArrayLike

from jaxcnn import arguments
from jaxcnn.arguments import Padding
from jaxcnn.layout import Floats, channels_last, merge_axes, spatial_size, split_axis
from jaxcnn.pooling import rule


def unfold(
    x: ArrayLike,
    kernel_size: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    layout: str = "NCHW",
    engine: str = "auto",
    derivatives: str | None = None,
) -> Floats:
    r"""Lay out what a window sees at each of its positions: "im2col".

    .. math::

        P_{b,\; (c, m, n),\; (i, j)} = X_{b,\, c,\; s i + d m - p,\; s j + d n - p}

    With the patches beside each other a convolution is one product of two matrices:
    ``w.reshape(C_out, -1) @ unfold(x, kernel_size)``. The gradient of ``unfold`` is
    :func:`fold`, its transpose.

    Args:
      x: images ``(B, C, H, W)``, or one image ``(C, H, W)``; with ``layout="NHWC"``,
        channels last. One of float32, float64, bfloat16, float16.
      kernel_size: (K_h, K_w), or one int for all.
      stride, padding, dilation: those of the window, as for :func:`jaxcnn.conv2d`.
      layout: of one, two or three spatial dimensions: ``"NCW"``, ``"NWC"``, ``"NCHW"``,
        ``"NHWC"``, ``"NCDHW"`` or ``"NDHWC"``.
      engine: how it is computed: ``"auto"`` lets the plan choose.
      derivatives: ``"custom"`` or ``"autodiff"``, as for :func:`jaxcnn.conv2d`.

    Returns:
      Patches ``(B, C·K_h·K_w, H_out·W_out)``; with channels last
      ``(B, H_out·W_out, K_h·K_w·C)``, so that ``unfold(x, …) @ w.reshape(-1, C_out)`` is a
      convolution with HWIO weights. Without B where x had none.

    Raises:
      TypeError: when x is not of a supported float dtype.
      ValueError: when x's rank or the window does not fit, or an option is unknown.

    Derivatives: linear; nothing is kept for the backward pass.

    Cost: K_h · K_w times the memory of x, for a stride of one.

    Source: ``torch.nn.functional.unfold``; Chellapilla, Puri and Simard, "High performance
    convolutional neural networks for document processing" (2006).

    >>> import jax.numpy as jnp
    >>> unfold(jnp.arange(6.0).reshape(1, 2, 3), 2)
    Array([[0., 1.],
           [1., 2.],
           [3., 4.],
           [4., 5.]], dtype=float32)
    """
    arguments.one_of("layout", layout, arguments.EVERY_LAYOUT)
    x, is_batch = arguments.images("x", x, layout)
    problem = arguments.convolution_problem(
        spatial_size(x, layout),
        kernel_size,
        stride,
        padding,
        dilation,
        layout=layout,
        engine=engine,
    )
    # The taps beside the channels, as in "NGCHW".
    p = rule.unfolding(x, problem, derivatives)
    if channels_last(layout):
        p = merge_axes(merge_axes(p, p.ndim - 2, 2), 1, p.ndim - 3)
    else:
        p = merge_axes(merge_axes(p.swapaxes(1, 2), 1, 2), 2, p.ndim - 3)
    return p if is_batch else p[0]


def fold(
    p: ArrayLike,
    output_size: int | Sequence[int],
    kernel_size: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = 0,
    dilation: int | Sequence[int] = 1,
    layout: str = "NCHW",
    engine: str = "auto",
    derivatives: str | None = None,
) -> Floats:
    r"""Add up patches to images, each where it was: the transpose of :func:`unfold`.

    .. math::

        X_{b,c,k,l} = \sum_{m,n} P_{b,\; (c, m, n),\; (i, j)},
        \qquad i = \frac{k + p - d m}{s},\; j = \frac{l + p - d n}{s}

    where only whole-numbered i and j count. It is not the inverse: where patches
    overlap, pixels are added.

    Args:
      p: patches ``(B, C·K_h·K_w, H_out·W_out)``, as :func:`unfold` returns them; with
        channels last ``(B, H_out·W_out, K_h·K_w·C)``. Without B for one image.
      output_size: (H, W), the size of the images, or one int for all dimensions.
      kernel_size, stride, padding, dilation, layout, engine, derivatives: as for
        :func:`unfold`.

    Returns:
      Images ``(B, C, H, W)`` in the same layout and dtype, without B where p had none.

    Raises:
      TypeError: when p is not of a supported float dtype.
      ValueError: when p's shape is not one of the window's patches, or an option is
        unknown.

    Derivatives: linear; nothing is kept for the backward pass. Half precisions are summed
    in float32 and rounded once.

    Source: ``torch.nn.functional.fold``.

    >>> import jax.numpy as jnp
    >>> fold(jnp.ones((4, 2)), (2, 3), 2)
    Array([[[1., 2., 1.],
            [1., 2., 1.]]], dtype=float32)
    """
    arguments.one_of("layout", layout, arguments.EVERY_LAYOUT)
    size = arguments.size("output_size", output_size, len(layout) - 2, at_least=0)
    problem = arguments.convolution_problem(
        size,
        kernel_size,
        stride,
        padding,
        dilation,
        layout=layout,
        engine=engine,
    )
    p = arguments.float_array("p", p)
    if p.ndim not in (2, 3):
        raise ValueError(f"p has shape {p.shape}; it must be as unfold returns it")
    is_batch = p.ndim == 3
    p = p if is_batch else p[None]
    out, taps = problem.window.output_size(size), problem.window.number_of_taps
    patches, positions = (2, 1) if channels_last(layout) else (1, 2)
    channels = p.shape[patches] // taps
    wanted = list(p.shape)
    wanted[patches], wanted[positions] = channels * taps, math.prod(out)
    arguments.shape_is(
        "p",
        p,
        wanted,
        f"patches of {taps} taps at {math.prod(out)} positions, a window over {size}",
    )
    if channels_last(layout):
        p = split_axis(split_axis(p, 2, taps, channels), 1, *out)
    else:
        p = split_axis(split_axis(p, 2, *out), 1, channels, taps).swapaxes(1, 2)
    x = rule.folding(p, problem, derivatives)
    return x if is_batch else x[0]
