"""Convolutions and poolings of every kind, drawn at random: does one fall off a cliff?"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from rich.table import Table

import jaxcnn
from experiments.benchmarking.figures import by_case, fastest, number
from experiments.benchmarking.layers import (
    WITHOUT_LOOPS,
    compiled_without_loops,
    has_loops,
    in_layout,
    unit_variance,
)
from experiments.benchmarking.reference import relative_error
from experiments.benchmarking.tables import empty_table
from experiments.benchmarking.timing import Contestant, Measurement, compiled, race
from experiments.peers import lax_operations
from experiments.peers.jax_gradients import value_and_gradients
from jaxcnn.layout import LAYOUTS

MODE = "forward + backward"
MOST_TERMS = 3e8
MOST_NUMBERS = 8e6
POOLS = ("max pool", "average pool")
KINDS = ("plain", "strided", "dilated", "grouped", "depthwise", "large kernel", "long")
KINDS += POOLS
LIMITS = {
    "ms": (1.15, 0.3),
    "seconds to compile": (3, 1),
    "MiB of temporary memory": (1.5, 32),
}
"""What counts as a cliff: over so many times what lax takes, and so much more than it."""


@dataclass(frozen=True)
class RandomLayer:
    """A convolution with bias, in one to three dimensions, channels last."""

    kind: str
    batch: int
    size: tuple[int, ...]
    c_in: int
    c_out: int
    kernel: tuple[int, ...]
    stride: int
    padding: tuple[int, ...]
    dilation: int
    groups: int

    @property
    def output_size(self) -> tuple[int, ...]:
        each = zip(self.size, self.kernel, self.padding, strict=True)
        return tuple(
            (h + 2 * p - self.dilation * (k - 1) - 1) // self.stride + 1 for h, k, p in each
        )

    @property
    def name(self) -> str:
        def by(sizes: Sequence[int]) -> str:
            return "×".join(map(str, sizes))

        return (
            f"{self.kind}: {self.batch}×{by(self.size)}, {self.c_in}→{self.c_out}, "
            f"{by(self.kernel)}, p {by(self.padding)}, s {self.stride}, d {self.dilation}, "
            f"g {self.groups}"
        )

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        return {
            "x": (self.batch, *self.size, self.c_in),
            "w": (*self.kernel, self.c_in // self.groups, self.c_out),
            "b": (self.c_out,),
            "dy": (self.batch, *self.output_size, self.c_out),
        }

    @property
    def functions(self) -> dict[str, Callable]:
        ours = getattr(jaxcnn, f"conv{len(self.size)}d")
        names = ("stride", "padding", "dilation", "groups")
        known = {name: getattr(self, name) for name in names}
        by_name = {"lax": lax_operations.conv, "jaxcnn": ours}
        return {name: partial(each, **known) for name, each in by_name.items()}


@dataclass(frozen=True)
class RandomPool(RandomLayer):
    """A pooling of maxima or averages; its channels are ``c_in``."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        shapes = super().shapes
        return {name: shapes[name] for name in ("x", "dy")}

    @property
    def functions(self) -> dict[str, Callable]:
        short = "max" if self.kind == "max pool" else "avg"
        known = {"kernel_size": self.kernel, "stride": self.stride, "padding": self.padding}
        by_name = {
            "lax": getattr(lax_operations, f"{short}_pool"),
            "jaxcnn": getattr(jaxcnn, f"{short}_pool{len(self.size)}d"),
        }
        return {name: partial(each, **known) for name, each in by_name.items()}


def drawn(count: int, seed: int) -> list[RandomLayer]:
    """So many problems, a ninth of each kind, none too large to be timed."""
    rng = np.random.default_rng(seed)
    problems = []
    while len(problems) < count:
        problem = _draw(rng, KINDS[len(problems) % len(KINDS)])
        if problem is not None:
            problems.append(problem)
    return problems


