"""What a user may write, drawn by hypothesis: the strategies of the random cases.

Whatever has two forms is drawn as a pair: what is written, and what it means.
"""

from hypothesis import assume
from hypothesis import strategies as st

import jaxcnn
from jaxcnn.layout import LAYOUTS
from tests import oracles
from tests.random_cases.cases import Case, Window

# How large things get, by number of dimensions: compiling takes longer for larger ones.
MOST_TAPS = {1: 4, 2: 3, 3: 2}
MOST_MORE = {1: 5, 2: 3, 3: 2}

DTYPES = st.sampled_from(["float64"] * 3 + ["float32", "bfloat16", "float16"])
NAMES = ("SAME", "SAME_LOWER", "VALID", "same", "Valid")


def one_for_each(n, numbers):
    """A number for all dimensions, or one for each."""
    together = numbers.map(lambda number: (number, (number,) * n))
    apart = st.tuples(*[numbers] * n).map(lambda each: (each, each))
    return together | apart


def at_most(limits):
    """A number for all dimensions, or one for each, from zero to what each allows."""
    together = st.integers(0, min(limits)).map(lambda each: (each, (each,) * len(limits)))
    apart = st.tuples(*(st.integers(0, limit) for limit in limits))
    return together | apart.map(lambda each: (each, each))


def paddings(n, least, most, names=NAMES):
    """A padding, and its (low, high) pairs: None for a name, which depends on the size."""
    numbers = st.integers(least, most)
    pairs = st.tuples(*[st.tuples(numbers, numbers)] * n)
    return st.one_of(
        one_for_each(n, numbers).map(lambda p: (p[0], tuple((k, k) for k in p[1]))),
        pairs.map(lambda each: (each, each)),
        st.sampled_from(names).map(lambda name: (name, None)),
    )


def named(name, size, window):
    """The pairs that a name means for an input of this size."""
    if name.upper() == "CAUSAL":
        return tuple((extent - 1, 0) for extent in extents(window))
    return oracles.lax_padding(name.upper(), size, window)


def extents(window):
    return [
        d * (k - 1) + 1 for k, d in zip(window.kernel_size, window.dilation, strict=True)
    ]


@st.composite
def sizes(draw, bare, padding, pairs, beyond=False):
    """The size of an input that a window with this padding fits, or reaches ``beyond``."""
    n = len(bare.kernel_size)
    least = [1] * n
    if pairs is not None or padding.upper() == "VALID":
        entries = zip(extents(bare), bare.stride, pairs or [(0, 0)] * n, strict=True)
        least = [max(1, e - sum(p) - (s - 1 if beyond else 0)) for e, s, p in entries]
    return tuple(h + draw(st.integers(0, MOST_MORE[n])) for h in least)


@st.composite
def common(draw, n, dtypes=DTYPES):
    """What every case has besides its shapes."""
    dtype = draw(dtypes)
    return {
        "layout": draw(st.sampled_from(LAYOUTS[n])),
        "dtype": dtype,
        "out_dtype": dtype,
        "is_batch": draw(st.booleans()),
        "seed": draw(st.integers(0, 2**32 - 1)),
    }


def batches(shared):
    return st.integers(1, 3) if shared["is_batch"] else st.just(1)


def biases(channels):
    """The shapes of a bias, or none."""
    return st.sampled_from([[], [(channels,)]])


@st.composite
def preference(draw, shared, options):
    """Now and then, a result of another dtype: written and meant."""
    wider = "float32" if shared["dtype"] in ("bfloat16", "float16") else "float64"
    if draw(st.integers(0, 3)) == 3:
        options["preferred_element_type"] = shared["out_dtype"] = wider


@st.composite
def as_pairs(draw, options, shared):
    """The options; now and then without the hand-written rule, which is as exact there."""
    if shared["dtype"] == "float64" and draw(st.integers(0, 3)) == 3:
        options = {**options, "derivatives": "autodiff"}
    return tuple(options.items())


def function_of(name, n):
    return getattr(jaxcnn, f"{name}{n}d")


# --- Convolutions ---------------------------------------------------------------------


@st.composite
def windows(draw, n, padding_mode="zeros"):
    """A window over an input that it fits: its size, what is written, the window."""
    kernel_size = draw(st.tuples(*[st.integers(1, MOST_TAPS[n])] * n))
    stride = draw(one_for_each(n, st.integers(1, 3)))
    dilation = draw(one_for_each(n, st.integers(1, 3)))
    limits = (-2, 4) if padding_mode == "zeros" else (0, 2)
    padding, pairs = draw(paddings(n, *limits, (*NAMES, "CAUSAL") if n == 1 else NAMES))
    bare = Window(kernel_size, stride[1], ((0, 0),) * n, dilation[1])
    size = draw(sizes(bare, padding, pairs))
    if pairs is None:
        pairs = named(padding, size, bare)
    most = [h - (padding_mode == "reflect") for h in size]
    is_filled = all(max(pair) <= h for pair, h in zip(pairs, most, strict=True))
    assume(padding_mode in ("zeros", "replicate") or is_filled)
    options = {"stride": stride[0], "padding": padding, "dilation": dilation[0]}
    return size, options, Window(kernel_size, stride[1], pairs, dilation[1])


