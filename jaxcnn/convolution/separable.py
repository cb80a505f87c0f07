"""Depthwise and depthwise separable convolution, as public functions.

Nothing is computed here: a depthwise convolution has a group for every channel, and a
separable one is two convolutions.
"""

from collections.abc import Mapping
from typing import Any, Unpack

from jax.typing import ArrayLike

from jaxcnn import arguments
from jaxcnn.arguments import ConvolvingOptions
from jaxcnn.convolution.conv import conv1d, conv2d, conv3d
from jaxcnn.layout import Floats, weight_layout

_CONVOLUTIONS = {1: conv1d, 2: conv2d, 3: conv3d}


class DepthwiseOptions(ConvolvingOptions, total=False):
    """The options of :func:`depthwise_conv2d`, whatever the number of dimensions."""

    padding_mode: str


def depthwise_conv2d(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    layout: str = "NCHW",
    **options: Unpack[DepthwiseOptions],
) -> Floats:
    r"""Convolve every channel by itself.

    .. math::

        Y_{b, c M + q, i, j} = b_{c M + q} + \sum_{m,n} W_{c M + q, 0, m, n} \;
            X_{b, c,\; s i + d m - p,\; s j + d n - p}

    M, the channel multiplier, is how many outputs every channel makes.

    Args:
      x: images ``(B, C, H, W)``, or one image ``(C, H, W)``; with ``layout="NHWC"``,
        channels last.
      w: weights of x's dtype, ``(C·M, 1, K_h, K_w)``; with ``layout="NHWC"``,
        ``(K_h, K_w, 1, C·M)``.
      b: bias of x's dtype, ``(C·M,)``, or None for none.
      layout: ``"NCHW"`` or ``"NHWC"``.
      options: stride, padding, padding_mode, dilation, precision, engine, derivatives: as
        for :func:`jaxcnn.conv2d`, of which this is the case ``groups=C``.

    Returns:
      Images ``(B, C·M, H_out, W_out)`` in the same layout and dtype, without B where x had
      none.

    Raises:
      TypeError, ValueError: as for :func:`jaxcnn.conv2d`.

    Cost: B · C · M · H_out · W_out · K_h · K_w multiply-adds.

    >>> import jax.numpy as jnp
    >>> x = jnp.stack([jnp.ones((2, 2)), 2 * jnp.ones((2, 2))])
    >>> depthwise_conv2d(x, jnp.ones((2, 1, 2, 2)))
    Array([[[4.]],
    <BLANKLINE>
           [[8.]]], dtype=float32)
    """
    return _depthwise(2, x, w, b, layout, options)


def depthwise_conv1d(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    layout: str = "NCW",
    **options: Unpack[DepthwiseOptions],
) -> Floats:
    """Convolve every channel of sequences by itself: :func:`depthwise_conv2d` in 1-D.

    >>> import jax.numpy as jnp
    >>> depthwise_conv1d(jnp.array([[1.0, 2.0], [3.0, 4.0]]), jnp.ones((2, 1, 2)))
    Array([[3.],
           [7.]], dtype=float32)
    """
    return _depthwise(1, x, w, b, layout, options)


def depthwise_conv3d(
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None = None,
    *,
    layout: str = "NCDHW",
    **options: Unpack[DepthwiseOptions],
) -> Floats:
    """Convolve every channel of volumes by itself: :func:`depthwise_conv2d` in 3-D.

    >>> import jax.numpy as jnp
    >>> depthwise_conv3d(jnp.ones((2, 2, 2, 2)), jnp.ones((2, 1, 2, 2, 2))).ravel()
    Array([8., 8.], dtype=float32)
    """
    return _depthwise(3, x, w, b, layout, options)


