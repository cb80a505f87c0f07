"""Networks of convolutions, poolings and dense layers: LeNet-5, a small CNN, a VGG."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Key

from jaxcnn.arguments import one_layout, whole
from jaxcnn.layers.activations import relu
from jaxcnn.layers.dense import flatten
from jaxcnn.models.blocks import (
    conv_parameters,
    conv_relu_layer,
    dense_layer,
    dense_parameters,
    pool_layer,
)
from jaxcnn.models.model import Bound, Images, Logits, Model, Parameters


def lenet5(
    image_size: int = 28,
    channels: int = 1,
    classes: int = 10,
    dtype: DTypeLike = jnp.float32,
    layout: str = "NHWC",
) -> Model:
    """LeNet-5, as in LeCun 1998 in spirit: with ReLU, max pooling and softmax.

    Layers: convolution 5×5 to 6, pooling 2×2, convolution 5×5 to 16, pooling 2×2, and
    dense layers of 120, 84 and ``classes``. The first convolution pads 28×28 images as
    LeCun padded them, to 32×32; images of 8×8 are too small for unpadded 5×5 windows, so
    there both convolutions keep the size.

    Args:
      image_size: 8, 28 or 32: the height and the width of the images.
      channels: of the images.
      classes: how many logits.
      dtype: of the parameters and the images.
      layout: of the images, ``"NHWC"`` or ``"NCHW"``. Weights are laid out to go with it,
        and the first dense layer has its rows in the order of :func:`jaxcnn.flatten`.

    Returns:
      The :class:`Model`.

    Raises:
      TypeError: when ``image_size`` is not an int.
      ValueError: when ``image_size`` or ``layout`` is another.

    Source: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to
    document recognition", Proceedings of the IEEE 86 (1998).

    >>> model = lenet5(image_size=28)
    >>> parameters = model.init(jax.random.key(0))
    >>> sum(leaf.size for leaf in jax.tree.leaves(parameters))
    61706
    >>> model.apply(parameters, jnp.zeros((2, 28, 28, 1))).shape
    (2, 10)
    """
    one_layout(layout)
    whole("image_size", image_size)
    padding_and_size = {8: ((2, 2), 2), 28: ((2, 0), 5), 32: ((0, 0), 5)}
    if image_size not in padding_and_size:
        raise ValueError(f"image_size is {image_size}; LeNet-5 is sized for 8, 28 or 32")
    paddings, last_size = padding_and_size[image_size]
    return Model(
        Bound(_init_lenet5, (last_size, channels, classes, jnp.dtype(dtype), layout)),
        Bound(_apply_lenet5, (paddings, layout)),
        layout=layout,
    )


def _init_lenet5(
    last_size: int,
    channels: int,
    classes: int,
    dtype: jnp.dtype,
    layout: str,
    key: Key[Array, ""],
) -> Parameters:
    keys = jax.random.split(key, 5)
    return {
        "conv1": conv_parameters(keys[0], 5, channels, 6, dtype, layout),
        "conv2": conv_parameters(keys[1], 5, 6, 16, dtype, layout),
        "dense1": dense_parameters(keys[2], last_size**2 * 16, 120, dtype),
        "dense2": dense_parameters(keys[3], 120, 84, dtype),
        "dense3": dense_parameters(keys[4], 84, classes, dtype),
    }


def _apply_lenet5(
    paddings: tuple[int, int], layout: str, parameters: Parameters, images: Images
) -> Logits:
    x = conv_relu_layer(parameters, "conv1", images, padding=paddings[0], layout=layout)
    x = pool_layer("pool1", x, layout)
    x = conv_relu_layer(parameters, "conv2", x, padding=paddings[1], layout=layout)
    x = flatten(pool_layer("pool2", x, layout))
    x = relu(dense_layer(parameters, "dense1", x))
    x = relu(dense_layer(parameters, "dense2", x))
    return dense_layer(parameters, "dense3", x)


def _must_be_a_multiple(image_size: Any, of: int) -> None:
    """The poolings make one pixel of so many, along each side."""
    whole("image_size", image_size)
    if image_size < of or image_size % of:
        raise ValueError(
            f"image_size is {image_size}; it must be a positive multiple of {of}"
        )


def small_cnn(
    image_size: int = 28,
    channels: int = 1,
    classes: int = 10,
    dtype: DTypeLike = jnp.float32,
    layout: str = "NHWC",
) -> Model:
    """A small convolutional network: the usual first one for MNIST.

    Layers: convolution 3×3 to 32, pooling 2×2, convolution 3×3 to 64, pooling 2×2, and
    dense layers of 256 and ``classes``; both convolutions keep the size.

    Args:
      image_size: the height and the width of the images, a multiple of 4.
      channels, classes, dtype, layout: as for :func:`lenet5`.

    Returns:
      The :class:`Model`.

    Raises:
      TypeError: when ``image_size`` is not an int.
      ValueError: when ``image_size`` is no positive multiple of 4, or ``layout`` is
        another.

    >>> model = small_cnn(image_size=8)
    >>> parameters = model.init(jax.random.key(0))
    >>> model.apply(parameters, jnp.zeros((2, 8, 8, 1))).shape
    (2, 10)
    """
    one_layout(layout)
    _must_be_a_multiple(image_size, 4)
    return Model(
        Bound(_init_small_cnn, (image_size, channels, classes, jnp.dtype(dtype), layout)),
        Bound(_apply_small_cnn, (layout,)),
        layout=layout,
    )


def _init_small_cnn(
    image_size: int,
    channels: int,
    classes: int,
    dtype: jnp.dtype,
    layout: str,
    key: Key[Array, ""],
) -> Parameters:
    keys = jax.random.split(key, 4)
    return {
        "conv1": conv_parameters(keys[0], 3, channels, 32, dtype, layout),
        "conv2": conv_parameters(keys[1], 3, 32, 64, dtype, layout),
        "dense1": dense_parameters(keys[2], (image_size // 4) ** 2 * 64, 256, dtype),
        "dense2": dense_parameters(keys[3], 256, classes, dtype),
    }


def _apply_small_cnn(layout: str, parameters: Parameters, images: Images) -> Logits:
    x = conv_relu_layer(parameters, "conv1", images, padding=1, layout=layout)
    x = pool_layer("pool1", x, layout)
    x = conv_relu_layer(parameters, "conv2", x, padding=1, layout=layout)
    x = pool_layer("pool2", x, layout)
    x = relu(dense_layer(parameters, "dense1", flatten(x)))
    return dense_layer(parameters, "dense2", x)


VGG_WIDTHS = (64, 64, 128, 128, 256, 256)


def vgg(
    image_size: int = 32,
    channels: int = 3,
    classes: int = 10,
    dtype: DTypeLike = jnp.float32,
    layout: str = "NHWC",
) -> Model:
    """A VGG-like network: 3×3 convolutions in pairs, and nothing else but pooling.

    Layers: two convolutions each to 64, 128 and 256 channels, a pooling 2×2 after each two,
    and dense layers of 256 and ``classes``.

    Args:
      image_size: the height and the width of the images, a multiple of 8.
      channels: of the images.
      classes: how many logits.
      dtype: of the parameters and the images.
      layout: of the images, ``"NHWC"`` or ``"NCHW"``. Weights are laid out to go with it,
        and the first dense layer has its rows in the order of :func:`jaxcnn.flatten`.

    Returns:
      The :class:`jaxcnn.models.Model`.

    Raises:
      TypeError: when ``image_size`` is not an int.
      ValueError: when ``image_size`` is no positive multiple of 8, or ``layout`` is
        another.

    Source: Simonyan and Zisserman (2015), arXiv:1409.1556.

    >>> model = vgg(image_size=8)
    >>> model.apply(model.init(jax.random.key(0)), jnp.zeros((2, 8, 8, 3))).shape
    (2, 10)
    """
    one_layout(layout)
    _must_be_a_multiple(image_size, 8)
    return Model(
        Bound(_init_vgg, (image_size, channels, classes, jnp.dtype(dtype), layout)),
        Bound(_apply_vgg, (layout,)),
        layout=layout,
    )


def _init_vgg(
    image_size: int,
    channels: int,
    classes: int,
    dtype: jnp.dtype,
    layout: str,
    key: Key[Array, ""],
) -> Parameters:
    keys = jax.random.split(key, 8)
    parameters, before = {}, channels
    for number, width in enumerate(VGG_WIDTHS):
        name = f"conv{number + 1}"
        parameters[name] = conv_parameters(keys[number], 3, before, width, dtype, layout)
        before = width
    size = (image_size // 8) ** 2 * before
    parameters["dense1"] = dense_parameters(keys[6], size, 256, dtype)
    parameters["dense2"] = dense_parameters(keys[7], 256, classes, dtype)
    return parameters


def _apply_vgg(layout: str, parameters: Parameters, images: Images) -> Logits:
    x = images
    for number in range(len(VGG_WIDTHS)):
        x = conv_relu_layer(parameters, f"conv{number + 1}", x, padding=1, layout=layout)
        if number % 2:
            x = pool_layer(f"pool{number // 2 + 1}", x, layout)
    x = relu(dense_layer(parameters, "dense1", flatten(x)))
    return dense_layer(parameters, "dense2", x)
