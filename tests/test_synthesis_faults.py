"""Whatever happens to a run, and whenever: the data set becomes the one of a run that nothing happened to."""

import contextlib
import json
import os
import random
import resource
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from lyra.engine.engine import Engine
from lyra.errors import LyraError
from lyra.files import write_atomically
from lyra.models.smoke import build_smoke_model
from lyra.synthesis import production
from lyra.synthesis.choices import SynthesisOptions
from lyra.synthesis.making import WORK, piece_of
from lyra.synthesis.manifest import MANIFEST, verify
from lyra.synthesis.production import produce
from lyra.synthesis.shards import pack_files
from lyra.synthesis.sources import find_inputs

OPTIONS = SynthesisOptions(held_out=0.3, per_shard=3)
SOURCES = find_inputs("worlds:200000-200007")
BROKEN = SOURCES[5].content
"""Fails each time."""


@pytest.fixture(scope="module")
def engine() -> Engine:
    model = build_smoke_model()
    # With checksums nothing is computed, which a forked process cannot do.
    return Engine(replace(model, config=replace(model.config, checksums={"vae/model": "1"})), "cpu")


def make_quickly(engine, planned, maker, options, folder: Path) -> float:
    """In place of the teacher: the same files in the same order, of bytes that the sample's id decides."""
    for name in ("left", "right"):
        with write_atomically(folder / WORK / planned.id / "forward" / name / "clip.safetensors") as path:
            path.write_text(planned.id)
        time.sleep(0.002)
    if planned.source.content == BROKEN:
        raise ValueError("it will not do")
    content = random.Random(planned.id).randbytes(20_000)
    with write_atomically(piece_of(folder, planned.id)) as path:
        path.write_bytes(pack_files(planned.id, {"json": json.dumps({"id": planned.id}).encode(), "views": content}))
    shutil.rmtree(folder / WORK / planned.id)
    return 0.0


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(production, "make_sample", make_quickly)


