"""The equations of docs/equations.md, as explicit ``lax`` loops over the taps of a window.

Readable first: this file is what a teacher shows a class, the reference that every
faster way of computing is tested against, and what runs where there is no faster way.

Dimension key: B batch, C_in and C_out channels, H W input size, H_out W_out output
size, K_h K_w kernel size, (m, n) a tap (one kernel element), s stride, d dilation,
p padding, G groups.

The equations are written for two spatial dimensions, ``NCHW`` arrays and ``OIHW``
weights; the code serves any number of dimensions, and channels-last arrays too (``NHWC``
with ``HWIO`` weights). There is no index arithmetic here. For every output position
(i, j) at once,

    tap(X, m)    is what kernel element m sees, X[…, s·i + d·m − p, s·j + d·n − p],
    untap(Y, m)  is its transpose, which puts Y[…, i, j] back at that place

(see :mod:`jaxcnn.window`), and every equation is a sum of such terms over m.

Sums of half-precision numbers (bfloat16, float16) are computed and returned in float32,
so that the caller rounds once, at the end. JAX can differentiate everything here, in
forward and in reverse mode: that is what the hand-written rules are compared with.
"""

from collections.abc import Callable, Sequence

import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.lax import PrecisionLike
from jax.typing import DTypeLike
from jaxtyping import Array, Num

from jaxcnn.layout import (
    Integers,
    Length,
    Numbers,
    axes_but,
    channels_last,
    grouped,
    merge_channels,
    spatial_axes,
    spatial_size,
    split_channels,
    taps_of,
    weights_of,
    with_spatial,
)
from jaxcnn.rounding import sum_dtype
from jaxcnn.sharding import varying_like
from jaxcnn.window import Pairs, Window, tap, untap, valid_positions

# As an engine: it computes channels first, too, and for sizes that are symbols.
ANY_LAYOUT = ANY_SIZE = True


# --- Convolution ----------------------------------------------------------------------
#
# At one tap, what the kernel sees is multiplied by one slice of the weights. Three index
# letters say everything about that product: b (batch and position), i (input channel)
# and o (output channel).
#
#     forward           Y[b, o]  =  Σ_i   X[b, i] · W[o, i]
#     weight gradient  dW[o, i]  =  Σ_b  dY[b, o] · X[b, i]
#     input gradient   dX[b, i]  =  Σ_o  dY[b, o] · W[o, i]
#
# It is one product of three arrays; each sum has another of the three as its result.
# With groups there is a fourth letter, g, that all three arrays share: the g-th run of
# C_out/G output channels sees only the g-th run of C_in/G input channels.


def forward(
    X: Numbers,
    W: Numbers,
    *,
    window: Window,
    layout: str,
    groups: int = 1,
    precision: PrecisionLike = None,
) -> Numbers:
    """The convolution without its bias: the kernel slides over the input.

        Y[b, c_out, i, j] = Σ_{c_in} Σ_{m,n} W[c_out, c_in, m, n]
                                             · X[b, c_in, s·i + d·m − p, s·j + d·n − p]

    or, over taps, ``Y = Σ_m tap(X, m) · W[m]``.

    Args:
      X: (B, C_in, H, W).
      W: (C_out, C_in/groups, K_h, K_w).
      window: the sliding window.
      layout: ``"NCHW"`` or ``"NHWC"``, or the like in another number of dimensions.
      groups: G, which divides C_in and C_out.
      precision: as for ``jax.lax.dot_general``.

    Returns:
      Y: (B, C_out, H_out, W_out).

    Source: docs/equations.md, "Convolution".
    """
    x, w, y = _letters(layout)
    X = split_channels(X, groups, layout)

    def at_tap(m, W_m):
        seen = tap(X, m, window, grouped(layout))
        return _product(f"{x},{w}->{y}", seen, W_m, precision)

    Y = _sum_over(at_tap, window.offsets(), taps_of(W, groups, layout))
    return merge_channels(Y, layout)


