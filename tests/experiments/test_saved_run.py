"""Runs that are read again: what is damaged, or another's, is refused by its name."""

import io
import json
import pickle
import re
import tracemalloc
import zipfile

import numpy as np
import pytest

from experiments.data.sets import DIGITS, Description
from experiments.run import saved_run
from experiments.run.options import Options
from tests.experiments import untrained

OPTIONS = Options(model="lenet5").completed()
IMAGES = Description((8, 8, 1), DIGITS, mean=(0.0,), std=(16.0,), white=16)


@pytest.fixture(autouse=True)
def strict_jax():
    """Not here: runs are used with JAX's defaults."""


@pytest.fixture
def run(tmp_path):
    return untrained.saved(tmp_path / "run", OPTIONS, IMAGES)


def refusal_of(folder):
    with pytest.raises(ValueError) as refusal:
        saved_run.load(folder)
    return str(refusal.value)


# --- parameters.npz -------------------------------------------------------------------


def array(values, version=(1, 0)):
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(values), version)
    return file.getvalue()


def header(description, version=b"\1\0"):
    text = str(description).encode("latin1")
    return (
        b"\x93NUMPY"
        + version
        + len(text).to_bytes(4 if version[0] > 1 else 2, "little")
        + text
    )


FLOATS = {"descr": "<f4", "fortran_order": False, "shape": (10,)}
"""What the header of dense3/b says."""

PARAMETERS = {
    "empty": (lambda npz: b"", "File is not a zip file (BadZipFile)"),
    "cut off": (lambda npz: npz[:1000], "File is not a zip file (BadZipFile)"),
    "a single array": (
        lambda npz: array(np.ones(3)),
        "File is not a zip file (BadZipFile)",
    ),
    "a pickle": (lambda npz: pickle.dumps({"a": 1}), "File is not a zip file (BadZipFile)"),
    "words": (lambda npz: b"parameters", "File is not a zip file (BadZipFile)"),
}
"""What becomes of the whole file, and what is said."""

MEMBERS = {
    "missing": (None, "dense3/b is missing"),
    "of another shape": (
        array(np.ones(9, "float32")),
        "dense3/b is float32[9]; it must be float32[10]",
    ),
    "of another dtype": (
        array(np.ones(10)),
        "dense3/b is float64[10]; it must be float32[10]",
    ),
    "of objects": (
        array(np.array([1] * 10, object)),
        "dense3/b is object[10]; it must be float32[10]",
    ),
    "empty": (b"", "EOF: reading magic string, expected 8 bytes got 0"),
    "no array": (b"no array at all", "the magic string is not correct"),
    "cut off": (header(FLOATS) + bytes(39), "dense3/b has 39 bytes; it must have 40"),
    "too long": (header(FLOATS) + bytes(2**26), "dense3/b has 41 bytes; it must have 40"),
    "announced to be huge": (
        header(FLOATS | {"shape": (2**40,)}) + bytes(40),
        "dense3/b is float32[1099511627776]; it must be float32[10]",
    ),
    "behind a huge header": (
        header(" " * 2**26, b"\2\0"),
        "dense3/b is no array as NumPy saves those of numbers",
    ),
    "with a header of nonsense": (header("(" * 5000), ""),
}
"""What is in the place of dense3/b, and what is said."""


@pytest.mark.parametrize("damage", PARAMETERS)
def test_a_file_that_holds_no_parameters_is_refused_by_name(run, damage):
    path = run.folder / "parameters.npz"
    spoil, said = PARAMETERS[damage]
    path.write_bytes(spoil(path.read_bytes()))
    assert refusal_of(run.folder) == f"{path} holds no parameters of this model: {said}"


@pytest.mark.parametrize("damage", MEMBERS)
def test_an_array_that_is_no_parameter_is_refused_before_it_is_unpacked(run, damage):
    path = run.folder / "parameters.npz"
    content, said = MEMBERS[damage]
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, whole in members.items():
            written = content if name == "dense3/b.npy" else whole
            if written is not None:
                archive.writestr(name, written)
    del content, members, written
    tracemalloc.start()
    refusal = refusal_of(run.folder)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert refusal.startswith(f"{path} holds no parameters of this model: {said}")
    assert "pickle" not in refusal
    assert most < 2**23


def test_an_array_more_than_there_should_be_is_refused(run):
    with zipfile.ZipFile(run.folder / "parameters.npz", "a") as archive:
        archive.writestr("/".join("a" * 20_000) + ".npy", b"")
    assert refusal_of(run.folder).endswith("/a/a/a is unknown")


