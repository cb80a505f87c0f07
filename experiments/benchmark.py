"""How fast is jaxcnn, beside lax, flax and PyTorch?

    python -m experiments.benchmark                       # everything
    python -m experiments.benchmark --quick               # about a minute
    python -m experiments.benchmark --suite layers --only depthwise

Claim: with hand-written gradients a network trains faster than with those that JAX derives,
and a training loop in ``lax.scan`` many times faster.

Contestants. jaxcnn; lax, which is ``lax.conv_general_dilated`` and ``lax.reduce_window``
differentiated by JAX; flax linen (networks only, channels last); PyTorch, with autograd,
not compiled, in a process of its own with as many threads as there are cores. Each counts
with the better of its layouts, NCHW and NHWC. Where jaxcnn advises compiler options, it
takes part a second time with them, channels last, in columns of its own.

Suites. *layers*: convolutions with bias, forward alone and with the gradients of x, w and
b. *pools*: likewise. *networks*: a whole training step, by stochastic gradient descent
with momentum. *scan*: the same step in ``lax.scan`` over several batches, beside the step
alone. Everything is float32, of random numbers of unit variance; nothing is donated.

How it is timed: contestants take turns (:mod:`experiments.benchmark_timing`); a number is
the median of the rounds, the spread its interquartile range. A ratio is the peer's time
divided by jaxcnn's: above one, jaxcnn is faster. A suite ends with the geometric mean of
its ratios and the worst of them.

What else is measured: the fraction of the machine's matrix-product peak, that of a 2048³
float32 product in the same process; the time to compile; the peak temporary memory, as
the compiler states it; and for layers the error, the largest deviation of y, dx or dw
from float64 (:mod:`experiments.benchmark_reference`) relative to the largest entry. A
layer that is off by more than 1e-4, or a pool that differs from lax by more than 1e-6,
makes the command fail.

Measured on two cores of an AMD EPYC (AVX-512, no AMX; a matrix product reaches 170 to 205
GFLOP/s, and varies by as much from run to run), PyTorch 2.13.0, flax 0.12, with 5 rounds
(layers, networks), 9 (pools) or 3 (scan); the suites in separate runs. Geometric means, in
brackets the worst case; "+" with jaxcnn's compiler options.

                                    jax 0.10.2           +      jax 0.12.0           +
    layers, fwd + bwd    × lax     2.27 (0.76)   2.48 (0.54)   2.18 (0.77)   2.35 (0.85)
                         × torch   0.64 (0.24)   0.70 (0.34)   0.78 (0.35)   0.84 (0.44)
    pools, fwd + bwd     × lax     4.80 (0.78)   5.07 (0.54)   4.80 (0.87)   5.75 (0.84)
                         × torch   0.91 (0.66)   0.96 (0.64)   0.85 (0.46)   1.02 (0.45)
    networks, step       × lax     1.94 (1.19)   2.22 (1.24)   2.20 (1.38)   2.23 (1.31)
                         × flax    2.05 (1.33)   2.36 (1.39)   2.20 (1.39)   2.23 (1.29)
                         × torch   0.61 (0.42)   0.70 (0.44)   0.77 (0.57)   0.78 (0.54)
    in lax.scan          × lax     35.7 (5.5)    38.9 (6.2)    29.4 (MNIST CNN only)
    a step in lax.scan / alone, jaxcnn: 0.74 to 0.98 on 0.10.2, 0.70 (MNIST CNN) on 0.12;
        lax: 2.5 (LeNet-5) to 59 (VGG)
    NCHW / NHWC, a network's step: 1.18 and 1.26, MobileNet worst with 1.48 and 1.81
    largest error of a layer against float64: 1.0e-5; lax's own likewise
    compile time of a step, × lax's, on 0.10.2: 1.2 to 2.4 (MobileNet)
    temporary memory of a step, × lax's, on 0.10.2: 0.3 to 1.7 (ResNet-20)

After these runs small average pools that do not overlap went back to sums of taps.

What the profiles say about the figures that are lower than one would like:

* Dense layers against lax. XLA's convolution reaches 85 to 95 % of the matrix-product peak
  on jax 0.12 (64→64 at 56×56: 187 GFLOP/s): nothing that makes the same products can be
  much faster. Winograd's F(4, 3), which makes half of them in two of the three sums, is
  1.2 to 1.7 times faster in most (64→64 at 56×56: 16 instead of 20 ms); the weight gradient
  gains nothing from it, since combining X and dY costs as much as it saves.
* Weight gradients take half the time of a dense layer. XLA transposes X and dY in memory,
  10 to 20 % of it, and multiplies with a batch as inner dimension at 80 to 140 GFLOP/s.
  Tried and slower: a product for each tap; runs of pixels (:mod:`jaxcnn.engines.banded`),
  whose copies leave the cache; one product per image; dY as the left operand.
* jax 0.10.2 hands convolutions of 32 channels and more to YNNPACK, which reaches half the
  peak below 128 output channels; Eigen, which the compiler options bring back, reaches 150
  GFLOP/s. Space-to-depth, padding to 128 channels, explicit padding and three-dimensional
  convolutions do not get around it without the options.
* ResNet-20 (16 to 64 channels): XLA's convolutions at 60 to 90 GFLOP/s are 165 of 227 ms.
* Depthwise weight gradients: 9 to 25 small loops over rows for each block of images, which
  take about as long as PyTorch's three sums together. ``reduce`` of a product is 6 to 10
  times slower still.
* Buffers over 32 MiB are mapped anew at each execution: 5 to 15 % of a network's step
  alone, and nothing in a scan, where a step is faster.
"""

