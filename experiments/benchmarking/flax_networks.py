"""The benchmark's networks in flax linen, whose images have their channels last."""

# pyright: reportMissingImports=false

from collections.abc import Callable

import jax
from flax import linen as nn

from experiments.benchmarking.cases import CLASSES
from experiments.benchmarking.networks import (
    DECAY,
    EPSILON,
    State,
    fresh_state,
    image_batch,
    lax_cross_entropy,
)


class LeNet5(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = max_pool(nn.relu(nn.Conv(6, (5, 5))(x)))
        x = max_pool(nn.relu(nn.Conv(16, (5, 5), padding="VALID")(x)))
        x = nn.relu(nn.Dense(120)(x.reshape(len(x), -1)))
        x = nn.relu(nn.Dense(84)(x))
        return nn.Dense(CLASSES)(x)


class MnistCNN(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = max_pool(nn.relu(nn.Conv(32, (3, 3))(x)))
        x = max_pool(nn.relu(nn.Conv(64, (3, 3))(x)))
        x = nn.relu(nn.Dense(256)(x.reshape(len(x), -1)))
        return nn.Dense(CLASSES)(x)


class VGG(nn.Module):
    @nn.compact
    def __call__(self, x):
        for width in 64, 128, 256:
            x = nn.relu(nn.Conv(width, (3, 3))(x))
            x = max_pool(nn.relu(nn.Conv(width, (3, 3))(x)))
        x = nn.relu(nn.Dense(256)(x.reshape(len(x), -1)))
        return nn.Dense(CLASSES)(x)


class Normalized(nn.Module):
    """A convolution and its batch normalization, which takes the place of a bias."""

    width: int
    kernel: int
    stride: int = 1
    groups: int = 1

    @nn.compact
    def __call__(self, x):
        kernel, stride = (self.kernel,) * 2, (self.stride,) * 2
        x = nn.Conv(
            self.width,
            kernel,
            stride,
            padding=self.kernel // 2,
            feature_group_count=self.groups,
            use_bias=False,
        )(x)
        return nn.BatchNorm(use_running_average=False, momentum=DECAY, epsilon=EPSILON)(x)


class ResNet20(nn.Module):
    @nn.compact
    def __call__(self, x):
        x, before = nn.relu(Normalized(16, 3)(x)), 16
        for width in 16, 16, 16, 32, 32, 32, 64, 64, 64:
            stride = 1 if width == before else 2
            y = nn.relu(Normalized(width, 3, stride)(x))
            y = Normalized(width, 3)(y)
            if width != before:
                x = Normalized(width, 1, stride)(x)
            x, before = nn.relu(x + y), width
        return nn.Dense(CLASSES)(x.mean((1, 2)))


class MobileNet(nn.Module):
    @nn.compact
    def __call__(self, x):
        x, before = nn.relu(Normalized(32, 3)(x)), 32
        widths_and_strides = (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)
        for width, stride in widths_and_strides:
            x = nn.relu(Normalized(before, 3, stride, before)(x))
            x, before = nn.relu(Normalized(width, 1)(x)), width
        return nn.Dense(CLASSES)(x.mean((1, 2)))


def max_pool(x):
    return nn.max_pool(x, (2, 2), (2, 2))


MODULES = {
    "LeNet-5": LeNet5,
    "MNIST CNN": MnistCNN,
    "VGG": VGG,
    "ResNet-20": ResNet20,
    "MobileNet": MobileNet,
}


def initial_state(name: str) -> State:
    images, _ = image_batch(name, "NHWC", 2)
    variables = jax.jit(MODULES[name]().init)(jax.random.key(0), images)
    return fresh_state(variables["params"], variables.get("batch_stats", {}))


def loss_of(name: str) -> Callable:
    """As in :mod:`experiments.benchmarking.networks`."""

    def loss(parameters, statistics, images, labels):
        variables = {"params": parameters, "batch_stats": statistics}
        logits, updated = MODULES[name]().apply(variables, images, mutable=["batch_stats"])
        return lax_cross_entropy(logits, labels).mean(), updated.get("batch_stats", {})

    return loss
