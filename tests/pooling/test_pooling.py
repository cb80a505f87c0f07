"""Max and average pooling: values and gradients for every window, ties and NaNs included.

Compared with loops in NumPy and with XLA's reduce_window, with random cotangents.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn.window import Window
from tests import oracles

NO_PADDING = ((0, 0), (0, 0))


def window(kernel_size, stride, padding=NO_PADDING):
    return Window(kernel_size, stride, padding, (1, 1))


# (size of x; what the user writes; the window that it means)
CASES = {
    "an int": ((4, 6), {"kernel_size": 2}, window((2, 2), (2, 2))),
    "size not divided": ((5, 7), {"kernel_size": (2, 3)}, window((2, 3), (2, 3))),
    "overlapping": ((5, 6), {"kernel_size": 3, "stride": 1}, window((3, 3), (1, 1))),
    "stride beyond kernel": (
        (7, 8),
        {"kernel_size": 2, "stride": 3},
        window((2, 2), (3, 3)),
    ),
    "all of it": ((3, 4), {"kernel_size": (3, 4)}, window((3, 4), (3, 4))),
    "1×1": ((3, 4), {"kernel_size": 1, "stride": (1, 2)}, window((1, 1), (1, 2))),
    "padding": (
        (5, 6),
        {"kernel_size": 3, "stride": 2, "padding": 1},
        window((3, 3), (2, 2), ((1, 1), (1, 1))),
    ),
    "padding, a pair each": (
        (5, 6),
        {"kernel_size": (3, 2), "padding": [(2, 0), (0, 1)]},
        window((3, 2), (3, 2), ((2, 0), (0, 1))),
    ),
    "SAME": (
        (5, 6),
        {"kernel_size": 3, "stride": 2, "padding": "SAME"},
        window((3, 3), (2, 2), ((1, 1), (0, 1))),
    ),
    "SAME_LOWER": (
        (5, 6),
        {"kernel_size": (2, 3), "stride": (1, 2), "padding": "SAME_LOWER"},
        window((2, 3), (1, 2), ((1, 0), (1, 0))),
    ),
}
every_case = pytest.mark.parametrize("name", CASES)
every_layout = pytest.mark.parametrize("layout", ["NCHW", "NHWC"])


def drawn(rng, name, layout):
    """x and dy for a case, what the user writes, and the oracles' terms."""
    size, options, meant = CASES[name]
    out = oracles.output_size(size, meant)
    x, dy = (
        jnp.asarray(oracles.in_layout(rng.standard_normal((2, 3, *each)), layout))
        for each in (size, out)
    )
    return x, dy, {**options, "layout": layout}, {"window": meant, "layout": layout}


def with_gradient(pooling, x, dy):
    """Y, and dX for the gradient dY that arrives."""

    @jax.jit
    def computed(x, dy):
        y, pullback = jax.vjp(pooling, x)
        return y, *pullback(dy)

    return computed(x, dy)


def max_pool_of(options):
    return functools.partial(jaxcnn.max_pool2d, **options)


def equal(ours, theirs):
    # Each number is one of the input's, or a sum of at most nine of dY's, which may be
    # added in another order: 9 · 2e-16 · 5.
    chex.assert_trees_all_close(ours, theirs, rtol=0, atol=1e-14)


# --- Max pooling ----------------------------------------------------------------------


@every_case
@every_layout
def test_max_pooling_is_the_documents_and_xlas(rng, name, layout):
    x, dy, options, terms = drawn(rng, name, layout)
    ours = with_gradient(max_pool_of(options), x, dy)
    equal(ours, oracles.max_pool(x, dy=dy, **terms))
    equal(ours, with_gradient(functools.partial(oracles.lax_max_pool, **terms), x, dy))


@every_layout
@pytest.mark.parametrize("name", ["overlapping", "padding"])
def test_of_equal_maxima_the_first_receives_the_gradient(rng, name, layout):
    x, dy, options, terms = drawn(rng, name, layout)
    x = jnp.round(x)  # nearly every window now has a tie
    ours = with_gradient(max_pool_of(options), x, dy)
    equal(ours, oracles.max_pool(x, dy=dy, **terms))
    equal(ours, with_gradient(functools.partial(oracles.lax_max_pool, **terms), x, dy))


@every_layout
def test_a_nan_beats_every_number_and_the_first_nan_beats_the_others(rng, layout):
    x, dy, options, terms = drawn(rng, "padding", layout)
    x = jnp.where(rng.random(x.shape) < 0.2, jnp.nan, x)
    x = jnp.where(rng.random(x.shape) < 0.1, jnp.inf, x)
    y, dx = with_gradient(max_pool_of(options), x, dy)
    wanted_y, wanted_dx = oracles.max_pool(x, dy=dy, **terms)
    assert 0 < np.isnan(y).sum() < y.size
    np.testing.assert_array_equal(y, wanted_y)
    np.testing.assert_allclose(dx, wanted_dx, rtol=0, atol=1e-14)  # as in equal()


def test_padding_never_wins():
    # Not even over −∞: the gradient stays in the image, at the window's first element.
    x = jnp.full((1, 2, 2), -jnp.inf)
    y, dx = with_gradient(
        max_pool_of({"kernel_size": 2, "padding": 1}), x, jnp.ones_like(x)
    )
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(dx, np.ones((1, 2, 2)))
    y, dx = with_gradient(max_pool_of({"kernel_size": 2}), x, jnp.full((1, 1, 1), 3.0))
    np.testing.assert_array_equal(y, [[[-np.inf]]])
    np.testing.assert_array_equal(dx, [[[3, 0], [0, 0]]])


