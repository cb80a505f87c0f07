"""The data sets: scikit-learn's digits, MNIST, Fashion-MNIST and CIFAR-10.

All come as bytes, ``(N, H, W, C)``, and int32 labels, already split. They are read from
local files or fetched (:mod:`experiments.data.download`); nothing in them is ever executed.
"""

import io
import math
import struct
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jaxtyping import Int32, UInt8

from experiments.data import download
from experiments.data.reading import MOST, content_of, opened, read_up_to, reading

Images = UInt8[np.ndarray, "N H W C"] | UInt8[jax.Array, "N H W C"]
Labels = Int32[np.ndarray, " N"] | Int32[jax.Array, " N"]


class Examples(NamedTuple):
    """Images and what they show.

    Attributes:
      images: bytes, ``(N, H, W, C)``.
      labels: int32, ``(N,)``, the number of a class.
    """

    images: Images
    labels: Labels


def batches(
    examples: Examples, batch_size: int, epochs: int, seed: int
) -> Iterator[np.ndarray]:
    """For each epoch the shuffled numbers of the images, a row for every full batch."""
    rng = np.random.default_rng(seed)
    count = len(examples.labels) // batch_size
    for _ in range(epochs):
        order = rng.permutation(len(examples.labels))[: count * batch_size]
        yield order.reshape(count, batch_size)


@dataclass(frozen=True)
class Description:
    """What a network must know of the images that it is for.

    Attributes:
      shape: ``(H, W, C)``.
      classes: the name of each class.
      mean, std: of each channel, what the network subtracts, and divides by.
      white: the brightest that a pixel can be; black is 0.

    Raises:
      ValueError: when there are no such images.
    """

    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    white: int = 255

    def __post_init__(self):
        if min(self.shape) < 1:
            raise ValueError(f"shape is {self.shape}; it must be positive")
        if len(self.classes) != 10:
            raise ValueError(f"classes are {len(self.classes)}; all models tell 10 apart")
        for name, least in ("mean", -math.inf), ("std", 0):
            given = getattr(self, name)
            if len(given) not in (1, self.shape[-1]) or not all(
                least < each < math.inf for each in given
            ):
                raise ValueError(
                    f"{name} is {given}; it must be one number, or {self.shape[-1]}, "
                    f"above {least} and finite"
                )
        if not 1 <= self.white <= 255:
            raise ValueError(f"white is {self.white}; it must be from 1 to 255")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


class DataSet(NamedTuple):
    """Examples to train on and to test on.

    Attributes:
      train, test: the two parts.
      description: of the images.
    """

    train: Examples
    test: Examples
    description: Description

    def validating(self, part: float) -> "DataSet":
        """The training set, of which this part of every class becomes the test set.

        Raises:
          ValueError: when one of the two would lack a class.
        """
        count = len(self.train.labels)
        _, of_each = np.unique(self.train.labels, return_counts=True)
        taken = math.ceil(part * count)
        if not len(of_each) <= taken <= count - len(of_each) or of_each.min() < 2:
            raise ValueError(
                f"validate is {part}, which takes {taken} of {count} images; those taken "
                f"and those left must have one of each of {len(of_each)} classes"
            )
        train, test = _split(self.train, part)
        return self._replace(train=train, test=test)


def _split(examples: Examples, part: float | int) -> tuple[Examples, Examples]:
    """The examples in two: the second has this part of every class, or so many of all."""
    from sklearn.model_selection import train_test_split

    images, labels = examples
    numbers = train_test_split(
        np.arange(len(labels)), test_size=part, random_state=0, stratify=labels
    )
    left, taken = (Examples(images[each], labels[each]) for each in numbers)
    return left, taken


DIGITS = tuple("0123456789")
CLOTHES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
OBJECTS = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


