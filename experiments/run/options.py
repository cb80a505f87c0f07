"""What a training run is: its options, and what of them a run folder remembers."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import jax.numpy as jnp
import tyro

from experiments.data.sets import Description
from experiments.run.augmentation import Augmentation
from experiments.run.optimization import Optimization
from jaxcnn import models
from jaxcnn.models import Model

MODELS: dict[str, Callable[[int, int, str | None], Model]] = {
    "lenet5": lambda size, channels, _: models.lenet5(size, channels),
    "small-cnn": lambda size, channels, _: models.small_cnn(size, channels),
    "vgg": lambda size, channels, _: models.vgg(size, channels),
    "resnet20": lambda _, channels, axis: models.resnet20(channels, axis_name=axis),
    "mobilenet": lambda _, channels, axis: models.mobilenet(channels, axis_name=axis),
}
"""Of images of this size and so many channels, on devices along this axis of a mesh."""

RECIPES = {
    "digits": {"model": "small-cnn", "epochs": 40, "batch_size": 32},
    "mnist": {"model": "lenet5", "epochs": 12, "batch_size": 128},
    "fashion-mnist": {"model": "small-cnn", "epochs": 12, "batch_size": 128},
    "cifar10": {"model": "resnet20", "epochs": 12, "batch_size": 128},
}
"""What the options left open are for each data set."""


@dataclasses.dataclass(frozen=True)
class Options:
    """What decides the result of a run.

    Raises:
      ValueError: when an option is out of its range.
    """

    dataset: Literal["digits", "mnist", "fashion-mnist", "cifar10"] = "digits"
    """scikit-learn's 1,797 scanned digits (8×8 pixels), MNIST or Fashion-MNIST (28×28), or
    CIFAR-10 (32×32, in colour)."""
    data_dir: Path | None = None
    """Where the data set's files are; without it they are fetched. Digits need none."""
    validate: float = 0.0
    """If not 0, which part of the training set is kept from training, and evaluated in the
    place of the test set: what to choose options by."""
    model: Literal["auto", "lenet5", "small-cnn", "vgg", "resnet20", "mobilenet"] = "auto"
    """LeNet-5; convolutions of 32 and 64 channels with a dense layer of 256; or a deeper
    one. Auto is lenet5 for MNIST, resnet20 for CIFAR-10, and small-cnn for the others."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """What the model computes in; parameters and their updates are float32."""
    epochs: int = 0
    """How often to go through the training set; 0 is 40 for digits, 12 for the others."""
    batch_size: int = 0
    """Images in one step; 0 is 32 for digits and 128 for the others."""
    optimization: tyro.conf.OmitArgPrefixes[Optimization] = dataclasses.field(
        default_factory=Optimization
    )
    """How the parameters follow their gradients."""
    augment: Augmentation = dataclasses.field(default_factory=Augmentation)
    """What is done to the training images at random."""
    seed: int = 0
    """Of the first parameters and of the shuffling, below 2^32: the same seed, the same
    run."""

    def __post_init__(self):
        for name in ("epochs", "batch_size", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must not be negative"
                )
        if self.seed >= 2**32:  # JAX would take the remainder
            raise ValueError(f"seed is {self.seed}; it must be below 2^32")
        if not 0 <= self.validate < 1:
            raise ValueError(f"validate is {self.validate}; it must be from 0 to below 1")

    def completed(self) -> "Options":
        """The options, with what was left to the data set filled in."""
        left_open = {"model": "auto", "epochs": 0, "batch_size": 0}
        filled = {
            name: value
            for name, value in RECIPES[self.dataset].items()
            if getattr(self, name) == left_open[name]
        }
        return dataclasses.replace(self, **filled)

    def to_json(self) -> dict[str, Any]:
        content = dataclasses.asdict(self)
        return content | {"data_dir": self.data_dir and str(self.data_dir.absolute())}

    def deciding(self) -> dict[str, Any]:
        """By their full names, all but where the data are, which may move."""
        content = dict(flattened(self.to_json()))
        del content["data_dir"]
        return content


def flattened(options: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Options by their full names, such as ``optimization.momentum``."""
    for name, value in options.items():
        if isinstance(value, dict):
            yield from flattened(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def model_of(
    options: Options, description: Description, axis_name: str | None = None
) -> Model:
    """The model that options name, of images as they are stored."""
    height, _, channels = description.shape
    model = MODELS[options.model](height, channels, axis_name)
    if options.precision == "bfloat16":
        model = models.in_precision(model, jnp.bfloat16)
    return models.standardized(model, description.mean, description.std)
