"""Pooling to a size that is asked for, and over whole images: facts written by hand.

Random sizes are compared with loops, XLA and PyTorch in test_random_pooling.
"""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from tests import oracles


def test_windows_overlap_where_the_size_does_not_divide():
    # 5 to 3: from ⌊5i/3⌋ to ⌈5(i+1)/3⌉, that is 0–1, 1–3 and 3–4.
    x = jnp.array([[1.0, 2.0, 4.0, 8.0, 16.0]])
    np.testing.assert_allclose(
        jaxcnn.adaptive_avg_pool1d(x, 3),
        [[3 / 2, 14 / 3, 12]],
        rtol=1e-15,  # a division in float64
    )
    y, indices = jaxcnn.adaptive_max_pool1d(x, 3, return_indices=True)
    np.testing.assert_array_equal(y, [[2, 8, 16]])
    np.testing.assert_array_equal(indices, [[1, 3, 4]])


def test_a_larger_size_repeats_pixels():
    x = jnp.array([[1.0, 3.0]])  # 2 to 3: 0, 0–1, 1
    np.testing.assert_array_equal(jaxcnn.adaptive_avg_pool1d(x, 3), [[1, 2, 3]])
    np.testing.assert_array_equal(jaxcnn.adaptive_max_pool1d(x, 3), [[1, 3, 3]])


@pytest.mark.parametrize("pool", [jaxcnn.adaptive_avg_pool2d, jaxcnn.adaptive_max_pool2d])
def test_none_is_the_size_of_the_input(rng, pool):
    x = jnp.asarray(rng.standard_normal((2, 3, 4, 5)))
    np.testing.assert_array_equal(pool(x, None), x)
    np.testing.assert_array_equal(pool(x, (2, None)), pool(x, (2, 5)))


def test_a_size_that_divides_is_pooling_with_windows_side_by_side(rng):
    x = jnp.asarray(rng.standard_normal((2, 3, 4, 9)))
    np.testing.assert_array_equal(
        jaxcnn.adaptive_max_pool2d(x, (2, 3), return_indices=True),
        jaxcnn.max_pool2d(x, (2, 3), return_indices=True),
    )
    np.testing.assert_allclose(
        jaxcnn.adaptive_avg_pool2d(x, (2, 3)),
        jaxcnn.avg_pool2d(x, (2, 3)),
        rtol=1e-14,  # divided before or after six terms are added, in float64
    )


@pytest.mark.parametrize("layout", ["NCHW", "NHWC"])
@pytest.mark.parametrize("size", [(3, 2), (2, 9), (11, 1)])  # of 5 × 7
@pytest.mark.parametrize("pool", [jaxcnn.adaptive_avg_pool2d, jaxcnn.adaptive_max_pool2d])
def test_gradients_of_every_order_are_autodiffs(rng, pool, size, layout):
    sizes = {"N": 2, "C": 3, "H": 5, "W": 7}
    shape = [sizes[letter] for letter in layout]
    x, dx, ddx = (jnp.asarray(rng.standard_normal(shape)) for _ in range(3))

    def gradient(x, derivatives):
        def loss(x):
            y = pool(x, size, layout=layout, derivatives=derivatives)
            return jnp.sum(jnp.sin(y))

        return jax.grad(loss)(x)

    def second(x, derivatives):
        return jax.vjp(lambda x: gradient(x, derivatives), x)[1](dx)[0]

    def third(x, derivatives):
        return jax.vjp(lambda x: second(x, derivatives), x)[1](ddx)[0]

    for order in (gradient, second, third):
        np.testing.assert_allclose(
            jax.jit(order, static_argnums=1)(x, "custom"),
            jax.jit(order, static_argnums=1)(x, "autodiff"),
            rtol=0,
            atol=1e-13,  # some dozen terms of order 1 in float64
        )


def test_the_rule_keeps_the_winners_alone(rng):
    x = jnp.asarray(rng.standard_normal((2, 3, 5, 7)))
    _, pullback = jax.vjp(lambda x: jaxcnn.adaptive_max_pool2d(x, (3, 4)), x)
    (winner,) = jax.tree.leaves(pullback)
    assert (winner.shape, winner.dtype) == ((2, 3, 3, 4), jnp.int8)


def test_of_equal_maxima_the_first_receives_the_gradient_of_every_window():
    x = jnp.zeros((1, 5))
    _, pullback = jax.vjp(lambda x: jaxcnn.adaptive_max_pool1d(x, 3), x)
    np.testing.assert_array_equal(
        *pullback(jnp.array([[1.0, 10.0, 100.0]])), [[1, 10, 0, 100, 0]]
    )


def test_a_nan_beats_every_number():
    x = jnp.array([[1.0, jnp.nan, 9.0, jnp.nan, -jnp.inf]])
    y, indices = jaxcnn.adaptive_max_pool1d(x, (3,), return_indices=True)
    np.testing.assert_array_equal(y, [[np.nan] * 3])
    np.testing.assert_array_equal(indices, [[1, 1, 3]])


@pytest.mark.parametrize("pool", [jaxcnn.adaptive_avg_pool1d, jaxcnn.adaptive_max_pool1d])
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_the_gradient_of_a_half_is_summed_in_float32(pool, dtype):
    # Four outputs see the one pixel. A quarter of the distance from 1 to the next half
    # vanishes when it is added to 1 by itself; three of them round to the whole distance.
    distance = float(jnp.finfo(dtype).eps)
    dy = jnp.array([[1, *[distance / 4] * 3]], dtype)
    _, pullback = jax.vjp(lambda x: pool(x, 4), jnp.zeros((1, 1), dtype))
    np.testing.assert_array_equal(np.asarray(*pullback(dy), np.float64), [[1 + distance]])


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
    x = jnp.asarray(x if batch else x[0])
    ours, reduction = GLOBAL[kind]
    axes = tuple(axis - (not batch) for axis, each in enumerate(layout) if each not in "NC")
    dy = jnp.asarray(rng.standard_normal((*batch, 3)))

    def with_gradient(function):
        y, pullback = jax.vjp(function, x)
        return y, *pullback(dy)

    chex.assert_trees_all_close(
        with_gradient(lambda x: ours(x, layout=layout)),
        with_gradient(lambda x: reduction(x, axes)),
        rtol=1e-13,  # some dozens of terms in float64, in another order
    )
    kept = ours(x, layout=layout, keepdims=True)
    np.testing.assert_allclose(kept, reduction(x, axes, keepdims=True), rtol=1e-13)


def test_global_pooling_takes_the_options_of_adaptive_pooling(rng):
    x = jnp.asarray(rng.standard_normal((2, 3, 4)))
    for pool, _ in GLOBAL.values():
        plain = pool(x, derivatives="autodiff", engine="equations")
        np.testing.assert_allclose(plain, pool(x), rtol=1e-13)  # as above
