"""The tolerances of :mod:`tests.precision`, on a CPU and elsewhere."""

import jax
import numpy as np
import pytest

from tests import precision

UNIT = 2.0**-7
"""That of 1 in bfloat16."""


@pytest.fixture(params=["cpu", "gpu", "tpu"])
def platform(request, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: request.param)
    return request.param


def is_close(ours, theirs, tolerances):
    return np.allclose(np.float64(ours), np.float64(theirs), **tolerances)


def test_a_convolution_alone_is_rounded_twice_and_only_elsewhere(platform):
    one = np.array([1.0])
    once, twice, thrice = (1 + number * 0.5 * UNIT for number in (1, 2, 3))
    for convolved, is_twice in (None, False), (one, platform != "cpu"):
        allowed = precision.of_halves("bfloat16", 0, convolved=convolved)
        assert is_close(once, one, allowed)
        assert is_close(twice, one, allowed) == is_twice
    assert not is_close(1 + 4 * 0.5 * UNIT, one, precision.of_halves("bfloat16", 0))
    assert is_close(thrice, one, precision.of_halves("bfloat16", 1.1 * UNIT))


def test_what_is_rounded_first_may_be_larger(platform):
    # 16 and a bias of −15.9: half a unit of 16, and what is left is nearly nothing.
    allowed = precision.of_halves("bfloat16", 1e-6, convolved=np.array([-16, 0.1]))
    assert is_close(0.1 + 8 * UNIT, 0.1, allowed) == (platform != "cpu")
    assert not is_close(0.1 + 9 * UNIT, 0.1, allowed)


def test_halves_alike_are_equal_or_a_unit_apart(platform):
    allowed = precision.of_halves_alike("bfloat16", np.array([1.0]))
    assert is_close(1, 1, allowed)
    assert is_close(1 + UNIT, 1, allowed) == (platform != "cpu")
    assert not is_close(1 + 2 * UNIT, 1, allowed)


def test_sums_are_exact_but_for_a_reciprocal(platform):
    allowed = precision.of_sums()
    assert is_close(2.9999999999999996, 3, allowed) == (platform != "cpu")
    assert is_close(3, 3, allowed)
    assert not is_close(2.999999999999998, 3, allowed)


def test_xlas_maxima_are_float64_up_to_their_second_derivative(platform):
    for order in 1, 2, 3:
        allowed = precision.of_xlas_maxima(1e-12, order)
        if order > 1 and platform != "cpu":
            assert 1e-6 < allowed < 1e-4
        else:
            assert allowed == 1e-12
