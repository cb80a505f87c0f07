"""What JAX asks of its own convolutions and windows: of jaxcnn's, and under the patch.

``jax.test_util.check_grads`` compares both modes, of each other up to second order, with
finite differences. ``vmap`` over every axis is compared with a call for each element.
"""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

import jaxcnn


def one_is_quick_of(every, *options):
    """All combinations of the options, each after its number."""
    return [
        pytest.param(
            number,
            combination,
            marks=pytest.mark.slow if number % every else (),
            id=str(number),
        )
        for number, combination in enumerate(itertools.product(*options))
    ]


def checked(function, *operands):
    # Float64: third derivatives of order 100 leave 1e-10 · 100, and the rounding of a
    # hundred terms 100 · 1e-16 / 1e-5.
    check_grads(function, operands, order=2, atol=1e-6, rtol=1e-6, eps=1e-5)


# --- Under the patch ------------------------------------------------------------------

NUMBERS = (
    ("NCHW", "OIHW", "NCHW"),
    ("NHWC", "HWIO", "NHWC"),
    ("NHWC", "OIHW", "NCHW"),
)
STRIDES = ((1, 1), (1, 2), (2, 1))
PADDINGS = (((0, 0), (0, 0)), ((1, 0), (0, 1)), ((-1, 0), (0, -1)))
SPREADS = ((1, 1), (2, 1))
DILATIONS = ((1, 1), (1, 2))
GROUPS = ((1, 1), (2, 1), (1, 2))


def convolution(numbers, stride, padding, spread, dilation, groups):
    of_features, of_batch = groups
    return partial(
        lax.conv_general_dilated,
        window_strides=stride,
        padding=padding,
        lhs_dilation=spread,
        rhs_dilation=dilation,
        dimension_numbers=numbers,
        feature_group_count=of_features,
        batch_group_count=of_batch,
    )


def operands_of(rng, numbers, groups):
    """Of a convolution from 3 to 2 channels in each group, its axes in this order."""
    of_features, of_batch = groups
    sizes = {"N": 2 * of_batch, "C": 3 * of_features, "H": 4, "W": 5}
    kernel = {"O": 2 * of_features * of_batch, "I": 3, "H": 2, "W": 1}
    x, w, _ = numbers
    return (
        rng.standard_normal([sizes[letter] for letter in x]),
        rng.standard_normal([kernel[letter] for letter in w]),
    )


@pytest.mark.parametrize(
    ("number", "options"),
    one_is_quick_of(11, STRIDES, PADDINGS, SPREADS, DILATIONS, GROUPS),
)
def test_convolutions_under_the_patch_have_both_modes(number, options, rng):
    numbers = NUMBERS[number % len(NUMBERS)]
    *_, groups = options
    function, operands = convolution(numbers, *options), operands_of(rng, numbers, groups)
    with jaxcnn.patched_jax():
        assert "conv_" in str(jax.make_jaxpr(function)(*operands))
        checked(function, *operands)


REDUCTIONS = ((-np.inf, lax.max), (0.0, lax.add))
WINDOW_PADDINGS = ("VALID", "SAME", ((0, 0), (1, 0), (0, 1)))


def windows(reduction, stride, padding, dilation):
    return partial(
        lax.reduce_window,
        init_value=reduction[0],
        computation=reduction[1],
        window_dimensions=(1, 2, 2),
        window_strides=(1, *stride),
        padding=padding,
        window_dilation=(1, *dilation),
    )


@pytest.mark.parametrize(
    ("number", "options"),
    one_is_quick_of(5, REDUCTIONS, STRIDES, WINDOW_PADDINGS, DILATIONS),
)
def test_windows_under_the_patch_have_both_modes(number, options, rng):
    x = rng.permutation(2 * 4 * 5).reshape(2, 4, 5) / 10  # no maximum moves
    with jaxcnn.patched_jax():
        assert "_pool" in str(jax.make_jaxpr(windows(*options))(x))
        checked(windows(*options), x)


# --- jaxcnn's own ---------------------------------------------------------------------

WINDOW = {"stride": (2, 1), "padding": ((1, 0), (2, 1)), "groups": 2}
X, Y, W, B = (2, 4, 5, 6), (2, 6, 2, 8), (6, 2, 3, 2), (6,)

