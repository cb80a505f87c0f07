"""The data sets: what they hold, and that a damaged file is refused by its name."""

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest

from experiments import data

MNIST = Path(__file__).parents[2] / "shared" / "data" / "mnist"


def idx_bytes(array):
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_mnist(folder, rng, suffix="", counts=(40, 20)):
    """A data set of random images in MNIST's four files."""
    write = gzip.compress if suffix == ".gz" else bytes
    for part, count in zip(("train", "t10k"), counts, strict=True):
        images = rng.integers(0, 256, (count, 28, 28))
        labels = np.arange(count) % 10
        (folder / f"{part}-images-idx3-ubyte{suffix}").write_bytes(write(idx_bytes(images)))
        (folder / f"{part}-labels-idx1-ubyte{suffix}").write_bytes(write(idx_bytes(labels)))


def test_the_digits_are_split_the_same_way_every_time_and_without_overlap():
    digits, again = data.digits(), data.digits()
    for array, same in zip(digits, again, strict=True):
        np.testing.assert_array_equal(array, same)
    assert digits.train_images.shape == (1347, 8, 8, 1)
    assert digits.test_images.shape == (450, 8, 8, 1)
    assert digits.train_images.dtype == np.float32
    assert (digits.train_images.min(), digits.train_images.max()) == (0, 1)
    assert np.bincount(digits.test_labels).tolist() == [
        45,
        46,
        44,
        46,
        45,
        46,
        45,
        45,
        43,
        45,
    ]
    train = {image.tobytes() for image in digits.train_images}
    assert not any(image.tobytes() in train for image in digits.test_images)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_is_read_from_plain_and_from_gzipped_files(tmp_path, rng, suffix):
    write_mnist(tmp_path, rng, suffix)
    mnist = data.mnist(tmp_path)
    assert mnist.train_images.shape == (40, 28, 28, 1)
    assert mnist.test_labels.tolist() == [i % 10 for i in range(20)]
    raw = data.read_idx(tmp_path / f"train-images-idx3-ubyte{suffix}")
    np.testing.assert_allclose(mnist.train_images[..., 0] * 255, raw, atol=1e-4)


@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST is not at hand")
def test_the_real_mnist_is_read_to_the_last_byte():
    images = data.read_idx(MNIST / "t10k-images-idx3-ubyte.gz")
    header = struct.pack(">4B3I", 0, 0, 8, 3, 10_000, 28, 28)
    assert hashlib.sha256(header + images.tobytes()).hexdigest() == (
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
    )
    assert np.bincount(data.mnist(MNIST).train_labels).sum() == 60_000


IMAGES = "train-images-idx3-ubyte"
LABELS = "train-labels-idx1-ubyte"

DAMAGE = {
    "empty": (IMAGES, lambda content: b"", "begins with the bytes (none)"),
    "no IDX file": (
        IMAGES,
        lambda content: b"PNG" + content,
        "begins with the bytes 50 4e 47",
    ),
    "of floats": (IMAGES, lambda content: b"\0\0\x0d\3" + content[4:], "00 00 0d 03"),
    "cut in its header": (IMAGES, lambda content: content[:9], "ends inside its header"),
    "truncated": (
        IMAGES,
        lambda content: content[:-1],
        "announces an array of shape (40, 28",
    ),
    "too long": (LABELS, lambda content: content + b"\0", "but holds 41"),
    "images of another size": (
        IMAGES,
        lambda content: idx_bytes(np.zeros((40, 14, 14))),
        "(40, 14, 14)",
    ),
    "labels of another number": (
        LABELS,
        lambda content: idx_bytes(np.zeros(39)),
        "(39,)",
    ),
    "labels out of range": (
        LABELS,
        lambda content: idx_bytes(np.full(40, 10)),
        "entries up to 10",
    ),
    "images in place of labels": (
        LABELS,
        lambda content: idx_bytes(np.zeros((40, 28, 28))),
        "labels of the 40 images",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_refused_by_name(tmp_path, rng, damage):
    write_mnist(tmp_path, rng)
    name, spoil, said = DAMAGE[damage]
    path = tmp_path / name
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError) as refusal:
        data.mnist(tmp_path)
    assert str(path) in str(refusal.value)
    assert said in str(refusal.value)


def no_gzip(content):
    return b"not gzip"


def cut_off(content):
    return content[:-50]


def garbled(content):
    return content[:40] + bytes(byte ^ 0xFF for byte in content[40:60]) + content[60:]


@pytest.mark.parametrize("spoil", [no_gzip, cut_off, garbled])
def test_a_damaged_gzip_file_is_refused_by_name(tmp_path, rng, spoil):
    write_mnist(tmp_path, rng, ".gz")
    path = tmp_path / f"{IMAGES}.gz"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match="is no complete gzip file") as refusal:
        data.mnist(tmp_path)
    assert str(path) in str(refusal.value)


def test_a_missing_file_is_named_with_what_would_do(tmp_path, rng):
    write_mnist(tmp_path, rng)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="neither t10k-labels-idx1-ubyte nor"):
        data.mnist(tmp_path)
