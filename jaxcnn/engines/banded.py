"""One matrix product, of runs of pixels with a banded matrix of weights.

Made for few channels and for kernels of one element. With C_in = 1 and a 3×3 kernel an
output needs 9 numbers: a matrix product of patches has 9 columns, too few to be quick, and
the patches are 9 copies of the image. So let t neighbouring outputs of a row share one
patch. Together they see a run of

    span = s·(t−1) + d·(K−1) + 1

pixels in each of the kernel's rows, and are that run times a matrix with t copies of the
weights, each s rows further down (here t = 3 outputs, K = 2, s = 1):

                               ⎡ W₀           ⎤
    [Y₀ Y₁ Y₂] = [X₀ X₁ X₂ X₃] ⎢ W₁  W₀       ⎥        every entry a C_in × C_out matrix
                               ⎢     W₁  W₀   ⎥
                               ⎣         W₁   ⎦

Runs are contiguous in channels-last memory, they overlap less than patches, and the
product has t·C_out columns. The price is multiplied zeros: span/(d·(K−1)+1) times the work.
All three sums go through the same two matrices, runs R and band M:

    forward           Y = R·M
    weight gradient   dM = Rᵀ·dY,  dW the sum of its t copies
    input gradient    dR = dY·Mᵀ,  dX the sum of the runs, each where it was

Dimension key: b batch, h output rows (and whatever comes before the last dimension),
n runs in a row, r kernel rows, q pixel of a run, i input channel, t output of a run,
o output channel.
"""

import math
from collections.abc import Sequence

import jax.numpy as jnp
from jax import lax
from jax.lax import PrecisionLike
from jaxtyping import Array, Num

from jaxcnn.engines.groups import group_by_group
from jaxcnn.engines.memory import Blocks
from jaxcnn.engines.sums import sum_of, sum_of_outer_products
from jaxcnn.layout import Numbers, merge_axes, resized, spatial_size, split_axis
from jaxcnn.problem import Description
from jaxcnn.rounding import sum_dtype
from jaxcnn.window import Window, tap, untap

# R, M and Y as the matrix products have them.
Runs = Num[Array, "b h n rqi"]
Band = Num[Array, "rqi to"]
Outputs = Num[Array, "b h n to"]

MIN_COLUMNS = 32
"""Matrix products of fewer columns are slow."""


AT_ONCE = 2**22
"""How many numbers R may have at a time: 16 MiB, and as much again for what comes of it."""


def refuses(description: Description) -> str | None:
    del description  # a matrix product serves every problem
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
    """Y = R·M."""
    c_in, c_out = W.shape[-2:]

    def product(X: Numbers, window: Window) -> Numbers:
        runs = _Runs(window, spatial_size(X, layout), c_out, layout)
        Y = _product("bhnk,kc->bhnc", runs.of(X), runs.band(W), precision)
        return runs.outputs(Y)

    runs = _Runs(window, spatial_size(X, layout), c_out, layout)
    blocks = Blocks(X, window, layout, runs.numbers(c_in), AT_ONCE)
    return blocks.put_together(product, X)


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
    """dM = Rᵀ·dY; dW is the sum of the copies."""
    c_in, c_out = X.shape[-1], dY.shape[-1]

    def product(X: Numbers, dY: Numbers, window: Window) -> Numbers:
        runs = _Runs(window, spatial_size(X, layout), c_out, layout)
        dM = sum_of_outer_products(runs.of(X), runs.of_outputs(dY), precision)
        return runs.sum_of_copies(dM, c_in)

    runs = _Runs(window, spatial_size(X, layout), c_out, layout)
    blocks = Blocks(X, window, layout, runs.numbers(c_in), AT_ONCE)
    return blocks.sum_over(product, X, dY)


@group_by_group
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
    """dR = dY·Mᵀ; dX is the sum of the runs."""
    c_in, c_out = W.shape[-2:]
    runs = _Runs(window, tuple(input_size), c_out, layout)

    def product(dY: Numbers, _: Window) -> Numbers:
        dR = _product("bhnc,kc->bhnk", runs.of_outputs(dY), runs.band(W), precision)
        return runs.sum_of(dR, c_in)

    each = window.only()  # a position of dY for each output
    numbers = math.prod(window.stride[:-1]) * runs.numbers(c_in)  # in the rows of dX
    blocks = Blocks(dY, each, layout, numbers, AT_ONCE, cuts=False)
    return blocks.put_together(product, dY)


