"""Convolutional networks as pairs of pure functions over a pytree of parameters.

A model is ``init(key) -> parameters`` and ``apply(parameters, images) -> logits``. The
parameters are a plain dictionary, so that optax, checkpoints and ``jax.tree`` all take
them as they are. Images are ``(B, H, W, C)``. What a layer gives carries the layer's name,
which is where its parameters are among all: see :mod:`jaxcnn.inspection`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.nn import initializers
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key, PyTree, Shaped

from jaxcnn.convolution.conv import conv2d
from jaxcnn.layers.activations import relu
from jaxcnn.layers.dense import dense, flatten
from jaxcnn.pooling.maximum import max_pool2d

Parameters = PyTree[Float[Array, "..."]]
Images = Shaped[Array, "B H W C"]
Logits = Float[Array, "B classes"]


STATISTICS = ("running_mean", "running_var")
"""The names of leaves that are no parameters: batch norm's running statistics."""


def with_statistics_of(parameters: Parameters, others: Parameters) -> Parameters:
    """The parameters, with the running statistics of others."""

    def chosen(path, ours, theirs):
        return theirs if path[-1].key in STATISTICS else ours

    return jax.tree_util.tree_map_with_path(chosen, parameters, others)


class Model(NamedTuple):
    """A network as two pure functions.

    Attributes:
      init: from a random key to fresh parameters.
      apply: from parameters and images to logits.
      train: the same in training, where that is another function, and the parameters with
        whatever statistics are among them advanced.
    """

    init: Callable[[Key[Array, ""]], Parameters]
    apply: Callable[[Parameters, Images], Logits]
    train: Callable[[Parameters, Images], tuple[Logits, Parameters]] | None = None

    def forward(
        self, parameters: Parameters, images: Images
    ) -> tuple[Logits, Parameters | None]:
        """The logits in training, and parameters with statistics advanced, if any are."""
        if self.train is None:
            return self.apply(parameters, images), None
        return self.train(parameters, images)


def standardized(model: Model, mean: Sequence[float], std: Sequence[float]) -> Model:
    """The model for images as they are stored: standardized, channel by channel.

    Args:
      model: of images x̂ = (x − mean)/std.
      mean, std: one for each channel, or one for all.

    Returns:
      The :class:`Model` of images x, numbers of any type.

    Raises:
      ValueError: when an entry of ``std`` is not positive.

    >>> model = standardized(lenet5(image_size=8), mean=(0.0,), std=(16.0,))
    >>> images = jnp.full((2, 8, 8, 1), 16, jnp.uint8)
    >>> model.apply(model.init(jax.random.key(0)), images).shape
    (2, 10)
    """
    if not all(each > 0 for each in std):
        raise ValueError(f"std is {std!r}; every entry must be positive")

    def of_stored(function):
        def standardizing(parameters: Parameters, images: Images):
            dtype = jax.tree.leaves(parameters)[0].dtype
            of_channels, by = (jnp.asarray([[[each]]], dtype) for each in (mean, std))
            return function(parameters, (images.astype(dtype) - of_channels) / by)

        return standardizing

    train = None if model.train is None else of_stored(model.train)
    return Model(model.init, of_stored(model.apply), train)


def in_precision(model: Model, dtype: DTypeLike) -> Model:
    """The model computed in another, lower precision: mixed-precision training.

    Parameters stay as they are and are rounded for every call; so their gradients, and
    what an optimizer makes of them, are of their own dtype. Running statistics are not
    rounded, and logits come back in the parameters' dtype, for the loss to be taken in.

    Args:
      model: any.
      dtype: what parameters and images are cast to, such as ``jnp.bfloat16``.

    Returns:
      The :class:`Model`, whose ``init`` is that of ``model``.

    Source: Micikevicius et al. (2018), arXiv:1710.03740.

    >>> model = in_precision(lenet5(image_size=8), jnp.bfloat16)
    >>> parameters = model.init(jax.random.key(0))
    >>> logits = model.apply(parameters, jnp.zeros((2, 8, 8, 1)))
    >>> parameters["conv1"]["w"].dtype, logits.dtype
    (dtype('float32'), dtype('float32'))
    """

    def rounded(parameters):
        return jax.tree_util.tree_map_with_path(
            lambda path, p: p if path[-1].key in STATISTICS else p.astype(dtype), parameters
        )

    def apply(parameters, images):
        wide = jax.tree.leaves(parameters)[0].dtype
        return model.apply(rounded(parameters), images.astype(dtype)).astype(wide)

    def train(parameters, images):
        wide = jax.tree.leaves(parameters)[0].dtype
        logits, advanced = model.forward(rounded(parameters), images.astype(dtype))
        return logits.astype(wide), with_statistics_of(parameters, advanced)

    return Model(model.init, apply, None if model.train is None else train)


