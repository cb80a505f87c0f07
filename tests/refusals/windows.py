"""What poolings and patches should not take, and what no operation with a window should.

Rows as in :mod:`tests.refusals.arrays`: (the call, the exception, what its message must
contain, with … between the parts). The calls in :data:`GOOD_CALLS` are right, and each
row spoils one thing.
"""

from functools import partial

import numpy as np

from jaxcnn import (
    adaptive_avg_pool1d,
    adaptive_avg_pool2d,
    adaptive_max_pool2d,
    adaptive_max_pool3d,
    avg_pool2d,
    conv2d,
    conv2d_input_gradient,
    conv2d_weight_gradient,
    depthwise_conv2d,
    explain,
    fold,
    global_avg_pool,
    global_max_pool,
    lp_pool2d,
    max_pool1d,
    max_pool2d,
    max_unpool2d,
    unfold,
)
from tests.refusals.convolutions import ONE_EACH, separable, transposed

INDICES = np.zeros((2, 4, 5, 6), np.int32)
PATCHES = np.zeros((2, 24, 15), np.float32)
HUGE = 2**40
COUNTED = "2147483647 … int32 counts"


def unpooled(x, indices=INDICES, kernel_size=2, **options):
    return max_unpool2d(x, indices, kernel_size, **options)


def pooled_to(pool, size, a):
    return pool(a.x, size)


def of_a_large_window(pool, a):
    return pool(a.x, 2**20, stride=1, padding="SAME")


def of_distant_taps(pool, a):
    return pool(a.x, 2, stride=1, padding=HUGE, dilation=HUGE)


def folded(p, output_size=(5, 6), kernel_size=(3, 2), **options):
    return fold(p, output_size, kernel_size, **options)


GOOD_CALLS = {
    "conv2d": lambda a, **o: conv2d(a.x, a.w, a.b, **o),
    "conv_transpose2d": lambda a, **o: transposed(a.dy, a.w, **o),
    "depthwise_conv2d": lambda a, **o: depthwise_conv2d(a.x, ONE_EACH, **o),
    "separable_conv2d": lambda a, **o: separable(a.x, **o),
    "max_pool2d": lambda a, **o: max_pool2d(a.x, 2, **o),
    "avg_pool2d": lambda a, **o: avg_pool2d(a.x, 2, **o),
    "lp_pool2d": lambda a, **o: lp_pool2d(a.x, 2, 2, **o),
    "adaptive_max_pool2d": lambda a, **o: adaptive_max_pool2d(a.x, 2, **o),
    "adaptive_avg_pool2d": lambda a, **o: adaptive_avg_pool2d(a.x, 2, **o),
    "global_max_pool": lambda a, **o: global_max_pool(a.x, **o),
    "global_avg_pool": lambda a, **o: global_avg_pool(a.x, **o),
    "unfold": lambda a, **o: unfold(a.x, 2, **o),
    "fold": lambda a, **o: folded(PATCHES, **o),
    "max_unpool2d": lambda a, **o: unpooled(a.x, **o),
}


def spoilt(option, value, exception, parts, calls):
    """A row for each of the calls, all with the same bad option."""

    def row(call):
        return lambda a: call(a, **{option: value}), exception, parts

    return {f"{name}: {option} {value!r}": row(GOOD_CALLS[name]) for name in calls}


WITH_PADDING = ["conv2d", "depthwise_conv2d", "separable_conv2d", "unfold"]
WITH_ENGINES = [name for name in GOOD_CALLS if name != "max_unpool2d"]
WITH_CEIL_MODE = ["max_pool2d", "avg_pool2d", "lp_pool2d"]
WITH_INDICES = ["max_pool2d", "adaptive_max_pool2d"]

