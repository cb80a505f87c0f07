"""Arguments: what a user may write, and what it means. What not: see test_errors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn.arguments import window_over
from jaxcnn.window import Window


@pytest.mark.parametrize(
    ("padding", "pairs"),
    [
        (2, ((2, 2), (2, 2))),
        (-1, ((-1, -1), (-1, -1))),
        ((1, 2), ((1, 1), (2, 2))),
        ([1, 2], ((1, 1), (2, 2))),
        (((1, 2), (0, -3)), ((1, 2), (0, -3))),
        ([[1, 2], [0, 3]], ((1, 2), (0, 3))),
        ((np.int64(1), 2), ((1, 1), (2, 2))),
        # A window of 3 that moves by 2 over 8 and 9 needs 9 for four steps and for five 11.
        ("SAME", ((0, 1), (1, 1))),
        ("SAME_LOWER", ((1, 0), (1, 1))),
        ("VALID", ((0, 0), (0, 0))),
    ],
)
def test_every_form_of_padding_means_low_and_high_pairs(padding, pairs):
    assert window_over((8, 9), 3, stride=2, padding=padding).padding == pairs


def test_ints_stand_for_every_dimension():
    window = window_over((9, 9, 9), 2, stride=3, dilation=np.int32(4))
    assert window == Window((2,) * 3, (3,) * 3, ((0, 0),) * 3, (4,) * 3)


def test_a_window_that_just_fits_is_accepted():
    assert window_over((2,), 3, padding=((0, 3),), dilation=2).output_size((2,)) == (1,)


def test_a_step_beyond_the_input_is_none():
    # Memory grew with the stride in `banded`, and with its square in `pooled`.
    window = window_over((8, 9), 3, stride=(2**40, 2**70), padding=1)
    assert window == window_over((8, 9), 3, stride=(10, 11), padding=1)
    assert window.stride == (10, 11)
    assert window_over((8,), 1, dilation=2**70) == window_over((8,), 1)


OVER_ONE_POSITION = {
    "conv2d": jaxcnn.conv2d,
    "conv_transpose2d": lambda x, w, **known: jaxcnn.conv_transpose2d(
        x[..., :1, :1], w, **known
    ),
    "max_pool2d": lambda x, w, **known: jaxcnn.max_pool2d(x, 2, **known),
    "avg_pool2d": lambda x, w, **known: jaxcnn.avg_pool2d(x, 2, ceil_mode=True, **known),
    "unfold": lambda x, w, **known: jaxcnn.unfold(x, 2, **known),
}


@pytest.mark.parametrize("name", OVER_ONE_POSITION)
def test_a_huge_stride_is_the_same_program_as_one_over_the_input(name):
    def traced(stride):
        call = functools.partial(OVER_ONE_POSITION[name], stride=stride)
        return str(jax.make_jaxpr(call)(np.ones((1, 3, 5, 5)), np.ones((3, 3, 2, 2))))

    assert traced(2**40) == traced(5)


def test_a_huge_stride_behind_jaxs_name_is_none_either():
    x, w = np.ones((1, 3, 5, 5)), np.ones((3, 3, 2, 2))

    def traced(stride):
        def call(x, w):
            return jax.lax.conv_general_dilated(x, w, (stride, stride), "VALID")

        with jaxcnn.patched_jax():
            return str(jax.make_jaxpr(call)(x, w))

    assert "conv_forward" in traced(5)
    assert traced(2**40) == traced(5)


X, W = (2, 3, 4, 5), (6, 3, 2, 2)
OF_ARRAYS = {
    "convolution": (jaxcnn.conv2d, [X, W, (6,)]),
    "dense": (jaxcnn.dense, [(2, 3), (3, 4), (4,)]),
    "maxima": (lambda x: jaxcnn.max_pool2d(x, 2), [X]),
    "powers": (lambda x: jaxcnn.lp_pool2d(x, 2, 2), [X]),
    "normalization": (lambda x, w, b: jaxcnn.layer_norm(x, 5, w, b), [X, (5,), (5,)]),
}


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
@pytest.mark.parametrize("which", OF_ARRAYS)
def test_arrays_of_numpy_are_moved_and_pulled_back_as_those_of_jax(which, dtype):
    function, shapes = OF_ARRAYS[which]

    def derivatives(made_by):
        operands, dots = (
            [made_by(drawn.standard_normal(shape), dtype) for shape in shapes]
            for drawn in (np.random.default_rng(seed) for seed in (1, 2))
        )
        y, y_dot = jax.jvp(function, operands, dots)
        _, pull_back = jax.vjp(function, *operands)
        return y, y_dot, pull_back(made_by(np.ones(y.shape), dtype))

    of_numpy, of_jax = map(derivatives, (np.asarray, jnp.asarray))
    # The same programs, of the same numbers.
    jax.tree.map(np.testing.assert_array_equal, of_numpy, of_jax)
