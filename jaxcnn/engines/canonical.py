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
from jaxcnn.window import Pairs, Window

ANY_SIZE = CONVOLVES = True  # CONVOLVES: calls XLA's convolution, for the plan to know


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
    X, padding, _ = _padded(X, window.padding, layout)
    return conv_general_dilated(
        X,
        widened(W),
        window_strides=window.stride,
        padding=padding,
        rhs_dilation=window.dilation,
        dimension_numbers=_form(layout),
        precision=precision,
    )


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
    padding = tuple(
        (low, d * (k - 1) + s * (out - 1) + 1 - size - low)
        for k, s, d, (low, _), size, out in sizes
    )
    X_t, padding, _ = _padded(X_t, padding, layout)
    dW = conv_general_dilated(
        X_t,
        widened(dY_t),
        window_strides=window.dilation,
        padding=padding,
        rhs_dilation=window.stride,
        dimension_numbers=_form(layout),
        precision=precision,
    )
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
    dY, padding, spread = _padded(dY, over_outputs.padding, layout, window.stride)
    return conv_general_dilated(
        dY,
        widened(rotated(W)),
        window_strides=over_outputs.stride,
        padding=padding,
        lhs_dilation=spread,
        rhs_dilation=window.dilation,
        dimension_numbers=_form(layout),
        precision=precision,
    )


def _form(layout: str) -> tuple[str, str, str]:
    return layout, weight_layout(layout), layout


def _padded(
    X: Numbers, padding: Pairs, layout: str, spread: Sequence[int] | None = None
) -> tuple[Numbers, Pairs, Sequence[int]]:
    """X and what XLA's convolution has still to do: its padding, and the zeros between."""
    X, idle = widened(X), (1,) * len(padding)
    if pads_itself(padding):
        return X, padding, spread or idle
    edges = [(*pair, s - 1) for pair, s in zip(padding, spread or idle, strict=True)]
    edges = with_spatial([(0, 0, 0)] * X.ndim, edges, layout)
    X = lax.pad(X, jnp.zeros((), X.dtype), edges)
    return X, ((0, 0),) * len(padding), idle
