"""Patches times weights: a convolution as one matrix product, a block at a time.

What the taps see at an output position is its patch, a row of K²·C_in numbers. A
convolution is the product of all patches P with the weights as a matrix (the "im2col" of
Chellapilla, Puri and Simard, 2006):

    forward           Y  = P(X)·W
    weight gradient   dW = P(X)ᵀ·dY
    input gradient    dX = P(dY)·rotated(W)

The patches are K² copies of the image. Where the result has fewer channels than the image,
it is cheaper to multiply first: then K² products of each pixel are added up where they
belong, and the copies are those of the result (``fold``, the transpose of P):

    forward           Y  = fold(X·W)
    weight gradient   dW = Xᵀ·P(dY), rotated
    input gradient    dX = fold(dY·rotated(W))

Both patches and their sums are made along one dimension after the other, so that K_h + K_w
terms are written out, not K_h·K_w. Only a few images, or rows of one, are worked on at a
time: what is temporary stays in the cache, where it costs a fraction of what the product
does.
"""

import math
from collections.abc import Iterator, Sequence
from functools import partial

import jax.numpy as jnp
from jax import lax
from jax.lax import PrecisionLike

from jaxcnn.engines.groups import group_by_group
from jaxcnn.engines.memory import Blocks
from jaxcnn.engines.rotation import by_rotation, rotated, window_over_outputs
from jaxcnn.engines.sums import sum_of, sum_of_outer_products
from jaxcnn.layout import Length, Numbers, spatial_size
from jaxcnn.problem import Description
from jaxcnn.rounding import sum_dtype
from jaxcnn.window import Window, padded, tap, untap

MAX_TERMS = 128
"""With more of them written out, compiling takes too long."""


def refuses(description: Description) -> str | None:
    terms = sum(description.window.kernel_size)
    if terms > MAX_TERMS:
        return (
            f"writes out no more than {MAX_TERMS} rows and columns of taps, and here they "
            f"are {terms}"
        )
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
    """Y = P(X)·W, or fold(X·W)."""
    X, W = (each.astype(sum_dtype(each.dtype)) for each in (X, W))
    multiplies_first = _is_result_thinner(window, spatial_size(X, layout), X, W)

    @group_by_group
    def product(X: Numbers, W: Numbers, window: Window) -> Numbers:
        if multiplies_first:
            columns = jnp.moveaxis(W, -2, 0).reshape(W.shape[-2], -1)
            products = jnp.matmul(X, columns, precision=precision)
            return _folded(lax.optimization_barrier(products), window, layout)
        W = W.reshape(-1, W.shape[-1])
        return jnp.matmul(patches(X, window, layout), W, precision=precision)

    channels = W.shape[-1] if multiplies_first else X.shape[-1]
    blocks = Blocks(X, window, layout, _copies(window) * channels)
    return blocks.put_together(
        lambda X, window: product(X, W, groups=groups, window=window), X
    )


def weight_gradient(
    X: Numbers,
    dY: Numbers,
    *,
    window: Window,
    layout: str,
    groups: int = 1,
    precision: PrecisionLike = None,
) -> Numbers:
    """dWᵀ = dYᵀ·P(X), or Xᵀ·P(dY) rotated."""
    X, dY = (each.astype(sum_dtype(each.dtype)) for each in (X, dY))
    input_size = spatial_size(X, layout)
    known = {"layout": layout, "groups": groups, "precision": precision}
    if _is_result_thinner(window, input_size, X, dY):
        over_outputs = window_over_outputs(window, input_size, spatial_size(dY, layout))
        return rotated(weight_gradient(dY, X, window=over_outputs, **known), groups)

    def product(X: Numbers, dY: Numbers, window: Window) -> Numbers:
        return sum_of_outer_products(dY, patches(X, window, layout), precision)

    products = partial(group_by_group(product, 0), groups=groups)
    blocks = Blocks(X, window, layout, _copies(window) * X.shape[-1])
    dW_t = blocks.sum_over(lambda X, dY, window: products(X, dY, window=window), X, dY)
    return dW_t.T.reshape(*window.kernel_size, X.shape[-1] // groups, dY.shape[-1])


input_gradient = by_rotation(forward)


def _is_result_thinner(
    window: Window, input_size: Sequence[Length], X: Numbers, Y: Numbers
) -> bool:
    """Whether K² copies of the result are less than K² copies of X, for a stride of one."""
    outputs = math.prod(window.output_size(input_size))
    size = outputs * X.shape[-1], math.prod(input_size) * Y.shape[-1]
    return set(window.stride) == {1} and size[1] < size[0]


def unfold(X: Numbers, *, window: Window, layout: str) -> Numbers:
    """P: (B, H_out…, K, C)."""
    X, window = padded(X, window, layout)
    return jnp.stack([tap(X, m, window, layout) for m in window.offsets()], -2)


def fold(P: Numbers, *, window: Window, input_size: Sequence[int], layout: str) -> Numbers:
    """X = Σ_m untap(P[m], m)"""
    P = P.astype(sum_dtype(P.dtype))
    return sum_of(
        untap(P[..., number, :], m, window, input_size, layout)
        for number, m in enumerate(window.offsets())
    )


def patches(X: Numbers, window: Window, layout: str) -> Numbers:
    """P (B, H_out…, K…·C_in): what every tap sees, beside each other."""
    for along in reversed(list(_along_each(window))):
        X, one = padded(X, along, layout)
        X = lax.optimization_barrier(X)  # padded once, not once for every tap
        X = jnp.concatenate([tap(X, m, one, layout) for m in one.offsets()], -1)
    return lax.optimization_barrier(X)


def _folded(P: Numbers, window: Window, layout: str) -> Numbers:
    """Σ_m tap(P[m], m), of (B, H…, K…·C)."""
    for one in _along_each(window):
        shares = jnp.split(P, one.number_of_taps, -1)
        P = sum_of(
            tap(share, m, one, layout)
            for share, m in zip(shares, one.offsets(), strict=True)
        )
        P = lax.optimization_barrier(P)
    return P


def _copies(window: Window) -> int:
    """How many copies patches are; none where they are the image itself."""
    return window.number_of_taps if any(_along_each(window)) else 0


def _along_each(window: Window) -> Iterator[Window]:
    """The window along one dimension after the other, but where it changes nothing."""
    for dimension in range(len(window.kernel_size)):
        one = window.only(dimension)
        if one.number_of_taps > 1 or one.is_padded or set(one.stride) != {1}:
            yield one
