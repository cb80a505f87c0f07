"""The equations, for any rank, layout, groups and dtype.

Compared with loops in NumPy, and with what JAX makes of the forward loop by itself.
"""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import equations
from jaxcnn.window import Window
from tests import oracles

CHANNELS_LAST = {"NCW": "NWC", "NCHW": "NHWC", "NCDHW": "NDHWC"}

# (layout, shape of x, C_out, groups, window), channels first.
CONVOLUTIONS = {
    "plain 1-D": ("NCW", (2, 3, 7), 4, 1, Window((3,), (1,), ((0, 0),), (1,))),
    "1-D, all at once": ("NCW", (2, 4, 9), 6, 2, Window((3,), (2,), ((1, 3),), (2,))),
    "plain 2-D": (
        "NCHW",
        (2, 3, 5, 6),
        4,
        1,
        Window((3, 2), (1, 1), ((0, 0),) * 2, (1, 1)),
    ),
    "2-D, all at once": (
        "NCHW",
        (2, 4, 7, 9),
        6,
        2,
        Window((3, 2), (2, 3), ((2, 1), (-1, 3)), (1, 2)),
    ),
    "depthwise": (
        "NCHW",
        (2, 3, 4, 4),
        6,
        3,
        Window((2, 2), (1, 1), ((1, 0),) * 2, (1, 1)),
    ),
    "1×1": ("NCHW", (2, 3, 4, 5), 2, 1, Window((1, 1), (1, 1), ((0, 0),) * 2, (1, 1))),
    "3-D, all at once": (
        "NCDHW",
        (2, 4, 3, 4, 5),
        4,
        2,
        Window((2, 1, 3), (1, 2, 1), ((1, 0), (0, 1), (0, 0)), (2, 1, 1)),
    ),
}


def every_convolution(test):
    test = pytest.mark.parametrize("last", [False, True], ids=["first", "last"])(test)
    return pytest.mark.parametrize("name", CONVOLUTIONS)(test)


