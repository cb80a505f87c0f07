"""Arrays that no public function should take, and what it must say about them.

Every row spoils one thing: (the call, the exception, what its message must contain, with …
between the parts). The arrays that the calls are given fit together.
"""

from typing import NamedTuple

import jax
import numpy as np

import jaxcnn
from jaxcnn import (
    avg_pool2d,
    conv2d,
    conv2d_bias_gradient,
    conv2d_input_gradient,
    conv2d_weight_gradient,
    dense,
    flatten,
    max_pool2d,
    softmax_cross_entropy,
)


class Good(NamedTuple):
    """Arrays that fit together; every row of the tables spoils one thing."""

    x: np.ndarray = np.zeros((2, 4, 5, 6), np.float32)
    w: np.ndarray = np.zeros((6, 4, 3, 2), np.float32)
    b: np.ndarray = np.zeros(6, np.float32)
    dy: np.ndarray = np.zeros((2, 6, 3, 5), np.float32)
    rows: np.ndarray = np.zeros((2, 4), np.float32)
    matrix: np.ndarray = np.zeros((4, 6), np.float32)
    labels: np.ndarray = np.zeros(2, np.int32)


def dw_of(x, dy, kernel_size=(3, 2), **options):
    return conv2d_weight_gradient(x, dy, kernel_size, **options)


def dx_of(dy, w, input_size=(5, 6), **options):
    return conv2d_input_gradient(dy, w, input_size, **options)


class ArrayOfAnother:
    """What NumPy would make an array of, as it does of other libraries' arrays."""

    def __array__(self, dtype=None, copy=None):
        return np.zeros((2, 4, 5, 6), np.float32)


STRANGE = {
    # How it is made, and what it is called
    "a dict": (dict, "dict"),
    "a set": (set, "set"),
    "an iterator": (lambda: iter([1.0]), "list_iterator"),
    "a range": (lambda: range(3), "range"),
    "a slice": (lambda: slice(3), "slice"),
    "a class": (lambda: float, "type"),
    "a function": (lambda: len, "builtin_function_or_method"),
    "a buffer": (lambda: memoryview(b"1"), "memoryview"),
    "only a shape": (
        lambda: jax.ShapeDtypeStruct((2, 4, 5, 6), "float32"),
        "ShapeDtypeStruct",
    ),
    "another library's array": (ArrayOfAnother, "ArrayOfAnother"),
    "masked": (lambda: np.ma.zeros((2, 4, 5, 6), "float32"), "MaskedArray"),
    "of objects": (
        lambda: np.full((2, 4, 5, 6), None),
        "ndarray of dtype object",
    ),
    "of dates": (lambda: np.zeros((2, 4, 5, 6), "M8[s]"), "ndarray of dtype datetime64[s]"),
    "of records": (lambda: np.zeros(3, [("a", "f4")]), "ndarray of dtype [('a', '<f4')]"),
    "of the other byte order": (
        lambda: np.zeros((2, 4, 5, 6), ">f4"),
        "ndarray of dtype >f4",
    ),
}

