"""Pooling to a size that is asked for, and over whole images: facts written by hand.

Random sizes are compared with loops, XLA and PyTorch in test_random_pooling.
"""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from jaxcnn.pooling.adaptive_rule import Windows
from tests import oracles


def test_windows_overlap_where_the_size_does_not_divide():
    # 5 to 3: from ⌊5i/3⌋ to ⌈5(i+1)/3⌉, that is 0–1, 1–3 and 3–4.
    x = np.array([[1.0, 2.0, 4.0, 8.0, 16.0]])

    @jax.jit
    def both(x):
        maxima = jaxcnn.adaptive_max_pool1d(x, 3, return_indices=True)
        return jaxcnn.adaptive_avg_pool1d(x, 3), maxima

    averages, (y, indices) = both(x)
    np.testing.assert_allclose(
        averages,
        [[3 / 2, 14 / 3, 12]],
        rtol=1e-15,  # a division in float64
    )
    np.testing.assert_array_equal(y, [[2, 8, 16]])
    np.testing.assert_array_equal(indices, [[1, 3, 4]])


@pytest.mark.parametrize(
    ("size", "wanted"),
    # The first would take an hour if its time grew with the square of the size.
    [(1_000_003, 10), (1_000_003, 999_999), (7, 5), (5, 7), (5, 23), (1, 4), (6, 3)],
)
def test_the_places_of_an_input_are_all_that_hold_it(size, wanted):
    windows = Windows(size, wanted)
    is_one = windows.places >= 0
    assert np.count_nonzero(is_one) == windows.sizes.sum()
    held = windows.seen[np.maximum(windows.places, 0)]
    assert np.all((held == np.arange(size)) | ~is_one)
    # One after another, and those that are none at the end.
    after, before = windows.places[1:], windows.places[:-1]
    assert np.all((after > before) | (after < 0))


def test_a_larger_size_repeats_pixels():
    x = np.array([[1.0, 3.0]])  # 2 to 3: 0, 0–1, 1
    np.testing.assert_array_equal(jaxcnn.adaptive_avg_pool1d(x, 3), [[1, 2, 3]])
    np.testing.assert_array_equal(jaxcnn.adaptive_max_pool1d(x, 3), [[1, 3, 3]])


@pytest.mark.parametrize("pool", [jaxcnn.adaptive_avg_pool2d, jaxcnn.adaptive_max_pool2d])
def test_none_is_the_size_of_the_input(rng, pool):
    x = rng.standard_normal((2, 3, 4, 5))
    pool = jax.jit(pool, static_argnums=1)
    np.testing.assert_array_equal(pool(x, None), x)
    np.testing.assert_array_equal(pool(x, (2, None)), pool(x, (2, 5)))


def test_a_size_that_divides_is_pooling_with_windows_side_by_side(rng):
    x = rng.standard_normal((2, 3, 4, 9))

    @jax.jit
    def maxima_and_averages(x):
        return (
            jaxcnn.adaptive_max_pool2d(x, (2, 3), return_indices=True),
            jaxcnn.max_pool2d(x, (2, 3), return_indices=True),
            jaxcnn.adaptive_avg_pool2d(x, (2, 3)),
            jaxcnn.avg_pool2d(x, (2, 3)),
        )

    *maxima, adaptive, average = maxima_and_averages(x)
    np.testing.assert_array_equal(*maxima)
    np.testing.assert_allclose(
        adaptive,
        average,
        rtol=1e-14,  # divided before or after six terms are added, in float64
    )


def every_size_and_layout():
    """Both poolings to every size of 5 × 7, in layouts that take turns."""
    pools = (jaxcnn.adaptive_avg_pool2d, jaxcnn.adaptive_max_pool2d)
    for k, (pool, size) in enumerate(itertools.product(pools, [(3, 2), (2, 9), (11, 1)])):
        for layout in ("NCHW", "NHWC"):
            is_in_turn = layout == ("NCHW", "NHWC")[k % 2]
            marks = [] if is_in_turn else pytest.mark.slow
            yield pytest.param(pool, size, layout, marks=marks)


