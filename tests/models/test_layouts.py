"""The models in both layouts: one network, whose arrays are laid out in two ways."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcnn import inspection, models
from tests.models.parameters import drawn

BUILD = {
    "lenet5": lambda **known: models.lenet5(8, channels=2, **known),
    "small_cnn": lambda **known: models.small_cnn(8, channels=2, **known),
    "vgg": lambda **known: models.vgg(16, channels=2, **known),
    "resnet20": lambda **known: models.resnet20(channels=2, **known),
    "mobilenet": lambda **known: models.mobilenet(channels=2, **known),
}
IMAGES = {"vgg": (2, 16, 16, 2), "resnet20": (3, 6, 6, 2), "mobilenet": (3, 6, 6, 2)}
AFTER_POOLING = {"lenet5": (2, 2, 16), "small_cnn": (2, 2, 64), "vgg": (2, 2, 256)}
"""What the first dense layer is given of an image, in (H, W, C)."""

COMPILE_QUICKLY = {"xla_backend_optimization_level": 0}


def channels_first(parameters, name):
    """The same parameters for the model of NCHW."""
    parameters = jax.tree.map(np.asarray, parameters)
    parameters = jax.tree.map(
        lambda leaf: leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf, parameters
    )
    if name in AFTER_POOLING:
        w = parameters["dense1"]["w"]
        by_pixel = w.reshape(*AFTER_POOLING[name], w.shape[1])
        parameters["dense1"]["w"] = by_pixel.transpose(2, 0, 1, 3).reshape(w.shape)
    return parameters


def logits_and_gradients(model, parameters, images, weights):
    """In training, and with statistics advanced; the gradients of ⟨logits, weights⟩."""

    def product(parameters, images, weights):
        logits, advanced = model.apply_training(parameters, images)
        return jnp.vdot(logits, weights), (logits, advanced)

    computed = jax.jit(
        jax.value_and_grad(product, has_aux=True), compiler_options=COMPILE_QUICKLY
    )
    (_, (logits, advanced)), gradients = computed(parameters, images, weights)
    return logits, advanced, gradients


@pytest.mark.parametrize("name", BUILD)
def test_both_layouts_give_the_same_logits_and_gradients(name, rng):
    last, first = (BUILD[name](layout=layout) for layout in ("NHWC", "NCHW"))
    assert (last.layout, first.layout) == ("NHWC", "NCHW")
    parameters = drawn(last, rng)
    images = rng.standard_normal(IMAGES.get(name, (2, 8, 8, 2)))
    weights = rng.standard_normal((len(images), 10))
    logits, advanced, gradients = logits_and_gradients(last, parameters, images, weights)
    expected = logits, channels_first(advanced, name) if advanced else None
    ours = logits_and_gradients(
        first, channels_first(parameters, name), images.transpose(0, 3, 1, 2), weights
    )
    # Sums of up to 4,096 products in float64, in another order, twenty layers deep.
    chex.assert_trees_all_close(ours[:2], expected, rtol=1e-9, atol=1e-9)
    for found, wanted in zip(
        jax.tree.leaves(ours[2]),
        jax.tree.leaves(channels_first(gradients, name)),
        strict=True,
    ):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-9 * np.abs(wanted).max())


@pytest.mark.parametrize("name", ["lenet5", "mobilenet"])
def test_a_key_gives_the_same_kernels_in_both_layouts(name):
    @jax.jit
    def both(key):
        return [BUILD[name](layout=layout).init(key) for layout in ("NHWC", "NCHW")]

    last, first = jax.tree.map(np.asarray, both(jax.random.key(3)))
    for path, leaf in jax.tree_util.tree_leaves_with_path(last):
        other = first
        for step in path:
            other = other[step.key]
        np.testing.assert_array_equal(
            other, leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf
        )


@pytest.mark.parametrize("name", BUILD)
def test_layers_cost_the_same_in_both_layouts(name):
    shape = IMAGES.get(name, (2, 8, 8, 2))[1:]
    last = inspection.layers(BUILD[name](), shape)
    first = inspection.layers(BUILD[name](layout="NCHW"), (shape[2], *shape[:2]))
    assert len(last) == len(first)
    for ours, theirs in zip(first, last, strict=True):
        assert ours._replace(shape=None) == theirs._replace(shape=None)
        if theirs.shape is not None and len(theirs.shape) == 3:
            assert ours.shape == (theirs.shape[2], *theirs.shape[:2])


def test_a_standardized_model_knows_where_its_channels_are(rng):
    mean, std = (100.0, 50.0), (60.0, 80.0)
    images = rng.integers(0, 256, (3, 8, 8, 2)).astype(np.uint8)
    last, first = (
        models.standardized(BUILD["lenet5"](layout=layout), mean, std)
        for layout in ("NHWC", "NCHW")
    )
    assert first.layout == "NCHW"
    assert models.in_precision(first, jnp.bfloat16).layout == "NCHW"
    parameters = drawn(last, rng)
    in_nchw = channels_first(parameters, "lenet5"), images.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(
        jax.jit(first.apply)(*in_nchw),
        jax.jit(last.apply)(parameters, images),
        rtol=1e-10,
        atol=1e-10,
    )


@pytest.mark.parametrize("name", BUILD)
def test_a_layout_that_there_is_not_is_refused(name):
    with pytest.raises(
        ValueError, match=r"layout is 'HWC'; it must be one of 'NCHW', 'NHWC'"
    ):
        BUILD[name](layout="HWC")