def lenet5(
    image_size: int = 28,
    channels: int = 1,
    classes: int = 10,
    dtype: DTypeLike = jnp.float32,
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

    Returns:
      The :class:`Model`.

    Raises:
      ValueError: when ``image_size`` is another.

    Source: LeCun, Bottou, Bengio and Haffner, "Gradient-based learning applied to
    document recognition", Proceedings of the IEEE 86 (1998).

    >>> model = lenet5(image_size=28)
    >>> parameters = model.init(jax.random.key(0))
    >>> sum(leaf.size for leaf in jax.tree.leaves(parameters))
    61706
    >>> model.apply(parameters, jnp.zeros((2, 28, 28, 1))).shape
    (2, 10)
    """
    padding_and_size = {8: ((2, 2), 2), 28: ((2, 0), 5), 32: ((0, 0), 5)}
    if image_size not in padding_and_size:
        raise ValueError(f"image_size is {image_size}; LeNet-5 is sized for 8, 28 or 32")
    (padding_1, padding_2), last_size = padding_and_size[image_size]

    def init(key):
        keys = jax.random.split(key, 5)
        return {
            "conv1": conv_parameters(keys[0], 5, channels, 6, dtype),
            "conv2": conv_parameters(keys[1], 5, 6, 16, dtype),
            "dense1": dense_parameters(keys[2], last_size**2 * 16, 120, dtype),
            "dense2": dense_parameters(keys[3], 120, 84, dtype),
            "dense3": dense_parameters(keys[4], 84, classes, dtype),
        }

    def apply(parameters: Parameters, images: Images) -> Logits:
        x = conv_layer(parameters, "conv1", images, padding=padding_1)
        x = pool_layer("pool1", x)
        x = conv_layer(parameters, "conv2", x, padding=padding_2)
        x = flatten(pool_layer("pool2", x))
        x = relu(dense_layer(parameters, "dense1", x))
        x = relu(dense_layer(parameters, "dense2", x))
        return dense_layer(parameters, "dense3", x)

    return Model(init, apply)


def small_cnn(
    image_size: int = 28,
    channels: int = 1,
    classes: int = 10,
    dtype: DTypeLike = jnp.float32,
) -> Model:
    """A small convolutional network: the usual first one for MNIST.

    Layers: convolution 3×3 to 32, pooling 2×2, convolution 3×3 to 64, pooling 2×2, and
    dense layers of 256 and ``classes``; both convolutions keep the size.

    Args:
      image_size: the height and the width of the images, a multiple of 4.
      channels, classes, dtype: as for :func:`lenet5`.

    Returns:
      The :class:`Model`.

    Raises:
      ValueError: when ``image_size`` is no positive multiple of 4.

    >>> model = small_cnn(image_size=8)
    >>> parameters = model.init(jax.random.key(0))
    >>> model.apply(parameters, jnp.zeros((2, 8, 8, 1))).shape
    (2, 10)
    """
    if image_size < 4 or image_size % 4:
        raise ValueError(f"image_size is {image_size}; it must be a positive multiple of 4")

    def init(key):
        keys = jax.random.split(key, 4)
        return {
            "conv1": conv_parameters(keys[0], 3, channels, 32, dtype),
            "conv2": conv_parameters(keys[1], 3, 32, 64, dtype),
            "dense1": dense_parameters(keys[2], (image_size // 4) ** 2 * 64, 256, dtype),
            "dense2": dense_parameters(keys[3], 256, classes, dtype),
        }

    def apply(parameters: Parameters, images: Images) -> Logits:
        x = pool_layer("pool1", conv_layer(parameters, "conv1", images, padding=1))
        x = pool_layer("pool2", conv_layer(parameters, "conv2", x, padding=1))
        x = relu(dense_layer(parameters, "dense1", flatten(x)))
        return dense_layer(parameters, "dense2", x)

    return Model(init, apply)


# --- Layers and their parameters ------------------------------------------------------


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
