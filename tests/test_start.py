"""The command's first second, its notes, panoramas, and where make scene puts things."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from lyra.cli.notes import show_notes
from lyra.errors import LyraWarning
from lyra.files.panoramas import NOTE
from lyra.files.photos import load_photo
from lyra.generate.scene_names import choose_folder

ROOT = Path(__file__).parents[1]


def interrupt(after: float) -> tuple[int, str]:
    """The command, with Ctrl-C so long after its first own line could run."""
    code = "import sys; print('go', flush=True); sys.argv = ['lyra', 'doctor']; import lyra.cli.start as s; s.main()"
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "go\n"
    time.sleep(after)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=120)
    return process.returncode, said


@pytest.mark.parametrize("after", [0.4, 0.8, 1.6])
def test_an_early_interrupt_is_one_line(after: float):
    code, said = interrupt(after)
    assert code == 130 and len(said.splitlines()) == 1 and said.startswith("lyra: interrupted")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(30))
def test_interrupts_at_random_moments(seed: int):
    code, said = interrupt(random.Random(seed).uniform(0.3, 6))
    assert code in (0, 130) and len(said.splitlines()) <= 1, said


def test_importing_the_package_loads_nothing_heavy():
    code = (
        "import lyra, sys; assert 'torch' not in sys.modules; lyra.Cameras, lyra.Scene; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_notes_have_no_source_lines(capsys):
    with warnings.catch_warnings():
        before = warnings.showwarning
        try:
            show_notes()
            warnings.warn("two\nlines", LyraWarning, stacklevel=1)
            warnings.warn_explicit("foreign", UserWarning, "somewhere.py", 7)
        except UserWarning:  # the tests' own filter makes errors of foreign ones
            pass
        finally:
            warnings.showwarning = before
    assert capsys.readouterr().err.splitlines()[0] == "note: two lines"


def sphere(width: int = 256) -> np.ndarray:
    """Colors by direction, all around."""
    v, u = np.mgrid[: width // 2, :width] + 0.5
    longitude, latitude = 2 * np.pi * u / width, np.pi * (v / (width // 2) - 0.5)
    x, y, z = np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)
    return np.rint(127.5 * (1 + np.stack([np.sin(3 * x), np.cos(4 * y), z], axis=-1) * 0.9)).astype(np.uint8)


def test_a_panorama_is_told(tmp_path: Path):
    picture = Image.fromarray(sphere())
    picture.save(tmp_path / "round.png")
    assert NOTE in load_photo(tmp_path / "round.png", 32, 32).notes
    Image.fromarray(sphere()[:, :200]).resize((256, 128)).save(tmp_path / "part.png")
    assert NOTE not in load_photo(tmp_path / "part.png", 32, 32).notes
    picture.crop((0, 20, 200, 120)).save(tmp_path / "plain.png")
    assert NOTE not in load_photo(tmp_path / "plain.png", 32, 32).notes
    told = b"<x GPano:ProjectionType='equirectangular'/>"
    picture.crop((0, 20, 200, 120)).save(tmp_path / "told.jpg", xmp=told)
    assert NOTE in load_photo(tmp_path / "told.jpg", 32, 32).notes
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", told.decode())
    picture.crop((0, 20, 200, 120)).save(tmp_path / "told.png", pnginfo=info)
    assert NOTE in load_photo(tmp_path / "told.png", 32, 32).notes


def test_two_photos_of_one_name_get_two_folders(tmp_path: Path):
    for name, color in (("a", "red"), ("b", "blue")):
        (tmp_path / name).mkdir()
        Image.new("RGB", (32, 32), color).save(tmp_path / name / "my photo.png")
    first, second = (tmp_path / name / "my photo.png" for name in "ab")
    scenes = tmp_path / "scenes"
    assert choose_folder(first, scenes) == scenes / "my photo"

    def claim(folder: Path, photo: Path) -> None:
        from lyra.files import sha256_file

        (folder / "clips").mkdir(parents=True)
        (folder / "clips/run.json").write_text(f'{{"input_sha256": "{sha256_file(photo)}"}}')

    claim(scenes / "my photo", first)
    assert choose_folder(first, scenes) == scenes / "my photo"
    assert choose_folder(second, scenes) == scenes / "my photo-2"
    claim(scenes / "my photo-2", second)
    assert choose_folder(second, scenes) == scenes / "my photo-2"
    (scenes / "my photo/clips/run.json").write_text("{")
    assert choose_folder(first, scenes) == scenes / "my photo-3"


@pytest.mark.parametrize("name", ["two words.png", "it's $5 (a copy).png", 'a"quote.png'])
def test_make_scene_takes_any_name(tmp_path: Path, name: str):
    """With a command in place of lyra's that says what it was given."""
    if shutil.which("make") is None:
        pytest.skip("make is missing")
    shutil.copy(ROOT / "Makefile", tmp_path)
    photo = tmp_path / name
    Image.new("RGB", (32, 32), "red").save(photo)
    for file in ("pyproject.toml", "constraints.txt"):
        (tmp_path / file).write_text("")
    programs = tmp_path / ".venv/bin"
    programs.mkdir(parents=True)
    (programs / "python").write_text(f'#!/bin/sh\nexec {sys.executable} "$@"\n')
    (programs / "lyra").write_text('#!/bin/sh\nfor word; do echo "<$word>"; done\n')
    for program in programs.iterdir():
        program.chmod(0o755)
    (tmp_path / ".venv/scene.done").write_text("")
    given = f"INPUT={photo}".replace("$", "$$")
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        ["make", "-s", "scene", given], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    words = [line[1:-1] for line in done.stdout.splitlines() if line.startswith("<")]
    assert words == ["generate", str(photo), "-o", f"scenes/{photo.stem}", "--resume"]
    given_out = subprocess.run(
        ["make", "-s", "scene", given, "OUT=my out"], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert "<my out>" in given_out.stdout
