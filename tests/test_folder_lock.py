"""A folder belongs to one run for as long as that lives, and a clip to the run that made it."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import EXAMPLE
from PIL import Image

from lyra.errors import LyraError
from lyra.files import write_atomically
from lyra.files.atomic import is_leftover
from lyra.files.clips import Clip, clip_is_of, load_clip, save_clip
from lyra.generate.options import GenerateOptions
from lyra.generate.pipeline import generate
from lyra.generate.run_folder import LOCK, digest_identity, prepare_folder
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.models.smoke import build_smoke_model

HOLD = """
import sys, time
from pathlib import Path
from lyra.generate.run_folder import prepare_folder
with prepare_folder(Path(sys.argv[1]), {"of": sys.argv[2]}, "--resume" in sys.argv):
    print("held", flush=True)
    time.sleep(float(sys.argv[3]))
"""


def hold(folder: Path, identity: str = "a", seconds: float = 60) -> subprocess.Popen:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder), identity, str(seconds)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("resume", [False, True])
@pytest.mark.parametrize("identity", ["a", "b"])
def test_a_second_run_is_refused_in_one_line_while_the_first_lives(tmp_path: Path, resume: bool, identity: str):
    out = tmp_path / "out"
    first = hold(out)
    try:
        before = (out / "clips/run.json").read_bytes()
        with pytest.raises(LyraError, match=f"in use by another run .process {first.pid} on ") as caught:
            prepare_folder(out, {"of": identity}, resume)
        assert "\n" not in str(caught.value)
        assert (out / "clips/run.json").read_bytes() == before
    finally:
        first.kill()
        first.communicate()


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_the_lock_dies_with_its_process(tmp_path: Path, end: signal.Signals):
    first = hold(tmp_path / "out")
    first.send_signal(end)
    first.communicate()
    with prepare_folder(tmp_path / "out", {"of": "b"}, resume=False):
        pass
    assert not (tmp_path / "out" / LOCK).exists()


def test_the_lock_ends_with_the_run_and_leaves_nothing(tmp_path: Path):
    out = tmp_path / "out"
    with prepare_folder(out, {}, resume=False) as lock, pytest.raises(LyraError, match="in use"):
        assert lock.path.exists()
        prepare_folder(out, {}, resume=False)
    assert [path.name for path in out.rglob("*") if path.is_file()] == ["run.json"]
    # Without a with: let go of when nobody has it any more.
    prepare_folder(out, {}, resume=False)
    with prepare_folder(out, {}, resume=False):
        pass


def test_a_refused_run_leaves_a_folder_as_it_was(tmp_path: Path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(LyraError, match="not empty"):
        prepare_folder(tmp_path, {}, resume=False)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
    for name in ("scene.ply", "film.mp4", "index.html"):
        with pytest.raises(LyraError, match="is a file's name, a scene is a folder"):
            prepare_folder(tmp_path / name, {}, resume=False)
    assert not (tmp_path / "scene.ply").exists()


def note(folder: Path, host: str, age: float) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / LOCK
    path.write_text(json.dumps({"host": host, "process": 4711}))
    moment = time.time() - age
    os.utime(path, (moment, moment))
    return path


def test_a_run_on_another_host_is_named_while_it_gives_signs_of_life(tmp_path: Path):
    """As on a network disk whose locks do not reach other hosts."""
    path = note(tmp_path / "out", "elsewhere", 5)
    for _ in range(2):  # asking is no sign of life
        with pytest.raises(LyraError, match=r"process 4711 on elsewhere.*wait 1[01]\d seconds"):
            prepare_folder(tmp_path / "out", {}, resume=False)
    assert path.exists()
    note(tmp_path / "out", "elsewhere", 500)
    with prepare_folder(tmp_path / "out", {}, resume=False):
        assert json.loads(path.read_text())["process"] == os.getpid()
    path.write_text("no note")
    with prepare_folder(tmp_path / "out", {}, resume=False):
        pass


def test_a_run_gives_signs_of_life(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from lyra.generate import run_folder

    monkeypatch.setattr(run_folder, "_BEAT", 0.05)
    with prepare_folder(tmp_path, {}, resume=False) as lock:
        os.utime(lock.path, (1, 1))
        ends = time.monotonic() + 10
        while lock.path.stat().st_mtime < 100 and time.monotonic() < ends:
            time.sleep(0.02)
        assert lock.path.stat().st_mtime > 100


def test_what_another_process_is_writing_is_no_leftover(tmp_path: Path):
    prepare_folder(tmp_path, {}, resume=False)
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom lyra.files import write_atomically\n"
        "with write_atomically(Path(sys.argv[1])) as path:\n"
        "    path.write_text('half'); print(path.name, flush=True); time.sleep(60)\n"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "film.mp4")], stdout=subprocess.PIPE, text=True
    )
    assert writer.stdout is not None
    part = tmp_path / writer.stdout.readline().strip()
    try:
        assert part.exists() and not is_leftover(part)
        with prepare_folder(tmp_path, {}, resume=False):
            assert part.read_text() == "half"
    finally:
        writer.kill()
        writer.communicate()
    assert is_leftover(part)
    with prepare_folder(tmp_path, {}, resume=False):
        assert not part.exists()
    with write_atomically(tmp_path / "own") as own:
        own.write_text("")
        assert not is_leftover(own)


def test_a_clip_carries_what_it_was_made_of(tmp_path: Path):
    camera = Cameras(torch.eye(4)[None], intrinsics_from_fov(55.0, 16, 16)[None], 16, 16)
    clip, path = Clip(torch.zeros(1, 1, 2, 2), camera), tmp_path / "clip.safetensors"
    save_clip(clip, path)
    assert clip_is_of(path, "anything")
    save_clip(clip, path, "abc")
    assert clip_is_of(path, "abc") and not clip_is_of(path, "abd")
    assert torch.equal(load_clip(path).latents, clip.latents)
    assert digest_identity({"a": 1, "b": 2}) == digest_identity({"b": 2, "a": 1}) != digest_identity({"a": 1})


def test_a_clip_of_another_run_is_refused_and_one_of_before_believed(tmp_path: Path):
    smoke, out = build_smoke_model(), tmp_path / "out"
    options = GenerateOptions(trajectories=("left", "right"))
    generate(smoke, EXAMPLE, out, options)
    path = out / "clips/left/clip.safetensors"
    whole, scene = path.read_bytes(), (out / "scene.ply").read_bytes()
    clip = load_clip(path)
    save_clip(clip, path, "of another run")
    again = GenerateOptions(trajectories=("left", "right"), resume=True)
    with pytest.raises(LyraError, match=r"clips/left is a clip of another run"):
        generate(smoke, EXAMPLE, out, again)
    save_clip(clip, path)  # as before clips carried anything
    generate(smoke, EXAMPLE, out, again)
    assert (out / "scene.ply").read_bytes() == scene
    path.unlink()
    generate(smoke, EXAMPLE, out, again)
    assert path.read_bytes() == whole and (out / "scene.ply").read_bytes() == scene
    assert not (out / LOCK).exists()


def test_what_a_run_of_another_photo_saw_is_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """It ended after it had looked at its photo and before its first clip."""

    def ended(*_, **__):
        raise RuntimeError("killed")

    smoke, other = build_smoke_model(), tmp_path / "other.png"
    Image.open(EXAMPLE).transpose(Image.Transpose.ROTATE_180).save(other)
    options = GenerateOptions(trajectories=("left",), resume=True)
    generate(smoke, EXAMPLE, tmp_path / "alone", options)
    with monkeypatch.context() as patch:
        patch.setattr(
            "lyra.engine.engine.Engine.imagine", lambda *_, **__: (_ for _ in ()).throw(RuntimeError("killed"))
        )
        with pytest.raises(RuntimeError, match="killed"):
            generate(smoke, other, tmp_path / "out", options)
    assert (tmp_path / "out/clips/input.safetensors").is_file()
    generate(smoke, EXAMPLE, tmp_path / "out", options)
    assert (tmp_path / "out/scene.ply").read_bytes() == (tmp_path / "alone/scene.ply").read_bytes()


def command(photo: Path, out: Path) -> subprocess.Popen:
    arguments = ["generate", str(photo), "-o", str(out), "--model", "smoke", "--trajectories", "left", "--resume"]
    return subprocess.Popen([sys.executable, "-m", "lyra.cli", *arguments], stderr=subprocess.PIPE, text=True)


def race(folder: Path, photos: list[Path], seed: int, wholes: list[bytes]) -> None:
    """Two runs into one folder, the second some time after the first, one of them perhaps killed."""
    out, draw = folder / f"out{seed}", random.Random(seed)
    chosen = [draw.choice(photos), draw.choice(photos)]
    first = command(chosen[0], out)
    time.sleep(draw.uniform(0, 9))
    second = command(chosen[1], out)
    victim = draw.choice([None, first, second])
    if victim is not None:
        time.sleep(draw.uniform(0, 6))
        victim.send_signal(draw.choice([signal.SIGKILL, signal.SIGINT]))
    for process in (first, second):
        _, said = process.communicate(timeout=300)
        assert process.returncode in (0, 2, 130, -signal.SIGKILL, -signal.SIGINT), said
        assert "Traceback" not in said or process is victim, said
    # Whatever happened, the folder holds one photo's run, which goes on to the same bytes.
    marker = out / "clips/run.json"
    mine = (
        0
        if not marker.is_file()
        else next(i for i, photo in enumerate(photos) if json.loads(marker.read_text())["input_sha256"] in photo.name)
    )
    last = command(photos[mine], out)
    _, said = last.communicate(timeout=300)
    assert last.returncode == 0, said
    assert (out / "scene.ply").read_bytes() == wholes[mine]
    assert not list(out.rglob("*.part")) and not (out / LOCK).exists()


@pytest.fixture(scope="module")
def two_photos(tmp_path_factory) -> tuple[list[Path], list[bytes]]:
    """Two photos that are named by their digests, and the scene of each."""
    folder = tmp_path_factory.mktemp("photos")
    photos, wholes = [], []
    for number, picture in enumerate([Image.open(EXAMPLE), Image.open(EXAMPLE).transpose(Image.Transpose.ROTATE_180)]):
        picture.save(folder / "photo.png")
        digest = hashlib.sha256((folder / "photo.png").read_bytes()).hexdigest()
        photos.append((folder / "photo.png").rename(folder / f"{digest}.png"))
        run = command(photos[-1], folder / f"whole{number}")
        run.communicate(timeout=300)
        assert run.returncode == 0
        wholes.append((folder / f"whole{number}/scene.ply").read_bytes())
    return photos, wholes


@pytest.mark.parametrize("seed", range(2))
def test_two_runs_at_random_moments_never_mix(tmp_path: Path, two_photos, seed: int):
    race(tmp_path, two_photos[0], seed, two_photos[1])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2, 52))
def test_fifty_more_races(tmp_path: Path, two_photos, seed: int):
    race(tmp_path, two_photos[0], seed, two_photos[1])