def bias_gradient(dY: Numbers, *, layout: str) -> Numbers:
    """The bias is added at every position: its gradient is the sum over all of them.

        db[c_out] = Σ_b Σ_{i,j} dY[b, c_out, i, j]

    Args:
      dY: (B, C_out, H_out, W_out), the gradient that arrives from the next layer.
      layout: as for :func:`forward`.

    Returns:
      db: (C_out,).

    Source: docs/equations.md, "Bias gradient".
    """
    return jnp.sum(dY, axis=axes_but("C", layout), dtype=sum_dtype(dY.dtype))


def weight_gradient(
    X: Numbers,
    dY: Numbers,
    *,
    window: Window,
    layout: str,
    groups: int = 1,
    precision: PrecisionLike = None,
) -> Numbers:
    """The input, correlated with the gradient that arrives.

        dW[c_out, c_in, m, n] = Σ_b Σ_{i,j} dY[b, c_out, i, j]
                                            · X[b, c_in, s·i + d·m − p, s·j + d·n − p]

    or, tap by tap, ``dW[m] = Σ_{batch, positions} tap(X, m) ⊗ dY``.

    Args:
      X: (B, C_in, H, W).
      dY: (B, C_out, H_out, W_out).
      window, layout, groups, precision: as for :func:`forward`.

    Returns:
      dW: (C_out, C_in/groups, K_h, K_w).

    Source: docs/equations.md, "Weight gradient".
    """
    x, w, y = _letters(layout)
    X = split_channels(X, groups, layout)
    dY = split_channels(dY, groups, layout)

    def at_tap(m):
        seen = tap(X, m, window, grouped(layout))
        return _product(f"{x},{y}->{w}", seen, dY, precision)

    dW = lax.map(at_tap, window.offsets())
    return weights_of(dW, window.kernel_size, layout)


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
    """Every input pixel collects from the outputs that it fed.

        dX[b, c_in, k, l] = Σ_{c_out} Σ_{m,n} dY[b, c_out, i, j] · W[c_out, c_in, m, n]

            with i = (k + p − d·m)/s and j = (l + p − d·n)/s,
            only where both are whole numbers (and lie in the output)

    or, over taps, ``dX = Σ_m untap(dY · W[m], m)``: the "full" convolution of dY with
    the kernel rotated by 180°.

    Args:
      dY: (B, C_out, H_out, W_out).
      W: (C_out, C_in/groups, K_h, K_w).
      input_size: (H, W), which the output size alone does not tell when s > 1.
      window, layout, groups, precision: as for :func:`forward`.

    Returns:
      dX: (B, C_in, H, W).

    Source: docs/equations.md, "Input gradient".
    """
    x, w, y = _letters(layout)
    dY = split_channels(dY, groups, layout)

    def at_tap(m, W_m):
        # W first: the other way round XLA has no product of bfloat16 channels-first.
        share = _product(f"{w},{y}->{x}", W_m, dY, precision)
        return untap(share, m, window, input_size, grouped(layout))

    dX = _sum_over(at_tap, window.offsets(), taps_of(W, groups, layout))
    return merge_channels(dX, layout)


# --- Patches --------------------------------------------------------------------------


def unfold(X: Numbers, *, window: Window, layout: str) -> Numbers:
    """What every tap sees, side by side: "im2col".

        P[b, m, c, i, j] = tap(X, m)[b, c, i, j]

    With it a convolution is one matrix product: Y = W · P, summed over (m, c).

    Args:
      X: (B, C, H, W).
      window, layout: as for :func:`forward`.

    Returns:
      P: (B, K_h·K_w, C, H_out, W_out), taps beside channels, in ``grouped(layout)``.
    """
    P = lax.map(lambda m: tap(X, m, window, layout), window.offsets())
    return jnp.moveaxis(P, 0, layout.index("C"))


def fold(
    P: Numbers, *, window: Window, input_size: Sequence[Length], layout: str
) -> Numbers:
    """The transpose of :func:`unfold`: add up what every tap saw, where it saw it.

        X = Σ_m untap(P[m], m)

    Args:
      P: (B, K_h·K_w, C, H_out, W_out), in ``grouped(layout)``.
      window, input_size, layout: as for :func:`input_gradient`.

    Returns:
      X: (B, C, H, W).
    """
    P = P.astype(sum_dtype(P.dtype))
    by_tap = jnp.moveaxis(P, layout.index("C"), 0)

    def at_tap(m, P_m):
        return untap(P_m, m, window, input_size, layout)

    return _sum_over(at_tap, window.offsets(), by_tap)


