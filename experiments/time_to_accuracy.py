"""How long is it from nothing to 99 % on MNIST for jaxcnn, flax and PyTorch?

    python -m experiments.time_to_accuracy
    python -m experiments.time_to_accuracy --contestants jaxcnn --seeds 0 1 2

Claim: jaxcnn is there in a third of flax's time, and before PyTorch.

Method: the benchmark's MNIST CNN learns in float32 by AdamW for three epochs of batches of
128. All begin with the same parameters and take the same batches: it is one program,
written three times as each framework has it. jaxcnn's epoch is one compiled ``scan``; flax
and PyTorch take a step for each batch. Each runs in a process of its own, one after the
other. The clock runs from the start of the process, imports and compilation included, to
the accuracy on the 10,000 test images at its end.

Results: docs/speed.md.
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
from typing import Any, Literal

import numpy as np
from rich.console import Console
from rich.table import Table

from experiments.data import sets
from experiments.data.sets import DataSet
from experiments.run import command

ROOT = Path(__file__).resolve().parents[1]
BATCH, EPOCHS, RATE, DECAY = 128, 3, 2e-3, 0.1


Contestant = Literal["jaxcnn", "flax", "torch"]


@dataclass(frozen=True)
class Settings:
    """Who trains, and to which accuracy.

    Attributes:
      contestants: by name.
      seeds: each contestant trains with every one of them, in turn.
      accuracy: of the test set, which a run must have at its end.
      data_dir: where MNIST's files are; without it they are fetched.
      alone: the contestant that trains in this process, with the one seed that is given,
        and prints its accuracy after every epoch: how the race runs each.
    """

    contestants: tuple[Contestant, ...] = ("jaxcnn", "flax", "torch")
    seeds: tuple[int, ...] = (0, 1, 2)
    accuracy: float = 0.99
    data_dir: Path | None = None
    alone: Contestant | None = None

    def __post_init__(self):
        command.must_be_at_least(0, seeds=self.seeds)
        if not 0 < self.accuracy < 1:
            raise ValueError(f"accuracy is {self.accuracy}; it must be between 0 and 1")


# --- The contestants: each yields the accuracy after every epoch ----------------------


def first_parameters(seed: int) -> dict[str, dict[str, np.ndarray]]:
    """Normal, of a variance that is kept through ReLU; biases are zero."""
    rng = np.random.default_rng(seed)

    def layer(*shape):
        w = rng.standard_normal(shape, np.float32) * (2 / np.prod(shape[:-1])) ** 0.5
        return {"w": w.astype(np.float32), "b": np.zeros(shape[-1], np.float32)}

    return {
        "conv1": layer(3, 3, 1, 32),
        "conv2": layer(3, 3, 32, 64),
        "dense1": layer(7 * 7 * 64, 256),
        "dense2": layer(256, 10),
    }


def by_jaxcnn(dataset: DataSet, seed: int) -> Iterator[float]:
    """An epoch is one compiled scan."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    from jaxcnn import compiler_options, models, training

    model = models.standardized(models.small_cnn(28), (0.0,), (255.0,))
    optimizer = _optax(len(dataset.train.labels) // BATCH)
    parameters = jax.tree.map(jnp.asarray, first_parameters(seed))
    state = training.TrainingState(parameters, optimizer.init(parameters), jnp.int32(0))
    train, test = jax.tree.map(jnp.asarray, (dataset.train, dataset.test))

    @partial(jax.jit, compiler_options=compiler_options())
    def train_epoch(state, examples, order):
        def step(state, batch):
            images, labels = examples.images[batch], examples.labels[batch]
            return training.train_step(
                state, images, labels, model=model, optimizer=optimizer
            )

        return lax.scan(step, state, order)[0]

    for order in sets.batches(dataset.train, BATCH, EPOCHS, seed):
        state = train_epoch(state, train, order)
        evaluation = training.evaluate(state.parameters, *test, model=model)
        yield float(evaluation.metrics.accuracy)


def by_flax(dataset: DataSet, seed: int) -> Iterator[float]:
    """A compiled step for every batch, as in flax's own MNIST example."""
    import jax
    import jax.numpy as jnp
    import optax

    from experiments.benchmarking.flax_networks import MnistCNN

    network = MnistCNN()
    optimizer = _optax(len(dataset.train.labels) // BATCH)
    names = ("Conv_0", "Conv_1", "Dense_0", "Dense_1")
    parameters = {
        name: {"kernel": jnp.asarray(layer["w"]), "bias": jnp.asarray(layer["b"])}
        for name, layer in zip(names, first_parameters(seed).values(), strict=True)
    }
    optimizer_state = optimizer.init(parameters)
    train, test = jax.tree.map(jnp.asarray, (dataset.train, dataset.test))

    def logits_of(parameters, images) -> Any:
        return network.apply({"params": parameters}, images.astype(jnp.float32) / 255)

    @jax.jit
    def step(parameters, optimizer_state, examples, batch):
        images, labels = examples.images[batch], examples.labels[batch]

        def loss(parameters):
            logits = logits_of(parameters, images)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

        gradients = jax.grad(loss)(parameters)
        updates, optimizer_state = optimizer.update(gradients, optimizer_state, parameters)
        return optax.apply_updates(parameters, updates), optimizer_state

    @jax.jit
    def right(parameters, images, labels):
        return jnp.sum(jnp.argmax(logits_of(parameters, images), -1) == labels)

    for epoch in sets.batches(dataset.train, BATCH, EPOCHS, seed):
        for batch in epoch:
            parameters, optimizer_state = step(parameters, optimizer_state, train, batch)
        yield sum(
            int(right(parameters, test.images[at : at + 500], test.labels[at : at + 500]))
            for at in range(0, len(test.labels), 500)
        ) / len(test.labels)


def _optax(steps: int) -> Any:
    import optax

    rate = optax.cosine_decay_schedule(RATE, EPOCHS * steps)
    return optax.adamw(rate, weight_decay=DECAY)


def by_torch(dataset: DataSet, seed: int) -> Iterator[float]:
    """Channels last, which is the faster format here."""
    import torch
    from torch.nn.functional import cross_entropy

    from experiments.benchmarking.torch_networks import network

    torch.set_num_threads(os.cpu_count() or 1)
    model = network("MNIST CNN")
    _load(model, first_parameters(seed))
    model = model.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.AdamW(model.parameters(), RATE, weight_decay=DECAY)
    steps = EPOCHS * (len(dataset.train.labels) // BATCH)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: (1 + math.cos(math.pi * step / steps)) / 2
    )

    def tensors(examples):
        images = torch.tensor(examples.images).permute(0, 3, 1, 2)
        return images, torch.tensor(examples.labels).long()

    def floats(images):
        return (images.float() / 255).contiguous(memory_format=torch.channels_last)

    (images, labels), test = tensors(dataset.train), tensors(dataset.test)
    for epoch in sets.batches(dataset.train, BATCH, EPOCHS, seed):
        for batch in map(torch.from_numpy, epoch):
            optimizer.zero_grad()
            cross_entropy(model(floats(images[batch])), labels[batch]).backward()
            optimizer.step()
            schedule.step()
        with torch.no_grad():
            parts = zip(*(each.split(500) for each in test), strict=True)
            right = [(model(floats(x)).argmax(1) == y).sum() for x, y in parts]
        yield int(sum(right)) / len(dataset.test.labels)


def _load(model: Any, parameters: dict[str, dict[str, np.ndarray]]) -> None:
    """Into PyTorch's layers, whose channels come first, also where they are flattened."""
    import torch

    dense1 = parameters["dense1"]
    as_images = dense1["w"].reshape(7, 7, 64, 256)
    dense1["w"] = as_images.transpose(2, 0, 1, 3).reshape(7 * 7 * 64, 256)
    layers = [layer for layer in model if hasattr(layer, "weight")]
    with torch.no_grad():
        for layer, each in zip(layers, parameters.values(), strict=True):
            w = each["w"].transpose(3, 2, 0, 1) if each["w"].ndim == 4 else each["w"].T
            layer.weight.copy_(torch.tensor(w))
            layer.bias.copy_(torch.tensor(each["b"]))


CONTESTANTS: dict[Contestant, Callable[[DataSet, int], Iterator[float]]] = {
    "jaxcnn": by_jaxcnn,
    "flax": by_flax,
    "torch": by_torch,
}


# --- The race -------------------------------------------------------------------------


def work(name: Contestant, settings: Settings) -> None:
    """In a process of its own: the accuracy after every epoch, a line for each."""
    (seed,) = settings.seeds
    dataset = sets.mnist(settings.data_dir)
    for accuracy in CONTESTANTS[name](dataset, seed):
        print(json.dumps(accuracy), flush=True)


def timed(name: str, seed: int, data_dir: Path | None) -> list[tuple[float, float]]:
    """The accuracy after each epoch, and the seconds since the process was begun."""
    where = [] if data_dir is None else ["--data-dir", str(data_dir)]
    command = [sys.executable, "-m", "experiments.time_to_accuracy", "--alone", name]
    started = time.perf_counter()
    with subprocess.Popen(
        [*command, "--seeds", str(seed), *where],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    ) as process:
        assert process.stdout
        epochs = [
            (json.loads(line), time.perf_counter() - started) for line in process.stdout
        ]
    if process.returncode:
        raise ChildProcessError(f"{name} ended with {process.returncode}")
    return epochs


def main(settings: Settings) -> None:
    if settings.alone:
        work(settings.alone, settings)
        return
    reached: dict[str, list[float]] = {name: [] for name in settings.contestants}
    table = Table("", "seed", "accuracy after each epoch, %", "seconds after each epoch")
    for seed in settings.seeds:
        for name in settings.contestants:
            epochs = timed(name, seed, settings.data_dir)
            accuracy, seconds = epochs[-1]
            reached[name].append(seconds if accuracy >= settings.accuracy else math.inf)
            table.add_row(
                name,
                str(seed),
                ", ".join(f"{100 * accuracy:.2f}" for accuracy, _ in epochs),
                ", ".join(f"{seconds:.1f}" for _, seconds in epochs),
            )
    console = Console()
    console.print(table)
    for name, seconds in reached.items():
        each = ", ".join(f"{s:.1f}" for s in seconds)
        console.print(
            f"{name}: {100 * settings.accuracy:g} % after {median(seconds):.1f} s ({each})"
        )


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
