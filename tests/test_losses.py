"""Softmax cross-entropy: P − T, to second order, and whatever the logits are."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxcnn
from tests import oracles


def drawn(rng, leading=(4,)):
    """Logits and labels of five classes, and a gradient that arrives."""
    logits = jnp.asarray(rng.standard_normal((*leading, 5)))
    labels = jnp.asarray(rng.integers(0, 5, leading))
    return logits, labels, jnp.asarray(rng.standard_normal(leading))


def of_optax(logits, labels):
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def with_gradient(loss, logits, labels, dloss):
    value, pullback = jax.vjp(lambda z: loss(z, labels), logits)
    return value, *pullback(dloss)


def close(ours, theirs):
    # A handful of float64 operations on numbers of order 1.
    chex.assert_trees_all_close(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("derivatives", ["custom", "autodiff"])
@pytest.mark.parametrize("leading", [(), (4,), (2, 3)])
def test_values_and_gradients_are_those_of_optax(rng, leading, derivatives):
    loss = functools.partial(jaxcnn.softmax_cross_entropy, derivatives=derivatives)
    arguments = drawn(rng, leading)
    close(with_gradient(loss, *arguments), with_gradient(of_optax, *arguments))


def test_the_gradient_is_the_probabilities_less_the_targets(rng):
    logits, labels, _ = drawn(rng)
    gradient = jax.grad(lambda z: jaxcnn.softmax_cross_entropy(z, labels).sum())(logits)
    # Exactly: the subtraction is all that happens to the probabilities.
    targets = jax.nn.one_hot(labels, 5)
    np.testing.assert_array_equal(gradient, jaxcnn.softmax(logits) - targets)


def test_second_gradients_are_those_of_optax(rng):
    logits, labels, dloss = drawn(rng)
    direction = jnp.asarray(rng.standard_normal(logits.shape))

    def second(loss):
        def slope(z):
            gradient = jax.grad(lambda z: jnp.vdot(jnp.sin(loss(z, labels)), dloss))(z)
            return jnp.vdot(gradient, direction)

        return jax.jit(jax.grad(slope))(logits)

    close(second(jaxcnn.softmax_cross_entropy), second(of_optax))


def test_the_gradient_is_what_central_differences_give(rng):
    logits, labels, dloss = drawn(rng)
    direction = rng.standard_normal(logits.shape)

    def loss(z):
        return jnp.vdot(jaxcnn.softmax_cross_entropy(z, labels), dloss)

    # Third derivatives of order 1 leave 1e-10, rounding 1e-11, in numbers of order 1.
    np.testing.assert_allclose(
        np.vdot(jax.grad(loss)(logits), direction),
        oracles.central_difference(loss, (logits,), (direction,), step=1e-5),
        rtol=1e-7,
    )


def test_vmap_and_jit_are_the_whole_batch(rng):
    logits, labels, dloss = drawn(rng)
    whole = with_gradient(jaxcnn.softmax_cross_entropy, logits, labels, dloss)
    one_by_one = functools.partial(with_gradient, jaxcnn.softmax_cross_entropy)
    close(jax.jit(jax.vmap(one_by_one))(logits, labels, dloss), whole)


@pytest.mark.parametrize("kind", [jnp.asarray, np.asarray])
def test_compiled_functions_may_close_over_labels(rng, kind):
    logits, labels, _ = drawn(rng)
    labels = kind(labels)
    loss = jax.jit(lambda z: jaxcnn.softmax_cross_entropy(z, labels))
    close(loss(logits), of_optax(logits, jnp.asarray(labels)))


@pytest.mark.parametrize("dtype", ["float64", "float32", "bfloat16"])
def test_extreme_logits_have_finite_losses_and_gradients(dtype):
    logits = jnp.array([[1e4, -1e4, 0.0]] * 3, dtype)
    labels = jnp.arange(3)
    loss, dz = with_gradient(
        jaxcnn.softmax_cross_entropy, logits, labels, jnp.ones(3, dtype)
    )
    largest = float(logits[0, 0])  # 1e4, which half precision rounds
    np.testing.assert_array_equal(loss.astype("float32"), [0, 2 * largest, largest])
    np.testing.assert_array_equal(dz.astype("float32"), [[0, 0, 0], [1, -1, 0], [1, 0, -1]])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_dtypes_stay(rng, dtype):
    logits, labels, dloss = drawn(rng)
    arguments = logits.astype(dtype), labels, dloss.astype(dtype)
    loss, dz = with_gradient(jaxcnn.softmax_cross_entropy, *arguments)
    assert loss.dtype == dz.dtype == jnp.dtype(dtype)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "uint32"])
def test_labels_may_be_integers_of_any_type(rng, dtype):
    logits, labels, dloss = drawn(rng)
    wanted = with_gradient(jaxcnn.softmax_cross_entropy, logits, labels, dloss)
    typed = np.asarray(labels, dtype)
    close(with_gradient(jaxcnn.softmax_cross_entropy, logits, typed, dloss), wanted)


def test_an_empty_batch_has_no_losses(rng):
    logits, labels, dloss = drawn(rng, (0,))
    loss, dz = with_gradient(jaxcnn.softmax_cross_entropy, logits, labels, dloss)
    chex.assert_shape(loss, (0,))
    chex.assert_shape(dz, (0, 5))


def test_forward_mode_works_without_the_rule_alone(rng):
    logits, labels, _ = drawn(rng)
    tangent = jnp.asarray(rng.standard_normal(logits.shape))

    def slope(loss):
        return jax.jvp(lambda z: loss(z, labels), (logits,), (tangent,))

    plain = functools.partial(jaxcnn.softmax_cross_entropy, derivatives="autodiff")
    close(slope(plain), slope(of_optax))
    with pytest.raises(TypeError, match="forward-mode"):
        slope(jaxcnn.softmax_cross_entropy)
