"""Stopped runs: they go on bit for bit, whenever they were killed, whatever was damaged."""

import dataclasses
import gc
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint
import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from experiments import train
from experiments.run import run_folder, saved_run
from experiments.run.checkpoints import Checkpoints
from experiments.run.interruption import uninterrupted
from experiments.run.optimization import Optimization
from experiments.run.options import Options, flattened
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
        for record in run_folder.read_metrics(folder)
    ]


def assert_same_run(folder, other):
    assert without_times(folder) == without_times(other)
    one, another = (saved_run.load(each).parameters for each in (folder, other))
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
    checkpoints = Checkpoints(tmp_path, keep=2, options={"seed": 0})
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
    assert len(warnings) == 1
    for path in (tmp_path / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.raises(ValueError, match=r"all checkpoints in .* are damaged, that of"):
        checkpoints.restore(state, warnings.append)
    assert len(warnings) == 1
    checkpoints.close()
    gc.collect()


def contents(folder):
    """Of all files but the lock."""
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


def assert_refused(folder, said):
    """A run that cannot go on says why, and is left as it was."""
    before = contents(folder)
    with pytest.raises((ValueError, OSError), match=said):
        train.main(train.Settings(resume=folder, keep=3))
    gc.collect()
    assert contents(folder) == before


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("seed", 1),
        ("model", "small-cnn"),
        ("batch_size", 64),
        ("optimization", {"average": 0.0}),
        ("optimization", {"optimizer": "lion"}),
        ("augment", {"shift": 1}),
    ],
)
def test_a_run_does_not_go_on_with_other_options(stopped, tmp_path, name, value):
    folder = shutil.copytree(stopped, tmp_path / "run")
    path = folder / "configuration.json"
    content = json.loads(path.read_text())
    options = content["options"]
    if isinstance(value, dict):
        options[name].update(value)
        name += "." + next(iter(value))
    else:
        options[name] = value
    path.write_text(json.dumps(content))
    assert_refused(folder, rf"epoch 2 .* whose {name} was .*, and here it is")


def test_data_may_be_elsewhere_when_a_run_goes_on():
    told = dict(flattened(OPTIONS.to_json()))
    assert set(told) - set(OPTIONS.deciding()) == {"data_dir"}


def test_a_checkpoint_of_another_model_is_not_called_damaged(tmp_path):
    optimizer = optax.adam(1e-3)
    one, other = (
        jax.jit(partial(training.initial_state, drawn_at_once(model), optimizer))(
            jax.random.key(0)
        )
        for model in (models.lenet5(8), models.lenet5(8, channels=3))
    )
    checkpoints = Checkpoints(tmp_path, 2, {})
    checkpoints.save(1, one)
    before = contents(tmp_path)
    with pytest.raises(
        ValueError, match=r"epoch 1 .* does not fit: .*conv1.*\(5, 5, 1, 6\)"
    ):
        checkpoints.restore(other, print)
    checkpoints.close()
    assert contents(tmp_path) == before


def test_a_checkpoint_that_tells_of_no_options_is_still_read(tmp_path):
    """As version 0.1.0 wrote it."""
    state = jax.jit(
        partial(training.initial_state, drawn_at_once(models.lenet5(8)), optax.adam(1e-3))
    )(jax.random.key(0))
    checkpoints = Checkpoints(tmp_path, 2, {})
    checkpoints.save(1, state)
    (about,) = (tmp_path / "checkpoints" / "1" / "about").glob("*metadata*")
    content = json.loads(about.read_text())
    assert content.pop("options") == {}
    about.write_text(json.dumps(content))
    checkpoints.close()
    again = Checkpoints(tmp_path, 2, {"seed": 0})
    epoch, restored = again.restore(state, print)
    assert epoch == 1
    chex.assert_trees_all_equal(restored, state)
    again.close()


def without_checkpoints(folder):
    shutil.rmtree(folder / "checkpoints")


def no_checkpoints(folder):
    without_checkpoints(folder)
    (folder / "checkpoints").mkdir()


