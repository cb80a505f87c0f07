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
    return tuple(rng.standard_normal(shape) for shape in shapes)


@functools.cache
def with_gradients(derivatives="custom"):
    """A function of dy and the operands, compiled once for all tests."""

    def computed(dy, *operands):
        layer = functools.partial(jaxcnn.dense, derivatives=derivatives)
        y, pullback = jax.vjp(layer, *operands)
        return y, pullback(dy)

    return jax.jit(computed)


def close(ours, theirs):
    # Float64, some dozens of terms of order 1 added in another order.
    chex.assert_trees_all_close(ours, theirs, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("derivatives", ["custom", "autodiff"])
@pytest.mark.parametrize("leading", LEADING)
def test_values_and_gradients_are_the_equations(rng, leading, derivatives):
    x, w, b, dy = drawn(rng, leading)
    rows, dy_rows = x.reshape(-1, 4), dy.reshape(-1, 5)
    dx = (dy_rows @ w.T).reshape(x.shape)
    dw, db = rows.T @ dy_rows, dy_rows.sum(0)
    y = (rows @ w + b).reshape(dy.shape)
    close(with_gradients(derivatives)(dy, x, w, b), (y, (dx, dw, db)))


def test_without_bias_there_is_none(rng):
    x, w, b, dy = drawn(rng)
    y, (dx, dw, _) = with_gradients()(dy, x, w, np.zeros_like(b))
    close(with_gradients()(dy, x, w), (y, (dx, dw)))


def test_no_rows_give_no_rows_and_zero_gradients(rng):
    x, w, b, dy = drawn(rng)
    y, (dx, dw, db) = with_gradients()(dy[:0], x[:0], w, b)
    chex.assert_shape(y, (0, 5))
    chex.assert_shape(dx, (0, 4))
    close((dw, db), (np.zeros_like(w), np.zeros_like(b)))


def test_no_features_leave_the_bias(rng):
    *_, b, _ = drawn(rng)
    y = jaxcnn.dense(np.zeros((3, 0)), np.zeros((0, 5)), b)
    close(y, np.broadcast_to(b, (3, 5)))


def test_second_gradients_are_those_of_autodiff(rng):
    *operands, dy = drawn(rng)
    directions = [rng.standard_normal(each.shape) for each in operands]

    def second(layer):
        def slope(*operands):
            loss = jax.grad(lambda *each: jnp.vdot(jnp.sin(layer(*each)), dy), (0, 1, 2))
            return sum(map(jnp.vdot, loss(*operands), directions))

        return jax.jit(jax.grad(slope, (0, 1, 2)))(*operands)

    close(second(jaxcnn.dense), second(lambda x, w, b: x @ w + b[None]))


def test_vmap_of_the_gradient_is_the_gradient_at_every_time(rng):
    each_time = [drawn(rng) for _ in range(3)]
    *operands, dy = (np.stack(column) for column in zip(*each_time, strict=True))
    results = [with_gradients()(dy, *operands) for *operands, dy in each_time]
    wanted = jax.tree.map(lambda *each: np.stack(each), *results)
    close(jax.jit(jax.vmap(with_gradients()))(dy, *operands), wanted)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_float32_rounded_once(rng, dtype):
    halves = [array.astype(dtype) for array in drawn(rng)]
    wide = [array.astype("float32") for array in halves]
    x, w, b, dy = halves
    ours = with_gradients()(dy, x, w, b)
    assert {leaf.dtype for leaf in jax.tree.leaves(ours)} == {jnp.dtype(dtype)}
    x, w, b, dy = wide
    # One rounding is at most half a unit in the last place (eps/2, a hundredth more for
    # the float32 sums, which XLA may order otherwise).
    chex.assert_trees_all_close(
        jax.tree.map(lambda half: np.asarray(half).astype("float32"), ours),
        with_gradients()(dy, x, w, b),
        rtol=1.01 * float(jnp.finfo(dtype).eps) / 2,
        atol=1e-6,
    )


def test_tangents_are_those_of_autodiff_and_the_transposes_of_gradients(rng):
    *operands, _ = drawn(rng)
    close(*oracles.in_both_modes(rng, jaxcnn.dense, *operands))


def test_the_gradient_is_what_central_differences_give(rng):
    *operands, dy = drawn(rng)
    directions = [rng.standard_normal(each.shape) for each in operands]

    @jax.jit
    def loss_and_gradients(*operands):
        return jax.value_and_grad(
            lambda *operands: jnp.vdot(jnp.sin(jaxcnn.dense(*operands)), dy), (0, 1, 2)
        )(*operands)

    def loss(*operands):
        return loss_and_gradients(*operands)[0]

    _, gradients = loss_and_gradients(*operands)
    # Third derivatives of order 1000 leave 1e-10 · 1000 in numbers of order 10.
    np.testing.assert_allclose(
        oracles.along(gradients, directions),
        oracles.central_difference(loss, operands, directions, step=1e-5),
        rtol=1e-6,
    )


# --- flatten --------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 3, 4, 5), (2, 3), (2,), (0, 3, 4), (2, 0, 3)])
def test_flatten_lays_out_each_image_as_numpy_does(shape):
    x = np.arange(np.prod(shape), dtype="float64").reshape(shape)
    wanted = np.reshape(x, (shape[0], int(np.prod(shape[1:]))))
    np.testing.assert_array_equal(jaxcnn.flatten(x), wanted)


def test_the_gradient_of_flatten_is_the_reshape_back(rng):
    x = rng.standard_normal((2, 3, 4))
    _, pullback = jax.vjp(jaxcnn.flatten, x)
    np.testing.assert_array_equal(pullback(np.reshape(x, (2, 12)))[0], x)


# --- A product and a sum over its rows ------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("rows", [2, 3])
@pytest.mark.parametrize(
    "reduce",
    [
        lambda y: jnp.sum(y**2, axis=0),
        lambda y: jnp.sum(y, axis=0),
        lambda y: jnp.max(abs(y), axis=0),
    ],
)
def test_a_product_of_few_rows_that_are_then_reduced_is_right(rng, reduce, rows, dtype):
    # jax issue 39103: jaxlib 0.10.2 got entries from 16,384 or 32,768 on wrong.
    dy, w = rng.standard_normal((rows, 3)), rng.standard_normal((40_001, 3))
    dy, w = dy.astype(dtype), w.astype(dtype)
    x = jnp.ones((rows, 40_001), dtype)
    wanted = reduce(np.float64(dy) @ np.float64(w).T)

    @jax.jit
    def ours(dy, w):
        (dx,) = jax.vjp(lambda x: jaxcnn.dense(x, w), x)[1](dy)
        return reduce(dx), reduce(jaxcnn.dense(dy, w.T))

    for found in ours(dy, w):
        # Three products of order 1, in float32.
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)