# --- Pooling --------------------------------------------------------------------------


def max_pool(X: Numbers, *, window: Window, layout: str) -> tuple[Numbers, Integers]:
    """The largest value that the window sees, and which tap saw it.

        Y[b, c, i, j] = max_{m,n} X[b, c, s·i + d·m − p, s·j + d·n − p]

    Of several equal maxima the first in row-major order of (m, n) wins; a NaN beats
    every number; padding never wins.

    Args:
      X: (B, C, H, W).
      window, layout: as for :func:`forward`.

    Returns:
      Y: (B, C, H_out, W_out), and the winner: of Y's shape, the position of (m, n) in
      row-major order, in the smallest signed integer type that holds it. Where a window
      sees nothing but padding, Y is −∞ and the winner −1.

    Source: docs/equations.md, "Max pooling".
    """
    input_size = spatial_size(X, layout)
    index = np.arange(window.number_of_taps, dtype=winner_dtype(window))

    def challenge(best, index_and_m):
        champion, winner = best
        index, m = index_and_m
        value = tap(X, m, window, layout)
        inside = valid_positions(m, window, input_size, layout)
        first_nan = jnp.isnan(value) & ~jnp.isnan(champion)
        wins = inside & ((value > champion) | first_nan | (winner < 0))
        return (jnp.where(wins, value, champion), jnp.where(wins, index, winner)), None

    shape = with_spatial(X.shape, window.output_size(input_size), layout)
    nobody = (
        varying_like(jnp.full(shape, lowest(X.dtype)), X),
        varying_like(jnp.full(shape, -1, index.dtype), X),
    )
    best, _ = lax.scan(challenge, nobody, (index, window.offsets()))
    return best


def max_pool_gradient(
    dY: Numbers,
    winner: Integers,
    *,
    window: Window,
    input_size: Sequence[Length],
    layout: str,
) -> Numbers:
    """The gradient goes to the position of the maximum, and nowhere else.

        dX[b, c, k, l] = Σ_{m,n} dY[b, c, i, j] · [winner[b, c, i, j] = (m, n)],
            (i, j) as in :func:`input_gradient`

    or, over taps, ``dX = Σ_m untap(dY · [winner = m], m)``.

    Args:
      dY: (B, C, H_out, W_out).
      winner: of dY's shape, from :func:`max_pool`.
      window, input_size, layout: as for :func:`input_gradient`.

    Returns:
      dX: (B, C, H, W).

    Source: docs/equations.md, "Max pooling".
    """
    dY = dY.astype(sum_dtype(dY.dtype))

    def at_tap(index, m):
        return untap(jnp.where(winner == index, dY, 0), m, window, input_size, layout)

    index = np.arange(window.number_of_taps, dtype=winner.dtype)
    return _sum_over(at_tap, index, window.offsets())


def take_winners(X: Numbers, winner: Integers, *, window: Window, layout: str) -> Numbers:
    """The transpose of :func:`max_pool_gradient`: read X where the winners are.

        Y[b, c, i, j] = Σ_{m,n} X[b, c, s·i + d·m − p, s·j + d·n − p]
                                · [winner[b, c, i, j] = (m, n)]

    Args:
      X: (B, C, H, W).
      winner: (B, C, H_out, W_out), from :func:`max_pool`.
      window, layout: as for :func:`forward`.

    Returns:
      Y: (B, C, H_out, W_out).
    """

    def at_tap(index, m):
        return jnp.where(winner == index, tap(X, m, window, layout), 0)

    index = np.arange(window.number_of_taps, dtype=winner.dtype)
    return _sum_over(at_tap, index, window.offsets())


def average_pool(
    X: Numbers,
    *,
    window: Window,
    layout: str,
    counted: Pairs | None = None,
    divisor: int | float | None = None,
) -> Numbers:
    """The average of what the window sees.

        Y[b, c, i, j] = 1/n[i, j] · Σ_{m,n} X[b, c, s·i + d·m − p, s·j + d·n − p]

    Args:
      X: (B, C, H, W).
      window, layout: as for :func:`forward`.
      counted: the padding (low, high) that counts as input; n is how many taps lie in
        the input so enlarged. None counts all taps, so that n is always K_h·K_w.
      divisor: n itself, whatever the taps see.

    Returns:
      Y: (B, C, H_out, W_out).
    """
    input_size = spatial_size(X, layout)
    X = X.astype(sum_dtype(X.dtype))
    n = _divisor(window, input_size, layout, counted, divisor, X.dtype)
    return _sum_over(lambda m: tap(X, m, window, layout), window.offsets()) / n


