"""Train a convolutional network whose every gradient is written by hand.

    python -m experiments.train
    python -m experiments.train --dataset mnist --model small-cnn --shift 2 --batch-size 32
    python -m experiments.train --dataset cifar10 --shift 4 --flip --precision bfloat16
    python -m experiments.train --resume runs/NAME
    python -m experiments.train --devices 8

Claim: the hand-written gradients train real networks, and quickly enough to play with.

Method: data sets are fetched (:mod:`experiments.data.download`) where ``--data-dir`` does
not say where their files are. All of a set lives on the device, and an epoch is one
compiled ``scan``, augmentation included (:mod:`experiments.run.augmentation`).
:mod:`experiments.run.run_folder` tells what a run leaves behind, and
:mod:`experiments.run.devices` how it is sharded over devices and machines.

Results: docs/runs.md.
"""

import dataclasses
import math
import shlex
import sys
import time
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from jax.experimental import multihost_utils
from rich.console import Console

from experiments.data import sets
from experiments.data.sets import DataSet
from experiments.pages import report
from experiments.run import (
    command,
    devices,
    journal,
    run_folder,
    saved_run,
    supervision,
    terminal,
)
from experiments.run.checkpoints import Checkpoints
from experiments.run.devices import Devices, Team
from experiments.run.options import Options, model_of
from experiments.run.terminal import shown
from jaxcnn import compiler_options, training


@dataclasses.dataclass(frozen=True)
class Settings:
    """Train a convolutional network and write what it learned to a run folder."""

    options: tyro.conf.OmitArgPrefixes[Options] = dataclasses.field(default_factory=Options)
    """What decides the result of the run."""
    run_dir: Path | None = None
    """A new folder for the results; by default one under runs/, named after its start."""
    resume: Path | None = None
    """The folder of a run that was stopped: it goes on, with its own options, as if it had
    never been stopped."""
    keep: int = 2
    """How many checkpoints are kept, one for each of the last epochs."""
    devices: tyro.conf.OmitArgPrefixes[Devices] = dataclasses.field(default_factory=Devices)
    """Which devices train together."""

    def __post_init__(self):
        if self.keep < 1:
            raise ValueError(f"keep is {self.keep}; it must be positive")
        if self.resume is not None and (self.options, self.run_dir) != (Options(), None):
            raise ValueError(
                f"resume is {self.resume}, a run that has its options already; only keep "
                f"and the devices can be given with it"
            )
        if self.devices.coordinator and not (self.run_dir or self.resume):
            raise ValueError(
                "run_dir is missing; processes that train together must be given the same"
            )


def main(settings: Settings) -> dict[str, Any]:
    """Train, write the run folder, and return the last line of its metrics."""
    if not settings.devices.coordinator:
        return _run(settings)
    folder = settings.run_dir or settings.resume
    assert folder is not None  # as the settings were checked
    if not supervision.is_child():
        supervision.stand_by(folder)
    with supervision.child_of_a_parent():
        return _run(settings)


def _run(settings: Settings) -> dict[str, Any]:
    """Train in this process, perhaps together with others."""
    started = time.perf_counter()
    team = devices.join(settings.devices)
    console = terminal.console(quiet=not team.leads)
    if settings.resume is None:
        options = settings.options.completed()
        folder = settings.run_dir or _default_folder(options)
    else:
        folder = settings.resume
        options, _ = saved_run.read_configuration(folder)
    _check_name(folder)
    dataset = sets.load(options.dataset, options.data_dir, options.validate)
    _check(options, dataset, team)
    with ExitStack() as stack:
        if team.leads:
            if settings.resume is None:
                run_folder.create(folder)
            stack.enter_context(run_folder.locked(folder))
            if settings.resume is None:
                run_folder.create(folder)  # for none may have begun in it meanwhile
                saved_run.write_configuration(folder, options, dataset.description)
        if settings.devices.coordinator:
            multihost_utils.sync_global_devices("the run folder is there")
        resume = shlex.quote(str(folder))
        to_go_on = f"to go on: python -m experiments.train --resume {resume}"
        try:
            record = _train(options, dataset, folder, settings.keep, team, console, started)
            if team.leads:
                report.write(folder)
        except KeyboardInterrupt:
            sys.exit(shown(f"stopped; {to_go_on}"))
        except OSError as error:
            error.add_note(f"When that is mended, {to_go_on}")
            raise
    console.print(
        f"test accuracy {100 * record['test_accuracy']:.2f} %, loss "
        f"{record['test_loss']:.4f}, after {record['seconds']:.1f} s; everything is in "
        f"{shown(folder)}"
    )
    return record


