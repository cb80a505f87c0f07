"""Dropout: what is forgotten, what is kept, and that the gradient forgets the same."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn.layers.dropout import dropout
from tests import oracles

KEY = jax.random.key(7)


def drawn(rng, shape=(20, 30)):
    return tuple(rng.standard_normal(shape) for _ in range(3))


def with_gradient(**options):
    """A compiled function of x and dy."""

    def computed(x, dy):
        y, pullback = jax.vjp(lambda x: dropout(x, **options), x)
        return y, *pullback(dy)

    return jax.jit(computed)


def kept(p, shape=(20, 30), key=KEY):
    """The mask of a key."""
    return np.asarray(dropout(np.ones(shape), key, p)) != 0


@pytest.mark.parametrize("derivatives", ["custom", "autodiff"])
@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_values_and_gradients_are_masked_and_scaled_alike(rng, p, derivatives):
    x, dy, _ = drawn(rng)
    y, dx = with_gradient(key=KEY, p=p, derivatives=derivatives)(x, dy)
    mask = kept(p)
    for array, given in ((y, x), (dx, dy)):
        wanted = np.where(mask, given / (1 - p), 0)
        # One division in float64.
        np.testing.assert_allclose(array, wanted, rtol=1e-15)


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_as_many_are_forgotten_as_p_says(p):
    share = 1 - kept(p, (500, 500)).mean()
    # Of 250000 draws: five standard deviations of √(p(1−p)/250000).
    assert abs(share - p) < 5 * np.sqrt(p * (1 - p) / 250_000)


def test_the_mean_over_masks_is_x(rng):
    x, *_ = drawn(rng, (4, 5))
    keys = jax.random.split(KEY, 40_000)
    mean = jax.jit(lambda keys: jax.vmap(lambda key: dropout(x, key, 0.3))(keys).mean(0))
    # Five standard deviations of |x| √(p/(1−p)/40000), with |x| at most 3.
    np.testing.assert_allclose(
        mean(keys), x, rtol=0, atol=5 * 3 * np.sqrt(0.3 / 0.7 / 40_000)
    )


@pytest.mark.parametrize("derivatives", ["custom", "autodiff"])
def test_nothing_and_everything_can_be_forgotten(rng, derivatives):
    x, dy, _ = drawn(rng)
    for options, share in (
        ({"p": 0}, 1),
        ({"p": 1}, 0),
        ({"p": 1, "training": False}, 1),
        ({"p": 0.5, "training": False}, 1),
    ):
        y, dx = with_gradient(key=KEY, derivatives=derivatives, **options)(x, dy)
        np.testing.assert_array_equal(y, share * x)
        np.testing.assert_array_equal(dx, share * dy)


def test_inference_needs_no_key(rng):
    x, *_ = drawn(rng)
    np.testing.assert_array_equal(dropout(x, None, training=False), x)


def test_a_forgotten_nan_is_forgotten():
    y = dropout(np.full((20, 30), np.nan), KEY)
    np.testing.assert_array_equal(np.isnan(y), kept(0.5))


def test_a_key_draws_the_same_mask_everywhere():
    wanted = kept(0.5)
    assert (kept(0.5, key=jax.random.PRNGKey(7)) == wanted).all()  # of the older kind
    assert (kept(0.5, key=jax.random.key(8)) != wanted).any()
    np.testing.assert_array_equal(jax.jit(dropout)(np.ones((20, 30)), KEY) != 0, wanted)
    for dtype in ("bfloat16", "float16", "float32"):
        y = dropout(np.ones((20, 30), dtype), KEY)
        assert y.dtype == dtype
        np.testing.assert_array_equal(y != 0, wanted)
    with jax.enable_x64(False):
        np.testing.assert_array_equal(dropout(np.ones((20, 30)), KEY) != 0, wanted)


def test_half_precision_is_rounded_once(rng):
    x = drawn(rng)[0].astype("bfloat16")
    y = dropout(x, KEY, 0.3)
    wanted = np.where(kept(0.3), np.float64(x) / 0.7, 0)
    # Half a unit in the last place, a hundredth more for float32.
    rtol = 1.01 * float(jnp.finfo("bfloat16").eps) / 2
    np.testing.assert_allclose(np.float64(y), wanted, rtol=rtol)


def test_the_rule_keeps_one_truth_value_for_each_element(rng):
    x, *_ = drawn(rng)
    _, pullback = jax.jit(lambda x: jax.vjp(lambda x: dropout(x, KEY), x))(x)
    (mask,) = jax.tree.leaves(pullback)
    assert mask.dtype == bool
    np.testing.assert_array_equal(mask, kept(0.5))


@pytest.mark.parametrize("derivatives", ["custom", "autodiff"])
def test_second_gradients_go_through_the_same_mask(rng, derivatives):
    x, dy, direction = drawn(rng)
    mask = kept(0.5)

    def second(function):
        def slope(x):
            loss = jax.grad(lambda x: jnp.vdot(jnp.sin(function(x)), dy))
            return jnp.vdot(loss(x), direction)

        return jax.jit(jax.grad(slope))(x)

    ours = second(lambda x: dropout(x, KEY, derivatives=derivatives))
    # A few operations in float64 on numbers of order 10.
    chex.assert_trees_all_close(
        ours, second(lambda x: jnp.where(mask, 2 * x, 0)), rtol=1e-12, atol=1e-13
    )


def test_the_gradient_is_what_central_differences_give(rng):
    x, dy, direction = drawn(rng)

    @jax.jit
    @jax.value_and_grad
    def loss(x):
        return jnp.vdot(jnp.sin(dropout(x, KEY)), dy)

    # Third derivatives of order 10 leave 1e-9 in numbers of order 10.
    np.testing.assert_allclose(
        np.vdot(loss(x)[1], direction),
        oracles.central_difference(lambda x: loss(x)[0], (x,), (direction,), step=1e-5),
        rtol=1e-7,
    )


def test_vmap_over_keys_draws_a_mask_for_each(rng):
    x, dy, _ = drawn(rng)
    keys = jax.random.split(KEY, 3)

    def gradient(key):
        return jax.grad(lambda x: jnp.vdot(dropout(x, key), dy))(x)

    ours = np.asarray(jax.jit(jax.vmap(gradient))(keys))
    one = jax.jit(gradient)
    np.testing.assert_array_equal(ours, np.stack([one(key) for key in keys]))
    assert (ours[0] != ours[1]).any()


def test_tangents_are_those_of_autodiff_and_the_transposes_of_gradients(rng):
    x, *_ = drawn(rng)
    ours, known = oracles.in_both_modes(rng, functools.partial(dropout, key=KEY), x)
    # Float64, one division each, and a sum of 600 such.
    chex.assert_trees_all_close(ours, known, rtol=1e-12)
