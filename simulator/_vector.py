"""Eight float32 at a time inside numba functions: what the compiler cannot be trusted to find by itself.

A loop over rows of several arrays is vectorised by LLVM only behind run-time tests for overlap, which cost more than
the loop where rows are short; and a sum only under `fastmath`. These say it outright. A sum is always of eight lanes
in the same order, so results do not depend on batch, thread or optimiser. Arrays are C-contiguous, [rows, columns],
with columns a multiple of eight; nothing is checked.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, models, register_model

WIDTH = 8
_VECTOR = ir.VectorType(ir.FloatType(), WIDTH)
_INDEX = ir.IntType(32)


class Float8(types.Type):
    """Numba's type of eight float32."""

    def __init__(self) -> None:
        super().__init__(name="Float8")


float8 = Float8()


@register_model(Float8)
class _Float8Model(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _VECTOR)


def _address(
    context: Any, builder: Any, kind: Any, array: Any, row: Any, column: Any, vector: Any = _VECTOR
) -> Any:
    found = context.make_array(kind)(context, builder, value=array)
    columns = builder.extract_value(found.shape, 1)
    offset = builder.add(builder.mul(row, columns), column)
    return builder.bitcast(builder.gep(found.data, [offset]), vector.as_pointer())


@intrinsic  # type: ignore[untyped-decorator]
def load8(typing: Any, array: Any, row: Any, column: Any) -> Any:
    """array[row, column : column + 8]."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_address(context, builder, signature.args[0], *args), align=4)

    return float8(array, types.int64, types.int64), lower


@intrinsic  # type: ignore[untyped-decorator]
def store8(typing: Any, array: Any, row: Any, column: Any, vector: Any) -> Any:
    """array[row, column : column + 8] = vector."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[3], _address(context, builder, signature.args[0], *args[:3]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.int64, types.int64, float8), lower


@intrinsic  # type: ignore[untyped-decorator]
def fill8(typing: Any, number: Any) -> Any:
    """The same float32 eight times."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), args[0], _INDEX(0))
        zeros = ir.Constant(ir.VectorType(_INDEX, WIDTH), [0] * WIDTH)
        return builder.shuffle_vector(one, ir.Constant(_VECTOR, ir.Undefined), zeros)

    return float8(types.float32), lower


@intrinsic  # type: ignore[untyped-decorator]
def add8(typing: Any, a: Any, b: Any) -> Any:
    """Sum of two vectors, lane by lane."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fadd(*args)

    return float8(float8, float8), lower


@intrinsic  # type: ignore[untyped-decorator]
def mul8(typing: Any, a: Any, b: Any) -> Any:
    """Product of two vectors, lane by lane."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fmul(*args)

    return float8(float8, float8), lower


@intrinsic  # type: ignore[untyped-decorator]
def mad8(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a * b + c, lane by lane; rounded once where the processor does so."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        name = f"llvm.fmuladd.v{WIDTH}f32"
        kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
        found = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        return builder.call(found, args)

    return float8(float8, float8, float8), lower


@intrinsic  # type: ignore[untyped-decorator]
def sum8(typing: Any, a: Any) -> Any:
    """Sum of the eight lanes: halves first, then quarters, then the two left."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        vector, lanes = args[0], WIDTH
        while lanes > 1:
            lanes //= 2
            low = ir.Constant(ir.VectorType(_INDEX, lanes), list(range(lanes)))
            high = ir.Constant(ir.VectorType(_INDEX, lanes), list(range(lanes, 2 * lanes)))
            nothing = ir.Constant(vector.type, ir.Undefined)
            vector = builder.fadd(
                builder.shuffle_vector(vector, nothing, low), builder.shuffle_vector(vector, nothing, high)
            )
        return builder.extract_element(vector, _INDEX(0))

    return types.float32(float8), lower


@intrinsic  # type: ignore[untyped-decorator]
def unpack8(typing: Any, packed: Any, row: Any, column: Any, high: Any, low: Any, to: Any, at: Any) -> Any:
    """Of packed[row, column : column + 8] int32: n >> 1 into high (int64), n & 1 into low (float32), at [to, at:]."""

    def lower(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kinds = signature.args
        numbers, wide = ir.VectorType(ir.IntType(32), WIDTH), ir.VectorType(ir.IntType(64), WIDTH)
        source = _address(context, builder, kinds[0], *args[:3], numbers)
        vector = builder.load(source, align=4)
        one = ir.Constant(numbers, [1] * WIDTH)
        halves = builder.sext(builder.ashr(vector, one), wide)
        builder.store(halves, _address(context, builder, kinds[3], args[3], args[5], args[6], wide), align=8)
        bits = builder.sitofp(builder.and_(vector, one), _VECTOR)
        builder.store(bits, _address(context, builder, kinds[4], args[4], args[5], args[6]), align=4)
        return context.get_dummy_value()

    return types.void(packed, types.int64, types.int64, high, low, types.int64, types.int64), lower