import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import jax
import tyro
from rich.console import Console
from rich.progress import track

import jaxcnn
from experiments import benchmark_cases as cases
from experiments.benchmark_chart import chart_of
from experiments.benchmark_layers import measure_layer, measure_pool
from experiments.benchmark_report import (
    cost_table,
    ratios,
    scan_table,
    summaries,
    time_table,
)
from experiments.benchmark_timing import Measurement, matrix_product_peak
from experiments.benchmark_training import measure_network, measure_scan
from experiments.benchmark_worker import TorchWorker
from experiments.run_folder import origin, replacing

SUITES = ("layers", "pools", "networks", "scan")
TOLERANCE = {"layers": 1e-4, "pools": 1e-6}


@dataclass(frozen=True)
class Options:
    """Time jaxcnn, lax, flax and PyTorch."""

    suite: Literal["layers", "pools", "networks", "scan", "all"] = "all"
    """What to time."""

    quick: bool = False
    """A few cases of each suite, three rounds."""

    only: str = ""
    """Only the cases whose name contains this."""

    rounds: int = 0
    """How many rounds; 0 is 5 to 15, as many as a few seconds allow."""

    torch_python: Path = Path(sys.executable)
    """The interpreter that has PyTorch."""

    output: Path = Path("runs/benchmark")
    """The folder for results.json and chart.png."""


Case = tuple[str, Callable[[], list[Measurement]]]


def cases_of(
    suite: str, options: Options, peak: float, torch: TorchWorker | None
) -> Iterator[Case]:
    """The name of each case of a suite, and what measures it."""
    quick, rounds = options.quick, options.rounds or (3 if options.quick else 0)
    if suite == "layers":
        for layer in cases.QUICK_LAYERS if quick else cases.LAYERS:
            yield layer.name, partial(measure_layer, layer, rounds, peak, torch)
    elif suite == "pools":
        for pool in cases.QUICK_POOLS if quick else cases.POOLS:
            yield pool.name, partial(measure_pool, pool, rounds, torch)
    elif suite == "networks":
        for name in cases.QUICK_NETWORKS if quick else cases.NETWORKS:
            yield name, partial(measure_network, name, rounds, torch)
    else:
        for name in cases.QUICK_SCANS if quick else cases.NETWORKS:
            yield name, partial(measure_scan, name, rounds)


