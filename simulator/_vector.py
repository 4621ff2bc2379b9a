"""Eight to thirty-two float32 at a time inside numba functions: what the compiler cannot be trusted to find by itself.

A loop over rows of several arrays is vectorised by LLVM only behind run-time tests for overlap, which cost more than
the loop where rows are short; and a sum only under `fastmath`. These say it outright. A sum is always of sixteen lanes
in the same order, so results do not depend on batch, thread or optimiser. Arrays are C-contiguous, [rows, columns];
nothing is checked.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, models, register_model

_INDEX = ir.IntType(32)
_SHORTS = ir.VectorType(ir.IntType(16), 32)
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


float16, float32 = FloatVector(16), FloatVector(32)


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


load16, store16, fill16, mad16 = _make_load(float16), _make_store(float16), _make_fill(float16), _make_mad(float16)
load32, store32, fill32, mad32 = _make_load(float32), _make_store(float32), _make_fill(float32), _make_mad(float32)


def _make_pair(vector: FloatVector, operation: str) -> Callable[..., Any]:
    @_intrinsic
    def pair(typing: Any, a: Any, b: Any) -> Any:
        """Sum or product of two vectors, lane by lane."""

        def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return getattr(builder, operation)(*args)

        return vector(vector, vector), lower

    return pair


add16, add32, mul32 = _make_pair(float16, "fadd"), _make_pair(float32, "fadd"), _make_pair(float32, "fmul")


@_intrinsic
def keep32(typing: Any, bits: Any, a: Any) -> Any:
    """Lane j of the vector where bit j is set, 0 elsewhere."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        mask = builder.bitcast(builder.trunc(args[0], _INDEX), ir.VectorType(ir.IntType(1), 32))
        return builder.select(mask, args[1], ir.Constant(_kind(32), [0.0] * 32))

    return float32(types.uint64, float32), lower


def _halves_added(builder: Any, vector: Any) -> Any:
    lanes = vector.type.count // 2
    low = ir.Constant(ir.VectorType(_INDEX, lanes), list(range(lanes)))
    high = ir.Constant(ir.VectorType(_INDEX, lanes), list(range(lanes, 2 * lanes)))
    nothing = ir.Constant(vector.type, ir.Undefined)
    return builder.fadd(builder.shuffle_vector(vector, nothing, low), builder.shuffle_vector(vector, nothing, high))


@_intrinsic
def half32(typing: Any, a: Any) -> Any:
    """The first sixteen lanes plus the last."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _halves_added(builder, args[0])

    return float16(float32), lower


@_intrinsic
def sum16(typing: Any, a: Any) -> Any:
    """Sum of the sixteen lanes: halves first, then quarters, and so on."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = args[0]
        while vector.type.count > 1:
            vector = _halves_added(builder, vector)
        return builder.extract_element(vector, _INDEX(0))

    return types.float32(float16), lower


@_intrinsic
def max16(typing: Any, a: Any, b: Any) -> Any:
    """The greater of two vectors, lane by lane."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return float16(float16, float16), lower


@_intrinsic
def without16(typing: Any, a: Any, bits: Any) -> Any:
    """The vector with -inf in the lanes whose bit is set."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        mask = builder.bitcast(builder.trunc(args[1], ir.IntType(16)), ir.VectorType(ir.IntType(1), 16))
        return builder.select(mask, ir.Constant(_kind(16), [float("-inf")] * 16), args[0])

    return float16(float16, types.uint64), lower


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
def count_bits(typing: Any, bits: Any) -> Any:
    """How many bits are set."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

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


class ShortVector(types.Type):
    """Numba's type of thirty-two uint16."""


@register_model(ShortVector)
class _ShortVectorModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: ShortVector) -> None:
        super().__init__(dmm, fe_type, _SHORTS)


_shorts = ShortVector("Short32")


