"""What :mod:`experiments.compare_gradients` compares: every operation, many ways.

For each public operation a function builds a :class:`Case` from a configuration: its
arguments, and the operation written three times: with the hand-written rule, without it,
and with XLA's own operations, where nothing of jaxcnn is used.

Arguments are small float32 numbers, so that a case means the same in float32 and in
float64. What is compared with finite differences must have a derivative: arguments of
ReLU and of max pooling are evenly spaced, in random order, and not zero, so that no step
of a difference passes a kink. The configurations named "ties" are the exception.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax

import jaxcnn
from jaxcnn.layout import LAYOUTS, weight_layout, with_spatial

Configurations = dict[str, dict]
GAP = 2.0**-6  # between evenly spaced values: 8 times what a difference moves them


@dataclass(frozen=True)
class Case:
    """One operation in one configuration.

    Attributes:
      operation: its name.
      name: what is particular about the configuration.
      arguments: what it is differentiated by: float32.
      custom: the operation, a function of the arguments, with the hand-written rule.
      autodiff: the same loops, differentiated by JAX.
      xla: the same operation, as XLA offers it.
      smooth: whether finite differences exist.
    """

    operation: str
    name: str
    arguments: dict[str, np.ndarray]
    custom: Callable[..., jax.Array]
    autodiff: Callable[..., jax.Array]
    xla: Callable[..., jax.Array]
    smooth: bool = True


@dataclass(frozen=True)
class Operation:
    """A public operation.

    Attributes:
      build: makes a case from a random generator, the operation's name, a
        configuration's name and its keyword arguments.
      compared: the configurations in which gradients are compared, the most telling
        first.
      timed: the one in which they are timed.
    """

    build: Callable[..., Case]
    compared: Configurations
    timed: dict


def cases(operation: str, seed: int, most: int | None = None) -> Iterator[Case]:
    """The cases of an operation: all, or at most so many."""
    rng = np.random.default_rng(seed)
    of = OPERATIONS[operation]
    for name, configuration in list(of.compared.items())[:most]:
        yield of.build(rng, operation, name, **configuration)


def timed_case(operation: str, seed: int) -> Case:
    """The case of an operation that is large enough to be timed."""
    rng = np.random.default_rng(seed)
    of = OPERATIONS[operation]
    return of.build(rng, operation, "timed", **of.timed)


# --- Arguments ------------------------------------------------------------------------


def normal(rng, shape):
    return rng.standard_normal(shape, np.float32)


def spaced(rng, shape):
    """Evenly spaced values, half of them negative and none zero, in random order."""
    size = math.prod(shape)
    values = (np.arange(size) - size // 2 + 0.5) * GAP
    return rng.permutation(values).reshape(shape).astype(np.float32)


def ties(rng, shape):
    """−1, 0 and 1: zeros for ReLU's kink, and equal maxima in every other window."""
    return rng.integers(-1, 2, shape).astype(np.float32)


def images(rng, batch, channels, size, layout, values=normal):
    entries = [batch if letter == "N" else channels for letter in layout]
    return values(rng, with_spatial(entries, size, layout))


# --- Convolution ----------------------------------------------------------------------


def xla_convolution(
    x, w, b=None, *, stride=1, padding=0, dilation=1, groups=1, layout="NCHW"
):
    y = lax.conv_general_dilated(
        x,
        w,
        pair(stride),
        xla_padding(padding),
        rhs_dilation=pair(dilation),
        dimension_numbers=(layout, weight_layout(layout), layout),
        feature_group_count=groups,
    )
    return y if b is None else y + over_channels(b, layout)


def xla_weight_gradient(x, dy, *, w_shape, **options):
    w = jnp.zeros(w_shape, x.dtype)
    return jax.vjp(lambda w: xla_convolution(x, w, **options), w)[1](dy)[0]


def xla_input_gradient(dy, w, *, x_shape, **options):
    x = jnp.zeros(x_shape, w.dtype)
    return jax.vjp(lambda x: xla_convolution(x, w, **options), x)[1](dy)[0]


