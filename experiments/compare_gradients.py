"""Do the hand-written gradients agree with everything they can be compared with?

    python -m experiments.compare_gradients
    python -m experiments.compare_gradients --op conv2d --engine patches
    python -m experiments.compare_gradients --quick

Claim: for every public operation, in every configuration of
:mod:`experiments.gradients.operations`, in both layouts, by every engine, the value, every
gradient (reverse mode) and every tangent (forward mode) agree with automatic
differentiation of the same loops, with XLA's own operation, with finite differences and,
where it is installed, with PyTorch: to 1e-10 in float64, to 1e-5 in float32, to one and a
half units in the last place in half precisions.

Method: references are computed in float64, of arguments that are the same numbers in every
precision. Cotangents and directions are random, since all-ones ones hide flips and shifts.
A tangent is along one argument, the others at rest. A number in the tables is the largest
deviation from a reference, divided by its largest entry. A dash: at a tie there are no
differences, and not every library has every operation.

Results: docs/exactness.md.
"""

import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.flatten_util import ravel_pytree
from rich.console import Console
from rich.progress import track

import jaxcnn
from experiments.gradients.arguments import normal, steps
from experiments.gradients.case import Case, torch_operations
from experiments.gradients.heat_map import picture_of
from experiments.gradients.operations import OPERATIONS, cases, timed_case
from experiments.gradients.tables import (
    TOLERANCE,
    Comparison,
    Timing,
    engine_table,
    nested,
    page_of,
    quantities,
    summary_of,
    table_of,
    timing_table,
)
from experiments.pages.pictures import drawn
from experiments.peers.jax_gradients import tangents, value_and_gradients
from experiments.peers.lax_operations import LackingError
from experiments.run import command
from experiments.run.command import ClaimError, must_be_known
from experiments.run.files import write_together
from experiments.run.origin import origin
from experiments.run.terminal import shown
from jaxcnn.engines import ENGINES

STEP = 2.0**-10  # a power of two: adding it to a float32 number is exact in float64

# Thousands of programs are compiled, and each runs once on tiny arrays: LLVM's
# optimizations would cost more time than all the rest together.
COMPILE_QUICKLY = {"xla_backend_optimization_level": 0}

EVERY_ENGINE = ("auto", *ENGINES)
MISSING = 'it is not installed; pip install "jaxcnn[bench]" has it'


@dataclass(frozen=True)
class Settings:
    """Compare hand-written gradients with autodiff, XLA, differences and PyTorch."""

    op: tuple[str, ...] = tuple(OPERATIONS)
    """The operations to compare, by their names in jaxcnn; by default all."""

    engine: tuple[str, ...] = EVERY_ENGINE
    """The engines to compare; by default all, and the plan's choice."""

    dtype: tuple[str, ...] = tuple(TOLERANCE)
    """The precisions to compare in; by default all."""

    quick: bool = False
    """Two configurations of each operation, and in these the plan's choice alone."""

    timing: bool = False
    """Time each operation, too, beside autodiff and XLA."""

    output_dir: Path = Path("runs/compare_gradients")
    """Where report.html, results.json and errors.png are written."""

    seed: int = 0
    """Of the arguments and the cotangents."""

    def __post_init__(self):
        must_be_known("op", self.op, OPERATIONS)
        must_be_known("engine", self.engine, EVERY_ENGINE)
        must_be_known("dtype", self.dtype, TOLERANCE)
        command.must_be_at_least(0, seed=self.seed)


# --- Derivatives, and what they should be ---------------------------------------------

Given = tuple[list[np.ndarray], np.ndarray, list[np.ndarray]]
"""Arguments; a cotangent that arrives at the value; a direction for each argument."""


def compare_case(
    case: Case,
    seed: int,
    engines: Sequence[str] = EVERY_ENGINE,
    dtypes: Sequence[str] = tuple(TOLERANCE),
) -> list[Comparison]:
    """All quantities of a case, by each engine, with every reference."""
    # Accelerators would round the factors of a float32 product further.
    with jax.enable_x64(True), jax.default_matmul_precision("highest"):
        arguments = list(case.arguments.values())
        results = (
            attempt(jax.eval_shape, way, *arguments) for way in (case.xla, case.custom)
        )
        shape = next(each.shape for each in results if not isinstance(each, Exception))
        # Another seed than the arguments': x as its own cotangent hides mistakes.
        rng = np.random.default_rng((seed, 1))
        cotangent = normal(rng, shape)
        given = arguments, cotangent, [steps(rng, each.shape) for each in arguments]
        expected = dict(references(case, given))
        comparisons = []
        for dtype in dtypes:
            able = attempt(case.engines, dtype)
            for engine in ("auto",) if isinstance(able, Exception) else able:
                if engine in engines:
                    comparisons += judged(case, dtype, engine, given, expected)
        return comparisons


