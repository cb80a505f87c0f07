"""The layers that the models are made of, and their parameters.

Each layer takes the parameters of the whole model and its own name among them, and gives
its result that name.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.nn import initializers
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key

from jaxcnn.convolution.conv import conv2d
from jaxcnn.layers.activations import relu
from jaxcnn.layers.dense import dense
from jaxcnn.layers.normalization import batch_norm
from jaxcnn.layout import channels_last, spatial_size, weight_layout
from jaxcnn.models.model import (
    STATISTICS,
    Bound,
    Images,
    Logits,
    Model,
    Parameters,
)
from jaxcnn.pooling.maximum import max_pool2d

Rows = Float[Array, "B _"]


def conv_relu_layer(
    parameters: Parameters, name: str, x: Images, padding: int, layout: str = "NHWC"
) -> Images:
    y = relu(conv2d(x, **parameters[name], padding=padding, layout=layout))
    return checkpoint_name(y, name)


def pool_layer(name: str, x: Images, layout: str = "NHWC") -> Images:
    return checkpoint_name(max_pool2d(x, 2, layout=layout), name)


def dense_layer(parameters: Parameters, name: str, x: Rows) -> Rows:
    return checkpoint_name(dense(x, **parameters[name]), name)


def conv_parameters(
    key: Key[Array, ""],
    kernel_size: int,
    c_in: int,
    c_out: int,
    dtype: DTypeLike,
    layout: str = "NHWC",
) -> dict[str, Array]:
    """He initialisation, which keeps the variance through ReLU; biases start at zero.

    The same key gives the same weights in both layouts of images.
    """
    w = initializers.he_normal()(key, (kernel_size, kernel_size, c_in, c_out), dtype)
    if not channels_last(layout):
        w = w.transpose(3, 2, 0, 1)
    return {"w": w, "b": jnp.zeros((c_out,), dtype)}


def dense_parameters(
    key: Key[Array, ""], c_in: int, c_out: int, dtype: DTypeLike
) -> dict[str, Array]:
    return {
        "w": initializers.he_normal()(key, (c_in, c_out), dtype),
        "b": jnp.zeros((c_out,), dtype),
    }


# --- A convolution and its batch norm -------------------------------------------------


def unit_parameters(
    key: Key[Array, ""],
    kernel_size: int,
    c_in: int,
    c_out: int,
    dtype: DTypeLike,
    layout: str = "NHWC",
) -> dict[str, Array]:
    """Of a convolution, whose bias is the norm's shift b, and of its batch norm."""
    return {
        "kernel": conv_parameters(key, kernel_size, c_in, c_out, dtype, layout)["w"],
        "w": jnp.ones(c_out, dtype),
        "b": jnp.zeros(c_out, dtype),
        "running_mean": jnp.zeros(c_out, dtype),
        "running_var": jnp.ones(c_out, dtype),
    }


def with_statistics(
    init: Bound, forward: Callable, axis_name: str | None, layout: str = "NHWC"
) -> Model:
    """The model whose ``forward`` calls ``unit(path, parameters, x, …)`` for every one.

    Args:
      init: of the model.
      forward: of parameters, images, unit and the layout; defined in a module.
      axis_name, layout: of batch norm, and of the images.
    """
    known = (forward, axis_name, layout)
    return Model(init, Bound(_apply, known), Bound(_train, known), layout)


def _apply(
    forward: Callable,
    axis_name: str | None,
    layout: str,
    parameters: Parameters,
    images: Images,
) -> Logits:
    unit = _unit_of(axis_name, layout, training=False, successors={})
    return forward(parameters, images, unit, layout)


def _train(
    forward: Callable,
    axis_name: str | None,
    layout: str,
    parameters: Parameters,
    images: Images,
) -> tuple[Logits, Parameters]:
    successors = {}
    unit = _unit_of(axis_name, layout, training=True, successors=successors)
    logits = forward(parameters, images, unit, layout)
    return logits, _replaced(parameters, successors)


def _unit_of(
    axis_name: str | None, layout: str, *, training: bool, successors: dict[str, dict]
) -> Callable:
    """A convolution and its batch norm, which leaves its statistics in ``successors``."""

    def unit(path, p, x, stride=1, groups=1):
        kernel_size, _ = spatial_size(p["kernel"], weight_layout(layout))
        y = conv2d(
            x,
            p["kernel"],
            stride=stride,
            padding=kernel_size // 2,
            groups=groups,
            layout=layout,
        )
        y, mean, var = batch_norm(
            y,
            p["running_mean"],
            p["running_var"],
            p["w"],
            p["b"],
            training=training,
            axis_name=axis_name,
            layout=layout,
        )
        successors[path] = {"running_mean": mean, "running_var": var}
        return checkpoint_name(y, path)

    return unit


def _replaced(parameters: Parameters, successors: dict[str, dict]) -> Parameters:
    """The parameters, with other statistics."""

    def one(path, leaf):
        *unit, name = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        return successors["/".join(unit)][name] if name in STATISTICS else leaf

    return jax.tree_util.tree_map_with_path(one, parameters)
