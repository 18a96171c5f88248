"""What the lowest allowed version of each package is used for, in one short run (``make test-lowest``)."""

import tomllib
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import EXAMPLE
from packaging.requirements import Requirement

from lyra.cli.bounds import declared, lowest, misfit
from lyra.files import load_ply, save_4dgs, save_video
from lyra.files.videos import load_video
from lyra.generate.options import GenerateOptions
from lyra.generate.pipeline import generate
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.dynamic import DynamicGaussians
from lyra.geometry.gaussians import Gaussians
from lyra.models.smoke import build_smoke_model
from lyra.rendering import render
from lyra.viewer.live import live_viewer

CAMERA = Cameras(torch.eye(4)[None], intrinsics_from_fov(55.0, 32, 32)[None], 32, 32)


def blobs(count: int = 12) -> Gaussians:
    generator = torch.Generator().manual_seed(0)
    means = torch.rand(count, 3, generator=generator) - torch.tensor([0.5, 0.5, -1.0])
    turns = torch.tensor([1.0, 0, 0, 0]).expand(count, 4).clone()
    return Gaussians(means, torch.full((count, 3), 0.1), turns, torch.full((count,), 0.9), torch.rand(count, 3))


def test_a_photo_becomes_a_scene(tmp_path: Path):
    """torch, diffusers, transformers, accelerate, safetensors, einops, numba, Pillow and PyAV."""
    generate(build_smoke_model(), EXAMPLE, tmp_path / "out", GenerateOptions(trajectories=("left",)))
    gaussians = load_ply(tmp_path / "out/scene.ply")
    assert 0 < float(render(gaussians, CAMERA).alpha.mean()) <= 1


@pytest.mark.parametrize("name", ["film.mp4", "film.webm", "film.avi", "film.gif"])
def test_films_are_written_and_read(tmp_path: Path, name: str):
    """PyAV's writer, reader, side data and colors."""
    frames = np.zeros((5, 3, 32, 48), np.uint8)
    frames[:, 0], frames[:, :, :, 24:] = 200, 250
    frames[np.arange(5), :, :, 24 + 4 * np.arange(5)] = 0  # a GIF stores what does not change once
    save_video(frames, tmp_path / name, 5)
    video = load_video(tmp_path / name, 32, 48, 3)
    assert video.frames[1, :, 16, 8].mul(255).tolist() == pytest.approx([200, 0, 0], abs=12)


def test_moving_scenes_are_written(tmp_path: Path):
    """The format's own package, and numpy with it."""
    parts = tuple(blobs(6) for _ in range(3))
    save_4dgs(DynamicGaussians(blobs(), parts, torch.linspace(0, 1, 3), 1.0), tmp_path / "scene.4dgs", CAMERA)
    assert (tmp_path / "scene.4dgs").stat().st_size > 100


def test_the_live_viewer_runs():
    """The server and where its camera starts."""
    with live_viewer(blobs(), CAMERA, port=0) as address:
        assert address.startswith("http://127.0.0.1:")


def written() -> list[Requirement]:
    """What pyproject.toml says, which an environment may have been made before."""
    project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    return declared((), [*project["dependencies"], *extras["video"], *extras["viewer"], *extras["photos"]])


def test_what_is_installed_is_what_is_declared():
    assert [text for text in map(misfit, written()) if text] == []
    bounds = dict(line.split("==") for line in lowest(written()))
    assert {"numpy", "av", "viser", "numba", "pillow", "diffusers", "rawpy"} <= bounds.keys() and "torch" not in bounds
    assert all(need.specifier for need in written()), "every package has a lowest version that was run"


def test_an_older_version_is_named_with_what_to_do():
    found = misfit(Requirement("av>=999"))
    assert found is not None and version("av") in found and "pip install 'av>=999'" in found
    assert misfit(Requirement("nothing-of-this-name>=1")) is None
    assert lowest([Requirement("one>=1.2,<3"), Requirement("two==0.1.0"), Requirement("torch>=2.11")]) == [
        "one==1.2",
        "two==0.1.0",
    ]


def test_the_doctor_compares(monkeypatch: pytest.MonkeyPatch):
    from lyra.cli import doctor

    monkeypatch.setattr(doctor, "declared", lambda _: [Requirement("av>=999")])
    monkeypatch.setattr(doctor, "_model", lambda name: doctor.Finding(True, name))
    bad = [finding.text for finding in doctor.examine() if not finding.ok]
    assert any("av" in text and ">=999" in text for text in bad)
