"""Files with random damage: read as something sound, or refused by their names.

What a format's own checksum would find is also damaged before the checksum is made, so that
the readers behind it get to see it.
"""

import gzip
import io
import json
import tarfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import strategies as st
from jax import export as jax_export
from PIL import Image, features

from experiments import export
from experiments.data import image_files, sets
from experiments.run import run_folder, saved_run
from experiments.run.options import Options
from tests.experiments.test_data import idx_bytes
from tests.random_cases.cases import every_number, for_every

MNIST = sets.Description((28, 28, 1), sets.DIGITS, mean=(0.0,), std=(255.0,))


@pytest.fixture(autouse=True)
def strict_jax():
    """Not here: files are read with JAX's defaults."""


# --- Damage ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Edit:
    """A place of a file, as a part of its length; how many bytes go; what comes instead."""

    place: float
    removed: int
    inserted: bytes

    def __call__(self, content: bytes) -> bytes:
        first = int(self.place * len(content))
        return content[:first] + self.inserted + content[first + self.removed :]


TELLING = [
    b"\0",
    b"\xff",
    b"\x7f\xff\xff\xff",
    b"\x80\0\0\0",
    b"\xff" * 8,
    b"0" * 11,
    b"-1",
]
"""Sizes and counts that readers trip over."""

edits = st.lists(
    st.builds(
        Edit,
        # Most of what a reader goes by is at a file's beginning, or at its end.
        place=st.one_of(st.floats(0, 1), st.floats(0, 0.05), st.floats(0.95, 1)),
        removed=st.one_of(st.integers(0, 8), st.integers(0, 10**6)),
        inserted=st.one_of(st.binary(max_size=8), st.sampled_from(TELLING)),
    ),
    min_size=1,
    max_size=4,
)


def damaged(content, by):
    for edit in by:
        content = edit(content)
    return content


def refused_or_read(read, path):
    """What is read, or None where it is refused by name."""
    try:
        return read()
    except (ValueError, OSError) as error:
        assert str(path) in str(error), error
        assert "\n" not in str(error)
    return None


# --- Data sets ------------------------------------------------------------------------


@every_number
@pytest.mark.parametrize("zipped", [False, True])
def test_damaged_idx_files(tmp_path, number, zipped):
    path = tmp_path / ("images.gz" if zipped else "images")
    whole = idx_bytes(np.arange(60).reshape(3, 4, 5))

    def check(case):
        inside, outside = case
        content = damaged(whole, inside)
        path.write_bytes(damaged(gzip.compress(content), outside) if zipped else content)
        array = refused_or_read(lambda: sets.read_idx(path), path)
        if array is not None:
            assert array.dtype == np.uint8
            assert array.size <= len(content)

    for_every(st.tuples(edits, st.one_of(st.just([]), edits)), number, check)


@every_number
def test_damaged_archives(tmp_path, number):
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        for name in sets.CIFAR10_FILES:
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = 3073
            archive.addfile(member, io.BytesIO(bytes(3073)))
    path = tmp_path / sets.CIFAR10_ARCHIVE

    def check(case):
        inside, outside = case
        content = damaged(written.getvalue(), inside)
        path.write_bytes(damaged(gzip.compress(content, 1), outside))
        cifar10 = refused_or_read(lambda: sets.cifar10(tmp_path), path)
        if cifar10:
            assert cifar10.train.labels.max() <= 9
            assert cifar10.train.images.size <= len(content)

    for_every(st.tuples(edits, st.one_of(st.just([]), edits)), number, check)


# --- Pictures -------------------------------------------------------------------------

FORMATS = ["PNG", "JPEG", "GIF", "TIFF", "BMP", "ICO", "PPM", "TGA", "PCX", "SGI", "DDS"]
FORMATS += [
    each
    for each in ("WEBP", "AVIF", "JPEG2000")
    if features.check(each.lower().replace("jpeg2000", "jpg_2000"))
]


@every_number
@pytest.mark.parametrize("kind", FORMATS)
def test_damaged_pictures(tmp_path, number, kind):
    picture = Image.new("RGB", (40, 30), "white")
    picture.paste((0, 60, 90), (5, 5, 20, 20))
    written = io.BytesIO()
    picture.save(written, kind)
    path = tmp_path / "picture"

    def check(by):
        path.write_bytes(damaged(written.getvalue(), by))
        image = refused_or_read(lambda: image_files.load(path, "mnist", MNIST), path)
        assert image is None or image.shape == (28, 28, 1)

    for_every(edits, number, check)