BAD_POOLINGS = {
    **spoilt(
        option="derivatives",
        value="numeric",
        exception=ValueError,
        parts="derivatives is 'numeric' … 'custom', 'autodiff'",
        calls=GOOD_CALLS,
    ),
    **spoilt("layout", "CHWN", ValueError, "layout is 'CHWN' … 'NCHW', 'NHWC'", GOOD_CALLS),
    **spoilt("layout", None, ValueError, "layout is None … 'NCHW', 'NHWC'", GOOD_CALLS),
    **spoilt(
        option="engine",
        value="fast",
        exception=ValueError,
        parts="engine is 'fast' … 'auto', 'equations'",
        calls=WITH_ENGINES,
    ),
    **spoilt(
        option="ceil_mode",
        value="yes",
        exception=TypeError,
        parts="ceil_mode is 'yes' … True or False",
        calls=WITH_CEIL_MODE,
    ),
    **spoilt(
        option="return_indices",
        value=None,
        exception=TypeError,
        parts="return_indices is None … True or False",
        calls=WITH_INDICES,
    ),
    **spoilt(
        option="count_include_pad",
        value=2,
        exception=TypeError,
        parts="count_include_pad is 2 … True or False",
        calls=["avg_pool2d"],
    ),
    **spoilt(
        option="keepdims",
        value=1,
        exception=TypeError,
        parts="keepdims is 1 … True or False",
        calls=["global_max_pool", "global_avg_pool"],
    ),
    # Poolings
    "max_pool1d: kernel too long": (
        lambda a: max_pool1d(a.x[0], (2, 2)),
        ValueError,
        "kernel_size is (2, 2) … an int or 1 ints",
    ),
    "global pooling: x's rank": (
        lambda a: global_avg_pool(a.x[0, 0]),
        ValueError,
        "x has shape (5, 6) … 'NCHW'",
    ),
    "lp_pool: norm_type 0": (
        lambda a: lp_pool2d(a.x, 0, 2),
        ValueError,
        "norm_type is 0 … positive",
    ),
    "lp_pool: norm_type infinite": (
        lambda a: lp_pool2d(a.x, float("inf"), 2),
        ValueError,
        "norm_type is inf … finite",
    ),
    "lp_pool: norm_type None": (
        lambda a: lp_pool2d(a.x, None, 2),
        TypeError,
        "norm_type is None … number",
    ),
    "lp_pool: norm_type a string": (
        lambda a: lp_pool2d(a.x, "two", 2),
        TypeError,
        "norm_type is 'two' … number",
    ),
    "lp_pool: norm_type an array": (
        lambda a: lp_pool2d(a.x, a.b, 2),
        TypeError,
        "norm_type is … number",
    ),
    "divisor_override 0": (
        lambda a: avg_pool2d(a.x, 2, divisor_override=0),
        ValueError,
        "divisor_override is 0 … a positive, finite number",
    ),
    "divisor_override a string": (
        lambda a: avg_pool2d(a.x, 2, divisor_override="2"),
        TypeError,
        "divisor_override is '2' … a number",
    ),
    "divisor_override an array": (
        lambda a: avg_pool2d(a.x, 2, divisor_override=a.b),
        TypeError,
        "divisor_override is … a number",
    ),
    "divisor_override a NaN": (
        lambda a: avg_pool2d(a.x, 2, divisor_override=float("nan")),
        ValueError,
        "divisor_override is nan … number",
    ),
    **spoilt("padding", HUGE, ValueError, f"padding is {HUGE} … {COUNTED}", WITH_PADDING),
    **spoilt(
        option="padding",
        value=((-HUGE, HUGE), (0, 0)),
        exception=ValueError,
        parts=f"padding … ((-{HUGE}, {HUGE}), (0, 0)) … {COUNTED}",
        calls=[*WITH_PADDING, "conv_transpose2d"],
    ),
    **spoilt(
        option="padding",
        value=-HUGE,
        exception=ValueError,
        parts=f"padding -{HUGE} … {COUNTED}",
        calls=["conv_transpose2d", "max_unpool2d"],
    ),
    **spoilt(
        option="stride",
        value=HUGE,
        exception=ValueError,
        parts=f"stride is ({HUGE}, {HUGE}) … {COUNTED}",
        calls=["conv_transpose2d", "max_unpool2d"],
    ),
    "output_size 0": (
        lambda a: adaptive_avg_pool2d(a.x, (2, 0)),
        ValueError,
        "output_size is (2, 0) … at least 1",
    ),
    "output_size negative": (
        lambda a: adaptive_max_pool2d(a.x, -1),
        ValueError,
        "output_size is (-1, -1) … at least 1",
    ),
    "output_size too long": (
        lambda a: adaptive_avg_pool2d(a.x, (1, 2, 3)),
        ValueError,
        "output_size is … 1, 2, 3 … 2 ints",
    ),
    "output_size a float": (
        lambda a: adaptive_max_pool2d(a.x, 1.5),
        TypeError,
        "output_size is … 1.5 … 2 ints",
    ),
    "adaptive: no pixels": (
        lambda a: adaptive_avg_pool2d(a.x[:, :, :0], 1),
        ValueError,
        "x has shape (2, 4, 0, 6) … at least 1",
    ),
    "global pooling: no pixels": (
        lambda a: global_max_pool(a.x[:, :, :0]),
        ValueError,
        "x has shape (2, 4, 0, 6) … axes (2, 3) … at least 1",
    ),
    "dilated beyond the image": (
        lambda a: max_pool2d(a.x, 3, dilation=(3, 1)),
        ValueError,
        "kernel_size (3, 3) with dilation (3, 1) spans (7, 3) … input of size (5, 6)",
    ),
    "beyond the image in spite of ceil_mode": (
        lambda a: avg_pool2d(a.x, 8, 2, ceil_mode=True),
        ValueError,
        "kernel_size (8, 8) … input of size (5, 6)",
    ),
    "cropped, and rounded up to what was cropped": (
        lambda a: avg_pool2d(a.x, 2, padding=((0, 0), (0, -1)), ceil_mode=True),
        ValueError,
        "padding is ((0, 0), (0, -1)) … crops the end of the input … 0 or more",
    ),
    "lp_pool: only padding": (
        lambda a: lp_pool2d(a.x, 2, 2, padding=2),
        ValueError,
        "padding is 2 … wholly in the padding",
    ),
    # Unpooling
    "indices a list": (
        lambda a: unpooled(a.x, [0]),
        TypeError,
        "indices is a list … integers",
    ),
    "indices floats": (
        lambda a: unpooled(a.x, a.x),
        TypeError,
        "indices has dtype float32 … integers",
    ),
    "indices of another shape": (
        lambda a: unpooled(a.x, INDICES[..., :3]),
        ValueError,
        "indices has shape (2, 4, 5, 3) … must be (2, 4, 5, 6) … x",
    ),
    "unpooled to nothing": (
        lambda a: unpooled(a.x, output_size=(0, 3)),
        ValueError,
        "output_size is (0, 3) … at least 1",
    ),
    "unpooled to less than nothing": (
        lambda a: unpooled(a.x, output_size=(-10, -12)),
        ValueError,
        "output_size is (-10, -12) … at least 1",
    ),
    "unpooled to a shape of other channels": (
        lambda a: unpooled(a.x, output_size=(2, 3, 10, 12)),
        ValueError,
        "output_size is (2, 3, 10, 12) … (2, 4, 5, 6) … (10, 12) … (2, 4, 10, 12)",
    ),
    "unpooled to a shape without channels": (
        lambda a: unpooled(a.x, output_size=(2, 10, 12)),
        ValueError,
        "output_size is (2, 10, 12) … 2 ints",
    ),
    "unpooled: kernel_size, beside a size": (
        lambda a: unpooled(a.x, kernel_size=0, output_size=(10, 12)),
        ValueError,
        "kernel_size is (0, 0) … at least 1",
    ),
    "unpooled: stride, beside a size": (
        lambda a: unpooled(a.x, stride="2", output_size=(10, 12)),
        TypeError,
        "stride is '2' … an int or 2 ints",
    ),
    "unpooled: padding beyond the kernel": (
        lambda a: unpooled(a.x, padding=6),
        ValueError,
        "padding is 6 … nothing of the result",
    ),
    # Patches
    "unfold: x's rank": (
        lambda a: unfold(a.x[0, 0], 2),
        ValueError,
        "x has shape (5, 6) … 'NCHW' … (C, H, W) for a single",
    ),
    "unfold: x integers": (
        lambda a: unfold(a.x.astype("int32"), 2),
        TypeError,
        "x has dtype int32 … float32",
    ),
    "fold: rank": (
        lambda a: folded(PATCHES[0, 0]),
        ValueError,
        "p has shape (15,) … unfold",
    ),
    "fold: positions": (
        lambda a: folded(PATCHES[..., :14]),
        ValueError,
        "p has shape (2, 24, 14) … must be (2, 24, 15) … 6 taps at 15 positions",
    ),
    "fold: taps": (
        lambda a: folded(PATCHES[:, :23]),
        ValueError,
        "p has shape (2, 23, 15) … must be (2, 18, 15) … 6 taps",
    ),
    "fold: output_size None": (
        lambda a: folded(PATCHES, None),
        TypeError,
        "output_size is None … an int or 2 ints",
    ),
    "fold: output_size negative": (
        lambda a: folded(PATCHES, -2, padding=9),
        ValueError,
        "output_size is … -2 … at least 0",
    ),
    "fold: output_size too small": (
        lambda a: folded(PATCHES, 1),
        ValueError,
        "kernel_size (3, 2) … input of size (1, 1)",
    ),
    "fold: a list": (lambda a: folded([1.0]), TypeError, "p is a list … an array"),
}

