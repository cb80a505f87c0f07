"""Networks with batch norm: ResNet-20 and a MobileNet.

The running statistics of batch norm are leaves of the parameters, too:
:func:`jaxcnn.models.Model.apply_training` returns their successors, and no gradient reaches
them.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike
from jaxtyping import Array, Key

from jaxcnn.arguments import one_layout
from jaxcnn.layers.activations import relu
from jaxcnn.models.blocks import (
    dense_layer,
    dense_parameters,
    unit_parameters,
    with_statistics,
)
from jaxcnn.models.model import Bound, Images, Logits, Model, Parameters
from jaxcnn.pooling.adaptive import global_avg_pool

BLOCKS = ((16, 1),) * 3 + ((32, 2), (32, 1), (32, 1), (64, 2), (64, 1), (64, 1))
"""Of ResNet-20: the channels and the stride of each."""


def resnet20(
    channels: int = 3,
    classes: int = 10,
    dtype: DTypeLike = jnp.float32,
    axis_name: str | None = None,
    layout: str = "NHWC",
) -> Model:
    """ResNet-20, the residual network for CIFAR-10, of images of any size.

    Layers: a convolution to 16 channels, three blocks each of 16, 32 and 64 channels, the
    average of every channel and a dense layer. A block is two 3×3 convolutions that add to
    what they were given; the first of 32 and of 64 channels has a stride of 2, and a 1×1
    convolution takes its input along. Every convolution has a batch norm.

    Args:
      channels, classes, dtype, layout: as for :func:`vgg`.
      axis_name: of batch norm in training, as for :func:`jaxcnn.batch_norm`.

    Returns:
      The :class:`jaxcnn.models.Model`.

    Raises:
      ValueError: when ``layout`` is another.

    Source: He, Zhang, Ren and Sun (2016), arXiv:1512.03385, section 4.2; the shortcut is
    its option B.

    >>> parameters = jax.eval_shape(resnet20().init, jax.random.key(0))
    >>> f"{sum(leaf.size for leaf in jax.tree.leaves(parameters)):,}"
    '274,042'
    """
    one_layout(layout)
    known = (channels, classes, jnp.dtype(dtype), layout)
    return with_statistics(Bound(_init_resnet20, known), _resnet20, axis_name, layout)


def _init_resnet20(
    channels: int, classes: int, dtype: jnp.dtype, layout: str, key: Key[Array, ""]
) -> Parameters:
    keys = iter(jax.random.split(key, 2 + 3 * len(BLOCKS)))
    parameters: dict[str, Any] = {
        "stem": unit_parameters(next(keys), 3, channels, 16, dtype, layout)
    }
    before = 16
    for number, (width, _) in enumerate(BLOCKS):
        block = {
            "first": unit_parameters(next(keys), 3, before, width, dtype, layout),
            "second": unit_parameters(next(keys), 3, width, width, dtype, layout),
        }
        if width != before:
            block["along"] = unit_parameters(next(keys), 1, before, width, dtype, layout)
        parameters[f"block{number + 1}"] = block
        before = width
    parameters["dense"] = dense_parameters(next(keys), before, classes, dtype)
    return parameters


def _resnet20(
    parameters: Parameters, images: Images, unit: Callable, layout: str
) -> Logits:
    x = relu(unit("stem", parameters["stem"], images))
    for number, (_, stride) in enumerate(BLOCKS):
        name = f"block{number + 1}"
        p = parameters[name]
        y = relu(unit(f"{name}/first", p["first"], x, stride=stride))
        y = unit(f"{name}/second", p["second"], y)
        if "along" in p:
            x = unit(f"{name}/along", p["along"], x, stride=stride)
        x = checkpoint_name(relu(x + y), name)
    return dense_layer(parameters, "dense", global_avg_pool(x, layout=layout))


PAIRS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2))
"""Of a MobileNet: the channels and the stride of each pair of convolutions."""


def mobilenet(
    channels: int = 3,
    classes: int = 10,
    dtype: DTypeLike = jnp.float32,
    axis_name: str | None = None,
    layout: str = "NHWC",
) -> Model:
    """A MobileNet-like network: depthwise and 1×1 convolutions in turn.

    Layers: a 3×3 convolution to 32 channels; to 64, 128, 128, 256, 256 and 512 channels a
    3×3 depthwise convolution and a 1×1 convolution, every other pair with a stride of 2;
    the average of every channel and a dense layer. Every convolution has a batch norm.

    Args:
      channels, classes, dtype, layout: as for :func:`vgg`; images may be of any size.
      axis_name: of batch norm in training, as for :func:`jaxcnn.batch_norm`.

    Returns:
      The :class:`jaxcnn.models.Model`.

    Raises:
      ValueError: when ``layout`` is another.

    Source: Howard et al. (2017), arXiv:1704.04861.

    >>> parameters = jax.eval_shape(mobilenet().init, jax.random.key(0))
    >>> f"{sum(leaf.size for leaf in jax.tree.leaves(parameters)):,}"
    '278,730'
    """
    one_layout(layout)
    known = (channels, classes, jnp.dtype(dtype), layout)
    return with_statistics(Bound(_init_mobilenet, known), _mobilenet, axis_name, layout)


def _init_mobilenet(
    channels: int, classes: int, dtype: jnp.dtype, layout: str, key: Key[Array, ""]
) -> Parameters:
    keys = iter(jax.random.split(key, 2 + 2 * len(PAIRS)))
    parameters: dict[str, Any] = {
        "stem": unit_parameters(next(keys), 3, channels, 32, dtype, layout)
    }
    before = 32
    for number, (width, _) in enumerate(PAIRS):
        parameters[f"pair{number + 1}"] = {
            "depthwise": unit_parameters(next(keys), 3, 1, before, dtype, layout),
            "pointwise": unit_parameters(next(keys), 1, before, width, dtype, layout),
        }
        before = width
    parameters["dense"] = dense_parameters(next(keys), before, classes, dtype)
    return parameters


def _mobilenet(
    parameters: Parameters, images: Images, unit: Callable, layout: str
) -> Logits:
    x = relu(unit("stem", parameters["stem"], images))
    for number, (_, stride) in enumerate(PAIRS):
        name = f"pair{number + 1}"
        p = parameters[name]
        each = x.shape[layout.index("C")]
        x = unit(f"{name}/depthwise", p["depthwise"], x, stride=stride, groups=each)
        x = relu(unit(f"{name}/pointwise", p["pointwise"], relu(x)))
    return dense_layer(parameters, "dense", global_avg_pool(x, layout=layout))
