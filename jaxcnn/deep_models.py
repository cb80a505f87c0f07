"""Deeper networks, most of them with batch norm: a VGG, ResNet-20, a MobileNet.

As in :mod:`jaxcnn.models`, whose helpers they are made of. The running statistics of batch
norm are leaves of the parameters, too: :func:`jaxcnn.models.Model.forward` in training
returns their successors, and no gradient reaches them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike

from jaxcnn.convolution.conv import conv2d
from jaxcnn.layers.activations import relu
from jaxcnn.layers.dense import flatten
from jaxcnn.layers.normalization import batch_norm
from jaxcnn.models import (
    STATISTICS,
    Model,
    Parameters,
    conv_layer,
    conv_parameters,
    dense_layer,
    dense_parameters,
    pool_layer,
)
from jaxcnn.pooling.adaptive import global_avg_pool


def vgg(
    image_size: int = 32,
    channels: int = 3,
    classes: int = 10,
    dtype: DTypeLike = jnp.float32,
) -> Model:
    """A VGG-like network: 3×3 convolutions in pairs, and nothing else but pooling.

    Layers: two convolutions each to 64, 128 and 256 channels, a pooling 2×2 after each two,
    and dense layers of 256 and ``classes``.

    Args:
      image_size: the height and the width of the images, a multiple of 8.
      channels: of the images.
      classes: how many logits.
      dtype: of the parameters and the images.

    Returns:
      The :class:`jaxcnn.models.Model`.

    Raises:
      ValueError: when ``image_size`` is no positive multiple of 8.

    Source: Simonyan and Zisserman (2015), arXiv:1409.1556.

    >>> model = vgg(image_size=8)
    >>> model.apply(model.init(jax.random.key(0)), jnp.zeros((2, 8, 8, 3))).shape
    (2, 10)
    """
    if image_size < 8 or image_size % 8:
        raise ValueError(f"image_size is {image_size}; it must be a positive multiple of 8")
    widths = (64, 64, 128, 128, 256, 256)

    def init(key):
        keys = jax.random.split(key, 8)
        parameters, before = {}, channels
        for number, width in enumerate(widths):
            name = f"conv{number + 1}"
            parameters[name] = conv_parameters(keys[number], 3, before, width, dtype)
            before = width
        size = (image_size // 8) ** 2 * before
        parameters["dense1"] = dense_parameters(keys[6], size, 256, dtype)
        parameters["dense2"] = dense_parameters(keys[7], 256, classes, dtype)
        return parameters

    def apply(parameters, images):
        x = images
        for number in range(len(widths)):
            x = conv_layer(parameters, f"conv{number + 1}", x, padding=1)
            if number % 2:
                x = pool_layer(f"pool{number // 2 + 1}", x)
        x = relu(dense_layer(parameters, "dense1", flatten(x)))
        return dense_layer(parameters, "dense2", x)

    return Model(init, apply)


def resnet20(
    channels: int = 3,
    classes: int = 10,
    dtype: DTypeLike = jnp.float32,
    axis_name: str | None = None,
) -> Model:
    """ResNet-20, the residual network for CIFAR-10, of images of any size.

    Layers: a convolution to 16 channels, three blocks each of 16, 32 and 64 channels, the
    average of every channel and a dense layer. A block is two 3×3 convolutions that add to
    what they were given; the first of 32 and of 64 channels has a stride of 2, and a 1×1
    convolution takes its input along. Every convolution has a batch norm.

    Args:
      channels, classes, dtype: as for :func:`vgg`.
      axis_name: of batch norm in training, as for :func:`jaxcnn.batch_norm`.

    Returns:
      The :class:`jaxcnn.models.Model`.

    Source: He, Zhang, Ren and Sun (2016), arXiv:1512.03385, section 4.2; the shortcut is
    its option B.

    >>> parameters = jax.eval_shape(resnet20().init, jax.random.key(0))
    >>> f"{sum(leaf.size for leaf in jax.tree.leaves(parameters)):,}"
    '274,042'
    """
    blocks = [(16, 1)] * 3 + [(32, 2), (32, 1), (32, 1), (64, 2), (64, 1), (64, 1)]

    def init(key):
        keys = iter(jax.random.split(key, 2 + 3 * len(blocks)))
        parameters: dict[str, Any] = {
            "stem": _unit_parameters(next(keys), 3, channels, 16, dtype)
        }
        before = 16
        for number, (width, _) in enumerate(blocks):
            block = {
                "first": _unit_parameters(next(keys), 3, before, width, dtype),
                "second": _unit_parameters(next(keys), 3, width, width, dtype),
            }
            if width != before:
                block["along"] = _unit_parameters(next(keys), 1, before, width, dtype)
            parameters[f"block{number + 1}"] = block
            before = width
        parameters["dense"] = dense_parameters(next(keys), before, classes, dtype)
        return parameters

    def forward(parameters, images, unit):
        x = relu(unit("stem", parameters["stem"], images))
        for number, (_, stride) in enumerate(blocks):
            name = f"block{number + 1}"
            p = parameters[name]
            y = relu(unit(f"{name}/first", p["first"], x, stride=stride))
            y = unit(f"{name}/second", p["second"], y)
            if "along" in p:
                x = unit(f"{name}/along", p["along"], x, stride=stride)
            x = checkpoint_name(relu(x + y), name)
        return dense_layer(parameters, "dense", global_avg_pool(x, layout="NHWC"))

    return _with_statistics(init, forward, axis_name)


def mobilenet(
    channels: int = 3,
    classes: int = 10,
    dtype: DTypeLike = jnp.float32,
    axis_name: str | None = None,
) -> Model:
    """A MobileNet-like network: depthwise and 1×1 convolutions in turn.

    Layers: a 3×3 convolution to 32 channels; to 64, 128, 128, 256, 256 and 512 channels a
    3×3 depthwise convolution and a 1×1 convolution, every other pair with a stride of 2;
    the average of every channel and a dense layer. Every convolution has a batch norm.

    Args:
      channels, classes, dtype: as for :func:`vgg`; images may be of any size.
      axis_name: of batch norm in training, as for :func:`jaxcnn.batch_norm`.

    Returns:
      The :class:`jaxcnn.models.Model`.

    Source: Howard et al. (2017), arXiv:1704.04861.

    >>> parameters = jax.eval_shape(mobilenet().init, jax.random.key(0))
    >>> f"{sum(leaf.size for leaf in jax.tree.leaves(parameters)):,}"
    '278,730'
    """
    pairs = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]

    def init(key):
        keys = iter(jax.random.split(key, 2 + 2 * len(pairs)))
        parameters: dict[str, Any] = {
            "stem": _unit_parameters(next(keys), 3, channels, 32, dtype)
        }
        before = 32
        for number, (width, _) in enumerate(pairs):
            parameters[f"pair{number + 1}"] = {
                "depthwise": _unit_parameters(next(keys), 3, 1, before, dtype),
                "pointwise": _unit_parameters(next(keys), 1, before, width, dtype),
            }
            before = width
        parameters["dense"] = dense_parameters(next(keys), before, classes, dtype)
        return parameters

    def forward(parameters, images, unit):
        x = relu(unit("stem", parameters["stem"], images))
        for number, (_, stride) in enumerate(pairs):
            name = f"pair{number + 1}"
            p = parameters[name]
            each = x.shape[-1]
            x = unit(f"{name}/depthwise", p["depthwise"], x, stride=stride, groups=each)
            x = relu(unit(f"{name}/pointwise", p["pointwise"], relu(x)))
        return dense_layer(parameters, "dense", global_avg_pool(x, layout="NHWC"))

    return _with_statistics(init, forward, axis_name)


# --- A convolution and its batch norm -------------------------------------------------


def _unit_parameters(key, kernel_size, c_in, c_out, dtype):
    """Of a convolution, whose bias is the norm's shift b, and of its batch norm."""
    return {
        "kernel": conv_parameters(key, kernel_size, c_in, c_out, dtype)["w"],
        "w": jnp.ones(c_out, dtype),
        "b": jnp.zeros(c_out, dtype),
        "running_mean": jnp.zeros(c_out, dtype),
        "running_var": jnp.ones(c_out, dtype),
    }


def _with_statistics(init: Callable, forward: Callable, axis_name: str | None) -> Model:
    """The model whose ``forward`` calls ``unit(path, parameters, x, …)`` for every one."""

    def unit_of(training, successors):
        def unit(path, p, x, stride=1, groups=1):
            padding = p["kernel"].shape[0] // 2
            options = {"stride": stride, "padding": padding, "groups": groups}
            y = conv2d(x, p["kernel"], **options, layout="NHWC")
            y, mean, var = batch_norm(
                *(y, p["running_mean"], p["running_var"], p["w"], p["b"]),
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