def measure_suite(
    suite: str, options: Options, peak: float, torch: TorchWorker | None, console: Console
) -> list[Measurement]:
    chosen = [
        (name, measure)
        for name, measure in cases_of(suite, options, peak, torch)
        if options.only.lower() in name.lower()
    ]
    measurements = []
    for name, measure in track(chosen, suite, console=console, transient=True):
        try:
            measurements += measure()
        except Exception as error:
            error.add_note(f"while measuring {suite}: {name}")
            raise
        jax.clear_caches()
        if torch:
            torch.forget()
    return measurements


def report(suite: str, measurements: list[Measurement], console: Console) -> None:
    """The tables of a suite, and what they come to."""
    own = [each for each in measurements if each.suite == suite]
    if suite == "scan":
        console.print(scan_table(own))
    else:
        for mode in dict.fromkeys(each.mode for each in own):
            console.print(time_table(own, suite, mode))
            console.print()
        console.print(cost_table(own, suite, own[-1].mode))
    console.print()
    for summary in summaries(ratios(own)):
        console.print(str(summary), markup=False)
    console.print()


def problems(measurements: list[Measurement]) -> list[str]:
    """Whoever is less exact than it should be."""
    return [
        f"{each.suite}, {each.case}, {each.mode}: {each.contestant} ({each.layout}) is off "
        f"by {each.error:.1e}, not {TOLERANCE[each.suite]:.0e}"
        for each in measurements
        if each.error is not None and not each.error <= TOLERANCE[each.suite]
    ]


def setting(options: Options, peak: float, torch: TorchWorker | None) -> dict[str, Any]:
    """What the results came from."""
    found = origin()
    for package in "jaxlib", "numpy", "flax":
        try:
            found["versions"][package] = version(package)
        except PackageNotFoundError:
            found["versions"][package] = None
    found["versions"]["torch"] = torch.version if torch else None
    chosen = {
        name: value
        for name, value in asdict(options).items()
        if not isinstance(value, Path)
    }
    return {
        "options": chosen,
        **found,
        "date": time.strftime("%Y-%m-%d"),
        "processor": processor(),
        "cores": os.cpu_count(),
        "peak_gflops": peak / 1e9,
        "compiler_options": jaxcnn.compiler_options(),
    }


def processor() -> str:
    """The processor's name, as the system states it."""
    information = Path("/proc/cpuinfo")
    if information.exists():
        for line in information.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()


def write(folder: Path, setting: dict[str, Any], measurements: list[Measurement]) -> None:
    """results.json and chart.png, each whole or not at all."""
    found = ratios(measurements)
    results = {
        **setting,
        "problems": problems(measurements),
        "summaries": list(map(asdict, summaries(found))),
        "ratios": list(map(asdict, found)),
        "measurements": list(map(asdict, measurements)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    with (
        replacing(folder / "results.json") as results_path,
        replacing(folder / "chart.png") as chart_path,
    ):
        results_path.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")
        chart_of(found).savefig(chart_path, dpi=150)


def main(options: Options) -> None:
    """Measure, print, write; exit with status 1 where a contestant is not exact."""
    console = Console(width=130, highlight=False)
    measurements: list[Measurement] = []
    with ExitStack() as stack:
        try:
            torch = stack.enter_context(TorchWorker(str(options.torch_python)))
        except (RuntimeError, OSError) as error:
            torch = None
            console.print(f"Without PyTorch: {error}", markup=False)
        peak = matrix_product_peak()
        known = setting(options, peak, torch)
        versions = ", ".join(f"{k} {v}" for k, v in known["versions"].items() if v)
        console.print(
            f"{known['processor']}, {known['cores']} cores, a matrix product reaches "
            f"{known['peak_gflops']:.0f} GFLOP/s; {versions}\n"
        )
        for suite in SUITES if options.suite == "all" else (options.suite,):
            found = measure_suite(suite, options, peak, torch, console)
            if found:
                measurements += found
                report(suite, found, console)
                write(options.output, known, measurements)
    if not measurements:
        raise SystemExit(f"error: no case is named like {options.only!r}")
    console.print(f"Written: {options.output}/results.json and chart.png")
    if wrong := problems(measurements):
        console.print("\n".join(wrong), style="red", markup=False)
        raise SystemExit(1)


if __name__ == "__main__":
    main(tyro.cli(Options))
