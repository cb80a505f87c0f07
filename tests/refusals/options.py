"""Options that no public function should take, and what it must say about them.

Rows as in :mod:`tests.refusals.arrays`: (the call, the exception, what its message must
contain, with … between the parts).
"""

import numpy as np

import jaxcnn
from jaxcnn import avg_pool2d, conv2d, conv2d_bias_gradient, dense, max_pool2d
from jaxcnn import softmax_cross_entropy as cross_entropy
from tests.refusals.arrays import dw_of, dx_of

FORMS_OF_PADDING = "an int, 2 ints, 2 (low, high) pairs, or one of 'SAME'"

BAD_WINDOWS = {
    # Windows that do not fit
    "kernel too large": (
        lambda a: conv2d(a.x[:, :, :2], a.w),
        ValueError,
        "kernel_size (3, 2) … spans (3, 2) … input of size (2, 6) … more padding",
    ),
    "kernel too large, dilated": (
        lambda a: conv2d(a.x, a.w, dilation=(3, 1)),
        ValueError,
        "dilation (3, 1) spans (7, 2) … input of size (5, 6) … smaller kernel_size",
    ),
    "cropped too much": (
        lambda a: conv2d(a.x, a.w, padding=-2),
        ValueError,
        "with padding ((-2, -2), (-2, -2)), which is (1, 2)",
    ),
    "kernel too large, for dw": (
        lambda a: dw_of(a.x, a.dy, kernel_size=7),
        ValueError,
        "kernel_size (7, 7) … input of size (5, 6)",
    ),
    "input too small, for dx": (
        lambda a: dx_of(a.dy, a.w, input_size=2),
        ValueError,
        "kernel_size (3, 2) … input of size (2, 2)",
    ),
    "pooling kernel too large": (
        lambda a: max_pool2d(a.x, 6),
        ValueError,
        "(5, 6) … (6, 6)",
    ),
    "only padding, max": (
        lambda a: max_pool2d(a.x, 2, padding=2),
        ValueError,
        "padding is 2 … kernel_size (2, 2) … wholly in the padding … less padding",
    ),
    "only padding, average": (
        lambda a: avg_pool2d(a.x, 2, padding=((0, 0), (0, 3)), count_include_pad=False),
        ValueError,
        "padding is ((0, 0), (0, 3)) … wholly in the padding",
    ),
    # Sizes that are none
    "stride 0": (
        lambda a: conv2d(a.x, a.w, stride=0),
        ValueError,
        "stride is (0, 0) … at least 1",
    ),
    "stride negative": (
        lambda a: max_pool2d(a.x, 2, (1, -1)),
        ValueError,
        "stride is (1, -1) … at least 1",
    ),
    "dilation 0": (
        lambda a: conv2d(a.x, a.w, dilation=(0, 1)),
        ValueError,
        "dilation is (0, 1) … at least 1",
    ),
    "kernel 0": (
        lambda a: avg_pool2d(a.x, 0),
        ValueError,
        "kernel_size is (0, 0) … at least 1",
    ),
    "kernel 0, for dw": (
        lambda a: dw_of(a.x, a.dy, (3, 0)),
        ValueError,
        "kernel_size is (3, 0) … at least 1",
    ),
    "kernel empty": (
        lambda a: conv2d(a.x, a.w[:, :, :0]),
        ValueError,
        "kernel_size is (0, 2)",
    ),
    "stride too long": (
        lambda a: conv2d(a.x, a.w, stride=(1, 2, 3)),
        ValueError,
        "stride is (1, 2, 3) … an int or 2 ints",
    ),
    "stride too short": (
        lambda a: dx_of(a.dy, a.w, stride=[1]),
        ValueError,
        "stride is [1] … an int or 2 ints",
    ),
    "kernel too long": (
        lambda a: max_pool2d(a.x, (1, 2, 3)),
        ValueError,
        "kernel_size is (1, 2, 3) … an int or 2 ints",
    ),
    "input_size too long": (
        lambda a: dx_of(a.dy, a.w, (2, 4, 5, 6)),
        ValueError,
        "input_size is (2, 4, 5, 6) … an int or 2 ints",
    ),
    "stride a float": (
        lambda a: conv2d(a.x, a.w, stride=1.5),
        TypeError,
        "stride is 1.5 … an int or 2 ints",
    ),
    "stride None": (lambda a: conv2d(a.x, a.w, stride=None), TypeError, "stride is None"),
    "stride an array": (
        lambda a: conv2d(a.x, a.w, stride=np.array([1, 2])),
        TypeError,
        "stride is array([1, 2]) … an int or 2 ints",
    ),
    "dilation a string": (
        lambda a: conv2d(a.x, a.w, dilation="2"),
        TypeError,
        "dilation is '2' … an int or 2 ints",
    ),
    "stride bytes": (
        lambda a: conv2d(a.x, a.w, stride=b"\x01\x02"),
        TypeError,
        "stride is b'\\x01\\x02' … an int or 2 ints",
    ),
    "stride a buffer": (
        lambda a: conv2d(a.x, a.w, stride=memoryview(b"\x01\x02")),
        TypeError,
        "stride is <memory … an int or 2 ints",
    ),
    "stride True": (
        lambda a: conv2d(a.x, a.w, stride=True),
        TypeError,
        "stride is True … an int or 2 ints",
    ),
    "dilation with a truth value": (
        lambda a: max_pool2d(a.x, 2, dilation=(1, True)),
        TypeError,
        "dilation is (1, True) … an int or 2 ints",
    ),
    "stride an array of one": (
        lambda a: conv2d(a.x, a.w, stride=np.array(2)),
        TypeError,
        "stride is array(2) … an int or 2 ints",
    ),
    "groups True": (
        lambda a: conv2d(a.x, a.w, groups=True),
        TypeError,
        "groups is True … a positive int",
    ),
    "output_size bytes": (
        lambda a: jaxcnn.adaptive_avg_pool2d(a.x, b"\x01\x02"),
        TypeError,
        "output_size is … an int or 2 ints",
    ),
    "output_size bytes, unpooling": (
        lambda a: jaxcnn.max_unpool2d(a.x, a.x.astype(int), 1, output_size=b"\2\4\5\6"),
        TypeError,
        "output_size is b'\\x02 … an int or 2 ints",
    ),
    "normalized_shape bytes": (
        lambda a: jaxcnn.layer_norm(a.x, b"\x06"),
        TypeError,
        "normalized_shape is b'\\x06' … an int or 1 ints",
    ),
    "divisor_override negative": (
        lambda a: avg_pool2d(a.x, 2, divisor_override=-4),
        ValueError,
        "divisor_override is -4 … a positive, finite number",
    ),
    "divisor_override True": (
        lambda a: avg_pool2d(a.x, 2, divisor_override=True),
        TypeError,
        "divisor_override is True … a number",
    ),
    "kernel floats": (
        lambda a: max_pool2d(a.x, (2.0, 2)),
        TypeError,
        "kernel_size is (2.0, 2) … an int or 2 ints",
    ),
    "input_size negative": (
        lambda a: dx_of(a.dy, a.w, -1, padding=9),
        ValueError,
        "input_size is (-1, -1) … at least 0",
    ),
    "input_size None": (lambda a: dx_of(a.dy, a.w, None), TypeError, "input_size is None"),
    # Paddings of another form
    "padding unknown": (
        lambda a: conv2d(a.x, a.w, padding="full"),
        ValueError,
        f"padding is 'full' … {FORMS_OF_PADDING}",
    ),
    "padding a float": (
        lambda a: conv2d(a.x, a.w, padding=0.5),
        TypeError,
        f"padding is 0.5 … {FORMS_OF_PADDING}",
    ),
    "padding None": (lambda a: max_pool2d(a.x, 2, 2, None), TypeError, "padding is None"),
    "padding of floats": (
        lambda a: conv2d(a.x, a.w, padding=((0, 1.0), (0, 1))),
        TypeError,
        f"padding is ((0, 1.0), (0, 1)) … {FORMS_OF_PADDING}",
    ),
    "padding too long": (
        lambda a: avg_pool2d(a.x, 2, padding=(1, 1, 1)),
        ValueError,
        f"padding is (1, 1, 1) … {FORMS_OF_PADDING}",
    ),
    "padding of triples": (
        lambda a: conv2d(a.x, a.w, padding=((0, 1, 1), (0, 1, 1))),
        ValueError,
        f"padding is ((0, 1, 1), (0, 1, 1)) … {FORMS_OF_PADDING}",
    ),
    "padding bytes": (
        lambda a: conv2d(a.x, a.w, padding=b"\x01\x02"),
        TypeError,
        f"padding is b'\\x01\\x02' … {FORMS_OF_PADDING}",
    ),
    "padding True": (
        lambda a: conv2d(a.x, a.w, padding=((1, True), (0, 0))),
        TypeError,
        f"padding is ((1, True), (0, 0)) … {FORMS_OF_PADDING}",
    ),
    "padding far too large": (
        lambda a: max_pool2d(a.x, 2, padding=2**14),
        ValueError,
        "padding is 16384 … wholly in the padding",
    ),
    "padding of strings": (
        lambda a: conv2d(a.x, a.w, padding=("SAME", "SAME")),
        TypeError,
        f"padding is ('SAME', 'SAME') … {FORMS_OF_PADDING}",
    ),
}

