"""The published weights' whole way at tiny size: converted, then ``lyra generate --model DIR``, killed and resumed."""

import hashlib
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import published
import pytest
import torch
from test_depth_pretrained import tiny_depth_anything
from test_text import make_encoder

from lyra.models.convert.gen3c import convert_teacher
from lyra.models.convert.lyra_decoder import convert_decoder
from lyra.models.folder import read_config, write_config
from lyra.models.loading import load

EXAMPLE = Path(__file__).parents[1] / "examples/room.png"
NAMES = ("left", "right", "up", "zoom_out", "zoom_in", "clockwise")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A fake checkpoint in the published key layout, converted; frames and resolution made small afterwards."""
    files, out = tmp_path_factory.mktemp("published"), tmp_path_factory.mktemp("converted") / "gen3c"
    torch.save(published.teacher_state(text=32), files / "model.pt")
    published.save_tokenizer_folder(files / "tokenizer")
    torch.save({"module": published.decoder_state()}, files / "lyra_static.pt")
    convert_teacher(files / "model.pt", out, files / "tokenizer")
    convert_decoder(files / "lyra_static.pt", out)
    config = read_config(out)
    write_config(out, replace(config, teacher=replace(config.teacher, frames=9, height=64, width=64, steps=4)))
    make_encoder(out.parent / "t5", channels=32)
    tiny_depth_anything("metric").save_pretrained(out.parent / "depth")
    return out


def command(folder: Path, out: Path, *more: str) -> list[str]:
    sources = ["--text-encoder", str(folder.parent / "t5"), "--depth", str(folder.parent / "depth")]
    settings = ["--model", str(folder), "--device", "cpu", "--guardrail", "off", *sources]
    return [sys.executable, "-m", "lyra.cli", "generate", str(EXAMPLE), "-o", str(out), *settings, *more]


def digests(folder: Path) -> dict[str, str]:
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "scene.json"]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.mark.slow
def test_converted_weights_make_a_scene_that_survives_a_kill(folder: Path, tmp_path: Path):
    whole = subprocess.run(command(folder, tmp_path / "whole"), capture_output=True, text=True, timeout=600)
    assert whole.returncode == 0, whole.stderr
    provenance = json.loads((tmp_path / "whole/scene.json").read_text())
    assert provenance["model"]["teacher"]["published_warp"]
    assert provenance["model"]["teacher"]["steps"] == 4
    assert load(folder).parts == ("vae", "transformer", "scheduler", "text", "decoder")
    assert load(folder).transformer.dtype == torch.bfloat16

    out = tmp_path / "killed"
    process = subprocess.Popen(command(folder, out), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 600
    while len(list(out.glob("clips/*/clip.safetensors"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    finished = len(list(out.glob("clips/*/clip.safetensors")))
    assert 2 <= finished < 6
    assert not (out / "scene.ply").exists()
    resumed = subprocess.run(command(folder, out, "--resume"), capture_output=True, text=True, timeout=600)
    assert resumed.returncode == 0, resumed.stderr
    assert digests(out) == digests(tmp_path / "whole")
    for name in NAMES:
        assert (out / "clips" / name / "video.mp4").stat().st_size > 500


@pytest.mark.slow
def test_a_prompt_is_read_by_the_converted_model(folder: Path, tmp_path: Path):
    clips = []
    for index, prompt in enumerate(("a red room", "a blue room")):
        more = ["--prompt", prompt, "--trajectories", "left"]
        done = subprocess.run(
            command(folder, tmp_path / str(index), *more), capture_output=True, text=True, timeout=600
        )
        assert done.returncode == 0, done.stderr
        clips.append(digests(tmp_path / str(index))["clips/left/clip.safetensors"])
    assert clips[0] != clips[1]


@pytest.mark.slow
def test_its_licence_asks_for_the_guardrail(folder: Path, tmp_path: Path):
    line = [word for word in command(folder, tmp_path / "out") if word not in ("--guardrail", "off")]
    done = subprocess.run(line, capture_output=True, text=True, timeout=600)
    assert done.returncode == 2
    assert "cosmos-guardrail" in done.stderr
    assert not (tmp_path / "out").exists()
