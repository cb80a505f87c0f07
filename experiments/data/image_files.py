"""Pictures in files, made into images like those of a data set.

Whatever pillow opens will do: its first frame is turned as its camera was held, what is
transparent in it shows white, and it becomes gray or coloured as the data set is.

Digits and clothes are bright on black there. So a picture most of whose border is brighter
than half, such as ink on paper, is inverted. Then it is scaled with a Lanczos filter, its
aspect ratio kept, and what remains of the frame takes the colour of its border. Digits are
cut out and put where those of their data set are; a picture that has the data set's size
already stays as it is.

A file of a few kilobytes can hold a picture of gigabytes: there is a largest picture.
"""

import warnings
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps

from experiments.data.reading import reading
from experiments.data.sets import Description

Inversion = Literal["auto", "yes", "no"]


class Frame(NamedTuple):
    """Where a digit is in the images of a data set, in pixels from the top left one.

    Attributes:
      box: the height and the width within which it is as large as can be.
      centre: where its centre of mass is, as nearly as whole pixels allow.
    """

    box: tuple[int, int]
    centre: tuple[float, float]


FRAMES = {"mnist": Frame((20, 20), (14, 14)), "digits": Frame((8, 6), (3.5, 3.5))}
"""MNIST's box is the one that its makers tell of, in "The MNIST database of handwritten
digits" by LeCun, Cortes and Burges; the rest was measured in the data sets."""

Image.MAX_IMAGE_PIXELS = 2**26
"""Pillow then warns of larger pictures before it decodes them."""

LEAST_CONTRAST = 25
"""Of ink with paper, of 255: less is the grain of an empty page."""


def load(
    path: Path, dataset: str, description: Description, invert: Inversion = "auto"
) -> UInt8[np.ndarray, "H W C"]:
    """An image as the data set stores its own.

    Args:
      path: of the file.
      dataset, description: which data set, and what its images are.
      invert: whether bright and dark change places; by themselves never in colour.

    Raises:
      OSError: when the file cannot be read.
      ValueError: when it holds no picture, one of more pixels than are allowed, or one in
        which nothing can be seen. Both messages name the file.
    """
    height, width, channels = description.shape
    frame = FRAMES.get(dataset)
    with reading(path, "cannot be used"):
        picture = _first_frame(path)
        if channels == 1:
            picture = _bright_on_dark(picture.convert("L"), invert)
        if picture.size != (width, height) and frame:
            picture = _digit(picture, (height, width), frame)
        elif picture.size != (width, height):
            picture = _framed(picture, (height, width))
    stored = np.rint(np.asarray(picture) * (description.white / 255)).astype(np.uint8)
    return stored.reshape(description.shape)


def save(path: Path, image: UInt8[np.ndarray, "H W C"], description: Description) -> None:
    """Write an image to a file from which :func:`load` reads it as it is."""
    pixels = np.rint(image * (255 / description.white)).astype(np.uint8)
    Image.fromarray(pixels.squeeze(-1) if image.shape[-1] == 1 else pixels).save(path)


def _first_frame(path: Path) -> Image.Image:
    """As 8-bit RGB, upright, on white."""
    Image.init()
    formats = sorted(Image.OPEN.keys() - {"EPS"})  # which is a program, and would be run
    too_large = Image.DecompressionBombWarning, Image.DecompressionBombError
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what pillow says of damaged notes on a camera
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(path, formats=formats) as file:
                return _opaque(ImageOps.exif_transpose(file))
        except too_large as error:
            raise ValueError(
                f"it has more than {Image.MAX_IMAGE_PIXELS:,} pixels"
            ) from error


def _opaque(picture: Image.Image) -> Image.Image:
    """The picture as 8-bit RGB, on white."""
    if picture.mode.startswith("I;16"):
        pixels = np.rint(np.asarray(picture) / 257).astype(np.uint8)
        picture = Image.fromarray(pixels)
    elif picture.mode in ("I", "F"):
        raise ValueError(
            f"its numbers are of pillow's mode {picture.mode}, which does not say how "
            f"much is white: save it with 8 or 16 bits"
        )
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("RGB")


def _bright_on_dark(picture: Image.Image, invert: Inversion) -> Image.Image:
    dark_on_bright = _border(picture)[0] > 127.5 if invert == "auto" else invert == "yes"
    return ImageOps.invert(picture) if dark_on_bright else picture


def _border(picture: Image.Image) -> Float[np.ndarray, " C"]:
    """The median of the outermost pixels, channel by channel."""
    pixels = np.asarray(picture).reshape(picture.height, picture.width, -1)
    sides = (pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1])
    return np.median(np.concatenate(sides), axis=0)


def _framed(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """The picture, as large as fits, in the middle of the colour of its border."""
    height, width = size
    colour = tuple(_border(picture).astype(int).tolist())
    frame = Image.new(picture.mode, (width, height), colour)
    picture = _fitted(picture, size)
    frame.paste(picture, ((width - picture.width) // 2, (height - picture.height) // 2))
    return frame


def _digit(picture: Image.Image, size: tuple[int, int], frame: Frame) -> Image.Image:
    """The ink, cut out and scaled to the frame's box, its centre of mass at the centre."""
    ink = _ink(picture)
    ink = np.asarray(_fitted(ink.crop(ink.getbbox()), frame.box)).clip(0, None)
    ink *= 255 / ink.max()  # thin strokes have become faint
    placed = np.zeros(size, np.uint8)
    inside = []
    for axis in 0, 1:
        mass = ink.sum(axis=1 - axis)
        first = round(frame.centre[axis] - np.average(np.arange(len(mass)), weights=mass))
        first = min(max(first, 0), size[axis] - len(mass))
        inside.append(slice(first, first + len(mass)))
    placed[tuple(inside)] = np.rint(ink)
    return Image.fromarray(placed)


def _ink(picture: Image.Image) -> Image.Image:
    """How much of each pixel is ink, from 0 to 1, where ink is bright; in mode F.

    The data sets were made from scans in black and white. So what is at most a quarter of
    the way from paper to ink, as grain and shadows are, counts as paper, and from three
    quarters on as ink; the edges in between stay gray.
    """
    pixels = np.asarray(picture)
    paper = _border(picture)
    contrast = pixels.max() - paper
    if contrast < LEAST_CONTRAST:
        raise ValueError("nothing in it stands out from its border")
    of_gray = np.clip(2 * (np.arange(256) - paper) / contrast - 0.5, 0, 1)
    ink = np.empty(pixels.shape, np.float32)
    for ink_row, row in zip(ink, pixels, strict=True):  # by rows, for there may be many
        ink_row[:] = of_gray[row]
    return Image.fromarray(ink)


def _fitted(picture: Image.Image, box: tuple[int, int]) -> Image.Image:
    """The picture scaled to the box. ``ImageOps.contain`` leaves nothing of a thin line."""
    scale = min(box[0] / picture.height, box[1] / picture.width)
    width, height = (max(1, round(scale * each)) for each in picture.size)
    return picture.resize((width, height), Image.Resampling.LANCZOS)
