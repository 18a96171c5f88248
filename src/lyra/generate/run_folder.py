"""A run's output folder: who may write to it for how long, and what may already lie in it."""

import hashlib
import json
import os
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from lyra.errors import LyraError
from lyra.files import write_atomically
from lyra.files.atomic import explain_writing, is_leftover, is_temporary
from lyra.files.clips import clip_is_of
from lyra.files.strict_json import to_json

try:
    import fcntl
except ImportError:  # a system without it: the note alone tells of another run
    fcntl = None

LOCK = ".lyra.lock"
EXTENSIONS = "extensions"
"""Folder of what a scene was extended by, and the key under which ``scene.json`` lists it; see ``extending``."""
_BEAT, _DEAD_AFTER = 20.0, 120.0
"""Seconds between the signs of life that a run gives in its lock, and without any after which it is taken for dead."""
_FILE_SUFFIXES = (".ply", ".mp4", ".html", ".json", ".4dgs", ".gif", ".webm", ".png", ".jpg", ".safetensors")
"""Of names that are meant for a file, where a scene is a folder."""


class FolderLock:
    """A folder held for one run: until it is closed, or its process ends in any way.

    The system holds the lock and lets go of it with the process, on a local disk and on most network ones. Beside it
    the file says who holds it, and its time is set anew every few seconds: where the system's lock does not reach
    another host, that one's run is still seen, and seen to be dead.
    """

    def __init__(self, folder: Path):
        self.path = folder / LOCK
        self._file: BinaryIO | None = None
        self._done = threading.Event()

    def take(self) -> None:
        """Takes the lock.

        Raises:
            LyraError: another run holds it, or the folder cannot be written to.
        """
        with explain_writing(self.path):
            file = self._open()
            try:
                self._refuse_others(file)
            except BaseException:
                file.close()
                raise
            file.seek(0)
            file.truncate()
            file.write(json.dumps({"host": socket.gethostname(), "process": os.getpid()}).encode())
            file.flush()
        self._file = file
        threading.Thread(target=_give_signs, args=(os.fstat(file.fileno()), self.path, self._done), daemon=True).start()

    def _open(self) -> BinaryIO:
        """Opens and locks the file that has the name now: one that was removed in between holds nobody out."""
        while True:
            file = os.fdopen(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644), "r+b")
            if fcntl is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    holder = _holder(file)
                    file.close()
                    raise LyraError(self._taken_by(holder)) from None
                except OSError:  # a disk without locks: the note has to do
                    pass
            try:
                if os.path.samestat(os.fstat(file.fileno()), os.stat(self.path)):
                    return file
            except FileNotFoundError:
                pass
            file.close()

    def _refuse_others(self, file: BinaryIO) -> None:
        """Where the lock was free: whether its note is of a run that lives where the lock does not reach."""
        holder = _holder(file)
        own = holder.get("host") == socket.gethostname()
        if not holder or (own and fcntl is not None):
            return
        last = os.fstat(file.fileno()).st_mtime
        # Both times by the disk's own clock.
        os.utime(file.fileno())
        silent = os.fstat(file.fileno()).st_mtime - last
        if 0 <= silent < _DEAD_AFTER:
            os.utime(file.fileno(), (last, last))
            raise LyraError(f"{self._taken_by(holder)} (or, if that is gone, wait {_DEAD_AFTER - silent:.0f} seconds)")

    def _taken_by(self, holder: dict[str, Any]) -> str:
        who = f"process {holder.get('process', 'unknown')} on {holder.get('host', 'unknown')}"
        return f"{self.path.parent} is in use by another run ({who}): wait until it ends, or give another folder"

    def close(self) -> None:
        """Lets go of the folder; a second time nothing happens."""
        file, self._file = self._file, None
        self._done.set()
        if file is not None:
            # Removed while it is still held: whoever opened it before sees that it has lost its name.
            try:
                self.path.unlink(missing_ok=True)
            finally:
                file.close()

    def __enter__(self) -> "FolderLock":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


def _give_signs(own: os.stat_result, path: Path, done: threading.Event) -> None:
    """Sets the lock file's time anew while its run lives."""
    while not done.wait(_BEAT):
        try:
            if os.path.samestat(own, os.stat(path)):
                os.utime(path)
        except OSError:
            continue


def _holder(file: BinaryIO) -> dict[str, Any]:
    """What the lock file says; nothing where it says nothing that can be read."""
    try:
        file.seek(0)
        content = json.loads(file.read(4096) or b"{}")
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def digest_identity(identity: dict[str, Any]) -> str:
    """Hex SHA-256 of what a run is; its clips carry it."""
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()


def prepare_folder(out: Path, identity: dict[str, Any], resume: bool) -> FolderLock:
    """Claims the output folder for a run. What a run leaves that failed before its first clip is no hindrance.

    Returns:
        What holds the folder: to be closed (it is a context manager) when the run ends.

    Raises:
        LyraError: it is a file, cannot be written to, is in use, holds something else, or another run's clips.
    """
    if out.exists() and not out.is_dir():
        raise LyraError(f"{out} is a file: give a folder for the scene")
    if not out.exists() and out.suffix.lower() in _FILE_SUFFIXES:
        raise LyraError(f"{out} is a file's name, a scene is a folder: leave out {out.suffix}")
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    lock = FolderLock(out)
    try:
        with explain_writing(out):
            out.mkdir(parents=True, exist_ok=True)
        lock.take()
        _check_content(out, identity, resume)
        with write_atomically(out / "clips/run.json") as path:
            path.write_text(to_json(identity, indent=2) + "\n")
    except BaseException:
        lock.close()
        _remove_empty(made)
        raise
    return lock


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        try:
            folder.rmdir()
        except OSError:
            return


def _check_content(out: Path, identity: dict[str, Any], resume: bool) -> None:
    """Refuses what is not this run's, then removes what an earlier leg of it has left half-written."""
    marker = out / "clips/run.json"
    files = [path for path in out.rglob("*") if path.is_file()]
    leftovers = [path for path in files if is_leftover(path)]
    # What another process is just writing, a film of the scene for one, may be gone in a moment.
    passing = {path for path in files if is_temporary(path) and path not in leftovers}
    seen = [out / "clips/input.safetensors", out / "clips/input.json"]
    ours = {marker, out / LOCK, *seen, *leftovers, *passing}
    if set(files) - ours:
        if not resume:
            raise LyraError(f"{out} is not empty: give another folder, or --resume to go on with the run in it")
        if (out / EXTENSIONS).is_dir():
            raise LyraError(f"{out} was extended since: give another folder, its run is finished")
        if not marker.is_file():
            raise LyraError(f"{out} holds no run to resume: give another folder")
        if _read_json(marker) != identity:
            raise LyraError(f"{out} holds a run with another input, model, seed or options: give another folder")
        _check_clips(out, digest_identity(identity))
    if not marker.is_file() or _read_json(marker) != identity:
        # A run that failed before its first clip saw another input: this one is to look for itself.
        leftovers += seen
    # Only now is it known that they are ours.
    for leftover in leftovers:
        leftover.unlink(missing_ok=True)


def _check_clips(out: Path, made_of: str) -> None:
    for clip in sorted(out.glob("clips/*/clip.safetensors")):
        if not clip_is_of(clip, made_of):
            raise LyraError(f"{clip.parent} is a clip of another run: remove it, or give another folder")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise LyraError(f"{path} is damaged: give another folder") from error
