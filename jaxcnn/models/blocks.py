"""The layers that the models are made of, and their parameters.

Each layer takes the parameters of the whole model and its own name among them, and gives
its result that name.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.nn import initializers

from jaxcnn.convolution.conv import conv2d
from jaxcnn.layers.activations import relu
from jaxcnn.layers.dense import dense
from jaxcnn.layers.normalization import batch_norm
from jaxcnn.models.model import STATISTICS, Model, Parameters
from jaxcnn.pooling.maximum import max_pool2d


def conv_layer(parameters, name, x, padding):
    y = relu(conv2d(x, **parameters[name], padding=padding, layout="NHWC"))
    return checkpoint_name(y, name)


def pool_layer(name, x):
    return checkpoint_name(max_pool2d(x, 2, layout="NHWC"), name)


def dense_layer(parameters, name, x):
    return checkpoint_name(dense(x, **parameters[name]), name)


def conv_parameters(key, kernel_size, c_in, c_out, dtype):
    """He initialisation, which keeps the variance through ReLU; biases start at zero."""
    shape = (kernel_size, kernel_size, c_in, c_out)
    return {
        "w": initializers.he_normal()(key, shape, dtype),
        "b": jnp.zeros((c_out,), dtype),
    }


def dense_parameters(key, c_in, c_out, dtype):
    return {
        "w": initializers.he_normal()(key, (c_in, c_out), dtype),
        "b": jnp.zeros((c_out,), dtype),
    }


# --- A convolution and its batch norm -------------------------------------------------


def unit_parameters(key, kernel_size, c_in, c_out, dtype):
    """Of a convolution, whose bias is the norm's shift b, and of its batch norm."""
    return {
        "kernel": conv_parameters(key, kernel_size, c_in, c_out, dtype)["w"],
        "w": jnp.ones(c_out, dtype),
        "b": jnp.zeros(c_out, dtype),
        "running_mean": jnp.zeros(c_out, dtype),
        "running_var": jnp.ones(c_out, dtype),
    }


def with_statistics(init: Callable, forward: Callable, axis_name: str | None) -> Model:
    """The model whose ``forward`` calls ``unit(path, parameters, x, …)`` for every one."""

    def unit_of(training, successors):
        def unit(path, p, x, stride=1, groups=1):
            padding = p["kernel"].shape[0] // 2
            options = {"stride": stride, "padding": padding, "groups": groups}
            y = conv2d(x, p["kernel"], **options, layout="NHWC")
            y, mean, var = batch_norm(
                y,
                p["running_mean"],
                p["running_var"],
                p["w"],
                p["b"],
                training=training,
                axis_name=axis_name,
                layout="NHWC",
            )
            successors[path] = {"running_mean": mean, "running_var": var}
            return checkpoint_name(y, path)

        return unit

    def apply(parameters, images):
        return forward(parameters, images, unit_of(False, {}))

    def train(parameters, images):
        successors = {}
        logits = forward(parameters, images, unit_of(True, successors))
        return logits, _replaced(parameters, successors)

    return Model(init, apply, train)


def _replaced(parameters: Parameters, successors: dict[str, dict]) -> Parameters:
    """The parameters, with other statistics."""

    def one(path, leaf):
        *unit, name = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        return successors["/".join(unit)][name] if name in STATISTICS else leaf

    return jax.tree_util.tree_map_with_path(one, parameters)
