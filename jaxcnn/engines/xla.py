"""XLA's own convolution and sum of windows, and their transposes as JAX derives them.

GPUs and TPUs have hardware and vendor libraries for these. On a CPU the transposes are
slow, above all inside loops: see :mod:`canonical`. :mod:`pooled` slices taps out of images,
which is cheap on a CPU; on a TPU every slice is a pass over the image.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.lax import PrecisionLike

from jaxcnn.engines.averages import number_averaged
from jaxcnn.layout import (
    Length,
    Numbers,
    are_known,
    spatial_size,
    weight_layout,
    with_spatial,
)
from jaxcnn.originals import conv_general_dilated, reduce_window
from jaxcnn.problem import Description
from jaxcnn.rounding import sum_dtype
from jaxcnn.sharding import varying_like
from jaxcnn.window import Pairs, Window, padded

ANY_LAYOUT = ANY_SIZE = CONVOLVES = True


def refuses(description: Description) -> str | None:
    if description.has_symbols and description.name != "forward":
        return "wants sizes that are known"
    if description.is_convolution:
        return None  # whatever a Problem can say, XLA can compute
    if any(min(pair) < 0 for pair in description.window.padding):
        return "sums no windows of images that are cropped"
    return None


def forward(
    X: Numbers,
    W: Numbers,
    *,
    window: Window,
    layout: str,
    groups: int = 1,
    precision: PrecisionLike = None,
) -> Numbers:
    """Y = Σ_m tap(X, m) · W[m], as one convolution."""
    known = {"window": window, "layout": layout, "groups": groups, "precision": precision}
    return _summed(_convolve(X, W, **known))


def weight_gradient(
    X: Numbers,
    dY: Numbers,
    *,
    window: Window,
    layout: str,
    groups: int = 1,
    precision: PrecisionLike = None,
) -> Numbers:
    """dW[m] = Σ tap(X, m) ⊗ dY: forward, which is linear in W, transposed."""
    letters = weight_layout(layout)
    shape = [0] * len(letters)
    shape[letters.index("O")] = dY.shape[layout.index("C")]
    shape[letters.index("I")] = X.shape[layout.index("C")] // groups
    W = jnp.zeros(with_spatial(shape, window.kernel_size, letters), X.dtype)
    W = varying_like(W, X, dY)
    known = {"window": window, "layout": layout, "groups": groups, "precision": precision}
    (dW,) = jax.linear_transpose(lambda W: _convolve(X, W, **known), W)(dY)
    return _summed(dW)


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
    """dX = Σ_m untap(dY · W[m], m): forward, which is linear in X, transposed."""
    shape = with_spatial(dY.shape, input_size, layout)
    shape[layout.index("C")] = W.shape[weight_layout(layout).index("I")] * groups
    X = varying_like(jnp.zeros(shape, dY.dtype), dY, W)
    known = {"window": window, "layout": layout, "groups": groups, "precision": precision}
    (dX,) = jax.linear_transpose(lambda X: _convolve(X, W, **known), X)(dY)
    return _summed(dX)


def _convolve(
    X: Numbers,
    W: Numbers,
    *,
    window: Window,
    layout: str,
    groups: int,
    precision: PrecisionLike,
) -> Numbers:
    if not pads_itself(window.padding):
        X, window = padded(X, window, layout)
    return conv_general_dilated(
        X,
        W,
        window.stride,
        window.padding,
        rhs_dilation=window.dilation,
        dimension_numbers=(layout, weight_layout(layout), layout),
        feature_group_count=groups,
        precision=precision,
    )


def pads_itself(padding: Pairs) -> bool:
    """Whether XLA's convolution takes this padding.

    It takes no symbols. On a CPU jaxlib 0.10.2 reads memory beside an image of which it
    should leave out the first pixels, where the stride is 2.
    """
    return all(are_known(pair) and pair[0] >= 0 for pair in padding)


def _summed(result: Numbers) -> Numbers:
    """A result in the dtype of sums; XLA has already rounded half precisions."""
    return result.astype(sum_dtype(result.dtype))


# --- Average pooling ------------------------------------------------------------------


def average_pool(
    X: Numbers,
    *,
    window: Window,
    layout: str,
    counted: Pairs | None = None,
    divisor: int | float | None = None,
) -> Numbers:
    """Y = 1/n · Σ_m tap(X, m), as one reduction."""
    X = X.astype(sum_dtype(X.dtype))
    known = (window, spatial_size(X, layout), layout, counted, divisor, X.dtype)
    return _sums(X, window, layout) / number_averaged(*known)


def average_pool_gradient(
    dY: Numbers,
    *,
    window: Window,
    input_size: Sequence[Length],
    layout: str,
    counted: Pairs | None = None,
    divisor: int | float | None = None,
) -> Numbers:
    """dX = Σ_m untap(dY / n, m): the reduction, which is linear in X, transposed."""
    dY = dY.astype(sum_dtype(dY.dtype))
    share = dY / number_averaged(window, input_size, layout, counted, divisor, dY.dtype)
    X = jnp.zeros(with_spatial(dY.shape, input_size, layout), dY.dtype)
    X = varying_like(X, dY)
    (dX,) = jax.linear_transpose(lambda X: _sums(X, window, layout), X)(share)
    return dX


def _sums(X: Numbers, window: Window, layout: str) -> Numbers:
    ones = [1] * X.ndim
    return reduce_window(
        X,
        np.zeros((), X.dtype),
        lax.add,
        with_spatial(ones, window.kernel_size, layout),
        with_spatial(ones, window.stride, layout),
        with_spatial([(0, 0)] * X.ndim, window.padding, layout),
        window_dilation=with_spatial(ones, window.dilation, layout),
    )
