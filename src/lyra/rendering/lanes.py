"""Sixteen float32 numbers as one value inside numba's compiled code.

Numba leaves it to LLVM to guess which loops become vector instructions; the guess fails where a loop has masks,
several sums, and memory that might overlap. Here the vector is a type: ``+ - *`` and comparisons work lane by lane,
a float32 beside a vector stands for sixteen of it, and LLVM makes of it what the processor has: one instruction of
AVX-512, two of AVX2, four of NEON. Products and sums may be fused; NaN and infinity keep their meaning.

Only compiled code can call what is here. Numba's cache does not notice changes of this file: who changes it touches
``kernels.py`` too.
"""

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core.cgutils import get_or_insert_function
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

LANES = 16
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
    """The value itself if it is a vector, else sixteen of it."""
    if kind == _lanes:
        return value
    undefined = ir.Constant(_SINGLES, ir.Undefined)
    first = builder.insert_element(undefined, value, ir.Constant(_INT, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_INTS, [0] * LANES))


def _define_operator(symbol: Callable, result: _Vector, build: Callable[[Any, Any, Any], Any]) -> None:
    @infer_global(symbol)  # pyright: ignore[reportOptionalCall]
    class _Typing(AbstractTemplate):
        def generic(self, args: tuple, kws: dict) -> Any:
            if _lanes in args and all(kind in (_lanes, types.float32) for kind in args):
                return signature(result, *args)
            return None

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


def _is_vector(*kinds: Any) -> bool:
    return all(kind == _lanes for kind in kinds)


def _address(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index], inbounds=True), ir.PointerType(_SINGLES))


@intrinsic
def load(typing: Any, array: Any, index: Any) -> Any:
    """The sixteen numbers of a one-dimensional array that begin at an index."""

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
def ramp(typing: Any) -> Any:
    """0, 1, ... 15."""
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


def _unary(builder: Any, name: str, result: Any, vector: Any, *before: Any) -> Any:
    kinds = [value.type for value in (*before, vector)]
    function = get_or_insert_function(builder.module, ir.FunctionType(result, kinds), f"{name}.v{LANES}f32")
    return builder.call(function, [*before, vector], fastmath=("reassoc", "nsz", "contract"))


@intrinsic
def magnitude(typing: Any, vector: Any) -> Any:
    """Absolute values."""
    return _lanes(_lanes), lambda context, builder, sig, values: _unary(builder, "llvm.fabs", _SINGLES, values[0])


@intrinsic
def total(typing: Any, vector: Any) -> Any:
    """Sum over the lanes, pairwise."""

    def build(context: Any, builder: Any, sig: Any, values: Any) -> Any:
        return _unary(builder, "llvm.vector.reduce.fadd", _SINGLE, values[0], ir.Constant(_SINGLE, -0.0))

    return types.float32(_lanes), build


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
        whole = _unary(builder, "llvm.rint", _SINGLES, values[0])
        rest = builder.fsub(values[0], whole, flags=_FLAGS)
        power = _constant(_POWERS[-1])
        for coefficient in reversed(_POWERS[:-1]):
            power = builder.fadd(builder.fmul(power, rest, flags=_FLAGS), _constant(coefficient), flags=_FLAGS)
        exponent = builder.shl(builder.fptosi(whole, _INTS), ir.Constant(_INTS, [23] * LANES))
        return builder.bitcast(builder.add(builder.bitcast(power, _INTS), exponent), _SINGLES)

    return _lanes(_lanes), build
