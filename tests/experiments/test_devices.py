"""Many devices, and many processes: the same training as on one device."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import chex
import jax
import numpy as np
import optax
import pytest

from experiments import train
from experiments.pages import report
from experiments.run import devices, run_folder, saved_run
from experiments.run.augmentation import Augmentation
from experiments.run.devices import Devices
from experiments.run.options import Options
from jaxcnn import models, training
from tests.experiments import quick_start
from tests.models.parameters import drawn_at_once

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def strict_jax():
    """Not here: the main job runs as its users run it, with JAX's defaults."""


BUILD = {
    "LeNet-5": lambda axis: models.lenet5(8, 2),
    "ResNet-20": lambda axis: models.resnet20(2, axis_name=axis),
}


def initial_state(model, optimizer, **known):
    """Compiled as a whole."""
    beginning = partial(training.initial_state, model, optimizer, **known)
    return jax.jit(beginning)(jax.random.key(0))


@pytest.mark.parametrize(
    "name", ["LeNet-5", pytest.param("ResNet-20", marks=pytest.mark.slow)]
)
def test_eight_devices_train_as_one_does_and_gather_nothing(name, rng):
    images = rng.integers(0, 256, (70, 8, 8, 2)).astype(np.uint8)
    labels = rng.integers(0, 10, 70).astype(np.int32)
    optimizer = optax.sgd(0.02, momentum=0.9)
    results, programs = [], []
    for team in devices.join(Devices(devices=1)), devices.join(Devices(devices=8)):
        model = drawn_at_once(BUILD[name](team.axis_name))
        model = models.standardized(model, (0.0,), (255.0,))
        state = team.place(initial_state(model, optimizer, averaged=True))

        def epoch(state, images, labels, seed, *, model=model, team=team):
            state, metrics = training.train_epoch(
                state,
                images,
                labels,
                jax.random.key(seed),
                model=model,
                optimizer=optimizer,
                batch_size=16,
                augment=Augmentation(crop=0.9, shift=1, flip=True, cutout=2),
                axis_name=team.axis_name,
            )
            return state, metrics

        arguments = (state, *team.place((images, labels)), np.uint32(1))
        compiled = team.compiled(epoch).lower(*arguments).compile()
        state, metrics = compiled(*arguments)
        evaluate = partial(
            training.evaluate, model=model, batch_size=5, axis_name=team.axis_name
        )
        evaluation = team.compiled(evaluate)(state.trained, *arguments[1:3])
        results.append(jax.device_get((state, metrics, evaluation)))
        programs.append(compiled.as_text())
    one, eight = programs
    assert "all-reduce" not in one
    assert re.search(r" all-reduce(-start)?\(", eight)
    assert not re.search(r"all-gather|all-to-all|collective-permute", eight)
    # float32, added in another order, through four steps, and twenty layers: 3e-6 seen.
    chex.assert_trees_all_close(*results, rtol=1e-4, atol=3e-5)


def test_a_report_comes_from_one_of_the_devices_alone(rng):
    team, optimizer = devices.join(Devices(8)), optax.sgd(0.01)
    model = drawn_at_once(models.lenet5(8))
    state = team.place(initial_state(model, optimizer))
    images, labels = team.place((np.ones((16, 8, 8, 1), "float32"), np.arange(16) % 10))
    reported = []

    def epoch(state, images, labels):
        return training.train_epoch(
            state,
            images,
            labels,
            jax.random.key(0),
            model=model,
            optimizer=optimizer,
            batch_size=8,
            report=lambda step, loss, accuracy: reported.append(int(step)),
            report_every=1,
            axis_name=team.axis_name,
        )

    jax.block_until_ready(team.compiled(epoch)(state, images, labels))
    jax.effects_barrier()
    assert sorted(reported) == [1, 2]


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def two_processes(folder, epochs, port):
    """A run by two processes on this machine, each with one device."""
    command = [
        sys.executable,
        "-m",
        "tests.experiments.quick_start",
        "--model",
        "lenet5",
        "--epochs",
        str(epochs),
        "--run-dir",
        folder,
        "--coordinator",
        f"127.0.0.1:{port}",
        "--num-processes",
        "2",
        "--process-id",
    ]
    return [
        subprocess.Popen(
            [*command, number],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={**os.environ, "XLA_FLAGS": ""},  # each with one device
        )
        for number in "01"
    ]


