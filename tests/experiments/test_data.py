"""The data sets: what they hold, and that a damaged file is refused by its name."""

import gzip
import hashlib
import json
import re
import struct
import tarfile
import tracemalloc
from pathlib import Path

import chex
import numpy as np
import pytest

from experiments.data import sets
from experiments.run.from_json import from_json

MNIST = Path(__file__).parents[3] / "shared" / "data" / "mnist"


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
    digits, again = sets.digits(), sets.digits()
    chex.assert_trees_all_equal((digits.train, digits.test), (again.train, again.test))
    chex.assert_shape(digits.train.images, (1347, 8, 8, 1))
    chex.assert_shape(digits.test.images, (450, 8, 8, 1))
    assert digits.train.images.dtype == np.uint8
    assert (digits.train.images.min(), digits.train.images.max()) == (0, 16)
    of_each = [45, 46, 44, 46, 45, 46, 45, 45, 43, 45]
    assert np.bincount(digits.test.labels).tolist() == of_each
    train = {image.tobytes() for image in digits.train.images}
    assert not any(image.tobytes() in train for image in digits.test.images)


def test_a_validation_set_is_a_part_of_the_training_set_alone():
    digits = sets.digits()
    validating = digits.validating(0.2)
    assert len(validating.train.labels) + len(validating.test.labels) == 1347
    assert np.bincount(validating.test.labels).min() >= 25  # a tenth of 270 is 27
    images = [*validating.train.images, *validating.test.images]
    assert sorted(map(bytes, images)) == sorted(map(bytes, digits.train.images))


def test_a_description_knows_how_bright_white_is_and_survives_being_written_down(
    tmp_path, rng
):
    write_mnist(tmp_path, rng)
    for read, folder, white in (sets.digits, None, 16), (sets.mnist, tmp_path, 255):
        description = read(folder).description
        assert description.white == white
        written = json.loads(json.dumps(description.to_json()))
        assert from_json(sets.Description, written) == description


def test_there_is_no_folder_of_digits(tmp_path):
    with pytest.raises(ValueError, match="digits come with scikit-learn"):
        sets.digits(tmp_path)


@pytest.mark.parametrize("read", [sets.mnist, sets.fashion_mnist])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_mnist_is_read_from_plain_and_from_gzipped_files(tmp_path, rng, suffix, read):
    write_mnist(tmp_path, rng, suffix)
    mnist = read(tmp_path)
    assert mnist.train.images.shape == (40, 28, 28, 1)
    assert mnist.test.labels.tolist() == [i % 10 for i in range(20)]
    raw = sets.read_idx(tmp_path / f"train-images-idx3-ubyte{suffix}")
    np.testing.assert_array_equal(mnist.train.images[..., 0], raw)


@pytest.mark.skipif(not MNIST.is_dir(), reason="MNIST is not at hand")
def test_the_real_mnist_is_read_to_the_last_byte():
    images = sets.read_idx(MNIST / "t10k-images-idx3-ubyte.gz")
    header = struct.pack(">4B3I", 0, 0, 8, 3, 10_000, 28, 28)
    assert hashlib.sha256(header + images.tobytes()).hexdigest() == (
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
    )
    assert np.bincount(sets.mnist(MNIST).train.labels).sum() == 60_000


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
    "too long": (LABELS, lambda content: content + b"\0", "but holds more"),
    "no images": (IMAGES, lambda content: idx_bytes(np.zeros((0, 28, 28))), "(0, 28, 28)"),
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
        sets.mnist(tmp_path)
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
    with pytest.raises(ValueError, match="is no complete IDX file") as refusal:
        sets.mnist(tmp_path)
    assert str(path) in str(refusal.value)


def most_memory_of(function, *arguments):
    """How many bytes Python and NumPy held at most; what the function raised, if it did."""
    raised = None
    tracemalloc.start()
    try:
        function(*arguments)
    except Exception as error:
        raised = error
    finally:
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return most, raised


