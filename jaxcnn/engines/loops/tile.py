"""The innermost loops, in registers: a tile of the result.

All the sums of a convolution are one product of three arrays, and at one tap it is a
product of matrices. A tile is a small piece of the result, some rows of it and some vectors
of numbers that lie side by side in memory:

                        B   one row: ``vectors`` vectors
                     ┌────────┬────────┬────────┐
                     │        │        │        │        for every tap and every channel
                     └────────┴────────┴────────┘        (or position) that is summed over:
    A            C
    ┌─┐           ┌────────┬────────┬────────┐
    │ │  row 0    │   +=   │   +=   │   +=   │           C[i, j] += A[i] · B[j]
    ├─┤           ├────────┼────────┼────────┤
    │ │  row 1    │   +=   │   +=   │   +=   │           one number of A, broadcast,
    ├─┤           ├────────┼────────┼────────┤           times one vector of B
    │ │  row 2    │   +=   │   +=   │   +=   │
    └─┘           └────────┴────────┴────────┘

All of C stays in registers until the last term is added; nothing else is kept. With 6 rows
of 4 vectors a step reads 10 times and does 24 multiply-adds: the processor is busy with
arithmetic alone, and waits for no memory.

What a row and a vector are is for the caller to say, by strides:

    sum               rows of C            vectors of C         summed over
    forward           output positions     output channels      taps, input channels
    input gradient    input positions      input channels       taps, output channels
    weight gradient   input channels       output channels      images, positions

Four loops, each with a stride for A and one for B, are enough for all of them. Where
channels do not mix (depthwise convolution, pooling) A has vectors, too. The kinds of tiles,
by what is done at a step, with b a vector of B (or a tap's number) and w a winner:

    product       C[i, j] += A[i] · B[j]                        A[i] one number
    paired        C[i, j] += A[i] · B[j] + A'[i] · B'[j]         of halves, in pairs
    channelwise   C[i, j] += A[i, j] · B[j]
    maximum       if A[i, j] > C[i, j]: C[i, j], w[i, j] = A[i, j], b
    taking        C[i, j] += A[i, j] if w[i, j] == b else 0      w beside C
    placing       C[i, j] += A[i, j] if w[i, j] == b else 0      w beside A

numba has no vectors, so this file writes LLVM's instructions; everything around it is
Python (:mod:`.nests`).
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from llvmlite import ir

from jaxcnn.engines.loops.processor import (
    CHANNELWISE,
    MAXIMUM,
    PAIRED,
    PLACING,
    PRODUCT,
    TAKING,
    lanes,
    most_rows,
)
from jaxcnn.engines.loops.tables import LEVELS, ROW_OF_A, ROW_OF_C, STEPS, VECTOR_OF_B
from jaxcnn.rounding import sum_dtype

I16, I32, I64 = ir.IntType(16), ir.IntType(32), ir.IntType(64)


class BFloat(ir.HalfType):
    """A type that llvmlite has no name for."""

    def __str__(self):  # pyright: ignore[reportIncompatibleMethodOverride]
        return "bfloat"


BFloat._create_instance()
TYPES = {
    "float64": ir.DoubleType(),
    "float32": ir.FloatType(),
    "float16": ir.HalfType(),
    "bfloat16": I16,
}
"""Of numbers in memory. To a float32, bfloat16 are the upper bits."""


@dataclass(frozen=True)
class Tiles:
    """The tiles of one kind, for some dtypes.

    Attributes:
      kind: what is done at a step, one of those above.
      dtypes: of A, B and C in memory. Halves become float32 on their way into a register.
      winner: the dtype of winners, where there are any.
    """

    kind: str
    dtypes: tuple[np.dtype, np.dtype, np.dtype]
    winner: np.dtype | None = None

    @property
    def dtype(self) -> np.dtype:
        """In which sums are computed."""
        return sum_dtype(*self.dtypes)

    @property
    def lanes(self) -> int:
        """How many numbers a vector has."""
        return lanes(self.dtype)


ARGUMENTS = 13
"""Of what computes a tile, all of them int64: how many rows, how many vectors, how many
numbers the last vector has; then the addresses of the strides, of A, B and C, and of what
is added to C at the end, with its row stride (of winners: the address that belongs to
address 0); last, how often each loop runs."""


def module_of(tiles: Tiles, is_partial: bool) -> ir.Module:
    """All tiles of a kind, and the function that calls the one of the right size.

    Args:
      tiles: which.
      is_partial: whether the last vector is a partial one.
    """
    module = ir.Module()
    type_ = ir.FunctionType(ir.VoidType(), [I64] * ARGUMENTS)
    function = ir.Function(module, type_, NAMES[is_partial])
    build = ir.IRBuilder(function.append_basic_block("entry"))
    rows, vectors, *rest = function.args
    number = build.add(build.mul(rows, _int(8)), vectors)
    impossible = function.append_basic_block("impossible")
    switch = build.switch(number, impossible)
    for v, most in enumerate(most_rows(tiles.kind), 1):
        for r in range(1, most + 1):
            block = function.append_basic_block(f"tile_{r}_{v}")
            switch.add_case(_int(8 * r + v), block)
            build.position_at_end(block)
            build.call(_Tile(module, tiles, r, v, is_partial).function, rest)
            build.ret_void()
    build.position_at_end(impossible)
    build.unreachable()
    return module


MULTIPLIES_PAIRS = "llvm.x86.avx512bf16.dpbf16ps.512"
NAMES = {False: "jaxcnn_tile", True: "jaxcnn_partial_tile"}


class _Tile:
    """Writes the function of one tile into an LLVM module."""

    def __init__(
        self, module: ir.Module, tiles: Tiles, rows: int, vectors: int, partial: bool
    ):
        self.module, self.tiles, self.partial = module, tiles, partial
        self.rows, self.vectors = range(rows), range(vectors)
        self.places = [(i, j) for i in self.rows for j in self.vectors]
        self.size, self.lanes = tiles.dtype.itemsize, tiles.lanes
        self.vector = ir.VectorType(TYPES[tiles.dtype.name], self.lanes)
        self.of_a, self.of_b, self.of_c = (
            ir.VectorType(TYPES[dtype.name], self.lanes) for dtype in tiles.dtypes
        )
        self.integers = ir.VectorType(ir.IntType(8 * self.size), self.lanes)
        self.mask_type = ir.VectorType(ir.IntType(1), self.lanes)
        if tiles.winner:
            self.winners = ir.VectorType(ir.IntType(8 * tiles.winner.itemsize), self.lanes)
        type_ = ir.FunctionType(ir.VoidType(), [I64] * (ARGUMENTS - 2))
        self.function = ir.Function(module, type_, f"tile_{rows}_{vectors}")
        self.function.linkage = "internal"
        self.function.attributes.add("noinline")
        self._write()

    def _write(self) -> None:
        last, strides, a, b, c, other, step, *counts = self.function.args
        build = self.build = ir.IRBuilder(self.function.append_basic_block("entry"))
        self.other = other

        def field(k: int) -> Any:
            return build.load(self._pointer(build.add(strides, _int(8 * k)), I64))

        row_of_a, self.row_of_c, vector_of_b = map(field, (ROW_OF_A, ROW_OF_C, VECTOR_OF_B))
        self.steps = [(field(k), field(k + 1)) for k in range(STEPS, STEPS + 2 * LEVELS, 2)]
        self.in_a = [build.mul(row_of_a, _int(i)) for i in self.rows]
        self.in_b = [build.mul(vector_of_b, _int(j)) for j in self.vectors]
        if self.partial:
            lanes = ir.Constant(self.integers, list(range(self.lanes)))
            last = build.trunc(last, self.integers.element) if self.size == 4 else last
            self.mask = build.icmp_signed("<", lanes, self._spread(last, self.integers))
        if self.tiles.kind == TAKING:
            self.given = {
                (i, j): self._load(self._beside(self._place_in_c(c, i, j)), j, self.winners)
                for i, j in self.places
            }
        before = build.block
        start = {place: self._nothing() for place in self.places}
        loops, end = self._block("loops"), self._block("end")
        steps = build.mul(build.mul(counts[0], counts[1]), build.mul(counts[2], counts[3]))
        build.cbranch(build.icmp_signed(">", steps, _int(0)), loops, end)
        build.position_at_end(loops)
        summed = self._loop(0, counts, a, b, start)
        after = build.block
        build.branch(end)
        build.position_at_end(end)
        results = {
            place: self._merged({before: start[place], after: summed[place]})
            for place in self.places
        }
        for (i, j), result in results.items():
            at = self._place_in_c(c, i, j)
            if self.tiles.kind == MAXIMUM:
                winner = build.trunc(result[1], self.winners)
                self._store(winner, self._beside(at), j, self.winners)
            total = result[0]
            if self.tiles.kind in (PRODUCT, PAIRED, CHANNELWISE):
                row = build.add(other, build.mul(step, _int(i)))
                row = build.add(row, self._vectors(j, self.of_c))
                total = build.fadd(total, self._load_wide(row, j, self.of_c))
            self._store(self._narrow(total, self.of_c), at, j, self.of_c)
        build.ret_void()

    def _loop(self, level: int, counts: list, a: Any, b: Any, sums: dict) -> dict:
        """One of the loops and those within it; what it makes of the sums."""
        build, before = self.build, self.build.block
        body, done = self._block(f"loop{level}"), self._block(f"done{level}")
        build.branch(body)
        build.position_at_end(body)
        left, at, bt = (build.phi(I64) for _ in range(3))
        for phi, first in ((left, counts[level]), (at, a), (bt, b)):
            phi.add_incoming(first, before)
        carried = {}
        for place, each in sums.items():
            carried[place] = [build.phi(part.type) for part in each]
            for phi, part in zip(carried[place], each, strict=True):
                phi.add_incoming(part, before)
        if level + 1 < LEVELS:
            after = self._loop(level + 1, counts, at, bt, carried)
        else:
            after = self._step(at, bt, carried)
        end = build.block
        fewer = build.sub(left, _int(1))
        left.add_incoming(fewer, end)
        for phi, step in zip((at, bt), self.steps[level], strict=True):
            phi.add_incoming(build.add(phi, step), end)
        for place, each in carried.items():
            for phi, part in zip(each, after[place], strict=True):
                phi.add_incoming(part, end)
        build.cbranch(build.icmp_signed(">", fewer, _int(0)), body, done)
        build.position_at_end(done)
        return after

    def _step(self, a: Any, b: Any, sums: dict) -> dict:
        """What is done with one row of B."""
        steps = {
            PRODUCT: self._product,
            PAIRED: self._product,
            CHANNELWISE: self._channelwise,
            MAXIMUM: self._maximum,
        }
        return steps.get(self.tiles.kind, self._of_winners)(a, b, sums)

    def _product(self, a: Any, b: Any, sums: dict) -> dict:
        row, after = self._row_of_b(b), {}
        for i in self.rows:
            at = self.build.add(a, self.in_a[i])
            element = self.vector.element
            number = self.build.load(self._pointer(at, element), align=self.size)
            number = self._spread(number, self.vector)
            for j in self.vectors:
                after[i, j] = (self._multiplied(number, row[j], *sums[i, j]),)
        return after

    def _channelwise(self, a: Any, b: Any, sums: dict) -> dict:
        row = self._row_of_b(b)
        return {
            (i, j): (self._multiplied(self._of_a(a, i, j), row[j], *sums[i, j]),)
            for i, j in self.places
        }

    def _maximum(self, a: Any, b: Any, sums: dict) -> dict:
        """A number wins that is larger, or the first, or the first NaN."""
        build, tap, after = self.build, self._tap(b, self.integers), {}
        nobody = ir.Constant(self.integers, [-1] * self.lanes)
        for (i, j), (largest, winner) in sums.items():
            value = self._of_a(a, i, j)
            is_larger = build.fcmp_unordered("ugt", value, largest)  # or a NaN
            is_larger = build.and_(is_larger, build.fcmp_ordered("ord", largest, largest))
            wins = build.or_(is_larger, build.icmp_signed("==", winner, nobody))
            after[i, j] = (
                build.select(wins, value, largest),
                build.select(wins, tap, winner),
            )
        return after

    def _of_winners(self, a: Any, b: Any, sums: dict) -> dict:
        build, tap, after = self.build, self._tap(b, self.winners), {}
        for i, j in self.places:
            if self.tiles.kind == TAKING:
                winner = self.given[i, j]
            else:
                beside = self._beside(self._place_in_a(a, i, j))
                winner = self._load(beside, j, self.winners)
            is_it = build.icmp_signed("==", winner, tap)
            (nothing,) = self._nothing()
            taken = build.select(is_it, self._of_a(a, i, j), nothing)
            (sum_,) = sums[i, j]
            after[i, j] = (build.fadd(sum_, taken),)
        return after

    def _row_of_b(self, b: Any) -> list:
        places = (self.build.add(b, offset) for offset in self.in_b)
        return [self._load_wide(at, j, self.of_b) for j, at in enumerate(places)]

    def _place_in_a(self, a: Any, i: int, j: int) -> Any:
        return self.build.add(self.build.add(a, self.in_a[i]), self._vectors(j, self.of_a))

    def _of_a(self, a: Any, i: int, j: int) -> Any:
        return self._load_wide(self._place_in_a(a, i, j), j, self.of_a)

    def _multiplied(self, x: Any, y: Any, sum_: Any) -> Any:
        """x · y + sum, rounded once; of pairs, both products are added."""
        if self.tiles.kind == PAIRED:
            pairs = ir.VectorType(BFloat(), 2 * self.lanes)
            type_ = ir.FunctionType(self.vector, [self.vector, pairs, pairs])
            found = self.module.globals.get(MULTIPLIES_PAIRS)
            function = found or ir.Function(self.module, type_, MULTIPLIES_PAIRS)
            x, y = (self.build.bitcast(each, pairs) for each in (x, y))
            return self.build.call(function, [sum_, x, y])
        fma = self._intrinsic("llvm.fma", self.vector, [self.vector] * 3, self.vector)
        return self.build.call(fma, [x, y, sum_])

    def _tap(self, number: Any, type_: ir.VectorType) -> Any:
        """The number of a tap, in all lanes."""
        if type_.element != I64:
            number = self.build.trunc(number, type_.element)
        return self._spread(number, type_)

    # --- Small things ---------------------------------------------------------------

    def _nothing(self) -> tuple:
        """What a place of C holds at the start."""
        if self.tiles.kind == MAXIMUM:
            lowest = ir.Constant(self.vector, [float("-inf")] * self.lanes)
            return lowest, ir.Constant(self.integers, [-1] * self.lanes)
        return (ir.Constant(self.vector, [0.0] * self.lanes),)

    def _merged(self, by_block: dict) -> list:
        merged = []
        for parts in zip(*by_block.values(), strict=True):
            phi = self.build.phi(parts[0].type)
            for part, block in zip(parts, by_block, strict=True):
                phi.add_incoming(part, block)
            merged.append(phi)
        return merged

    def _place_in_c(self, c: Any, i: int, j: int) -> Any:
        row = self.build.add(c, self.build.mul(self.row_of_c, _int(i)))
        return self.build.add(row, self._vectors(j, self.of_c))

    def _vectors(self, j: int, type_: ir.VectorType) -> Any:
        """The bytes of j vectors."""
        return _int(j * self.lanes * _bytes(type_.element))

    def _beside(self, address: Any) -> Any:
        """Where the winner is that belongs to a number; ``other`` belongs to address 0."""
        numbers = self.of_a if self.tiles.kind == PLACING else self.of_c
        size = _bytes(numbers.element)
        shift = _int((size // _bytes(self.winners.element)).bit_length() - 1)
        return self.build.add(self.other, self.build.lshr(address, shift))

    def _is_partial(self, j: int) -> bool:
        return self.partial and j == self.vectors[-1]

    def _load_wide(self, address: Any, j: int, type_: ir.VectorType) -> Any:
        """As numbers that can be summed."""
        if type_.element == I16:
            bits = self.build.zext(self._load(address, j, type_), self.integers)
            return self.build.bitcast(self.build.shl(bits, self._all(16)), self.vector)
        value = self._load(address, j, type_)
        return value if type_ == self.vector else self.build.fpext(value, self.vector)

    def _narrow(self, value: Any, type_: ir.VectorType) -> Any:
        """As it is kept in memory: a half is one that was chosen, and is not rounded."""
        if type_.element == I16:
            bits = self.build.bitcast(value, self.integers)
            return self.build.trunc(self.build.lshr(bits, self._all(16)), type_)
        return value if type_ == self.vector else self.build.fptrunc(value, type_)

    def _all(self, number: int) -> ir.Constant:
        return ir.Constant(self.integers, [number] * self.lanes)

    def _load(self, address: Any, j: int, type_: ir.VectorType) -> Any:
        size = _bytes(type_.element)
        pointer = self._pointer(address, type_)
        if not self._is_partial(j):
            return self.build.load(pointer, align=size)
        load = self._intrinsic(
            "llvm.masked.load",
            type_,
            [type_.as_pointer(), I32, self.mask_type, type_],
            type_,
            ".p0",
        )
        zero = 0 if isinstance(type_.element, ir.IntType) else 0.0
        nothing = ir.Constant(type_, [zero] * self.lanes)
        return self.build.call(load, [pointer, ir.Constant(I32, size), self.mask, nothing])

    def _store(self, value: Any, address: Any, j: int, type_: ir.VectorType) -> None:
        size = _bytes(type_.element)
        pointer = self._pointer(address, type_)
        if not self._is_partial(j):
            self.build.store(value, pointer, align=size)
            return
        store = self._intrinsic(
            "llvm.masked.store",
            ir.VoidType(),
            [type_, type_.as_pointer(), I32, self.mask_type],
            type_,
            ".p0",
        )
        self.build.call(store, [value, pointer, ir.Constant(I32, size), self.mask])

    def _spread(self, number: Any, type_: ir.VectorType) -> Any:
        """A vector of one number."""
        undefined = ir.Constant(type_, ir.Undefined)
        zeros = ir.Constant(ir.VectorType(I32, self.lanes), [0] * self.lanes)
        first = self.build.insert_element(undefined, number, ir.Constant(I32, 0))
        return self.build.shuffle_vector(first, undefined, zeros)

    def _intrinsic(
        self, name: str, result: Any, takes: list, of: ir.VectorType, suffix: str = ""
    ) -> Any:
        name = f"{name}.v{self.lanes}{of.element.intrinsic_name}{suffix}"
        found = self.module.globals.get(name)
        return found or ir.Function(self.module, ir.FunctionType(result, takes), name)

    def _pointer(self, address: Any, type_: Any) -> Any:
        return self.build.inttoptr(address, type_.as_pointer())

    def _block(self, name: str) -> Any:
        return self.function.append_basic_block(name)


def _bytes(type_: Any) -> int:
    if isinstance(type_, ir.IntType):
        return type_.width // 8
    return {"f64": 8, "f32": 4}.get(type_.intrinsic_name, 2)


def _int(k: int) -> ir.Constant:
    return ir.Constant(I64, k)