BAD_CHOICES = {
    "layout": (
        lambda a: conv2d(a.x, a.w, layout="NCWH"),
        ValueError,
        "layout is 'NCWH' … 'NCHW', 'NHWC'",
    ),
    "layout of another rank": (
        lambda a: conv2d_bias_gradient(a.dy, layout="NCW"),
        ValueError,
        "layout is 'NCW' … 'NCHW', 'NHWC'",
    ),
    "layout, for dw": (
        lambda a: dw_of(a.x, a.dy, layout="CNHW"),
        ValueError,
        "layout is 'CNHW'",
    ),
    "layout, for dx": (
        lambda a: dx_of(a.dy, a.w, layout=None),
        ValueError,
        "layout is None",
    ),
    "layout, pooling": (
        lambda a: max_pool2d(a.x, 2, layout=""),
        ValueError,
        "layout is ''",
    ),
    "engine": (
        lambda a: conv2d(a.x, a.w, engine="fast"),
        ValueError,
        "engine is 'fast' … 'auto', 'equations'",
    ),
    "engine, for dw": (lambda a: dw_of(a.x, a.dy, engine=""), ValueError, "engine is ''"),
    "engine, for dx": (
        lambda a: dx_of(a.dy, a.w, engine=None),
        ValueError,
        "engine is None",
    ),
    "engine, pooling": (
        lambda a: avg_pool2d(a.x, 2, engine="fast"),
        ValueError,
        "engine is 'fast' … 'auto', 'equations'",
    ),
    "softmax: axis too large": (
        lambda a: jaxcnn.softmax(a.rows, axis=2),
        ValueError,
        "axis is 2 … x has shape (2, 4) … from -2 to 1",
    ),
    "log_softmax: axis too small": (
        lambda a: jaxcnn.log_softmax(a.rows, axis=-3),
        ValueError,
        "axis is -3 … x has shape (2, 4) … from -2 to 1",
    ),
    "engine an array": (
        lambda a: conv2d(a.x, a.w, engine=np.zeros(2)),
        ValueError,
        "engine is array([0., 0.]) … 'auto', 'equations'",
    ),
    "padding_mode an array": (
        lambda a: conv2d(a.x, a.w, padding_mode=np.zeros(2)),
        ValueError,
        "padding_mode is array([0., 0.]) … 'zeros', 'reflect'",
    ),
    **{
        f"softmax: axis {axis!r}": (
            lambda a, axis=axis: jaxcnn.softmax(a.rows, axis=axis),
            TypeError,
            f"axis is {axis!r} … an int",
        )
        for axis in (None, (0, 1), 1.0, "1", True)
    },
    "log_softmax: axis None": (
        lambda a: jaxcnn.log_softmax(a.rows, axis=None),
        TypeError,
        "axis is None … an int",
    ),
    **{
        f"{name}: precision {precision!r}": (
            lambda a, call=call, precision=precision: call(a, precision),
            ValueError,
            f"precision is {precision!r} … 'default', 'high' or 'highest', a pair",
        )
        for name, call in {
            "conv2d": lambda a, p: conv2d(a.x, a.w, precision=p),
            "conv_transpose2d": lambda a, p: jaxcnn.conv_transpose2d(
                a.dy, a.w, precision=p
            ),
            "conv2d_weight_gradient": lambda a, p: dw_of(a.x, a.dy, precision=p),
            "dense": lambda a, p: dense(a.rows, a.matrix, precision=p),
        }.items()
        for precision in ("fast", 3, True, ("high",), {})
    },
    "softmax of a scalar": (
        lambda a: jaxcnn.softmax(a.b[0]),
        ValueError,
        "axis is -1 … shape ()",
    ),
}

