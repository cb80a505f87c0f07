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

How it is timed: contestants take turns (:mod:`experiments.benchmarking.timing`); a
number is the median of the rounds, the spread its interquartile range. A ratio is the
peer's time divided by jaxcnn's: above one, jaxcnn is faster. A suite ends with the
geometric mean of its ratios and the worst of them.

What else is measured: the fraction of the machine's matrix-product peak, that of a 2048³
float32 product in the same process; the time to compile; the peak temporary memory, as
the compiler states it; and for layers the error, the largest deviation of y, dx or dw
from float64 (:mod:`experiments.benchmarking.reference`) relative to the largest entry. A
layer that is off by more than 1e-4, or a pool that differs from lax by more than 1e-6,
makes the command fail.

Measured on two virtual cores of an AMD EPYC (AVX-512, no AMX; a matrix product reaches 470
to 520 GFLOP/s), PyTorch 2.13.0, flax 0.12, with 7 rounds (pools 9); networks and scans in
one run, layers and pools in one each. Geometric means, in brackets the worst case; "+" with
jaxcnn's compiler options, of which there are none on 0.10.2.

                                    jax 0.10.2      jax 0.12.0           +
    layers, fwd + bwd    × lax     2.83 (0.77)     2.51 (0.92)   2.74 (0.87)
                         × torch   0.68 (0.24)     0.69 (0.20)   0.76 (0.21)
    pools, fwd + bwd     × lax     5.46 (1.01)     7.15 (0.99)   6.51 (1.01)
                         × torch   0.91 (0.42)     0.97 (0.31)   0.89 (0.21)
    networks, step       × lax     2.76 (1.46)     2.59 (1.26)   2.62 (1.29)
                         × flax    2.92 (1.54)     2.72 (1.37)   2.75 (1.39)
                         × torch   0.77 (0.50)     0.82 (0.51)   0.83 (0.52)
    in lax.scan          × lax     65.8 (8.4)      67.2 (12.5)   68.6 (13.0)
    a step in lax.scan / alone     0.73 to 0.95    0.67 to 1.06; lax: 4.6 to 113
    NCHW / NHWC, a network's step  1.40 (1.75)     1.27 (1.60)
    compile time, × lax's          1.2 to 3.0      1.5 to 3.7
    temporary memory, × lax's      0.3 to 1.5      0.3 to 1.5
    largest error of a layer against float64: 1.0e-5; lax's own likewise

Single cases move by 20 % and more from run to run, some by a factor of two (the step of the
MNIST CNN: 15 to 36 ms), and with them the means: an hour earlier those of the networks were
2.35 and 2.31 × lax. Linux at times keeps both of XLA's threads on one core for seconds,
which hurts programs of many short tasks, like ours, more than those of few long ones.

What the profiles say about the figures that are lower than one would like:

* Dense layers against lax. On jax 0.12 XLA's forward convolution makes 370 to 450 GFLOP/s,
  80 to 90 % of what a matrix product reaches, and so does the input gradient: nothing that
  makes the same products can be much faster. Winograd's six products for twelve run at the
  speed of 450 to 700. The weight gradient is where XLA is slow, 100 to 250 GFLOP/s; as six
  products of patches it runs at the speed of 300 to 500.
* Dense layers against PyTorch, which reaches the peak from 64 channels on. Our products
  take as long as its whole layer, or less; combining columns and laying out patches is
  what comes on top. With 16 channels patches cost more than the product.
* Strided and dilated layers have no Winograd; they run at the speed of XLA's convolutions.
* Depthwise layers take 2 ms where PyTorch takes 0.5 to 1.3: half of it are the weight
  gradient's 9 to 25 loops over rows; ``reduce`` of a product is 6 to 10 times slower still.
* Average pools: XLA's windowed sums are vectorized, and only 1 to 5 times slower than ours,
  which draws the mean of the pools down. Max pools are 6 to 33 times faster than lax's.
* ResNet-20 and MobileNet against PyTorch. A step's temporary memory, 147 and 164 MiB, is
  mapped anew at each execution: 37,000 and 43,000 page faults, a quarter to a third of the
  time. With huge pages (``GLIBC_TUNABLES=glibc.malloc.hugetlb=1``) the same step takes 84
  instead of 107 ms, and 72 instead of 105 (lax: 116 for 143, 500 for 530); in a scan there
  is nothing of it either. Batch normalization is 6 ms of ResNet-20's step.
