"""A run's output folder: who may write to it, and what may already lie in it."""

import json
import re
from pathlib import Path
from typing import Any

from lyra.errors import LyraError
from lyra.files import write_atomically


def _is_leftover(path: Path) -> bool:
    """Whether a process that was killed while it wrote has left this (``write_atomically``)."""
    return re.fullmatch(r"\..*\.[0-9a-f]{12}\.part", path.name) is not None


def prepare_folder(out: Path, identity: dict[str, Any], resume: bool) -> None:
    """Claims the output folder for a run. What a run leaves that failed before its first clip is no hindrance.

    Raises:
        LyraError: it is a file, cannot be written to, holds something else, or another run's clips.
    """
    marker = out / "clips/run.json"
    if out.exists() and not out.is_dir():
        raise LyraError(f"{out} is a file: give a folder for the scene")
    files = [path for path in out.rglob("*") if path.is_file()]
    leftovers = [path for path in files if _is_leftover(path)]
    if set(files) - {marker, out / "clips/input.safetensors", *leftovers}:
        if not resume:
            raise LyraError(f"{out} is not empty: give another folder, or --resume to go on with the run in it")
        if not marker.is_file():
            raise LyraError(f"{out} holds no run to resume: give another folder")
        if _read_json(marker) != identity:
            raise LyraError(f"{out} holds a run with another input, model, seed or options: give another folder")
    # Only now is it known that they are ours.
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)
    with write_atomically(marker) as path:
        path.write_text(json.dumps(identity, indent=2) + "\n")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise LyraError(f"{path} is damaged: give another folder") from error