def digits(folder: Path | None = None) -> DataSet:
    """The 1,797 scanned digits of 8×8 pixels that scikit-learn ships, from 0 to 16.

    A quarter of every class (450 images), drawn once with seed 0, is the test set.

    Raises:
      ValueError: when a folder is given, for there is nothing to read from it.
    """
    if folder is not None:
        raise ValueError(f"--data-dir is {folder}; digits come with scikit-learn, without")
    from sklearn.datasets import load_digits  # which takes a second: for the digits alone

    images, labels = load_digits(return_X_y=True)
    images = images.astype(np.uint8).reshape(-1, 8, 8, 1)
    labels = labels.astype(np.int32)
    train, test = _split(Examples(images, labels), 450)
    description = Description((8, 8, 1), DIGITS, mean=(0.0,), std=(16.0,), white=16)
    return DataSet(train, test, description)


def mnist(folder: Path | None = None) -> DataSet:
    """MNIST's 60,000 and 10,000 images of 28×28 pixels.

    Args:
      folder: where ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
        ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte`` are, plain or with
        ``.gz``; None to fetch them.

    Raises:
      OSError: when a file is missing, or cannot be fetched.
      ValueError: when a file is not what its name says; the message names the file.
    """
    return _mnist_like("mnist", download.MNIST, DIGITS, folder)


def fashion_mnist(folder: Path | None = None) -> DataSet:
    """Fashion-MNIST's 60,000 and 10,000 images of clothes, in the format of MNIST.

    Arguments and errors are those of :func:`mnist`.
    """
    return _mnist_like("fashion-mnist", download.FASHION_MNIST, CLOTHES, folder)


def _mnist_like(
    name: str, source: download.Source, classes: tuple[str, ...], folder: Path | None
) -> DataSet:
    folder = folder or download.fetch(name, source)
    parts = []
    for part in ("train", "t10k"):
        images_path = _find(folder, f"{part}-images-idx3-ubyte")
        labels_path = _find(folder, f"{part}-labels-idx1-ubyte")
        images, labels = read_idx(images_path), read_idx(labels_path)
        if images.ndim != 3 or images.shape[1:] != (28, 28) or not len(images):
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
        parts.append(Examples(images[..., None], labels.astype(np.int32)))
    train, test = parts
    description = Description((28, 28, 1), classes, mean=(0.0,), std=(255.0,))
    return DataSet(train, test, description)


CIFAR10 = Description(
    (32, 32, 3), OBJECTS, mean=(125.3, 123.0, 113.9), std=(63.0, 62.1, 66.7)
)
"""As is usual, mean and deviation are those of the training set, to one decimal."""

(CIFAR10_ARCHIVE,) = download.CIFAR10.files
CIFAR10_FILES = (*(f"data_batch_{k}.bin" for k in range(1, 6)), "test_batch.bin")


def cifar10(folder: Path | None = None) -> DataSet:
    """CIFAR-10's 50,000 and 10,000 photographs of 32×32 pixels, from its binary version.

    Args:
      folder: where ``cifar-10-binary.tar.gz`` is, or the six files that are in it,
        ``data_batch_1.bin`` to ``data_batch_5.bin`` and ``test_batch.bin``; None to fetch
        the archive.

    Raises:
      OSError: when a file is missing, or cannot be fetched.
      ValueError: when a file is not what its name says; the message names the file.
    """
    folder = folder or download.fetch("cifar10", download.CIFAR10)
    batches = [_cifar10_batch(*each) for each in _cifar10_contents(folder).items()]
    train = Examples(*map(np.concatenate, zip(*batches[:-1], strict=True)))
    return DataSet(train, batches[-1], CIFAR10)


