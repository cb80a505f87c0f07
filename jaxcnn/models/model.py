"""A model: two pure functions over a pytree of parameters.

``init(key)`` makes the parameters, and ``apply(parameters, images)`` the logits. The
parameters are a plain dictionary, so that optax, checkpoints and ``jax.tree`` all take
them as they are. Images are ``(B, H, W, C)`` or ``(B, C, H, W)``, as the model's layout
says. The result of a layer carries the layer's name, which is also the path to its
parameters: see :mod:`jaxcnn.inspection`.

The models here are values. One that is built again from the same arguments, or that comes
out of a pickle, is equal, and no function that takes it as a static argument compiles anew.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Key, PyTree, Shaped

Parameters = PyTree[Float[Array, "..."]]
Images = Shaped[Array, "B _ _ _"]
"""A batch of images, or of what a layer makes of them: channels are last or first."""
Logits = Float[Array, "B classes"]


STATISTICS = ("running_mean", "running_var")
"""The names of leaves that are no parameters: batch norm's running statistics."""


def with_statistics_of(parameters: Parameters, others: Parameters) -> Parameters:
    """The parameters, with the running statistics of others."""

    def chosen(path, ours, theirs):
        return theirs if path[-1].key in STATISTICS else ours

    return jax.tree_util.tree_map_with_path(chosen, parameters, others)


@dataclass(frozen=True)
class Bound:
    """A function with its first arguments, equal to another with the same.

    Neither a closure nor a :func:`functools.partial` is equal to one made in the same way,
    and no closure can be pickled.

    Attributes:
      function: defined in a module, where a pickle finds it.
      known: its first arguments, hashable.
    """

    function: Callable
    known: tuple[Any, ...]

    @property
    def __name__(self) -> str:  # by which JAX calls what it compiles
        return self.function.__name__

    def __call__(self, *others: Any) -> Any:
        return self.function(*self.known, *others)


class Model(NamedTuple):
    """A network as two pure functions.

    Equal to another whose functions are: those of :mod:`jaxcnn.models` are, where they were
    built from the same arguments.

    Attributes:
      init: from a random key to fresh parameters.
      apply: from parameters and images to logits.
      train: the same in training, where that is another function, and the parameters with
        whatever statistics are among them advanced.
      layout: of the images: ``"NHWC"`` or ``"NCHW"``.
    """

    init: Callable[[Key[Array, ""]], Parameters]
    apply: Callable[[Parameters, Images], Logits]
    train: Callable[[Parameters, Images], tuple[Logits, Parameters]] | None = None
    layout: str = "NHWC"

    def apply_training(
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

    >>> from jaxcnn.models import lenet5
    >>> model = standardized(lenet5(image_size=8), mean=(0.0,), std=(16.0,))
    >>> images = jnp.full((2, 8, 8, 1), 16, jnp.uint8)
    >>> model.apply(model.init(jax.random.key(0)), images).shape
    (2, 10)
    """
    mean, std = (tuple(map(float, each)) for each in (mean, std))
    if not all(each > 0 for each in std):
        raise ValueError(f"std is {std!r}; every entry must be positive")
    over_channels = tuple(-1 if letter == "C" else 1 for letter in model.layout)

    def of_stored(function: Callable) -> Bound:
        return Bound(_of_stored, (function, mean, std, over_channels))

    return model._replace(
        apply=of_stored(model.apply),
        train=None if model.train is None else of_stored(model.train),
    )


def _of_stored(
    function: Callable,
    mean: tuple[float, ...],
    std: tuple[float, ...],
    over_channels: tuple[int, ...],
    parameters: Parameters,
    images: Images,
) -> Any:
    dtype = jax.tree.leaves(parameters)[0].dtype
    shift, scale = (jnp.asarray(each, dtype).reshape(over_channels) for each in (mean, std))
    return function(parameters, (images.astype(dtype) - shift) / scale)


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

    >>> from jaxcnn.models import lenet5
    >>> model = in_precision(lenet5(image_size=8), jnp.bfloat16)
    >>> parameters = model.init(jax.random.key(0))
    >>> logits = model.apply(parameters, jnp.zeros((2, 8, 8, 1)))
    >>> parameters["conv1"]["w"].dtype, logits.dtype
    (dtype('float32'), dtype('float32'))
    """

    known = (model, jnp.dtype(dtype))
    return model._replace(
        apply=Bound(_apply_rounded, known),
        train=None if model.train is None else Bound(_train_rounded, known),
    )


def _rounded(parameters: Parameters, dtype: jnp.dtype) -> Parameters:
    return jax.tree_util.tree_map_with_path(
        lambda path, p: p if path[-1].key in STATISTICS else p.astype(dtype), parameters
    )


def _apply_rounded(
    model: Model, dtype: jnp.dtype, parameters: Parameters, images: Images
) -> Logits:
    wide = jax.tree.leaves(parameters)[0].dtype
    return model.apply(_rounded(parameters, dtype), images.astype(dtype)).astype(wide)


def _train_rounded(
    model: Model, dtype: jnp.dtype, parameters: Parameters, images: Images
) -> tuple[Logits, Parameters]:
    wide = jax.tree.leaves(parameters)[0].dtype
    rounded = _rounded(parameters, dtype)
    logits, advanced = model.apply_training(rounded, images.astype(dtype))
    return logits.astype(wide), with_statistics_of(parameters, advanced)