WITH_OPTIONS = {
    "conv1d": lambda a, **o: jaxcnn.conv1d(a.x[..., 0], a.w[..., 0], **o),
    "conv3d": lambda a, **o: jaxcnn.conv3d(a.x[..., None], a.w[..., None], **o),
    "conv1d_weight_gradient": lambda a, **o: jaxcnn.conv1d_weight_gradient(
        a.x[..., 0], a.dy[..., 0], 3, **o
    ),
    "conv1d_input_gradient": lambda a, **o: jaxcnn.conv1d_input_gradient(
        a.dy[..., 0], a.w[..., 0], 5, **o
    ),
    "conv_transpose1d": lambda a, **o: jaxcnn.conv_transpose1d(
        a.dy[..., 0], a.w[..., 0], **o
    ),
    "depthwise_conv2d": lambda a, **o: jaxcnn.depthwise_conv2d(a.x, a.w[:4, :1], **o),
    "separable_conv2d": lambda a, **o: jaxcnn.separable_conv2d(
        a.x, a.w[:4, :1], a.w[:, :, :1, :1], **o
    ),
    "max_pool1d": lambda a, **o: jaxcnn.max_pool1d(a.x[..., 0], 2, **o),
    "avg_pool1d": lambda a, **o: jaxcnn.avg_pool1d(a.x[..., 0], 2, **o),
    "lp_pool1d": lambda a, **o: jaxcnn.lp_pool1d(a.x[..., 0], 2, 2, **o),
    "max_unpool1d": lambda a, **o: jaxcnn.max_unpool1d(
        a.x[..., 0], a.x[..., 0].astype("int32"), 2, **o
    ),
    "adaptive_avg_pool1d": lambda a, **o: jaxcnn.adaptive_avg_pool1d(a.x[..., 0], 2, **o),
    "adaptive_max_pool1d": lambda a, **o: jaxcnn.adaptive_max_pool1d(a.x[..., 0], 2, **o),
    "global_avg_pool": lambda a, **o: jaxcnn.global_avg_pool(a.x, **o),
    "global_max_pool": lambda a, **o: jaxcnn.global_max_pool(a.x, **o),
}


