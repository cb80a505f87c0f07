"""What a user may write for poolings and patches: more of the strategies."""

import math

import jax.numpy as jnp
from hypothesis import assume
from hypothesis import strategies as st

import jaxcnn
from tests import oracles
from tests.random_cases.cases import Case, Window
from tests.random_cases.strategies import (
    MOST_MORE,
    MOST_TAPS,
    as_pairs,
    at_most,
    batches,
    common,
    extents,
    function_of,
    named,
    one_for_each,
    paddings,
    sizes,
    windows,
)

# --- Poolings -------------------------------------------------------------------------


def rounded_up(window, size):
    """The window with all the padding that ``ceil_mode`` needs, its positions counted.

    One more counts where the one before left something unseen, if it begins before the
    padding after the input.
    """
    pairs = []
    entries = zip(window.stride, extents(window), window.padding, size, strict=True)
    for s, extent, (low, high), h in entries:
        i = 0
        while s * (i - 1) + extent < h + low + high and s * i - low < h:
            i += 1
        pairs.append((low, s * (i - 1) + extent - h - low))
    return window._replace(padding=tuple(pairs))


@st.composite
def pool_windows(draw, n, has_padding, has_dilation, is_torchs):
    """The input's size, what is written, the window, and the padding that is asked for.

    PyTorch pads both sides alike, by at most half the window.
    """
    kernel_size = draw(one_for_each(n, st.integers(1, MOST_TAPS[n])))
    stride = draw(st.just((None, kernel_size[1])) | one_for_each(n, st.integers(1, 3)))
    most = 2 if has_dilation else 1
    dilation = draw(one_for_each(n, st.integers(1, most)))
    ceil_mode = draw(st.booleans())
    bare = Window(kernel_size[1], stride[1], ((0, 0),) * n, dilation[1])
    if is_torchs:
        half = [k // 2 if has_padding else 0 for k in bare.kernel_size]
        padding, each = draw(at_most(half))
        pairs = tuple((p, p) for p in each)
    else:
        padding, pairs = draw(paddings(n, -1, max(kernel_size[1]) - 1))
    size = draw(sizes(bare, padding, pairs, beyond=ceil_mode))
    asked = named(padding, size, bare) if pairs is None else pairs
    assume(not ceil_mode or min(high for _, high in asked) >= 0)  # which is refused
    window = bare._replace(padding=asked)
    if ceil_mode:
        window = rounded_up(window, size)
    out = oracles.output_size(size, window)
    # A window that sees nothing but padding is refused.
    everywhere = (oracles.seen_from(i, window, size) for i in oracles.positions(out))
    assume(min(out) >= 1 and all(everywhere))
    options = {"kernel_size": kernel_size[0], "stride": stride[0], "padding": padding}
    options |= {"dilation": dilation[0], "ceil_mode": ceil_mode}
    return size, options, window, asked


@st.composite
def pools(draw, kind, is_torchs=False):
    """max_pool, avg_pool and lp_pool; with only what PyTorch takes, if that is asked."""
    n = draw(st.integers(1, 3))
    shared = draw(common(n))
    has_dilation = kind == "max_pool" or not is_torchs
    size, options, window, asked = draw(
        pool_windows(n, kind != "lp_pool", has_dilation, is_torchs)
    )
    if is_torchs and n == 3 and kind != "max_pool":  # it wants the input as large as that
        assume(all(h >= k for h, k in zip(size, window.kernel_size, strict=True)))
    values = "normal"
    if kind == "max_pool":
        values = draw(st.sampled_from(["normal", "rounded"]))
        options["return_indices"] = True
    if kind == "avg_pool":
        options["count_include_pad"] = draw(st.booleans())
        if n > 1 or not is_torchs:
            divisors = [None, 1, 7, -3] if is_torchs else [None, 1, 2.5, -3]
            options["divisor_override"] = draw(st.sampled_from(divisors))
    if kind == "lp_pool":
        p = options["norm_type"] = draw(st.sampled_from([1, 2, 3, 4.0, 1.5, 0.5]))
        values = "normal" if p in (2, 4) else "positive"
    counted = asked if options.get("count_include_pad", True) else ((0, 0),) * n
    shape = (draw(batches(shared)), draw(st.integers(1, 4)))
    return Case(
        function_of(kind, n),
        draw(as_pairs(options, shared)),
        **shared,
        shapes=((*shape, *size),),
        out_shape=(*shape, *oracles.output_size(size, window)),
        window=window,
        counted=counted,
        values=values,
    )


def pooled_and_put_back(x, kernel_size, stride, padding, ceil_mode, layout, **options):
    """Max pooling and its inverse, one after the other."""
    pool, unpool = (
        function_of(each, len(layout) - 2) for each in ("max_pool", "max_unpool")
    )
    window = (kernel_size, stride, padding)
    pooled, indices = pool(
        x, *window, ceil_mode=ceil_mode, return_indices=True, layout=layout
    )
    return unpool(pooled, indices, *window, layout=layout, **options)


@st.composite
def unpools(draw):
    """max_unpool of what max_pool returns, with the size, or where it is not needed."""
    n = draw(st.integers(1, 3))
    shared = draw(common(n))
    size, options, window, asked = draw(pool_windows(n, True, False, is_torchs=True))
    del options["dilation"]
    # The windows cover as much as the input and its padding, where nothing else is said.
    whole = zip(
        window.stride, oracles.output_size(size, window), extents(window), strict=True
    )
    covered = [s * (out - 1) + extent for s, out, extent in whole]
    exact = tuple(h - sum(pair) for h, pair in zip(covered, asked, strict=True))
    near = zip(size, exact, window.stride, strict=True)
    assume(all(abs(h - e) < s for h, e, s in near))  # … on which PyTorch insists
    if exact != size or draw(st.booleans()):
        options["output_size"] = size
    shape = (draw(batches(shared)), draw(st.integers(1, 4)), *size)
    return Case(
        pooled_and_put_back,
        # By the rule: where windows overlap, JAX's own gradient is another.
        tuple(options.items()),
        **shared,
        shapes=(shape,),
        out_shape=shape,
        window=window,
        counted=asked,
        values=draw(st.sampled_from(["normal", "rounded"])),
    )


@st.composite
def adaptive_pools(draw, kind):
    """adaptive_max_pool and adaptive_avg_pool: to sizes larger than the input's, too."""
    n = draw(st.integers(1, 3))
    shared = draw(common(n))
    size = draw(st.tuples(*[st.integers(1, MOST_MORE[n] + 3)] * n))
    written, wanted = draw(one_for_each(n, st.none() | st.integers(1, MOST_MORE[n] + 3)))
    options = {"output_size": written}
    if kind == "adaptive_max_pool":
        options["return_indices"] = True
    shape = (draw(batches(shared)), draw(st.integers(1, 4)))
    return Case(
        function_of(kind, n),
        draw(as_pairs(options, shared)),
        **shared,
        shapes=((*shape, *size),),
        out_shape=(*shape, *(w or h for w, h in zip(wanted, size, strict=True))),
        values=draw(st.sampled_from(["normal", "rounded"])),
    )


# --- Patches --------------------------------------------------------------------------
#
# (B, C·K, positions) are images (B, C, K, positions) here, and likewise channels last.


def unfolded(x, layout, kernel_size, **options):
    p = jaxcnn.unfold(x, kernel_size, layout=layout, **options)
    if layout.endswith("C"):
        return jnp.swapaxes(p.reshape(*p.shape[:-1], -1, x.shape[-1]), -3, -2)
    return p.reshape(*x.shape[: 2 - len(layout)], -1, p.shape[-1])


def folded(p, layout, **options):
    if layout.endswith("C"):
        p = jnp.swapaxes(p, -3, -2)
        return jaxcnn.fold(p.reshape(*p.shape[:-2], -1), layout=layout, **options)
    p = p.reshape(*p.shape[:-3], -1, p.shape[-1])
    return jaxcnn.fold(p, layout=layout, **options)


@st.composite
def patches(draw, function, dimensions=3):
    """unfold and fold, of so many dimensions at most."""
    n = draw(st.integers(1, dimensions))
    shared = draw(common(n))
    size, options, window = draw(windows(n))
    options["kernel_size"] = window.kernel_size
    if len(set(window.kernel_size)) == 1 and draw(st.booleans()):
        options["kernel_size"] = window.kernel_size[0]
    shape = (draw(batches(shared)), draw(st.integers(1, 4)))
    positions = math.prod(oracles.output_size(size, window))
    images, unfolded_images = (
        (*shape, *size),
        (*shape, math.prod(window.kernel_size), positions),
    )
    if function is folded:
        images, unfolded_images = unfolded_images, images
        options["output_size"] = size
    return Case(
        function,
        draw(as_pairs(options, shared)),
        **shared,
        shapes=(images,),
        out_shape=unfolded_images,
        window=window,
    )
