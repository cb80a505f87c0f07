"""The data sets: scikit-learn's scanned digits, and MNIST from its IDX files.

Both come as float32 images ``(N, H, W, 1)`` from 0 to 1 and int32 labels, already split.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Float32, Int32
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

Images = Float32[np.ndarray, "N H W 1"] | Float32[jax.Array, "N H W 1"]
Labels = Int32[np.ndarray, " N"] | Int32[jax.Array, " N"]


class DataSet(NamedTuple):
    """Images to train on and to test on.

    Attributes:
      train_images, test_images: float32, ``(N, H, W, 1)``, from 0 to 1.
      train_labels, test_labels: int32, ``(N,)``, from 0 to 9.
    """

    train_images: Images
    train_labels: Labels
    test_images: Images
    test_labels: Labels


def digits() -> DataSet:
    """The 1,797 scanned digits of 8×8 pixels that scikit-learn ships.

    A quarter of every class (450 images), drawn once with seed 0, is the test set.
    """
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype(np.float32).reshape(-1, 8, 8, 1)
    labels = labels.astype(np.int32)
    train, test = train_test_split(
        np.arange(len(labels)), test_size=450, random_state=0, stratify=labels
    )
    return DataSet(images[train], labels[train], images[test], labels[test])


def mnist(folder: Path) -> DataSet:
    """MNIST's 60,000 and 10,000 images of 28×28 pixels, from its four IDX files.

    Args:
      folder: where ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
        ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte`` are, plain or with
        ``.gz``.

    Raises:
      FileNotFoundError: when a file is missing.
      ValueError: when a file is not what its name says; the message names the file.
    """
    arrays = []
    for part in ("train", "t10k"):
        images_path = _find(folder, f"{part}-images-idx3-ubyte")
        labels_path = _find(folder, f"{part}-labels-idx1-ubyte")
        images, labels = read_idx(images_path), read_idx(labels_path)
        if images.ndim != 3 or images.shape[1:] != (28, 28):
            raise ValueError(
                f"{images_path} holds an array of shape {images.shape}; MNIST's images "
                f"are (N, 28, 28)"
            )
        if labels.shape != images.shape[:1] or labels.max(initial=0) > 9:
            raise ValueError(
                f"{labels_path} holds an array of shape {labels.shape} with entries up "
                f"to {labels.max(initial=0)}; the labels of the {len(images)} images in "
                f"{images_path.name} are ({len(images)},), from 0 to 9"
            )
        arrays += [images[..., None].astype(np.float32) / 255, labels.astype(np.int32)]
    return DataSet(*arrays)


def read_idx(path: Path) -> np.ndarray:
    """The array of bytes in an IDX file, plain or gzipped.

    An IDX file is a magic number (two zero bytes, the type of the entries, the number of
    dimensions), the size of each dimension as a big-endian int32, then the entries.

    Raises:
      ValueError: when the file is not such a file, or not all of it.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{path} is no complete gzip file: {error}") from error
    unsigned_byte = 0x08
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != unsigned_byte:
        raise ValueError(
            f"{path} begins with the bytes {content[:4].hex(' ') or '(none)'}; an IDX "
            f"file of bytes begins with 00 00 08 and its number of dimensions"
        )
    header = 4 + 4 * content[3]
    if len(content) < header:
        raise ValueError(f"{path} ends inside its header of {header} bytes")
    shape = struct.unpack(f">{content[3]}I", content[4:header])
    if len(content) - header != math.prod(shape):
        raise ValueError(
            f"{path} announces an array of shape {shape}, which is {math.prod(shape)} "
            f"bytes, but holds {len(content) - header}"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(shape)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"neither {name} nor {name}.gz is in --data-dir {folder}: MNIST is four IDX files, "
        f"train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
        f"t10k-labels-idx1-ubyte, plain or gzipped"
    )
