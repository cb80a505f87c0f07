"""What :mod:`experiments.platforms` prints: what became of every program, beside lax's."""

import math
import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich import box
from rich.table import Column, Table
from rich.text import Text

from experiments.compilers.account import Account

OURS, LAX = "jaxcnn", "lax"
MARGIN = 1.1
"""So many times lax's, and a figure is said to be more."""

LEGEND = """Figures are the compilers', as multiples of lax's; nothing was run.
  * without all turns but one of a loop  ? without instructions of unknown cycles"""

MEASURES: dict[str, Callable[[Account], float]] = {
    "flops": lambda it: max(it.flops, 0),  # −1 is none
    "bytes": lambda it: it.bytes_accessed,
    "temps": lambda it: it.temporaries,
    "cycles": lambda it: it.cycles,
}


@dataclass
class Outcome:
    """What became of a contest's programs.

    Attributes:
      name: of the operation, or of the network.
      accounts: by what was compiled for, and by whose program.
      failures: by what was tried, what was raised.
    """

    name: str
    accounts: dict[str, dict[str, Account]] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @contextmanager
    def trying(self, what: str) -> Iterator[None]:
        """Note what is raised, and go on."""
        try:
            yield
        except Exception as error:  # whatever JAX, XLA or an operation raises
            self.failures[what] = f"{type(error).__name__}: {error}"

    def failed(self) -> list[str]:
        return [f"{what}: {raised}" for what, raised in self.failures.items()]

    def ratio(self, target: str, measure: str) -> float | None:
        """jaxcnn's figure as a multiple of lax's; None where one of them is missing."""
        accounts = self.accounts.get(target, {})
        if accounts.keys() != {OURS, LAX}:
            return None
        ours, theirs = (MEASURES[measure](accounts[who]) for who in (OURS, LAX))
        if not theirs:
            return math.inf if ours else None
        return ours / theirs

    def marks(self, target: str, measure: str) -> str:
        """Marks for what a figure leaves out, in one of the programs or in both."""
        accounts = self.accounts.get(target, {}).values()
        loops = any(each.loops for each in accounts)
        unestimated = measure == "cycles" and any(each.unestimated for each in accounts)
        return "*" * loops + "?" * unestimated


def columns_of(outcomes: list[Outcome]) -> list[tuple[str, str]]:
    """The targets and measures for which there are figures."""
    targets = dict.fromkeys(target for each in outcomes for target in each.accounts)
    return [
        (target, measure)
        for target in targets
        for measure in MEASURES
        if any(each.ratio(target, measure) is not None for each in outcomes)
    ]


def table_of(outcomes: list[Outcome]) -> Table:
    """The table: every figure as a multiple of lax's."""
    columns = columns_of(outcomes)
    titles = [f"{target.partition(':')[0]}\n{measure}" for target, measure in columns]
    ratios = [Column(title, justify="right", no_wrap=True) for title in titles]
    table = Table(
        Column("value and gradients", no_wrap=True),
        "✓",
        *ratios,
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
    )
    for each in outcomes:
        failed = any("compiled" not in what for what in each.failures)
        cells = (cell(each.ratio(*column), each.marks(*column)) for column in columns)
        table.add_row(each.name, "✗" if failed else "✓", *cells)
    table.add_section()
    table.add_row("median", "", *(cell(middle(outcomes, *column)) for column in columns))
    return table


def cell(ratio: float | None, marks: str = "") -> Text:
    if ratio is None:
        return Text("")
    style = "red" if ratio > MARGIN else "green" if ratio < 1 / MARGIN else ""
    return Text(f"{ratio:.2f}".replace("inf", "∞") + marks, style)


def middle(outcomes: list[Outcome], target: str, measure: str) -> float | None:
    """The median of what can be compared."""
    ratios = [each.ratio(target, measure) for each in outcomes]
    return statistics.median(ratio for ratio in ratios if ratio is not None)


def slower(outcomes: list[Outcome]) -> list[str]:
    """Whatever takes more cycles than lax's, by the compiler's estimate."""
    return [
        f"{each.name} takes {ratio:.2f} times lax's cycles on {target}"
        for each in outcomes
        for target in each.accounts
        if (ratio := each.ratio(target, "cycles") or 0) > MARGIN
    ]