def references(case: Case, given: Given) -> Iterator[tuple[str, dict]]:
    """By name: all quantities, computed in float64, or an exception."""
    given = in_dtype(given, "float64")
    ways = {
        "autodiff": partial(by_jax, case.autodiff),
        "XLA": partial(by_jax, case.xla),
        "differences": partial(differences, case.custom) if case.smooth else None,
        "PyTorch": torch_operations and partial(torch_operations.derivatives, case.torch),
    }
    for name, way in ways.items():
        computed = attempt(way, *given) if way else LackingError()
        if not isinstance(computed, LackingError):
            yield name, by_quantity(case, computed)


def judged(
    case: Case,
    dtype: str,
    engine: str,
    given: Given,
    expected: dict[str, dict],
) -> Iterator[Comparison]:
    """What an engine computes in a dtype, quantity by quantity, with each reference."""
    computed = attempt(by_jax, case.by(engine), *in_dtype(given, dtype))
    for quantity, ours in by_quantity(case, computed).items():
        for reference, of_all in expected.items():
            if quantity in of_all:
                which = (case.operation, case.name, engine, dtype, quantity, reference)
                yield Comparison(*which, *judge(ours, of_all[quantity], dtype))


def in_dtype(given: Given, dtype: str) -> Given:
    return jax.tree.map(lambda array: array.astype(dtype), given)


def by_quantity(case: Case, computed: list | Exception) -> dict:
    """All quantities by name, the value only if it is there; or the exceptions."""
    names = quantities(case.arguments)
    if isinstance(computed, Exception):
        return dict.fromkeys(names, computed)
    return dict(zip(names[-len(computed) :], computed, strict=True))


def by_jax(
    function: Callable,
    arguments: Sequence[np.ndarray],
    cotangent: np.ndarray,
    directions: Sequence[np.ndarray],
) -> list[np.ndarray]:
    """The value, the gradients of ⟨f(arguments), cotangent⟩, the tangents."""

    @partial(jax.jit, compiler_options=COMPILE_QUICKLY)
    def both_modes(arguments, cotangent, directions):
        return (
            *value_and_gradients(function, arguments, cotangent),
            *tangents(function, arguments, directions),
        )

    return list(map(np.asarray, both_modes(arguments, cotangent, directions)))


def differences(
    function: Callable,
    arguments: Sequence[np.ndarray],
    cotangent: np.ndarray,
    directions: Sequence[np.ndarray],
) -> list[np.ndarray]:
    """Both, by f'(x) ≈ (f(x − 2h) − 8 f(x − h) + 8 f(x + h) − f(x + 2h)) / 12h.

    Outputs are subtracted before they meet the cotangent: ⟨f, cotangent⟩ is a large
    number, and its rounding would be divided by h.
    """
    times = np.array([-2, -1, 1, 2]) * STEP
    weights = np.array([1, -8, 8, -1]) / (12 * STEP)
    start, unravel = ravel_pytree(arguments)
    # One argument moves, and the others stay where they are.
    alone = [
        np.concatenate([d.ravel() * (k == i) for k, d in enumerate(directions)])
        for i in range(len(directions))
    ]

    @partial(jax.jit, compiler_options=COMPILE_QUICKLY)
    def both_modes(start, cotangent, alone):
        def slope(moved):
            return jnp.tensordot(weights, lax.map(lambda t: function(*moved(t)), times), 1)

        def gradient(entry):
            return jnp.vdot(slope(lambda t: unravel(start.at[entry].add(t))), cotangent)

        def tangent(direction):
            return slope(lambda t: unravel(start + t * direction))

        gradients = unravel(lax.map(gradient, jnp.arange(start.size)))
        return *gradients, *lax.map(tangent, alone)

    return list(map(np.asarray, both_modes(start, cotangent, np.stack(alone))))


