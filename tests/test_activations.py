"""Activations: values, gradients, second order, and what happens at the edges."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from tests import oracles

# Ours and JAX's.
ACTIVATIONS = {
    "relu": (jaxcnn.relu, jax.nn.relu),
    "softmax": (jaxcnn.softmax, jax.nn.softmax),
    "softmax over the first": (
        functools.partial(jaxcnn.softmax, axis=0),
        functools.partial(jax.nn.softmax, axis=0),
    ),
    "log_softmax": (jaxcnn.log_softmax, jax.nn.log_softmax),
    "log_softmax in the middle": (
        functools.partial(jaxcnn.log_softmax, axis=-2),
        functools.partial(jax.nn.log_softmax, axis=-2),
    ),
}
every_activation = pytest.mark.parametrize("name", ACTIVATIONS)


def drawn(rng):
    return tuple(jnp.asarray(rng.standard_normal((2, 3, 4))) for _ in range(3))


def close(ours, theirs):
    # A handful of float64 operations on numbers of order 1.
    chex.assert_trees_all_close(ours, theirs, rtol=1e-12, atol=1e-13)


@every_activation
def test_values_and_gradients_are_those_of_jax(rng, name):
    x, dy, _ = drawn(rng)

    def with_gradient(activation):
        y, pullback = jax.vjp(activation, x)
        return y, *pullback(dy)

    ours, jaxs = map(with_gradient, ACTIVATIONS[name])
    close(ours, jaxs)
    close(
        with_gradient(functools.partial(ACTIVATIONS[name][0], derivatives="autodiff")), jaxs
    )


@every_activation
def test_second_gradients_are_those_of_jax(rng, name):
    x, dy, direction = drawn(rng)

    def second(activation):
        def slope(x):
            loss = jax.grad(lambda x: jnp.vdot(jnp.sin(activation(x)), dy))
            return jnp.vdot(loss(x), direction)

        return jax.jit(jax.grad(slope))(x)

    ours, jaxs = map(second, ACTIVATIONS[name])
    assert np.any(jaxs)
    close(ours, jaxs)


@every_activation
def test_the_gradient_is_what_central_differences_give(rng, name):
    x, dy, direction = drawn(rng)
    activation, _ = ACTIVATIONS[name]

    def loss(x):
        return jnp.vdot(activation(x), dy)

    # No entry of x is within 1e-5 of ReLU's kink; third derivatives are of order 10.
    np.testing.assert_allclose(
        np.vdot(jax.grad(loss)(x), direction),
        oracles.central_difference(loss, (x,), (np.asarray(direction),), step=1e-5),
        rtol=1e-7,
    )


@every_activation
def test_vmap_is_the_same_at_every_time(rng, name):
    x, dy, _ = drawn(rng)
    activation, _ = ACTIVATIONS[name]
    xs, dys = jnp.stack([x, 2 * x, dy]), jnp.stack([dy, x, x])

    def gradient(x, dy):
        return jax.grad(lambda x: jnp.vdot(activation(x), dy))(x)

    wanted = np.stack(list(map(jax.jit(gradient), xs, dys)))
    close(jax.jit(jax.vmap(gradient))(xs, dys), wanted)


@every_activation
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtypes_stay(rng, name, dtype):
    x, dy, _ = (array.astype(dtype) for array in drawn(rng))
    y, pullback = jax.vjp(ACTIVATIONS[name][0], x)
    assert y.dtype == pullback(dy)[0].dtype == x.dtype


@every_activation
def test_forward_mode_works_without_the_rule_alone(rng, name):
    x, x_dot, _ = drawn(rng)
    ours, jaxs = ACTIVATIONS[name]
    plain = functools.partial(ours, derivatives="autodiff")
    close(jax.jvp(plain, (x,), (x_dot,)), jax.jvp(jaxs, (x,), (x_dot,)))
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(ours, (x,), (x_dot,))


# --- ReLU -----------------------------------------------------------------------------


@pytest.mark.parametrize("derivatives", ["custom", "autodiff"])
def test_the_derivative_of_relu_is_the_documents(derivatives):
    # 1 if x > 0, else 0: the kink belongs to the 0, whichever sign it has.
    x = jnp.array([-np.inf, -1, -0.0, 0.0, 5e-324, 1, np.inf])
    y, pullback = jax.vjp(functools.partial(jaxcnn.relu, derivatives=derivatives), x)
    np.testing.assert_array_equal(y[jnp.array([0, 1, 2, 3, 5, 6])], [0, 0, 0, 0, 1, np.inf])
    (dx,) = pullback(jnp.full_like(x, 3))
    np.testing.assert_array_equal(dx[jnp.array([0, 1, 2, 3, 5, 6])], [0, 0, 0, 0, 3, 3])


def test_relu_passes_a_nan_on_but_no_gradient_to_it():
    y, pullback = jax.vjp(jaxcnn.relu, jnp.array([np.nan, 1.0]))
    np.testing.assert_array_equal(y, [np.nan, 1])
    np.testing.assert_array_equal(pullback(jnp.array([5.0, 7.0]))[0], [0, 7])


def test_relu_keeps_one_truth_value_for_each_element(rng):
    x, *_ = drawn(rng)
    _, pullback = jax.vjp(jaxcnn.relu, x)
    (kept,) = jax.tree.leaves(pullback)
    assert (kept.dtype, kept.shape) == (jnp.bool, x.shape)


# --- Softmax and its logarithm --------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_extreme_logits_overflow_nowhere(dtype):
    x = jnp.array([[1e4, -1e4, 0.0], [-1e4, -1e4, -1e4]], dtype)
    y, pullback = jax.vjp(jaxcnn.softmax, x)
    np.testing.assert_array_equal(y[0].astype("float32"), [1, 0, 0])
    assert jnp.isfinite(pullback(x)[0]).all()
    y, pullback = jax.vjp(jaxcnn.log_softmax, x)
    # −1e4 is rounded in half precision, and −2e4 doubles the rounded number.
    smallest = x[0, 1].astype("float32")
    np.testing.assert_array_equal(y[0].astype("float32"), [0, 2 * smallest, smallest])
    assert jnp.isfinite(y).all()
    assert jnp.isfinite(pullback(x)[0]).all()


@pytest.mark.parametrize("axis", [0, 1, 2, -1, -3])
def test_probabilities_add_up_to_one_along_the_axis(rng, axis):
    x, *_ = drawn(rng)
    total = jaxcnn.softmax(x, axis=axis).sum(axis)
    close(total, np.ones(total.shape))
    close(jnp.exp(jaxcnn.log_softmax(x, axis=axis)), jaxcnn.softmax(x, axis=axis))
