"""The benchmark's networks in PyTorch."""

# pyright: reportMissingImports=false

from collections.abc import Callable
from itertools import pairwise

from torch import nn

from experiments.benchmarking.cases import CLASSES


def network(name: str) -> nn.Module:
    return MAKE[name]()


def lenet5() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        *dense(400, 120, 84),
    )


def mnist_cnn() -> nn.Module:
    return nn.Sequential(*plain(1, 32), *plain(32, 64), nn.Flatten(), *dense(3136, 256))


def vgg() -> nn.Module:
    return nn.Sequential(
        *plain(3, 64, 64),
        *plain(64, 128, 128),
        *plain(128, 256, 256),
        nn.Flatten(),
        *dense(4096, 256),
    )


def resnet20() -> nn.Module:
    widths = [16, *[16] * 3, *[32] * 3, *[64] * 3]
    blocks = [
        Residual(before, after, 1 if before == after else 2)
        for before, after in pairwise(widths)
    ]
    return nn.Sequential(*normalized(3, 16, 3), nn.ReLU(), *blocks, *averaged(64))


def mobilenet() -> nn.Module:
    widths, strides = [32, 64, 128, 128, 256, 256, 512], [1, 2, 1, 2, 1, 2]
    layers = [*normalized(3, 32, 3), nn.ReLU()]
    for before, after, stride in zip(widths, widths[1:], strides, strict=False):
        layers += [*normalized(before, before, 3, stride, groups=before), nn.ReLU()]
        layers += [*normalized(before, after, 1), nn.ReLU()]
    return nn.Sequential(*layers, *averaged(512))


MAKE: dict[str, Callable[[], nn.Module]] = {
    "LeNet-5": lenet5,
    "MNIST CNN": mnist_cnn,
    "VGG": vgg,
    "ResNet-20": resnet20,
    "MobileNet": mobilenet,
}


class Residual(nn.Module):
    """Two convolutions beside a shortcut, a projection where the shape changes."""

    def __init__(self, before: int, after: int, stride: int):
        super().__init__()
        self.residual = nn.Sequential(
            *normalized(before, after, 3, stride),
            nn.ReLU(),
            *normalized(after, after, 3),
        )
        projection = normalized(before, after, 1, stride) if before != after else []
        self.shortcut = nn.Sequential(*projection)

    def forward(self, x):
        return nn.functional.relu(self.residual(x) + self.shortcut(x))


def plain(*widths: int) -> list[nn.Module]:
    """3×3 convolutions with ReLU, then a pooling."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Conv2d(before, after, 3, padding=1), nn.ReLU()]
    return [*layers, nn.MaxPool2d(2)]


def normalized(before, after, kernel, stride=1, groups=1) -> list[nn.Module]:
    """A convolution and its batch normalization, which takes the place of a bias."""
    convolution = nn.Conv2d(
        before, after, kernel, stride, kernel // 2, groups=groups, bias=False
    )
    return [convolution, nn.BatchNorm2d(after)]


def dense(*widths: int) -> list[nn.Module]:
    """Fully connected layers with ReLU, then one to the classes."""
    layers: list[nn.Module] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.ReLU()]
    return [*layers, nn.Linear(widths[-1], CLASSES)]


def averaged(width: int) -> list[nn.Module]:
    """Global average pooling, then one dense layer to the classes."""
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES)]