def test_negative_padding_crops(rng):
    x = jnp.asarray(rng.standard_normal((1, 6, 5)))
    cropped = jaxcnn.max_pool2d(x, 2, 1, padding=((-1, -2), (0, -1)))
    np.testing.assert_array_equal(cropped, jaxcnn.max_pool2d(x[:, 1:4, :4], 2, 1))


@every_layout
def test_the_rule_keeps_the_winners_and_not_the_images(rng, layout):
    x, dy, options, _ = drawn(rng, "overlapping", layout)
    _, pullback = jax.vjp(max_pool_of(options), x)
    (kept,) = jax.tree.leaves(pullback)
    assert kept.dtype == jnp.int8
    assert kept.shape == dy.shape


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_max_pooling_rounds_nothing_but_the_gradients_sum(rng, dtype):
    x, dy, options, terms = drawn(rng, "overlapping", "NHWC")
    x, dy = x.astype(dtype), dy.astype(dtype)
    y, dx = with_gradient(max_pool_of(options), x, dy)
    assert y.dtype == dx.dtype == jnp.dtype(dtype)
    wide = [np.asarray(array, np.float64) for array in (x, dy)]
    wanted_y, wanted_dx = oracles.max_pool(wide[0], dy=wide[1], **terms)
    np.testing.assert_array_equal(np.asarray(y, np.float64), wanted_y)
    # At most nine terms of order 1 in float32, 9 · 6e-8, and then rounded once.
    np.testing.assert_allclose(
        np.asarray(dx, np.float64),
        wanted_dx,
        rtol=1.01 * float(jnp.finfo(dtype).eps) / 2,
        atol=2e-6,
    )


# --- Average pooling ------------------------------------------------------------------


# Without padding, the two ways to count are one.
COUNTS = [(name, True) for name in CASES] + [
    (name, False) for name, (_, _, meant) in CASES.items() if meant.padding != NO_PADDING
]


@pytest.mark.parametrize(("name", "count_include_pad"), COUNTS)
@every_layout
def test_average_pooling_is_the_documents_and_xlas(rng, name, layout, count_include_pad):
    x, dy, options, terms = drawn(rng, name, layout)
    terms["count_include_pad"] = count_include_pad
    ours = with_gradient(
        functools.partial(
            jaxcnn.avg_pool2d, **options, count_include_pad=count_include_pad
        ),
        x,
        dy,
    )
    equal(ours, oracles.average_pool(x, dy=dy, **terms))
    xla = functools.partial(oracles.lax_average_pool, **terms)
    equal(ours, with_gradient(xla, x, dy))


def test_padding_is_counted_by_default():
    x = jnp.ones((1, 2, 2))
    np.testing.assert_array_equal(jaxcnn.avg_pool2d(x, 2, padding=1), x / 4)
    counted = jaxcnn.avg_pool2d(x, 2, padding=1, count_include_pad=False)
    np.testing.assert_array_equal(counted, x)


def test_average_pooling_keeps_nothing(rng):
    x, _, options, _ = drawn(rng, "padding", "NCHW")
    _, pullback = jax.vjp(functools.partial(jaxcnn.avg_pool2d, **options), x)
    assert jax.tree.leaves(pullback) == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_average_pooling_rounds_once(rng, dtype):
    x, dy, options, terms = drawn(rng, "overlapping", "NHWC")
    x, dy = x.astype(dtype), dy.astype(dtype)
    ours = with_gradient(functools.partial(jaxcnn.avg_pool2d, **options), x, dy)
    assert {each.dtype for each in ours} == {jnp.dtype(dtype)}
    wide = [np.asarray(array, np.float64) for array in (x, dy)]
    wanted = oracles.average_pool(wide[0], dy=wide[1], count_include_pad=True, **terms)
    # Nine terms of order 1 in float32, 9 · 6e-8, and then rounded once.
    chex.assert_trees_all_close(
        tuple(np.asarray(each, np.float64) for each in ours),
        wanted,
        rtol=1.01 * float(jnp.finfo(dtype).eps) / 2,
        atol=2e-6,
    )


# --- Both -----------------------------------------------------------------------------

POOLINGS = {
    "max": jaxcnn.max_pool2d,
    "average": jaxcnn.avg_pool2d,
    "average of the image": functools.partial(jaxcnn.avg_pool2d, count_include_pad=False),
}
every_pooling = pytest.mark.parametrize("pooling", POOLINGS)


@every_layout
@every_pooling
def test_an_image_alone_is_a_batch_of_one(rng, pooling, layout):
    x, dy, options, _ = drawn(rng, "SAME", layout)
    pool = functools.partial(POOLINGS[pooling], **options)
    y, dx = with_gradient(pool, x[:1], dy[:1])
    equal(with_gradient(pool, x[0], dy[0]), (y[0], dx[0]))


@every_pooling
def test_eager_calls_give_what_compiled_calls_give(rng, pooling):
    x, dy, options, _ = drawn(rng, "SAME", "NCHW")
    pool = functools.partial(POOLINGS[pooling], **options)
    y, pullback = jax.vjp(pool, x)
    equal((y, *pullback(dy)), with_gradient(pool, x, dy))


@every_pooling
def test_an_empty_batch_stays_empty(rng, pooling):
    x, dy, options, _ = drawn(rng, "SAME", "NHWC")
    y, dx = with_gradient(functools.partial(POOLINGS[pooling], **options), x[:0], dy[:0])
    chex.assert_equal_shape([y, dy[:0]])
    chex.assert_equal_shape([dx, x[:0]])


@every_layout
@every_pooling
def test_autodiff_of_the_loops_agrees_with_the_rule(rng, pooling, layout):
    x, dy, options, _ = drawn(rng, "SAME", layout)
    pool = functools.partial(POOLINGS[pooling], **options)
    plain = functools.partial(pool, derivatives="autodiff")
    equal(with_gradient(plain, x, dy), with_gradient(pool, x, dy))
