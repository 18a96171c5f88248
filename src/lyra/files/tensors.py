"""Tensors in safetensors files."""

import json
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lyra.errors import LyraError
from lyra.files.atomic import explain_reading, write_atomically

_TYPE_NAMES = {
    **{torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"},
    **{torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8"},
    **{torch.uint8: "U8", torch.bool: "BOOL"},
}


def save_tensors(
    tensors: Mapping[str, Shaped[Tensor, "..."]], path: Path, notes: Mapping[str, str] | None = None
) -> None:
    """Writes a safetensors file; the same tensors and notes (the format's metadata) give the same bytes.

    The header is written here because the safetensors library's errors do not tell a full disk from other failures.

    Raises:
        LyraError: The file cannot be written.
        KeyError: A dtype has no safetensors name.
    """
    # Largest alignment first, as the library does, so that every tensor lies where it can be mapped into memory.
    ordered = sorted(tensors.items(), key=lambda item: (-item[1].element_size(), item[0]))
    header: dict[str, object] = {"__metadata__": dict(sorted(notes.items()))} if notes else {}
    end = 0
    for name, tensor in ordered:
        start, end = end, end + tensor.numel() * tensor.element_size()
        kind = _TYPE_NAMES[tensor.dtype]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [start, end]}
    encoded = json.dumps(header, separators=(",", ":")).encode()
    encoded += b" " * (-len(encoded) % 8)
    with write_atomically(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(encoded)) + encoded)
        for _, tensor in ordered:
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            file.write(flat.view(torch.uint8).numpy().data)


def load_notes(path: Path) -> dict[str, str]:
    """The notes (metadata) of a safetensors file, without its tensors.

    Raises:
        LyraError: The file is missing, unreadable, damaged or no safetensors file.
    """
    with _open(path) as file:
        return dict(file.metadata() or {})


def load_tensors(path: Path) -> dict[str, Shaped[Tensor, "..."]]:
    """Tensors of a safetensors file, on the CPU.

    Raises:
        LyraError: The file is missing, unreadable, damaged or no safetensors file.
    """
    with _open(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    path = Path(path)
    # For the system's own reason, which safetensors does not pass on.
    with explain_reading(path), path.open("rb"):
        pass
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except (SafetensorError, OSError, ValueError):
        raise LyraError(f"{path} is damaged or no safetensors file: make or download it again") from None