def test_no_more_is_unpacked_than_was_announced(tmp_path, rng):
    write_mnist(tmp_path, rng, ".gz")
    path = tmp_path / f"{IMAGES}.gz"
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content + bytes(2**26), 1))
    most, raised = most_memory_of(sets.mnist, tmp_path)
    assert str(path) in str(raised)
    assert "(40, 28, 28), which is 31360 bytes, but holds more" in str(raised)
    assert most < 2**20


@pytest.mark.parametrize("shape", [(2**29,), (2**16, 2**16, 0xFFFF), (1,) * 255])
def test_no_more_is_read_than_is_allowed(tmp_path, shape):
    path = tmp_path / "announced"
    path.write_bytes(struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape))
    most, raised = most_memory_of(sets.read_idx, path)
    assert str(raised).startswith(f"{path} is no complete IDX file: it announces an array")
    assert most < 2**20


def test_a_file_that_may_not_be_read_is_named_with_what_the_system_says(tmp_path):
    with pytest.raises(IsADirectoryError, match=re.escape(str(tmp_path))):
        sets.read_idx(tmp_path)


def test_a_missing_file_is_named_with_what_would_do(tmp_path, rng):
    write_mnist(tmp_path, rng)
    (tmp_path / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match="neither t10k-labels-idx1-ubyte nor"):
        sets.mnist(tmp_path)


# --- CIFAR-10 -------------------------------------------------------------------------


def cifar10_records(rng, count=7):
    """Labels, images as one sees them, and the bytes that say so."""
    labels = rng.integers(0, 10, count).astype(np.uint8)
    images = rng.integers(0, 256, (count, 32, 32, 3)).astype(np.uint8)
    planes = images.transpose(0, 3, 1, 2).reshape(count, -1)
    return labels, images, np.hstack([labels[:, None], planes]).tobytes()


def write_cifar10(folder, rng, archived=False):
    """A data set of random images; the labels and images of each file."""
    written = {name: cifar10_records(rng) for name in sets.CIFAR10_FILES}
    for name, (_, _, content) in written.items():
        (folder / name).write_bytes(content)
    if archived:
        with tarfile.open(folder / sets.CIFAR10_ARCHIVE, "w:gz") as archive:
            for name in sets.CIFAR10_FILES:
                archive.add(folder / name, f"cifar-10-batches-bin/{name}")
                (folder / name).unlink()
    return list(written.values())


@pytest.mark.parametrize("archived", [False, True])
def test_cifar10_is_read_from_its_archive_and_from_what_is_in_it(tmp_path, rng, archived):
    *train, test = write_cifar10(tmp_path, rng, archived)
    cifar10 = sets.cifar10(tmp_path)
    np.testing.assert_array_equal(
        cifar10.train.images, np.concatenate([images for _, images, _ in train])
    )
    np.testing.assert_array_equal(
        cifar10.train.labels, np.concatenate([labels for labels, _, _ in train])
    )
    np.testing.assert_array_equal(cifar10.test.images, test[1])
    assert (cifar10.test.images.dtype, cifar10.test.labels.dtype) == (np.uint8, np.int32)
    assert len(cifar10.description.classes) == 10


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda content: content[:-1], "holds 21510 bytes"),
        (lambda content: b"", "holds 0 bytes"),
        (lambda content: b"\x0a" + content[1:], "a label of 10 in record 0"),
    ],
)
def test_a_damaged_batch_of_cifar10_is_refused_by_name(tmp_path, rng, spoil, said):
    write_cifar10(tmp_path, rng)
    path = tmp_path / "data_batch_3.bin"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError) as refusal:
        sets.cifar10(tmp_path)
    assert str(path) in str(refusal.value)
    assert said in str(refusal.value)


@pytest.mark.parametrize("spoil", [no_gzip, cut_off, garbled])
def test_a_damaged_archive_of_cifar10_is_refused_by_name(tmp_path, rng, spoil):
    write_cifar10(tmp_path, rng, archived=True)
    path = tmp_path / sets.CIFAR10_ARCHIVE
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match="is no complete CIFAR-10 archive") as refusal:
        sets.cifar10(tmp_path)
    assert str(path) in str(refusal.value)