FUNCTIONS = {
    "conv2d": (partial(jaxcnn.conv2d, **WINDOW), (X, W, B)),
    "conv2d_weight_gradient": (
        partial(jaxcnn.conv2d_weight_gradient, kernel_size=(3, 2), **WINDOW),
        (X, Y),
    ),
    "conv2d_input_gradient": (
        partial(jaxcnn.conv2d_input_gradient, input_size=(5, 6), **WINDOW),
        (Y, W),
    ),
    "conv_transpose1d": (
        partial(jaxcnn.conv_transpose1d, stride=2, dilation=2),
        ((2, 3, 4), (3, 2, 2), (2,)),
    ),
    "depthwise_conv2d": (
        partial(jaxcnn.depthwise_conv2d, padding=1, layout="NHWC"),
        ((2, 4, 3, 2), (3, 2, 1, 4)),
    ),
    "dense": (jaxcnn.dense, ((3, 4), (4, 2), (2,))),
    "max_pool2d": (
        partial(jaxcnn.max_pool2d, kernel_size=3, stride=2, padding=1, ceil_mode=True),
        (X,),
    ),
    "avg_pool2d": (
        partial(
            jaxcnn.avg_pool2d, kernel_size=2, dilation=2, padding=1, count_include_pad=False
        ),
        (X,),
    ),
    "lp_pool1d": (partial(jaxcnn.lp_pool1d, norm_type=3, kernel_size=2), ((2, 3, 6),)),
    "adaptive_max_pool1d": (
        partial(jaxcnn.adaptive_max_pool1d, output_size=3),
        ((2, 3, 7),),
    ),
    "batch_norm": (
        lambda x, w, b: jaxcnn.batch_norm(x, None, None, w, b, training=True, layout="NC")[
            0
        ],
        ((5, 3), (3,), (3,)),
    ),
    "softmax_cross_entropy": (
        lambda x: jaxcnn.softmax_cross_entropy(x, jnp.arange(3), label_smoothing=0.1),
        ((3, 4),),
    ),
    "gelu": (jaxcnn.gelu, ((3, 4),)),
}


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.slow if name in ("batch_norm", "gelu") else ())
        for name in FUNCTIONS
    ],
)
def test_functions_have_both_modes(name, rng):
    function, shapes = FUNCTIONS[name]
    checked(function, *(rng.uniform(0.5, 2, shape) for shape in shapes))


# --- vmap over every axis -------------------------------------------------------------

TIMES = 3


def every_in_axes(*operands):
    """None, or one more axis, for each operand; not None for all."""
    choices = ((None, *range(x.ndim + 1)) for x in operands)
    return [each for each in itertools.product(*choices) if set(each) != {None}]


def in_every_way(function, ways, operands):
    """The results of ``vmap`` for each in_axes: of the first where one is not mapped.

    Args:
      function: of arrays.
      ways: each in_axes.
      operands: the arrays of every time, stacked along their first axis.
    """

    def with_axis(x, axis):
        return x[0] if axis is None else jnp.moveaxis(x, 0, axis)

    return [
        jax.vmap(function, in_axes)(*map(with_axis, operands, in_axes)) for in_axes in ways
    ]


def one_by_one(function, in_axes, operands):
    def at(time, x, axis):
        return x[0 if axis is None else time]

    times = range(len(operands[0]))
    return np.stack(
        [function(*map(partial(at, time), operands, in_axes)) for time in times]
    )


def all_are_jaxs(function, operands):
    ways = every_in_axes(*(x[0] for x in operands))
    mapped = jax.jit(partial(in_every_way, function, ways))
    with jaxcnn.patched_jax():
        ours = mapped(operands)
    jaxs = jax.jit(function)
    for in_axes, each in zip(ways, ours, strict=True):
        # Float64, some dozens of terms of order 1.
        wanted = one_by_one(jaxs, in_axes, operands)
        np.testing.assert_allclose(each, wanted, rtol=0, atol=1e-12)


MAPPED = (
    # Stride, padding, both dilations, groups.
    ((2, 1), ((1, 0), (0, 1)), (1, 1), (1, 2), (1, 1)),
    ((1, 1), ((0, 0), (0, -1)), (2, 1), (1, 1), (2, 1)),
    ((1, 2), ((0, 0), (0, 0)), (2, 1), (1, 2), (1, 2)),
)


@pytest.mark.parametrize(("number", "options"), one_is_quick_of(4, MAPPED, NUMBERS))
def test_convolutions_under_the_patch_are_mapped_over_every_axis(number, options, rng):
    options, numbers = options
    *_, groups = options
    each_time = (operands_of(rng, numbers, groups) for _ in range(TIMES))
    operands = [np.stack(stack) for stack in zip(*each_time, strict=True)]
    all_are_jaxs(convolution(numbers, *options), operands)


@pytest.mark.parametrize("reduction", REDUCTIONS, ids=["max", "add"])
def test_windows_under_the_patch_are_mapped_over_every_axis(reduction, rng):
    x = rng.standard_normal((TIMES, 2, 4, 5))
    all_are_jaxs(windows(reduction, (2, 1), WINDOW_PADDINGS[2], (1, 2)), [x])
