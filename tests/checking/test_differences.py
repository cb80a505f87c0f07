"""Differences: what they say of their own errors is true."""

import numpy as np
import pytest

from jaxcnn.checking.differences import SAMPLES, best_of, close_to, noise_of, steps_for


def differences_of(f, x, noise):
    """Central differences of f at many points, every value off by so much, at random."""
    rng = np.random.default_rng(0)
    (steps,) = steps_for(np.ones(1), np.ones(1))
    up, down = (f(x + sign * steps[:, None]) for sign in (1, -1))
    off = rng.uniform(-noise, noise, (2, *up.shape))
    central = (up + off[0] - down - off[1]) / (2 * steps[:, None])
    return best_of(central, steps, np.full(up.shape[1], noise))


@pytest.mark.parametrize("noise", [1e-12, 1e-9, 1e-6])
def test_an_error_is_at_most_what_they_say(noise, rng):
    # The argument of the sine is rounded by 1e-13 at most.
    waves, x = 10.0 ** rng.uniform(-3, 2, 2000), rng.standard_normal(2000)
    value, error, _ = differences_of(lambda x: np.sin(waves * x), x, noise)
    assert (abs(value - waves * np.cos(waves * x)) <= error).all()
    # At the best step h, the h⁴ of truncation and the noise / h of rounding are equal.
    assert np.median(error[waves < 1]) < 100 * noise**0.8


def test_there_is_none_where_f_jumps():
    value, error, _ = differences_of(np.sign, np.array([0.0, 1.0]), 1e-15)
    assert np.isnan(value[0])
    assert error[0] == np.inf
    assert abs(value[1]) <= error[1]


def test_large_steps_that_agree_are_not_believed_where_small_ones_do_not():
    x = np.array([1e-5, -1e-5])
    value, error, _ = differences_of(lambda x: 1 / x, x, 1e-11)
    assert (abs(value + 1 / x**2) <= error).all()
    assert (error < 1e-6 / x**2).all()


def test_noise_is_what_is_not_smooth(rng):
    x = rng.standard_normal((4, 1))
    points = np.concatenate([close_to(each, abs(each)) for each in x], axis=1)
    smooth = np.exp(points)
    off = 1e-9 * rng.uniform(-1, 1, (SAMPLES, 4))
    assert (noise_of(smooth, smooth.max(axis=0)) < 100 * np.finfo(float).eps * smooth).all()
    noise = noise_of(smooth + off, smooth.max(axis=0))
    assert (noise >= 1e-9).all()
    assert (noise < 1e-7).all()
