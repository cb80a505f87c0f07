"""The input gradient as a convolution of dY, spread by the stride, with the rotated kernel.

    dX = spread(dY) ∗ rotated(W)

where spread(dY) has s − 1 zeros between the entries of dY. Input position k receives from
output i through tap m where s·i + d·m − p = k. Counted from the last tap, m' = K − 1 − m,
that is a window over the spread dY: it begins at k + p − d·(K − 1).
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax import lax
from jax.lax import PrecisionLike

from jaxcnn.layout import (
    Length,
    Numbers,
    merge_axes,
    resized,
    spatial_size,
    split_axis,
)
from jaxcnn.window import Window


def rotated(W: Numbers, groups: int = 1) -> Numbers:
    """(K…, I, G·O) to (K…, O, G·I), with its taps in the opposite order."""
    W = jnp.flip(W, range(W.ndim - 2))
    W = jnp.swapaxes(split_axis(W, W.ndim - 1, groups, W.shape[-1] // groups), -3, -1)
    return merge_axes(W, W.ndim - 2, 2)


def window_over_outputs(
    window: Window, input_size: Sequence[Length], output_size: Sequence[Length]
) -> Window:
    """The window that slides over dY, spread by the stride, and has dX as its output."""
    sizes = zip(
        window.extent,
        window.stride,
        window.padding,
        input_size,
        output_size,
        strict=True,
    )
    padding = tuple(
        (extent - 1 - low, size + low - (s * (out - 1) + 1))
        for extent, s, (low, _), size, out in sizes
    )
    one = (1,) * len(window.stride)
    return Window(window.kernel_size, one, padding, window.dilation)


def by_rotation(forward: Callable[..., Numbers]) -> Callable[..., Numbers]:
    """The input gradient by an engine's own forward sum."""

    def input_gradient(
        dY: Numbers,
        W: Numbers,
        *,
        window: Window,
        input_size: Sequence[int],
        layout: str,
        groups: int = 1,
        precision: PrecisionLike = None,
    ) -> Numbers:
        """dX = dY ∗ rotated(W)."""
        known = {"layout": layout, "groups": groups, "precision": precision}
        if set(window.stride) == {1}:
            over_outputs = window_over_outputs(window, input_size, spatial_size(dY, layout))
            return forward(dY, rotated(W, groups), window=over_outputs, **known)
        steps = Steps(window, input_size, spatial_size(dY, layout))
        dX = forward(dY, steps.weights(W, groups), window=steps.window, **known)
        return steps.image(dX, groups, layout)

    return input_gradient


class Steps:
    """The input gradient for any stride as a convolution of dY with a stride of one.

    The s positions of a step, k + p = s·q + r for r = 0 … s − 1, see the same outputs
    q − a, each through a tap of its own, d·m = s·a + r. So they are channels of one
    position q:

        dX[s·q + r − p] = Σ_a dY[q − a] · W[m]ᵀ

    with s·a + r = d·m. The weights, with d − 1 zeros between them and zeros after the last,
    are A·s for each dimension, and a step takes s of them.
    """

    def __init__(
        self, window: Window, input_size: Sequence[int], output_size: Sequence[int]
    ):
        self.strides, self.dilation = window.stride, window.dilation
        self.lows, self.sizes = [low for low, _ in window.padding], tuple(input_size)
        edges = zip(self.sizes, self.lows, self.strides, strict=True)
        steps = [-(-(size + low) // s) for size, low, s in edges]
        extents = zip(window.extent, self.strides, strict=True)
        farthest = tuple(-(-extent // s) for extent, s in extents)
        padding = tuple(
            (a - 1, step - out)
            for a, step, out in zip(farthest, steps, output_size, strict=True)
        )
        one = (1,) * len(self.strides)
        self.window = Window(farthest, one, padding, one)

    def weights(self, W: Numbers, groups: int) -> Numbers:
        """(K…, I, G·O) to (A…, O, G·s…·I)."""
        n = len(self.strides)
        W = split_axis(W, W.ndim - 1, groups, W.shape[-1] // groups)  # K…, I, G, O
        by_axis = zip(self.window.kernel_size, self.strides, self.dilation, strict=True)
        for axis, (a, s, d) in enumerate(by_axis):
            gaps = [(0, 0, 0)] * W.ndim
            gaps[2 * axis] = (0, a * s - d * (W.shape[2 * axis] - 1) - 1, d - 1)
            W = lax.pad(W, jnp.zeros((), W.dtype), gaps)
            W = jnp.flip(split_axis(W, 2 * axis, a, s), 2 * axis)
        order = [*range(0, 2 * n, 2), -1, -2, *range(1, 2 * n, 2), -3]  # A…, O, G, s…, I
        return merge_axes(W.transpose([axis % W.ndim for axis in order]), n + 1, n + 2)

    def image(self, dX: Numbers, groups: int, layout: str) -> Numbers:
        """(B, q…, G·s…·I) to (B, H…, G·I)."""
        n = len(self.strides)
        dX = split_axis(dX, dX.ndim - 1, groups, *self.strides, -1)
        steps, positions = range(1, 1 + n), range(2 + n, 2 + 2 * n)
        both = [each for pair in zip(steps, positions, strict=True) for each in pair]
        dX = dX.transpose([0, *both, n + 1, dX.ndim - 1])
        dX = merge_axes(dX, dX.ndim - 2, 2)
        for axis in steps:
            dX = merge_axes(dX, axis, 2)
        for axis, low, size in zip(steps, self.lows, self.sizes, strict=True):
            dX = resized(dX, axis, low, size)
        return dX
