"""Winograd's minimal filtering F(4, 3) along the rows of an image: half the products.

Four neighbouring outputs of a kernel with three taps take 12 products. With six well-chosen
combinations of the six inputs that they see they take 6 (Winograd 1980; Lavin and Gray
2015, whose matrices these are):

    Y = Aᵀ [(G·W) ⊙ (Bᵀ·X)]        X six inputs, W three taps, Y four outputs

Here the inputs are rows of an image and ⊙ is a convolution over what is left, the columns
and the channels: six convolutions with a third of the kernel on a quarter of the rows. The
two-dimensional F(4×4, 3×3) would halve the products again, but its transforms move 2.25
instead of 1.5 times the image through memory, and it lost to this at every size tried.

The input gradient is a convolution with the rotated kernel, and so the same again. The
weight gradient gains nothing from this and is left to :mod:`canonical`.

Accuracy: the combinations have coefficients up to 8, and so rounding errors are 2 to 5
times larger than a plain convolution's, about 5e-6 of the largest result. The plan does not
use it where ``precision`` asks for more than the default.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxcnn.engines import canonical
from jaxcnn.engines.groups import group_by_group
from jaxcnn.engines.memory import images_at_once, in_blocks
from jaxcnn.engines.sums import sum_of
from jaxcnn.equations import sum_dtype

B_T = np.array(
    [
        [4, 0, -5, 0, 1, 0],
        [0, -4, -4, 1, 1, 0],
        [0, 4, -4, -1, 1, 0],
        [0, -2, -1, 2, 1, 0],
        [0, 2, -1, -2, 1, 0],
        [0, 4, 0, -5, 0, 1],
    ]
)
G = np.array(
    [
        [1 / 4, 0, 0],
        [-1 / 6, -1 / 6, -1 / 6],
        [-1 / 6, 1 / 6, -1 / 6],
        [1 / 24, 1 / 12, 1 / 6],
        [1 / 24, -1 / 12, 1 / 6],
        [0, 0, 1],
    ]
)
A_T = np.array(
    [
        [1, 1, 1, 1, 1, 0],
        [0, 1, -1, 2, -2, 0],
        [0, 1, 1, 4, 4, 0],
        [0, 1, -1, 8, -8, 1],
    ]
)
OUTPUTS, TAPS = 4, 3


def refuses(description) -> str | None:
    window = description.window
    along_rows = window.kernel_size[0], window.stride[0], window.dilation[0]
    if along_rows != (TAPS, 1, 1):
        return "wants 3 kernel rows, and neither stride nor dilation along them"
    return canonical.refuses(description)


@group_by_group
def forward(X, W, *, window, layout, groups=1, precision=None):
    """Y: six convolutions of combined rows with combined kernel rows."""
    rows_out = X.shape[1] + sum(window.padding[0]) - (TAPS - 1)
    known = {"window": _without_rows(window), "layout": layout, "precision": precision}
    convolve = partial(canonical.forward, **known)
    return _along_rows(X, W, window.padding[0][0], rows_out, convolve)


@group_by_group
def weight_gradient(X, dY, *, window, layout, groups=1, precision=None):
    """dW, as :mod:`canonical` has it."""
    known = {"window": window, "layout": layout, "precision": precision}
    return canonical.weight_gradient(X, dY, **known)


@group_by_group
def input_gradient(dY, W, *, window, input_size, layout, groups=1, precision=None):
    """dX: along the rows, the convolution of dY with the rotated kernel."""
    known = {"window": _without_rows(window), "layout": layout, "precision": precision}

    def convolve(dY, W):
        size = (dY.shape[1], *input_size[1:])
        return canonical.input_gradient(dY, W, input_size=size, **known)

    low = TAPS - 1 - window.padding[0][0]
    return _along_rows(dY, jnp.flip(W, 0), low, input_size[0], convolve)


def _without_rows(window):
    """What is left of the window when the rows have been dealt with."""
    return window.only(*range(1, len(window.kernel_size)))


def _along_rows(X, W, low: int, rows_out: int, convolve: Callable):
    """Y = Aᵀ [(G·W) ⊙ (Bᵀ·X)] for all rows, X starting ``low`` rows before the first."""
    X, W = (each.astype(sum_dtype(each.dtype)) for each in (X, W))
    kernels = _combined(G, list(W))
    groups_of_rows = -(-rows_out // OUTPUTS)
    after = OUTPUTS * groups_of_rows + TAPS - 1 - low - X.shape[1]

    def of_images(X):
        pads = [(0, 0, 0), (low, after, 0), *[(0, 0, 0)] * (X.ndim - 2)]
        X = lax.pad(X, jnp.zeros((), X.dtype), pads)
        last = OUTPUTS * (groups_of_rows - 1) + 1
        rows = [
            lax.slice_in_dim(X, first, first + last, OUTPUTS, axis=1)
            for first in range(OUTPUTS + TAPS - 1)
        ]
        products = [
            convolve(row, kernel[None])
            for row, kernel in zip(_combined(B_T, rows), kernels, strict=True)
        ]
        # So that no combination is computed inside of the products, again and again.
        products = lax.optimization_barrier(products)
        Y = jnp.stack(_combined(A_T, products), 2)
        Y = Y.reshape(Y.shape[0], -1, *Y.shape[3:])
        return lax.slice_in_dim(Y, 0, rows_out, axis=1)

    # A few images at a time: their combinations stay in the cache.
    combined = (*X.shape[1:-1], (X.shape[-1] + W.shape[-1]) * len(G) // OUTPUTS)
    images = images_at_once(combined, X.shape[0])
    return in_blocks(of_images, X, images)


def _combined(matrix: np.ndarray, arrays: list[jax.Array]) -> list[jax.Array]:
    """Σ_j matrix[i, j] · arrays[j] for every i, without the terms that are zero."""
    return [
        sum_of(
            array if factor == 1 else jnp.asarray(factor, array.dtype) * array
            for factor, array in zip(row, arrays, strict=True)
            if factor
        )
        for row in matrix
    ]