BAD_ARRAYS = {
    # Arrays that are none, or of another kind
    "x a list": (lambda a: conv2d([1.0], a.w), TypeError, "x is a list … an array"),
    "x None": (lambda a: conv2d(None, a.w), TypeError, "x is a NoneType … an array"),
    "w a string": (lambda a: conv2d(a.x, "w"), TypeError, "w is a str … an array"),
    "x integers": (
        lambda a: conv2d(a.x.astype("int32"), a.w),
        TypeError,
        "x has dtype int32 … float32 … x.astype",
    ),
    "x bytes": (lambda a: conv2d(a.x.astype("uint8"), a.w), TypeError, "x has dtype uint8"),
    "x bools": (lambda a: max_pool2d(a.x > 0, 2), TypeError, "x has dtype bool … float32"),
    "x complex": (
        lambda a: avg_pool2d(a.x.astype("complex64"), 2),
        TypeError,
        "x has dtype complex64 … float32",
    ),
    "dy integers": (
        lambda a: conv2d_bias_gradient(a.dy.astype("int32")),
        TypeError,
        "dy has dtype int32 … float32",
    ),
    "relu of integers": (
        lambda a: jaxcnn.relu(a.labels),
        TypeError,
        "x has dtype int32 … float32",
    ),
    **{
        f"x {kind}": (
            lambda a, made=made: conv2d(made(), a.w),
            TypeError,
            f"x is a {called} … an array",
        )
        for kind, (made, called) in STRANGE.items()
    },
    "b a set": (lambda a: conv2d(a.x, a.w, {1}), TypeError, "b is a set … an array"),
    "indices strings": (
        lambda a: jaxcnn.max_unpool2d(a.x, np.array(["a"]), 2),
        TypeError,
        "indices is a ndarray of dtype <U1 … integers",
    ),
    "relu of an int too large for JAX": (
        lambda a: jaxcnn.relu(10**30),
        TypeError,
        "x is a int … an array",
    ),
    "relu of a list": (lambda a: jaxcnn.relu([a.b]), TypeError, "x is a list … an array"),
    "softmax of integers": (lambda a: jaxcnn.softmax(a.labels), TypeError, "x has dtype"),
    "log_softmax of None": (lambda a: jaxcnn.log_softmax(None), TypeError, "x is a None"),
    "flatten of integers": (lambda a: flatten(a.labels), TypeError, "x has dtype int32"),
    "logits integers": (
        lambda a: softmax_cross_entropy(a.rows.astype("int32"), a.labels),
        TypeError,
        "logits has dtype int32 … float32",
    ),
    "labels None": (
        lambda a: softmax_cross_entropy(a.rows, None),
        TypeError,
        "labels … integers",
    ),
    "labels bools": (
        lambda a: softmax_cross_entropy(a.rows, a.labels > 0),
        TypeError,
        "labels has dtype bool … integers",
    ),
    "labels a list": (
        lambda a: softmax_cross_entropy(a.rows, [0, 1]),
        TypeError,
        "labels is a list … an array of integers",
    ),
    "where of integers": (
        lambda a: softmax_cross_entropy(a.rows, a.labels, where=a.labels),
        TypeError,
        "where has dtype int32 … truth values",
    ),
    "where a list": (
        lambda a: softmax_cross_entropy(a.rows, a.labels, where=[True, False]),
        TypeError,
        "where is a list … truth values",
    ),
    "where's shape": (
        lambda a: softmax_cross_entropy(a.rows, a.labels, where=a.rows > 0),
        ValueError,
        "where has shape (2, 4) … must be (2,), as labels",
    ),
    "where's shape, for one element each": (
        lambda a: jaxcnn.mse_loss(a.rows, a.rows, where=a.labels > 0),
        ValueError,
        "where has shape (2,) … must be (2, 4), as predictions",
    ),
    "mean of nothing": (
        lambda a: jaxcnn.mse_loss(a.rows[:0], a.rows[:0]),
        ValueError,
        "predictions has shape (0, 4) … no mean … 'sum' or 'none'",
    ),
    # Dtypes that differ
    "w's dtype": (
        lambda a: conv2d(a.x, a.w.astype("float16")),
        TypeError,
        "w has dtype float16 … x has float32 … w.astype(x.dtype)",
    ),
    "b's dtype": (
        lambda a: conv2d(a.x, a.w, a.b.astype("float64")),
        TypeError,
        "b has dtype float64 … x has float32",
    ),
    "dy's dtype, for dw": (
        lambda a: dw_of(a.x, a.dy.astype("float64")),
        TypeError,
        "dy has dtype float64 … x has float32",
    ),
    "w's dtype, for dx": (
        lambda a: dx_of(a.dy, a.w.astype("float64")),
        TypeError,
        "w has dtype float64 … dy has float32",
    ),
    "dense: w's dtype": (
        lambda a: dense(a.rows, a.matrix.astype("float64")),
        TypeError,
        "w has dtype float64 … x has float32",
    ),
    "dense: b's dtype": (
        lambda a: dense(a.rows, a.matrix, a.b.astype("float64")),
        TypeError,
        "b has dtype float64 … x has float32",
    ),
    # Ranks and shapes
    "x's rank": (
        lambda a: conv2d(a.x[0, 0], a.w),
        ValueError,
        "x has shape (5, 6) … 'NCHW' … (N, C, H, W) … (C, H, W) for a single",
    ),
    "x's rank, channels last": (
        lambda a: max_pool2d(a.x[0, 0], 2, layout="NHWC"),
        ValueError,
        "x has shape (5, 6) … 'NHWC' … (N, H, W, C)",
    ),
    "w's rank": (
        lambda a: conv2d(a.x, a.w[0]),
        ValueError,
        "w has shape (4, 3, 2) … (O, I, H, W)",
    ),
    "w's channels": (
        lambda a: conv2d(a.x, a.w[:, :3]),
        ValueError,
        "w has shape (6, 3, 3, 2) … must be (6, 4, 3, 2) … x has 4 channels",
    ),
    "w in the other layout": (
        lambda a: conv2d(a.x.transpose(0, 2, 3, 1), a.w, layout="NHWC", padding=9),
        ValueError,
        "w has shape (6, 4, 3, 2) … must be (6, 4, 4, 2) … HWIO",
    ),
    "w's channels, for groups": (
        lambda a: conv2d(a.x, a.w, groups=2),
        ValueError,
        "w has shape (6, 4, 3, 2) … must be (6, 2, 3, 2) … 2 group(s)",
    ),
    "b's shape": (
        lambda a: conv2d(a.x, a.w, a.b[:5]),
        ValueError,
        "b has shape (5,) … must be (6,) … output channel",
    ),
    "b's rank": (lambda a: conv2d(a.x, a.w, a.b[None]), ValueError, "b has shape (1, 6)"),
    "dy's size, for dw": (
        lambda a: dw_of(a.x, a.dy[..., :4]),
        ValueError,
        "dy has shape (2, 6, 3, 4) … must be (2, 6, 3, 5)",
    ),
    "dy's batch, for dw": (
        lambda a: dw_of(a.x, a.dy[:1]),
        ValueError,
        "dy has shape (1, 6, 3, 5) … must be (2, 6, 3, 5)",
    ),
    "dy unbatched, x not": (
        lambda a: dw_of(a.x, a.dy[0]),
        ValueError,
        "dy has 3 dimensions … x has 4 … batch",
    ),
    "x unbatched, dy not": (
        lambda a: dw_of(a.x[0], a.dy),
        ValueError,
        "dy has 4 … x has 3",
    ),
    "dy's channels, for dx": (
        lambda a: dx_of(a.dy[:, :4], a.w),
        ValueError,
        "dy has shape (2, 4, 3, 5) … must be (2, 6, 3, 5)",
    ),
    "dy's size, for dx": (
        lambda a: dx_of(a.dy, a.w, stride=2),
        ValueError,
        "dy has shape (2, 6, 3, 5) … must be (2, 6, 2, 3)",
    ),
    "dy's rank, for db": (
        lambda a: conv2d_bias_gradient(a.b),
        ValueError,
        "dy has shape (6,) … (N, C, H, W)",
    ),
    "dense: a scalar": (lambda a: dense(a.b[0], a.matrix), ValueError, "x is a scalar"),
    "dense: w's rows": (
        lambda a: dense(a.rows, a.matrix[:3]),
        ValueError,
        "w has shape (3, 6) … x of shape (2, 4) … must be (4, C_out)",
    ),
    "dense: w's rank": (lambda a: dense(a.rows, a.b), ValueError, "w has shape (6,)"),
    "dense: b's shape": (
        lambda a: dense(a.rows, a.matrix, a.b[:5]),
        ValueError,
        "b has shape (5,) … must be (6,) … column of w",
    ),
    "flatten a scalar": (lambda a: flatten(a.b[0]), ValueError, "x is a scalar … batch"),
    "labels' shape": (
        lambda a: softmax_cross_entropy(a.rows, a.labels[:1]),
        ValueError,
        "labels have shape (1,) … logits of shape (2, 4) … must be (2,)",
    ),
    "labels as rows": (
        lambda a: softmax_cross_entropy(a.rows, a.rows.astype("int32")),
        ValueError,
        "labels have shape (2, 4) … must be (2,)",
    ),
    "labels floats": (
        lambda a: softmax_cross_entropy(a.rows, a.labels.astype("float32")),
        TypeError,
        "labels has dtype float32 … integers",
    ),
    "logits a scalar": (
        lambda a: softmax_cross_entropy(a.b[0], a.labels),
        ValueError,
        "labels have shape … logits of shape ()",
    ),
    # Groups
    "groups and x": (
        lambda a: conv2d(a.x, a.w, groups=3),
        ValueError,
        "groups is 3 … 4 channels of x … a divisor of 4",
    ),
    "groups and w": (
        lambda a: conv2d(a.x, a.w, groups=4),
        ValueError,
        "groups is 4 … 6 channels of the output of w … a divisor of 6",
    ),
    "groups and dy": (lambda a: dw_of(a.x, a.dy, groups=4), ValueError, "6 channels of dy"),
    "groups 0": (
        lambda a: conv2d(a.x, a.w, groups=0),
        ValueError,
        "groups is 0 … positive",
    ),
    "groups negative": (lambda a: dx_of(a.dy, a.w, groups=-1), ValueError, "groups is -1"),
    "groups a float": (lambda a: conv2d(a.x, a.w, groups=2.0), TypeError, "groups is 2.0"),
}