def test_an_archive_of_cifar10_of_which_one_bit_is_another_is_refused(tmp_path, rng):
    write_cifar10(tmp_path, rng, archived=True)
    path = tmp_path / sets.CIFAR10_ARCHIVE
    whole = path.read_bytes()
    # From behind the name and the time in the gzip header, which say nothing of the data.
    for place in rng.integers(8 * 60, 8 * len(whole), 100):
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        with pytest.raises(ValueError, match="is no complete CIFAR-10 archive"):
            sets.cifar10(tmp_path)


def test_no_more_of_an_archive_is_unpacked_than_is_allowed(tmp_path, rng, monkeypatch):
    write_cifar10(tmp_path, rng, archived=True)
    monkeypatch.setattr(sets, "MOST", 2**20)
    path = tmp_path / sets.CIFAR10_ARCHIVE
    sets.cifar10(tmp_path)
    path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()) + bytes(2**26), 1))
    most, raised = most_memory_of(sets.cifar10, tmp_path)
    assert "it holds more than 1,048,576 bytes" in str(raised)
    assert most < 2**23


def link(kind, target):
    member = tarfile.TarInfo(f"cifar-10-batches-bin/{sets.CIFAR10_FILES[0]}")
    member.type, member.linkname = kind, target
    return member


def with_holes():
    """An entry of the old GNU format that announces 4 TB, of which nothing is there."""
    member = link(tarfile.GNUTYPE_SPARSE, "")
    header = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    header[386:410] = b"00000000000\0" * 2  # where data begin, and how many
    header[483:495] = b"\x80" + (2**42).to_bytes(11, "big")
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header):06o}\0 ".encode()
    return bytes(header)


@pytest.mark.parametrize(
    "content",
    [
        link(tarfile.SYMTYPE, sets.CIFAR10_FILES[0]).tobuf(),
        link(tarfile.LNKTYPE, f"cifar-10-batches-bin/{sets.CIFAR10_FILES[0]}").tobuf(),
        link(tarfile.DIRTYPE, "").tobuf(),
        link(tarfile.FIFOTYPE, "").tobuf(),
        with_holes(),
    ],
    ids=["a link to itself", "a hard link to itself", "a folder", "a pipe", "holes"],
)
def test_only_plain_files_are_taken_from_an_archive(tmp_path, content):
    path = tmp_path / sets.CIFAR10_ARCHIVE
    path.write_bytes(gzip.compress(content + bytes(1024)))
    most, raised = most_memory_of(sets.cifar10, tmp_path)
    assert str(raised) == (
        f"{path} is no complete CIFAR-10 archive: it holds no plain file "
        f"cifar-10-batches-bin/data_batch_1.bin"
    )
    assert most < 2**20


def test_an_archive_that_goes_on_without_an_end_is_refused(tmp_path):
    header = link(tarfile.REGTYPE, "").tobuf()
    going_back = bytearray(header)
    going_back[124:136] = b"\xff" * 10 + (-512 & 0xFFFF).to_bytes(2, "big")
    going_back[148:156] = b" " * 8
    going_back[148:156] = f"{sum(going_back):06o}\0 ".encode()
    path = tmp_path / sets.CIFAR10_ARCHIVE
    path.write_bytes(gzip.compress(bytes(going_back) + bytes(1024)))
    with pytest.raises(ValueError, match="is no complete CIFAR-10 archive"):
        sets.cifar10(tmp_path)


def test_an_archive_of_something_else_is_refused(tmp_path):
    with tarfile.open(tmp_path / sets.CIFAR10_ARCHIVE, "w:gz"):
        pass
    with pytest.raises(ValueError, match=r"data_batch_1\.bin"):
        sets.cifar10(tmp_path)


def test_files_of_cifar10_that_are_missing_are_named(tmp_path, rng):
    write_cifar10(tmp_path, rng)
    (tmp_path / "test_batch.bin").unlink()
    with pytest.raises(FileNotFoundError, match=r"test_batch\.bin are in"):
        sets.cifar10(tmp_path)