def a_file_for_checkpoints(folder):
    without_checkpoints(folder)
    (folder / "checkpoints").write_text("")


def damaged_checkpoints(folder):
    for path in (folder / "checkpoints").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (without_checkpoints, "holds results but no checkpoint to go on from"),
        (no_checkpoints, "holds results but no checkpoint to go on from"),
        (a_file_for_checkpoints, r"checkpoints is no folder"),
        (damaged_checkpoints, r"all checkpoints in .* are damaged"),
    ],
)
def test_a_run_never_begins_anew_over_its_results(stopped, tmp_path, spoil, said):
    folder = shutil.copytree(stopped, tmp_path / "run")
    spoil(folder)
    assert_refused(folder, said)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "is missing"),
        (lambda lines: [], "tells of 0 epochs; 2 were finished"),
        (lambda lines: lines[:1], "tells of 1 epochs; 2 were finished"),
        (lambda lines: [lines[0], lines[1][:40]], "is damaged in line 2"),
        (lambda lines: [lines[0], lines[0]], "has epoch 1 in line 2"),
        (lambda lines: lines[1:], "has epoch 2 in line 1"),
        (lambda lines: [b"\0" * 300, *lines[1:]], "is damaged in line 1"),
        (lambda lines: [lines[0], b"\xff\xfe{}"], "is damaged in line 2"),
        (lambda lines: [lines[0], b"[" * 100_000], "is damaged in line 2"),
        (lambda lines: [lines[0], b"[2]"], "is damaged in line 2"),
        (lambda lines: [lines[0], b'{"epoch": 2}'], "is damaged in line 2: step, lea"),
    ],
)
def test_damaged_metrics_are_named_and_left_as_they_are(stopped, tmp_path, content, said):
    folder = shutil.copytree(stopped, tmp_path / "run")
    path = folder / "metrics.jsonl"
    lines = path.read_bytes().splitlines()
    path.unlink()
    if content is not None:
        path.write_bytes(b"\n".join(content(lines)))
    assert_refused(folder, rf"metrics\.jsonl {said}")


def test_what_a_kill_left_of_an_unfinished_line_is_forgotten(
    undisturbed, stopped, tmp_path
):
    folder = shutil.copytree(stopped, tmp_path / "run")
    path = folder / "metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-50])
    train.main(train.Settings(resume=folder, keep=3))
    assert_same_run(folder, undisturbed)


def test_what_a_kill_left_half_written_is_written_from_the_checkpoint(
    undisturbed, tmp_path
):
    folder = shutil.copytree(undisturbed, tmp_path / "run")
    (folder / "parameters.npz").write_bytes(b"those of an epoch before")
    for name in "parameters.npz", "report.html":
        (folder / f".{name}.abc.partial").mkdir()
    train.main(train.Settings(resume=folder, keep=3))
    assert_same_run(folder, undisturbed)
    assert not list(folder.glob("*.partial"))


def told_to_tensorboard(folder):
    """The values by name and step, as TensorBoard shows them, and how many there were."""
    shown, count = {}, 0
    for path in sorted((folder / "tensorboard").iterdir()):
        content, place = path.read_bytes(), 0
        while place < len(content):
            (length,) = struct.unpack_from("<Q", content, place)
            event = Event.FromString(content[place + 12 : place + 12 + length])
            place += 12 + length + 4
            if event.session_log.status == SessionLog.START:
                shown = {key: old for key, old in shown.items() if key[1] < event.step}
            for value in event.summary.value:
                assert (value.tag, event.step) not in shown
                shown[value.tag, event.step] = value.simple_value
                count += 1
    return shown, count


def test_tensorboard_is_told_of_every_step_once(undisturbed, stopped, tmp_path):
    folder = shutil.copytree(stopped, tmp_path / "run")
    train.main(train.Settings(resume=folder, keep=3))
    shown, _ = told_to_tensorboard(folder)
    assert shown == told_to_tensorboard(undisturbed)[0]
    assert len([1 for name, _ in shown if name == "batch/loss"]) == 4 * 42