def average_pool_gradient(
    dY: Numbers,
    *,
    window: Window,
    input_size: Sequence[Length],
    layout: str,
    counted: Pairs | None = None,
    divisor: int | float | None = None,
) -> Numbers:
    """Every position that was averaged receives an equal share.

        dX[b, c, k, l] = Σ_{m,n} dY[b, c, i, j] / n[i, j],
            (i, j) as in :func:`input_gradient`

    or, over taps, ``dX = Σ_m untap(dY / n, m)``.

    Args:
      dY: (B, C, H_out, W_out).
      window, input_size, layout: as for :func:`input_gradient`.
      counted, divisor: as for :func:`average_pool`.

    Returns:
      dX: (B, C, H, W).

    Source: docs/equations.md, "Average pooling".
    """
    dY = dY.astype(sum_dtype(dY.dtype))
    share = dY / _divisor(window, input_size, layout, counted, divisor, dY.dtype)
    return _sum_over(
        lambda m: untap(share, m, window, input_size, layout), window.offsets()
    )


def _divisor(
    window: Window,
    input_size: Sequence[Length],
    layout: str,
    counted: Pairs | None,
    divisor: int | float | None,
    dtype: DTypeLike,
) -> Numbers:
    """n: by how much an average divides, in a shape that broadcasts against Y."""
    if counted is None or divisor is not None:
        return jnp.asarray(window.number_of_taps if divisor is None else divisor, dtype)
    inner, size = window.within(counted, input_size)
    return _sum_over(
        lambda m: valid_positions(m, inner, size, layout).astype(dtype),
        window.offsets(),
    )


# --- What the equations are built from ------------------------------------------------


def _sum_over(at_tap: Callable[..., Numbers], *taps: Numbers | np.ndarray) -> Numbers:
    """Σ_m at_tap(m): a loop over the taps that keeps a running sum."""

    def add(total, tap_m):
        return total + at_tap(*tap_m), None

    total = at_tap(*(each[0] for each in taps))
    total, _ = lax.scan(add, total, tuple(each[1:] for each in taps))
    return total


def _product(formula: str, a: Numbers, b: Numbers, precision: PrecisionLike) -> Numbers:
    known = {"precision": precision, "preferred_element_type": sum_dtype(a.dtype)}
    of_a, of_b, of_y = (each.index("g") for each in formula.replace("->", ",").split(","))
    if a.shape[of_a] > 1:
        return jnp.einsum(formula, a, b, **known)
    # A group alone is a product of matrices, which XLA knows best without its index.
    a, b = a.squeeze(of_a), b.squeeze(of_b)
    return jnp.expand_dims(jnp.einsum(formula.replace("g", ""), a, b, **known), of_y)


def _letters(layout: str) -> tuple[str, str, str]:
    """The einsum indices of X, of one tap's weights, and of Y.

    >>> _letters("NCHW"), _letters("NHWC")
    (('bgiyx', 'goi', 'bgoyx'), ('byxgi', 'igo', 'byxgo'))
    """
    positions = "stuvwzyx"[8 - len(spatial_axes(layout)) :]
    if channels_last(layout):
        return f"b{positions}gi", "igo", f"b{positions}go"
    return f"bgi{positions}", "goi", f"bgo{positions}"


def lowest(dtype: DTypeLike) -> Num[Array, ""]:
    """Where a search for a maximum starts: −∞, or the smallest integer."""
    if jnp.issubdtype(dtype, jnp.floating):
        return jnp.asarray(-jnp.inf, dtype)
    return jnp.asarray(jnp.iinfo(dtype).min, dtype)


def winner_dtype(window: Window) -> jnp.dtype:
    """The smallest signed integer type that holds every tap's number, and −1."""
    taps = window.number_of_taps
    return np.min_scalar_type(-taps) if isinstance(taps, int) else np.dtype("int32")
