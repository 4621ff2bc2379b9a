"""Eight or sixteen float32 at a time inside numba functions: what the compiler cannot be trusted to find by itself.

A loop over rows of several arrays is vectorised by LLVM only behind run-time tests for overlap, which cost more than
the loop where rows are short; and a sum only under `fastmath`. These say it outright. A sum is always of eight lanes
in the same order, so results do not depend on batch, thread or optimiser. Arrays are C-contiguous, [rows, columns];
nothing is checked.

numba's cache on disk watches the file of the function that it compiled, not this one: after a change here, touch
`kernel.py`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, models, register_model

_INDEX = ir.IntType(32)
_intrinsic: Callable[[Callable[..., Any]], Callable[..., Any]] = intrinsic


def _kind(width: int) -> ir.VectorType:
    return ir.VectorType(ir.FloatType(), width)


class FloatVector(types.Type):
    """Numba's type of `width` float32."""

    def __init__(self, width: int) -> None:
        self.width = width
        super().__init__(name=f"Float{width}")


@register_model(FloatVector)
class _FloatVectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: FloatVector) -> None:
        super().__init__(dmm, fe_type, _kind(fe_type.width))


float8, float16 = FloatVector(8), FloatVector(16)


def _address(context: Any, builder: Any, kind: Any, array: Any, row: Any, column: Any, vector: ir.VectorType) -> Any:
    found = context.make_array(kind)(context, builder, value=array)
    columns = builder.extract_value(found.shape, 1)
    offset = builder.add(builder.mul(row, columns), column)
    return builder.bitcast(builder.gep(found.data, [offset]), vector.as_pointer())


def _constant(width: int, number: int, bits: int = 32) -> ir.Constant:
    return ir.Constant(ir.VectorType(ir.IntType(bits), width), [number] * width)


def _make_load(vector: FloatVector) -> Callable[..., Any]:
    @_intrinsic
    def load(typing: Any, array: Any, row: Any, column: Any) -> Any:
        """array[row, column : column + width]."""

        def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            place = _address(context, builder, signature.args[0], args[0], args[1], args[2], _kind(vector.width))
            return builder.load(place, align=4)

        return vector(array, types.int64, types.int64), lower

    return load


def _make_store(vector: FloatVector) -> Callable[..., Any]:
    @_intrinsic
    def store(typing: Any, array: Any, row: Any, column: Any, numbers: Any) -> Any:
        """array[row, column : column + width] = numbers."""

        def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            place = _address(context, builder, signature.args[0], args[0], args[1], args[2], _kind(vector.width))
            builder.store(args[3], place, align=4)
            return context.get_dummy_value()

        return types.void(array, types.int64, types.int64, vector), lower

    return store


def _make_fill(vector: FloatVector) -> Callable[..., Any]:
    @_intrinsic
    def fill(typing: Any, number: Any) -> Any:
        """The same float32 in every lane."""

        def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            nothing = ir.Constant(_kind(vector.width), ir.Undefined)
            one = builder.insert_element(nothing, args[0], _INDEX(0))
            return builder.shuffle_vector(one, nothing, _constant(vector.width, 0))

        return vector(types.float32), lower

    return fill


def _make_mad(vector: FloatVector) -> Callable[..., Any]:
    @_intrinsic
    def mad(typing: Any, a: Any, b: Any, c: Any) -> Any:
        """Product of a and b, plus c, lane by lane; rounded once where the processor does so."""

        def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            name, kind = f"llvm.fmuladd.v{vector.width}f32", _kind(vector.width)
            found = builder.module.globals.get(name) or ir.Function(
                builder.module, ir.FunctionType(kind, [kind] * 3), name
            )
            return builder.call(found, args)

        return vector(vector, vector, vector), lower

    return mad


load8, store8, fill8, mad8 = _make_load(float8), _make_store(float8), _make_fill(float8), _make_mad(float8)
load16, store16, fill16, mad16 = _make_load(float16), _make_store(float16), _make_fill(float16), _make_mad(float16)


@_intrinsic
def add8(typing: Any, a: Any, b: Any) -> Any:
    """Sum of two vectors, lane by lane."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(*args)

    return float8(float8, float8), lower


@_intrinsic
def mul8(typing: Any, a: Any, b: Any) -> Any:
    """Product of two vectors, lane by lane."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fmul(*args)

    return float8(float8, float8), lower


