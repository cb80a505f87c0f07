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
slow = functools.partial(pytest.param, marks=pytest.mark.slow)
every_layout = pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
one_layout = pytest.mark.parametrize("layout", ["NCHW", slow("NHWC")])


IN_BOTH = "padding, a pair each"
"""What is computed in both layouts always; otherwise they take turns."""


def in_turns(rows):
    for number, row in enumerate(rows):
        for place, layout in enumerate(("NCHW", "NHWC")):
            is_in_turn = row[0] == IN_BOTH or number % 2 == place
            yield (*row, layout) if is_in_turn else slow(*row, layout)


def drawn(name):
    """x and dy for a case, channels first."""
    rng = np.random.default_rng(2024)
    size, _, meant = CASES[name]
    out = oracles.output_size(size, meant)
    return tuple(rng.standard_normal((2, 3, *each)) for each in (size, out))


def in_layout(arrays, layout):
    return tuple(oracles.in_layout(each, layout) for each in arrays)


def channels_first(arrays, layout):
    return tuple(oracles.channels_first(each, layout) for each in arrays)


def options_of(name, layout):
    """What the case's user writes."""
    return {**CASES[name][1], "layout": layout}


def terms_of(name, layout="NCHW"):
    """What the options mean, as the oracles are told it."""
    return {"window": CASES[name][2], "layout": layout}


def with_gradient(pooling):
    """Y, and dX for the gradient dY that arrives."""

    @jax.jit
    def computed(x, dy):
        y, pullback = jax.vjp(pooling, x)
        return y, *pullback(dy)

    return computed


@functools.cache
def max_pool_of(name, layout):
    """The case's result and gradient, compiled once for all tests."""
    return with_gradient(functools.partial(jaxcnn.max_pool2d, **options_of(name, layout)))


@functools.cache
def xlas_max_pool_of(name):
    return with_gradient(functools.partial(oracles.lax_max_pool, **terms_of(name)))


def equal(ours, theirs):
    # Each number is one of the input's, or a sum of at most nine of dY's, which may be
    # added in another order: 9 · 2e-16 · 5.
    chex.assert_trees_all_close(ours, theirs, rtol=0, atol=1e-14)


# --- Max pooling ----------------------------------------------------------------------


def max_pooling_is_the_documents_and_xlas(name, layout, x, dy):
    ours = max_pool_of(name, layout)(*in_layout((x, dy), layout))
    ours = channels_first(ours, layout)
    equal(ours, oracles.max_pool(x, dy=dy, **terms_of(name)))
    equal(ours, xlas_max_pool_of(name)(x, dy))


@pytest.mark.parametrize(("name", "layout"), [*in_turns([(name,) for name in CASES])])
def test_max_pooling_is_the_documents_and_xlas(name, layout):
    max_pooling_is_the_documents_and_xlas(name, layout, *drawn(name))


@every_layout
@pytest.mark.parametrize("name", ["overlapping", "padding"])
def test_of_equal_maxima_the_first_receives_the_gradient(name, layout):
    x, dy = drawn(name)
    # Nearly every window now has a tie.
    max_pooling_is_the_documents_and_xlas(name, layout, np.round(x), dy)


@every_layout
def test_a_nan_beats_every_number_and_the_first_nan_beats_the_others(rng, layout):
    x, dy = in_layout(drawn("padding"), layout)
    x = np.where(rng.random(x.shape) < 0.2, np.nan, x)
    x = np.where(rng.random(x.shape) < 0.1, np.inf, x)
    y, dx = max_pool_of("padding", layout)(x, dy)
    wanted_y, wanted_dx = oracles.max_pool(x, dy=dy, **terms_of("padding", layout))
    assert 0 < np.isnan(y).sum() < y.size
    np.testing.assert_array_equal(y, wanted_y)
    np.testing.assert_allclose(dx, wanted_dx, rtol=0, atol=1e-14)  # as in equal()


def test_padding_never_wins():
    # Not even over −∞: the gradient stays in the image, at the window's first element.
    def pool(**options):
        return with_gradient(functools.partial(jaxcnn.max_pool2d, **options))

    x = np.full((1, 2, 2), -np.inf)
    y, dx = pool(kernel_size=2, padding=1)(x, np.ones_like(x))
    np.testing.assert_array_equal(y, x)
    np.testing.assert_array_equal(dx, np.ones((1, 2, 2)))
    y, dx = pool(kernel_size=2)(x, np.full((1, 1, 1), 3.0))
    np.testing.assert_array_equal(y, [[[-np.inf]]])
    np.testing.assert_array_equal(dx, [[[3, 0], [0, 0]]])


def test_negative_padding_crops(rng):
    x = rng.standard_normal((1, 6, 5))
    cropped = jaxcnn.max_pool2d(x, 2, 1, padding=((-1, -2), (0, -1)))
    np.testing.assert_array_equal(cropped, jaxcnn.max_pool2d(x[:, 1:4, :4], 2, 1))


