"""Fair timing: contestants take turns, so that all of them meet the same machine.

Every contestant warms up: two calls, or up to eleven within 50 ms. Then come rounds, in
each of which every contestant is timed once, each round starting with another one. Before
it is timed, one faster than 20 ms is called again, for 20 ms or 20 times, since the others
have emptied its caches and its share of the C library's memory; one faster than 2 ms is
called several times in a row and the time divided. One slower than 2 s warms up once and
gets two rounds; where that first call takes longer than 10 s, it is the measurement.

An accelerator computes its calls one after the other, while the host hands over the next
ones: they are waited for together.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

FAST, BRIEF, SLOW, ENDLESS = 0.002, 0.02, 2.0, 10.0  # seconds
WARM_UP = 0.05  # seconds
BUDGET = 2.5  # seconds for the rounds of one race
PAUSE = 0.002  # seconds: the other contestant's threads go to sleep


@dataclass
class Contestant:
    """Something to time.

    Attributes:
      name: whose implementation it is: ``"jaxcnn"``, ``"lax"``, …
      layout: ``"NCHW"`` or ``"NHWC"``.
      mode: what it does: ``"forward"``, ``"forward + backward"``, ``"step"``, ``"scan"``,
        ``"call"``.
      run: calls it this many times and returns the seconds that took.
      steps: how many steps one call makes, by which its time is divided.
      facts: what else is known: further fields of its :class:`Measurement`.
      outputs: calls it once and returns its results, for those that can.
    """

    name: str
    layout: str
    mode: str
    run: Callable[[int], float]
    steps: int = 1
    facts: dict[str, Any] = field(default_factory=dict)
    outputs: Callable[[], Any] = lambda: None


@dataclass(frozen=True)
class Measurement:
    """One line of the results: a contestant's time in one case, and its costs.

    Attributes:
      suite, case: ``"layers"`` and the layer's name, for example.
      mode, contestant, layout: what was timed, as in :class:`Contestant`.
      median_ms, quartile1_ms, quartile3_ms: of the rounds, for one call or one step.
      rounds, calls: how many rounds, of how many calls each.
      compile_seconds: for lowering and compiling; None for what is not compiled.
      temporary_bytes: peak memory besides arguments and results; likewise.
      error: the largest deviation relative to the largest entry: layers from float64,
        the worst of y, dx and dw; pools and calls from lax.
      errors: the same, one by one.
      peak_fraction: of the machine's matrix-product peak, for layers.
    """

    suite: str
    case: str
    mode: str
    contestant: str
    layout: str
    median_ms: float
    quartile1_ms: float
    quartile3_ms: float
    rounds: int
    calls: int
    compile_seconds: float | None = None
    temporary_bytes: int | None = None
    error: float | None = None
    errors: dict[str, float] | None = None
    peak_fraction: float | None = None


def compiled(
    name: str,
    layout: str,
    mode: str,
    function: Callable,
    arguments: Sequence[Any],
    compiler_options: dict[str, Any] | None = None,
    steps: int = 1,
) -> Contestant:
    """A JAX function as a contestant: compiled ahead of time, which is timed too."""
    start = time.perf_counter()
    jitted = jax.jit(function, compiler_options=compiler_options or None)
    program = jitted.lower(*arguments).compile()
    seconds = time.perf_counter() - start
    memory = program.memory_analysis()
    facts = {
        "compile_seconds": seconds,
        "temporary_bytes": getattr(memory, "temp_size_in_bytes", None),
    }
    return called(name, layout, mode, program, arguments, steps, facts)


def called(
    name: str,
    layout: str,
    mode: str,
    function: Callable,
    arguments: Sequence[Any],
    steps: int = 1,
    facts: dict[str, Any] | None = None,
) -> Contestant:
    """A function as a contestant, called as it is: without ``jit`` if it has none."""

    in_turn = jax.default_backend() == "cpu"

    def run(calls):
        results = None
        start = time.perf_counter()
        for _ in range(calls):
            results = function(*arguments)
            if in_turn:
                jax.block_until_ready(results)
        jax.block_until_ready(results)
        return time.perf_counter() - start

    def outputs():
        return function(*arguments)

    return Contestant(name, layout, mode, run, steps, facts or {}, outputs)


def race(
    contestants: Sequence[Contestant], rounds: int, suite: str, case: str
) -> list[Measurement]:
    """Time them all; ``rounds`` 0 is 5 to 15, as time allows."""
    seconds = [[] for _ in contestants]
    estimates = []
    for contestant, times in zip(contestants, seconds, strict=True):
        estimates.append(contestant.run(1))
        if estimates[-1] > ENDLESS:
            times.append(estimates[-1])
        elif estimates[-1] < SLOW:
            warm_up = min(10, max(1, int(WARM_UP / max(estimates[-1], 1e-6))))
            estimates[-1] = contestant.run(warm_up) / warm_up
    calls = [calls_in_a_round(estimate) for estimate in estimates]
    one_round = sum(
        count * estimate
        for count, estimate in zip(calls, estimates, strict=True)
        if estimate < SLOW
    )
    rounds = rounds or min(15, max(5, int(BUDGET / max(one_round, 1e-9))))
    turns = list(range(len(contestants)))
    for turn in range(rounds):
        for i in turns[turn % len(turns) :] + turns[: turn % len(turns)]:
            if estimates[i] > ENDLESS or (estimates[i] > SLOW and turn >= 2):
                continue
            time.sleep(PAUSE)
            if estimates[i] < BRIEF:
                contestants[i].run(min(20, math.ceil(BRIEF / max(estimates[i], 1e-6))))
            seconds[i].append(contestants[i].run(calls[i]) / calls[i])
    return [
        measured(contestant, times, count, suite, case)
        for contestant, times, count in zip(contestants, seconds, calls, strict=True)
    ]


def calls_in_a_round(estimate: float) -> int:
    if estimate >= FAST:
        return 1
    return min(100, math.ceil(2 * FAST / max(estimate, 1e-6)))


def measured(
    contestant: Contestant, seconds: list[float], calls: int, suite: str, case: str
) -> Measurement:
    milliseconds = 1000 * np.array(seconds) / contestant.steps
    low, median, high = np.percentile(milliseconds, [25, 50, 75]).tolist()
    return Measurement(
        suite,
        case,
        contestant.mode,
        contestant.name,
        contestant.layout,
        median,
        low,
        high,
        len(seconds),
        calls,
        **contestant.facts,
    )


def matrix_product_peak(size: int = 2048, repeats: int = 9) -> float:
    """How many float32 operations a second a large matrix product reaches at best."""
    a = jax.random.normal(jax.random.key(0), (size, size), jnp.float32)
    contestant = compiled("matmul", "", "peak", jnp.matmul, (a, a))
    contestant.run(2)
    return 2 * size**3 / min(contestant.run(1) for _ in range(repeats))
