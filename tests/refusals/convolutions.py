"""What convolutions of every kind should not take, and what they must say about it.

Rows as in :mod:`tests.refusals.arrays`: (the call, the exception, what its message must
contain, with … between the parts).
"""

import numpy as np

from jaxcnn import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose2d,
    depthwise_conv2d,
    separable_conv2d,
)

POINT = np.zeros((3, 8, 1, 1), np.float32)
ONE_EACH = np.zeros((8, 1, 3, 2), np.float32)


def transposed(x, w, b=None, **options):
    return conv_transpose2d(x, w, b, **{"stride": 2, **options})


def separable(x, depthwise=ONE_EACH, point=POINT, b=None, **options):
    return separable_conv2d(x, depthwise, point, b, **options)


BAD_CONVOLUTIONS = {
    # The number of dimensions
    "conv1d: x's rank": (
        lambda a: conv1d(a.x, a.w[:, :, 0]),
        ValueError,
        "x has shape (2, 4, 5, 6) … 'NCW' … (N, C, W) … (C, W) for a single",
    ),
    "conv1d: w's rank": (
        lambda a: conv1d(a.x[0], a.w),
        ValueError,
        "w has shape (6, 4, 3, 2) … 'NCW' … (O, I, W)",
    ),
    "conv1d: layout of images": (
        lambda a: conv1d(a.x[0], a.w[..., 0], layout="NCHW"),
        ValueError,
        "layout is 'NCHW' … 'NCW', 'NWC'",
    ),
    "conv3d: x's rank": (
        lambda a: conv3d(a.x[0], a.w[:, :, None]),
        ValueError,
        "x has shape (4, 5, 6) … 'NCDHW' … (N, C, D, H, W)",
    ),
    "conv3d: stride too short": (
        lambda a: conv3d(a.x[:, :, None], a.w[:, :, None], stride=(1, 2)),
        ValueError,
        "stride is (1, 2) … an int or 3 ints",
    ),
    # Padding
    "causal, of images": (
        lambda a: conv2d(a.x, a.w, padding="CAUSAL"),
        ValueError,
        "padding is 'CAUSAL' … 'SAME', 'SAME_LOWER', 'VALID'",
    ),
    "padding_mode unknown": (
        lambda a: conv2d(a.x, a.w, padding_mode="mirror"),
        ValueError,
        "padding_mode is 'mirror' … 'zeros', 'reflect', 'replicate', 'circular'",
    ),
    "padding_mode None": (
        lambda a: depthwise_conv2d(a.x, ONE_EACH, padding_mode=None),
        ValueError,
        "padding_mode is None … 'zeros'",
    ),
    "reflected beyond the image": (
        lambda a: conv2d(a.x, a.w, padding=(5, 1), padding_mode="reflect"),
        ValueError,
        "padding is ((5, 5), (1, 1)) … 'reflect' … size (5, 6) … [4, 5]",
    ),
    "around more than once": (
        lambda a: conv2d(a.x, a.w, padding=((0, 0), (0, 7)), padding_mode="circular"),
        ValueError,
        "padding is ((0, 0), (0, 7)) … 'circular' … size (5, 6) … [5, 6]",
    ),
    "cropped, with pixels": (
        lambda a: conv2d(a.x, a.w, padding=((-1, 0), (0, 0)), padding_mode="replicate"),
        ValueError,
        "padding is ((-1, 0), (0, 0)) … 'replicate' … between 0",
    ),
    "nothing to replicate": (
        lambda a: conv2d(a.x[:, :, :0], a.w, padding=2, padding_mode="replicate"),
        ValueError,
        "padding is ((2, 2), (2, 2)) … 'replicate' … size (0, 6)",
    ),
    "depthwise: no channels": (
        lambda a: depthwise_conv2d(a.x[:, :0], ONE_EACH[:0]),
        ValueError,
        "x has shape (2, 0, 5, 6) … axes (1,) … at least 1",
    ),
    # The dtype of the result
    "preferred narrower": (
        lambda a: conv2d(a.x, a.w, preferred_element_type="bfloat16"),
        ValueError,
        "preferred_element_type is bfloat16 … x's float32 … y.astype('bfloat16')",
    ),
    "preferred integers": (
        lambda a: transposed(a.dy, a.w, preferred_element_type=np.int32),
        TypeError,
        "preferred_element_type is … int32 … float32, float64",
    ),
    "preferred no dtype": (
        lambda a: conv2d(a.x, a.w, preferred_element_type="wide"),
        TypeError,
        "preferred_element_type is 'wide' … float32, float64",
    ),
    # Transposed convolution
    "output_padding as large as the stride": (
        lambda a: transposed(a.dy, a.w, output_padding=(0, 2)),
        ValueError,
        "output_padding is (0, 2) … smaller than stride (2, 2)",
    ),
    "output_padding negative": (
        lambda a: transposed(a.dy, a.w, output_padding=-1),
        ValueError,
        "output_padding is -1 … not be negative",
    ),
    "output_padding a float": (
        lambda a: transposed(a.dy, a.w, output_padding=1.0),
        TypeError,
        "output_padding is 1.0 … an int or 2 ints",
    ),
    "nothing left of the result": (
        lambda a: transposed(a.dy, a.w, padding=4),
        ValueError,
        "padding is 4 … nothing of the result … (-1, 2)",
    ),
    "transposed: w's channels": (
        lambda a: transposed(a.x, a.w),
        ValueError,
        "w has shape (6, 4, 3, 2) … must be (4, 4, 3, 2) … x has 4 channels",
    ),
    "transposed: b's shape": (
        lambda a: transposed(a.dy, a.w, a.b),
        ValueError,
        "b has shape (6,) … must be (4,) … output channel",
    ),
    "transposed: groups": (
        lambda a: transposed(a.dy, a.w, groups=4),
        ValueError,
        "groups is 4 … 6 channels of x",
    ),
    "transposed: w's dtype": (
        lambda a: transposed(a.dy, a.w.astype("float16")),
        TypeError,
        "w has dtype float16 … x has float32",
    ),
    "transposed: padding": (
        lambda a: transposed(a.dy, a.w, padding="half"),
        ValueError,
        "padding is 'half' … an int, 2 ints, 2 (low, high) pairs",
    ),
    # Separable convolution
    "depthwise: w's input channels": (
        lambda a: depthwise_conv2d(a.x, a.w[:4]),
        ValueError,
        "w has shape (4, 4, 3, 2) … must be (4, 1, 3, 2)",
    ),
    "depthwise: w's output channels": (
        lambda a: depthwise_conv2d(a.x, ONE_EACH[:6]),
        ValueError,
        "4 … 6 channels of the output of w",
    ),
    "pointwise with a kernel": (
        lambda a: separable(a.x, point=np.zeros((3, 8, 1, 2), np.float32)),
        ValueError,
        "w_pointwise has shape (3, 8, 1, 2) … must be (3, 8, 1, 1) … one element",
    ),
    "pointwise: rank": (
        lambda a: separable(a.x, point=POINT[..., 0]),
        ValueError,
        "w_pointwise has shape (3, 8, 1) … (O, I, H, W)",
    ),
    "pointwise: a list": (
        lambda a: separable(a.x, point=[1.0]),
        TypeError,
        "w_pointwise is a list … an array",
    ),
    "depthwise of separable: a list": (
        lambda a: separable(a.x, depthwise=[1.0]),
        TypeError,
        "w_depthwise is a list … an array",
    ),
    "depthwise of separable: dtype": (
        lambda a: separable(a.x, depthwise=ONE_EACH.astype("float16")),
        TypeError,
        "w_depthwise has dtype float16 … x has float32",
    ),
    "pointwise: dtype": (
        lambda a: separable(a.x, point=POINT.astype("float16")),
        TypeError,
        "w_pointwise has dtype float16 … x has float32",
    ),
}
