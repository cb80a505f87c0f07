"""Poolings' other windows: at the edge in ceil_mode, dilated, named; and other averages.

Random cases are compared with XLA and PyTorch in test_random_pooling.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxcnn

# --- ceil_mode ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "kernel_size", "stride", "padding", "maxima"),
    [
        # The last window has one element, …
        (5, 2, 2, 0, [2, 4, 5]),
        # … two of three, …
        (5, 3, 3, 0, [3, 5]),
        # … none left over: nothing is added, …
        (6, 2, 2, 0, [2, 4, 6]),
        # … a stride that skips what is left over, …
        (4, 1, 3, 0, [1, 4]),
        (5, 1, 3, 0, [1, 4]),
        (5, 2, 4, 0, [2, 5]),
        # … padding that makes the last window whole, …
        (4, 3, 2, 1, [2, 4, 4]),
        # … a window that would begin in the padding after the input, and does not count.
        (3, 2, 2, 1, [1, 3]),
        # … nor do several of them, …
        (1, 1, 1, ((0, 2),), [1]),
        (2, 1, 2, ((0, 5),), [1]),
        # The only window reaches beyond.
        (2, 3, 2, 0, [2]),
    ],
)
def test_a_last_window_counts_if_it_begins_in_the_image(
    size, kernel_size, stride, padding, maxima
):
    x = jnp.arange(1.0, size + 1)[None]
    y = jaxcnn.max_pool1d(x, kernel_size, stride, padding, ceil_mode=True)
    np.testing.assert_array_equal(y, [maxima])


def test_what_lies_beyond_the_padding_is_no_part_of_an_average():
    x = jnp.array([[2.0, 4.0, 6.0, 8.0, 10.0]])
    average = functools.partial(jaxcnn.avg_pool1d, x, 3, 3, ceil_mode=True)
    np.testing.assert_array_equal(average(), [[4, 9]])
    # Padded, the windows are (0, 2, 4), (6, 8, 10) and (0): what begins in padding is none.
    np.testing.assert_array_equal(average(1), [[2, 8]])
    np.testing.assert_array_equal(average(1, count_include_pad=False), [[3, 8]])
    # (0, 0, 2), (4, 6, 8) and (10, 0), which has no third element.
    wide = functools.partial(average, ((2, 1),))
    np.testing.assert_allclose(wide(), [[2 / 3, 6, 5]], rtol=1e-15)
    np.testing.assert_array_equal(wide(count_include_pad=False), [[2, 6, 10]])
    np.testing.assert_array_equal(wide(divisor_override=2), [[1, 9, 5]])


def test_a_power_average_at_the_edge_is_scaled_up_to_a_whole_window():
    x = jnp.array([[3.0, 4.0, 5.0]])
    y = jaxcnn.lp_pool1d(x, 2, 2, ceil_mode=True)
    np.testing.assert_allclose(y, [[5, 5 * np.sqrt(2)]], rtol=1e-15)


def test_the_gradient_of_a_window_at_the_edge_stays_in_the_image():
    x = jnp.full((1, 3), -jnp.inf)
    _, pullback = jax.vjp(lambda x: jaxcnn.max_pool1d(x, 2, ceil_mode=True), x)
    np.testing.assert_array_equal(*pullback(jnp.array([[1.0, 10.0]])), [[1, 0, 10]])


# --- Dilation and names ---------------------------------------------------------------


def test_a_dilated_window_looks_past_what_is_between():
    x = jnp.array([[5.0, 9.0, 1.0, 9.0, 2.0, 9.0]])
    np.testing.assert_array_equal(jaxcnn.max_pool1d(x, 3, 1, dilation=2), [[5, 9]])
    np.testing.assert_array_equal(jaxcnn.avg_pool1d(x, 2, 1, dilation=4), [[3.5, 9]])
    np.testing.assert_array_equal(jaxcnn.lp_pool1d(x, 1, 2, 1, dilation=3), [[14, 11, 10]])


@pytest.mark.parametrize(
    ("kernel_size", "stride"), [((2, 3), (1, 1)), ((3, 2), (2, 3)), ((2, 2), (2, 2))]
)
def test_poolings_with_named_paddings_are_those_of_flax(rng, kernel_size, stride):
    linen = pytest.importorskip("flax.linen")
    x = jnp.asarray(rng.standard_normal((2, 5, 7, 3)))
    window = (kernel_size, stride, "SAME")
    np.testing.assert_array_equal(
        jaxcnn.max_pool2d(x, *window, layout="NHWC"), linen.max_pool(x, *window)
    )
    for counted in (True, False):
        with jax.numpy_dtype_promotion("standard"):  # flax divides by integers
            theirs = linen.avg_pool(x, *window, count_include_pad=counted)
        np.testing.assert_allclose(
            jaxcnn.avg_pool2d(x, *window, layout="NHWC", count_include_pad=counted),
            theirs,
            rtol=0,
            atol=1e-14,  # six terms of order 1 in float64, in another order
        )


# --- Other averages -------------------------------------------------------------------


def test_a_divisor_of_one_makes_it_sum_pooling():
    x = jnp.arange(6.0).reshape(1, 6)
    np.testing.assert_array_equal(jaxcnn.avg_pool1d(x, 3, divisor_override=1), [[3, 12]])
    # … which is the power average of order one.
    np.testing.assert_array_equal(jaxcnn.lp_pool1d(x, 1, 3), [[3, 12]])


@pytest.mark.parametrize("divisor", [2.5, -3])
def test_the_divisor_may_be_any_number_but_zero(divisor):
    x = jnp.array([[1.0, 4.0]])
    y = jaxcnn.avg_pool1d(x, 2, divisor_override=divisor)
    np.testing.assert_allclose(y, [[5 / divisor]], rtol=1e-15)


def test_a_large_power_comes_near_to_max_pooling(rng):
    x = jnp.asarray(rng.uniform(0.1, 1, (2, 3, 8)))
    # At most 4^(1/200) = 1.007 times as large.
    np.testing.assert_allclose(
        jaxcnn.lp_pool1d(x, 200, 4), jaxcnn.max_pool1d(x, 4), rtol=0.007
    )


@pytest.mark.parametrize("p", [1, 2, 3, 1.5])
def test_where_a_power_average_is_zero_so_is_its_gradient(p):
    x = jnp.array([[0.0, 0.0, 3.0, 4.0]])
    for derivatives in ("custom", "autodiff"):
        pool = functools.partial(
            jaxcnn.lp_pool1d, norm_type=p, kernel_size=2, derivatives=derivatives
        )
        y, pullback = jax.vjp(pool, x)
        (dx,) = pullback(jnp.ones_like(y))
        assert y[0, 0] == 0
        np.testing.assert_array_equal(dx[0, :2], [0, 0])
        # ∂Y/∂X = (X/Y)^(p−1)
        np.testing.assert_allclose(dx[0, 2:], (x[0, 2:] / y[0, 1]) ** (p - 1), rtol=1e-14)


def test_a_negative_sum_of_odd_powers_has_no_root():
    y = jaxcnn.lp_pool1d(jnp.array([[-3.0, 1.0, -3.0, 4.0]]), 3, 2)
    np.testing.assert_allclose(y, [[np.nan, 37 ** (1 / 3)]], rtol=1e-15)
