"""Functions that numba compiles, with a cache on disk where there is a place for one.

Numba's own cache notices changes of one file, and refuses to work where it finds no folder to write to. Here a cache
belongs to the sources of the whole folder that a function's file lies in, and all that goes wrong with it costs a note
and some seconds of compiling.
"""

import hashlib
import inspect
import os
import pickle
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import cache, wraps
from pathlib import Path
from threading import Lock
from typing import Any

import numba

_BROKEN = (OSError, EOFError, pickle.UnpicklingError)
"""What numba raises where a cache cannot be written any more, or holds half a file."""
_settings: Any = numba.config
_deciding = Lock()


def compiled(**options: Any) -> Callable[[Callable], Callable]:
    """Decorates a function that Python calls: compiled on its first call, or read from the cache.

    What only compiled functions call needs no cache of its own, hence plain ``numba.njit``. All of it must lie in
    the folder of the function's file, constants included: a change of anything else there is not noticed.

    Args:
        options: As ``numba.njit`` takes them, ``cache`` apart.
    """

    def decorate(function: Callable) -> Callable:
        plain = numba.njit(**options)(function)
        kernel = _with_cache(function, options) or plain

        @wraps(function)
        def call(*arguments: Any) -> Any:
            nonlocal kernel
            try:
                return kernel(*arguments)
            except _BROKEN as error:
                # Compiled code raises none of these, so nothing has been computed yet.
                if kernel is plain:
                    raise
                warnings.warn(f"compiling {function.__name__} without a cache: {error!r}", stacklevel=2)
                kernel = plain
            return kernel(*arguments)

        return call

    return decorate


def _with_cache(function: Callable, options: dict[str, Any]) -> Callable | None:
    """The function as numba compiles it with a cache; None without a place for one."""
    folder = cache_folder(Path(inspect.getfile(function)).parent)
    if folder is None:
        return None
    # Numba asks for the folder while it decorates, and has no argument for it.
    with _deciding:
        before = _settings.CACHE_DIR
        _settings.CACHE_DIR = str(folder)
        try:
            return numba.njit(cache=True, **options)(function)
        except RuntimeError:  # No folder after all.
            return None
        finally:
            _settings.CACHE_DIR = before


@cache
def cache_folder(sources: Path) -> Path | None:
    """Where the compiled functions of sources, as these now are, are kept; None where nothing is writable."""
    digest = hashlib.sha256()
    for path in sorted(sources.glob("*.py")):
        content = path.read_bytes()
        digest.update(f"{path.name} {len(content)} ".encode() + content)
    for place in _places(sources):
        folder = place / f"kernels-{digest.hexdigest()[:16]}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError:
            continue
        return folder
    warnings.warn(
        f"no folder to keep compiled code of {sources} in: it is compiled anew in every process "
        "(NUMBA_CACHE_DIR may name a writable one)",
        stacklevel=2,
    )
    return None


def _places(sources: Path) -> Iterator[Path]:
    """Where a cache may lie, best first: what the user names, beside the sources, with the user's other caches."""
    if _settings.CACHE_DIR:
        yield Path(_settings.CACHE_DIR)
    yield sources / "__pycache__"
    try:
        yield Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lyra"
    except RuntimeError:  # Nobody's home.
        return