def _cifar10_contents(folder: Path) -> dict[Path, bytes | bytearray]:
    """The bytes of each of the files, by its path."""
    paths = [folder / name for name in CIFAR10_FILES]
    if all(path.is_file() for path in paths):
        contents = {}
        for path in paths:
            with reading(path, "cannot be used"):
                contents[path] = content_of(path, MOST)
        return contents
    archive = folder / CIFAR10_ARCHIVE
    if not archive.is_file():
        raise FileNotFoundError(
            f"neither {CIFAR10_ARCHIVE} nor {', '.join(CIFAR10_FILES)} are in {folder}: "
            f"these are CIFAR-10's binary version"
        )
    with reading(archive, "is no complete CIFAR-10 archive"):
        # Decompressed to the end, since the checksum is there.
        whole = io.BytesIO(content_of(archive, MOST))
        with tarfile.open(fileobj=whole, mode="r:") as members:
            # The archive has nine; a damaged one can go on without an end.
            files = {each.name: each for each in islice(members, 100)}
            return {
                archive / name: _member(members, files, f"cifar-10-batches-bin/{name}")
                for name in CIFAR10_FILES
            }


def _member(
    members: tarfile.TarFile, files: dict[str, tarfile.TarInfo], name: str
) -> bytes:
    """A plain file of an archive: links lead in circles, holes take no space in it."""
    member = files.get(name)
    file = (
        member and member.isreg() and not member.issparse() and members.extractfile(member)
    )
    if not file:
        raise ValueError(f"it holds no plain file {name}")
    return file.read()


def _cifar10_batch(path: Path, content: bytes | bytearray) -> Examples:
    """Records of one byte for the class and 3·32·32 for the image, channel by channel."""
    record = 1 + 3 * 32 * 32
    if not content or len(content) % record:
        raise ValueError(
            f"{path} holds {len(content)} bytes; it must hold records of {record} bytes"
        )
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    labels = records[:, 0]
    if labels.max() > 9:
        raise ValueError(
            f"{path} has a label of {labels.max()} in record {labels.argmax()}; labels are "
            f"from 0 to 9"
        )
    images = records[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return Examples(np.ascontiguousarray(images), labels.astype(np.int32))


DATA_SETS: dict[str, Callable[[Path | None], DataSet]] = {
    "digits": digits,
    "mnist": mnist,
    "fashion-mnist": fashion_mnist,
    "cifar10": cifar10,
}


def load(name: str, folder: Path | None, validate: float = 0.0) -> DataSet:
    """The data set of this name; if ``validate`` is not 0, :meth:`DataSet.validating`."""
    dataset = DATA_SETS[name](folder)
    return dataset.validating(validate) if validate else dataset


def read_idx(path: Path) -> np.ndarray:
    """The array of bytes in an IDX file, plain or gzipped.

    An IDX file is a magic number (two zero bytes, the type of the entries, the number of
    dimensions), the size of each dimension as a big-endian int32, then the entries.

    Raises:
      ValueError: when the file is not such a file, or not all of it.
    """
    with reading(path, "is no complete IDX file"), opened(path) as file:
        start = file.read(4)
        unsigned_byte = 0x08
        if len(start) < 4 or start[:2] != b"\0\0" or start[2] != unsigned_byte:
            raise ValueError(
                f"it begins with the bytes {start.hex(' ') or '(none)'}; an IDX file of "
                f"bytes begins with 00 00 08 and its number of dimensions"
            )
        sizes = file.read(4 * start[3])
        if len(sizes) < 4 * start[3]:
            raise ValueError(f"it ends inside its header of {4 + 4 * start[3]} bytes")
        shape = struct.unpack(f">{start[3]}I", sizes)
        announced = f"it announces an array of shape {shape}"
        count = math.prod(shape)
        if count > MOST:
            raise ValueError(f"{announced}; at most {MOST:,} bytes are read")
        # One more, for the end is where a gzip file has its checksum.
        content = read_up_to(file, count + 1)
        if len(content) != count:
            held = "more" if len(content) > count else len(content)
            raise ValueError(f"{announced}, which is {count} bytes, but holds {held}")
        return np.frombuffer(content, np.uint8).reshape(shape)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / name, folder / f"{name}.gz"):
        if path.is_file():
            return path
    raise FileNotFoundError(
        f"neither {name} nor {name}.gz is in --data-dir {folder}: MNIST is four IDX files, "
        f"train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
        f"t10k-labels-idx1-ubyte, plain or gzipped"
    )
