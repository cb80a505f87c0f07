"""How much faster does a network of another framework train with jaxcnn behind it?

    python -m experiments.frameworks
    python -m experiments.frameworks --frameworks "flax linen" Keras --batch-size 64

Claim: under ``jaxcnn.patch_jax()`` the networks of flax, equinox, haiku and Keras, as
their own documentation writes them (:mod:`experiments.benchmarking.framework_models`),
train with the same losses to within rounding, and faster.

Method: each network is built twice with the same seed and trained on the same batches of
random images, once as it is and once within ``with jaxcnn.patched_jax():``. The losses of
the first steps are compared; then the two take turns, and a time is the median of the
rounds (:mod:`experiments.benchmarking.timing`). A whole step is timed, with what the
framework does around its compiled program.

Results: docs/patching.md.
"""

import contextlib
import time
from dataclasses import dataclass

import jax
import numpy as np
from rich.console import Console
from rich.table import Table

import jaxcnn
from experiments.benchmarking.framework_models import FRAMEWORKS, Step
from experiments.benchmarking.timing import Contestant, race
from experiments.run import command
from experiments.run.command import ClaimError, must_be_known


@dataclass(frozen=True)
class Settings:
    """What to train, and how often.

    Attributes:
      frameworks: by name.
      batch_size: images in a batch.
      steps: how many losses to compare before anything is timed.
      rounds: how many times each is timed; 0 for as many as time allows, 5 to 15.
      tolerance: by how much losses may differ, relative to the larger.
    """

    frameworks: tuple[str, ...] = tuple(FRAMEWORKS)
    batch_size: int = 128
    steps: int = 10
    rounds: int = 0
    tolerance: float = 1e-3

    def __post_init__(self):
        must_be_known("frameworks", self.frameworks, FRAMEWORKS)
        command.must_be_at_least(1, batch_size=self.batch_size, steps=self.steps)
        command.must_be_at_least(0, rounds=self.rounds, tolerance=self.tolerance)


def batches(batch_size: int, count: int) -> list[tuple[jax.Array, jax.Array]]:
    """Random images of unit variance, and labels."""
    rng = np.random.default_rng(0)
    return [
        (
            jax.numpy.asarray(rng.standard_normal((batch_size, 28, 28, 1), np.float32)),
            jax.numpy.asarray(rng.integers(0, 10, batch_size, np.int32)),
        )
        for _ in range(count)
    ]


def trained(step: Step, data, patched: bool) -> np.ndarray:
    """The losses of a step for each batch."""
    with jaxcnn.patched_jax() if patched else contextlib.nullcontext():
        return np.array([float(step(*batch)) for batch in data])


def contestant(name: str, step: Step, batch, patched: bool) -> Contestant:
    def run(calls):
        with jaxcnn.patched_jax() if patched else contextlib.nullcontext():
            start = time.perf_counter()
            for _ in range(calls):
                jax.block_until_ready(step(*batch))
            return time.perf_counter() - start

    return Contestant(name, "", "step", run)


def main(settings: Settings) -> None:
    table = Table("", "as it is", "patched", "times faster", "losses differ by at most")
    agree = True
    data = batches(settings.batch_size, settings.steps)
    for name in settings.frameworks:
        plain, patched = FRAMEWORKS[name](), FRAMEWORKS[name]()
        losses = trained(plain, data, False), trained(patched, data, True)
        difference = np.max(np.abs(losses[0] - losses[1]) / np.maximum(*losses))
        agree &= bool(difference <= settings.tolerance)
        as_it_is, with_jaxcnn = race(
            [
                contestant("as it is", plain, data[0], False),
                contestant("patched", patched, data[0], True),
            ],
            settings.rounds,
            "frameworks",
            name,
        )
        table.add_row(
            name,
            f"{as_it_is.median_ms:.1f} ms",
            f"{with_jaxcnn.median_ms:.1f} ms",
            f"{as_it_is.median_ms / with_jaxcnn.median_ms:.2f}",
            f"{difference:.0e}",
        )
    Console().print(table)
    if not agree:
        raise ClaimError(f"losses differ by more than {settings.tolerance}")


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
