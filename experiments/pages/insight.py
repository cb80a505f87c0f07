"""Into a trained network: what it answers, where it errs, and what it looks at."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Shaped

from experiments.data.sets import Examples
from jaxcnn import inspection, softmax, softmax_cross_entropy
from jaxcnn.inspection import Layer
from jaxcnn.models import Images, Logits, Model, Parameters


class Answers(NamedTuple):
    """What a network says of labelled images, one by one.

    Attributes:
      labels: what is true.
      predictions: the class of the largest logit.
      probabilities: that the network gives to its prediction.
      losses: the softmax cross-entropy.
    """

    labels: np.ndarray
    predictions: np.ndarray
    probabilities: np.ndarray
    losses: np.ndarray

    @property
    def mistakes(self) -> np.ndarray:
        """The numbers of the images taken for another class, the largest loss first."""
        wrong = np.flatnonzero(self.predictions != self.labels)
        return wrong[np.argsort(-self.losses[wrong], stable=True)]

    @property
    def first_of_each_class(self) -> np.ndarray:
        """The number of the first image of each class that there is."""
        return np.unique(self.labels, return_index=True)[1]


def answers(model: Model, parameters: Parameters, examples: Examples) -> Answers:
    logits = _logits(parameters, jnp.asarray(examples.images), model=model)
    return answers_from(logits, examples.labels)


def answers_from(logits: Logits | np.ndarray, labels: Array | np.ndarray) -> Answers:
    losses = softmax_cross_entropy(logits, labels)
    probabilities = softmax(logits).max(axis=-1)
    predictions = jnp.argmax(logits, axis=-1)
    return Answers(*map(np.asarray, (labels, predictions, probabilities, losses)))


@partial(jax.jit, static_argnames=("model", "batch_size"))
def _logits(
    parameters: Parameters, images: Images, *, model: Model, batch_size: int = 500
) -> Logits:
    """As in :func:`jaxcnn.training.evaluate`, so many images at once to bound memory."""
    return lax.map(
        lambda image: model.apply(parameters, image[None])[0],
        images,
        batch_size=min(batch_size, len(images)),
    )


@partial(jax.jit, static_argnames=("model",))
def saliency(
    parameters: Parameters, images: Shaped[Array, "B H W C"], *, model: Model
) -> Float[Array, "B H W"]:
    """How much each pixel matters to the answer: |∂z/∂x|, z the largest logit.

    The largest over the channels of a pixel. No image has a part in another's logits, so
    the gradient of the sum over images holds the gradient of each.

    Source: Simonyan, Vedaldi and Zisserman (2014), arXiv:1312.6034.
    """
    dtype = jax.tree.leaves(parameters)[0].dtype

    def answer(images):
        return model.apply(parameters, images).max(axis=-1).sum()

    return jnp.abs(jax.grad(answer)(images.astype(dtype))).max(axis=-1)


@partial(jax.jit, static_argnames=("model",))
def activations(
    parameters: Parameters, images: Images, *, model: Model
) -> dict[str, Float[Array, "..."]]:
    """:func:`jaxcnn.inspection.activations`, compiled: as float32 and in any order."""
    values = inspection.activations(model, parameters, images)
    return {name: value.astype(jnp.float32) for name, value in values.items()}


def with_feature_maps(layers: Sequence[Layer], most: int = 10) -> list[Layer]:
    """The layers whose results are images, without those within another named layer.

    If there are more than ``most``, so many at even distances, from first to last.
    """
    names = {layer.name for layer in layers}
    images = [
        layer
        for layer in layers
        if layer.shape is not None
        and len(layer.shape) == 3
        and layer.name.rpartition("/")[0] not in names
    ]
    chosen = np.linspace(0, len(images) - 1, min(len(images), most)).round().astype(int)
    return [images[number] for number in chosen]


def first_kernel(layers: Sequence[Layer], parameters: Parameters) -> np.ndarray:
    """The kernel of the first layer, a convolution: ``(K_h, K_w, C_in, C_out)``."""
    leaves = jax.tree.leaves(parameters[layers[0].name])
    return np.asarray(next(leaf for leaf in leaves if leaf.ndim == 4))