* Compile time: a Winograd sum is about 15 loops to compile, where a convolution is a call.
* Temporary memory, ResNet-20: both keep what goes into and comes out of the convolutions,
  95 MiB; ReLU's masks, 12 MiB, and patches and results of loops, 40 MiB, are ours alone.

Tried and slower: a loop over taps with a product each (the running sum is read and written
at every tap); patches of one kernel row at a time, with a product for each row; patches put
together by ``dynamic_update_slice``; Winograd in two dimensions; runs of pixels
(:mod:`jaxcnn.engines.banded`) with many channels, whose copies leave the cache; six
separate Winograd products, slower and longer to compile than one batched product; blocks
of an eighth and of twice the size. On jax 0.10.2 an option that keeps convolutions from
YNNPACK was right while they were our building block; now it makes networks 11 % slower.
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
from rich.console import Console
from rich.progress import track

import jaxcnn
from experiments.benchmarking import cases
from experiments.benchmarking.chart import chart_of
from experiments.benchmarking.layers import measure_layer, measure_pool
from experiments.benchmarking.tables import (
    cost_table,
    ratios,
    scan_table,
    summaries,
    time_table,
)
from experiments.benchmarking.timing import Measurement, matrix_product_peak
from experiments.benchmarking.torch_process import TorchWorker
from experiments.benchmarking.training import measure_network, measure_scan
from experiments.pages.pictures import drawn
from experiments.run import command
from experiments.run.command import ClaimError
from experiments.run.files import write_together
from experiments.run.origin import origin

SUITES = ("layers", "pools", "networks", "scan")
TOLERANCE = {"layers": 1e-4, "pools": 1e-6}


@dataclass(frozen=True)
class Settings:
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

    output_dir: Path = Path("runs/benchmark")
    """The folder for results.json and chart.png."""


Case = tuple[str, Callable[[], list[Measurement]]]


def cases_of(
    suite: str, settings: Settings, peak: float, torch: TorchWorker | None
) -> Iterator[Case]:
    """The name of each case of a suite, and what measures it."""
    quick, rounds = settings.quick, settings.rounds or (3 if settings.quick else 0)
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
    suite: str, settings: Settings, peak: float, torch: TorchWorker | None, console: Console
) -> list[Measurement]:
    chosen = [
        (name, measure)
        for name, measure in cases_of(suite, settings, peak, torch)
        if settings.only.lower() in name.lower()
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


def setting(settings: Settings, peak: float, torch: TorchWorker | None) -> dict[str, Any]:
    """What the results came from."""
    made_by = origin()
    versions = made_by["versions"]
    for package in "jaxlib", "numpy", "flax":
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    versions["torch"] = torch.version if torch else None
    chosen = {
        name: value
        for name, value in asdict(settings).items()
        if not isinstance(value, Path)
    }
    return {
        "options": chosen,
        **made_by,
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
    of_all = ratios(measurements)
    results = {
        **setting,
        "problems": problems(measurements),
        "summaries": list(map(asdict, summaries(of_all))),
        "ratios": list(map(asdict, of_all)),
        "measurements": list(map(asdict, measurements)),
    }
    content = json.dumps(results, indent=1, allow_nan=False) + "\n"
    write_together(
        folder, {"results.json": content.encode(), "chart.png": drawn(chart_of(of_all))}
    )


def main(settings: Settings) -> None:
    """Measure, print and write; complain of contestants that are not exact."""
    console = Console(width=130, highlight=False)
    measurements: list[Measurement] = []
    with ExitStack() as stack:
        try:
            torch = stack.enter_context(TorchWorker(str(settings.torch_python)))
        except (RuntimeError, OSError) as error:
            torch = None
            console.print(f"Without PyTorch: {error}", markup=False)
        peak = matrix_product_peak()
        known = setting(settings, peak, torch)
        versions = ", ".join(f"{k} {v}" for k, v in known["versions"].items() if v)
        console.print(
            f"{known['processor']}, {known['cores']} cores, a matrix product reaches "
            f"{known['peak_gflops']:.0f} GFLOP/s; {versions}\n"
        )
        for suite in SUITES if settings.suite == "all" else (settings.suite,):
            of_suite = measure_suite(suite, settings, peak, torch, console)
            if of_suite:
                measurements += of_suite
                report(suite, of_suite, console)
                write(settings.output_dir, known, measurements)
    if not measurements:
        raise ValueError(f"no case is named like {settings.only!r}")
    console.print(f"Written: {settings.output_dir}/results.json and chart.png")
    if wrong := problems(measurements):
        raise ClaimError("\n".join(wrong))


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
