"""Fully connected layers: values and gradients to second order, any leading axes."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from tests import oracles

LEADING = [(), (3,), (2, 3)]


def drawn(rng, leading=(3,)):
    """x, w, b and dy for a layer from 4 to 5."""
    shapes = ((*leading, 4), (4, 5), (5,), (*leading, 5))
    return tuple(jnp.asarray(rng.standard_normal(shape)) for shape in shapes)


def with_gradients(layer, dy, *operands):
    y, pullback = jax.vjp(layer, *operands)
    return y, pullback(dy)


def close(ours, theirs):
    # Float64, some dozens of terms of order 1 added in another order.
    chex.assert_trees_all_close(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("derivatives", ["custom", "autodiff"])
@pytest.mark.parametrize("leading", LEADING)
def test_values_and_gradients_are_the_equations(rng, leading, derivatives):
    x, w, b, dy = drawn(rng, leading)
    layer = functools.partial(jaxcnn.dense, derivatives=derivatives)
    rows, dy_rows = np.asarray(x).reshape(-1, 4), np.asarray(dy).reshape(-1, 5)
    dx = (dy_rows @ np.asarray(w).T).reshape(x.shape)
    dw, db = rows.T @ dy_rows, dy_rows.sum(0)
    y = (rows @ np.asarray(w) + np.asarray(b)).reshape(dy.shape)
    close(with_gradients(layer, dy, x, w, b), (y, (dx, dw, db)))


def test_without_bias_there_is_none(rng):
    x, w, b, dy = drawn(rng)
    y, (dx, dw, _) = with_gradients(jaxcnn.dense, dy, x, w, jnp.zeros_like(b))
    close(with_gradients(jaxcnn.dense, dy, x, w), (y, (dx, dw)))


def test_no_rows_give_no_rows_and_zero_gradients(rng):
    x, w, b, dy = drawn(rng)
    y, (dx, dw, db) = with_gradients(jaxcnn.dense, dy[:0], x[:0], w, b)
    chex.assert_shape(y, (0, 5))
    chex.assert_shape(dx, (0, 4))
    close((dw, db), (jnp.zeros_like(w), jnp.zeros_like(b)))


def test_no_features_leave_the_bias(rng):
    *_, b, _ = drawn(rng)
    y = jaxcnn.dense(jnp.zeros((3, 0)), jnp.zeros((0, 5)), b)
    close(y, np.broadcast_to(b, (3, 5)))


def test_second_gradients_are_those_of_autodiff(rng):
    *operands, dy = drawn(rng)
    directions = [jnp.asarray(rng.standard_normal(each.shape)) for each in operands]

    def second(layer):
        def slope(*operands):
            loss = jax.grad(lambda *each: jnp.vdot(jnp.sin(layer(*each)), dy), (0, 1, 2))
            return sum(map(jnp.vdot, loss(*operands), directions))

        return jax.jit(jax.grad(slope, (0, 1, 2)))(*operands)

    close(second(jaxcnn.dense), second(lambda x, w, b: x @ w + b[None]))


def test_vmap_of_the_gradient_is_the_gradient_at_every_time(rng):
    each_time = [drawn(rng) for _ in range(3)]
    columns = [jnp.stack(column) for column in zip(*each_time, strict=True)]

    def computed(x, w, b, dy):
        return with_gradients(jaxcnn.dense, dy, x, w, b)

    results = [computed(*row) for row in each_time]
    wanted = jax.tree.map(lambda *each: np.stack(each), *results)
    close(jax.jit(jax.vmap(computed))(*columns), wanted)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_float32_rounded_once(rng, dtype):
    halves = [array.astype(dtype) for array in drawn(rng)]
    wide = [array.astype("float32") for array in halves]
    x, w, b, dy = halves
    ours = with_gradients(jaxcnn.dense, dy, x, w, b)
    assert {leaf.dtype for leaf in jax.tree.leaves(ours)} == {jnp.dtype(dtype)}
    x, w, b, dy = wide
    # One rounding is at most half a unit in the last place (eps/2, a hundredth more for
    # the float32 sums, which XLA may order otherwise).
    chex.assert_trees_all_close(
        jax.tree.map(lambda half: half.astype("float32"), ours),
        with_gradients(jaxcnn.dense, dy, x, w, b),
        rtol=1.01 * float(jnp.finfo(dtype).eps) / 2,
        atol=1e-6,
    )


def test_forward_mode_works_without_the_rule_alone(rng):
    *operands, _ = drawn(rng)
    tangents = tuple(jnp.asarray(rng.standard_normal(each.shape)) for each in operands)
    plain = functools.partial(jaxcnn.dense, derivatives="autodiff")
    wanted = jax.jvp(lambda x, w, b: x @ w + b[None], tuple(operands), tangents)
    close(jax.jvp(plain, tuple(operands), tangents), wanted)
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(jaxcnn.dense, tuple(operands), tangents)


def test_the_gradient_is_what_central_differences_give(rng):
    *operands, dy = drawn(rng)
    directions = [rng.standard_normal(each.shape) for each in operands]

    def loss(*operands):
        return jnp.vdot(jnp.sin(jaxcnn.dense(*operands)), dy)

    gradients = jax.grad(loss, (0, 1, 2))(*operands)
    # Third derivatives of order 1000 leave 1e-10 · 1000 in numbers of order 10.
    np.testing.assert_allclose(
        oracles.along(gradients, directions),
        oracles.central_difference(loss, operands, directions, step=1e-5),
        rtol=1e-6,
    )


# --- flatten --------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3), (2,), (0, 3, 4), (2, 0, 3)])
def test_flatten_lays_out_each_image_as_numpy_does(shape):
    x = jnp.arange(np.prod(shape), dtype="float64").reshape(shape)
    wanted = np.reshape(x, (shape[0], int(np.prod(shape[1:]))))
    np.testing.assert_array_equal(jaxcnn.flatten(x), wanted)


def test_the_gradient_of_flatten_is_the_reshape_back(rng):
    x = jnp.asarray(rng.standard_normal((2, 3, 4)))
    _, pullback = jax.vjp(jaxcnn.flatten, x)
    np.testing.assert_array_equal(pullback(np.reshape(x, (2, 12)))[0], x)
