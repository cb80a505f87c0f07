"""What this machine's vectors are, and how large a tile of the result they can hold."""

import platform
from functools import cache
from importlib.util import find_spec

import numpy as np

PRODUCT, PAIRED, CHANNELWISE, MAXIMUM, TAKING, PLACING = (
    "product",
    "paired",
    "channelwise",
    "maximum",
    "taking",
    "placing",
)
"""What is done at a step of a tile: see :mod:`.tile`."""
MOST_VECTORS = 4


@cache
def is_installed() -> bool:
    """Whether there is numba, and llvmlite, which comes with it."""
    return find_spec("numba") is not None and find_spec("llvmlite") is not None


@cache
def name_and_features() -> tuple[str, str]:
    """The processor's name, and what it can do."""
    import llvmlite.binding as llvm

    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


@cache
def vectors() -> tuple[int, int] | None:
    """How many bits a vector has, and how many of them there are; None if too few."""
    if platform.machine().lower() in ("aarch64", "arm64"):
        return 128, 32
    features = set(name_and_features()[1].split(","))
    if "+avx512f" in features:
        return 512, 32
    return (256, 16) if {"+avx2", "+fma", "+f16c"} <= features else None


@cache
def multiplies_pairs() -> bool:
    """Whether it multiplies and adds two bfloat16 where it could one float32."""
    return "+avx512bf16" in name_and_features()[1].split(",")


def lanes(dtype: np.dtype) -> int:
    """How many numbers a vector has."""
    bits, _ = vectors() or (128, 16)
    return bits // (8 * dtype.itemsize)


def most_rows(kind: str) -> list[int]:
    """How many rows leave all of a tile in registers: for one vector, two, three and four.

    Beside the result they hold a row of B and a number of A.
    """
    _, registers = vectors() or (128, 16)
    if registers < 32:
        of_kind = {PRODUCT: [8, 6, 4, 2], MAXIMUM: [5, 3, 2, 1], TAKING: [5, 3, 2, 1]}
        return of_kind.get(kind, [8, 6, 4, 3])
    of_kind = {MAXIMUM: [12, 6, 4, 3], TAKING: [8, 6, 4, 3]}
    return of_kind.get(kind, [12, 12, 8, 6])
