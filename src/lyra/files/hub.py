"""Folders of published weights: on this machine, or on the Hugging Face hub at a pinned revision.

Only safetensors, JSON and vocabularies are fetched: no pickles, no code. A hub name without a full commit is refused,
so that what was checked once is what is loaded ever after.
"""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path

from lyra.errors import LyraError

SAFE_FILES = ("*.safetensors", "*.json", "*.txt", "*.model")
_PINNED = re.compile(r"^(?P<repository>\w[\w.-]*/\w[\w.-]*)@(?P<revision>[0-9a-f]{40})$")


def fetch_folder(source: str, parts: Sequence[str] = ()) -> Path:
    """The local folder of a source.

    Args:
        source: A folder, or ``owner/name@commit`` with the commit's 40 hex digits.
        parts: Subfolders to fetch; everything when empty.

    Raises:
        LyraError: neither a folder nor a pinned name, or the hub cannot be reached and holds no copy here.
    """
    if Path(source).is_dir():
        return Path(source)
    match = _PINNED.match(source)
    if match is None:
        raise LyraError(f"{source!r} is no folder: give one, or owner/name@commit with the commit's 40 hex digits")
    from huggingface_hub import snapshot_download

    patterns = [f"{part}/{name}" for part in parts for name in SAFE_FILES] or list(SAFE_FILES)
    arguments = {"repo_id": match["repository"], "revision": match["revision"], "allow_patterns": patterns}
    try:
        local = Path(snapshot_download(**arguments, local_files_only=True))
    except (OSError, ValueError):  # not fetched yet
        local = None
    # The client gives what there is, also of a download that was interrupted.
    if local is not None and is_whole(local, parts):
        return local
    try:
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
            raise OSError("HF_HUB_OFFLINE is set")
        return Path(snapshot_download(**arguments))
    except Exception as error:  # the hub's client raises a dozen kinds for what is all the same to a user
        reason = " ".join(str(error).split())[:120]
        raise LyraError(f"cannot fetch {match['repository']} ({reason}): give a folder that holds it") from error


def is_whole(folder: Path, parts: Sequence[str] = ()) -> bool:
    """Whether a snapshot has weights in each part, and all that its indices and ``lyra.json`` name."""
    if not all(any((folder / part).glob("*.safetensors")) or any((folder / part).glob("*.json")) for part in parts):
        return False
    named: set[Path] = set()
    for index in folder.rglob("*.safetensors.index.json"):
        named |= {index.parent / name for name in json.loads(index.read_text())["weight_map"].values()}
    for config in folder.rglob("config.json"):
        # A part with a config has weights beside it, whole or in numbered pieces.
        if "_class_name" in (content := json.loads(config.read_text())) or "model_type" in content:
            found = sorted(config.parent.glob("*.safetensors"))
            named |= set() if found else {config.parent / "model.safetensors"}
    if (folder / "lyra.json").is_file():
        named |= {folder / name for name in json.loads((folder / "lyra.json").read_text())["checksums"]}
    return all(path.is_file() for path in named) and any(folder.rglob("*.safetensors"))