@st.composite
def convolutions(draw, is_plain=False):
    """conv and depthwise_conv, with all that can be asked of them or of their gradients."""
    n = draw(st.integers(1, 3))
    shared = draw(common(n))
    modes = (
        ["zeros"] if is_plain else ["zeros", "zeros", "reflect", "replicate", "circular"]
    )
    mode = draw(st.sampled_from(modes))
    size, options, window = draw(windows(n, mode))
    groups, c_in, c_out = draw(st.tuples(*map(st.integers, (1, 1, 1), (3, 2, 2))))
    is_depthwise = not is_plain and draw(st.integers(0, 3)) == 3
    if mode != "zeros":
        options["padding_mode"] = mode
    if is_depthwise:
        c_in = 1
    else:
        options["groups"] = groups
        if not is_plain:
            draw(preference(shared, options))
    batch = draw(batches(shared))
    w_shape = (groups * c_out, c_in, *window.kernel_size)
    return Case(
        function_of("depthwise_conv" if is_depthwise else "conv", n),
        draw(as_pairs(options, shared)),
        **shared,
        shapes=((batch, groups * c_in, *size), w_shape, *draw(biases(w_shape[0]))),
        out_shape=(batch, groups * c_out, *oracles.output_size(size, window)),
        window=window,
        groups=groups,
        padding_mode=mode,
    )


@st.composite
def separable_convolutions(draw):
    """separable_conv: a half is rounded twice by it, and so left out."""
    n = draw(st.integers(1, 3))
    shared = draw(common(n, st.sampled_from(["float64", "float64", "float32"])))
    size, options, window = draw(windows(n))
    batch = draw(batches(shared))
    channels, multiplier, c_out = draw(st.tuples(*map(st.integers, (1, 1, 1), (3, 2, 3))))
    inner = channels * multiplier
    return Case(
        function_of("separable_conv", n),
        draw(as_pairs(options, shared)),
        **shared,
        shapes=(
            (batch, channels, *size),
            (inner, 1, *window.kernel_size),
            (c_out, inner, *[1] * n),
            *draw(biases(c_out)),
        ),
        out_shape=(batch, c_out, *oracles.output_size(size, window)),
        window=window,
        groups=channels,
    )


def transposed_size(size, bare, padding, pairs):
    """The size of the result, without ``output_padding``; of names, s·H or what is seen."""
    each = list(zip(size, bare.stride, extents(bare), strict=True))
    if pairs is not None:
        whole = [s * (h - 1) + extent for h, s, extent in each]
        return [h - sum(pair) for h, pair in zip(whole, pairs, strict=True)]
    if padding.upper() == "VALID":
        return [s * h + max(extent - s, 0) for h, s, extent in each]
    return [s * h for h, s, _ in each]


@st.composite
def transposed_convolutions(draw):
    """conv_transpose; ``window`` is that of the convolution from the result to x."""
    n = draw(st.integers(1, 3))
    shared = draw(common(n))
    kernel_size = draw(st.tuples(*[st.integers(1, MOST_TAPS[n])] * n))
    stride = draw(one_for_each(n, st.integers(1, 3)))
    dilation = draw(one_for_each(n, st.integers(1, 3)))
    padding, pairs = draw(paddings(n, -2, 3))
    bare = Window(kernel_size, stride[1], ((0, 0),) * n, dilation[1])
    size = draw(st.tuples(*[st.integers(1, 4)] * n))
    larger = map(max, stride[1], dilation[1])
    extra = draw(at_most([most - 1 for most in larger]))
    out = transposed_size(size, bare, padding, pairs)
    if pairs is None:
        pairs = named(padding, out, bare)
    out = [h + e for h, e in zip(out, extra[1], strict=True)]
    assume(min(out) >= 1)
    whole = zip(stride[1], size, extents(bare), strict=True)
    whole = [s * (h - 1) + extent for s, h, extent in whole]
    cropped = zip(whole, out, pairs, strict=True)
    pairs = tuple((low, h - low - cut) for h, cut, (low, _) in cropped)
    groups, c_in, c_out = draw(st.tuples(*map(st.integers, (1, 1, 1), (3, 2, 2))))
    options = {"stride": stride[0], "padding": padding, "dilation": dilation[0]}
    options |= {"output_padding": extra[0], "groups": groups}
    draw(preference(shared, options))
    batch = draw(batches(shared))
    return Case(
        function_of("conv_transpose", n),
        draw(as_pairs(options, shared)),
        **shared,
        shapes=(
            (batch, groups * c_in, *size),
            (groups * c_in, c_out, *kernel_size),
            *draw(biases(groups * c_out)),
        ),
        out_shape=(batch, groups * c_out, *out),
        window=Window(kernel_size, stride[1], pairs, dilation[1]),
        groups=groups,
    )
