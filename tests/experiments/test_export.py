"""The exported file: that it is the model, that it stands alone, and what is refused."""

import json
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from jax import export as jax_export

from experiments import export
from experiments.data import sets
from experiments.run.options import MODELS, Options
from tests.experiments import untrained


@pytest.fixture(autouse=True)
def strict_jax():
    """Not here: the command runs as its users run it, with JAX's defaults."""


DIGITS = sets.digits()
PLATFORMS = ("cpu", "cuda", "rocm", "tpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run in a folder of its own."""
    folder = tmp_path_factory.mktemp("runs") / "new"
    return untrained.saved(folder, Options(model="lenet5"), DIGITS.description)


def python(program, folder):
    """What a new process prints, in a folder that has nothing of this package."""
    return subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_file_gives_what_the_model_gives_for_any_number_of_images(run, tmp_path):
    path = tmp_path / "model.jaxexport"
    assert export.main(export.Settings(run.folder, output=path)) < 1e-6
    model = jax_export.deserialize(bytearray(path.read_bytes()))
    for count in 1, 2, 7:
        images = DIGITS.test.images[:count]
        probabilities = model.call(images)
        assert probabilities.dtype == np.float32
        np.testing.assert_allclose(probabilities, run.probabilities(images), atol=1e-6)


def test_a_damaged_file_is_never_used(run, tmp_path):
    content = export.artifact(run, ("cpu",))
    path = tmp_path / "model.jaxexport"
    use = export.USE.format(images="np.zeros((1, 8, 8, 1), np.uint8)", path=str(path))
    lines, _, _ = use.rpartition("probabilities")  # all but the call
    path.write_bytes(content)
    exec(lines, {})
    for place in range(0, len(content), len(content) // 97):
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=f"{re.escape(str(path))} is damaged"):
            exec(lines, {})
    for cut in content[:-1], content[:32], content[:31], content[-32:], content[-5:], b"":
        path.write_bytes(cut)
        with pytest.raises(ValueError, match=f"{re.escape(str(path))} is damaged"):
            exec(lines, {})


def test_no_images_at_all_are_not_promised(run):
    model = jax_export.deserialize(bytearray(export.artifact(run, ("cpu",))))
    with pytest.raises(ValueError, match="Expected value >= 1"):
        model.call(DIGITS.test.images[:0])


def test_the_lines_that_are_printed_work_in_another_program(run, tmp_path, capsys):
    path = tmp_path / "model.jaxexport"
    export.main(export.Settings(run.folder, output=path))
    said, lines = capsys.readouterr().out.split("In another program:\n")
    assert f"{path}: {path.stat().st_size:,} bytes, for cpu, cuda, rocm, tpu" in said
    program = export.WITHOUT_THIS_PACKAGE + lines + "print(probabilities.tolist())"
    process = python(program, tmp_path)
    assert not process.returncode, process.stderr
    black = np.zeros((5, 8, 8, 1), np.uint8)
    np.testing.assert_allclose(
        json.loads(process.stdout), run.probabilities(black), atol=1e-6
    )


def test_the_check_runs_where_this_package_cannot_be_imported(tmp_path):
    for name in "jaxcnn", "experiments.run.saved_run":
        process = python(f"{export.WITHOUT_THIS_PACKAGE}import {name}", tmp_path)
        assert process.stderr.splitlines()[-1].startswith("ModuleNotFoundError")


@pytest.mark.parametrize(
    ("name", "precision"),
    [*((name, "float32") for name in MODELS), ("lenet5", "bfloat16")],
)
def test_every_model_is_exported_for_any_batch_without_foreign_operations(name, precision):
    options = Options(model=name, precision=precision)
    run = untrained.run_of(options, DIGITS.description)
    exported = jax_export.deserialize(bytearray(export.artifact(run, PLATFORMS)))
    assert exported.platforms == PLATFORMS
    assert str(exported.in_avals) == "(ShapedArray(uint8[batch,8,8,1]),)"
    assert str(exported.out_avals) == "(ShapedArray(float32[batch,10]),)"
    assert exported.disabled_safety_checks == ()
    # Checks on the batch's size, which JAX itself writes and takes out again.
    operations = re.findall(r"custom_call\s*@(\w+)", exported.mlir_module())
    assert set(operations) == {"shape_assertion"}

    @jax.jit  # in one program, which takes half the time to compile
    def both(images):
        return exported.call(images), run.probabilities(images)

    rounding = export.ROUNDING[precision]
    np.testing.assert_allclose(*both(DIGITS.test.images[:3]), atol=rounding)


def test_only_the_platforms_that_are_named_are_in_the_file(run, tmp_path):
    path = tmp_path / "model.jaxexport"
    export.main(export.Settings(run.folder, path, platforms=("cpu", "tpu", "cpu")))
    assert jax_export.deserialize(bytearray(path.read_bytes())).platforms == ("cpu", "tpu")


def altered(run):
    """A run that says almost the same."""
    parameters = jax.tree.map(np.copy, run.parameters)
    parameters["dense3"]["b"][3] += 0.003
    return run._replace(parameters=parameters)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda run, make: make(altered(run), ("cpu",)), "more than rounding"),
        (lambda run, make: make(run, ("tpu",)), "cannot be used"),
        (lambda run, make: make(run, ("cpu",))[:-2000], "cannot be used"),
    ],
)
def test_a_file_that_fails_its_check_is_not_kept(run, monkeypatch, spoil, said):
    path = run.folder / "model.jaxexport"
    path.write_bytes(b"that of an earlier export")
    make = export.artifact
    monkeypatch.setattr(export, "artifact", lambda run, platforms: spoil(run, make))
    before = sorted(run.folder.iterdir())
    with pytest.raises(RuntimeError, match=said):
        export.main(export.Settings(run.folder))
    assert path.read_bytes() == b"that of an earlier export"
    assert sorted(run.folder.iterdir()) == before


def test_the_run_folder_s_own_file_is_replaced_and_no_other(run, tmp_path):
    own, other = run.folder / "model.jaxexport", tmp_path / "model.jaxexport"
    for path in own, other:
        path.write_bytes(b"something")
    export.main(export.Settings(run.folder))
    jax_export.deserialize(bytearray(own.read_bytes()))
    with pytest.raises(FileExistsError, match=r"--output .* exists"):
        export.main(export.Settings(run.folder, output=other))
    assert other.read_bytes() == b"something"


def test_a_file_that_could_not_be_checked_is_refused(run, tmp_path):
    path = tmp_path / "model.jaxexport"
    with pytest.raises(ValueError, match="--platforms is cuda tpu; cpu must be among them"):
        export.main(export.Settings(run.folder, path, platforms=("cuda", "tpu")))
    assert not path.exists()


def test_a_mistake_ends_the_command_with_a_sentence(tmp_path):
    process = subprocess.run(
        [sys.executable, "-m", "experiments.export", str(tmp_path)],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    assert process.stderr.startswith(f"error: {tmp_path} is no run folder")