def test_tensorboard_has_an_epoch_before_its_checkpoint_is_written(monkeypatch, tmp_path):
    """And so it is told twice of a first epoch that was not kept, and shows it once."""
    folder = tmp_path / "run"
    counts = []

    def stop(self, number, state):
        counts.append(told_to_tensorboard(folder)[1])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(Checkpoints, "save", stop)
        train.main(train.Settings(dataclasses.replace(OPTIONS, epochs=1), run_dir=folder))
    assert counts == [42 + 5]
    train.main(train.Settings(resume=folder))
    shown, count = told_to_tensorboard(folder)
    assert len(shown) == 42 + 5
    assert count == 2 * (42 + 5)


@pytest.fixture
def heeds_ctrl_c():
    """As in the foreground of a shell: what it runs in the background ignores Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_ctrl_c_waits_for_a_checkpoint_to_be_whole(monkeypatch, tmp_path):
    folder = tmp_path / "run"
    write = orbax.checkpoint.CheckpointManager.save

    def interrupted(self, *how, **options):
        signal.raise_signal(signal.SIGINT)
        return write(self, *how, **options)

    with monkeypatch.context() as patch, pytest.raises(SystemExit, match="stopped; to go"):
        patch.setattr(orbax.checkpoint.CheckpointManager, "save", interrupted)
        train.main(train.Settings(OPTIONS, run_dir=folder))
    assert [path.name for path in (folder / "checkpoints").iterdir()] == ["1"]
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


@pytest.mark.usefixtures("heeds_ctrl_c")
def test_a_second_ctrl_c_does_not_wait():
    reached = []
    with pytest.raises(KeyboardInterrupt), uninterrupted():
        signal.raise_signal(signal.SIGINT)
        reached.append("after the first")
        signal.raise_signal(signal.SIGINT)
        reached.append("after the second")
    assert reached == ["after the first"]


def test_a_run_that_was_stopped_before_it_began_can_begin(monkeypatch, tmp_path):
    folder = tmp_path / "run"

    def stop(*how):
        raise KeyboardInterrupt

    once = dataclasses.replace(OPTIONS, epochs=1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(saved_run, "write_configuration", stop)
        train.main(train.Settings(once, run_dir=folder))
    assert [path.name for path in folder.iterdir()] == [".lock"]
    (folder / ".configuration.json.abc.partial").mkdir()
    with pytest.raises(FileNotFoundError, match="is no run folder"):
        train.main(train.Settings(resume=folder))
    assert train.main(train.Settings(once, run_dir=folder))["epoch"] == 1
    assert not list(folder.glob("*.partial"))


def test_a_full_disk_is_named_and_the_run_goes_on_when_there_is_room(
    monkeypatch, undisturbed, stopped, tmp_path
):
    folder = shutil.copytree(stopped, tmp_path / "run")
    said = r"epoch 3 cannot be .*/run/checkpoints: that takes 1\.3 MB, and 1\.1 MB are free"
    with monkeypatch.context() as patch, pytest.raises(OSError, match=said) as refusal:
        patch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1_100_000))
        train.main(train.Settings(resume=folder, keep=3))
    (note,) = refusal.value.__notes__
    assert note.endswith(f"python -m experiments.train --resume {folder}")
    assert not (folder / "checkpoints" / "3").exists()
    train.main(train.Settings(resume=folder, keep=3))
    assert_same_run(folder, undisturbed)


def test_whatever_keeps_a_checkpoint_from_being_written_is_told_with_its_place(tmp_path):
    how = "--model lenet5 --epochs 2"
    limited = (
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000));"
        f"import runpy; runpy.run_module({QUICK_START!r}, run_name='__main__')"
    )
    process = subprocess.run(
        [sys.executable, "-c", limited, *how.split(), "--run-dir", tmp_path / "run"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 1
    place = tmp_path / "run" / "checkpoints"
    assert f"error: the checkpoint of epoch 1 cannot be written to {place}: " in (
        process.stderr
    )


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
