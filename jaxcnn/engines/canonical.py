"""All three sums as XLA's convolution in its channels-last form.

On a CPU XLA has fast code for one form of a convolution: channels last, weights HWIO, no
transposition hidden in its description. It rewrites some others into that form; the rest
become naive loop nests, and inside ``scan`` or ``while`` all others do. So this engine
writes out the transpositions, and uses that form alone:

    forward           X ∗ W                          as it is
    input gradient    spread(dY) ∗ rotated(W)        dY spread by the stride
    weight gradient   Xᵀ ∗ spread(dYᵀ)               the batch takes the channels' place

In the last, the images take the place of X's channels, and dY is the kernel. At output
position m that convolution sums over images and positions: it is dW[m].
"""

from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jax.lax import PrecisionLike

from jaxcnn.engines.groups import group_by_group
from jaxcnn.engines.rotation import rotated, window_over_outputs
from jaxcnn.engines.xla import pads_itself
from jaxcnn.layout import (
    Length,
    Numbers,
    spatial_size,
    weight_layout,
    with_spatial,
)
from jaxcnn.originals import conv_general_dilated
from jaxcnn.problem import Description
from jaxcnn.rounding import widened
from jaxcnn.window import Window

ANY_SIZE = True


def refuses(description: Description) -> str | None:
    if not jnp.issubdtype(description.dtype, jnp.floating):
        return "computes with floats only"
    return None


@group_by_group
def forward(
    X: Numbers,
    W: Numbers,
    *,
    window: Window,
    layout: str,
    groups: int = 1,
    precision: PrecisionLike = None,
) -> Numbers:
    """Y = X ∗ W."""
    return _convolved(X, W, window, layout, precision)


@group_by_group
def weight_gradient(
    X: Numbers,
    dY: Numbers,
    *,
    window: Window,
    layout: str,
    groups: int = 1,
    precision: PrecisionLike = None,
) -> Numbers:
    """dW = Xᵀ ∗ spread(dYᵀ), strided by the dilation."""
    X_t, dY_t = jnp.swapaxes(X, 0, -1), jnp.moveaxis(dY, 0, -2)
    sizes = zip(
        window.kernel_size,
        window.stride,
        window.dilation,
        window.padding,
        spatial_size(X, layout),
        spatial_size(dY, layout),
        strict=True,
    )
    # After the image, enough for the last tap to see the last output position.
    padding = [
        (low, d * (k - 1) + s * (out - 1) + 1 - size - low)
        for k, s, d, (low, _), size, out in sizes
    ]
    over_input = Window(
        spatial_size(dY, layout), window.dilation, tuple(padding), window.stride
    )
    dW = _convolved(X_t, dY_t, over_input, layout, precision)
    return jnp.moveaxis(dW, 0, -2)


@group_by_group
def input_gradient(
    dY: Numbers,
    W: Numbers,
    *,
    window: Window,
    input_size: Sequence[Length],
    layout: str,
    groups: int = 1,
    precision: PrecisionLike = None,
) -> Numbers:
    """dX = spread(dY) ∗ rotated(W)."""
    over_outputs = window_over_outputs(window, input_size, spatial_size(dY, layout))
    return _convolved(dY, rotated(W), over_outputs, layout, precision, window.stride)


def _convolved(
    X: Numbers,
    W: Numbers,
    window: Window,
    layout: str,
    precision: PrecisionLike,
    spread: Sequence[int] | None = None,
) -> Numbers:
    """X, with zeros between its pixels if it is spread, convolved by XLA."""
    X, padding = widened(X), window.padding
    spread = spread or (1,) * len(padding)
    if not pads_itself(padding):
        edges = [(*pair, s - 1) for pair, s in zip(padding, spread, strict=True)]
        edges = with_spatial([(0, 0, 0)] * X.ndim, edges, layout)
        X = lax.pad(X, jnp.zeros((), X.dtype), edges)
        padding, spread = ((0, 0),) * len(padding), (1,) * len(padding)
    return conv_general_dilated(
        X,
        widened(W),
        window_strides=window.stride,
        padding=padding,
        lhs_dilation=spread,
        rhs_dilation=window.dilation,
        dimension_numbers=(layout, weight_layout(layout), layout),
        precision=precision,
    )
