"""Convolutional networks as pairs of pure functions over a pytree of parameters.

File by file:

    model       what a model is; models for stored images, and in another precision
    plain       LeNet-5, a small CNN, a VGG
    normalized  with batch norm: ResNet-20, a MobileNet
    blocks      the layers that these are made of, and their parameters
"""

from jaxcnn.models.blocks import (
    conv_parameters,
    conv_relu_layer,
    dense_layer,
    dense_parameters,
    pool_layer,
)
from jaxcnn.models.model import (
    STATISTICS,
    Images,
    Logits,
    Model,
    Parameters,
    in_precision,
    standardized,
    with_statistics_of,
)
from jaxcnn.models.normalized import mobilenet, resnet20
from jaxcnn.models.plain import lenet5, small_cnn, vgg

__all__ = [
    "STATISTICS",
    "Images",
    "Logits",
    "Model",
    "Parameters",
    "conv_parameters",
    "conv_relu_layer",
    "dense_layer",
    "dense_parameters",
    "in_precision",
    "lenet5",
    "mobilenet",
    "pool_layer",
    "resnet20",
    "small_cnn",
    "standardized",
    "vgg",
    "with_statistics_of",
]