def kept_by(pool, x):
    """What the rule keeps for the gradient."""
    return jax.tree.leaves(jax.eval_shape(lambda x: jax.vjp(pool, x)[1], x))


@every_layout
def test_the_rule_keeps_the_winners_and_not_the_images(layout):
    x, dy = in_layout(drawn("overlapping"), layout)
    options = options_of("overlapping", layout)
    (kept,) = kept_by(functools.partial(jaxcnn.max_pool2d, **options), x)
    assert kept.dtype == jnp.int8
    assert kept.shape == dy.shape


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_max_pooling_rounds_nothing_but_the_gradients_sum(dtype):
    arrays = in_layout(drawn("overlapping"), "NHWC")
    x, dy = (each.astype(jnp.dtype(dtype)) for each in arrays)
    y, dx = max_pool_of("overlapping", "NHWC")(x, dy)
    assert y.dtype == dx.dtype == jnp.dtype(dtype)
    wide = [np.asarray(array, np.float64) for array in (x, dy)]
    terms = terms_of("overlapping", "NHWC")
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


@functools.cache
def wanted_averages(name, count_include_pad):
    """By loops and by XLA, channels first: the same for all layouts."""
    x, dy = drawn(name)
    terms = {**terms_of(name), "count_include_pad": count_include_pad}
    xla = functools.partial(oracles.lax_average_pool, **terms)
    return oracles.average_pool(x, dy=dy, **terms), with_gradient(xla)(x, dy)


@pytest.mark.parametrize(("name", "count_include_pad", "layout"), [*in_turns(COUNTS)])
def test_average_pooling_is_the_documents_and_xlas(name, layout, count_include_pad):
    pool = functools.partial(
        jaxcnn.avg_pool2d,
        **options_of(name, layout),
        count_include_pad=count_include_pad,
    )
    ours = with_gradient(pool)(*in_layout(drawn(name), layout))
    for theirs in wanted_averages(name, count_include_pad):
        equal(channels_first(ours, layout), theirs)


def test_padding_is_counted_by_default():
    x = np.ones((1, 2, 2))
    np.testing.assert_array_equal(jaxcnn.avg_pool2d(x, 2, padding=1), x / 4)
    counted = jaxcnn.avg_pool2d(x, 2, padding=1, count_include_pad=False)
    np.testing.assert_array_equal(counted, x)


def test_average_pooling_keeps_nothing():
    x, _ = drawn("padding")
    options = options_of("padding", "NCHW")
    assert kept_by(functools.partial(jaxcnn.avg_pool2d, **options), x) == []


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_average_pooling_rounds_once(dtype):
    arrays = in_layout(drawn("overlapping"), "NHWC")
    x, dy = (each.astype(jnp.dtype(dtype)) for each in arrays)
    options = options_of("overlapping", "NHWC")
    ours = with_gradient(functools.partial(jaxcnn.avg_pool2d, **options))(x, dy)
    assert {each.dtype for each in ours} == {jnp.dtype(dtype)}
    wide = [np.asarray(array, np.float64) for array in (x, dy)]
    terms = terms_of("overlapping", "NHWC")
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


@functools.cache
def pooled_same(pooling, layout, **others):
    """The result and the gradient for the case SAME, compiled once for all tests."""
    options = options_of("SAME", layout)
    return with_gradient(functools.partial(POOLINGS[pooling], **options, **others))


@every_layout
@every_pooling
def test_an_image_alone_is_a_batch_of_one(pooling, layout):
    x, dy = in_layout(drawn("SAME"), layout)
    pool = pooled_same(pooling, layout)

    @jax.jit
    def both(x, dy):
        return pool(x[:1], dy[:1]), pool(x[0], dy[0])

    (y, dx), alone = both(x, dy)
    equal(alone, (y[0], dx[0]))


@every_pooling
def test_eager_calls_give_what_compiled_calls_give(pooling):
    x, dy = drawn("SAME")
    pool = functools.partial(POOLINGS[pooling], **options_of("SAME", "NCHW"))
    y, pullback = jax.vjp(pool, jnp.asarray(x))
    equal((y, *pullback(jnp.asarray(dy))), pooled_same(pooling, "NCHW")(x, dy))


@every_pooling
def test_an_empty_batch_stays_empty(pooling):
    x, dy = in_layout(drawn("SAME"), "NHWC")
    y, dx = pooled_same(pooling, "NHWC")(x[:0], dy[:0])
    chex.assert_equal_shape([y, dy[:0]])
    chex.assert_equal_shape([dx, x[:0]])


@one_layout
@every_pooling
def test_autodiff_of_the_loops_agrees_with_the_rule(pooling, layout):
    arrays = in_layout(drawn("SAME"), layout)
    plain = pooled_same(pooling, layout, derivatives="autodiff")
    equal(plain(*arrays), pooled_same(pooling, layout)(*arrays))