def test_one_bit_that_is_another_is_found(run, rng):
    path = run.folder / "parameters.npz"
    whole = path.read_bytes()
    for place in rng.integers(0, 8 * len(whole), 100):
        content = bytearray(whole)
        content[place // 8] ^= 1 << place % 8
        path.write_bytes(content)
        try:
            again = saved_run.load(run.folder)
        except ValueError as error:
            assert str(path) in str(error)
        else:  # a bit of what zip notes of no consequence, such as the time
            for layer, arrays in run.parameters.items():
                for name, values in arrays.items():
                    np.testing.assert_array_equal(again.parameters[layer][name], values)


def test_a_folder_in_place_of_parameters_is_no_finished_run(run):
    (run.folder / "parameters.npz").unlink()
    (run.folder / "parameters.npz").mkdir()
    with pytest.raises(FileNotFoundError, match="no epoch of this run was finished"):
        saved_run.load(run.folder)


# --- configuration.json ---------------------------------------------------------------


def changed(*path, to):
    """The configuration with another value at a place."""

    def change(content):
        *branches, last = path
        place = content
        for branch in branches:
            place = place[branch]
        place[last] = to
        return json.dumps(content)

    return change


CONFIGURATIONS = {
    "empty": (lambda _: "", "is no configuration of a run: Expecting value"),
    "no JSON": (lambda _: "{", "is no configuration of a run: Expecting property name"),
    "no text": (lambda _: "ÿ".encode("latin1"), "is no configuration of a run: 'utf-8'"),
    "no object": (lambda _: "[1]", "it holds no options and images"),
    "nothing in it": (lambda _: "{}", "it holds no options and images"),
    "deep": (lambda _: "[" * 10**5, "(RecursionError)"),
    "much": (lambda _: " " * 2**26, "it holds more than 1,048,576 bytes"),
    "a digit too many": (
        changed("options", "seed", to=10**40),
        "seed is 1000000000",
    ),
    "no options": (changed("options", to=7), "it is 7; it must be Options"),
    "an unknown option": (changed("options", "colour", to=1), "'colour' is unknown; there"),
    "an unknown data set": (
        changed("options", "dataset", to="svhn"),
        "dataset is 'svhn'; it must be 'digits' or 'mnist' or",
    ),
    "a list for a name": (changed("options", "model", to=["vgg"]), "model is ['vgg']; it"),
    "a model left open": (changed("options", "model", to="auto"), "was never chosen"),
    "a text for a number": (
        changed("options", "epochs", to="9"),
        "epochs is '9'; it must be int",
    ),
    "true for a number": (changed("options", "epochs", to=True), "epochs is True; it must"),
    "a fraction": (changed("options", "batch_size", to=1.5), "batch_size is 1.5; it must"),
    "a number for a path": (
        changed("options", "data_dir", to=3),
        "data_dir is 3; it must be Path",
    ),
    "an option out of range": (
        changed("options", "optimization", "momentum", to=7),
        "momentum is 7.0; it must be from 0 to below 1",
    ),
    "a number for a choice": (changed("options", "augment", "flip", to=1), "flip is 1; it"),
    "no images": (changed("images", to=None), "it is None; it must be Description"),
    "a flat image": (changed("images", "shape", to=[8, 8]), "shape is [8, 8]; it must be"),
    "no pixels": (changed("images", "shape", to=[8, 8, 0]), "shape is (8, 8, 0); it must"),
    "images too small": (changed("images", "shape", to=[1, 1, 1]), "describes no model: "),
    "images too large": (
        changed("images", "shape", to=[2**40, 2**40, 1]),
        "describes no model: ",
    ),
    "too few classes": (
        changed("images", "classes", to=["a"]),
        "classes are 1; all models",
    ),
    "numbers for classes": (
        changed("images", "classes", to=[*range(10)]),
        "classes is 0; it must be str",
    ),
    "no deviation": (
        changed("images", "std", to=[0]),
        "std is (0.0,); it must be one number",
    ),
    "NaN": (changed("images", "mean", to=[float("nan")]), "mean is (nan,); it must be one"),
    "no white": (changed("images", "white", to=0), "white is 0; it must be from 1 to 255"),
}
"""What becomes of the file, and what is said."""


@pytest.mark.parametrize("damage", CONFIGURATIONS)
def test_a_configuration_that_is_none_is_refused_by_name(run, damage):
    path = run.folder / "configuration.json"
    change, said = CONFIGURATIONS[damage]
    content = change(json.loads(path.read_text()))
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    refusal = refusal_of(run.folder)
    assert refusal.startswith(f"{path} ")
    assert said in refusal
    assert len(refusal) < 400


@pytest.mark.parametrize("part", ["options", "images"])
def test_nothing_of_a_configuration_may_be_missing(run, part):
    path = run.folder / "configuration.json"
    whole = json.loads(path.read_text())
    for name in whole[part]:
        rest = {each: value for each, value in whole[part].items() if each != name}
        path.write_text(json.dumps(whole | {part: rest}))
        assert re.search(
            f"no configuration of a run: '{name}' is missing$", refusal_of(run.folder)
        )
