"""The document's loops, compiled: explicit loops at the speed of the machine.

Read :mod:`.runs`, which says where a window meets an image, then :mod:`.tile`, the innermost
loops in registers, and :mod:`.nests`, the loops around them. :mod:`.tables` is what they run
over, :mod:`.xla_calls` how XLA calls them on its threads, :mod:`.library` how they are
compiled and kept.

Nothing is copied: no patches, no padded images, no transforms. Weights are laid out in
panels, a vector of output channels wide, for which XLA turns them around before the call.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.ffi import ffi_call
from jax.lax import PrecisionLike

from jaxcnn.engines.loops import library, processor, tables
from jaxcnn.engines.loops.processor import (
    CHANNELWISE,
    MAXIMUM,
    PLACING,
    PRODUCT,
    TAKING,
)
from jaxcnn.engines.loops.tables import Sizes
from jaxcnn.engines.averages import number_averaged
from jaxcnn.engines.rotation import rotated
from jaxcnn.engines.sums import sum_of
from jaxcnn.equations import winner_dtype
from jaxcnn.layout import Integers, Numbers, spatial_size, with_spatial
from jaxcnn.problem import Description
from jaxcnn.rounding import sum_dtype, widened
from jaxcnn.window import Pairs, Window


ADDS_BIAS = True


def refuses(description: Description) -> str | None:
    if not 1 <= len(description.window.kernel_size) <= 3:
        return "computes in one to three dimensions"
    if not jnp.issubdtype(description.dtype, jnp.floating):
        return "computes with floats only"
    if "winner" in description.name or description.name.startswith("max_pool"):
        if description.window.number_of_taps > 2**15:
            return "counts no more than 32768 taps"
    return library.at_hand()


# --- Convolution ------------------------------------------------------------------------


def forward(
    X: Numbers,
    W: Numbers,
    *,
    window: Window,
    layout: str,
    groups: int = 1,
    precision: PrecisionLike = None,
    bias: Numbers | None = None,
) -> Numbers:
    """Y = Σ_m tap(X, m) · W[m] + b"""
    del precision  # float32 is multiplied as such
    X, W = widened(X), widened(W)
    if W.shape[-2] == 1 and groups > 1:
        X = _repeated(X, W.shape[-1] // groups)
        sizes = _sizes(X, X, window, spatial_size(X, layout), 1, False)
        table = tables.over_taps(sizes, CHANNELWISE, is_transposed=False, in_b="weights")
        B = W
    else:
        sizes = _sizes(X, W, window, spatial_size(X, layout), groups, True)
        table = tables.over_taps(sizes, PRODUCT, is_transposed=False, in_b="panels")
        B = _panels(W, groups, sizes.lanes)
    shape = (X.shape[0], *sizes.output_size, W.shape[-1])
    kind = PRODUCT if sizes.mixes else CHANNELWISE
    return _over_taps(kind, X, B, shape, table, sizes.groups, bias)


def input_gradient(
    dY: Numbers,
    W: Numbers,
    *,
    window: Window,
    input_size: Sequence[int],
    layout: str,
    groups: int = 1,
    precision: PrecisionLike = None,
    bias: Numbers | None = None,
) -> Numbers:
    """dX = Σ_m untap(dY · W[m], m); in a transposed convolution a bias is added."""
    del precision
    dY, W = widened(dY), widened(W)
    if W.shape[-2] == 1 and groups > 1:
        sizes = _sizes(dY, dY, window, input_size, 1, False)
        table = tables.over_taps(sizes, CHANNELWISE, is_transposed=True, in_b="weights")
        shape = (dY.shape[0], *input_size, dY.shape[-1])
        multiplier = W.shape[-1] // groups
        if multiplier == 1:
            return _over_taps(CHANNELWISE, dY, W, shape, table, bias=bias)
        dX = _over_taps(CHANNELWISE, dY, W, shape, table)
        dX = dX.reshape(*shape[:-1], groups, multiplier).sum(-1)
        return dX if bias is None else dX + widened(bias)
    turned = rotated(W, groups)
    sizes = _sizes(dY, turned, window, input_size, groups, True, is_transposed=True)
    table = tables.over_taps(sizes, PRODUCT, is_transposed=True, in_b="panels")
    B = _panels(turned, groups, sizes.lanes)
    shape = (dY.shape[0], *input_size, turned.shape[-1])
    return _over_taps(PRODUCT, dY, B, shape, table, groups, bias)


def weight_gradient(
    X: Numbers,
    dY: Numbers,
    *,
    window: Window,
    layout: str,
    groups: int = 1,
    precision: PrecisionLike = None,
) -> Numbers:
    """dW[m] = Σ tap(X, m) ⊗ dY"""
    del precision
    X, dY = widened(X), widened(dY)
    c_in, c_out = X.shape[-1] // groups, dY.shape[-1] // groups
    mixes = not (c_in == 1 and groups > 1)
    if not mixes:
        X, groups, c_in, c_out = _repeated(X, c_out), 1, 1, dY.shape[-1]
    sizes = Sizes(
        images=X.shape[0],
        window=window,
        input_size=spatial_size(X, layout),
        output_size=spatial_size(dY, layout),
        groups=groups,
        c_in=c_in if mixes else c_out,
        c_out=c_out,
        mixes=mixes,
        size=X.dtype.itemsize,
        lanes=processor.lanes(np.dtype(X.dtype)),
    )
    table, parts = tables.over_positions(sizes)
    shape = (parts, *window.kernel_size, c_in, dY.shape[-1])
    kind = PRODUCT if mixes else CHANNELWISE
    name = _target("sum_over_positions", kind, X.dtype, dY.shape[-1] // groups)
    result = jax.ShapeDtypeStruct(shape, X.dtype)
    dW = ffi_call(name, result)(X, dY, dY, table=table)
    return sum_of(dW[part] for part in range(parts))  # one after the other: one pass


def _sizes(
    A: Numbers,
    W: Numbers,
    window: Window,
    input_size: Sequence[int],
    groups: int,
    mixes: bool,
    is_transposed: bool = False,
) -> Sizes:
    summed, of_result = A.shape[-1] // groups, W.shape[-1] // groups
    c_in, c_out = (of_result, summed) if is_transposed else (summed, of_result)
    return Sizes(
        images=A.shape[0],
        window=window,
        input_size=tuple(input_size),
        output_size=window.output_size(input_size),
        groups=groups,
        c_in=c_in,
        c_out=c_out,
        mixes=mixes,
        size=A.dtype.itemsize,
        lanes=processor.lanes(np.dtype(A.dtype)),
    )


def _target(
    nest: str, kind: str, dtype: Any, channels: int, winner: np.dtype | None = None
) -> str:
    """The nest for vectors of so many channels."""
    dtype = np.dtype(dtype)
    return library.target(nest, kind, dtype, winner, channels % processor.lanes(dtype) != 0)


def _repeated(X: Numbers, multiplier: int) -> Numbers:
    """Each channel as often as it has output channels of its own."""
    return X if multiplier == 1 else jnp.repeat(X, multiplier, -1)


def _panels(W: Numbers, groups: int, lanes: int) -> Numbers:
    """(K…, I, G·O) to (G, panels, taps, I, lanes): what one vector of C needs, side by side."""
    *_, c_in, c_out = W.shape
    W = W.reshape(-1, c_in, groups, c_out // groups)
    missing = -W.shape[-1] % lanes
    W = jnp.pad(W, [(0, 0)] * 3 + [(0, missing)])
    W = W.reshape(*W.shape[:3], -1, lanes)
    return W.transpose(2, 3, 0, 1, 4)


def _over_taps(
    kind: str,
    A: Numbers,
    B: Numbers,
    shape: Sequence[int],
    table: np.ndarray,
    groups: int = 1,
    bias: Numbers | None = None,
) -> Numbers:
    channels = shape[-1] // groups
    name = _target("sum_over_taps", kind, A.dtype, channels)
    result = jax.ShapeDtypeStruct(tuple(shape), A.dtype)
    added = jnp.zeros(shape[-1], A.dtype) if bias is None else bias.astype(A.dtype)
    return ffi_call(name, result)(A, B, added, table=table)


# --- Pooling ----------------------------------------------------------------------------


def max_pool(X: Numbers, *, window: Window, layout: str) -> tuple[Numbers, Integers]:
    """Y = max_m tap(X, m), and the winner of each window."""
    dtype, winner = np.dtype(X.dtype), np.dtype(winner_dtype(window))
    X = widened(X)
    sizes = _sizes(X, X, window, spatial_size(X, layout), 1, False)
    known = {"in_b": "numbers", "winner": winner.itemsize}
    table = tables.over_taps(sizes, MAXIMUM, is_transposed=False, **known)
    name = _target("sum_over_taps", MAXIMUM, X.dtype, X.shape[-1], winner)
    shape = (X.shape[0], *sizes.output_size, X.shape[-1])
    results = [jax.ShapeDtypeStruct(shape, each) for each in (X.dtype, winner)]
    Y, winner = ffi_call(name, results)(X, table=table)
    return Y.astype(dtype), winner


def max_pool_gradient(
    dY: Numbers,
    winner: Integers,
    *,
    window: Window,
    input_size: Sequence[int],
    layout: str,
) -> Numbers:
    """dX = Σ_m untap(dY · [winner = m], m)"""
    return _of_winners(PLACING, dY, winner, window, tuple(input_size), tuple(input_size))


def take_winners(X: Numbers, winner: Integers, *, window: Window, layout: str) -> Numbers:
    """Y = Σ_m tap(X, m) · [winner = m]"""
    sizes = spatial_size(X, layout), spatial_size(winner, layout)
    return _of_winners(TAKING, X, winner, window, *sizes).astype(X.dtype)


def _of_winners(
    kind: str,
    A: Numbers,
    winner: Integers,
    window: Window,
    input_size: tuple[int, ...],
    result_size: tuple[int, ...],
) -> Numbers:
    A = widened(A)
    sizes = _sizes(A, A, window, input_size, 1, False)
    known = {"in_b": "numbers", "winner": winner.dtype.itemsize}
    table = tables.over_taps(sizes, kind, is_transposed=kind == PLACING, **known)
    name = _target("sum_over_taps", kind, A.dtype, A.shape[-1], np.dtype(winner.dtype))
    result = jax.ShapeDtypeStruct((A.shape[0], *result_size, A.shape[-1]), A.dtype)
    return ffi_call(name, result)(A, winner, table=table)


def average_pool(
    X: Numbers,
    *,
    window: Window,
    layout: str,
    counted: Pairs | None = None,
    divisor: int | float | None = None,
) -> Numbers:
    """Y = 1/n · Σ_m tap(X, m)"""
    X = widened(X)
    size = spatial_size(X, layout)
    n = number_averaged(window, size, layout, counted, divisor, X.dtype)
    sizes = _sizes(X, X, window, size, 1, False)
    table = tables.over_taps(sizes, CHANNELWISE, is_transposed=False, in_b="ones")
    shape = (X.shape[0], *sizes.output_size, X.shape[-1])
    ones = jnp.ones(sizes.lanes, X.dtype)
    return _over_taps(CHANNELWISE, X, ones, shape, table) / n


def average_pool_gradient(
    dY: Numbers,
    *,
    window: Window,
    input_size: Sequence[int],
    layout: str,
    counted: Pairs | None = None,
    divisor: int | float | None = None,
) -> Numbers:
    """dX = Σ_m untap(dY / n, m)"""
    dY = widened(dY)
    dY = dY / number_averaged(window, input_size, layout, counted, divisor, dY.dtype)
    sizes = _sizes(dY, dY, window, input_size, 1, False)
    table = tables.over_taps(sizes, CHANNELWISE, is_transposed=True, in_b="ones")
    shape = (dY.shape[0], *input_size, dY.shape[-1])
    ones = jnp.ones(sizes.lanes, dY.dtype)
    return _over_taps(CHANNELWISE, dY, ones, shape, table)
