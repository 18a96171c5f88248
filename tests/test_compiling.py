"""The cache of compiled functions: it notices every change, and nothing that happens to it is fatal."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

CALLED = """
import numba

STEP = {step}

@numba.njit
def inner(x):
    return x + STEP
"""
CALLING = """
from called import inner
from lyra.device.compiling import compiled

@compiled(nogil=True)
def outer(x):
    return inner(x) * 2

print(outer(1))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "package"
    folder.mkdir()
    (folder / "called.py").write_text(CALLED.format(step=3))
    (folder / "calling.py").write_text(CALLING)
    return folder


def run(folder: Path, **environment: str) -> tuple[int, str]:
    """What the program prints and what it says on stderr."""
    kept = {name: value for name, value in os.environ.items() if name not in ("NUMBA_CACHE_DIR", "XDG_CACHE_HOME")}
    environment = {"PYTHONDONTWRITEBYTECODE": "1"} | environment
    done = subprocess.run(
        [sys.executable, folder / "calling.py"], capture_output=True, text=True, env=kept | environment
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[0]), done.stderr


def kept_in(place: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in place.rglob("*.nb[ic]")}


def test_a_cache_is_used_again(folder: Path):
    assert run(folder) == (8, "")
    first = kept_in(folder)
    assert len(first) == 2
    assert run(folder) == (8, "")
    assert kept_in(folder) == first


def test_a_change_of_another_file_is_noticed(folder: Path):
    assert run(folder)[0] == 8
    (folder / "called.py").write_text(CALLED.format(step=4))
    assert run(folder)[0] == 10


def test_the_folder_that_the_user_names_comes_first(folder: Path, tmp_path: Path):
    run(folder, NUMBA_CACHE_DIR=str(tmp_path / "named"))
    assert kept_in(tmp_path / "named")
    assert not kept_in(folder)


def test_sources_that_cannot_be_written_beside(folder: Path, tmp_path: Path):
    (folder / "__pycache__").write_text("")  # A file, since permissions do not bind root.
    run(folder, XDG_CACHE_HOME=str(tmp_path / "caches"))
    assert kept_in(tmp_path / "caches")


def test_without_any_place_it_works_and_says_so(folder: Path):
    (folder / "__pycache__").write_text("")
    nowhere = "/proc/nowhere"
    result, note = run(folder, XDG_CACHE_HOME=nowhere, HOME=nowhere, NUMBA_CACHE_DIR=nowhere)
    assert result == 8
    assert note.count("NUMBA_CACHE_DIR") == 1


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
def test_half_a_file_is_no_error(folder: Path, suffix: str):
    run(folder)
    for path in kept_in(folder):
        if path.suffix == suffix:
            path.write_bytes(path.read_bytes()[:40])
    result, note = run(folder)
    assert result == 8
    assert "without a cache" in note


def test_a_cache_that_goes_away_is_no_error(folder: Path):
    (folder / "calling.py").write_text(
        CALLING.replace("print", "import shutil, pathlib\n{}\nprint", 1).format(
            "for path in pathlib.Path(__file__).parent.glob('__pycache__/*'):\n"
            "    shutil.rmtree(path)\n    path.write_text('')"
        )
    )
    result, note = run(folder)
    assert result == 8
    assert "without a cache" in note