@_intrinsic
def sum8(typing: Any, a: Any) -> Any:
    """Sum of the eight lanes: halves first, then quarters, then the two left."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector, lanes = args[0], 8
        while lanes > 1:
            lanes //= 2
            low = ir.Constant(ir.VectorType(_INDEX, lanes), list(range(lanes)))
            high = ir.Constant(ir.VectorType(_INDEX, lanes), list(range(lanes, 2 * lanes)))
            nothing = ir.Constant(vector.type, ir.Undefined)
            first = builder.shuffle_vector(vector, nothing, low)
            vector = builder.fadd(first, builder.shuffle_vector(vector, nothing, high))
        return builder.extract_element(vector, _INDEX(0))

    return types.float32(float8), lower


@_intrinsic
def max16(typing: Any, a: Any, b: Any) -> Any:
    """The greater of two vectors, lane by lane."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return float16(float16, float16), lower


@_intrinsic
def above16(typing: Any, numbers: Any, limit: Any) -> Any:
    """Bits of the sixteen lanes that are greater than the same lane of the limit."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        above = builder.bitcast(builder.fcmp_ordered(">", *args), ir.IntType(16))
        return builder.zext(above, ir.IntType(64))

    return types.uint64(float16, float16), lower


@_intrinsic
def lowest_bit(typing: Any, bits: Any) -> Any:
    """Number of the lowest bit that is set; some bit must be."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.cttz(args[0], ir.IntType(1)(1))

    return types.uint64(types.uint64), lower


@_intrinsic
def move8(typing: Any, array: Any, row: Any, source: Any, target: Any) -> Any:
    """array[row, target : target + 8] = array[row, source : source + 8], int32."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        numbers = ir.VectorType(ir.IntType(32), 8)
        kind = signature.args[0]
        vector = builder.load(_address(context, builder, kind, args[0], args[1], args[2], numbers), align=4)
        builder.store(vector, _address(context, builder, kind, args[0], args[1], args[3], numbers), align=4)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, types.int64), lower


def _make_prefetch(for_writing: int) -> Callable[..., Any]:
    @_intrinsic
    def prefetch(typing: Any, array: Any, row: Any, column: Any) -> Any:
        """Ask for the cache line of array[row, column], soon to be read (or written); changes no result."""

        def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            byte = ir.IntType(8).as_pointer()
            element = ir.VectorType(context.get_value_type(signature.args[0].dtype), 1)
            place = _address(context, builder, signature.args[0], args[0], args[1], args[2], element)
            name = "llvm.prefetch.p0"
            found = builder.module.globals.get(name) or ir.Function(
                builder.module, ir.FunctionType(ir.VoidType(), [byte, _INDEX, _INDEX, _INDEX]), name
            )
            builder.call(found, [builder.bitcast(place, byte), _INDEX(for_writing), _INDEX(3), _INDEX(1)])
            return context.get_dummy_value()

        return types.void(array, types.int64, types.int64), lower

    return prefetch


prefetch_read, prefetch_write = _make_prefetch(0), _make_prefetch(1)


@_intrinsic
def unpack8(typing: Any, packed: Any, row: Any, column: Any, high: Any, low: Any, to: Any, at: Any) -> Any:
    """Of packed[row, column : column + 8] int32: n >> 1 into high (int64), n & 1 into low (float32), at [to, at:]."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        numbers, wide = ir.VectorType(ir.IntType(32), 8), ir.VectorType(ir.IntType(64), 8)
        vector = builder.load(_address(context, builder, kinds[0], args[0], args[1], args[2], numbers), align=4)
        halves = builder.sext(builder.ashr(vector, _constant(8, 1)), wide)
        builder.store(halves, _address(context, builder, kinds[3], args[3], args[5], args[6], wide), align=8)
        bits = builder.sitofp(builder.and_(vector, _constant(8, 1)), _kind(8))
        builder.store(bits, _address(context, builder, kinds[4], args[4], args[5], args[6], _kind(8)), align=4)
        return context.get_dummy_value()

    return types.void(packed, types.int64, types.int64, high, low, types.int64, types.int64), lower
