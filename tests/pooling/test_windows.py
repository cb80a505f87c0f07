"""Poolings' other windows: at the edge in ceil_mode, dilated, named; and other averages.

Random cases are compared with XLA and PyTorch in test_random_pooling.
"""

import functools

import jax
import numpy as np
import pytest

import jaxcnn
from tests import precision

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
    x = np.arange(1.0, size + 1)[None]

    @jax.jit
    def pool(x):
        return jaxcnn.max_pool1d(x, kernel_size, stride, padding, ceil_mode=True)

    np.testing.assert_array_equal(pool(x), [maxima])


def test_what_lies_beyond_the_padding_is_no_part_of_an_average():
    @jax.jit
    def averages(x):
        average = functools.partial(jaxcnn.avg_pool1d, x, 3, 3, ceil_mode=True)
        wide = functools.partial(average, ((2, 1),))
        return (
            [average(), average(1), average(1, count_include_pad=False)],
            [wide(), wide(count_include_pad=False), wide(divisor_override=2)],
        )

    (plain, padded, inside), wide = averages(np.array([[2.0, 4.0, 6.0, 8.0, 10.0]]))
    np.testing.assert_array_equal(plain, [[4, 9]])
    # Padded, the windows are (0, 2, 4), (6, 8, 10) and (0): what begins in padding is none.
    np.testing.assert_array_equal(padded, [[2, 8]])
    np.testing.assert_array_equal(inside, [[3, 8]])
    # (0, 0, 2), (4, 6, 8) and (10, 0), which has no third element.
    wide, wide_inside, halved = wide
    np.testing.assert_allclose(wide, [[2 / 3, 6, 5]], rtol=1e-15)
    np.testing.assert_array_equal(wide_inside, [[2, 6, 10]])
    np.testing.assert_array_equal(halved, [[1, 9, 5]])


def test_a_power_average_at_the_edge_is_scaled_up_to_a_whole_window():
    x = np.array([[3.0, 4.0, 5.0]])
    y = jaxcnn.lp_pool1d(x, 2, 2, ceil_mode=True)
    np.testing.assert_allclose(y, [[5, 5 * np.sqrt(2)]], rtol=1e-15)


def test_the_gradient_of_a_window_at_the_edge_stays_in_the_image():
    @jax.jit
    def gradient(x, dy):
        return jax.vjp(lambda x: jaxcnn.max_pool1d(x, 2, ceil_mode=True), x)[1](dy)[0]

    dx = gradient(np.full((1, 3), -np.inf), np.array([[1.0, 10.0]]))
    np.testing.assert_array_equal(dx, [[1, 0, 10]])


# --- Dilation and names ---------------------------------------------------------------


def test_a_dilated_window_looks_past_what_is_between():
    @jax.jit
    def every_pooling(x):
        return (
            jaxcnn.max_pool1d(x, 3, 1, dilation=2),
            jaxcnn.avg_pool1d(x, 2, 1, dilation=4),
            jaxcnn.lp_pool1d(x, 1, 2, 1, dilation=3),
        )

    maxima, averages, sums = every_pooling(np.array([[5.0, 9.0, 1.0, 9.0, 2.0, 9.0]]))
    np.testing.assert_array_equal(maxima, [[5, 9]])
    np.testing.assert_array_equal(averages, [[3.5, 9]])
    np.testing.assert_array_equal(sums, [[14, 11, 10]])


@pytest.mark.parametrize(
    ("kernel_size", "stride"), [((2, 3), (1, 1)), ((3, 2), (2, 3)), ((2, 2), (2, 2))]
)
def test_poolings_with_named_paddings_are_those_of_flax(rng, kernel_size, stride):
    linen = pytest.importorskip("flax.linen")
    x = rng.standard_normal((2, 5, 7, 3))
    window = (kernel_size, stride, "SAME")
    counts = (True, False)

    @jax.jit
    def ours(x):
        averages = [
            jaxcnn.avg_pool2d(x, *window, layout="NHWC", count_include_pad=counted)
            for counted in counts
        ]
        return jaxcnn.max_pool2d(x, *window, layout="NHWC"), *averages

    @jax.jit
    def theirs(x):
        averages = [
            linen.avg_pool(x, *window, count_include_pad=counted) for counted in counts
        ]
        return linen.max_pool(x, *window), *averages

    our_maxima, *our_averages = ours(x)
    with jax.numpy_dtype_promotion("standard"):  # flax divides by integers
        their_maxima, *their_averages = theirs(x)
    np.testing.assert_array_equal(our_maxima, their_maxima)
    for our, their in zip(our_averages, their_averages, strict=True):
        np.testing.assert_allclose(
            our,
            their,
            rtol=0,
            atol=1e-14,  # six terms of order 1 in float64, in another order
        )


# --- Other averages -------------------------------------------------------------------


def test_a_divisor_of_one_makes_it_sum_pooling():
    x = np.arange(6.0).reshape(1, 6)
    y = jaxcnn.avg_pool1d(x, 3, divisor_override=1)
    np.testing.assert_allclose(y, [[3, 12]], **precision.of_sums())
    # … which is the power average of order one.
    y = jaxcnn.lp_pool1d(x, 1, 3)
    np.testing.assert_allclose(y, [[3, 12]], **precision.of_sums())


@pytest.mark.parametrize("divisor", [2.5, 3])
def test_the_divisor_may_be_any_positive_number(divisor):
    x = np.array([[1.0, 4.0]])
    y = jaxcnn.avg_pool1d(x, 2, divisor_override=divisor)
    np.testing.assert_allclose(y, [[5 / divisor]], rtol=1e-15)


def test_a_large_power_comes_near_to_max_pooling(rng):
    x = rng.uniform(0.1, 1, (2, 3, 8))
    both = jax.jit(lambda x: (jaxcnn.lp_pool1d(x, 200, 4), jaxcnn.max_pool1d(x, 4)))
    # At most 4^(1/200) = 1.007 times as large.
    np.testing.assert_allclose(*both(x), rtol=0.007)


@pytest.mark.parametrize("p", [1, 2, 3, 1.5])
def test_where_a_power_average_is_zero_so_is_its_gradient(p):
    x = np.array([[0.0, 0.0, 3.0, 4.0]])

    @functools.partial(jax.jit, static_argnums=2)
    def with_gradient(x, dy, derivatives):
        pool = functools.partial(
            jaxcnn.lp_pool1d, norm_type=p, kernel_size=2, derivatives=derivatives
        )
        y, pullback = jax.vjp(pool, x)
        return y, *pullback(dy)

    for derivatives in ("custom", "autodiff"):
        computed = with_gradient(x, np.ones((1, 2)), derivatives)
        y, dx = map(np.asarray, computed)
        assert y[0, 0] == 0
        np.testing.assert_array_equal(dx[0, :2], [0, 0])
        # ∂Y/∂X = (X/Y)^(p−1)
        np.testing.assert_allclose(dx[0, 2:], (x[0, 2:] / y[0, 1]) ** (p - 1), rtol=1e-14)


def test_a_negative_sum_of_odd_powers_has_no_root():
    y = jaxcnn.lp_pool1d(np.array([[-3.0, 1.0, -3.0, 4.0]]), 3, 2)
    np.testing.assert_allclose(y, [[np.nan, 37 ** (1 / 3)]], rtol=1e-15)
