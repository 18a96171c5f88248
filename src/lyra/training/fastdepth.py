"""FastDepth as a weak teacher: labels for pictures without true depth.

The network is read out of a TensorFlow Lite file that the user names (MIT; Wofk et al. 2019, trained on NYU Depth v2).
Its 8-bit constants are turned into floats and run as such, which is more exact than running the file. Nothing of it
becomes part of lyra's weights but what lyra's own network learns from its labels.

The file is a FlatBuffer: tables begin with the distance back to a vtable that holds where each field lies.
"""

import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lyra.errors import LyraError

SIDE = 224
"""Pixels of the square pictures it was trained with; other sizes are worse."""
_ADD, _CONV, _DEPTHWISE, _NEAREST = 0, 3, 4, 97
_NO_CHANGE = {6, 22, 34, 39, 114}
"""Dequantize, reshape, pad, transpose, quantize: of the file's layout, not of the network."""
_NUMBERS = {0: np.float32, 2: np.int32, 9: np.int8}
_ACTIVATIONS = {0: lambda x: x, 1: F.relu, 3: F.relu6}


@dataclass(frozen=True)
class _Operator:
    code: int
    inputs: tuple[int, ...]
    output: int
    stride: int
    activation: int


class _Buffer:
    """A FlatBuffer's tables."""

    def __init__(self, content: bytes):
        self.content = content

    def number(self, at: int, kind: str = "I") -> int:
        return struct.unpack_from(f"<{kind}", self.content, at)[0]

    def follow(self, at: int) -> int:
        return at + self.number(at)

    def field(self, table: int, index: int) -> int:
        """Where a table's field lies; 0 where it is left out."""
        vtable = table - self.number(table, "i")
        if 4 + 2 * index >= self.number(vtable, "H"):
            return 0
        offset = self.number(vtable + 4 + 2 * index, "H")
        return table + offset if offset else 0

    def scalar(self, table: int, index: int, kind: str) -> int:
        at = self.field(table, index)
        return self.number(at, kind) if at else 0

    def vector(self, table: int, index: int, kind: str) -> tuple:
        at = self.field(table, index)
        if not at:
            return ()
        start = self.follow(at)
        return struct.unpack_from(f"<{self.number(start)}{kind}", self.content, start + 4)

    def tables(self, table: int, index: int) -> list[int]:
        at = self.field(table, index)
        start = self.follow(at)
        return [self.follow(start + 4 + 4 * k) for k in range(self.number(start))]


class FastDepth:
    """The network, in float.

    Args:
        path: ``fastdepth_quant.tflite``.

    Raises:
        LyraError: the file is not there, or not that network.
    """

    def __init__(self, path: Path):
        if not path.is_file():
            raise LyraError(f"{path} is not there: give FastDepth's .tflite file, or train without its labels")
        try:
            self._read(_Buffer(path.read_bytes()))
        except (struct.error, IndexError, KeyError, ValueError) as error:
            raise LyraError(f"{path} is not FastDepth's .tflite file: {error}") from error

    def _read(self, file: _Buffer) -> None:
        model = file.number(0)
        codes = [max(file.scalar(t, 0, "b"), file.scalar(t, 3, "i")) for t in file.tables(model, 1)]
        (graph,) = file.tables(model, 2)
        buffers = file.tables(model, 4)
        self.constants: dict[int, Tensor] = {}
        for index, tensor in enumerate(file.tables(graph, 0)):
            data = bytes(file.vector(buffers[file.scalar(tensor, 2, "I")], 0, "B"))
            if data:
                kind = _NUMBERS[file.scalar(tensor, 1, "b")]
                values = np.frombuffer(data, kind).reshape(file.vector(tensor, 0, "i"))
                self.constants[index] = torch.from_numpy(values.astype(np.float32)) * _scale(file, tensor, values.ndim)
        self.operators = []
        for table in file.tables(graph, 3):
            code = codes[file.scalar(table, 0, "I")]
            at = file.field(table, 4)
            options = file.follow(at) if at else 0
            stride = file.scalar(options, 1, "i") if code in (_CONV, _DEPTHWISE) else 1
            place = {_CONV: 3, _DEPTHWISE: 4, _ADD: 0}.get(code)
            activation = file.scalar(options, place, "b") if place is not None and options else 0
            inputs, (output,) = file.vector(table, 1, "i"), file.vector(table, 2, "i")
            self.operators.append(_Operator(code, inputs, output, stride, activation))
        (self.input,), (self.output,) = file.vector(graph, 1, "i"), file.vector(graph, 2, "i")

    @torch.no_grad()
    def __call__(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch height width"]:
        """Depth in metres, roughly, of images in [0, 1] of any size, which it sees as squares."""
        small = F.interpolate(images, size=(SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        known = {self.input: small}
        for operator in self.operators:
            known[operator.output] = self._run(operator, known)
        depth = known[self.output].clamp(min=1e-2)
        return F.interpolate(depth, size=images.shape[-2:], mode="bilinear", align_corners=False)[:, 0]

    def _run(self, operator: _Operator, known: dict[int, Tensor]) -> Tensor:
        x = known[operator.inputs[0]]
        if operator.code in _NO_CHANGE:
            return x
        if operator.code == _ADD:
            y = x + known[operator.inputs[1]]
        elif operator.code == _NEAREST:
            y = F.interpolate(x, scale_factor=2, mode="nearest")
        else:
            kernel, bias = (self.constants[index] for index in operator.inputs[1:3])
            deep = operator.code == _DEPTHWISE
            kernel = kernel.permute(3, 0, 1, 2) if deep else kernel.permute(0, 3, 1, 2)
            groups = len(kernel) if deep else 1
            y = F.conv2d(x, kernel, bias, operator.stride, kernel.shape[-1] // 2, groups=groups)
        return _ACTIVATIONS[operator.activation](y)


def _scale(file: _Buffer, tensor: int, dimensions: int) -> Tensor:
    """What a constant's integers are multiplied by, for broadcasting with it."""
    at = file.field(tensor, 4)
    scales = file.vector(file.follow(at), 2, "f") if at else ()
    if not scales:
        return torch.ones(())
    axis = file.scalar(file.follow(at), 6, "i")
    shape = [1] * dimensions
    shape[axis] = len(scales)
    return torch.tensor(scales).reshape(shape)
