"""Deep models: their layers, and the statistics that batch norm keeps among parameters."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxcnn import models, training
from tests.models.parameters import drawn_at_once

BUILD = {
    "vgg": lambda: models.vgg(8),
    "resnet20": models.resnet20,
    "mobilenet": models.mobilenet,
}
WITH_NORM = ["resnet20", "mobilenet"]
slow = pytest.mark.slow  # where MobileNet, which compiles sooner, shows as much


OPTIMIZER = optax.adamw(3e-3, weight_decay=0.5)
SIZE = 8


@functools.cache
def built(name):
    """A model, and parameters for it."""
    model = BUILD[name]()
    return model, jax.jit(drawn_at_once(model).init)(jax.random.key(0))


@functools.cache
def forward(name):
    """In training; compiled."""
    model, _ = built(name)
    return jax.jit(model.apply_training)


def fresh_state(name):
    _, parameters = built(name)
    optimizer_state = jax.jit(OPTIMIZER.init)(parameters)
    return training.TrainingState(parameters, optimizer_state, jnp.int32(0))


@pytest.fixture(autouse=True)
def strict_jax():
    """Not here: the parameters are float32, as they are by default."""


@pytest.fixture
def images(rng):
    return jnp.asarray(rng.standard_normal((6, SIZE, SIZE, 3)), "float32")


@pytest.fixture
def large_images(rng):
    return jnp.asarray(rng.standard_normal((6, 32, 32, 3)), "float32")


def is_statistic(path):
    return path[-1].key in models.STATISTICS


def number_of_parameters(parameters):
    leaves = jax.tree_util.tree_leaves_with_path(parameters)
    return sum(leaf.size for path, leaf in leaves if not is_statistic(path))


@pytest.mark.parametrize("name", BUILD)
def test_a_model_turns_images_into_one_logit_for_each_class(name, images):
    model, parameters = built(name)
    assert jax.eval_shape(model.apply, parameters, images).shape == (6, 10)
    logits, _ = jax.eval_shape(model.apply_training, parameters, images)
    assert (logits.shape, logits.dtype) == ((6, 10), jnp.float32)


def test_the_models_have_as_many_parameters_as_their_layers_say():
    def convolution(kernel, c_in, c_out):
        return kernel**2 * c_in * c_out + 2 * c_out  # and scale and shift

    resnet = convolution(3, 3, 16)
    for before, width in ((16, 16), (16, 32), (32, 64)):
        resnet += convolution(3, before, width) + 5 * convolution(3, width, width)
        resnet += convolution(1, before, width) if before != width else 0
    mobilenet, before = convolution(3, 3, 32), 32
    for width in (64, 128, 128, 256, 256, 512):
        mobilenet += convolution(3, 1, before) + convolution(1, before, width)
        before = width
    for name, expected in (
        ("resnet20", resnet + 64 * 10 + 10),
        ("mobilenet", mobilenet + 512 * 10 + 10),
    ):
        parameters = jax.eval_shape(BUILD[name]().init, jax.random.key(0))
        assert number_of_parameters(parameters) == expected


@pytest.mark.parametrize("name", WITH_NORM)
def test_training_advances_the_statistics_and_nothing_else(name, large_images):
    _, parameters = built(name)
    _, advanced = forward(name)(parameters, large_images)
    for (path, new), old in zip(
        jax.tree_util.tree_leaves_with_path(advanced),
        jax.tree.leaves(parameters),
        strict=True,
    ):
        assert np.array_equal(new, old) is not is_statistic(path), path


@pytest.mark.parametrize("name", WITH_NORM)
def test_inference_with_the_statistics_of_a_batch_is_training_on_it(name, large_images):
    model, parameters = built(name)
    logits, _ = forward(name)(parameters, large_images)
    for _ in range(100):  # of which a tenth is new every time: 3e-5 of the first are left
        _, parameters = forward(name)(parameters, large_images)
    inferred = jax.jit(model.apply)(parameters, large_images)
    # The running variance is n/(n − 1) of the batch's, with n down to 96 in the last layer.
    correlation = np.corrcoef(np.ravel(logits), np.ravel(inferred))[0, 1]
    assert correlation > 0.999


@pytest.mark.parametrize("name", [pytest.param("resnet20", marks=slow), "mobilenet"])
def test_a_step_moves_parameters_by_gradients_and_statistics_by_the_batch(name, images):
    (model, _), state = built(name), fresh_state(name)
    labels = jnp.asarray(np.arange(6), jnp.int32)
    after, metrics = training.train_step(
        state, images, labels, model=model, optimizer=OPTIMIZER
    )

    @jax.jit
    def by_the_batch(parameters):
        logits, advanced = model.apply_training(parameters, images)
        return training.loss_and_accuracy(logits, labels), advanced

    expected, advanced = by_the_batch(state.parameters)
    chex.assert_trees_all_close(metrics, expected, rtol=1e-4)
    chex.assert_trees_all_close(
        after.parameters,
        models.with_statistics_of(after.parameters, advanced),
        rtol=1e-4,
        atol=1e-5,  # float32, twenty layers deep
    )
    stayed = jax.tree.map(np.array_equal, after.parameters, state.parameters)
    assert not any(jax.tree.leaves(stayed))


@pytest.mark.parametrize("name", ["vgg", pytest.param("resnet20", marks=slow), "mobilenet"])
def test_a_model_learns_a_few_images_by_heart(name, images):
    (model, _), state = built(name), fresh_state(name)
    labels = jnp.asarray(np.arange(6), jnp.int32)
    losses = []
    for _ in range(30):
        state, metrics = training.train_step(
            state, images, labels, model=model, optimizer=OPTIMIZER
        )
        losses.append(float(metrics.loss))
    assert losses[-1] < 0.1 * losses[0]


@pytest.mark.parametrize("image_size", [0, 4, 12])
def test_a_vgg_of_a_size_that_it_cannot_halve_is_refused(image_size):
    with pytest.raises(ValueError, match=f"image_size is {image_size}; .* multiple of 8"):
        models.vgg(image_size)
