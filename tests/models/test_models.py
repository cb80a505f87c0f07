"""The models: their shapes, their sizes, and that they are pure functions of a key."""

import functools
import inspect
import pickle

import chex
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import models, training
from tests.models.parameters import drawn

COMPILE_QUICKLY = {"xla_backend_optimization_level": 0}
SIZES = [
    (models.lenet5, 8),
    (models.lenet5, 28),
    (models.lenet5, 32),
    (models.small_cnn, 8),
    (models.small_cnn, 12),
    (models.small_cnn, 28),
]


@pytest.mark.parametrize(("build", "image_size"), SIZES)
def test_a_model_turns_images_into_one_logit_for_each_class(build, image_size):
    model = build(image_size, channels=2, classes=7)
    parameters = jax.eval_shape(model.init, jax.random.key(0))
    images = jax.ShapeDtypeStruct((3, image_size, image_size, 2), jnp.float32)
    assert jax.eval_shape(model.apply, parameters, images).shape == (3, 7)


@pytest.mark.parametrize("image_size", [28, 32])
def test_lenet5_has_as_many_parameters_as_its_layers_say(image_size):
    parameters = jax.eval_shape(models.lenet5(image_size).init, jax.random.key(0))
    conv = (25 * 1 + 1) * 6 + (25 * 6 + 1) * 16
    dense = (400 + 1) * 120 + (120 + 1) * 84 + (84 + 1) * 10
    assert sum(leaf.size for leaf in jax.tree.leaves(parameters)) == conv + dense


# --- Models are values ----------------------------------------------------------------


def wrapped(model):
    stored = models.standardized(model, [0.5], (2.0,))
    return models.in_precision(stored, "bfloat16")


BUILT = {
    "lenet5": lambda: models.lenet5(8, classes=3),
    "small_cnn": lambda: models.small_cnn(8, dtype="float32"),
    "vgg": lambda: models.vgg(8, layout="NCHW"),
    "resnet20": lambda: models.resnet20(axis_name="batch"),
    "mobilenet": lambda: models.mobilenet(1),
    "lenet5, wrapped": lambda: wrapped(models.lenet5(8)),
    "resnet20, wrapped": lambda: wrapped(models.resnet20(1)),
}


@pytest.mark.parametrize("name", BUILT)
def test_a_model_built_again_or_out_of_a_pickle_is_equal(name):
    model = BUILT[name]()
    for other in BUILT[name](), pickle.loads(pickle.dumps(model)):
        assert other == model
        assert hash(other) == hash(model)


def test_other_arguments_make_another_model():
    made = [build() for build in BUILT.values()]
    made += [models.lenet5(28), models.lenet5(8, dtype="bfloat16"), models.resnet20()]
    made += [
        models.in_precision(made[0], "float16"),
        models.in_precision(made[0], "bfloat16"),
    ]
    assert len(set(made)) == len(made)


def test_a_model_built_again_compiles_nothing_anew():
    images, labels = np.zeros((2, 8, 8, 1), np.float32), np.zeros(2, np.int32)
    parameters = models.lenet5(8).init(jax.random.key(0))
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def logits(model, parameters, images):
        traces.append(model)
        return model.apply(parameters, images)

    before = training.evaluate._cache_size()  # the evaluation of tests before this one
    for _ in range(2):
        model = wrapped(models.lenet5(8))
        logits(model, parameters, images)
        training.evaluate(parameters, images, labels, model=model)
    assert len(traces) == 1
    assert training.evaluate._cache_size() == before + 1


@pytest.mark.parametrize("build", [models.lenet5, models.small_cnn, models.vgg])
@pytest.mark.parametrize("image_size", ["8", 8.0, None, [8], True])
def test_an_image_size_that_is_no_int_is_refused(build, image_size):
    with pytest.raises(TypeError, match=r"image_size is .* must be an int"):
        inspect.unwrap(build)(image_size)  # whose types are not checked first


SMALL = models.small_cnn(8)


@functools.cache
def compiled_init():
    return jax.jit(SMALL.init)


def test_the_key_decides_the_parameters_and_nothing_else_does():
    init = compiled_init()
    first, again, other = (init(jax.random.key(seed)) for seed in (0, 0, 1))
    chex.assert_trees_all_equal(first, again)
    assert not np.array_equal(first["conv1"]["w"], other["conv1"]["w"])


def test_weights_start_with_the_variance_that_keeps_relu_activations_steady():
    w = compiled_init()(jax.random.key(0))["conv2"]["w"]
    # He: 2 / fan-in, with 3·3·32 inputs. 18,432 samples: the estimate is within 3 %.
    assert np.var(w) == pytest.approx(2 / (9 * 32), rel=0.05)