def trained_by_two_processes(folder):
    for run in two_processes(folder, 1, free_port()):
        output, _ = run.communicate(timeout=200)
        assert run.returncode == 0, output


def test_two_processes_train_as_one_does(tmp_path, monkeypatch):
    trained_by_two_processes(tmp_path / "two")
    quick_start.patch(monkeypatch.setattr)
    monkeypatch.setattr(report, "write", lambda folder: None)  # another test's matter
    one_epoch = Options(model="lenet5", epochs=1)
    train.main(train.Settings(one_epoch, run_dir=tmp_path / "one"))
    together, alone = (
        saved_run.load(tmp_path / processes).parameters for processes in ("two", "one")
    )
    # float32, added in another order: a rounding, and what 42 steps make of it.
    chex.assert_trees_all_close(together, alone, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("victim", "by"),
    [
        (0, signal.SIGKILL),
        (1, signal.SIGTERM),
        pytest.param(1, signal.SIGKILL, marks=pytest.mark.slow),
        pytest.param(0, signal.SIGINT, marks=pytest.mark.slow),
    ],
)
def test_when_one_process_is_stopped_so_are_all_and_say_how_to_go_on(tmp_path, victim, by):
    port = free_port()
    runs = two_processes(tmp_path / "two", 10**6, port)
    try:
        while not (tmp_path / "two" / run_folder.METRICS).exists():
            assert all(run.poll() is None for run in runs)
            time.sleep(0.1)
        # The coordinator is to be found where it was told to be, and nowhere else.
        socket.create_connection(("127.0.0.1", port)).close()
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.2", port))
        runs[victim].send_signal(by)
        outputs = [run.communicate(timeout=60)[0] for run in runs]
    finally:
        for run in runs:
            run.kill()
    go_on = f"; to go on, start all processes with --resume {tmp_path / 'two'}\n"
    assert runs[1 - victim].returncode == 1
    assert outputs[1 - victim].endswith(
        f"stopped: another process of this run has ended{go_on}"
    )
    if by != signal.SIGKILL:
        assert runs[victim].returncode == 1
        assert outputs[victim].endswith(f"stopped by {by.name}{go_on}")
    assert "Traceback" not in "".join(outputs)
    assert "stack trace" not in "".join(outputs)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"devices": -1}, "devices is -1; it must not be negative"),
        ({"devices": 65}, "devices is 65; it must be at most 64"),
        ({"coordinator": "host:1"}, "must be given together"),
        (
            {"coordinator": "host:1", "num_processes": 2, "process_id": 2},
            "process_id is 2 and num_processes 2",
        ),
    ],
)
def test_devices_that_cannot_be_are_refused(wrong, said):
    with pytest.raises(ValueError, match=re.escape(said)):
        Devices(**wrong)


@pytest.mark.parametrize(
    "address",
    ["", "foo", ":1234", "host:", "host:0", "host:65536", "host:no", "host:1/a", "::1:22"],
)
def test_an_address_that_is_none_is_refused(address):
    with pytest.raises(ValueError, match="it must be HOST:PORT"):
        Devices(coordinator=address, num_processes=1, process_id=0)


@pytest.mark.parametrize("address", ["127.0.0.1:1", "node-7.lan:65535", "[::1]:1234"])
def test_an_address_that_is_one_is_taken(address):
    Devices(coordinator=address, num_processes=1, process_id=0)


def test_more_devices_than_there_are_is_an_error():
    with pytest.raises(ValueError, match="devices is 9; this process has 8"):
        devices.join(Devices(devices=9))


def test_a_batch_that_devices_cannot_share_is_refused(rng):
    team, optimizer = devices.join(Devices(8)), optax.sgd(0.01)
    model = drawn_at_once(models.lenet5(8))
    state = team.place(initial_state(model, optimizer))
    epoch = partial(
        training.train_epoch,
        key=jax.random.key(0),
        model=model,
        optimizer=optimizer,
        batch_size=12,
        axis_name=team.axis_name,
    )
    images, labels = team.place((np.ones((24, 8, 8, 1), "float32"), np.arange(24) % 10))
    with pytest.raises(ValueError, match=r"batch_size is 12; .* devices, 8"):
        team.compiled(epoch)(state, images, labels)