def separable_conv2d(
    x: ArrayLike,
    w_depthwise: ArrayLike,
    w_pointwise: ArrayLike,
    b: ArrayLike | None = None,
    *,
    layout: str = "NCHW",
    **options: Unpack[DepthwiseOptions],
) -> Floats:
    r"""A depthwise convolution, and then one with a 1×1 kernel that mixes the channels.

    .. math::

        Y = b + W^{point} \ast (W^{depth} \ast_{depthwise} X)

    Args:
      x: images ``(B, C, H, W)``, or one image ``(C, H, W)``; with ``layout="NHWC"``,
        channels last.
      w_depthwise: ``(C·M, 1, K_h, K_w)``; with ``layout="NHWC"``, ``(K_h, K_w, 1, C·M)``.
      w_pointwise: ``(C_out, C·M, 1, 1)``; with ``layout="NHWC"``, ``(1, 1, C·M, C_out)``.
      b: bias, ``(C_out,)``, or None for none.
      layout, options: as for :func:`depthwise_conv2d`. The options are those of the
        depthwise convolution; precision, engine and derivatives are those of both.

    Returns:
      Images ``(B, C_out, H_out, W_out)`` in the same layout and dtype, without B where x
      had none.

    Raises:
      TypeError, ValueError: as for :func:`jaxcnn.conv2d`.

    Cost: B · H_out · W_out · C · M · (K_h · K_w + C_out) multiply-adds, where a convolution
    of as many outputs takes C_out · C · K_h · K_w for each position.

    Source: Howard et al., "MobileNets" (2017).

    >>> import jax.numpy as jnp
    >>> x = jnp.stack([jnp.ones((2, 2)), 2 * jnp.ones((2, 2))])
    >>> separable_conv2d(x, jnp.ones((2, 1, 2, 2)), jnp.ones((1, 2, 1, 1)))
    Array([[[12.]]], dtype=float32)
    """
    return _separable(2, x, w_depthwise, w_pointwise, b, layout, options)


def separable_conv1d(
    x: ArrayLike,
    w_depthwise: ArrayLike,
    w_pointwise: ArrayLike,
    b: ArrayLike | None = None,
    *,
    layout: str = "NCW",
    **options: Unpack[DepthwiseOptions],
) -> Floats:
    """A depthwise convolution and a 1×1 one of sequences: :func:`separable_conv2d` in 1-D.

    >>> import jax.numpy as jnp
    >>> x = jnp.array([[1.0, 2.0], [3.0, 4.0]])
    >>> separable_conv1d(x, jnp.ones((2, 1, 2)), jnp.ones((1, 2, 1)))
    Array([[10.]], dtype=float32)
    """
    return _separable(1, x, w_depthwise, w_pointwise, b, layout, options)


def separable_conv3d(
    x: ArrayLike,
    w_depthwise: ArrayLike,
    w_pointwise: ArrayLike,
    b: ArrayLike | None = None,
    *,
    layout: str = "NCDHW",
    **options: Unpack[DepthwiseOptions],
) -> Floats:
    """A depthwise convolution and a 1×1 one of volumes: :func:`separable_conv2d` in 3-D.

    >>> import jax.numpy as jnp
    >>> x, w = jnp.ones((2, 2, 2, 2)), jnp.ones((2, 1, 2, 2, 2))
    >>> separable_conv3d(x, w, jnp.ones((1, 2, 1, 1, 1)))
    Array([[[[16.]]]], dtype=float32)
    """
    return _separable(3, x, w_depthwise, w_pointwise, b, layout, options)


def _depthwise(
    dimensions: int,
    x: ArrayLike,
    w: ArrayLike,
    b: ArrayLike | None,
    layout: str,
    options: Mapping[str, Any],
) -> Floats:
    arguments.only(options, DepthwiseOptions)
    arguments.one_layout(layout, dimensions)
    images, _ = arguments.images("x", x, layout)
    channels = images.shape[layout.index("C")]
    arguments.has_entries("x", images, (layout.index("C"),))
    return _CONVOLUTIONS[dimensions](x, w, b, groups=channels, layout=layout, **options)


def _separable(
    dimensions: int,
    x: ArrayLike,
    w_depthwise: ArrayLike,
    w_pointwise: ArrayLike,
    b: ArrayLike | None,
    layout: str,
    options: Mapping[str, Any],
) -> Floats:
    arguments.only(options, DepthwiseOptions)
    arguments.one_layout(layout, dimensions)
    images, _ = arguments.images("x", x, layout)
    w_depthwise = arguments.weights("w_depthwise", w_depthwise, layout)
    w_pointwise = arguments.weights("w_pointwise", w_pointwise, layout)
    arguments.same_dtype("w_depthwise", w_depthwise, "x", images)
    arguments.same_dtype("w_pointwise", w_pointwise, "x", images)
    wanted = [
        size if letter in "IO" else 1
        for size, letter in zip(w_pointwise.shape, weight_layout(layout), strict=True)
    ]
    arguments.shape_is("w_pointwise", w_pointwise, wanted, "a kernel of one element")
    y = _depthwise(dimensions, x, w_depthwise, None, layout, options)
    shared = {
        name: options[name]
        for name in ("precision", "engine", "derivatives")
        if name in options
    }
    return _CONVOLUTIONS[dimensions](y, w_pointwise, b, layout=layout, **shared)
