"""Images changed at random, so that a network never sees the same one twice.

Each function takes a key, a batch of images ``(B, H, W, C)`` as bytes, and how much; every
image is changed by itself. All of it is ``jax.numpy``, so that it runs within the compiled
epoch.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Key, UInt8

Images = UInt8[Array, "B H W C"]
OneKey = Key[Array, ""]


def shift(key: OneKey, images: Images, pixels: int) -> Images:
    """Move by up to so many pixels along each axis; what comes in is black.

    >>> shift(jax.random.key(1), jnp.ones((1, 2, 2, 1), jnp.uint8), 1)[0, ..., 0].tolist()
    [[1, 0], [1, 0]]
    """
    around = ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
    padded = jnp.pad(images, around)
    corners = jax.random.randint(key, (len(images), 2), 0, 2 * pixels + 1)

    def seen(image, corner):
        return lax.dynamic_slice(image, (*corner, 0), images.shape[1:])

    return jax.vmap(seen)(padded, corners)


def flip(key: OneKey, images: Images) -> Images:
    """Mirror every other image, on average, left to right."""
    is_mirrored = jax.random.bernoulli(key, shape=(len(images), 1, 1, 1))
    return jnp.where(is_mirrored, images[:, :, ::-1], images)


def crop(key: OneKey, images: Images, smallest: float) -> Images:
    """Enlarge a part: a square of ``smallest`` to all of the image's height and width."""
    size_key, corner_key = jax.random.split(key)
    batch, height, width, _ = images.shape
    sizes = jax.random.uniform(size_key, (batch, 1), minval=smallest, maxval=1)
    corners = jax.random.uniform(corner_key, (batch, 2)) * (1 - sizes)

    def seen(image, size, corner):
        scale = jnp.broadcast_to(1 / size, 2)
        translation = -corner * jnp.array([height, width]) / size
        enlarged = jax.image.scale_and_translate(
            *(image.astype(jnp.float32), image.shape, (0, 1), scale, translation),
            method="linear",
            antialias=False,
        )
        return jnp.clip(jnp.round(enlarged), 0, 255).astype(image.dtype)

    return jax.vmap(seen)(images, sizes, corners)


def cutout(key: OneKey, images: Images, pixels: int) -> Images:
    """Black out a square of so many pixels, anywhere; at the edge, a part of it.

    Source: DeVries and Taylor, "Improved regularization of convolutional neural networks
    with cutout" (2017), arXiv:1708.04552.
    """
    batch, height, width, _ = images.shape
    centres = jax.random.randint(key, (2, batch, 1), 0, jnp.array([[[height]], [[width]]]))
    rows, columns = (
        (jnp.arange(size) >= centre - pixels // 2)
        & (jnp.arange(size) < centre - pixels // 2 + pixels)
        for size, centre in zip((height, width), centres, strict=True)
    )
    is_out = rows[:, :, None, None] & columns[:, None, :, None]
    return jnp.where(is_out, 0, images).astype(images.dtype)


@dataclass(frozen=True)
class Augmentation:
    """What is done to training images, in this order; hashable, so static.

    Attributes:
      crop: the smallest part that is enlarged, from above 0 to 1 for the whole image.
      shift: by how many pixels at most.
      flip: whether to mirror.
      cutout: the side of the square, in pixels.

    Raises:
      ValueError: when one of them is out of its range.
    """

    crop: float = 1.0
    shift: int = 0
    flip: bool = False
    cutout: int = 0

    def __post_init__(self):
        if not 0 < self.crop <= 1:
            raise ValueError(f"crop is {self.crop}; it must be above 0, and at most 1")
        for name in ("shift", "cutout"):
            if getattr(self, name) < 0:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; it must not be negative"
                )

    def __call__(self, key: OneKey, images: Images) -> Images:
        """The batch, changed."""
        steps: list[Callable[[OneKey, Images], Images]] = []
        if self.crop < 1:
            steps.append(lambda key, images: crop(key, images, self.crop))
        if self.shift:
            steps.append(lambda key, images: shift(key, images, self.shift))
        if self.flip:
            steps.append(flip)
        if self.cutout:
            steps.append(lambda key, images: cutout(key, images, self.cutout))
        for number, step in enumerate(steps):
            images = step(jax.random.fold_in(key, number), images)
        return images
