"""Winograd's minimal filtering along the columns of an image: half the products.

Four neighbouring outputs of a kernel with three taps take 12 products. They take only 6 of
well-chosen combinations of the six inputs that they see: F(4, 3). Six also do for five
outputs of two taps, three of four and two of five: F(7 − K, K) (Winograd 1980; Lavin and
Gray 2015):

    Y = Aᵀ [(G·W) ⊙ (Bᵀ·X)]        X six inputs, W K taps, Y 7 − K outputs

The outputs are the coefficients of a product of two polynomials. G and A evaluate at five
points and at infinity; B has the coefficients of Lagrange's basis, and interpolates.

Here the inputs are columns of an image. Each of the six products ⊙ is a convolution over
the kernel's rows and the channels: patches times combined weights
(:mod:`jaxcnn.engines.patches`), on a (7 − K)-th of the columns. The two-dimensional
F(4×4, 3×3) would halve the products again, but its transforms move 2.25 instead of 1.5
times the image through memory, and it was slower at every size tried.

Every sum is linear in each of its arguments, so the weight gradient is the same read
backwards, and the input gradient is the convolution of dY with the rotated kernel:

    dW = Gᵀ [Σ (A·dY) ⊙ (Bᵀ·X)]

Accuracy: the combinations have coefficients up to 16, and so rounding errors are 2 to 10
times larger than a plain convolution's, up to 5e-6 of the largest result. The plan does not
use it where ``precision`` asks for more than the default.
"""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.lax import PrecisionLike
from jaxtyping import Array, Num

from jaxcnn.engines import canonical, patches
from jaxcnn.engines.groups import group_by_group
from jaxcnn.engines.memory import images_at_once, in_blocks, sum_over_blocks
from jaxcnn.engines.rotation import by_rotation
from jaxcnn.engines.sums import sum_of
from jaxcnn.layout import Length, Numbers, merge_axes, resized, spatial_size
from jaxcnn.problem import Description
from jaxcnn.rounding import sum_dtype
from jaxcnn.window import Window

POINTS = np.array([0, 1, -1, 2, -2])
WEIGHTS = np.array([6, -4, -4, 1, 1]) / 24
"""For each point a, 1/∏(a − b) over the other points b: the barycentric weights."""

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
INPUTS = len(B_T)
TAPS = range(2, INPUTS)


def refuses(description: Description) -> str | None:
    window = description.window
    if set(window.stride) != {1}:
        return "wants a stride of one"
    if window.kernel_size[-1] not in TAPS or window.dilation[-1] != 1:
        return "wants 2 to 5 kernel columns, and no dilation along them"
    return canonical.refuses(description) or patches.refuses(description)


def forward(
    X: Numbers,
    W: Numbers,
    *,
    window: Window,
    layout: str,
    groups: int = 1,
    precision: PrecisionLike = None,
) -> Numbers:
    """Y = Aᵀ [(G·W) ⊙ (Bᵀ·X)]."""
    X, W = (each.astype(sum_dtype(each.dtype)) for each in (X, W))
    filtering = _Filtering(window, spatial_size(X, layout))
    W = _combined(filtering.G, [W[..., k, :, :] for k in range(window.kernel_size[-1])])

    @group_by_group
    def convolved(X: Numbers, W: Numbers) -> Numbers:
        P = filtering.patches(X, layout)
        W = W.reshape(len(W), -1, W.shape[-1])
        Y = _product("trk,tko->tro", _matrices(P), W, precision)
        Y = Y.reshape(*P.shape[:-1], Y.shape[-1])
        return filtering.columns_of(_combined(filtering.A_T, list(Y)))

    images = filtering.images_at_once(X, W.shape[-1])
    return in_blocks(lambda X: convolved(X, W, groups=groups), X, images)


