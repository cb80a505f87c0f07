"""Training: a step, an epoch, an evaluation; ten steps beside the same network in lax."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn import models, training
from tests import oracles
from tests.models.parameters import drawn

EXAMPLES, BATCH = 22, 5
LENET5 = models.lenet5(8, dtype=jnp.float64)
SGD = optax.sgd(0.05, momentum=0.9)
"""These same two in every test: what is compiled for one serves the others."""


@pytest.fixture
def images(rng):
    return rng.random((EXAMPLES, 8, 8, 1))


@pytest.fixture
def labels(rng):
    return rng.integers(0, 10, EXAMPLES).astype(np.int32)


def initial_state(rng, model=LENET5, optimizer=SGD, *, averaged=False):
    """Of drawn parameters, in one program."""

    @jax.jit
    def from_parameters(parameters):
        of_them = model._replace(init=lambda key: parameters)
        key = jax.random.key(0)
        return training.initial_state(of_them, optimizer, key, averaged=averaged)

    return from_parameters(drawn(model, rng))


def test_ten_steps_follow_the_same_network_written_with_lax_and_jax_grad(rng):
    model = models.small_cnn(8, dtype=jnp.float64)
    state = initial_state(rng, model)
    parameters, optimizer_state = state.parameters, state.optimizer_state

    @jax.jit
    def lax_step(parameters, optimizer_state, images, labels):
        def loss(parameters):
            logits = oracles.lax_small_cnn(parameters, images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        value, gradients = jax.value_and_grad(loss)(parameters)
        updates, optimizer_state = SGD.update(gradients, optimizer_state, parameters)
        return optax.apply_updates(parameters, updates), optimizer_state, value

    for _ in range(10):
        images = rng.random((BATCH, 8, 8, 1))
        labels = rng.integers(0, 10, BATCH).astype(np.int32)
        state, metrics = training.train_step(
            state, images, labels, model=model, optimizer=SGD
        )
        parameters, optimizer_state, loss = lax_step(
            parameters, optimizer_state, images, labels
        )
        # float64: rounding is 1e-16, and ten steps of momentum let it grow a little.
        chex.assert_trees_all_close(metrics.loss, loss, rtol=1e-12)
        chex.assert_trees_all_close(state.parameters, parameters, rtol=1e-10, atol=1e-12)
    assert state.step == 10


def test_an_epoch_is_its_steps_over_shuffled_batches(rng, images, labels):
    start = initial_state(rng)
    key = jax.random.key(7)
    after, metrics = training.train_epoch(
        start, images, labels, key, model=LENET5, optimizer=SGD, batch_size=BATCH
    )
    order = np.asarray(jax.random.permutation(key, EXAMPLES))
    state, losses = start, []
    for first in range(0, EXAMPLES - BATCH + 1, BATCH):
        batch = order[first : first + BATCH]
        state, step_metrics = training.train_step(
            state, images[batch], labels[batch], model=LENET5, optimizer=SGD
        )
        losses.append(step_metrics.loss)
    assert after.step == len(losses) == EXAMPLES // BATCH
    # The same sums, compiled inside and outside of a scan: float64 rounding.
    chex.assert_trees_all_close(after.parameters, state.parameters, rtol=1e-10, atol=1e-12)
    chex.assert_trees_all_close(metrics.loss, np.stack(losses), rtol=1e-10)


def test_every_step_augments_its_images_by_a_key_of_its_own(rng, images, labels):
    start = initial_state(rng)
    key = jax.random.key(7)

    def noisy(key, image):
        return image + jax.random.normal(key, image.shape, image.dtype)

    after, _ = training.train_epoch(
        start,
        images,
        labels,
        key,
        model=LENET5,
        optimizer=SGD,
        batch_size=BATCH,
        augment=noisy,
    )

    @jax.jit
    def seen_in(step, images):
        keys = jax.random.split(jax.random.fold_in(key, step), BATCH)
        return jnp.stack([noisy(*each) for each in zip(keys, images, strict=True)])

    state = start
    order = np.asarray(jax.random.permutation(key, EXAMPLES))
    for step, first in enumerate(range(0, EXAMPLES - BATCH + 1, BATCH)):
        batch = order[first : first + BATCH]
        seen = seen_in(step, images[batch])
        state, _ = training.train_step(
            state, seen, labels[batch], model=LENET5, optimizer=SGD
        )
    # The same sums, compiled inside and outside of a scan: float64 rounding.
    chex.assert_trees_all_close(after.parameters, state.parameters, rtol=1e-10, atol=1e-12)


def test_the_average_follows_the_parameters(rng, images, labels):
    state = initial_state(rng, averaged=True)
    by_hand = jax.tree.map(np.asarray, state.parameters)
    for t in range(4):
        state, _ = training.train_step(
            state,
            images[:BATCH],
            labels[:BATCH],
            model=LENET5,
            optimizer=SGD,
            average_decay=0.15,
        )
        d = min(0.15, (1 + t) / (10 + t))  # 1/10 at first, and then 0.15
        by_hand = jax.tree.map(
            lambda a, p, d=d: d * a + (1 - d) * np.asarray(p), by_hand, state.parameters
        )
    # d is float32, whatever the parameters are: a rounding of 6e-8 of d.
    chex.assert_trees_all_close(state.average, by_hand, rtol=1e-6, atol=1e-8)
    assert state.trained is state.average


def test_labels_are_smoothed_in_the_loss_alone(rng, labels):
    logits = rng.standard_normal((EXAMPLES, 10))

    @jax.jit
    def computed(logits, labels):
        return (
            training.loss_and_accuracy(logits, labels),
            training.loss_and_accuracy(logits, labels, 0.1),
            -jnp.mean(jax.nn.log_softmax(logits)),
        )

    plain, smoothed, uniform = computed(logits, labels)
    np.testing.assert_allclose(smoothed.loss, 0.9 * plain.loss + 0.1 * uniform, rtol=1e-12)
    assert smoothed.accuracy == plain.accuracy


def test_training_learns_a_small_set_by_heart(rng, images, labels):
    optimizer = optax.adam(3e-3)
    state = initial_state(rng, optimizer=optimizer)
    with jax.numpy_dtype_promotion("standard"):  # Adam raises a float to an integer power
        for epoch in range(60):
            state, _ = training.train_epoch(
                state,
                images,
                labels,
                jax.random.key(epoch),
                model=LENET5,
                optimizer=optimizer,
                batch_size=11,
            )
    evaluation = training.evaluate(state.parameters, images, labels, model=LENET5)
    assert evaluation.metrics.accuracy == 1
    assert evaluation.metrics.loss < 0.1
    chex.assert_trees_all_equal(evaluation.predictions, labels)


def test_an_epoch_reports_while_it_runs(rng, images, labels):
    reports = []
    _, metrics = training.train_epoch(
        initial_state(rng),
        images,
        labels,
        jax.random.key(0),
        model=LENET5,
        optimizer=SGD,
        batch_size=BATCH,
        report=lambda step, loss, accuracy: reports.append((step, loss, accuracy)),
        report_every=2,
    )
    jax.effects_barrier()
    reports.sort()  # a callback may overtake another
    assert [int(step) for step, _, _ in reports] == [2, 4]
    chex.assert_trees_all_close(
        np.array([loss for _, loss, _ in reports]), np.asarray(metrics.loss)[1::2]
    )


@functools.cache
def logits_and_loss():
    """Of all images at once; compiled."""

    def computed(parameters, images, labels):
        logits = LENET5.apply(parameters, images)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
        return logits, losses.mean()

    return jax.jit(computed)


@pytest.mark.parametrize("batch_size", [1, 4, EXAMPLES, 500])
def test_evaluation_does_not_depend_on_its_batch_size(rng, images, labels, batch_size):
    parameters = drawn(LENET5, rng)
    evaluation = training.evaluate(
        parameters, images, labels, model=LENET5, batch_size=batch_size
    )
    logits, expected = map(np.asarray, logits_and_loss()(parameters, images, labels))
    predictions = logits.argmax(-1).astype(np.int32)
    chex.assert_trees_all_equal(evaluation.predictions, predictions)
    chex.assert_trees_all_close(evaluation.metrics.loss, expected, rtol=1e-12)
    right = np.mean(predictions == labels)
    assert evaluation.metrics.accuracy == pytest.approx(right)


@pytest.mark.parametrize("batch_size", [0, -1, EXAMPLES + 1])
def test_a_batch_size_that_the_data_set_cannot_fill_is_refused(
    rng, images, labels, batch_size
):
    state = initial_state(rng)
    with pytest.raises(
        ValueError, match=f"batch_size is {batch_size}; .* between 1 and 22"
    ):
        training.train_epoch(
            state,
            images,
            labels,
            jax.random.key(0),
            model=LENET5,
            optimizer=SGD,
            batch_size=batch_size,
        )