class _Runs:
    """Where the runs of one convolution lie; R, M, and the way back from them.

    The last dimension is cut into runs; the others are seen tap by tap.
    """

    def __init__(self, window: Window, input_size: Sequence[int], c_out: int, layout: str):
        *self.rows_in, self.columns_in = input_size
        *self.rows_out, self.columns_out = window.output_size(input_size)
        self.rows = window.along(slice(None, -1))
        self.taps = window.kernel_size[-1]
        self.stride = window.stride[-1]
        self.dilation = window.dilation[-1]
        self.low = window.padding[-1][0]
        self.extent = window.extent[-1]
        # t: enough for the product's columns, and for a run to end within the next tile.
        t = max(
            math.ceil(MIN_COLUMNS / c_out),
            math.ceil((self.extent - self.stride) / self.stride),
        )
        self.t = max(1, min(t, self.columns_out))
        self.number = math.ceil(self.columns_out / self.t)
        self.step = self.t * self.stride
        self.span = self.stride * (self.t - 1) + self.extent
        if self.number == 1:
            self.step = max(self.step, self.span)
        # How far a run reaches into the next tile, which then the last run needs, too.
        self.tail = max(0, self.span - self.step)
        self.tiles = self.number + (self.tail > 0)
        self.layout = layout

    def numbers(self, c_in: int) -> int:
        """How many of R there are for each output position."""
        return math.ceil(self.rows.number_of_taps * self.span * c_in / self.t)

    # --- R, and back ---

    def of(self, X: Numbers) -> Runs:
        """R (b, h, n, r·q·i): the runs that the outputs see."""
        X = X.astype(sum_dtype(X.dtype))
        c_in = X.shape[-1]
        X = resized(X, -2, -self.low, self.tiles * self.step)
        X = X.reshape(*X.shape[:-2], self.tiles, self.step * c_in)
        runs = lax.slice_in_dim(X, 0, self.number, axis=-2)
        if self.tail:
            following = lax.slice_in_dim(X, 1, self.tiles, axis=-2)[..., : self.tail * c_in]
            runs = jnp.concatenate([runs, following], -1)
        runs = runs[..., : self.span * c_in]
        seen = [tap(runs, m, self.rows, self._row_layout) for m in self.rows.offsets()]
        R = jnp.concatenate(seen, -1)
        return merge_axes(R, 1, len(self.rows_in))

    def sum_of(self, dR: Runs, c_in: int) -> Numbers:
        """dX: every run added where it was; the transpose of :meth:`of`."""
        dR = dR.reshape(dR.shape[0], *self.rows_out, self.number, -1)
        shares = jnp.split(dR, self.rows.number_of_taps, -1)
        runs = sum_of(
            untap(share, m, self.rows, self.rows_in, self._row_layout)
            for share, m in zip(shares, self.rows.offsets(), strict=True)
        )
        width = self.step * c_in
        X = resized(resized(runs, -1, 0, width), -2, 0, self.tiles)
        if self.tail:
            following = resized(runs[..., width:], -1, 0, width)
            X = X + resized(following, -2, -1, self.tiles)
        X = X.reshape(*X.shape[:-2], self.tiles * self.step, c_in)
        return resized(X, -2, self.low, self.columns_in)

    # --- M, and back ---

    def band(self, W: Numbers) -> Band:
        """M (r·q·i, t·o): t copies of the weights, each a stride further down."""
        W = W.astype(sum_dtype(W.dtype))
        W = W.reshape(-1, *W.shape[-3:])  # r, K, i, o
        zero = jnp.zeros((), W.dtype)
        copies = [
            lax.pad(
                W, zero, [(0, 0, 0), (first, last, self.dilation - 1), *[(0, 0, 0)] * 2]
            )
            for first, last in self._places()
        ]
        M = jnp.stack(copies, -2)
        return M.reshape(-1, self.t * W.shape[-1])

    def sum_of_copies(self, dM: Band, c_in: int) -> Numbers:
        """dW: the transpose of :meth:`band`."""
        c_out = dM.shape[-1] // self.t
        dM = dM.reshape(self.rows.number_of_taps, self.span, c_in, self.t, c_out)
        dW = sum_of(
            dM[:, first : first + self.extent : self.dilation, :, copy]
            for copy, (first, _) in enumerate(self._places())
        )
        return dW.reshape(*self.rows.kernel_size, self.taps, c_in, c_out)

    def _places(self) -> list[tuple[int, int]]:
        """How many pixels of the run lie before and after the kernel, for each copy."""
        firsts = (copy * self.stride for copy in range(self.t))
        return [(first, self.span - self.extent - first) for first in firsts]

    # --- Y, and back ---

    def outputs(self, Y: Outputs) -> Numbers:
        """Y (b, h, n, t·o) as the convolution's output, the surplus outputs cut off."""
        Y = Y.reshape(Y.shape[0], *self.rows_out, self.number * self.t, -1)
        return resized(Y, -2, 0, self.columns_out)

    def of_outputs(self, dY: Numbers) -> Outputs:
        """The transpose of :meth:`outputs`."""
        dY = dY.astype(sum_dtype(dY.dtype))
        dY = resized(dY, -2, 0, self.number * self.t)
        dY = merge_axes(dY, 1, len(self.rows_out))
        return split_axis(dY, 2, self.number, self.t).reshape(
            *dY.shape[:2], self.number, self.t * dY.shape[-1]
        )

    @property
    def _row_layout(self) -> str:
        """Runs (b, rows…, n, q·i) for ``tap``: everything after the rows is a channel."""
        return self.layout[:-2] + "GC"


def _product(formula: str, a: Numbers, b: Band, precision: PrecisionLike) -> Numbers:
    return jnp.einsum(
        formula, a, b, precision=precision, preferred_element_type=sum_dtype(a.dtype)
    )
