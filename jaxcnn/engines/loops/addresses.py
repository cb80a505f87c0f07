"""Numbers in memory by their address: what numba's Python cannot say.

An address is an int64. Nothing is checked: :mod:`.tables` sees to it that they are right.
"""

from typing import Any

import numba.extending
from llvmlite import ir
from numba import njit, types

from jaxcnn.engines.loops.tile import ARGUMENTS, NAMES

intrinsic: Any = numba.extending.intrinsic

loop = njit(error_model="numpy")
"""A function that numba compiles; with C's division, since nobody could catch an error."""

_I32, _I64 = ir.IntType(32), ir.IntType(64)


def _pointer(builder: Any, address: Any, to: Any) -> Any:
    return builder.inttoptr(address, to.as_pointer())


@intrinsic
def load64(typing, address):
    def generate(_, builder, __, arguments):
        return builder.load(_pointer(builder, arguments[0], _I64))

    return types.int64(types.int64), generate


@intrinsic
def load32(typing, address):
    def generate(_, builder, __, arguments):
        return builder.sext(builder.load(_pointer(builder, arguments[0], _I32)), _I64)

    return types.int64(types.int64), generate


@intrinsic
def store64(typing, address, value):
    def generate(context, builder, _, arguments):
        builder.store(arguments[1], _pointer(builder, arguments[0], _I64))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def store32(typing, address, value):
    def generate(context, builder, _, arguments):
        narrow = builder.trunc(arguments[1], _I32)
        builder.store(narrow, _pointer(builder, arguments[0], _I32))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def add_atomically(typing, address, value):
    """Add to a number that other threads may change; what it was before."""

    def generate(_, builder, __, arguments):
        address, value = arguments
        return builder.atomic_rmw("add", _pointer(builder, address, _I64), value, "seq_cst")

    return types.int64(types.int64, types.int64), generate


@intrinsic
def clear(typing, address, count):
    """Set so many bytes to zero."""

    def generate(context, builder, _, arguments):
        address, count = arguments
        byte = ir.IntType(8)
        takes = [byte.as_pointer(), byte, _I64, ir.IntType(1)]
        name = "llvm.memset.p0.i64"
        memset = builder.module.globals.get(name) or ir.Function(
            builder.module, ir.FunctionType(ir.VoidType(), takes), name
        )
        start = _pointer(builder, address, byte)
        builder.call(memset, [start, byte(0), count, ir.IntType(1)(0)])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64), generate


@intrinsic
def call(typing, function, argument):
    """Call a function of C's at an address, of one pointer, that gives a pointer."""

    def generate(_, builder, __, arguments):
        type_ = ir.FunctionType(_I64, [_I64])
        return builder.call(_pointer(builder, arguments[0], type_), [arguments[1]])

    return types.int64(types.int64, types.int64), generate


@intrinsic
def call2(typing, function, first, second):
    """Call a function at an address, of two integers, that gives none."""

    def generate(context, builder, _, arguments):
        type_ = ir.FunctionType(ir.VoidType(), [_I64, _I64])
        builder.call(_pointer(builder, arguments[0], type_), arguments[1:])
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


def caller_of_tiles(is_partial: bool) -> Any:
    """What calls a tile: with its ARGUMENTS, and the lanes of a vector after the third.

    Args:
      is_partial: whether the last vector may have fewer numbers than lanes.
    """

    @intrinsic
    def call_tile(
        typing, rows, vectors, last, lanes, strides, a, b, c, other, step, n0, n1, n2, n3
    ):
        def generate(context, builder, _, arguments):
            rows, vectors, last, lanes, *rest = arguments
            type_ = ir.FunctionType(ir.VoidType(), [_I64] * ARGUMENTS)
            names = [NAMES[False], *([NAMES[True]] if is_partial else [])]
            whole, *partial = (
                builder.module.globals.get(name) or ir.Function(builder.module, type_, name)
                for name in names
            )
            function = whole
            if partial:
                is_less = builder.icmp_signed("<", last, lanes)
                function = builder.select(is_less, partial[0], whole)
            builder.call(function, [rows, vectors, last, *rest])
            return context.get_dummy_value()

        return types.void(*[types.int64] * (ARGUMENTS + 1)), generate

    return call_tile


def address_of(name: str) -> Any:
    """What gives the address of a function of C's, or of this module, by its name."""

    @intrinsic
    def address(typing):
        def generate(_, builder, __, ___):
            type_ = ir.FunctionType(_I64, [_I64])
            found = builder.module.globals.get(name)
            function = found or ir.Function(builder.module, type_, name)
            return builder.ptrtoint(function, _I64)

        return types.int64(), generate

    return address


@intrinsic
def words(typing, count):
    """The address of memory for so many int64, until the function returns."""

    def generate(_, builder, signature, arguments):
        return builder.ptrtoint(builder.alloca(_I64, arguments[0]), _I64)

    return types.int64(types.int64), generate
