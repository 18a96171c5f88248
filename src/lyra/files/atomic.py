"""Writing a file whole or not at all, and saying in words what went wrong with one."""

import contextlib
import errno
import hashlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from lyra.errors import LyraError

_WRITING_ADVICE = {
    errno.ENOSPC: "no space left on the disk, free some or choose another folder",
    errno.EDQUOT: "the disk quota is used up, free some space or choose another folder",
    errno.EROFS: "the folder is read-only, choose another",
    errno.EACCES: "no permission, choose a folder that you may write to",
    errno.EPERM: "not permitted, choose a folder that you may write to",
    errno.ENOTDIR: "a part of the path is a file, choose another folder",
    errno.EEXIST: "a part of the path is a file, choose another folder",
    errno.EISDIR: "a folder has this name, choose another name",
    errno.ENAMETOOLONG: "the name is too long, choose a shorter one",
    errno.EFBIG: "the file is too large for this disk, choose another folder",
}


class WritingError(LyraError):
    """A file cannot be written, for a reason of the disk or the folder and not of what is written."""


_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{6}(?P<process>[0-9a-f]{6,})\.part")


@contextlib.contextmanager
def write_atomically(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside ``path`` that takes its name when the block ends without an error.

    The data is on the disk (fsync) before the rename, so neither a crash nor a full disk leaves a
    half-written file under the final name; after any failure the temporary file is removed. Missing
    parent folders are made.

    Raises:
        LyraError: The file cannot be written; the message says why and what to do.
    """
    path = Path(path)
    # The name is cut so that the temporary one is not too long where the final one is just short enough.
    temporary = path.with_name(f".{path.name[:40]}.{secrets.token_hex(3)}{os.getpid():06x}.part")
    try:
        with explain_writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield temporary
            _sync(temporary)
            os.replace(temporary, path)
            _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def is_temporary(path: Path) -> bool:
    """Whether a file has a name under which :func:`write_atomically` writes."""
    return _TEMPORARY.fullmatch(path.name) is not None


def is_leftover(path: Path) -> bool:
    """Whether a file is what a process has left that ended while it wrote; one that still writes has left nothing.

    The name ends in the process's number. One of another machine is not known to live, and is left over.
    """
    match = _TEMPORARY.fullmatch(path.name)
    return match is not None and not _lives(int(match["process"], 16))


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


@contextlib.contextmanager
def explain_writing(path: Path) -> Iterator[None]:
    """Turns system errors of the block into a :class:`WritingError` about writing ``path``."""
    try:
        yield
    except OSError as error:
        advice = _WRITING_ADVICE.get(error.errno or 0, error.strerror or str(error))
        raise WritingError(f"cannot write {path}: {advice}") from error


@contextlib.contextmanager
def explain_reading(path: Path) -> Iterator[None]:
    """Turns system errors of the block into a :class:`LyraError` about reading ``path``."""
    try:
        yield
    except FileNotFoundError:
        raise LyraError(f"{path} does not exist: check the path") from None
    except IsADirectoryError:
        raise LyraError(f"{path} is a folder: give a file") from None
    except PermissionError:
        raise LyraError(f"{path} cannot be read: no permission (chmod +r, or copy it)") from None
    except OSError as error:
        raise LyraError(f"{path} cannot be read: {error.strerror or error}") from error


def sha256_file(path: Path) -> str:
    """Hex SHA-256 digest of a file's bytes.

    Raises:
        LyraError: The file cannot be read.
    """
    with explain_reading(path), Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(path: Path) -> None:
    """Makes the rename itself durable where the file system can; the file is complete either way."""
    with contextlib.suppress(OSError):
        _sync(path)
