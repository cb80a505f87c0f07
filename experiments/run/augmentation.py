"""Images changed at random, so that a network never sees the same one twice.

Each function takes a key, one image ``(H, W, C)`` as bytes, and how much. All of it is
``jax.numpy``, so that it runs within the compiled epoch; what a key does to an image does
not depend on the batch that the image is in, or on how a batch is spread over devices.
"""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Key, UInt8

Image = UInt8[Array, "H W C"]
OneKey = Key[Array, ""]


def shift(key: OneKey, image: Image, pixels: int) -> Image:
    """Move by up to so many pixels along each axis; what comes in is black.

    >>> shift(jax.random.key(1), jnp.ones((2, 2, 1), jnp.uint8), 1)[..., 0].tolist()
    [[1, 0], [1, 0]]
    """
    padded = jnp.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)))
    corner = jax.random.randint(key, (2,), 0, 2 * pixels + 1)
    return lax.dynamic_slice(padded, (*corner, 0), image.shape)


def flip(key: OneKey, image: Image) -> Image:
    """Mirror every other image, on average, left to right."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def crop(key: OneKey, image: Image, smallest: float) -> Image:
    """Enlarge a part: a square of ``smallest`` to all of the image's height and width."""
    size_key, corner_key = jax.random.split(key)
    size = jax.random.uniform(size_key, minval=smallest, maxval=1)
    corner = jax.random.uniform(corner_key, (2,)) * (1 - size)
    enlarged = jax.image.scale_and_translate(
        image.astype(jnp.float32),
        image.shape,
        (0, 1),
        scale=jnp.broadcast_to(1 / size, 2),
        translation=-corner * jnp.array(image.shape[:2]) / size,
        method="linear",
        antialias=False,
    )
    return jnp.clip(jnp.round(enlarged), 0, 255).astype(image.dtype)


def cutout(key: OneKey, image: Image, pixels: int) -> Image:
    """Black out a square of so many pixels, anywhere; at the edge, a part of it.

    Source: DeVries and Taylor, "Improved regularization of convolutional neural networks
    with cutout" (2017), arXiv:1708.04552.
    """
    height_and_width = jnp.array(image.shape[:2])
    first = jax.random.randint(key, (2,), 0, height_and_width) - pixels // 2
    rows, columns = (
        (jnp.arange(length) >= begin) & (jnp.arange(length) < begin + pixels)
        for length, begin in zip(image.shape[:2], first, strict=True)
    )
    is_out = rows[:, None, None] & columns[None, :, None]
    return jnp.where(is_out, 0, image).astype(image.dtype)


@dataclass(frozen=True)
class Augmentation:
    """What is done to a training image, in this order; hashable, so static.

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

    def must_fit(self, shape: tuple[int, int, int]) -> None:
        """Refuse what can leave nothing of images of this shape.

        Raises:
          ValueError: when it would.
        """
        height, width, _ = shape
        size = min(height, width)
        for name, most in ("shift", size - 1), ("cutout", size):
            if getattr(self, name) > most:
                raise ValueError(
                    f"{name} is {getattr(self, name)}; with images of {height}×{width} "
                    f"pixels it must be at most {most}"
                )
        if self.crop * size < 1:
            raise ValueError(
                f"crop is {self.crop}; of images of {height}×{width} pixels it must "
                f"leave one, which is {1 / size:.3g}"
            )

    def __call__(self, key: OneKey, image: Image) -> Image:
        """The image, changed."""
        steps: list[Callable[[OneKey, Image], Image]] = []
        if self.crop < 1:
            steps.append(lambda key, image: crop(key, image, self.crop))
        if self.shift:
            steps.append(lambda key, image: shift(key, image, self.shift))
        if self.flip:
            steps.append(flip)
        if self.cutout:
            steps.append(lambda key, image: cutout(key, image, self.cutout))
        for number, step in enumerate(steps):
            image = step(jax.random.fold_in(key, number), image)
        return image
