"""Checkpoints of a run: folders of safetensors that any number of processes writes and any other number reads.

    RUN/checkpoints/0000200/shard-00001-model-00001-of-00001.safetensors ...   one file a process
                            whole.json      the step, and the SHA-256 of every file; the folder has its name only then

Written and read by ``torch.distributed.checkpoint``, which divides tensors anew where the number of processes changed.
The newest two stay, and those that end a stage: one that is damaged is told from its digests, and the one before it is
used.
"""

import hashlib
import json
import re
import shutil
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed.checkpoint as dcp
from jaxtyping import Shaped
from torch import Tensor
from torch.distributed.checkpoint import HuggingFaceStorageReader, HuggingFaceStorageWriter
from torch.distributed.checkpoint.api import CheckpointException

from lyra.device.ranks import Ranks
from lyra.errors import LyraError
from lyra.files.atomic import explain_writing, sha256_file, write_atomically
from lyra.files.strict_json import to_json

FOLDER = "checkpoints"
KEPT = 2
"""Newest checkpoints that stay."""
_NOTE = "whole.json"
_NAME = re.compile(r"\d{7,}")


@dataclass(frozen=True)
class Stored:
    """A checkpoint on the disk that is whole."""

    folder: Path
    step: int

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Names and whole shapes of its tensors."""
        return {name: tuple(value.size) for name, value in _describe(self.folder).items()}

    def read(self, state: Mapping[str, Shaped[Tensor, "..."]], ranks: Ranks) -> None:
        """Fills tensors in place, each process its part of those that are divided (DTensors).

        Raises:
            LyraError: a file cannot be read.
        """
        with _as_one(ranks):
            try:
                reader = HuggingFaceStorageReader(str(self.folder))
                dcp.load(dict(state), storage_reader=reader, no_dist=ranks.world == 1)
            except CheckpointException as error:
                raise LyraError(f"{self.folder} cannot be read ({_first_reason(error)}): remove it") from None


def has_checkpoint(run: Path) -> bool:
    """Whether a run's folder holds any, whole or not."""
    return any(_list(run))


def find_checkpoint(run: Path, ranks: Ranks | None = None, step: int | None = None) -> Stored | None:
    """The newest checkpoint that is whole, the same for all processes; None where the run has none.

    A damaged one that another can stand in for is named on stderr.

    Args:
        run: The run's folder.
        ranks: The processes.
        step: Only that of this step.

    Raises:
        LyraError: there are checkpoints and none is whole.
    """
    ranks = ranks or Ranks()
    # Read by one process: the others would read all of it again.
    found = ranks.agree(_choose(run, step) if ranks.first else None)
    if isinstance(found, str):
        raise LyraError(found)
    return found


def _choose(run: Path, step: int | None) -> Stored | str | None:
    damaged = []
    wanted = (path for path in _list(run) if step is None or int(path.name) == step)
    for folder in sorted(wanted, key=lambda path: int(path.name), reverse=True):
        fault = _find_fault(folder)
        if fault is None:
            for text in damaged:
                print(f"lyra: {text}: going on from step {int(folder.name)}", file=sys.stderr)
            return Stored(folder, int(folder.name))
        damaged.append(f"checkpoint {folder} is damaged ({fault})")
    return f"{damaged[0]}, and there is no whole one: remove {run / FOLDER} to begin anew" if damaged else None


def _list(run: Path) -> Iterator[Path]:
    folder = run / FOLDER
    if folder.is_dir():
        yield from (path for path in folder.iterdir() if _NAME.fullmatch(path.name))


def _find_fault(folder: Path) -> str | None:
    """What is wrong with a checkpoint; None where every file is as it was written."""
    try:
        files = json.loads((folder / _NOTE).read_text())["files"]
        for name, digest in files.items():
            if sha256_file(folder / name) != digest:
                return f"{name} is not as it was written"
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f"{_NOTE} is missing or cannot be read"
    except LyraError:
        return "a file of it is missing or cannot be read"
    return None


def write_checkpoint(
    run: Path, step: int, state: Mapping[str, Shaped[Tensor, "..."]], ranks: Ranks, lasting: bool = False
) -> None:
    """Writes a checkpoint, whole or not at all, and removes what is older than the newest ``KEPT``.

    Args:
        run: The run's folder, which all processes see.
        step: How many steps are done.
        state: Tensors by name, whole or divided among the processes (DTensors), the same names in all.
        ranks: The processes.
        lasting: Never removed.

    Raises:
        LyraError: it cannot be written.
    """
    folder = run / FOLDER / f"{step:07d}"
    temporary = folder.with_name(f".{folder.name}.part")
    with explain_writing(folder):
        if ranks.first:
            shutil.rmtree(temporary, ignore_errors=True)
            temporary.mkdir(parents=True)
        ranks.wait()
        _write_shards(state, temporary, folder, ranks)
        if ranks.first:
            files = {path.name: sha256_file(path) for path in sorted(temporary.iterdir())}
            with write_atomically(temporary / _NOTE) as note:
                note.write_text(to_json({"step": step, "lasting": lasting, "files": files}, indent=1) + "\n")
            # Of a run that went on from an earlier one: its bytes are the same, or were damaged.
            shutil.rmtree(folder, ignore_errors=True)
            temporary.rename(folder)
            _remove_old(run)
    ranks.wait()


def _write_shards(state: Mapping[str, Tensor], temporary: Path, folder: Path, ranks: Ranks) -> None:
    with _as_one(ranks):
        try:
            writer = HuggingFaceStorageWriter(str(temporary), save_distributed=True)
            packed = {name: tensor.contiguous() for name, tensor in state.items()}
            dcp.save(packed, storage_writer=writer, no_dist=ranks.world == 1)
        except CheckpointException as error:
            shutil.rmtree(temporary, ignore_errors=True)
            raise LyraError(f"cannot write {folder}: {_first_reason(error)}") from None


def _remove_old(run: Path) -> None:
    folders = sorted(_list(run), key=lambda path: int(path.name))
    for old in folders[:-KEPT]:
        if _find_fault(old) is not None or not json.loads((old / _NOTE).read_text()).get("lasting"):
            shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(stored: Stored) -> dict[str, Shaped[Tensor, "..."]]:
    """All tensors of a checkpoint, whole, in one process."""
    state = {
        name: torch.zeros(tuple(value.size), dtype=value.properties.dtype)
        for name, value in _describe(stored.folder).items()
    }
    stored.read(state, Ranks())
    return state


def digest_state(state: Mapping[str, Shaped[Tensor, "..."]]) -> str:
    """Hex SHA-256 of whole tensors with their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(name.encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _describe(folder: Path) -> dict:
    return HuggingFaceStorageReader(str(folder)).read_metadata().state_dict_metadata


@contextmanager
def _as_one(ranks: Ranks) -> Iterator[None]:
    """Without the library's word that one process is one process."""
    with warnings.catch_warnings():
        if ranks.world == 1:
            warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        yield


def _first_reason(error: CheckpointException) -> str:
    [reason, *_] = [str(failure[0]) for failure in error.failures.values()] or [str(error)]
    return " ".join(reason.split())[:200]
