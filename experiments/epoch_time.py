"""Does an epoch take longer than its steps, now that it is one compiled ``scan``?

    python -m experiments.epoch_time
    python -m experiments.epoch_time --cases digits/small-cnn mnist/lenet5

Claim: an epoch as :mod:`experiments.train` runs it (shuffling, picking the images of each
batch, reporting every tenth step) takes at most 1.1 times as long as its steps, each
compiled alone and called from Python with a batch that is there already.

Method: both are compiled with what ``jaxcnn.compiler_options()`` advises and start from the
same state. They take turns (:mod:`experiments.benchmarking.timing`), and a time is the
median of the rounds; one of the steps is called several times, on one batch.

Results: docs/speed.md.
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.benchmarking.timing import Measurement, compiled, race
from experiments.data import sets
from experiments.run import command
from experiments.run.command import must_be_known
from experiments.run.options import MODELS, Options, model_of
from jaxcnn import compiler_options, training

CASES = ("digits/small-cnn", "mnist/lenet5", "mnist/small-cnn", "digits/resnet20")


@dataclass(frozen=True)
class Settings:
    """What to time.

    Attributes:
      cases: a data set and a model each, DATASET/MODEL.
      batch_size: images in a batch.
      steps: how many steps of an epoch to take.
      rounds: how often each is timed; 0 for as often as time allows, 5 to 15.
      data_dir: where MNIST's files are; without it they are fetched.
    """

    cases: tuple[str, ...] = CASES
    batch_size: int = 128
    steps: int = 100
    rounds: int = 7
    data_dir: Path | None = None

    def __post_init__(self):
        known = [f"{name}/{model}" for name in sets.DATA_SETS for model in MODELS]
        must_be_known("cases", self.cases, known)
        command.must_be_at_least(1, batch_size=self.batch_size, steps=self.steps)
        command.must_be_at_least(1, rounds=self.rounds)


def measured(case: str, settings: Settings) -> tuple[Measurement, Measurement]:
    """A step within an epoch, and a step alone."""
    name, model_name = case.split("/")
    dataset = sets.load(name, None if name == "digits" else settings.data_dir)
    options = Options(dataset=name, model=model_name)  # pyright: ignore[reportArgumentType]
    model = model_of(options, dataset.description)
    count = settings.steps * settings.batch_size
    chosen = np.arange(count) % len(dataset.train.labels)
    images, labels = (jnp.asarray(each[chosen]) for each in dataset.train)
    optimizer = options.optimization.transformation(settings.steps)
    known = {"model": model, "optimizer": optimizer}
    state = jax.jit(partial(training.initial_state, model, optimizer))(jax.random.key(0))
    epoch = partial(
        training.train_epoch,
        batch_size=settings.batch_size,
        report=lambda *batch: None,
        **known,
    )
    batch = images[: settings.batch_size], labels[: settings.batch_size]
    step = partial(training.train_step, **known)
    advised = compiler_options()
    arguments = (state, images, labels, jax.random.key(1))
    entries = [
        compiled("jaxcnn", "NHWC", "epoch", epoch, arguments, advised, settings.steps),
        compiled("jaxcnn", "NHWC", "step", step, (state, *batch), advised),
    ]
    whole, alone = race(entries, settings.rounds, "epoch", case)
    return whole, alone


def main(settings: Settings) -> None:
    table = Table("", "a step of an epoch, ms", "a step alone, ms", "epoch / its steps")
    for case in settings.cases:
        whole, alone = measured(case, settings)
        table.add_row(
            case,
            f"{whole.median_ms:.2f}",
            f"{alone.median_ms:.2f}",
            f"{whole.median_ms / alone.median_ms:.2f}",
        )
    Console().print(table)


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
