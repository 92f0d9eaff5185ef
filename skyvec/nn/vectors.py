"""Eight floats as one value in compiled passes: load, store, add, multiply, the larger of two.

A compiler that cannot prove that arrays are apart falls back to one float at a time. Here the
passes say themselves what is done eight at a time, as instructions of LLVM, which every processor
has in one form or another (two halves where its own vectors are shorter).
"""

import operator
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.extending import intrinsic, overload, register_model

WIDTH = 8
"""Floats of a vector."""

_IR = ir.VectorType(ir.FloatType(), WIDTH)
_FUSE = ("contract", "nsz")


class _Vector(types.Type):
    def __init__(self) -> None:
        super().__init__(name="eight_floats")


VECTOR = _Vector()


@register_model(_Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _IR)


def _place(context: Any, builder: Any, array: Any, value: Any, at: Any) -> Any:
    """Pointer to eight floats of an array from an index on."""
    data = context.make_array(array)(context, builder, value).data
    return builder.bitcast(builder.gep(data, [at]), _IR.as_pointer())


def _all(builder: Any, scalar: Any) -> Any:
    """Eight times the same float."""
    one = builder.insert_element(
        ir.Constant(_IR, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0)
    )
    mask = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
    return builder.shuffle_vector(one, ir.Constant(_IR, ir.Undefined), mask)


def _is_flat(array: Any) -> bool:
    return isinstance(array, types.Array) and array.ndim == 1 and array.layout == "C"


@intrinsic  # type: ignore[untyped-decorator]
def load(_context: Any, array: Any, at: Any) -> Any:
    """array[at : at + 8] of a flat float32 array."""
    if not _is_flat(array):
        return None

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        value = builder.load(_place(context, builder, signature.args[0], *args))
        value.align = 4
        return value

    return VECTOR(array, types.intp), code


@intrinsic  # type: ignore[untyped-decorator]
def store(_context: Any, array: Any, at: Any, vector: Any) -> Any:
    """Write array[at : at + 8] of a flat float32 array."""
    if not _is_flat(array) or vector is not VECTOR:
        return None

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        written = builder.store(args[2], _place(context, builder, signature.args[0], *args[:2]))
        written.align = 4
        return context.get_dummy_value()

    return types.void(array, types.intp, VECTOR), code


@intrinsic  # type: ignore[untyped-decorator]
def spread(_context: Any, scalar: Any) -> Any:
    """Give eight times a float32."""

    def code(_: Any, builder: Any, __: Any, args: Any) -> Any:
        return _all(builder, args[0])

    return VECTOR(types.float32), code


@intrinsic  # type: ignore[untyped-decorator]
def single(_context: Any, array: Any, at: Any) -> Any:
    """Eight times array[at] of a flat float32 array; at >= 0, which is not asked."""
    if not _is_flat(array):
        return None

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        return _all(builder, builder.load(builder.gep(data, [args[1]])))

    return VECTOR(array, types.intp), code


@intrinsic  # type: ignore[untyped-decorator]
def larger(_context: Any, a: Any, b: Any) -> Any:
    """Give the larger of two, one by one."""

    def code(_: Any, builder: Any, __: Any, args: Any) -> Any:
        return builder.select(builder.fcmp_ordered(">", *args), *args)

    return VECTOR(VECTOR, VECTOR), code


@intrinsic  # type: ignore[untyped-decorator]
def fused(_context: Any, a: Any, b: Any, c: Any) -> Any:
    """Give a b + c, rounded once."""

    def code(_: Any, builder: Any, __: Any, args: Any) -> Any:
        kind = ir.FunctionType(_IR, [_IR] * 3)
        name = f"llvm.fma.v{WIDTH}f32"
        return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), args)

    return VECTOR(VECTOR, VECTOR, VECTOR), code


@intrinsic  # type: ignore[untyped-decorator]
def total(_context: Any, vector: Any) -> Any:
    """Sum of the eight."""

    def code(_: Any, builder: Any, __: Any, args: Any) -> Any:
        parts = [
            builder.extract_element(args[0], ir.Constant(ir.IntType(32), i)) for i in range(WIDTH)
        ]
        while len(parts) > 1:
            parts = [builder.fadd(a, b) for a, b in zip(parts[::2], parts[1::2])]
        return parts[0]

    return types.float32(VECTOR), code


def _binary(name: str) -> Any:
    @intrinsic  # type: ignore[untyped-decorator]
    def one(_context: Any, a: Any, b: Any) -> Any:
        def code(_: Any, builder: Any, __: Any, args: Any) -> Any:
            return getattr(builder, name)(*args, flags=_FUSE)

        return VECTOR(VECTOR, VECTOR), code

    return one


_ADD, _SUB, _MUL = _binary("fadd"), _binary("fsub"), _binary("fmul")


def _of_two(one: Any) -> Any:
    def chosen(a: Any, b: Any) -> Any:
        def both(a: Any, b: Any) -> Any:
            return one(a, b)

        return both if a is VECTOR and b is VECTOR else None

    return chosen


overload(operator.add)(_of_two(_ADD))
overload(operator.sub)(_of_two(_SUB))
overload(operator.mul)(_of_two(_MUL))