# --- Of more positions than a channel may have ----------------------------------------

TOO_LARGE = {
    "conv2d": (
        lambda a: conv2d(a.x, a.w, dilation=HUGE, padding="SAME"),
        f"padding is 'SAME' … dilation ({HUGE}, {HUGE})",
    ),
    "conv2d_input_gradient": (
        lambda a: conv2d_input_gradient(a.dy, a.w, (HUGE, 6)),
        f"input_size is ({HUGE}, 6)",
    ),
    "conv2d_weight_gradient": (
        lambda a: conv2d_weight_gradient(a.x, a.dy, HUGE, padding=HUGE),
        f"padding is {HUGE}",
    ),
    "adaptive_avg_pool1d": (
        lambda a: adaptive_avg_pool1d(a.x[0], HUGE),
        f"output_size is ({HUGE},)",
    ),
    "adaptive_max_pool3d": (
        lambda a: adaptive_max_pool3d(a.x, 2**11),
        "output_size is (2048, 2048, 2048), 8589934592 positions",
    ),
    "fold": (
        lambda a: folded(PATCHES, HUGE),
        f"output_size is ({HUGE}, {HUGE})",
    ),
    "max_unpool2d": (
        lambda a: unpooled(a.x, output_size=(HUGE, 1)),
        f"output_size is ({HUGE}, 1)",
    ),
    "explain": (
        lambda a: explain(lambda x: adaptive_avg_pool2d(x, HUGE), a.x.shape),
        f"output_size is ({HUGE}, {HUGE})",
    ),
}

for pool in adaptive_max_pool2d, adaptive_avg_pool2d:
    for size in (HUGE, HUGE), (2**31, 1), (2**16, 2**15):
        TOO_LARGE[f"{pool.__name__} to {size}"] = (
            partial(pooled_to, pool, size),
            f"output_size is {size}",
        )

for pool in max_pool2d, avg_pool2d, unfold:
    TOO_LARGE[f"{pool.__name__} of a large window"] = (
        partial(of_a_large_window, pool),
        "padding is 'SAME', kernel_size (1048576, 1048576)",
    )
    TOO_LARGE[f"{pool.__name__} of distant taps"] = (
        partial(of_distant_taps, pool),
        f"padding is {HUGE} … dilation ({HUGE}, {HUGE})",
    )

BAD_POOLINGS |= {
    f"far too large: {name}": (call, ValueError, f"{parts} … {COUNTED}")
    for name, (call, parts) in TOO_LARGE.items()
}