def attempt(function: Callable, *arguments: Any) -> Any:
    """What the function returns, or the exception: one failure must not hide another."""
    try:
        return function(*arguments)
    except Exception as error:
        return error


def judge(ours: Any, theirs: Any, dtype: str) -> tuple[float | None, str]:
    """The error of an array, and what is wrong with it."""
    for of, array in ("the rule", ours), ("the reference", theirs):
        if isinstance(array, Exception):
            return None, f"does not exist: {of} raised {type(array).__name__}: {array}"
    if ours.shape != theirs.shape or ours.dtype != dtype:
        return None, (
            f"is a {ours.dtype} array of shape {ours.shape}; it should be a {dtype} array "
            f"of shape {theirs.shape}"
        )
    ours = ours.astype(np.float64)
    if not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        return None, "is not finite"
    if not theirs.any():
        return None, "should be zero everywhere, which shows nothing"
    error = float(np.abs(ours - theirs).max() / np.abs(theirs).max())
    tolerance = TOLERANCE[dtype]
    if error > tolerance:
        return error, f"deviates by {error:.1e} of its largest entry, not {tolerance:.2g}"
    return error, ""


# --- Time -----------------------------------------------------------------------------


def measure(case: Case, seed: int, rounds: int = 5) -> Timing:
    """Beside autodiff and XLA: time, memory and second derivatives, in float32."""
    arguments = list(case.arguments.values())
    shapes = ", ".join(
        f"{name} {'×'.join(map(str, array.shape))}"
        for name, array in case.arguments.items()
    )
    beside = {
        name: jaxcnn.compare(case.custom, other, *arguments, rounds=rounds, seed=seed)
        for name, other in (("autodiff", case.autodiff), ("XLA", case.xla))
    }
    return Timing(case.operation, shapes, **beside)


# --- The command -----------------------------------------------------------------------


def main(settings: Settings) -> None:
    """Compare, print and write; complain of what is wrong."""
    console = Console(width=100, highlight=False)
    most = 2 if settings.quick else None
    engines = ("auto",) if settings.quick else settings.engine
    chosen = [case for op in settings.op for case in cases(op, settings.seed, most)]
    # Most of the time goes into compiling, which threads share.
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        of_all = {"seed": settings.seed, "engines": engines, "dtypes": settings.dtype}
        cases_compared = track(
            pool.map(partial(compare_case, **of_all), chosen),
            "comparing",
            len(chosen),
            console=console,
            transient=True,
        )
        comparisons = [comparison for of_case in cases_compared for comparison in of_case]
    timings = []
    if settings.timing:
        timings = [
            measure(timed_case(op, settings.seed), settings.seed) for op in settings.op
        ]

    console.print(table_of(comparisons))
    console.print()
    console.print(engine_table(comparisons))
    console.print()
    if timings:
        console.print(timing_table(timings))
        console.print()
    wrong = [each for each in comparisons if each.problem]
    for each in wrong:
        console.print(f"✗ {each}", style="red", markup=False)
    console.print(summary_of(comparisons), markup=False)
    if torch_operations is None:
        console.print(f"Not compared with PyTorch: {MISSING}", markup=False)
    write(settings, comparisons, timings)
    console.print(
        f"Written: {shown(settings.output_dir)}/report.html, results.json and errors.png",
        markup=False,
        emoji=False,
    )
    if wrong:
        raise ClaimError(f"{len(wrong)} disagree")


def write(settings: Settings, comparisons: list[Comparison], timings: list[Timing]) -> None:
    """All three files, or none of them."""
    made_by = origin()
    results = {
        "options": {**asdict(settings), "output_dir": str(settings.output_dir)},
        **made_by,
        "tolerance": TOLERANCE,
        "agree": not any(each.problem for each in comparisons),
        "summary": summary_of(comparisons),
        "errors": nested(comparisons),
        "problems": [asdict(each) for each in comparisons if each.problem],
        "timings": list(map(asdict, timings)),
    }
    picture = drawn(picture_of(comparisons))
    contents = {
        "results.json": json.dumps(results, indent=1, allow_nan=False).encode(),
        "errors.png": picture,
        "report.html": page_of(comparisons, timings, picture, made_by).encode(),
    }
    write_together(settings.output_dir, contents)


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
