"""Optimizers and schedules by name: what their names say, step by step."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments.run.optimization import OPTIMIZERS, SCHEDULES, Optimization


@pytest.fixture(autouse=True)
def strict_jax():
    """Not here: experiments run with JAX's defaults."""


def rates(steps, **options):
    rate = Optimization(learning_rate=0.5, **options).rate(steps)
    return [float(rate(step)) for step in range(steps + 1)]


def test_schedules_begin_with_the_learning_rate_and_end_as_they_are_named():
    for schedule, last in (
        ("cosine", 0),
        ("linear", 0),
        ("step", 0.005),
        ("constant", 0.5),
    ):
        found = rates(8, schedule=schedule)
        assert found[0] == 0.5
        assert found[-1] == pytest.approx(last)  # float32
        assert found == sorted(found, reverse=True)
    np.testing.assert_allclose(
        rates(8, schedule="step"), [0.5] * 4 + [0.05] * 2 + [0.005] * 3, rtol=1e-6
    )
    assert set(SCHEDULES) == {"cosine", "linear", "step", "constant"}


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_warm_up_rises_in_its_part_of_the_run(schedule):
    found = rates(20, schedule=schedule, warmup=0.25)
    np.testing.assert_allclose(found[:6], [0, 0.1, 0.2, 0.3, 0.4, 0.5], rtol=1e-6)
    assert found[5:] == rates(15, schedule=schedule)


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_every_optimizer_finds_the_bottom_of_a_bowl(optimizer):
    how = Optimization(optimizer=optimizer, learning_rate=0.1, weight_decay=0.0)
    transformation = how.transformation(200)
    x = jnp.array([3.0, -2.0])
    state = transformation.init(x)
    for _ in range(200):
        updates, state = transformation.update(jax.grad(lambda x: x @ x)(x), state, x)
        x = optax.apply_updates(x, updates)
    assert jnp.abs(x).max() < 0.1


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_weights_decay_without_a_gradient(optimizer):
    how = Optimization(optimizer=optimizer, learning_rate=0.1, weight_decay=0.5)
    transformation = how.transformation(10)
    x = jnp.array([3.0, -2.0])
    updates, _ = transformation.update(jnp.zeros(2), transformation.init(x), x)
    assert (jnp.sign(updates) == -jnp.sign(x)).all()


def test_large_gradients_are_clipped_and_small_ones_are_not():
    how = Optimization(
        optimizer="sgd", learning_rate=1.0, momentum=0.0, weight_decay=0.0, clip=5.0
    )
    transformation = how.transformation(10)
    x = jnp.zeros(2)
    for gradient, expected in (([30.0, 40.0], [-3.0, -4.0]), ([0.3, 0.4], [-0.3, -0.4])):
        updates, _ = transformation.update(jnp.array(gradient), transformation.init(x), x)
        np.testing.assert_allclose(updates, expected, rtol=1e-6)  # float32


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"learning_rate": 0.0}, "learning_rate is 0.0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1"),
        ({"clip": -1.0}, "clip is -1.0"),
        ({"clip": float("nan")}, "clip is nan"),
        ({"warmup": 1.0}, "warmup is 1.0"),
        ({"momentum": -0.5}, "momentum is -0.5"),
        ({"label_smoothing": 1.0}, "label_smoothing is 1.0"),
        ({"average": 1.0}, "average is 1.0"),
    ],
)
def test_an_option_out_of_range_is_refused(wrong, said):
    with pytest.raises(ValueError) as refusal:
        Optimization(**wrong)
    assert said in str(refusal.value)
