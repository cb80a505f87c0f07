"""The comparison of curves: they are the same, and a wrong rule would be seen."""

import jax
import numpy as np
import pytest

import jaxcnn
from experiments import same_curve
from experiments.benchmarking import networks
from experiments.data import sets
from experiments.data.sets import Examples
from experiments.same_curve import RUNS, Settings
from jaxcnn.models import blocks
from tests.models.parameters import drawn_at_once

SETTINGS = Settings(epochs=2, batch_size=8)


@pytest.fixture(autouse=True)
def strict_jax():
    """Not here: the experiment chooses its precision, and is run with JAX's defaults."""


@pytest.fixture
def few_digits(monkeypatch):
    """Four batches, float64 alone, and first values that take no time to compile."""
    model_of = networks.model_of
    monkeypatch.setattr(networks, "model_of", lambda *how: drawn_at_once(model_of(*how)))
    monkeypatch.setattr(same_curve, "DTYPES", ("float64",))
    digits = sets.digits()
    return digits._replace(train=Examples(*(each[:32] for each in digits.train)))


def test_all_gradients_give_the_same_curve(few_digits):
    curves = same_curve.compared(few_digits, SETTINGS)["float64"]
    assert tuple(curves) == RUNS
    assert curves["rules"].losses.shape == (2, 4)
    assert curves["rules"].distances == [0, 0]
    for run in RUNS[1:]:
        # Eight steps add to the rounding errors, of 1e-16, of sums of 576 products at most.
        np.testing.assert_allclose(
            curves[run].losses, curves["rules"].losses, rtol=1e-12, err_msg=run
        )
        assert 0 < max(curves[run].distances) < 1e-13, run


def test_a_wrong_rule_is_seen(few_digits, monkeypatch):
    @jax.custom_vjp
    def wrong(x):
        return jaxcnn.relu(x)

    wrong.defvjp(lambda x: (wrong(x), x), lambda x, dy: (dy * (x > 0.01),))
    monkeypatch.setattr(blocks, "relu", wrong)
    monkeypatch.setattr(same_curve, "RUNS", ("rules", "lax"))
    curves = same_curve.compared(few_digits, SETTINGS)["float64"]
    assert min(curves["lax"].distances) > 1e-6


def test_the_order_of_batches_is_the_seeds(few_digits):
    epochs = [list(sets.batches(few_digits.train, 10, 2, seed)) for seed in (0, 0, 1)]
    first, again, other = (np.array(each) for each in epochs)
    assert first.shape == (2, 3, 10)
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    for epoch in first:
        assert len(set(epoch.ravel().tolist())) == 30  # no image twice