def _draw(rng: np.random.Generator, kind: str) -> RandomLayer | None:
    def power(low: float, high: float) -> int:
        return round(2 ** rng.uniform(math.log2(low), math.log2(high)))

    n = 1 if kind == "long" else int(rng.choice([1, 2, 2, 2, 3]))
    size = tuple(power(4, {1: 300, 2: 64, 3: 20}[n]) for _ in range(n))
    if kind == "long":
        size = (power(500, 20_000),)
    kernel = tuple(int(rng.choice([1, 2, 3, 3, 3, 5])) for _ in range(n))
    if kind == "large kernel" or (kind in POOLS and rng.random() < 0.3):
        kernel = tuple(power(6, {1: 64, 2: 15, 3: 7}[n]) for _ in range(n))
    c_in, c_out = power(1, 256), power(1, 256)
    groups = 1
    if kind == "grouped":
        groups = int(rng.choice([2, 4, 8]))
        c_in, c_out = groups * power(1, 32), groups * power(1, 32)
    if kind == "depthwise":
        groups = c_in = power(4, 256)
        c_out = c_in * int(rng.choice([1, 1, 1, 2]))
    if kind in POOLS:
        groups = c_out = c_in
    strides = {"strided": [2, 3]} | {pool: [1, 2, 2, 3] for pool in POOLS}
    problem = (RandomPool if kind in POOLS else RandomLayer)(
        kind,
        power(1, 64),
        size,
        c_in,
        c_out,
        kernel,
        int(rng.choice(strides.get(kind, [1]))),
        tuple(k // 2 if rng.random() < 0.7 else 0 for k in kernel),
        power(2, 16) if kind == "dilated" else 1,
        groups,
    )
    out = problem.output_size
    if min(out) < 1:
        return None
    positions = problem.batch * math.prod(out)
    terms = positions * math.prod(kernel) * c_in * c_out / groups
    numbers = problem.batch * math.prod(size) * c_in + positions * c_out
    if terms > MOST_TERMS or numbers > MOST_NUMBERS or terms < 1e5:
        return None
    return problem


def measure_random(problem: RandomLayer, rounds: int, seed: int = 0) -> list[Measurement]:
    """Time its value and gradients, ours and lax's; lax has the better of both layouts."""
    arrays = unit_variance(problem.shapes, seed)
    entries: list[Contestant] = []
    first, last = LAYOUTS[len(problem.size)]
    for layout in last, first:
        *given, dy = (
            jnp.asarray(in_layout(array, name, layout)) for name, array in arrays.items()
        )
        for name, function in problem.functions.items():
            if name == "jaxcnn" and layout == first:
                continue
            timed = partial(value_and_gradients, partial(function, layout=layout))
            entries.append(compiled(name, layout, MODE, timed, (given, dy)))
            if name == "jaxcnn" and has_loops():
                entries.append(compiled_without_loops(layout, MODE, timed, (given, dy)))
    theirs = next(each for each in entries if each.name == "lax").outputs()
    for entry in entries:
        if entry.name != "lax":
            pairs = zip(*map(jax.tree.leaves, (entry.outputs(), theirs)), strict=True)
            entry.facts["error"] = max(
                relative_error(np.asarray(our), np.asarray(their)) for our, their in pairs
            )
    return race(entries, rounds, "random", problem.name)


def cliffs(measurements: Sequence[Measurement], contestant: str) -> dict[str, list[str]]:
    """The cases in which a contestant is beyond each of LIMITS, in words.

    What it is compared with is lax's best: of its time, of its memory, …, in any layout.
    """
    found: dict[str, list[str]] = {unit: [] for unit in LIMITS}
    for (_, case, _), group in by_case(measurements).items():
        own = [_costs(each) for each in group if each.contestant == contestant]
        lax = [_costs(each) for each in group if each.contestant == "lax"]
        if not own or not lax:
            continue
        for unit, (times, more) in LIMITS.items():
            ours, theirs = (min(each[unit] for each in costs) for costs in (own, lax))
            if ours > times * theirs and ours > theirs + more:
                found[unit].append(f"{case}: {ours:.3g} {unit}, lax {theirs:.3g}")
    return found


def _costs(measurement: Measurement) -> dict[str, float]:
    return {
        "ms": measurement.median_ms,
        "seconds to compile": measurement.compile_seconds or 0,
        "MiB of temporary memory": (measurement.temporary_bytes or 0) / 2**20,
    }


def random_table(measurements: Sequence[Measurement], most: int = 12) -> Table:
    """The cases in which jaxcnn gains least, beside lax: times, memory and compiling."""
    groups = by_case(measurements)

    def gain(group: Sequence[Measurement]) -> float:
        own, lax = fastest(group, "jaxcnn"), fastest(group, "lax")
        return lax.median_ms / own.median_ms if own and lax else math.inf

    table = empty_table(
        f"random problems: the {min(most, len(groups))} in which jaxcnn gains least, ms",
        "jaxcnn",
        "without\nloops",
        "lax",
        "× lax",
    )
    for (_, case, _), group in sorted(groups.items(), key=lambda each: gain(each[1]))[
        :most
    ]:
        own, others, lax = (
            fastest(group, name) for name in ("jaxcnn", WITHOUT_LOOPS, "lax")
        )
        table.add_row(case, number(own), number(others), number(lax), f"{gain(group):.2f}")
    return table
