"""Eight to thirty-two float32 at a time inside numba functions: what the compiler cannot be trusted to find by itself.

A loop over rows of several arrays is vectorised by LLVM only behind run-time tests for overlap, which cost more than
the loop where rows are short; and a sum only under `fastmath`. These say it outright. A sum is always of sixteen lanes
in the same order, so results do not depend on batch, thread or optimiser. Arrays are C-contiguous, [rows, columns];
nothing is checked.

numba's cache on disk watches the file of the function that it compiled, not this one: after a change here, touch
`kernel.py` and `top_items.py`.
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


@_intrinsic
def count_bits(typing: Any, bits: Any) -> Any:
    """How many bits are set."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.ctpop(args[0])

    return types.uint64(types.uint64), lower


def _declared(builder: Any, name: str, result: Any, arguments: list[Any]) -> Any:
    found = builder.module.globals.get(name)
    return found or ir.Function(builder.module, ir.FunctionType(result, arguments), name)


@_intrinsic
def record16(
    typing: Any,
    rows: Any,
    b: Any,
    k: Any,
    empty: Any,
    clicked: Any,
    places: Any,
    shown: Any,
    clicks: Any,
    past: Any,
    user: Any,
    written: Any,
) -> Any:
    """Sixteen places of a slate, k and following, into the outputs [user, k:] and the history [user, written:].

    rows, clicked: [.., L] uint64 and float32, of row b: item (`empty` where there is none) and 1 or 0. places: bits of
    the places that exist. shown, clicks: int32 item or -1, uint8. past: int32, 2 item + click of those that are there,
    one after the other. Returns the bits of the places that are there, and from bit 16 on of those that were clicked.
    """

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        wide, numbers, bytes_ = (ir.VectorType(ir.IntType(bits), 16) for bits in (64, 32, 8))
        flags, nothing = ir.VectorType(ir.IntType(1), 16), ir.VoidType()

        def at(array: int, row: int, column: int, kind: Any) -> Any:
            return _address(context, builder, kinds[array], args[array], args[row], args[column], kind)

        def spread(number: Any, kind: Any) -> Any:
            one = builder.insert_element(ir.Constant(kind, ir.Undefined), number, _INDEX(0))
            return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), _constant(16, 0))

        found = builder.load(at(0, 1, 2, wide), align=8)
        exists = builder.bitcast(builder.trunc(args[5], ir.IntType(16)), flags)
        there = builder.and_(builder.icmp_unsigned("<", found, spread(args[3], wide)), exists)
        item = builder.select(there, builder.trunc(found, numbers), _constant(16, -1))
        hit = builder.fcmp_ordered(
            ">", builder.load(at(4, 1, 2, _kind(16)), align=4), ir.Constant(_kind(16), [0.0] * 16)
        )
        hit = builder.and_(hit, there)
        click = builder.zext(hit, numbers)
        entry = builder.add(builder.shl(item, _constant(16, 1)), click)
        for name, values, place in (
            ("llvm.masked.store.v16i32.p0", item, at(6, 9, 2, numbers)),
            ("llvm.masked.store.v16i8.p0", builder.zext(hit, bytes_), at(7, 9, 2, bytes_)),
        ):
            store = _declared(builder, name, nothing, [values.type, place.type, _INDEX, flags])
            builder.call(store, [values, place, _INDEX(1), exists])
        place = builder.bitcast(at(8, 9, 10, numbers), ir.IntType(32).as_pointer())
        pack = _declared(builder, "llvm.masked.compressstore.v16i32", nothing, [numbers, place.type, flags])
        builder.call(pack, [entry, place, there])
        low = builder.zext(builder.bitcast(there, ir.IntType(16)), ir.IntType(64))
        high = builder.zext(builder.bitcast(hit, ir.IntType(16)), ir.IntType(64))
        return builder.or_(low, builder.shl(high, ir.IntType(64)(16)))

    signature = types.uint64(
        rows,
        types.int64,
        types.int64,
        types.uint64,
        clicked,
        types.uint64,
        shown,
        clicks,
        past,
        types.int64,
        types.int64,
    )
    return signature, lower


@_intrinsic
def equal16(typing: Any, array: Any, row: Any, column: Any, odd: Any) -> Any:
    """Bits of the sixteen int32 of array[row, column : column + 16] that are `odd` or one less."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        numbers = ir.VectorType(_INDEX, 16)
        vector = builder.load(
            _address(context, builder, signature.args[0], args[0], args[1], args[2], numbers), align=4
        )
        nothing = ir.Constant(numbers, ir.Undefined)
        wanted = builder.shuffle_vector(builder.insert_element(nothing, args[3], _INDEX(0)), nothing, _constant(16, 0))
        same = builder.icmp_signed("==", builder.or_(vector, _constant(16, 1)), wanted)
        return builder.zext(builder.bitcast(same, ir.IntType(16)), ir.IntType(64))

    return types.uint64(array, types.int64, types.int64, types.int32), lower


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