def _splat(builder: Any, number: Any) -> Any:
    nothing = ir.Constant(_SHORTS, ir.Undefined)
    return builder.shuffle_vector(builder.insert_element(nothing, number, _INDEX(0)), nothing, _constant(32, 0))


def _kept(builder: Any, vector: Any, first: Any, count: Any) -> Any:
    """The vector's lanes `first` (below `count`, and below 32) to `count`, and 65,535 in the others."""
    lane = ir.Constant(_SHORTS, list(range(32)))
    count = builder.select(builder.icmp_signed("<", count, count.type(32)), count, count.type(32))
    first, length = (builder.trunc(n, ir.IntType(16)) for n in (first, builder.sub(count, first)))
    outside = builder.icmp_unsigned(">=", builder.sub(lane, _splat(builder, first)), _splat(builder, length))
    return builder.or_(vector, builder.sext(outside, _SHORTS))


@_intrinsic
def far32(typing: Any) -> Any:
    """Thirty-two times 65,535."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return _constant(32, 0xFFFF, 16)

    return _shorts(), lower


@_intrinsic
def short32(typing: Any, array: Any, row: Any, column: Any) -> Any:
    """array[row, column : column + 32], uint16."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_address(context, builder, signature.args[0], args[0], args[1], args[2], _SHORTS), align=2)

    return _shorts(array, types.int64, types.int64), lower


@_intrinsic
def first32(typing: Any, array: Any, row: Any, column: Any, count: Any) -> Any:
    """array[row, column : column + count], and 65,535 in the lanes behind."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector = builder.load(
            _address(context, builder, signature.args[0], args[0], args[1], args[2], _SHORTS), align=2
        )
        return _kept(builder, vector, args[3].type(0), args[3])

    return _shorts(array, types.int64, types.int64, types.int64), lower


@_intrinsic
def twins32(typing: Any, array: Any, row: Any, column: Any, first: Any, count: Any, above: Any) -> Any:
    """Of the numbers `first` to `count` of array[row, column:], each one ^ that `above` places before; else 65,535."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        one, other = (
            builder.load(_address(context, builder, signature.args[0], args[0], args[1], place, _SHORTS), align=2)
            for place in (args[2], builder.sub(args[2], args[5]))
        )
        return _kept(builder, builder.xor(one, other), args[3], args[4])

    return _shorts(array, types.int64, types.int64, types.int64, types.int64, types.int64), lower


@_intrinsic
def apart32(typing: Any, a: Any, number: Any) -> Any:
    """Lane by lane a ^ number: zero where they are the same."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.xor(args[0], _splat(builder, args[1]))

    return _shorts(_shorts, types.uint16), lower


@_intrinsic
def lesser32(typing: Any, a: Any, b: Any) -> Any:
    """The lesser of two vectors, lane by lane."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.select(builder.icmp_unsigned("<", *args), *args)

    return _shorts(_shorts, _shorts), lower


@_intrinsic
def zeros32(typing: Any, a: Any) -> Any:
    """Bits of the lanes that are zero."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        zero = builder.icmp_unsigned("==", args[0], _constant(32, 0, 16))
        return builder.zext(builder.bitcast(zero, _INDEX), ir.IntType(64))

    return types.uint64(_shorts), lower


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
    """Of packed[row, column : column + 8] int32: n >> 1 into high (int32), n & 1 into low (float32), at [to, at:]."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        numbers = ir.VectorType(ir.IntType(32), 8)
        vector = builder.load(_address(context, builder, kinds[0], args[0], args[1], args[2], numbers), align=4)
        halves = builder.ashr(vector, _constant(8, 1))
        builder.store(halves, _address(context, builder, kinds[3], args[3], args[5], args[6], numbers), align=4)
        bits = builder.sitofp(builder.and_(vector, _constant(8, 1)), _kind(8))
        builder.store(bits, _address(context, builder, kinds[4], args[4], args[5], args[6], _kind(8)), align=4)
        return context.get_dummy_value()

    return types.void(packed, types.int64, types.int64, high, low, types.int64, types.int64), lower
