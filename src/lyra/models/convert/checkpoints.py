"""Reading published checkpoints: tensors alone, memory-mapped, never an object of another class."""

import io
import pickle
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from lyra.errors import LyraError
from lyra.files import sha256_file

WRAPPERS = ("module", "state_dict", "model", "model_state_dict", "ema", "net")
"""Keys under which training frameworks file the weights."""
PREFIXES = ("module.", "_orig_mod.", "model.")
"""What frameworks put before every key."""


@dataclass(frozen=True)
class Checkpoint:
    """A published file's weights."""

    name: str
    sha256: str
    state: dict[str, Any]
    """Tensors by key; memory-mapped, so they take no memory until they are used."""
    left_out: tuple[str, ...] = ()
    """What lay beside the weights in a wrapped file: optimizer, step count and so on."""


def read_checkpoint(path: Path, sha256: str | None = None) -> Checkpoint:
    """Reads a ``.pt`` file's weights, bare or wrapped, with or without a framework's prefix.

    Args:
        path: The file.
        sha256: What its SHA-256 must be, where it is known.

    Raises:
        LyraError: the file is missing, empty, not the expected one, no torch checkpoint, or holds objects that are
            no tensors. There is no second, less careful attempt.
    """
    digest = check_digest(path, sha256)
    content = load_weights(path)
    left_out: list[str] = []
    while isinstance(content, Mapping) and not _is_state(content):
        wrapper = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if wrapper is None:
            raise LyraError(f"{path} holds no weights by name: give a checkpoint of the published kind")
        left_out += sorted(str(key) for key in content if key != wrapper)
        content = content[wrapper]
    if not isinstance(content, Mapping):
        raise LyraError(f"{path} holds no weights by name: give a checkpoint of the published kind")
    return Checkpoint(path.name, digest, _strip_prefixes(dict(content)), tuple(left_out))


def check_digest(path: Path, sha256: str | None) -> str:
    """SHA-256 of a published file, shown, and compared where it is known.

    Raises:
        LyraError: the file is missing, empty, a pointer to the real file, or another one than expected.
    """
    if path.is_file() and path.stat().st_size == 0:
        raise LyraError(f"{path} is empty (0 bytes): the download failed, fetch it again")
    if path.is_file() and path.stat().st_size < 1024 and path.read_bytes().startswith(b"version https://git-lfs"):
        raise LyraError(f"{path} is a Git LFS pointer, not the file itself: fetch it with git lfs pull")
    digest = sha256_file(path)
    print(f"sha256 {digest}  {path.name}", file=sys.stderr)
    if sha256 is not None and digest != sha256.lower().strip():
        raise LyraError(f"{path} has SHA-256 {digest}, not {sha256}: it is another file, or damaged")
    return digest


def load_weights(path: Path, legacy: bool = False) -> Any:
    """What ``torch.load`` gives of a file under its restricted unpickler, memory-mapped.

    Args:
        path: The file.
        legacy: Whether it may be of torch's old format, which is no zip; it is then read whole.

    Raises:
        LyraError: the file is no zip-format torch file, or holds objects that are no plain data.
    """
    # Transformer Engine files its quantisation state as in-memory files: bytes, of which nothing is used.
    with torch.serialization.safe_globals([io.BytesIO]):
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=not legacy)
        except pickle.UnpicklingError as error:
            reason = next((line for line in str(error).splitlines() if "global" in line.lower()), "")
            raise LyraError(
                f"{path} holds objects besides tensors, which could run code, and is refused: {reason[:120]}"
            ) from error
        except (RuntimeError, EOFError, ValueError, KeyError) as error:
            raise LyraError(f"{path} is damaged or no torch checkpoint: download it again") from error


def _is_state(content: Mapping) -> bool:
    return any(isinstance(value, torch.Tensor) for value in content.values())


def _strip_prefixes(state: dict[str, Any]) -> dict[str, Any]:
    for _ in range(3):
        for prefix in PREFIXES:
            if state and all(key.startswith(prefix) for key in state):
                state = {key[len(prefix) :]: value for key, value in state.items()}
    return state
