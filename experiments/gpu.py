"""Is jaxcnn right on the GPU at hand, and how fast is it, beside lax and PyTorch?

    python -m experiments.gpu               # eight minutes at most, on one GPU
    python -m experiments.gpu --quick       # tiny arrays, on a CPU as well

Claim: jaxcnn computes there what its tests say, and no layer, pool or training step takes
longer than by lax; the gradient of a max pool has the same bits at every run.

Method: first tests, in a process of their own, with ``highest`` precision of products. Then
contestants take turns (:mod:`experiments.benchmarking.timing`), each in the better of its
layouts; a number is the median of the rounds. A case for which time may be lacking is not
begun, and is named. Depthwise layers are timed by ``reductions``, too; where their parts
are, cuDNN's algorithms that XLA chose are noted. What it wants is on the page.

Results: docs/accelerators.md.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarking import cases
from experiments.benchmarking.cases import Layer, OnGpu, Pool
from experiments.benchmarking.figures import (
    by_case,
    fastest,
    geometric_mean,
    microseconds,
    ratios,
    table,
)
from experiments.benchmarking.layers import (
    contestants,
    in_layout,
    layer_functions,
    pool_functions,
    timed_in,
    unit_variance,
)
from experiments.benchmarking.timing import Measurement, compiled, race
from experiments.benchmarking.torch_process import TorchWorker
from experiments.benchmarking.training import measure_bfloat16, measure_network
from experiments.run.files import write_together
from experiments.run.origin import origin

ROOT = Path(__file__).resolve().parents[1]
TESTS = (
    "tests/engines/test_reductions.py",
    "tests/convolution/test_convolution.py",
    "tests/pooling/test_pooling.py",
    "tests/layers/test_normalization.py",
    "tests/convolution/test_transposed.py",
    "tests/engines/test_engines.py",
    "tests/layers/test_losses.py",
    "tests/pooling/test_adaptive.py",
)
"""Those that make sense on one GPU, in the order in which they run while there is time."""
QUICK_TESTS = ("tests/test_window.py",)
OPTIONS = ("--continue-on-collection-errors", "-p", "no:cacheprovider")
"""A file that wants what is not installed hides no other."""

TESTING = 150
"""Seconds for the tests."""
LONGEST = 75
"""Seconds that a case may take: with fewer left it is not begun."""
TIMES = 8
"""So many times a gradient is computed."""

ALGORITHM = re.compile(r'custom_call_target="(__cudnn\$\w+)".*?"algo_id":"(-?\d+)"')
BY_SUMS = "reductions"
"""The engine that depthwise layers are timed with, too, whatever the plan chooses."""
CONTESTANTS = {
    "jaxcnn": "jaxcnn",
    BY_SUMS: "by `reductions`",
    "lax": "lax",
    "torch": "PyTorch",
}


@dataclass(frozen=True)
class Settings:
    """How long it may take, and where its results go.

    Attributes:
      quick: a few tiny cases, on a CPU as well.
      minutes: for everything.
      output_dir: the folder for gpu.json and gpu.md.
    """

    quick: bool = False
    minutes: float = 8
    output_dir: Path = Path("runs/gpu")


# --- Tests ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """What became of the tests.

    Attributes:
      passed, skipped: how many.
      failed: their names.
      note: why there are no more, if that is so.
    """

    passed: int = 0
    skipped: int = 0
    failed: list[str] = field(default_factory=list)
    note: str = ""

    def __str__(self) -> str:
        counts = f"{self.passed} tests passed, {len(self.failed)} failed"
        return ". ".join(filter(None, [counts, self.note, *self.failed]))


def tested(paths: tuple[str, ...], report: Path, seconds: float) -> Verdict:
    """Run tests in a process of their own, for so many seconds at most."""
    if not find_spec("pytest"):
        return Verdict(note="pytest is not installed")
    report.parent.mkdir(parents=True, exist_ok=True)
    report.unlink(missing_ok=True)
    settings = {"JAX_DEFAULT_MATMUL_PRECISION": "highest", "JAXCNN_LOOPS": "0"}
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *paths, *OPTIONS, f"--junitxml={report}"],
        cwd=ROOT,
        env={**os.environ, **settings},
    )
    note = ""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        note = f"They were stopped after {seconds:.0f} s"
        process.send_signal(signal.SIGINT)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if not report.exists():
        return Verdict(note=note or f"They ended with status {process.returncode}")
    return replace(tests_in(report), note=note)


def tests_in(report: Path) -> Verdict:
    """What a report of pytest's says, in JUnit's format."""
    failed, skipped, count = [], 0, 0
    for each in ElementTree.parse(report).iter("testcase"):
        count += 1
        skipped += each.find("skipped") is not None
        if each.find("failure") is not None or each.find("error") is not None:
            failed.append(f"{each.get('classname')}.{each.get('name')}")
    return Verdict(count - skipped - len(failed), skipped, failed)


# --- Times ----------------------------------------------------------------------------


def measured(case: OnGpu, rounds: int, torch: TorchWorker | None) -> list[Measurement]:
    """Time a case in all its modes."""
    if isinstance(case.what, str):
        measure = measure_network if case.dtype == "float32" else measure_bfloat16
        measurements = measure(case.what, rounds, torch, case.images)
        return [replace(each, suite="gpu", case=case.name) for each in measurements]
    kind = "layer" if isinstance(case.what, Layer) else "pool"
    functions, arrays = given(case)
    measurements = []
    for mode in case.modes:
        entries = contestants(functions, arrays, mode)
        if torch:
            entries += torch.contestants(kind, case.what, mode, case.dtype)
        measurements += race(entries, rounds, "gpu", case.name)
    return measurements


def given(case: OnGpu) -> tuple[dict[str, Callable], dict[str, np.ndarray]]:
    """The functions that compute a layer or a pool, and its arrays, channels last."""
    assert not isinstance(case.what, str)
    arrays = unit_variance(case.what.shapes("NHWC"), 0)
    arrays = {name: each.astype(jnp.dtype(case.dtype)) for name, each in arrays.items()}
    if isinstance(case.what, Pool):
        return pool_functions(case.what), arrays
    functions = layer_functions(case.what)
    if 1 < case.what.groups == case.what.c_in:
        functions[BY_SUMS] = partial(functions["jaxcnn"], engine=BY_SUMS)
    return functions, arrays


def algorithms(case: OnGpu) -> dict[str, list[tuple[str, str]]]:
    """For each mode, cuDNN's algorithms in lax's program, as XLA chose them."""
    functions, arrays = given(case)
    *operands, dy = map(jnp.asarray, arrays.values())
    found = {}
    for mode in case.modes:
        function = partial(functions["lax"], layout="NHWC")
        timed, all_operands = timed_in(mode, function, operands, dy)
        program = jax.jit(timed).lower(*all_operands).compile().as_text() or ""
        found[mode] = ALGORITHM.findall(program)
    return found


def repeated(pool: Pool, rounds: int) -> tuple[dict[str, int], list[Measurement]]:
    """How many different gradients each contestant gives, and how long they take."""
    functions, layout = pool_functions(pool), "NCHW"
    arrays = unit_variance(pool.shapes("NHWC"), 0).items()
    *operands, dy = (jnp.asarray(in_layout(array, name, layout)) for name, array in arrays)
    entries = []
    for name, function, options in (
        ("jaxcnn", functions["jaxcnn"], {}),
        ("lax", functions["lax"], {}),
        ("lax, deterministic", functions["lax"], {"xla_gpu_deterministic_ops": True}),
    ):
        known = timed_in("input gradient", partial(function, layout=layout), operands, dy)
        entries.append(compiled(name, layout, "input gradient", *known, options))
    results = {
        each.name: len({np.asarray(each.outputs()).tobytes() for _ in range(TIMES)})
        for each in entries
    }
    return results, race(entries, rounds, "repeated", pool.name)


# --- Results --------------------------------------------------------------------------


@dataclass
class Results:
    """All that is written.

    Attributes:
      setting: the versions, the device and the date.
      tests: what became of them.
      different: for each contestant, how many gradients of a max pool differ.
      algorithms: of cuDNN's, for each layer whose parts are timed.
      measurements: of all cases.
      left_out: the names of cases for which there was no time.
      failures: what a case raised, by its name.
    """

    setting: dict[str, Any]
    tests: Verdict = field(default_factory=Verdict)
    different: dict[str, int] = field(default_factory=dict)
    algorithms: dict[str, dict[str, list]] = field(default_factory=dict)
    measurements: list[Measurement] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """gpu.json and gpu.md, each whole or not at all."""
        content = json.dumps(asdict(self), indent=1) + "\n"
        files = {"gpu.json": content, "gpu.md": "\n\n".join(self.paragraphs()) + "\n"}
        write_together(folder, {name: each.encode() for name, each in files.items()})

    def paragraphs(self) -> Iterator[str]:
        """What docs/accelerators.md has of it."""
        versions = self.setting["versions"]
        torch = f", PyTorch {versions['torch']}" if versions["torch"] else ""
        yield (
            f"{self.setting['device']}, {self.setting['date']}, jax {versions['jax']}"
            f"{torch}; medians, each in the better of its layouts."
        )
        of_cases = [each for each in self.measurements if each.suite == "gpu"]
        if of_cases:
            rows = []
            for (_, case, mode), group in by_case(of_cases).items():
                cells = [microseconds(fastest(group, name)) for name in CONTESTANTS]
                rows.append([f"{case}: {mode}", *cells])
            yield table(["microseconds", *CONTESTANTS.values()], rows)
            yield table(
                ["as multiples of jaxcnn's time, geometric mean", "cases", "", "worst"],
                list(means(of_cases)),
            )
        for name, count in self.different.items():
            own = fastest(self.measurements, name, "input gradient")
            yield (
                f"A max pool's gradient, {TIMES} times by {name}: {count} different, "
                f"{microseconds(own)} µs."
            )
        yield str(self.tests)
        if self.left_out:
            yield f"Without time for: {'; '.join(self.left_out)}."
        for name, failure in self.failures.items():
            yield f"{name} failed: {failure}"


def means(measurements: list[Measurement]) -> Iterator[list[str]]:
    """For each peer: how many cases, the geometric mean and the worst."""
    for peer, title in CONTESTANTS.items():
        own = [
            each
            for each in ratios(measurements)
            if each.peer == peer and each.mode in ("forward + backward", "step")
        ]
        if own:
            times = [each.times_faster for each in own]
            mean, worst = geometric_mean(times), min(times)
            yield [title, str(len(own)), f"{mean:.2f}", f"{worst:.2f}"]


# --- The command ----------------------------------------------------------------------


def main(settings: Settings) -> Results:
    """Test and time, print and write."""
    ends = time.monotonic() + 60 * settings.minutes
    folder, rounds = settings.output_dir, 2 if settings.quick else 0
    paths = QUICK_TESTS if settings.quick else TESTS
    tests = tested(paths, folder / "tests.xml", TESTING)  # before the GPU is taken here
    is_gpu = jax.default_backend() == "gpu"
    if not is_gpu and not settings.quick:
        raise ValueError(
            f"JAX finds no GPU, but a {jax.default_backend()}: try the command with --quick"
        )
    results = Results(origin() | {"date": time.strftime("%Y-%m-%d")}, tests)
    pool = cases.QUICK_REPEATED if settings.quick else cases.REPEATED
    results.different, results.measurements = repeated(pool, rounds)
    with ExitStack() as stack:
        torch = None
        try:
            worker = TorchWorker(sys.executable, "cuda" if is_gpu else "cpu")
            torch = stack.enter_context(worker)
        except (RuntimeError, OSError) as error:
            print(f"Without PyTorch: {error}")
        results.setting["versions"]["torch"] = torch.version if torch else None
        for case in cases.QUICK_ON_GPU if settings.quick else cases.ON_GPU:
            if time.monotonic() + LONGEST > ends:
                results.left_out.append(case.name)
                continue
            try:
                results.measurements += measured(case, rounds, torch)
                if is_gpu and len(case.modes) > 2:
                    results.algorithms[case.name] = algorithms(case)
            except Exception as error:  # one case that a GPU cannot do hides no other
                results.failures[case.name] = f"{type(error).__name__}: {error}"
            jax.clear_caches()
            if torch:
                torch.forget()
            results.write(folder)
    results.write(folder)
    print("\n\n".join(results.paragraphs()))
    print(f"\nWritten: {folder}/gpu.md and gpu.json")
    return results


def settings_of(arguments: list[str] | None = None) -> Settings:
    """The settings of the command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    default = Settings()
    parser.add_argument("--quick", action="store_true", help="tiny, on a CPU as well")
    parser.add_argument("--minutes", type=float, default=default.minutes)
    parser.add_argument("--output-dir", type=Path, default=default.output_dir)
    return Settings(**vars(parser.parse_args(arguments)))


if __name__ == "__main__":
    os.environ["JAXCNN_LOOPS"] = "0"  # they are for CPUs
    try:
        main(settings_of())
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")