def _train(
    options: Options,
    dataset: DataSet,
    folder: Path,
    keep: int,
    team: Team,
    console: Console,
    started: float,
) -> dict[str, Any]:
    """From the last checkpoint, or the beginning, to the end: the last of the metrics."""
    steps = training.steps_in_epoch(len(dataset.train.labels), options.batch_size)
    model = model_of(options, dataset.description, team.axis_name)
    how = options.optimization
    optimizer = how.transformation(options.epochs * steps)
    rate = how.rate(options.epochs * steps)

    def beginning() -> training.TrainingState:
        key = jax.random.fold_in(jax.random.key(options.seed), 0)
        return training.initial_state(model, optimizer, key, averaged=how.average > 0)

    checkpoints = Checkpoints(folder, keep, options.deciding())
    done, state = checkpoints.restore(
        team.compiled(beginning)(), lambda said: console.print(shown(said))
    )
    records = run_folder.measured_before(folder, done)
    if team.leads:
        run_folder.write_metrics(folder, records)
        if done:  # a run may have been stopped between its checkpoint and these
            run_folder.save_parameters(folder / run_folder.PARAMETERS, state.trained)
    seconds_before = records[-1]["seconds"] if records else 0.0
    _announce(console, options, dataset, state, done)
    train, test = team.place((dataset.train, dataset.test))
    evaluate = team.compiled(
        partial(training.evaluate, model=model, axis_name=team.axis_name)
    )
    with journal.opened(
        folder,
        console,
        team.leads,
        steps_in_epoch=steps,
        steps=options.epochs * steps,
        first_step=done * steps,
    ) as diary:

        def one_epoch(state, examples, epoch):
            return training.train_epoch(
                state,
                *examples,
                jax.random.fold_in(jax.random.key(options.seed), epoch),
                model=model,
                optimizer=optimizer,
                batch_size=options.batch_size,
                augment=options.augment,
                label_smoothing=how.label_smoothing,
                average_decay=how.average,
                report=diary.batch,
                axis_name=team.axis_name,
            )

        train_epoch = team.compiled(one_epoch, compiler_options=compiler_options())
        for epoch in range(done + 1, options.epochs + 1):
            epoch_started = time.perf_counter()
            state, metrics = train_epoch(state, train, np.uint32(epoch))
            evaluation = evaluate(state.trained, *test)
            losses = np.asarray(metrics.loss)
            now = time.perf_counter()
            record = {
                "epoch": epoch,
                "step": int(state.step),
                "learning_rate": float(np.asarray(rate(epoch * steps - 1))),
                "train_loss": float(losses.mean()),
                "train_accuracy": float(metrics.accuracy.mean()),
                "test_loss": float(evaluation.metrics.loss),
                "test_accuracy": float(evaluation.metrics.accuracy),
                "epoch_seconds": round(now - epoch_started, 3),
                "seconds": round(seconds_before + now - started, 3),
            }
            _check_soundness(record, len(dataset.description.classes), folder)
            if team.leads:
                diary.epoch(record, losses)
            checkpoints.save(epoch, state)
            if team.leads:
                run_folder.save_parameters(folder / run_folder.PARAMETERS, state.trained)
            records.append(record)
    checkpoints.close()
    return records[-1]


def _check_name(folder: Path) -> None:
    try:
        str(folder.absolute()).encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"the run folder is {shown(folder.absolute())}; what writes checkpoints takes "
            f"only names that are UTF-8"
        ) from error


def _check(options: Options, dataset: DataSet, team: Team) -> None:
    """Refuse options that do not fit the data set or the devices."""
    steps = training.steps_in_epoch(len(dataset.train.labels), options.batch_size)
    count = 1 if team.mesh is None else team.mesh.size
    if options.batch_size % count:
        raise ValueError(
            f"batch_size is {options.batch_size}; it must be a multiple of the number of "
            f"devices, {count}"
        )
    if options.epochs * steps >= 2**31:
        raise ValueError(
            f"epochs is {options.epochs}, of {steps} steps each; there must be fewer than "
            f"2**31 steps, which are counted as int32"
        )
    options.augment.must_fit(dataset.description.shape)
    options.optimization.rate(options.epochs * steps)


def _check_soundness(record: dict[str, Any], classes: int, folder: Path) -> None:
    """Stop a run that exploded, before it replaces the last good checkpoint.

    Equal probabilities for all classes have a loss of log(classes). A training loss of ten
    times that is an explosion. A test loss may be as large for a while, since running
    statistics lag behind: it has to be finite.
    """
    guessing = math.log(classes)
    for name, worst in ("train_loss", 10 * guessing), ("test_loss", sys.float_info.max):
        if not record[name] <= worst:
            raise FloatingPointError(
                f"{name} became {record[name]:.3g} in epoch {record['epoch']}, where "
                f"guessing gives {guessing:.3g}: try a smaller learning_rate than "
                f"{record['learning_rate']:.3g}, or clip. What the epochs before it "
                f"learned is kept in {folder}"
            )


def _announce(
    console: Console,
    options: Options,
    dataset: DataSet,
    state: training.TrainingState,
    done: int,
) -> None:
    size = sum(leaf.size for leaf in jax.tree.leaves(state.parameters))
    kinds = {device.device_kind for device in jax.devices()}
    console.print(
        f"{options.model} ({size:,} parameters) on {options.dataset}: "
        f"{len(dataset.train.labels):,} images to train on, "
        f"{len(dataset.test.labels):,} to test on; jax {jax.__version__} on "
        f"{', '.join(kinds)}" + (f"; going on after epoch {done}" if done else "")
    )


def _default_folder(options: Options) -> Path:
    moment = time.strftime("%Y%m%d-%H%M%S")
    return Path("runs") / f"{options.dataset}-{options.model}-seed{options.seed}-{moment}"


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
