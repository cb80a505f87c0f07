"""Looking into models: layers, their sizes, their cost and their values."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.ad_checkpoint import checkpoint_name

from experiments.benchmarking import networks
from jaxcnn import conv2d, inspection, models, relu
from tests.models.parameters import drawn

MODELS = {
    "LeNet-5": (models.lenet5(28), (28, 28, 1)),
    "MNIST CNN": (models.small_cnn(28), (28, 28, 1)),
    "VGG": (models.vgg(32), (32, 32, 3)),
    "ResNet-20": (models.resnet20(), (32, 32, 3)),
    "MobileNet": (models.mobilenet(), (32, 32, 3)),
}


@pytest.fixture(autouse=True)
def strict_jax():
    """Not here: the parameters are float32, as they are by default."""


def multiply_adds_in_lax(name, model, shape):
    """Those of the convolutions and products in the same network, written with lax."""
    parameters = jax.eval_shape(model.init, jax.random.key(0))
    images = jax.ShapeDtypeStruct((2, *shape), jnp.float32)
    forward = networks.forward_of(name, "lax", model)
    traced = jax.make_jaxpr(forward)(parameters, images)
    return sum(map(multiply_adds_of, traced.jaxpr.eqns)) // 2


def multiply_adds_of(equation):
    (result, *_) = equation.outvars
    if equation.primitive.name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        outputs = equation.params["dimension_numbers"].rhs_spec[0]
        return math.prod(result.aval.shape) * math.prod(kernel) // kernel[outputs]
    if equation.primitive.name == "dot_general":
        return math.prod(result.aval.shape) * equation.invars[1].aval.shape[0]
    inner = jax.tree.leaves(
        [equation.params.get(name) for name in ("jaxpr", "call_jaxpr", "fun_jaxpr")],
        is_leaf=lambda each: hasattr(each, "eqns"),
    )
    return sum(multiply_adds_of(each) for jaxpr in inner for each in jaxpr.eqns)


@pytest.mark.parametrize("layout", ["NHWC", "NCHW"])
@pytest.mark.parametrize("name", MODELS)
def test_multiply_adds_are_those_of_the_same_network_written_with_lax(name, layout):
    model, (height, width, channels) = networks.model_of(name, layout), MODELS[name][1]
    shape = {"NHWC": (height, width, channels), "NCHW": (channels, height, width)}[layout]
    layers = inspection.layers(model, shape)
    expected = multiply_adds_in_lax(name, model, shape)
    assert sum(layer.multiply_adds for layer in layers) == expected


@pytest.mark.parametrize("name", MODELS)
def test_every_parameter_belongs_to_a_named_layer(name):
    model, shape = MODELS[name]
    found = inspection.layers(model, shape)
    assert all(layer.shape is not None for layer in found)
    leaves = jax.tree_util.tree_leaves_with_path(
        jax.eval_shape(model.init, jax.random.key(0))
    )
    assert sum(layer.parameters for layer in found) == sum(
        leaf.size for path, leaf in leaves if path[-1].key not in models.STATISTICS
    )


def test_activations_are_what_the_layers_give(rng):
    model = models.small_cnn(8)
    parameters = drawn(model, rng, np.float32)
    images = jnp.asarray(rng.random((3, 8, 8, 1)), "float32")
    values = inspection.activations(model, parameters, images)
    assert list(values) == ["conv1", "pool1", "conv2", "pool2", "dense1", "dense2"]
    first = relu(conv2d(images, **parameters["conv1"], padding=1, layout="NHWC"))
    np.testing.assert_array_equal(values["conv1"], first)
    np.testing.assert_array_equal(values["dense2"], model.apply(parameters, images))


def test_a_model_without_names_shows_its_parameters_alone():
    model = models.Model(
        lambda key: {"scale": {"w": jnp.ones(3), "running_mean": jnp.ones(3)}},
        lambda parameters, images: images * parameters["scale"]["w"],
    )
    assert inspection.layers(model, (2, 2, 3)) == [inspection.Layer("scale", None, 3, 0)]
    assert inspection.activations(model, model.init(None), jnp.ones((1, 2, 2, 3))) == {}


def test_a_model_of_ones_own_is_seen_by_the_names_it_gives():
    def apply(parameters, images):
        x = checkpoint_name(conv2d(images, **parameters["first"], layout="NHWC"), "first")
        return x.mean((1, 2))

    def init(key):
        return {"first": models.conv_parameters(key, 3, 2, 5, jnp.float32)}

    found = inspection.layers(models.Model(init, apply), (6, 7, 2))
    assert found == [inspection.Layer("first", (4, 5, 5), 95, 20 * 90)]
