"""Eight float32 numbers as one value inside numba's compiled code.

Numba leaves it to LLVM to guess which loops become vector instructions; the guess fails where a loop has masks,
several sums, and memory that might overlap. Here the vector is a type: ``+ - *`` and comparisons work lane by lane,
a float32 beside a vector stands for eight of it, and LLVM makes of it what the processor has: one instruction of AVX2
or AVX-512, two of NEON. Products and sums may be fused; NaN and infinity keep their meaning.

It keeps to what numba's manual documents for extensions ("Low-level extension API") and to llvmlite's IR builder. Only
compiled code can call what is here.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, lower_builtin, models, register_model, type_callable

LANES = 8
_SINGLE, _INT = ir.FloatType(), ir.IntType(32)
_SINGLES, _INTS = ir.VectorType(_SINGLE, LANES), ir.VectorType(_INT, LANES)
_FLAGS = ("contract", "nsz", "arcp")


class _Vector(types.Type):
    """Numba's type of a vector."""


_lanes, _mask = _Vector("lanes"), _Vector("mask")


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    """How numba keeps a vector: as LLVM does."""

    def __init__(self, dmm: Any, fe_type: Any):
        super().__init__(dmm, fe_type, _SINGLES if fe_type == _lanes else ir.VectorType(ir.IntType(1), LANES))


def _constant(value: float) -> ir.Constant:
    return ir.Constant(_SINGLES, [value] * LANES)


def _repeated(builder: Any, kind: Any, value: Any) -> Any:
    """The value itself if it is a vector, else eight of it."""
    if kind == _lanes:
        return value
    undefined = ir.Constant(_SINGLES, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_INTS, [0] * LANES))


