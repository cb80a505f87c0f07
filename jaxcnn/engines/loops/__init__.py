"""The document's loops, compiled: explicit loops at the speed of the machine.

Read :mod:`.runs`, which says where a window meets an image, then :mod:`.tile`, the
innermost loops in registers, and :mod:`.nests`, the loops around them. :mod:`.tables` is
what they run over, :mod:`.xla_calls` how XLA calls them on its threads, :mod:`.library` how
they are compiled and kept, :mod:`.processor` what is known of the machine, and
:mod:`.pairs` how bfloat16 is twice as fast.

Nothing is copied: no patches, no padded images, no transforms. Weights are laid out in
panels, a vector of output channels wide, for which XLA turns them around before the call.

In memory the channels are last, whatever the layout: where an image is called NCHW, the
call asks XLA for that array with its channels innermost, and what XLA computes before and
after takes over that order.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.ffi import ffi_call
from jax.lax import PrecisionLike

from jaxcnn.engines.averages import number_averaged
from jaxcnn.engines.loops import library, pairs, processor, tables
from jaxcnn.engines.loops.processor import (
    CHANNELWISE,
    MAXIMUM,
    PAIRED,
    PLACING,
    PRODUCT,
    TAKING,
)
from jaxcnn.engines.loops.runs import most
from jaxcnn.engines.loops.tables import Dtypes, Sizes
from jaxcnn.engines.rotation import rotated
from jaxcnn.engines.sums import sum_of
from jaxcnn.layout import (
    Integers,
    Numbers,
    over_channels,
    spatial_axes,
    spatial_size,
    turned,
    weight_layout,
    with_channels_last,
    with_spatial,
)
from jaxcnn.problem import Description
from jaxcnn.rounding import sum_dtype, widened
from jaxcnn.window import Pairs, Window

ADDS_BIAS = ANY_LAYOUT = True

MOST_RUNS = 2**14
"""To write down more of them takes over half a second."""


def refuses(description: Description) -> str | None:
    if not 1 <= len(description.window.kernel_size) <= 3:
        return "computes in one to three dimensions"
    if not jnp.issubdtype(description.dtype, jnp.floating):
        return "computes with floats only"
    if not description.is_convolution and description.window.number_of_taps > 2**15:
        return "counts no more than 32768 taps"
    is_transposed = description.name.endswith(("input_gradient", "pool_gradient"))
    runs = most(description.window, description.problem.input_size, is_transposed)
    if runs > MOST_RUNS:
        return f"writes down no more than {MOST_RUNS} runs of positions, not {runs}"
    return None


def hides_from_autodiff(description: Description) -> bool:
    """JAX cannot look into machine code."""
    return True


# --- Convolution ----------------------------------------------------------------------


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
    W, c_out = _last(W, layout), W.shape[weight_layout(layout).index("O")]
    size = spatial_size(X, layout)
    if _is_depthwise(W, groups):
        X, W = _repeated(X, c_out // groups, layout), widened(W)
        sizes = _sizes(CHANNELWISE, X, layout, window, size, _dtypes(X, W))
        return _over_taps(sizes, X, W, layout, bias)
    kind, X, W, dtypes = _factors(X, W, layout, groups)
    channels = (groups, W.shape[-2], c_out // groups)
    sizes = _sizes(kind, X, layout, window, size, dtypes, *channels)
    return _over_taps(sizes, X, _panels(W, groups, sizes.lanes), layout, bias)


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
    W, size = _last(W, layout), tuple(input_size)
    if _is_depthwise(W, groups):
        W, multiplier = widened(W), W.shape[-1] // groups
        sizes = _sizes(CHANNELWISE, dY, layout, window, size, _dtypes(dY, W))
        added = bias if multiplier == 1 else None
        dX = _over_taps(sizes, dY, W, layout, added, is_transposed=True)
        if multiplier == 1:
            return dX
        axis = layout.index("C")
        split = (*dX.shape[:axis], groups, multiplier, *dX.shape[axis + 1 :])
        dX = dX.reshape(split).sum(axis + 1)
        return dX if bias is None else dX + over_channels(widened(bias), layout)
    W_rotated = rotated(W, groups)
    kind, dY, W_rotated, dtypes = _factors(dY, W_rotated, layout, groups)
    *_, c_out, c_in = W_rotated.shape
    channels = (groups, c_in // groups, c_out)
    sizes = _sizes(kind, dY, layout, window, size, dtypes, *channels)
    panels = _panels(W_rotated, groups, sizes.lanes)
    return _over_taps(sizes, dY, panels, layout, bias, is_transposed=True)


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
    c_in, c_out = (each.shape[layout.index("C")] for each in (X, dY))
    size, channels = spatial_size(X, layout), (groups, c_in // groups, c_out // groups)
    if c_in == groups > 1:
        kind, X, channels = CHANNELWISE, _repeated(X, c_out // groups, layout), ()
        dtypes = _dtypes(X, dY)
    elif pairs.are_multiplied(X, dY):
        kind, X, dY, dtypes = PAIRED, *map(pairs.of_images, (X, dY)), pairs.DTYPES
    else:
        kind, X, dY = PRODUCT, widened(X), widened(dY)
        dtypes = _dtypes(X, dY)
    sizes = _sizes(kind, X, layout, window, size, dtypes, *channels)
    table, parts = tables.over_positions(sizes)
    name = _target("sum_over_positions", sizes, sizes.c_out)
    shape = (parts, *window.kernel_size, c_in // groups, c_out)
    order = _order(layout)
    result = jax.ShapeDtypeStruct(shape, sizes.dtypes[2])
    call = ffi_call(name, result, input_layouts=(order, order, order))
    dW = call(X, dY, dY, table=table)
    dW = sum_of(dW[part] for part in range(parts))  # all parts in one pass
    last = weight_layout(with_channels_last(layout))
    return turned(dW, last, weight_layout(layout))


def _is_depthwise(W: Numbers, groups: int) -> bool:
    return W.shape[-2] == 1 and groups > 1


def _factors(
    A: Numbers, W: Numbers, layout: str, groups: int
) -> tuple[str, Numbers, Numbers, Dtypes]:
    """What multiplies them, both as it wants them, and the dtypes of its tiles."""
    is_even = W.shape[-2] % 2 == 0 or groups == 1
    if pairs.are_multiplied(A, W) and is_even:
        return PAIRED, *pairs.of_channels(A, W, layout), pairs.DTYPES
    A, W = widened(A), widened(W)
    return PRODUCT, A, W, _dtypes(A, W)


def _dtypes(A: Numbers, B: Numbers) -> Dtypes:
    """Of A and B as they are; the result is what sums are computed in."""
    a, b = np.dtype(A.dtype), np.dtype(B.dtype)
    return a, b, sum_dtype(a, b)


def _repeated(X: Numbers, multiplier: int, layout: str) -> Numbers:
    """Each channel as often as it has output channels of its own."""
    return X if multiplier == 1 else jnp.repeat(X, multiplier, layout.index("C"))


def _panels(W: Numbers, groups: int, lanes: int) -> Numbers:
    """(K…, I, G·O) to (G, panels, taps, I, lanes): what one vector of C needs, together."""
    *_, c_in, c_out = W.shape
    W = W.reshape(-1, c_in, groups, c_out // groups)
    missing = -W.shape[-1] % lanes
    W = jnp.pad(W, [(0, 0)] * 3 + [(0, missing)])
    W = W.reshape(*W.shape[:3], -1, lanes)
    return W.transpose(2, 3, 0, 1, 4)


# --- Pooling --------------------------------------------------------------------------


def max_pool(X: Numbers, *, window: Window, layout: str) -> tuple[Numbers, Integers]:
    """Y = max_m tap(X, m), and the winner of each window."""
    sizes = _sizes(MAXIMUM, X, layout, window, spatial_size(X, layout), _alike(X))
    table = tables.over_taps(sizes, is_transposed=False)
    name, order = _target("sum_over_taps", sizes, sizes.c_out), _order(layout)
    shape = tuple(with_spatial(X.shape, sizes.output_size, layout))
    results = [jax.ShapeDtypeStruct(shape, each) for each in (X.dtype, sizes.winner)]
    call = ffi_call(name, results, input_layouts=(order,), output_layouts=(order, order))
    Y, winner = call(X, table=table)
    return Y, winner


def max_pool_gradient(
    dY: Numbers,
    winner: Integers,
    *,
    window: Window,
    input_size: Sequence[int],
    layout: str,
) -> Numbers:
    """dX = Σ_m untap(dY · [winner = m], m)"""
    size = tuple(input_size)
    return _by_winners(PLACING, dY, winner, window, layout, size, size)


def take_winners(X: Numbers, winner: Integers, *, window: Window, layout: str) -> Numbers:
    """Y = Σ_m tap(X, m) · [winner = m]"""
    sizes = spatial_size(X, layout), spatial_size(winner, layout)
    return _by_winners(TAKING, X, winner, window, layout, *sizes)


def _by_winners(
    kind: str,
    A: Numbers,
    winner: Integers,
    window: Window,
    layout: str,
    input_size: tuple[int, ...],
    result_size: tuple[int, ...],
) -> Numbers:
    dtypes = _dtypes(A, A) if kind == PLACING else _alike(A)
    sizes = _sizes(kind, A, layout, window, input_size, dtypes)
    table = tables.over_taps(sizes, is_transposed=kind == PLACING)
    name, order = _target("sum_over_taps", sizes, sizes.c_out), _order(layout)
    shape = tuple(with_spatial(A.shape, result_size, layout))
    result = jax.ShapeDtypeStruct(shape, sizes.dtypes[2])
    call = ffi_call(name, result, input_layouts=(order, order), output_layouts=order)
    return call(A, winner, table=table)


def average_pool(
    X: Numbers,
    *,
    window: Window,
    layout: str,
    counted: Pairs | None = None,
    divisor: int | float | None = None,
) -> Numbers:
    """Y = 1/n · Σ_m tap(X, m)"""
    size = spatial_size(X, layout)
    Y = _sums(X, window, layout, size, is_transposed=False)
    return Y / number_averaged(window, size, layout, counted, divisor, Y.dtype)


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
    return _sums(dY, window, layout, tuple(input_size), is_transposed=True)


def _sums(
    A: Numbers, window: Window, layout: str, size: tuple[int, ...], is_transposed: bool
) -> Numbers:
    dtype = sum_dtype(A.dtype)
    ones = jnp.ones(processor.lanes(dtype), dtype)
    sizes = _sizes(CHANNELWISE, A, layout, window, size, _dtypes(A, ones))
    return _over_taps(sizes, A, ones, layout, is_transposed=is_transposed, of_ones=True)


def _alike(A: Numbers) -> Dtypes:
    """What is chosen from A comes out as it went in."""
    dtype = np.dtype(A.dtype)
    return dtype, dtype, dtype


# --- What they share ------------------------------------------------------------------


def _over_taps(
    sizes: Sizes,
    A: Numbers,
    B: Numbers,
    layout: str,
    bias: Numbers | None = None,
    *,
    is_transposed: bool = False,
    of_ones: bool = False,
) -> Numbers:
    table = tables.over_taps(sizes, is_transposed=is_transposed, of_ones=of_ones)
    size = sizes.input_size if is_transposed else sizes.output_size
    channels = sizes.c_in if is_transposed else sizes.c_out
    shape, dtype = with_spatial(A.shape, size, layout), sizes.dtypes[2]
    shape[layout.index("C")] = channels * sizes.groups
    name = _target("sum_over_taps", sizes, channels)
    bias = jnp.zeros(channels * sizes.groups) if bias is None else bias
    order = _order(layout)
    call = ffi_call(
        name,
        jax.ShapeDtypeStruct(tuple(shape), dtype),
        input_layouts=(order, tuple(range(B.ndim)), (0,)),
        output_layouts=order,
    )
    return call(A, B, bias.astype(dtype), table=table)


def _sizes(
    kind: str,
    A: Numbers,
    layout: str,
    window: Window,
    input_size: Sequence[int],
    dtypes: Dtypes,
    groups: int = 1,
    c_in: int = 0,
    c_out: int = 0,
) -> Sizes:
    """Without channels in each group: those of A, which do not mix."""
    channels = A.shape[layout.index("C")]
    return Sizes(
        kind=kind,
        images=A.shape[0],
        window=window,
        input_size=tuple(input_size),
        output_size=window.output_size(input_size),
        groups=groups,
        c_in=c_in or channels,
        c_out=c_out or channels,
        dtypes=dtypes,
    )


def _target(nest: str, sizes: Sizes, channels: int) -> str:
    """The nest for vectors of so many channels."""
    is_partial = channels % sizes.lanes != 0
    return library.target(nest, sizes.kind, sizes.dtypes, sizes.winner, is_partial)


def _order(layout: str) -> tuple[int, ...]:
    """The axes of an image from the outermost in memory to the innermost, the channels."""
    return 0, *spatial_axes(layout), layout.index("C")


def _last(W: Numbers, layout: str) -> Numbers:
    """Weights with their channels last."""
    return turned(W, weight_layout(layout), weight_layout(with_channels_last(layout)))
