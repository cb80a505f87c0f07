"""What a compiled program takes and does, by the account of XLA's compiler.

For one of the devices that it is for: memory, operations, and what it is told by others.
"""

import math
import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import jax

KINDS = (
    "all-reduce",
    "all-gather",
    "reduce-scatter",
    "collective-permute",
    "all-to-all",
    "ragged-all-to-all",
    "collective-broadcast",
)
"""XLA's collectives."""

COLLECTIVE = re.compile(rf" = (?P<result>.*?) (?P<kind>{'|'.join(KINDS)})(-done)?\(")
"""Not ``-start``, which begins one that ``-done`` ends, and gives its operands, too."""

ARRAY = re.compile(r"\b(?:pred|[a-z]+(?P<bits>\d+)\w*)\[(?P<sizes>[\d,]*)\]")
CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
LOOP = re.compile(r" while\(")
UNESTIMATED = re.compile(
    r" = (?!\w+\[\])\S+ (?!custom-call)(?P<kind>[\w-]+)"
    r"\(.*backend_config=\{\"flag_configs\"(?!.*\"estimated_cycles\")"
)
"""Instructions that make arrays, and whose cycles a TPU's compiler does not estimate."""

FUSED = re.compile(r"^%fused.*?^\}", re.MULTILINE | re.DOTALL)
"""What runs as one instruction, which has the cycles of it all."""


@dataclass(frozen=True)
class Traffic:
    """The collectives of one kind: how many, and what bytes they give to each device."""

    count: int
    bytes: int


def collectives(program: str) -> dict[str, Traffic]:
    """The collectives of a compiled program, by kind.

    Each is counted once, also in a loop. Bytes are those of the numbers, without what an
    array is padded with in memory.
    """
    sizes: dict[str, list[int]] = {}
    for each in COLLECTIVE.finditer(program):
        sizes.setdefault(each["kind"], []).append(bytes_of(each["result"]))
    return {kind: Traffic(len(each), sum(each)) for kind, each in sizes.items()}


def bytes_of(shapes: str) -> int:
    """The bytes of all arrays that a text names, as in ``(f32[2,8]{1,0}, pred[])``."""
    return sum(
        math.prod(map(int, re.findall(r"\d+", array["sizes"])))
        * int(array["bits"] or 8)
        // 8
        for array in ARRAY.finditer(shapes)
    )


def unestimated(program: str) -> dict[str, int]:
    """How many instructions of each kind a TPU's compiler estimates no cycles of."""
    unfused = FUSED.sub("", program)
    return dict(Counter(each["kind"] for each in UNESTIMATED.finditer(unfused)))


@dataclass(frozen=True)
class Account:
    """What one device keeps, computes and receives in a program.

    Attributes:
      arguments, outputs, temporaries: bytes of its memory.
      flops, bytes_accessed: by the compiler's count.
      cycles: by its estimate, where it says one, as for TPUs; without the collectives'.
      collectives: by kind.
      loops: how many. What a loop's body does is in all the other figures once.
      unestimated: what the cycles are without, too: how many instructions, by kind.
    """

    arguments: int
    outputs: int
    temporaries: int
    flops: float
    bytes_accessed: float
    cycles: int
    collectives: dict[str, Traffic]
    loops: int = 0
    unestimated: dict[str, int] = field(default_factory=dict)

    @property
    def memory(self) -> int:
        return self.arguments + self.outputs + self.temporaries


def account_of(program: jax.stages.Compiled) -> Account:
    memory: Any = program.memory_analysis()
    cost: Any = program.cost_analysis()
    text = program.as_text() or ""
    return Account(
        memory.argument_size_in_bytes,
        memory.output_size_in_bytes,
        memory.temp_size_in_bytes,
        cost.get("flops", 0.0),
        cost.get("bytes accessed", 0.0),
        sum(map(int, CYCLES.findall(text))),
        collectives(text),
        len(LOOP.findall(text)),
        unestimated(text),
    )
