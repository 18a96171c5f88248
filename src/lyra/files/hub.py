"""Folders of published weights: on this machine, or on the Hugging Face hub at a pinned revision.

Only safetensors, JSON and vocabularies are fetched: no pickles, no code. A hub name without a full commit is refused,
so that what was checked once is what is loaded ever after.
"""

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
        return Path(snapshot_download(**arguments, local_files_only=True))
    except (OSError, ValueError):  # not fetched yet
        pass
    try:
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
            raise OSError("HF_HUB_OFFLINE is set")
        return Path(snapshot_download(**arguments))
    except Exception as error:  # the hub's client raises a dozen kinds for what is all the same to a user
        reason = " ".join(str(error).split())[:120]
        raise LyraError(f"cannot fetch {match['repository']} ({reason}): give a folder that holds it") from error
