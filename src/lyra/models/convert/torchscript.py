"""Tensors of a TorchScript archive, without running or even reading its code.

``torch.jit.load`` would compile and could run what the archive says. Here its one data pickle is read by an unpickler
that knows tensors, containers and empty shells for the archive's own classes, and refuses everything else.
"""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lyra.errors import LyraError

_STORAGE_TYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}
_LARGEST_PICKLE = 1 << 26


class _Shell:
    """Stands for an object of any of the archive's classes: attributes and nothing else."""

    def __init__(self, *_: object):
        self.content: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.content = state if isinstance(state, dict) else {"": state}


def _rebuild(storage: Tensor, offset: int, size: tuple, stride: tuple, *_: object) -> Tensor:
    return torch.as_strided(storage, size, stride, offset)


class _Reader(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, root: str, file: Any):
        super().__init__(file)
        self._archive, self._root, self._storages = archive, root, {}

    def find_class(self, module: str, name: str) -> Any:
        if module == "__torch__" or module.startswith("__torch__."):
            return _Shell
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _rebuild
        if module == "torch" and name in _STORAGE_TYPES:
            return _STORAGE_TYPES[name]
        if (module, name) == ("collections", "OrderedDict"):
            return dict
        if module == "torch.jit._pickle" and name.startswith("build_"):
            return list
        if (module, name) == ("torch.jit._pickle", "restore_type_tag"):
            return _first
        raise pickle.UnpicklingError(f"{module}.{name} is no plain data")

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, _, count = pid
        if key not in self._storages:
            data = bytearray(self._archive.read(f"{self._root}/data/{key}"))
            self._storages[key] = torch.frombuffer(data, dtype=dtype, count=count) if count else torch.empty(0)
        return self._storages[key]


def _first(value: Any, *_: object) -> Any:
    return value


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Parameters and buffers of a saved TorchScript module, by their dotted names.

    Raises:
        LyraError: the file is no TorchScript archive, or its data refer to anything but tensors and containers.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            name = next(name for name in archive.namelist() if name.count("/") == 1 and name.endswith("/data.pkl"))
            if archive.getinfo(name).file_size > _LARGEST_PICKLE:
                raise LyraError(f"{path} is no TorchScript archive of the published kind: its index is too large")
            with archive.open(name) as file:
                module = _Reader(archive, name.split("/")[0], file).load()
    except FileNotFoundError:
        raise LyraError(f"{path} does not exist: check the path") from None
    except (zipfile.BadZipFile, StopIteration, KeyError, ValueError, TypeError, EOFError) as error:
        raise LyraError(f"{path} is damaged or no TorchScript archive: download it again") from error
    except (pickle.UnpicklingError, AttributeError, IndexError) as error:
        raise LyraError(f"{path} holds more than tensors and is refused: {str(error)[:120]}") from error
    tensors: dict[str, Tensor] = {}
    _collect(module, "", tensors)
    return tensors


def _collect(value: Any, name: str, tensors: dict[str, Tensor]) -> None:
    if isinstance(value, Tensor):
        tensors[name] = value
    elif isinstance(value, _Shell):
        for key, inner in value.content.items():
            _collect(inner, f"{name}.{key}" if name else str(key), tensors)