# --- Run folders ----------------------------------------------------------------------


@every_number
def test_damaged_parameters(tmp_path, number):
    path = tmp_path / "parameters.npz"
    parameters = {"conv": {"w": np.ones((2, 3), "float32"), "b": np.zeros(3, "float32")}}
    run_folder.save_parameters(path, parameters)
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}

    def check(case):
        inside, outside, deflated = case
        content = io.BytesIO()
        with zipfile.ZipFile(content, "w", 8 if deflated else 0) as archive:
            for name, member in members.items():
                archive.writestr(name, damaged(member, inside))
        path.write_bytes(damaged(content.getvalue() if inside else whole, outside))
        read = refused_or_read(lambda: run_folder.load_parameters(path, parameters), path)
        if read is not None:
            assert read["conv"]["w"].shape == (2, 3)
            assert read["conv"]["b"].dtype == np.float32

    some = st.one_of(st.just([]), edits)
    for_every(st.tuples(some, some, st.booleans()), number, check)


def places_in(content, *path):
    """Where the values of some JSON are: the names that lead there."""
    inside = content.items() if isinstance(content, dict) else ()
    for name, value in inside:
        yield (*path, name)
        yield from places_in(value, *path, name)


json_values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-2, 2**70),
        st.floats(),
        st.text(max_size=5),
        st.sampled_from(["digits", "auto", "vgg", 0, 1, 0.5, 8, "", "\x1b[2J"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=6,
)


@every_number
def test_damaged_configurations(tmp_path, number):
    options, images = Options(model="lenet5").completed(), sets.digits().description
    saved_run.write_configuration(tmp_path, options, images)
    path = tmp_path / "configuration.json"
    whole = path.read_text()
    places = sorted(places_in(json.loads(whole)))

    def check(case):
        place, value, by = case
        content = json.loads(whole)
        *branches, last = place
        inner = content
        for branch in branches:
            inner = inner[branch]
        inner[last] = value
        path.write_bytes(damaged(json.dumps(content).encode(), by))
        read = refused_or_read(lambda: saved_run.read_configuration(tmp_path), path)
        if read:
            again, description = read
            assert again == again.completed()
            json.dumps([again.to_json(), description.to_json()], allow_nan=False)

    some = st.one_of(st.just([]), edits)
    for_every(st.tuples(st.sampled_from(places), json_values, some), number, check)


@every_number
def test_damaged_metrics(tmp_path, number):
    path = Path(tmp_path, run_folder.METRICS)
    measured = {name: kind(0.5) for name, kind in run_folder.MEASURED.items()}
    records = [measured | {"epoch": epoch, "step": 42 * epoch} for epoch in (1, 2)]
    whole = "".join(json.dumps(record) + "\n" for record in records).encode()

    def check(by):
        path.write_bytes(damaged(whole, by))
        refused_or_read(lambda: run_folder.read_metrics(tmp_path), path)

    for_every(edits, number, check)


# --- Exported files -------------------------------------------------------------------


@every_number
def test_damaged_exported_files(tmp_path, number):
    # A digest of the damaged program is not among them: that is another sound file, of a
    # program for which nothing is promised.
    path = tmp_path / "model.jaxexport"
    images = jax.ShapeDtypeStruct((1, 2, 2, 1), np.uint8)
    program = jax.jit(lambda images: images.mean((1, 2)) / 255)
    whole = export.with_digest(jax_export.export(program)(images))
    four = "np.arange(4, dtype=np.uint8).reshape(1, 2, 2, 1)"
    lines = export.USE.format(images=four, path=str(path))

    def probabilities():
        names = {}
        exec(lines, names)
        return np.asarray(names["probabilities"])

    path.write_bytes(whole)
    np.testing.assert_allclose(probabilities(), [[1.5 / 255]], rtol=1e-6)

    def check(case):
        inside, of_digest = case
        program, digest = whole[:-32], whole[-32:]
        content = damaged(program, inside) + damaged(digest, of_digest)
        path.write_bytes(content)
        read = refused_or_read(probabilities, path)
        assert (read is not None) == (content == whole)

    some = st.one_of(st.just([]), edits)
    for_every(st.tuples(some, some), number, check)
