"""Where the maxima were, and putting them back there.

Random cases are compared with PyTorch in test_random_pooling.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn
from tests import oracles

every_layout = pytest.mark.parametrize("layout", ["NWC", "NCHW", "NHWC", "NCDHW"])

# --- Where they were ------------------------------------------------------------------


@every_layout
def test_indices_count_the_pixels_of_a_channel_in_row_major_order(rng, layout):
    n = len(layout) - 2
    x = rng.standard_normal((2, 3, *(5, 4, 6)[:n]))
    pool = functools.partial(
        getattr(jaxcnn, f"max_pool{n}d"),
        kernel_size=3,
        stride=2,
        padding=1,
        ceil_mode=True,
        return_indices=True,
        layout=layout,
    )
    y, indices = jax.jit(pool)(oracles.in_layout(x, layout))
    assert indices.dtype == jnp.int32
    y, indices = (
        oracles.channels_first(each, layout).reshape(2, 3, -1) for each in (y, indices)
    )
    there = np.take_along_axis(x.reshape(2, 3, -1), indices, -1)
    np.testing.assert_array_equal(there, y)


def test_indices_change_nothing_else(rng):
    x = rng.standard_normal((2, 3, 5, 6))
    pool = jax.jit(jaxcnn.max_pool2d, static_argnames=("kernel_size", "return_indices"))
    y, _ = pool(x, kernel_size=2, return_indices=True)
    np.testing.assert_array_equal(y, pool(x, kernel_size=2))


def test_of_equal_maxima_the_first_is_named_and_of_nans_the_first():
    x = np.array([[1.0, 3.0, 3.0, 2.0, np.nan, 9.0, np.nan, 0.0]])
    y, indices = jaxcnn.max_pool1d(x, 4, return_indices=True)
    np.testing.assert_array_equal(y, [[3, np.nan]])
    np.testing.assert_array_equal(indices, [[1, 4]])


def test_no_index_lies_in_padding():
    pool = functools.partial(
        jaxcnn.max_pool2d, kernel_size=2, padding=1, ceil_mode=True, return_indices=True
    )
    y, indices = jax.jit(pool)(np.full((1, 3, 3), -np.inf))
    np.testing.assert_array_equal(y, np.full((1, 2, 2), -np.inf))
    np.testing.assert_array_equal(indices, [[[0, 1], [3, 4]]])


def test_the_gradient_ignores_the_indices(rng):
    x, dy = (rng.standard_normal(each) for each in ((2, 3, 6), (2, 3, 2)))

    def loss(x, return_indices):
        pooled = jaxcnn.max_pool1d(x, 3, return_indices=return_indices)
        return jnp.vdot(pooled[0] if return_indices else pooled, dy)

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    chex.assert_trees_all_equal(gradient(x, True), gradient(x, False))


# --- Putting them back ----------------------------------------------------------------


@every_layout
def test_maxima_return_to_their_places_and_all_else_is_zero(rng, layout):
    n = len(layout) - 2
    pool, unpool = (getattr(jaxcnn, f"max_{each}{n}d") for each in ("pool", "unpool"))
    x = oracles.in_layout(rng.standard_normal((2, 3, *(4, 6, 2)[:n])), layout)

    @jax.jit
    def there_and_back(x):
        pooled, indices = pool(x, 2, return_indices=True, layout=layout)
        return pooled, unpool(pooled, indices, 2, layout=layout)

    repeated, put_back = map(np.asarray, there_and_back(x))
    for axis in (k for k, letter in enumerate(layout) if letter not in "NC"):
        repeated = np.repeat(repeated, 2, axis)
    np.testing.assert_array_equal(put_back, np.where(x == repeated, x, 0))


def test_the_size_is_told_where_the_windows_do_not_tell_it():
    @functools.partial(jax.jit, static_argnames=("padding", "output_size"))
    def there_and_back(x, padding, output_size):
        pooled, indices = jaxcnn.max_pool1d(x, 2, padding=padding, return_indices=True)
        put_back = functools.partial(jaxcnn.max_unpool1d, pooled, indices, 2)
        return (
            put_back(padding=padding),
            put_back(padding=padding, output_size=output_size),
        )

    x = np.array([[1.0, 5.0, 2.0, 4.0, 3.0]])
    untold, told = there_and_back(x, padding=0, output_size=5)
    assert untold.shape == (1, 4)
    np.testing.assert_array_equal(told, [[0, 5, 0, 4, 0]])
    untold, told = there_and_back(x, padding="SAME", output_size=(5,))
    assert untold.shape == (1, 6)
    np.testing.assert_array_equal(told, [[0, 5, 0, 4, 3]])


@pytest.mark.parametrize("layout", ["NCHW", "NHWC", "CHW", "HWC"])
def test_the_size_may_be_told_by_a_whole_shape(rng, layout):
    x = rng.standard_normal([{"N": 2, "C": 3, "H": 5, "W": 7}[each] for each in layout])
    told = {"layout": layout if "N" in layout else f"N{layout}"}

    @jax.jit
    def by_shape_and_size(x):
        pooled, indices = jaxcnn.max_pool2d(x, 2, return_indices=True, **told)
        return [
            jaxcnn.max_unpool2d(pooled, indices, 2, output_size=output_size, **told)
            for output_size in (x.shape, (5, 7))
        ]

    put_back, by_size = by_shape_and_size(x)
    np.testing.assert_array_equal(put_back, by_size)
    assert put_back.shape == x.shape


def test_what_several_windows_chose_is_put_back_once():
    @jax.jit
    def put_back_with_gradient(x, dy):
        pooled, indices = jaxcnn.max_pool1d(x, 2, 1, return_indices=True)
        y, pullback = jax.vjp(lambda x: jaxcnn.max_unpool1d(x, indices, 2, 1), pooled)
        return y, *pullback(dy)

    x, dy = np.array([[1.0, 9.0, 2.0, 3.0]]), np.array([[1.0, 10.0, 100.0, 1000.0]])
    y, dx = put_back_with_gradient(x, dy)
    np.testing.assert_array_equal(y, [[0, 9, 0, 3]])
    # … and the gradient goes to all of them, as PyTorch's does; JAX's to the one put there.
    np.testing.assert_array_equal(dx, [[10, 10, 1000]])


@pytest.mark.parametrize("dtype", ["int8", "uint32", "int64"])
def test_indices_may_be_of_any_integer_dtype(dtype):
    x, indices = np.array([[5.0, 4.0]]), np.array([[1, 3]], dtype)
    y = jax.jit(jaxcnn.max_unpool1d, static_argnums=2)(x, indices, 2)
    np.testing.assert_array_equal(y, [[0, 5, 0, 4]])


@pytest.mark.parametrize("derivatives", ["custom", "autodiff"])
def test_under_jit_an_index_outside_is_left_out(derivatives):
    @jax.jit
    def computed(x, indices, dy):
        y, pullback = jax.vjp(
            lambda x: jaxcnn.max_unpool1d(x, indices, 2, derivatives=derivatives), x
        )
        return y, *pullback(dy)

    x, indices = np.arange(1.0, 6)[None], np.array([[-1, 10, 2, -10, 99]])
    y, dx = computed(x, indices, np.arange(10.0)[None])
    np.testing.assert_array_equal(y, [[0, 0, 3, *[0] * 7]])
    np.testing.assert_array_equal(dx, [[0, 0, 2, 0, 0]])


@pytest.mark.parametrize("index", [-1, 4])
def test_an_index_outside_that_can_be_seen_is_refused(index):
    told = r"indices run from .* the places 0 to 3"
    with pytest.raises(ValueError, match=told) as caught:
        jaxcnn.max_unpool1d(jnp.array([[5.0, 4.0]]), jnp.array([[index, 2]]), 2)
    assert caught.type is ValueError


def test_the_rule_keeps_the_indices_alone():
    x, indices = jnp.array([[5.0, 4.0]]), jnp.array([[1, 3]])
    _, pullback = jax.vjp(lambda x: jaxcnn.max_unpool1d(x, indices, 2), x)
    (kept,) = jax.tree.leaves(pullback)
    np.testing.assert_array_equal(kept.ravel(), [1, 3])