def with_option(call, option):
    return lambda a: call(a, **{option: 1})


BAD_CHOICES |= {
    f"{name}: {option}": (
        with_option(call, option),
        TypeError,
        f"{option} is no option of this function; its options are … derivatives",
    )
    for name, call in WITH_OPTIONS.items()
    # A name of another library's, and two that only the inside has
    for option in ("strides", "divisor", "counted")
}

WITH_DERIVATIVES = {
    "conv2d": lambda a, d: conv2d(a.x, a.w, derivatives=d),
    "conv2d_weight_gradient": lambda a, d: dw_of(a.x, a.dy, derivatives=d),
    "conv2d_input_gradient": lambda a, d: dx_of(a.dy, a.w, derivatives=d),
    "conv2d_bias_gradient": lambda a, d: conv2d_bias_gradient(a.dy, derivatives=d),
    "max_pool2d": lambda a, d: max_pool2d(a.x, 2, derivatives=d),
    "avg_pool2d": lambda a, d: avg_pool2d(a.x, 2, derivatives=d),
    "relu": lambda a, d: jaxcnn.relu(a.x, derivatives=d),
    "softmax": lambda a, d: jaxcnn.softmax(a.x, derivatives=d),
    "log_softmax": lambda a, d: jaxcnn.log_softmax(a.x, derivatives=d),
    "dense": lambda a, d: dense(a.rows, a.matrix, derivatives=d),
    "cross entropy": lambda a, d: cross_entropy(a.rows, a.labels, derivatives=d),
}


def with_unknown_derivatives(call):
    return lambda a: call(a, "numeric")


BAD_CHOICES |= {
    f"{name}: derivatives": (
        with_unknown_derivatives(call),
        ValueError,
        "derivatives is 'numeric' … 'custom', 'autodiff'",
    )
    for name, call in WITH_DERIVATIVES.items()
}
