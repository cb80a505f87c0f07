"""The input gradient as a convolution of dY, spread by the stride, with the rotated kernel.

    dX = spread(dY) ∗ rotated(W)

where spread(dY) has s − 1 zeros between the entries of dY. Input position k receives from
output i through tap m where s·i + d·m − p = k. Counted from the last tap, m' = K − 1 − m,
that is a window over the spread dY: it begins at k + p − d·(K − 1).
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
from jax.lax import PrecisionLike

from jaxcnn.layout import Length, Numbers, merge_axes, spatial_size, split_axis
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
    """The input gradient for a stride of one, by an engine's own forward sum."""

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
        over_outputs = window_over_outputs(window, input_size, spatial_size(dY, layout))
        known = {"layout": layout, "groups": groups, "precision": precision}
        return forward(dY, rotated(W, groups), window=over_outputs, **known)

    return input_gradient
