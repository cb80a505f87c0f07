"""How long from nothing to 99 % on MNIST: jaxcnn, flax and PyTorch, the same network?

    python -m experiments.time_to_accuracy
    python -m experiments.time_to_accuracy --contestants jaxcnn --seeds 0 1 2

HEADER
"""

# pyright: reportMissingImports=false

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Annotated

import tyro
from rich.console import Console
from rich.table import Table

from experiments import data
from experiments.data import DataSet

ROOT = Path(__file__).resolve().parents[1]
BATCH, EPOCHS, RATE, DECAY = 128, 4, 2e-3, 0.1


@dataclass(frozen=True)
class Settings:
    """Who trains, and to which accuracy.

    Attributes:
      contestants: by name.
      seeds: each contestant trains with every one of them, in turn.
      accuracy: of the test set, at which the clock stops.
      data_dir: where MNIST's files are; without it they are fetched.
    """

    contestants: tuple[str, ...] = ("jaxcnn", "flax", "torch")
    seeds: tuple[int, ...] = (0, 1, 2)
    accuracy: float = 0.99
    data_dir: Path | None = None
    worker: Annotated[str, tyro.conf.Suppress] = ""


# --- The contestants: each yields the accuracy after every epoch ----------------------


def by_jaxcnn(dataset: DataSet, seed: int) -> Iterator[float]:
    """An epoch is one compiled scan."""
    import jax
    import jax.numpy as jnp

    from jaxcnn import compiler_options, models, training

    model = models.standardized(models.small_cnn(28), (0.0,), (255.0,))
    optimizer = _optax(len(dataset.train.labels) // BATCH)
    train, test = jax.tree.map(jnp.asarray, (dataset.train, dataset.test))
    state = training.initial_state(model, optimizer, jax.random.key(seed))
    epoch = jax.jit(
        partial(training.train_epoch, model=model, optimizer=optimizer, batch_size=BATCH),
        compiler_options=compiler_options(),
    )
    for number in range(EPOCHS):
        key = jax.random.fold_in(jax.random.key(seed), number)
        state, _ = epoch(state, *train, key)
        evaluation = training.evaluate(state.parameters, *test, model=model)
        yield float(evaluation.metrics.accuracy)


def by_flax(dataset: DataSet, seed: int) -> Iterator[float]:
    """A compiled step for every batch, as in flax's own MNIST example.

    In one scan, as jaxcnn trains, flax takes 30 times as long.
    """
    import jax
    import jax.numpy as jnp
    import optax

    from experiments.benchmark_flax import MnistCNN

    network = MnistCNN()
    optimizer = _optax(len(dataset.train.labels) // BATCH)
    images = jnp.zeros((1, 28, 28, 1))
    parameters = network.init(jax.random.key(seed), images)
    optimizer_state = optimizer.init(parameters)
    train, test = jax.tree.map(jnp.asarray, (dataset.train, dataset.test))

    def logits_of(parameters, images):
        return network.apply(parameters, images.astype(jnp.float32) / 255)

    @jax.jit
    def step(parameters, optimizer_state, images, labels):
        def loss(parameters):
            logits = logits_of(parameters, images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        gradients = jax.grad(loss)(parameters)
        updates, optimizer_state = optimizer.update(gradients, optimizer_state, parameters)
        return optax.apply_updates(parameters, updates), optimizer_state

    @jax.jit
    def right(parameters, images, labels):
        return jnp.sum(jnp.argmax(logits_of(parameters, images), -1) == labels)

    for epoch in data.batches(dataset.train, BATCH, EPOCHS, seed):
        for batch in epoch:
            parameters, optimizer_state = step(
                parameters, optimizer_state, train.images[batch], train.labels[batch]
            )
        yield sum(
            int(right(parameters, test.images[at : at + 500], test.labels[at : at + 500]))
            for at in range(0, len(test.labels), 500)
        ) / len(test.labels)


def _optax(steps: int):
    import optax

    rate = optax.cosine_decay_schedule(RATE, EPOCHS * steps)
    return optax.adamw(rate, weight_decay=DECAY)


def by_torch(dataset: DataSet, seed: int) -> Iterator[float]:
    """Channels last, which is the faster format here."""
    import torch
    from torch.nn.functional import cross_entropy

    from experiments.benchmark_torch_networks import network

    torch.manual_seed(seed)
    torch.set_num_threads(os.cpu_count() or 1)
    model = network("MNIST CNN").to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY)
    steps = EPOCHS * (len(dataset.train.labels) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: (1 + math.cos(math.pi * step / steps)) / 2
    )

    def tensors(examples):
        images = torch.from_numpy(examples.images).permute(0, 3, 1, 2)
        return images, torch.from_numpy(examples.labels).long()

    def floats(images):
        return (images.float() / 255).contiguous(memory_format=torch.channels_last)

    (images, labels), test = tensors(dataset.train), tensors(dataset.test)
    for epoch in data.batches(dataset.train, BATCH, EPOCHS, seed):
        for batch in map(torch.from_numpy, epoch):
            optimizer.zero_grad()
            cross_entropy(model(floats(images[batch])), labels[batch]).backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            parts = zip(*(each.split(500) for each in test), strict=True)
            right = [(model(floats(x)).argmax(1) == y).sum() for x, y in parts]
        yield int(sum(right)) / len(dataset.test.labels)


CONTESTANTS: dict[str, Callable[[DataSet, int], Iterator[float]]] = {
    "jaxcnn": by_jaxcnn,
    "flax": by_flax,
    "torch": by_torch,
}


# --- The race -------------------------------------------------------------------------


def work(settings: Settings) -> None:
    """In a process of its own: the accuracy after every epoch, a line for each."""
    (seed,) = settings.seeds
    dataset = data.mnist(settings.data_dir)
    for accuracy in CONTESTANTS[settings.worker](dataset, seed):
        print(json.dumps(accuracy), flush=True)


def timed(name: str, seed: int, data_dir: Path | None) -> list[tuple[float, float]]:
    """The accuracy after each epoch, and the seconds since the process was begun."""
    where = [] if data_dir is None else ["--data-dir", str(data_dir)]
    command = [sys.executable, "-m", "experiments.time_to_accuracy", "--worker", name]
    started = time.perf_counter()
    with subprocess.Popen(
        [*command, "--seeds", str(seed), *where],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout
        found = [
            (json.loads(line), time.perf_counter() - started) for line in process.stdout
        ]
    if process.returncode:
        raise RuntimeError(f"{name} ended with {process.returncode}")
    return found


def main(settings: Settings) -> None:
    if settings.worker:
        work(settings)
        return
    reached: dict[str, list[float]] = {name: [] for name in settings.contestants}
    table = Table("", "seed", "accuracy after each epoch, %", "seconds after each epoch")
    for seed in settings.seeds:
        for name in settings.contestants:
            found = timed(name, seed, settings.data_dir)
            at = [s for accuracy, s in found if accuracy >= settings.accuracy]
            reached[name].append(min(at, default=math.inf))
            table.add_row(
                name,
                str(seed),
                ", ".join(f"{100 * accuracy:.2f}" for accuracy, _ in found),
                ", ".join(f"{seconds:.1f}" for _, seconds in found),
            )
    console = Console()
    console.print(table)
    for name, seconds in reached.items():
        each = ", ".join(f"{s:.1f}" for s in seconds)
        console.print(
            f"{name}: {100 * settings.accuracy:g} % after {median(seconds):.1f} s ({each})"
        )


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
