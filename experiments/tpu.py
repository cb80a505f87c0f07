"""Does a training step compile for TPUs, where there is none, and what does a chip do?

    python -m experiments.tpu
    python -m experiments.tpu --topologies v5e:4x4 --precisions bfloat16 --images 256

Claim: ResNet-20's training step, its batch spread over the chips and its batch norm taken
over all of them, compiles for a TPU v5e of 2×2 chips and for a slice of 16×16. All that
chips tell each other are sums: no chip is ever sent another's images or activations. And
of a network's convolutions the compiler makes the same as of lax's.

Method: each step is compiled ahead of time by libtpu, XLA's compiler for TPUs, which needs
none; the figures are the compiler's own. **Nothing was run on a TPU**: they say what a step
takes, and leave open how fast it is. For each chip: what it keeps in its 16 GiB; what it
computes, reads and writes; an estimate of its cycles, without the collectives; and how many
collectives there are, with the size of what they give. The last two columns are the same
network on one chip, in float32, over jaxcnn's operations and over lax's.

Results: docs/accelerators.md.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import jax
from jax.experimental import topologies
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from rich import box
from rich.console import Console
from rich.table import Column, Table

from experiments.benchmarking import networks
from experiments.compilers.account import Account, Traffic, account_of
from experiments.compilers.tpu_steps import (
    AXIS,
    MISSING,
    benchmark_step,
    sharded,
    slice_of_tpu,
)
from experiments.data.sets import CIFAR10
from experiments.run import command
from experiments.run.command import ClaimError
from experiments.run.files import write_json
from experiments.run.options import Options, model_of
from jaxcnn import training

Precision = Literal["float32", "bfloat16"]

MEMORY = 16 * 2**30
"""Bytes of a v5e chip."""
STEPS = 1000
"""Of the run along which the learning rate falls; the program is the same for any."""


@dataclass(frozen=True)
class Settings:
    """What to compile.

    Attributes:
      topologies: slices of a TPU, as libtpu names them.
      precisions: what the network computes in; its parameters are float32.
      images: how many of the batch each chip has.
      beside_lax: whether to compile the benchmark's ResNet-20 for one chip, too, over
        jaxcnn's operations and over lax's.
      output: if given, where to write the table as JSON.
    """

    topologies: tuple[str, ...] = ("v5e:2x2", "v5e:16x16")
    precisions: tuple[Precision, ...] = ("bfloat16", "float32")
    images: int = 128
    beside_lax: bool = True
    output: Path | None = None

    def __post_init__(self):
        command.must_be_at_least(1, images=self.images)


# --- The steps ------------------------------------------------------------------------


@dataclass(frozen=True)
class Program:
    """A step that was compiled.

    Attributes:
      topology: the slice that it is for.
      chips: how many of the slice's.
      network: the precision of our ResNet-20, or whose operations the benchmark's is of.
      account: of one chip.
    """

    topology: str
    chips: int
    network: str
    account: Account

    def faults(self) -> list[str]:
        """What is not as claimed."""
        memory = self.account.memory
        unclaimed = self.account.collectives.keys() - {"all-reduce"}
        faults = [f"there is an {kind}" for kind in sorted(unclaimed)]
        if memory > MEMORY:
            faults.append(f"takes {memory:,} bytes of a chip's {MEMORY:,}")
        return [f"{self.topology}, {self.network}: {each}" for each in faults]


def data_parallel(topology: str, precision: Precision, images: int) -> Program:
    """ResNet-20's training step, with so many images for each chip of a slice."""
    chips = slice_of_tpu(topology)
    mesh = topologies.make_mesh(chips, (len(chips.devices),), (AXIS,))
    options = Options(dataset="cifar10", precision=precision).completed()
    model = model_of(options, CIFAR10, AXIS)
    optimizer = options.optimization.transformation(STEPS)
    step = jax.shard_map(
        partial(training.train_step, model=model, optimizer=optimizer, axis_name=AXIS),
        mesh=mesh,
        in_specs=(P(), P(AXIS), P(AXIS)),
        out_specs=(P(), P()),
        check_vma=True,
    )
    state = jax.eval_shape(
        partial(training.initial_state, model, optimizer), jax.random.key(0)
    )
    batch = images * mesh.size
    program = jax.jit(step).lower(
        sharded(state, mesh, P()),
        sharded(jax.ShapeDtypeStruct((batch, *CIFAR10.shape), "uint8"), mesh, P(AXIS)),
        sharded(jax.ShapeDtypeStruct((batch,), "int32"), mesh, P(AXIS)),
    )
    return Program(topology, mesh.size, precision, account_of(program.compile()))


def on_one_chip(topology: str, contestant: str, images: int) -> Program:
    """A step of the benchmark's ResNet-20 in float32, over the operations of a library."""
    mesh = Mesh(slice_of_tpu(topology).devices[:1], (AXIS,))
    step, *arguments = benchmark_step("ResNet-20", contestant, images)
    program = jax.jit(step).lower(*sharded(arguments, mesh, P()))
    return Program(topology, mesh.size, contestant, account_of(program.compile()))


# --- The table ------------------------------------------------------------------------


ROWS: dict[str, Callable[[Account], str]] = {
    "arguments, MiB": lambda it: f"{it.arguments / 2**20:,.1f}",
    "outputs, MiB": lambda it: f"{it.outputs / 2**20:,.1f}",
    "temporaries, MiB": lambda it: f"{it.temporaries / 2**20:,.1f}",
    "GFLOP": lambda it: f"{it.flops / 1e9:,.1f}",
    "GB accessed": lambda it: f"{it.bytes_accessed / 1e9:,.2f}",
    "million cycles": lambda it: f"{it.cycles / 1e6:,.2f}",
}


def table_of(programs: Sequence[Program]) -> Table:
    titles = (f"{each.topology}\n{each.network}" for each in programs)
    columns = (Column(title, justify="right") for title in titles)
    table = Table(
        Column("for each chip", no_wrap=True),
        *columns,
        box=box.SIMPLE_HEAD,
        collapse_padding=True,
    )
    table.add_row("chips", *(str(each.chips) for each in programs))
    accounts = [each.account for each in programs]
    for name, text in ROWS.items():
        table.add_row(name, *map(text, accounts))
    for kind in sorted({kind for each in accounts for kind in each.collectives}):
        traffic = [each.collectives.get(kind, Traffic(0, 0)) for each in accounts]
        table.add_row(f"{kind}s", *(str(each.count) for each in traffic))
        table.add_row(f"{kind}s, kB", *(f"{each.bytes / 1e3:,.0f}" for each in traffic))
    return table


def programs(settings: Settings) -> Iterator[Program]:
    for topology in settings.topologies:
        for precision in settings.precisions:
            yield data_parallel(topology, precision, settings.images)
    if settings.beside_lax:
        for contestant in networks.CONTESTANTS:
            yield on_one_chip(settings.topologies[0], contestant, settings.images)


def main(settings: Settings) -> None:
    if not find_spec("libtpu"):
        raise ModuleNotFoundError(MISSING)
    jax.config.update("jax_platforms", "cpu")  # look for no TPU
    console = Console()
    with console.status("compiling: a minute or two for each"):
        compiled = list(programs(settings))
    console.print(table_of(compiled))
    console.print(f"jax {jax.__version__}, libtpu {version('libtpu')}; nothing was run")
    if settings.output:
        write_json(settings.output, [asdict(program) for program in compiled])
    faults = [fault for program in compiled for fault in program.faults()]
    if faults:
        raise ClaimError("; ".join(faults))


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