def content_of(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "log.jsonl"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def undisturbed(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(production, "make_sample", make_quickly)
        folder = tmp_path_factory.mktemp("undisturbed") / "set"
        assert produce(engine, SOURCES, folder, OPTIONS).complete
    found = content_of(folder)
    assert MANIFEST in found and len([name for name in found if name.endswith(".tar")]) == 3
    assert len(json.loads(found[MANIFEST])["missing"]) == 1
    return found


def in_child(run: Callable[[], object], until: float | None = None) -> int:
    """Runs a function in a process of its own that is killed after some seconds; its signal or exit status."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
                run()
            status = 0
        except LyraError:
            status = 2
        finally:
            os._exit(status)
    if until is not None:
        time.sleep(until)
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return -os.WTERMSIG(status) if os.WIFSIGNALED(status) else os.WEXITSTATUS(status)


def test_killed_at_twenty_random_times_and_gone_on_with(engine: Engine, undisturbed: dict[str, bytes], tmp_path: Path):
    draw, killed, folder = random.Random(0), 0, tmp_path / "set"
    for number in range(20):
        status = in_child(partial(produce, engine, SOURCES, folder, OPTIONS), draw.uniform(0.005, 0.12))
        killed += status == -signal.SIGKILL
        if status == 0:  # finished: once more from the beginning, in a folder of its own
            assert content_of(folder) == undisturbed
            folder = tmp_path / f"set{number}"
    assert killed >= 10
    produce(engine, SOURCES, folder, OPTIONS)
    assert content_of(folder) == undisturbed
    verify(folder)


class Killed(BaseException):
    """Stands for the end of the process."""


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", [13, pytest.param(1, marks=pytest.mark.slow)])
def test_ended_at_every_so_many_th_write(
    engine: Engine, undisturbed: dict[str, bytes], tmp_path: Path, after: bool, step: int
):
    """Before and after files take their names or lose them."""
    real_replace, real_unlink, real_rmtree = os.replace, Path.unlink, shutil.rmtree
    left = [0]

    def wrap(function: Callable[..., object]) -> Callable[..., object]:
        def ending(*arguments, **options):
            left[0] -= 1
            if left[0] == 0 and not after:
                raise Killed
            result = function(*arguments, **options)
            if left[0] == 0:
                raise Killed
            return result

        return ending

    points, ended = 0, True
    while ended:
        points, folder, ended = points + step, tmp_path / f"set{points}", False
        with pytest.MonkeyPatch.context() as patch:
            left[0] = points
            patch.setattr(os, "replace", wrap(real_replace))
            patch.setattr(Path, "unlink", wrap(real_unlink))
            patch.setattr(shutil, "rmtree", wrap(real_rmtree))
            try:
                produce(engine, SOURCES, folder, OPTIONS)
            except Killed:
                ended = True
        produce(engine, SOURCES, folder, OPTIONS)
        assert content_of(folder) == undisturbed, points
        shutil.rmtree(folder)
    assert points > 50


def test_a_disk_that_is_full_at_a_file_s_size(engine: Engine, undisturbed: dict[str, bytes], tmp_path: Path):
    """A shard is larger than what may be written: said in one line, and what is finished is kept."""

    def limited() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        produce(engine, SOURCES, tmp_path / "set", OPTIONS)

    assert in_child(limited) == 2
    pieces = list((tmp_path / "set" / WORK).glob("*.piece"))
    assert len(pieces) >= 3 and not list((tmp_path / "set").rglob("*.part"))
    kept = {path: path.stat().st_mtime_ns for path in pieces}
    made: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(production, "make_sample", lambda *given: [made.append(given[1].id), make_quickly(*given)][1])
        produce(engine, SOURCES, tmp_path / "set", OPTIONS)
    assert content_of(tmp_path / "set") == undisturbed and not {path.stem for path in kept} & set(made)


@pytest.fixture
def small_disk(tmp_path: Path):
    """A disk of a quarter of a megabyte, where one may be mounted."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.system(f"mount -t tmpfs -o size=160k tmpfs '{folder}' 2>/dev/null") != 0:
        pytest.skip("no permission to mount a small disk")
    yield folder
    os.system(f"umount '{folder}'")


def test_a_full_disk(engine: Engine, undisturbed: dict[str, bytes], small_disk: Path):
    ballast = small_disk.parent / "ballast"
    with pytest.raises(LyraError, match="no space left on the disk, free some") as caught:
        produce(engine, SOURCES, small_disk / "set", OPTIONS)
    assert "\n" not in str(caught.value) and not ballast.exists()
    there = content_of(small_disk / "set")
    assert not [name for name in there if name.endswith(".part")]
    with pytest.raises(LyraError, match="no space left"):
        produce(engine, SOURCES, small_disk / "set", OPTIONS)
    assert os.system(f"mount -o remount,size=2m '{small_disk}'") == 0
    produce(engine, SOURCES, small_disk / "set", OPTIONS)
    assert content_of(small_disk / "set") == undisturbed


def test_a_clock_that_jumps(
    engine: Engine, undisturbed: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    draw = random.Random(1)
    monkeypatch.setattr(time, "time", lambda: draw.uniform(0, 4e9))
    monkeypatch.setattr(time, "time_ns", lambda: draw.randrange(4 * 10**18))

    def jump(engine, planned, *arguments):
        for path in (tmp_path / "set").rglob("*"):
            moment = draw.uniform(0, 4e9)
            with contextlib.suppress(FileNotFoundError):
                os.utime(path, (moment, moment))
        if draw.random() < 0.2:
            raise KeyboardInterrupt
        return make_quickly(engine, planned, *arguments)

    monkeypatch.setattr(production, "make_sample", jump)
    for _ in range(30):
        with contextlib.suppress(KeyboardInterrupt):
            if produce(engine, SOURCES, tmp_path / "set", OPTIONS).complete:
                break
    assert content_of(tmp_path / "set") == undisturbed


def test_two_runs_in_one_folder(engine: Engine, undisturbed: dict[str, bytes], tmp_path: Path):
    """The second is refused while the first lives, and goes on when that is killed."""
    reader, writer = os.pipe()

    def hold() -> None:
        def say(*given):
            os.write(writer, b"x")
            time.sleep(30)

        production.make_sample = say
        produce(engine, SOURCES, tmp_path / "set", OPTIONS)

    child = os.fork()
    if child == 0:
        with contextlib.suppress(BaseException):
            hold()
        os._exit(0)
    try:
        assert os.read(reader, 1) == b"x"
        with pytest.raises(LyraError, match=rf"in use by another run \(process {child} on") as caught:
            produce(engine, SOURCES, tmp_path / "set", OPTIONS)
        assert "\n" not in str(caught.value)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    produce(engine, SOURCES, tmp_path / "set", OPTIONS)
    assert content_of(tmp_path / "set") == undisturbed


def test_minutes_end_a_run_between_samples(engine: Engine, undisturbed: dict[str, bytes], tmp_path: Path):
    legs = 0
    while not (made := produce(engine, SOURCES, tmp_path / "set", OPTIONS, minutes=0.02 / 60)).complete:
        legs += 1
        assert made.samples + made.quarantined < made.planned
    assert legs > 1 and content_of(tmp_path / "set") == undisturbed