def test_a_models_gradient_lowers_for_every_platform_and_any_batch_size(rng):
    model = models.lenet5(8)
    parameters = jax.eval_shape(model.init, jax.random.key(0))
    (batch,) = jax.export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, 8, 8, 1), jnp.float32)

    def gradient(parameters, images):
        return jax.grad(lambda p: jnp.sum(model.apply(p, images) ** 2))(parameters)

    platforms = ("cpu", "cuda", "rocm", "tpu")
    exported = jax.export.export(jax.jit(gradient), platforms=platforms)(parameters, images)
    assert exported.platforms == platforms
    two = np.ones((2, 8, 8, 1), np.float32)

    @functools.partial(jax.jit, compiler_options=COMPILE_QUICKLY)
    def both(parameters, images):
        return exported.call(parameters, images), gradient(parameters, images)

    # The same program, compiled for one batch size and for any: float32 rounding.
    ours, expected = both(drawn(model, rng, np.float32), two)
    chex.assert_trees_all_close(ours, expected, rtol=1e-4, atol=1e-5)


def test_parameters_come_in_the_dtype_asked_for():
    model = models.lenet5(8, dtype=jnp.bfloat16)
    parameters = jax.eval_shape(model.init, jax.random.key(0))
    assert {leaf.dtype for leaf in jax.tree.leaves(parameters)} == {jnp.dtype(jnp.bfloat16)}


def test_an_ensemble_under_vmap_gives_what_each_of_its_members_gives(rng):
    images = jnp.asarray(rng.standard_normal((2, 8, 8, 1)), jnp.float32)

    @jax.jit
    def of_the_ensemble(keys):
        ensemble = jax.vmap(SMALL.init)(keys)
        return jax.vmap(SMALL.apply, in_axes=(0, None))(ensemble, images)

    alone, init = jax.jit(SMALL.apply), compiled_init()
    keys = jax.random.split(jax.random.key(0), 3)
    for logits, key in zip(np.asarray(of_the_ensemble(keys)), keys, strict=True):
        # float32: the folded sums add the same terms in another order.
        np.testing.assert_allclose(logits, alone(init(key), images), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("build", "image_size"),
    [(models.lenet5, 27), (models.small_cnn, 10), (models.small_cnn, 0)],
)
def test_a_size_that_a_model_is_not_made_for_is_refused(build, image_size):
    with pytest.raises(ValueError, match=f"image_size is {image_size}"):
        build(image_size)


def test_a_standardized_model_takes_bytes(rng):
    model, (mean, std) = models.lenet5(8, channels=2), ((100.0, 50.0), (60.0, 80.0))
    images = rng.integers(0, 256, (3, 8, 8, 2)).astype(np.uint8)
    parameters = drawn(model, rng, np.float32)
    by_hand = (images.astype(np.float32) - np.float32(mean)) / np.float32(std)
    np.testing.assert_allclose(
        jax.jit(models.standardized(model, mean, std).apply)(parameters, images),
        jax.jit(model.apply)(parameters, by_hand),
        rtol=0,
        atol=1e-5,  # logits of up to 7 in float32, whose inputs may differ by a rounding
    )


def test_nothing_is_divided_by_zero():
    with pytest.raises(ValueError, match=r"std is \(1.0, 0.0\)"):
        models.standardized(models.lenet5(8), (0.0, 0.0), (1.0, 0.0))


def test_mixed_precision_rounds_what_is_computed_and_not_what_is_trained(rng):
    model = models.lenet5(8)
    parameters = drawn(model, rng, np.float32)
    images = jnp.asarray(rng.random((4, 8, 8, 1)), jnp.float32)

    @functools.partial(jax.jit, static_argnums=0)
    def gradient(model, parameters):
        return jax.grad(lambda p: jnp.mean(model.apply_training(p, images)[0] ** 2))(
            parameters
        )

    exact = gradient(model, parameters)
    rounded = gradient(models.in_precision(model, jnp.bfloat16), parameters)
    chex.assert_trees_all_equal_dtypes(rounded, parameters)
    as_numpy = jax.device_get((rounded, exact))
    for ours, theirs in zip(*map(jax.tree.leaves, as_numpy), strict=True):
        # bfloat16 has 8 bits: 0.4 % a rounding, and a pool may see another maximum.
        error = np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)
        assert 1e-4 < error < 0.1


def test_mixed_precision_leaves_running_statistics_exact(rng):
    model = models.in_precision(models.mobilenet(1), jnp.bfloat16)
    parameters = jax.eval_shape(model.init, jax.random.key(0))
    images = jax.ShapeDtypeStruct((4, 8, 8, 1), jnp.float32)
    logits, advanced = jax.eval_shape(model.apply_training, parameters, images)
    assert logits.dtype == jnp.float32
    chex.assert_trees_all_equal_dtypes(advanced, parameters)