def weight_gradient(
    X: Numbers,
    dY: Numbers,
    *,
    window: Window,
    layout: str,
    groups: int = 1,
    precision: PrecisionLike = None,
) -> Numbers:
    """dW = Gᵀ [Σ (A·dY) ⊙ (Bᵀ·X)]."""
    X, dY = (each.astype(sum_dtype(each.dtype)) for each in (X, dY))
    filtering = _Filtering(window, spatial_size(X, layout))

    def products(X: Numbers, dY: Numbers) -> Numbers:
        P = _matrices(filtering.patches(X, layout))
        dY = _matrices(_combined(filtering.A_T.T, filtering.outputs(dY)))
        return _product("tro,trk->tok", dY, P, precision)

    products = partial(group_by_group(products, 1), groups=groups)
    images = filtering.images_at_once(X, dY.shape[-1])
    sums = sum_over_blocks(products, (X, dY), images)
    dW = jnp.swapaxes(_combined(filtering.G.T, list(sums)), -1, -2)
    *rows, columns = window.kernel_size
    dW = dW.reshape(columns, *rows, X.shape[-1] // groups, dY.shape[-1])
    return jnp.moveaxis(dW, 0, -3)


input_gradient = by_rotation(forward)


class _Filtering:
    """The matrices for a window, and the tiles of columns that they are for.

    Columns are lists of arrays: the first columns of all tiles, the second columns, ….
    """

    def __init__(self, window: Window, input_size: Sequence[int]):
        taps = window.kernel_size[-1]
        self.step = INPUTS + 1 - taps  # the outputs of a tile
        self.G, self.A_T = np.zeros((INPUTS, taps)), np.zeros((self.step, INPUTS))
        self.G[:-1] = WEIGHTS[:, None] * POINTS[:, None] ** np.arange(taps)
        self.A_T[:, :-1] = POINTS ** np.arange(self.step)[:, None]
        self.G[-1, -1] = self.A_T[-1, -1] = 1
        self.low = window.padding[-1][0]
        self.rows = window.only(*range(len(window.kernel_size) - 1))
        *self.rows_out, self.columns_out = window.output_size(input_size)
        self.tiles = -(-self.columns_out // self.step)

    def patches(self, X: Numbers, layout: str) -> Num[Array, "6 ..."]:
        """The six combinations of inputs, each as patches over the kernel's rows."""
        combined = _combined(B_T, self._columns(X, self.low, INPUTS))
        return patches.patches(combined, self.rows, "G" + layout)

    def outputs(self, dY: Numbers) -> list[Numbers]:
        """The outputs of all tiles; zeros after the last of them."""
        return self._columns(dY, 0, self.step)

    def columns_of(self, outputs: Numbers) -> Numbers:
        """The columns of the image, from the outputs of all tiles."""
        Y = jnp.moveaxis(outputs, 0, -2)
        Y = merge_axes(Y, Y.ndim - 3, 2)
        return lax.slice_in_dim(Y, 0, self.columns_out, axis=-2)

    def images_at_once(self, X: Numbers, c_out: int) -> Length:
        """So many that all patches and products stay in the cache."""
        channels = self.rows.number_of_taps * X.shape[-1] + c_out
        return images_at_once((*self.rows_out, self.tiles, INPUTS, channels), X.shape[0])

    def _columns(self, X: Numbers, low: int, how_many: int) -> list[Numbers]:
        """So many columns of each tile; the first tile begins at column −low."""
        span = self.step * (self.tiles - 1) + 1
        X = resized(X, -2, -low, span - 1 + how_many)
        return [
            lax.slice_in_dim(X, first, first + span, self.step, axis=-2)
            for first in range(how_many)
        ]


def _combined(
    matrix: Num[np.ndarray, "i j"], arrays: Sequence[Numbers]
) -> Num[Array, "i ..."]:
    """Σ_j matrix[i, j] · arrays[j] for every i, without the terms that are zero."""
    return jnp.stack(
        [
            sum_of(
                array if factor == 1 else jnp.asarray(factor, array.dtype) * array
                for factor, array in zip(row, arrays, strict=True)
                if factor
            )
            for row in matrix
        ]
    )


def _matrices(x: Num[Array, "6 ... k"]) -> Num[Array, "6 positions k"]:
    """(6, B, H…, C) to six matrices, with a row for each position."""
    return merge_axes(x, 1, x.ndim - 2)


def _product(
    sum_over: str, A: Num[Array, "6 _ _"], B: Num[Array, "6 _ _"], precision: PrecisionLike
) -> Numbers:
    """The six products, behind a barrier: no combination is computed anew for each."""
    return lax.optimization_barrier(jnp.einsum(sum_over, A, B, precision=precision))
