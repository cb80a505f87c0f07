"""Stopped runs: they go on bit for bit, whenever they were killed, whatever was damaged."""

import gc
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from experiments import train
from experiments.run import run_folder
from experiments.run.checkpoints import Checkpoints
from experiments.run.optimization import Optimization
from experiments.run.options import Options
from jaxcnn import models, training
from tests.experiments import quick_start
from tests.models.parameters import drawn_at_once

ROOT = Path(__file__).parents[2]
QUICK_START = quick_start.__name__
OPTIONS = Options(
    model="lenet5",
    epochs=4,
    optimization=Optimization(average=0.9, warmup=0.25, clip=1.0, optimizer="sgd"),
)


# orbax reads arrays side by side: of several damaged ones it raises the first one's error,
# and drops the others'.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.usefixtures("no_reports_and_a_quick_start"),
]


@pytest.fixture(autouse=True)
def strict_jax():
    """Not here: the main job runs as its users run it, with JAX's defaults."""


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """A run that nobody stopped: its folder."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    train.main(train.Settings(OPTIONS, run_dir=folder, keep=3))
    return folder


def without_times(folder):
    """The metrics, but for what depends on the clock."""
    return [
        {name: value for name, value in record.items() if "seconds" not in name}
        for record in run_folder.read_lines(folder / run_folder.METRICS)
    ]


def assert_same_run(folder, other):
    assert without_times(folder) == without_times(other)
    one, another = (
        run_folder.load_parameters(each / "parameters.npz") for each in (folder, other)
    )
    chex.assert_trees_all_equal(one, another)


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """A run that its user ended just before the checkpoint of its third epoch."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    save = Checkpoints.save

    def save_two(self, number, state):
        if number == 3:
            raise KeyboardInterrupt
        save(self, number, state)

    said = f"stopped; to go on: .* --resume {folder}"
    with pytest.MonkeyPatch.context() as patch, pytest.raises(SystemExit, match=said):
        patch.setattr(Checkpoints, "save", save_two)
        train.main(train.Settings(OPTIONS, run_dir=folder, keep=3))
    return folder


def test_a_run_goes_on_bit_for_bit(undisturbed, stopped, tmp_path):
    folder = shutil.copytree(stopped, tmp_path / "run")
    assert len(without_times(folder)) == 3  # one more than there are checkpoints
    train.main(train.Settings(resume=folder, keep=3))
    assert_same_run(folder, undisturbed)


def test_a_damaged_checkpoint_is_set_aside_for_the_one_before(
    undisturbed, stopped, tmp_path, capsys
):
    folder = shutil.copytree(stopped, tmp_path / "run")
    files = [path for path in (folder / "checkpoints" / "2").rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    for place in range(0, len(content), 50):
        content[place] ^= 0xFF
    largest.write_bytes(content)
    train.main(train.Settings(resume=folder, keep=3))
    gc.collect()
    assert "epoch 2's checkpoint is damaged" in capsys.readouterr().out
    assert list((folder / "damaged").iterdir())
    assert_same_run(folder, undisturbed)


def test_content_that_is_not_what_was_saved_is_noticed(tmp_path):
    model, optimizer = drawn_at_once(models.lenet5(8)), optax.adam(1e-3)
    beginning = partial(training.initial_state, model, optimizer)
    state = jax.jit(beginning)(jax.random.key(0))
    other = state._replace(step=jnp.int32(7))
    checkpoints = Checkpoints(tmp_path, keep=2)
    checkpoints.save(1, state)
    checkpoints.save(2, other)
    first, second = (tmp_path / "checkpoints" / number / "about" for number in "12")
    (digest,) = first.glob("*metadata*")
    (place,) = second.glob("*metadata*")
    place.write_bytes(digest.read_bytes())
    warnings = []
    epoch, restored = checkpoints.restore(state, warnings.append)
    assert epoch == 1
    assert "its SHA-256 is" in warnings[0]
    chex.assert_trees_all_equal(restored, state)
    checkpoints.save(2, other)
    assert checkpoints.restore(state, warnings.append)[0] == 2
    for path in (tmp_path / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    assert checkpoints.restore(state, warnings.append) == (0, state)
    assert len(warnings) == 3
    checkpoints.close()
    gc.collect()


def test_only_the_last_checkpoints_are_kept(undisturbed):
    kept = sorted(path.name for path in (undisturbed / "checkpoints").iterdir())
    assert kept == ["2", "3", "4"]


def test_a_run_that_was_killed_goes_on(undisturbed, tmp_path):
    folder = tmp_path / "run"
    how = "--optimizer sgd --average 0.9 --warmup 0.25 --clip 1 --model lenet5 --epochs 4"
    run = subprocess.Popen(
        [sys.executable, "-m", QUICK_START, *how.split(), "--run-dir", folder],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "XLA_FLAGS": ""},
    )
    deadline = time.monotonic() + 120
    while not (folder / "checkpoints" / "1").is_dir() and run.poll() is None:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    run.send_signal(signal.SIGKILL)
    run.wait()
    train.main(train.Settings(resume=folder, keep=3))
    assert len(without_times(folder)) == 4
    # It began in a process whose CPU is not split into eight devices: rounding, if
    # anything.
    last, wanted = without_times(folder)[-1], without_times(undisturbed)[-1]
    np.testing.assert_allclose(last["test_loss"], wanted["test_loss"], rtol=1e-3)


def test_a_run_in_use_is_not_resumed(undisturbed):
    with run_folder.locked(undisturbed), pytest.raises(BlockingIOError, match="in use"):
        train.main(train.Settings(resume=undisturbed))


def test_a_finished_run_says_so_again(undisturbed):
    before = without_times(undisturbed)
    record = train.main(train.Settings(resume=undisturbed, keep=3))
    assert record["epoch"] == 4
    assert without_times(undisturbed) == before


def test_what_is_no_run_cannot_be_resumed(tmp_path):
    with pytest.raises(FileNotFoundError, match="is no run folder"):
        train.main(train.Settings(resume=tmp_path))


def test_options_cannot_be_given_to_a_run_that_has_them(tmp_path):
    with pytest.raises(ValueError, match="a run that has its options already"):
        train.Settings(Options(seed=1), resume=tmp_path)


def test_a_run_that_explodes_keeps_what_was_good(tmp_path):
    folder = tmp_path / "run"
    explosive = Options(
        model="lenet5",
        epochs=4,
        optimization=Optimization(
            optimizer="sgd", learning_rate=1e4, warmup=0.99, momentum=0.0, weight_decay=0.0
        ),
    )
    with pytest.raises(FloatingPointError, match="smaller learning_rate"):
        train.main(train.Settings(explosive, run_dir=folder))
    for record in without_times(folder):
        assert record["test_loss"] < 23.1
    assert all(map(np.isfinite, (r["train_loss"] for r in without_times(folder))))