def drawn(rng, name, last, draw=np.random.Generator.standard_normal):
    """X, W and dY for a convolution of the table, and what else it is made of."""
    layout, x_shape, c_out, groups, window = CONVOLUTIONS[name]
    size = x_shape[2:]
    y_shape = (x_shape[0], c_out, *oracles.output_size(size, window))
    w_shape = (c_out, x_shape[1] // groups, *window.kernel_size)
    layout = CHANNELS_LAST[layout] if last else layout
    x = oracles.in_layout(draw(rng, x_shape), layout)
    w = oracles.weights_in_layout(draw(rng, w_shape), layout)
    dy = oracles.in_layout(draw(rng, y_shape), layout)
    static = {"size": size, "window": window, "layout": layout, "groups": groups}
    return x, w, dy, static


def small_integers(rng, shape):
    return rng.integers(-9, 9, shape, dtype=np.int32)


@functools.partial(jax.jit, static_argnames=("size", "window", "layout", "groups"))
def our_sums(x, w, dy, size, window, layout, groups):
    """Y, dW, dX and db; compiled together, which is faster than one by one."""
    static = {"window": window, "layout": layout, "groups": groups}
    return (
        equations.forward(x, w, **static),
        equations.weight_gradient(x, dy, **static),
        equations.input_gradient(dy, w, input_size=size, **static),
        equations.bias_gradient(dy, layout=layout),
    )


def sums_by_loops(x, w, dy, size, window, layout, groups):
    return (
        oracles.convolution(x, w, None, window, groups, layout),
        oracles.weight_gradient(x, dy, window, groups, layout),
        oracles.input_gradient(dy, w, window, size, groups, layout),
        oracles.bias_gradient(dy, layout),
    )


@every_convolution
def test_the_convolutions_sums_are_the_documents(rng, name, last):
    x, w, dy, static = drawn(rng, name, last)
    ours, loops = our_sums(x, w, dy, **static), sums_by_loops(x, w, dy, **static)
    # Some hundred terms of order 1, added in another order: 100 · 2e-16 · 10.
    chex.assert_trees_all_close(ours, loops, rtol=0, atol=1e-12)


slow = functools.partial(pytest.param, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("name", "last"),
    [
        ("2-D, all at once", False),
        ("3-D, all at once", True),
        slow("2-D, all at once", True),
        slow("3-D, all at once", False),
    ],
)
def test_sums_of_integers_are_exact(rng, name, last):
    x, w, dy, static = drawn(rng, name, last, small_integers)
    ours, loops = our_sums(x, w, dy, **static), sums_by_loops(x, w, dy, **static)
    assert {each.dtype for each in ours} == {jnp.dtype("int32")}
    for our, loop in zip(ours, loops, strict=True):
        np.testing.assert_array_equal(our, loop)


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
@pytest.mark.parametrize("name", ["plain 2-D", "2-D, all at once"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_sums_of_half_precision_are_sums_in_float32(rng, dtype, name, last):
    x, w, dy, static = drawn(rng, name, last)
    halves = [array.astype(jnp.dtype(dtype)) for array in (x, w, dy)]
    wide = [array.astype("float32") for array in halves]
    ours, of_wide = our_sums(*halves, **static), our_sums(*wide, **static)
    assert {each.dtype for each in ours} == {jnp.dtype("float32")}
    # Products of halves are exact in float32; some hundred terms of order 1 are added
    # in another order: 100 · 6e-8. A half's own rounding would be 1e-3.
    chex.assert_trees_all_close(ours, of_wide, rtol=0, atol=1e-5)


def test_float32_stays_float32(rng):
    x, w, dy, static = drawn(rng, "plain 2-D", last=True)
    x, w, dy = (array.astype("float32") for array in (x, w, dy))
    ours = our_sums(x, w, dy, **static)
    assert {each.dtype for each in ours} == {jnp.dtype("float32")}
    # Some hundred terms of order 1, each rounded by 6e-8.
    chex.assert_trees_all_close(ours, sums_by_loops(x, w, dy, **static), rtol=0, atol=1e-5)


# --- What JAX makes of the loops ------------------------------------------------------


def forward_of(static):
    known = {name: static[name] for name in ("window", "layout", "groups")}
    return functools.partial(equations.forward, **known)


@pytest.mark.parametrize("last", [False, True], ids=["first", "last"])
def test_autodiff_of_the_forward_loop_gives_the_two_gradients(rng, last):
    x, w, dy, static = drawn(rng, "2-D, all at once", last)

    @jax.jit
    def autodiffs(x, w, dy):
        return jax.vjp(forward_of(static), x, w)[1](dy)

    dx, dw = autodiffs(x, w, dy)
    _, our_dw, our_dx, _ = our_sums(x, w, dy, **static)
    # The same terms in the same precision, added in another order.
    chex.assert_trees_all_close((our_dx, our_dw), (dx, dw), rtol=0, atol=1e-12)


def test_forward_mode_goes_through_the_loops(rng):
    x, w, _, static = drawn(rng, "2-D, all at once", last=False)
    forward = forward_of(static)
    x_dot, w_dot = (rng.standard_normal(array.shape) for array in (x, w))

    @jax.jit
    def both(x, w, x_dot, w_dot):
        _, y_dot = jax.jvp(forward, (x, w), (x_dot, w_dot))
        # The product rule, since the sum is bilinear; the same terms in another order.
        return y_dot, forward(x_dot, w) + forward(x, w_dot)

    y_dot, wanted = both(x, w, x_dot, w_dot)
    np.testing.assert_allclose(y_dot, wanted, rtol=0, atol=1e-12)


# --- Pooling --------------------------------------------------------------------------

# (layout, shape of x, window), channels first; every window sees some of the input.
POOLINGS = {
    "1-D": ("NCW", (2, 3, 8), Window((3,), (2,), ((1, 1),), (1,))),
    "2-D": ("NCHW", (2, 2, 5, 6), Window((2, 3), (2, 1), ((1, 0), (1, 2)), (1, 1))),
    "2-D, dilated": (
        "NCHW",
        (1, 2, 6, 6),
        Window((2, 2), (1, 2), ((0, 0), (1, 0)), (3, 2)),
    ),
    "3-D": (
        "NCDHW",
        (1, 2, 3, 4, 3),
        Window((2, 2, 1), (1, 2, 2), ((0, 1), (0, 1), (0, 0)), (1, 1, 1)),
    ),
}


def every_pooling(test):
    test = pytest.mark.parametrize("last", [False, True], ids=["first", "last"])(test)
    return pytest.mark.parametrize("name", POOLINGS)(test)


def drawn_for_pooling(rng, name, last, draw=np.random.Generator.standard_normal):
    """X and dY for a pooling of the table, the size of X, the window and the layout."""
    layout, x_shape, window = POOLINGS[name]
    size = x_shape[2:]
    y_shape = (*x_shape[:2], *oracles.output_size(size, window))
    layout = CHANNELS_LAST[layout] if last else layout
    x = oracles.in_layout(draw(rng, x_shape), layout)
    dy = oracles.in_layout(draw(rng, y_shape), layout)
    return x, dy, size, {"window": window, "layout": layout}


@functools.partial(jax.jit, static_argnames=("size", "window", "layout"))
def our_max_pool(x, dy, others, size, window, layout):
    """Y, who wins, dX, and what stands where X wins in X and in others."""
    static = {"window": window, "layout": layout}
    y, winner = equations.max_pool(x, **static)
    dx = equations.max_pool_gradient(dy, winner, input_size=size, **static)
    taken = [equations.take_winners(each, winner, **static) for each in (x, others)]
    return y, winner, dx, *taken


@every_pooling
def test_max_pooling_and_its_gradient_are_exact(rng, name, last):
    # Integers from −9 to 9 are full of ties, which the first maximum must win.
    x, dy, size, static = drawn_for_pooling(rng, name, last, small_integers)
    y, _, dx, *_ = our_max_pool(x, dy, x, size, **static)
    wanted_y, wanted_dx = oracles.max_pool(x, dy=dy, **static)
    np.testing.assert_array_equal(y, wanted_y)
    np.testing.assert_array_equal(dx, wanted_dx)


@every_pooling
def test_take_winners_reads_where_the_gradient_is_put(rng, name, last):
    x, dy, size, static = drawn_for_pooling(rng, name, last, small_integers)
    others = small_integers(rng, x.shape)
    y, _, placed, *taken = our_max_pool(x, dy, others, size, **static)
    np.testing.assert_array_equal(taken[0], y)
    assert np.vdot(taken[1], dy) == np.vdot(others, placed)


def test_a_window_over_padding_alone_has_no_winner():
    window = Window((2,), (1,), ((3, 0),), (1,))
    pool = jax.jit(functools.partial(equations.max_pool, window=window, layout="NCW"))
    y, winner = jax.tree.map(np.asarray, pool(np.ones((1, 1, 2))))
    np.testing.assert_array_equal(y[0, 0], [-np.inf, -np.inf, 1, 1])
    np.testing.assert_array_equal(winner[0, 0], [-1, -1, 1, 0])


@pytest.mark.parametrize(("taps", "dtype"), [(1, "int8"), (128, "int8"), (129, "int16")])
def test_the_winner_has_the_smallest_type_that_holds_every_tap(taps, dtype):
    # The last tap wins, whose number is the largest.
    x = np.arange(taps, dtype=float).reshape(1, 1, -1)
    window = Window((taps,), (1,), ((0, 0),), (1,))
    pool = jax.jit(functools.partial(equations.max_pool, window=window, layout="NCW"))
    _, winner = pool(x)
    assert winner.dtype == dtype
    assert winner.item() == taps - 1


@every_pooling
def test_patches_are_what_the_taps_see_and_fold_is_the_transpose(rng, name, last):
    x, _, size, static = drawn_for_pooling(rng, name, last)
    unfold = functools.partial(equations.unfold, **static)
    fold = functools.partial(equations.fold, input_size=size, **static)
    dp = rng.standard_normal(jax.eval_shape(unfold, x).shape)
    p, folded = jax.jit(lambda x, dp: (unfold(x), fold(dp)))(x, dp)
    wanted, dx = oracles.patches(x, dp=dp, **static)
    np.testing.assert_array_equal(p, wanted)
    # A dozen terms of order 1, added in another order: 12 · 2e-16.
    chex.assert_trees_all_close(folded, dx, rtol=0, atol=1e-14)


# What an average divides by: see tests.oracles.numpy_loops.average_pool.
DIVISIONS = {
    "all taps": lambda padding: {},
    "those inside": lambda padding: {"counted": ((0, 0),) * len(padding)},
    "some outside": lambda padding: {"counted": tuple((low, 1) for low, _ in padding)},
    "a number": lambda padding: {"divisor": 3},
}


@functools.partial(
    jax.jit, static_argnames=("size", "window", "layout", "counted", "divisor")
)
def our_average_pool(x, dy, size, **static):
    y = equations.average_pool(x, **static)
    return y, equations.average_pool_gradient(dy, input_size=size, **static)


def every_average():
    """Every pooling with every division, in layouts that take turns."""
    for number, (name, divide) in enumerate(itertools.product(POOLINGS, DIVISIONS)):
        # The next pooling begins with the other layout.
        first = (number + number // len(DIVISIONS)) % 2
        yield name, divide, bool(first)
        yield slow(name, divide, not first)


@pytest.mark.parametrize(("name", "divide", "last"), [*every_average()])
def test_average_pooling_and_its_gradient_are_the_documents(rng, name, last, divide):
    x, dy, size, static = drawn_for_pooling(rng, name, last)
    static |= DIVISIONS[divide](static["window"].padding)
    # A dozen terms of order 1, added in another order: 12 · 2e-16.
    chex.assert_trees_all_close(
        our_average_pool(x, dy, size, **static),
        oracles.average_pool(x, dy=dy, **static),
        rtol=0,
        atol=1e-14,
    )


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_poolings_sum_half_precision_in_float32(rng, dtype):
    x, dy, size, static = drawn_for_pooling(rng, "2-D", last=False)
    halves = [each.astype(jnp.dtype(dtype)) for each in (x, dy)]
    wide = [array.astype("float32") for array in halves]
    y, winner, dx, *_ = our_max_pool(*halves, halves[0], size, **static)
    wide_y, wide_winner, wide_dx, *_ = our_max_pool(*wide, wide[0], size, **static)
    # A maximum is not a sum: nothing is rounded, and the dtype stays.
    assert (y.dtype, dx.dtype) == (halves[0].dtype, jnp.float32)
    np.testing.assert_array_equal(winner, wide_winner)
    np.testing.assert_array_equal(np.asarray(y).astype("float32"), wide_y)
    averages = our_average_pool(*halves, size, **static)
    wide_averages = our_average_pool(*wide, size, **static)
    # A dozen terms of order 1, added in another order: 12 · 6e-8.
    chex.assert_trees_all_close(
        (dx, *averages), (wide_dx, *wide_averages), rtol=0, atol=1e-6
    )