def xla_bias_gradient(dy, *, layout):
    b = jnp.zeros(dy.shape[layout.index("C")], dy.dtype)
    return jax.vjp(lambda b: jnp.zeros_like(dy) + over_channels(b, layout), b)[1](dy)[0]


def over_channels(b, layout):
    return b.reshape([-1 if letter == "C" else 1 for letter in layout])


def pair(value):
    return (value, value) if isinstance(value, int) else value


def xla_padding(padding):
    return ((padding, padding),) * 2 if isinstance(padding, int) else padding


def convolution_case(
    rng,
    operation,
    name,
    *,
    size=(7, 9),
    kernel_size=(3, 3),
    batch=2,
    channels=(2, 3),
    bias=True,
    **options,
):
    """A case of conv2d, or of one of the gradients with respect to its x and w."""
    layout = options["layout"]
    c_in, c_out = channels
    x = images(rng, batch, c_in, size, layout)
    w = normal(rng, (c_out, c_in // options.get("groups", 1), *kernel_size))
    w = np.ascontiguousarray(w.transpose(["OIHW".index(i) for i in weight_layout(layout)]))
    xla_forward = partial(xla_convolution, **options)
    dy = normal(rng, jax.eval_shape(xla_forward, x, w).shape)
    if operation == "conv2d":
        known, arguments = {}, {"x": x, "w": w}
        if bias:
            arguments["b"] = normal(rng, (c_out,))
        xla = xla_forward
    elif operation == "conv2d_weight_gradient":
        known, arguments = {"kernel_size": kernel_size}, {"x": x, "dy": dy}
        xla = partial(xla_weight_gradient, w_shape=w.shape, **options)
    else:
        known, arguments = {"input_size": size}, {"dy": dy, "w": w}
        xla = partial(xla_input_gradient, x_shape=x.shape, **options)
    function = partial(getattr(jaxcnn, operation), **known, **options)
    return both_rules(operation, name, arguments, function, xla)


def bias_gradient_case(
    rng, operation, name, *, size=(3, 4), batch=2, channels=3, layout="NCHW"
):
    dy = images(rng, batch, channels, size, layout)
    function = partial(jaxcnn.conv2d_bias_gradient, layout=layout)
    xla = partial(xla_bias_gradient, layout=layout)
    return both_rules(operation, name, {"dy": dy}, function, xla)


def both_rules(operation, name, arguments, function, xla, **fields):
    autodiff = partial(function, derivatives="autodiff")
    return Case(operation, name, arguments, function, autodiff, xla, **fields)


# --- Pooling --------------------------------------------------------------------------


def xla_pooling(x, initial, combine, kernel_size, stride, padding, layout):
    reach = partial(with_spatial, [1] * 4, layout=layout)
    padding = padding if isinstance(padding, str) else xla_padding(padding)
    if not isinstance(padding, str):
        padding = with_spatial([(0, 0)] * 4, padding, layout)
    stride = kernel_size if stride is None else stride
    initial = np.array(initial, x.dtype)
    return lax.reduce_window(
        x, initial, combine, reach(pair(kernel_size)), reach(pair(stride)), padding
    )


def xla_max_pool(x, *, kernel_size, stride=None, padding=0, layout):
    window = (kernel_size, stride, padding, layout)
    return xla_pooling(x, -np.inf, lax.max, *window)


def xla_average_pool(
    x, *, kernel_size, stride=None, padding=0, layout, count_include_pad=True
):
    window = (kernel_size, stride, padding, layout)
    if count_include_pad:
        count = math.prod(pair(kernel_size))
    else:
        count = xla_pooling(jnp.ones_like(x), 0, lax.add, *window)
    return xla_pooling(x, 0, lax.add, *window) / count


def pooling_case(
    rng,
    operation,
    name,
    *,
    size=(7, 9),
    batch=2,
    channels=2,
    values=spaced,
    **options,
):
    x = images(rng, batch, channels, size, options["layout"], values)
    function = partial(getattr(jaxcnn, operation), **options)
    xla = xla_max_pool if operation == "max_pool2d" else xla_average_pool
    xla = partial(xla, **options)
    return both_rules(operation, name, {"x": x}, function, xla, smooth=values is not ties)


# --- The rest -------------------------------------------------------------------------


def elementwise_case(rng, operation, name, *, shape, values=spaced):
    function, xla = getattr(jaxcnn, operation), getattr(jax.nn, operation)
    arguments = {"x": values(rng, shape)}
    return both_rules(operation, name, arguments, function, xla, smooth=values is not ties)


def softmax_case(rng, operation, name, *, shape, axis=-1, scale=1):
    function = partial(getattr(jaxcnn, operation), axis=axis)
    xla = partial(getattr(jax.nn, operation), axis=axis)
    return both_rules(operation, name, {"x": normal(rng, shape) * scale}, function, xla)


def dense_case(rng, operation, name, *, x_shape, outputs, bias=True):
    def xla(x, w, b=None):
        y = jnp.matmul(x, w)
        return y if b is None else y + jnp.broadcast_to(b, y.shape)

    arguments = {"x": normal(rng, x_shape), "w": normal(rng, (x_shape[-1], outputs))}
    if bias:
        arguments["b"] = normal(rng, (outputs,))
    return both_rules(operation, name, arguments, jaxcnn.dense, xla)


def cross_entropy_case(rng, operation, name, *, shape, scale=1):
    labels = rng.integers(0, shape[-1], shape[:-1], np.int32)
    logits = normal(rng, shape) * scale
    function = partial(jaxcnn.softmax_cross_entropy, labels=labels)

    def xla(logits):
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)

    return both_rules(operation, name, {"logits": logits}, function, xla)


# --- Configurations -------------------------------------------------------------------

CONVOLUTIONS: Configurations = {
    "stride 2, padding 1": {"stride": 2, "padding": 1},
    "stride 1": {},
    "stride 3, padding 1": {"stride": 3, "padding": 1},
    "stride 3, kernel 2×2": {"stride": 3, "kernel_size": (2, 2)},
    "stride (2, 1), kernel 2×3": {"stride": (2, 1), "kernel_size": (2, 3)},
    "stride 2, last row unseen": {"stride": 2, "size": (8, 8)},
    "SAME, stride 2, kernel 4×4": {"padding": "SAME", "stride": 2, "kernel_size": (4, 4)},
    "SAME_LOWER, kernel 2×4": {"padding": "SAME_LOWER", "kernel_size": (2, 4)},
    "padding ((0, 2), (1, 0))": {"padding": ((0, 2), (1, 0))},
    "padding ((-1, 0), (1, -2))": {"padding": ((-1, 0), (1, -2))},
    "padding 4, kernel 3×2": {"padding": 4, "kernel_size": (3, 2)},
    "dilation (2, 3), padding 2": {"dilation": (2, 3), "padding": 2},
    "dilation 2, stride 2": {"dilation": 2, "stride": 2},
    "groups 2, padding 1": {"groups": 2, "channels": (4, 6), "padding": 1},
    "depthwise, stride 2": {"groups": 3, "channels": (3, 6), "stride": 2},
    "kernel 1×1": {"kernel_size": (1, 1)},
    "kernel 1×1, stride 2": {"kernel_size": (1, 1), "stride": 2},
    "kernel as large as the image": {"kernel_size": (7, 9)},
}

POOL_3X3 = {"kernel_size": 3, "stride": 2, "padding": 1}

POOLINGS: Configurations = {
    "3×3, stride 2, padding 1": POOL_3X3,
    "2×2": {"kernel_size": 2},
    "3×3, stride 1": {"kernel_size": 3, "stride": 1},
    "2×2, stride 3": {"kernel_size": 2, "stride": 3},
    "2×3, stride (1, 2)": {"kernel_size": (2, 3), "stride": (1, 2)},
    "4×4, SAME, stride 2": {"kernel_size": 4, "stride": 2, "padding": "SAME"},
    "4×4, SAME_LOWER, stride 2": {"kernel_size": 4, "stride": 2, "padding": "SAME_LOWER"},
    "3×2, padding ((1, 0), (0, 1))": {"kernel_size": (3, 2), "padding": ((1, 0), (0, 1))},
    "as large as the image": {"kernel_size": (7, 9)},
}

UNCOUNTED = {
    f"{name}, uncounted": {**configuration, "count_include_pad": False}
    for name, configuration in {
        "3×3, padding 1": POOL_3X3,
        "((1, 0), (0, 1))": {"kernel_size": (3, 2), "padding": ((1, 0), (0, 1))},
        "4×4, SAME": {"kernel_size": 4, "stride": 2, "padding": "SAME"},
        "4×4, SAME_LOWER": {"kernel_size": 4, "stride": 2, "padding": "SAME_LOWER"},
    }.items()
}

SOFTMAXES: Configurations = {
    "4×10": {"shape": (4, 10)},
    "axis 1 of 2×5×3": {"shape": (2, 5, 3), "axis": 1},
    "logits of scale 10": {"shape": (4, 10), "scale": 10},
}


def in_both_layouts(configurations: Configurations) -> Configurations:
    return {
        f"{name}, {layout}": {**configuration, "layout": layout}
        for name, configuration in configurations.items()
        for layout in LAYOUTS[2]
    }


def in_turns(configurations: Configurations, first: int = 0) -> Configurations:
    """One in one layout, the next in the other: half the time of both."""
    layouts = [LAYOUTS[2][(first + i) % 2] for i in range(len(configurations))]
    return {
        f"{name}, {layout}": {**configuration, "layout": layout}
        for layout, (name, configuration) in zip(
            layouts, configurations.items(), strict=True
        )
    }


IMAGES = {"batch": 16, "size": (32, 32), "layout": "NHWC"}
CONVOLUTION_3X3 = {**IMAGES, "channels": (16, 32), "padding": 1}
POOLING_2X2 = {**IMAGES, "channels": 32, "kernel_size": 2}

OPERATIONS = {
    "conv2d": Operation(
        convolution_case,
        in_both_layouts(CONVOLUTIONS)
        | in_turns({"no bias": {"bias": False}, "one image": {"batch": 1}}),
        CONVOLUTION_3X3,
    ),
    "conv2d_bias_gradient": Operation(
        bias_gradient_case, in_both_layouts({"3×4": {}}), {**IMAGES, "channels": 32}
    ),
    "conv2d_weight_gradient": Operation(
        convolution_case, in_turns(CONVOLUTIONS), CONVOLUTION_3X3
    ),
    "conv2d_input_gradient": Operation(
        convolution_case, in_turns(CONVOLUTIONS, first=1), CONVOLUTION_3X3
    ),
    "max_pool2d": Operation(
        pooling_case,
        in_turns(POOLINGS)
        | in_both_layouts({"ties, 3×3, stride 2": {**POOL_3X3, "values": ties}}),
        POOLING_2X2,
    ),
    "avg_pool2d": Operation(
        pooling_case, in_turns(POOLINGS | UNCOUNTED, first=1), POOLING_2X2
    ),
    "relu": Operation(
        elementwise_case,
        {"4×10": {"shape": (4, 10)}, "ties (zeros)": {"shape": (4, 10), "values": ties}},
        {"shape": (16, 32, 32, 32)},
    ),
    "dense": Operation(
        dense_case,
        {
            "5×7 to 5×3": {"x_shape": (5, 7), "outputs": 3},
            "no bias": {"x_shape": (5, 7), "outputs": 3, "bias": False},
            "2×3×4 to 2×3×5": {"x_shape": (2, 3, 4), "outputs": 5},
            "a single vector": {"x_shape": (7,), "outputs": 3},
        },
        {"x_shape": (512, 1024), "outputs": 256},
    ),
    "softmax": Operation(softmax_case, SOFTMAXES, {"shape": (1024, 1000)}),
    "log_softmax": Operation(softmax_case, SOFTMAXES, {"shape": (1024, 1000)}),
    "softmax_cross_entropy": Operation(
        cross_entropy_case,
        {
            "4×10": {"shape": (4, 10)},
            "2×3×5": {"shape": (2, 3, 5)},
            "logits of scale 10": {"shape": (4, 10), "scale": 10},
        },
        {"shape": (1024, 1000)},
    ),
}