@pytest.mark.parametrize(("pool", "size", "layout"), [*every_size_and_layout()])
def test_gradients_of_every_order_are_autodiffs(rng, pool, size, layout):
    sizes = {"N": 2, "C": 3, "H": 5, "W": 7}
    shape = [sizes[letter] for letter in layout]
    x, dx, ddx = (rng.standard_normal(shape) for _ in range(3))

    @functools.partial(jax.jit, static_argnums=3)
    def every_order(x, dx, ddx, derivatives):
        def loss(x):
            y = pool(x, size, layout=layout, derivatives=derivatives)
            return jnp.sum(jnp.sin(y))

        def second(x):
            return jax.vjp(jax.grad(loss), x)[1](dx)[0]

        def third(x):
            return jax.vjp(second, x)[1](ddx)[0]

        return jax.grad(loss)(x), second(x), third(x)

    orders = (every_order(x, dx, ddx, each) for each in ("custom", "autodiff"))
    for custom, autodiff in zip(*orders, strict=True):
        np.testing.assert_allclose(
            custom,
            autodiff,
            rtol=0,
            atol=1e-13,  # some dozen terms of order 1 in float64
        )


def test_the_rule_keeps_the_winners_alone(rng):
    x = rng.standard_normal((2, 3, 5, 7))

    def pullback(x):
        return jax.vjp(lambda x: jaxcnn.adaptive_max_pool2d(x, (3, 4)), x)[1]

    (winner,) = jax.tree.leaves(jax.eval_shape(pullback, x))
    assert (winner.shape, winner.dtype) == ((2, 3, 3, 4), jnp.int8)


def test_of_equal_maxima_the_first_receives_the_gradient_of_every_window():
    @jax.jit
    def gradient(x, dy):
        return jax.vjp(lambda x: jaxcnn.adaptive_max_pool1d(x, 3), x)[1](dy)[0]

    dx = gradient(np.zeros((1, 5)), np.array([[1.0, 10.0, 100.0]]))
    np.testing.assert_array_equal(dx, [[1, 10, 0, 100, 0]])


def test_a_nan_beats_every_number():
    x = np.array([[1.0, np.nan, 9.0, np.nan, -np.inf]])
    pool = functools.partial(jaxcnn.adaptive_max_pool1d, return_indices=True)
    y, indices = jax.jit(pool, static_argnums=1)(x, (3,))
    np.testing.assert_array_equal(y, [[np.nan] * 3])
    np.testing.assert_array_equal(indices, [[1, 1, 3]])


@pytest.mark.parametrize("pool", [jaxcnn.adaptive_avg_pool1d, jaxcnn.adaptive_max_pool1d])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_gradient_of_a_half_is_summed_in_float32(pool, dtype):
    # Four outputs see the one pixel. A quarter of the distance from 1 to the next half
    # vanishes when it is added to 1 by itself; three of them round to the whole distance.
    distance = float(jnp.finfo(dtype).eps)
    dy = np.array([[1, *[distance / 4] * 3]]).astype(jnp.dtype(dtype))

    @jax.jit
    def gradient(x, dy):
        return jax.vjp(lambda x: pool(x, 4), x)[1](dy)[0]

    dx = gradient(np.zeros((1, 1), jnp.dtype(dtype)), dy)
    np.testing.assert_array_equal(np.asarray(dx, np.float64), [[1 + distance]])


# --- Whole images ---------------------------------------------------------------------

GLOBAL = {
    "avg": (jaxcnn.global_avg_pool, jnp.mean),
    "max": (jaxcnn.global_max_pool, jnp.max),
}


@pytest.mark.parametrize("kind", GLOBAL)
@pytest.mark.parametrize(
    ("layout", "batch"), [("NCW", (2,)), ("NWC", ()), ("NHWC", (2,)), ("NCDHW", ())]
)
def test_global_pooling_is_numpys_reduction(rng, kind, layout, batch):
    size = (3, 4, 2)[: len(layout) - 2]
    x = oracles.in_layout(rng.standard_normal((2, 3, *size)), layout)
    x = x if batch else x[0]
    ours, reduction = GLOBAL[kind]
    axes = tuple(axis - (not batch) for axis, each in enumerate(layout) if each not in "NC")
    dy = rng.standard_normal((*batch, 3))

    @functools.partial(jax.jit, static_argnums=0)
    def with_gradient(pool, x, dy):
        """The result, the gradient, and the result that keeps its dimensions."""
        y, pullback = jax.vjp(pool, x)
        return y, *pullback(dy), pool(x, keepdims=True)

    chex.assert_trees_all_close(
        with_gradient(functools.partial(ours, layout=layout), x, dy),
        with_gradient(functools.partial(reduction, axis=axes), x, dy),
        rtol=1e-13,  # some dozens of terms in float64, in another order
    )


def test_global_pooling_takes_the_options_of_adaptive_pooling(rng):
    x = rng.standard_normal((2, 3, 4))
    for pool, _ in GLOBAL.values():
        plain = pool(x, derivatives="autodiff", engine="equations")
        np.testing.assert_allclose(plain, pool(x), rtol=1e-13)  # as above
