"""Does every operation lower for every platform, and what do compilers say of it?

    python -m experiments.platforms
    python -m experiments.platforms --op max_pool2d avg_pool2d --network --output out.json

Claim: the value and all gradients of every operation, and training steps of networks, are
lowered for CPU, CUDA, ROCm and TPU, for each by itself and for all in one program, which
becomes bytes and a program again. Compiled for a TPU, convolutions, average pools, norms,
activations and losses take as many cycles as the same by lax, jax.nn and optax, or fewer;
max and adaptive pools take more.

Method: operations are those of ``compare_gradients``, as large as it times them, in
float32; steps take 128 images. They are compiled for the CPU at hand and, ahead of time by
libtpu, for one chip of a TPU v5e and of a v6e; for GPUs they are lowered only. **Nothing is
run**: all figures are the compilers' own. "?" marks a figure without the cycles of
instructions of which the compiler has no estimate.

Results: docs/accelerators.md.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import jax
import jax.export
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from rich.console import Console

from experiments.benchmarking.cases import Network
from experiments.compilers.account import Account, account_of
from experiments.compilers.tables import LAX, LEGEND, OURS, Outcome, slower, table_of
from experiments.compilers.tpu_steps import (
    AXIS,
    MISSING,
    benchmark_step,
    sharded,
    slice_of_tpu,
)
from experiments.gradients.operations import OPERATIONS, timed_case
from experiments.peers.jax_gradients import value_and_gradients
from experiments.run import command
from experiments.run.command import ClaimError
from experiments.run.files import write_json
from experiments.run.origin import origin

WIDTH = 120


@dataclass(frozen=True)
class Settings:
    """What to lower and to compile, and for what.

    Attributes:
      op: operations, of those that compare_gradients compares.
      network: of the benchmark's, a training step of each.
      images: in the batch of a training step.
      platforms: what to lower for.
      topologies: slices of TPUs, as libtpu names them; one chip of each is compiled for.
      output: if given, where to write all figures as JSON.
    """

    op: tuple[str, ...] = tuple(OPERATIONS)
    network: tuple[Network, ...] = ("LeNet-5", "ResNet-20")
    images: int = 128
    platforms: tuple[str, ...] = ("cpu", "cuda", "rocm", "tpu")
    topologies: tuple[str, ...] = ("v5e:2x2", "v6e:2x2")
    output: Path | None = None

    def __post_init__(self):
        command.must_be_at_least(1, images=self.images)


# --- The programs ---------------------------------------------------------------------


@dataclass(frozen=True)
class Contest:
    """The same program by jaxcnn and by lax.

    Attributes:
      programs: two functions of the same arrays, to a list of arrays.
      shapes: of the arrays.
    """

    programs: dict[str, Callable]
    shapes: list[jax.ShapeDtypeStruct]


def of_operation(name: str) -> Contest:
    """Its value, and its gradients with respect to all of its arguments."""
    case = timed_case(name, seed=0)
    arguments = tuple(case.arguments.values())
    dy = jax.eval_shape(case.xla, *arguments)

    functions = {OURS: case.custom, LAX: case.xla}
    programs = {who: partial(value_and_gradients, each) for who, each in functions.items()}
    return contest(programs, arguments, dy)


def of_network(name: str, images: int) -> Contest:
    """A training step."""
    steps = {who: benchmark_step(name, who, images) for who in (OURS, LAX)}
    _, *arguments = steps[OURS]
    programs = {who: step for who, (step, *_) in steps.items()}
    return contest(programs, *arguments)


def contest(programs: dict[str, Callable], *arguments) -> Contest:
    """The contest of programs from trees to trees, as programs of arrays: those export."""
    shapes, tree = jax.tree.flatten(jax.eval_shape(lambda *each: each, *arguments))

    def of_arrays(program: Callable) -> Callable:
        return lambda *arrays: jax.tree.leaves(program(*tree.unflatten(arrays)))

    return Contest({who: of_arrays(each) for who, each in programs.items()}, shapes)


def contests(settings: Settings) -> dict[str, Callable[[], Contest]]:
    """How each is made, by the name of the operation or of the network."""
    operations = {name: partial(of_operation, name) for name in settings.op}
    steps = {
        f"a step of {name}": partial(of_network, name, settings.images)
        for name in settings.network
    }
    return operations | steps


# --- What becomes of them -------------------------------------------------------------


def outcome_of(name: str, make: Callable[[], Contest], settings: Settings) -> Outcome:
    """What becomes of a contest: lowered for each platform and for all, then compiled."""
    outcome = Outcome(name)
    with outcome.trying("written twice"):
        contest = make()
        lower_each(contest, settings.platforms, outcome)
        compile_each(contest, ("cpu", *settings.topologies), outcome)
    return outcome


def lower_each(contest: Contest, platforms: tuple[str, ...], outcome: Outcome) -> None:
    alone = [(platform,) for platform in platforms]
    for some in dict.fromkeys([*alone, platforms]):
        with outcome.trying(f"lowered for {', '.join(some)}"):
            lower(contest, some)


def compile_each(contest: Contest, targets: tuple[str, ...], outcome: Outcome) -> None:
    for target in targets:
        accounts = outcome.accounts[target] = {}
        for who, program in contest.programs.items():
            with outcome.trying(f"{who}'s compiled for {target}"):
                accounts[who] = compiled(program, contest.shapes, target)


def lower(contest: Contest, platforms: tuple[str, ...]) -> None:
    """One program for these platforms; to bytes, and back."""
    program = jax.jit(contest.programs[OURS])
    exported = jax.export.export(program, platforms=platforms)(*contest.shapes)
    jax.export.deserialize(exported.serialize())


def compiled(program: Callable, shapes: list, target: str) -> Account:
    """For the CPU at hand, or for one chip of a slice of a TPU."""
    if target != "cpu":
        mesh = Mesh(slice_of_tpu(target).devices[:1], (AXIS,))
        shapes = sharded(shapes, mesh, P())
    return account_of(jax.jit(program).lower(*shapes).compile())


# --- The command ----------------------------------------------------------------------


def main(settings: Settings) -> list[Outcome]:
    """Lower, compile, print and write; complain of whatever failed."""
    unknown = set(settings.op) - OPERATIONS.keys()
    if unknown:
        raise ValueError(f"no operation is called {', '.join(sorted(unknown))}")
    jax.config.update("jax_platforms", "cpu")  # look for no TPU
    console = Console(width=WIDTH, highlight=False)
    compiler = f"jax {jax.__version__}"
    if not find_spec("libtpu"):
        console.print(f"Not compiled for TPUs: {MISSING}", markup=False)
        settings = replace(settings, topologies=())
    elif settings.topologies:
        compiler += f", libtpu {version('libtpu')}"
    outcomes = []
    with console.status("") as status:
        for name, make in contests(settings).items():
            status.update(f"lowering and compiling {name}")
            outcomes.append(outcome_of(name, make, settings))
    console.print(table_of(outcomes))
    console.print(f"{compiler}. ✓: lowered for {', '.join(settings.platforms)}.")
    console.print(LEGEND)
    for line in slower(outcomes):
        console.print(line, style="red", markup=False)
    if settings.output:
        write_json(settings.output, origin() | {"outcomes": list(map(asdict, outcomes))})
    failures = [f"{each.name}, {failure}" for each in outcomes for failure in each.failed()]
    if failures:
        raise ClaimError("\n".join(failures))
    return outcomes


if __name__ == "__main__":
    command.run(main, Settings, __doc__)