def _define_operator(symbol: Callable, result: _Vector, build: Callable[[Any, Any, Any], Any]) -> None:
    @type_callable(symbol)
    def type_operator(context: Any) -> Any:
        def typer(a: Any, b: Any) -> Any:
            known = all(kind in (_lanes, types.float32) for kind in (a, b))
            return result if known and _lanes in (a, b) else None

        return typer

    def lower(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return build(builder, *(_repeated(builder, kind, value) for kind, value in zip(sig.args, values, strict=True)))

    for kinds in ((_lanes, _lanes), (_lanes, types.float32), (types.float32, _lanes)):
        lower_builtin(symbol, *kinds)(lower)


_define_operator(operator.add, _lanes, lambda builder, a, b: builder.fadd(a, b, flags=_FLAGS))
_define_operator(operator.sub, _lanes, lambda builder, a, b: builder.fsub(a, b, flags=_FLAGS))
_define_operator(operator.mul, _lanes, lambda builder, a, b: builder.fmul(a, b, flags=_FLAGS))
_define_operator(operator.truediv, _lanes, lambda builder, a, b: builder.fdiv(a, b, flags=_FLAGS))
_define_operator(operator.gt, _mask, lambda builder, a, b: builder.fcmp_ordered(">", a, b))
_define_operator(operator.ge, _mask, lambda builder, a, b: builder.fcmp_ordered(">=", a, b))
_define_operator(operator.le, _mask, lambda builder, a, b: builder.fcmp_ordered("<=", a, b))


def _address(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = cgutils.create_struct_proxy(kind)(context, builder, value=array).data
    return builder.bitcast(builder.gep(data, [index], inbounds=True), ir.PointerType(_SINGLES))


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """The eight numbers of a one-dimensional array that begin at an index."""

    def build(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return builder.load(_address(context, builder, sig.args[0], *values), align=4)

    return _lanes(array, types.uint64), build


@intrinsic
def store(typing: Any, array: Any, index: Any, vector: Any) -> Any:
    """Writes a vector to a one-dimensional array from an index on."""

    def build(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        builder.store(values[2], _address(context, builder, sig.args[0], *values[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.uint64, vector), build


@intrinsic
def prefetch(typing: Any, array: Any, index: Any) -> Any:
    """Begins to fetch the cache line that holds number ``index`` of a contiguous array, for reading."""

    def build(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        byte = ir.PointerType(ir.IntType(8))
        address = builder.bitcast(_address(context, builder, sig.args[0], *values), byte)
        kind = ir.FunctionType(ir.VoidType(), [byte, _INT, _INT, _INT])
        function = builder.module.declare_intrinsic("llvm.prefetch.p0", (), kind)
        builder.call(function, [address, *(ir.Constant(_INT, value) for value in (0, 3, 1))])
        return context.get_dummy_value()

    return types.void(array, types.uint64), build


@intrinsic
def ramp(typing: Any) -> Any:
    """0, 1, ... 7."""
    return _lanes(), lambda context, builder, sig, values: ir.Constant(_SINGLES, [float(i) for i in range(LANES)])


@intrinsic
def repeat(typing: Any, value: Any) -> Any:
    """A float32 in every lane."""
    return _lanes(types.float32), lambda context, builder, sig, values: _repeated(builder, sig.args[0], values[0])


@intrinsic
def select(typing: Any, condition: Any, yes: Any, no: Any) -> Any:
    """Lane by lane ``yes`` where the condition holds, else ``no``."""
    return _lanes(_mask, _lanes, _lanes), lambda context, builder, sig, values: builder.select(*values)


@intrinsic
def both(typing: Any, a: Any, b: Any) -> Any:
    """Whether both conditions hold."""
    return _mask(_mask, _mask), lambda context, builder, sig, values: builder.and_(*values)


def _call(builder: Any, name: str, result: Any, *values: Any) -> Any:
    """One of LLVM's own functions on vectors."""
    kind = ir.FunctionType(result, [value.type for value in values])
    function = builder.module.declare_intrinsic(f"{name}.v{LANES}f32", (), kind)
    return builder.call(function, values, fastmath=("reassoc", "nsz", "contract"))


@intrinsic
def magnitude(typing: Any, vector: Any) -> Any:
    """Absolute values."""
    return _lanes(_lanes), lambda context, builder, sig, values: _call(builder, "llvm.fabs", _SINGLES, *values)


@intrinsic
def total(typing: Any, vector: Any) -> Any:
    """Sum over the lanes, pairwise."""

    def build(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return _call(builder, "llvm.vector.reduce.fadd", _SINGLE, ir.Constant(_SINGLE, -0.0), values[0])

    return types.float32(_lanes), build


def _shuffled(builder: Any, a: Any, b: Any, low: tuple[int, ...], high: tuple[int, ...]) -> Any:
    """Sum of two shuffles of a pair of vectors."""
    parts = [builder.shuffle_vector(a, b, ir.Constant(_INTS, lanes)) for lanes in (low, high)]
    return builder.fadd(*parts, flags=_FLAGS)


@intrinsic
def totals(typing: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any) -> Any:
    """The sums over the lanes of eight vectors, as one vector."""

    def build(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        # Every step adds halves and joins two vectors; the lanes taken are those of instructions of AVX.
        for low, high in (
            ((0, 8, 1, 9, 4, 12, 5, 13), (2, 10, 3, 11, 6, 14, 7, 15)),
            ((0, 1, 8, 9, 4, 5, 12, 13), (2, 3, 10, 11, 6, 7, 14, 15)),
            ((0, 1, 2, 3, 8, 9, 10, 11), (4, 5, 6, 7, 12, 13, 14, 15)),
        ):
            values = [_shuffled(builder, x, y, low, high) for x, y in zip(values[::2], values[1::2], strict=True)]
        return values[0]

    return _lanes(*[_lanes] * 8), build


@intrinsic
def any_of(typing: Any, condition: Any) -> Any:
    """Whether the condition holds in some lane."""

    def build(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        bits = builder.bitcast(values[0], ir.IntType(LANES))
        return builder.icmp_unsigned("!=", bits, ir.Constant(ir.IntType(LANES), 0))

    return types.boolean(_mask), build


_POWERS = (1.0000000717, 6.9314696706e-1, 2.4022119724e-1, 5.5507132735e-2, 9.6755413344e-3, 1.3276471983e-3)


@intrinsic
def exp2(typing: Any, vector: Any) -> Any:
    """2 to the power of numbers from -126 to 126, 2e-7 relative: the nearest whole power times a polynomial."""

    def build(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        whole = _call(builder, "llvm.rint", _SINGLES, values[0])
        rest = builder.fsub(values[0], whole, flags=_FLAGS)
        power = _constant(_POWERS[-1])
        for coefficient in reversed(_POWERS[:-1]):
            power = builder.fadd(builder.fmul(power, rest, flags=_FLAGS), _constant(coefficient), flags=_FLAGS)
        exponent = builder.shl(builder.fptosi(whole, _INTS), ir.Constant(_INTS, [23] * LANES))
        return builder.bitcast(builder.add(builder.bitcast(power, _INTS), exponent), _SINGLES)

    return _lanes(_lanes), build
