"""Every flag of ``lyra generate`` does what its help says: through the command line, at smoke size, in this process."""

import hashlib
import importlib.util
import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import EXAMPLE
from test_depth_pretrained import tiny_depth_anything
from test_first_image import pipeline as image_pipeline  # noqa: F401 (a fixture)
from test_text import make_encoder
from test_wan import save_pipeline
from torch import Tensor

from lyra.cache.warp import build_cache
from lyra.cli.main import main
from lyra.depth import scene_depth
from lyra.depth.pretrained import load_depth_estimator
from lyra.files import load_image
from lyra.files.clips import Clip, load_clip
from lyra.models.loading import save
from lyra.models.model import Model
from lyra.models.smoke import build_smoke_model
from lyra.teacher import TeacherRequest
from lyra.teacher.first_image import ImageModel
from lyra.views.views import Views

Run = Callable[..., Path]


@pytest.fixture(scope="module")
def generate(tmp_path_factory) -> Run:
    """Runs ``lyra generate`` with flags on the project's picture and two trajectories; returns the scene's folder."""

    def run(*flags: object, photo: Path | None = EXAMPLE, model: object = "smoke", out: Path | None = None) -> Path:
        out = out or tmp_path_factory.mktemp("scene") / "out"
        given = [str(flag) for flag in flags]
        paths = [] if "--trajectories" in given else ["--trajectories", "left", "up"]
        command = ["lyra", "generate", *([str(photo)] if photo else []), "-o", str(out), "--model", str(model)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [*command, *given, *paths])
            # The fly-through is the same whatever the flags are, and most of the time.
            patch.setattr("lyra.scene.film.FILM_FPS", 1)
            main()
        return out

    return run


@pytest.fixture(scope="module")
def plain(generate: Run) -> Path:
    """The scene without any flag, compared with throughout."""
    return generate("--device", "cpu")


@pytest.fixture(scope="module")
def smoke() -> Model:
    return build_smoke_model()


def clip(folder: Path, name: str = "left") -> Clip:
    return load_clip(folder / "clips" / name / "clip.safetensors")


def provenance(folder: Path) -> dict:
    return json.loads((folder / "scene.json").read_text())


def relative_error(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def refusal(generate: Run, capsys: pytest.CaptureFixture, tmp_path: Path, *flags: object, **options) -> str:
    """The one line that flags end in; nothing is written."""
    with pytest.raises(SystemExit) as caught:
        generate(*flags, out=tmp_path / "refused", **options)
    assert caught.value.code == 2
    assert not (tmp_path / "refused").exists()
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("lyra: ")
    return line


def test_out_holds_the_scene_of_the_named_trajectories(plain: Path):
    assert {path.name for path in plain.iterdir()} >= {"scene.ply", "scene.mp4", "index.html", "scene.json", "clips"}
    assert {path.name for path in (plain / "clips").iterdir() if path.is_dir()} == {"left", "up"}


def test_seed_draws_other_noise_and_another_distance(generate: Run, plain: Path):
    other = generate("--seed", 7)
    assert provenance(other)["distances"] != provenance(plain)["distances"]
    assert relative_error(clip(other).latents[:, 1:], clip(plain).latents[:, 1:]) > 0.1


def test_model_takes_a_folder(generate: Run, plain: Path, smoke: Model, tmp_path: Path):
    save(smoke, tmp_path / "model")
    found = generate(model=tmp_path / "model")
    # Weights are stored in half precision.
    assert 0 < relative_error(clip(found).latents, clip(plain).latents) < 0.02


def test_trajectories_take_poses_of_an_npz(generate: Run, tmp_path: Path):
    poses = np.tile(np.eye(4, dtype=np.float32), (5, 1, 1))
    poses[:, 0, 3] = np.linspace(0, 0.2, 5)
    np.savez(tmp_path / "walk.npz", data=poses, inds=np.arange(5))
    found = generate("--trajectories", "zoom_in", tmp_path / "walk.npz")
    assert torch.allclose(clip(found, "walk").cameras.camera_to_world, torch.from_numpy(poses), atol=1e-6)
    assert clip(found, "zoom_in").cameras.centers[-1, 2] > 0.1
    # --movement counts for a file's translations too.
    slower = generate("--trajectories", tmp_path / "walk.npz", "--movement", 0.25)
    assert torch.allclose(clip(slower, "walk").cameras.centers, 0.25 * torch.from_numpy(poses[:, :3, 3]), atol=1e-6)


def test_movement_scales_the_way(generate: Run, plain: Path):
    half = generate("--movement", 0.5)
    for name in ("left", "up"):
        nominal = [scene.cameras.camera_to_world for scene in (clip(half, name), clip(plain, name))]
        # The paper's paths put minus the position into world_to_camera.
        positions = [-torch.linalg.inv(poses)[:, :3, 3] for poses in nominal]
        assert torch.allclose(positions[0], 0.5 * positions[1], atol=1e-6)
        assert positions[1][-1].norm() > 0.05


def test_look_turns_the_cameras(generate: Run, plain: Path):
    forward, center = clip(generate("--look", "forward")).cameras, clip(generate("--look", "center")).cameras
    assert torch.equal(forward.camera_to_world[:, :3, :3], torch.eye(3).expand(5, 3, 3))
    to_center = torch.nn.functional.normalize(torch.tensor([0.0, 0.0, 1.0]) - center.centers, dim=-1)
    assert torch.allclose(center.camera_to_world[:, :3, 2], to_center, atol=1e-5)
    for cameras in (forward, center):
        assert torch.allclose(cameras.centers, clip(plain).cameras.centers, atol=1e-6)


def test_fov_is_the_lens_of_every_camera(generate: Run):
    found = generate("--fov", 35)
    focal = 16 / math.tan(math.radians(35) / 2)
    assert torch.allclose(clip(found).cameras.intrinsics, torch.tensor([focal, focal, 16.0, 16.0]).expand(5, 4))
    assert provenance(found)["fov"] == {"degrees": 35.0, "source": "option"}


def test_depth_is_the_estimator_s(generate: Run, plain: Path, tmp_path: Path):
    own = Views.load(plain / "clips/input.safetensors")
    named = Views.load(generate("--depth", "model") / "clips/input.safetensors")
    assert torch.equal(named.depth, own.depth)
    tiny_depth_anything("metric").save_pretrained(tmp_path / "depth")
    found = Views.load(generate("--depth", tmp_path / "depth") / "clips/input.safetensors")
    expected = scene_depth(load_depth_estimator(str(tmp_path / "depth")).predict(own.images[0]))
    assert torch.allclose(found.depth[0], expected, atol=1e-5)
    assert not torch.allclose(found.depth, own.depth, atol=1e-2)


@pytest.mark.parametrize(
    ("flags", "changes"),
    [
        (("--sampler", "heun"), {"sampler": "heun"}),
        (("--sampler", "multistep", "--steps", 4), {"sampler": "multistep", "steps": 4}),
        (("--sampler", "few_step", "--steps", 4), {"sampler": "few_step", "steps": 4}),
        (("--steps", 4), {"steps": 4}),
    ],
)
def test_sampler_and_steps_are_the_teacher_s(generate: Run, plain: Path, smoke: Model, flags: tuple, changes: dict):
    found = clip(generate(*flags))
    teacher = smoke.teacher
    teacher.config = replace(smoke.config.teacher, **changes)
    views, config = Views.load(plain / "clips/input.safetensors"), teacher.config
    cache = build_cache(views.images * 2 - 1, views.depth, views.cameras, config.edges, config.warp)
    request = TeacherRequest(views.images[0] * 2 - 1, cache, found.cameras, 0, "left")
    # Clips are stored in half precision.
    assert relative_error(found.latents, teacher.imagine(request)) < 5e-4
    assert relative_error(found.latents, clip(plain).latents) > 5e-3


@pytest.fixture(scope="module")
def reader(smoke: Model, tmp_path_factory) -> Path:
    """A model that was made to read text, without embeddings of its own; T5 is beside it."""
    folder = tmp_path_factory.mktemp("reader")
    save(smoke, folder / "model")
    config = json.loads((folder / "model/lyra.json").read_text())
    config["checksums"] = {k: v for k, v in config["checksums"].items() if not k.startswith("text/")}
    (folder / "model/lyra.json").write_text(json.dumps(config))
    (folder / "model/text/embeddings.safetensors").unlink()
    (folder / "model/text").rmdir()
    return make_encoder(folder / "t5").parent


def test_a_prompt_is_read_by_the_text_encoder(generate: Run, reader: Path):
    flags = ("--text-encoder", reader / "t5", "--trajectories", "left")
    silent, red, blue = (
        clip(generate(*flags, *prompt, model=reader / "model")).latents
        for prompt in ((), ("--prompt", "a red room"), ("--prompt", "a blue room"))
    )
    assert (reader / "model/text/embeddings.safetensors").is_file()
    assert relative_error(red, silent) > 0
    assert relative_error(red, blue) > 0


def test_a_prompt_without_who_reads_it_is_refused(generate: Run, capsys, tmp_path: Path):
    assert "takes no text" in refusal(generate, capsys, tmp_path, "--prompt", "a room")
    assert "give a photo, or a text" in refusal(generate, capsys, tmp_path, photo=None)


def test_text_to_image_makes_the_first_image(
    generate: Run,
    image_pipeline: Path,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
):
    # No megapixel by fifty steps here.
    monkeypatch.setattr("lyra.generate.pipeline.ImageModel", partial(ImageModel, steps=2, area=64 * 64))
    flags = ("--text-to-image", image_pipeline, "--trajectories", "left")
    scenes = [generate("--prompt", prompt, *flags, photo=None) for prompt in ("a red room", "a")]
    pictures = [Views.load(scene / "clips/input.safetensors").images[0] for scene in scenes]
    assert not torch.allclose(pictures[0], pictures[1], atol=1e-2)
    assert load_image(scenes[0] / "clips/photo.png").shape[0] == 3
    assert provenance(scenes[0])["options"]["text"]["prompt"] == "a red room"


def test_guardrail_on_says_what_it_needs(generate: Run, capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "cosmos_guardrail", None)
    assert "pip install cosmos-guardrail" in refusal(generate, capsys, tmp_path, "--guardrail", "on")
    generate("--guardrail", "off", "--trajectories", "left")


def test_device_cuda_without_a_gpu_is_refused(generate: Run, capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no CUDA GPU" in refusal(generate, capsys, tmp_path, "--device", "cuda")


def test_offload_changes_no_clip(generate: Run, plain: Path):
    found = generate("--offload", "True", "--device", "cpu")
    assert torch.equal(clip(found).latents, clip(plain).latents)


def test_tiles_are_the_whole_picture_for_a_tokenizer_of_patches(generate: Run, plain: Path):
    found = generate("--tile", 24)
    assert provenance(found)["placement"]["tile"] == 24
    assert relative_error(clip(found).latents, clip(plain).latents) < 1e-4
    assert torch.equal(clip(generate("--tile", 0)).latents, clip(plain).latents)


def test_a_batch_is_its_clips_within_rounding(generate: Run, plain: Path):
    found = generate("--batch", 2)
    assert provenance(found)["placement"]["batch"] == 2
    for name in ("left", "up"):
        assert relative_error(clip(found, name).latents, clip(plain, name).latents) < 1e-5


def test_eight_bit_needs_its_package(generate: Run, capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "torchao.quantization", None)
    assert "pip install torchao" in refusal(generate, capsys, tmp_path, "--eight-bit")


@pytest.mark.skipif(importlib.util.find_spec("torchao") is None, reason="needs torchao")
@pytest.mark.filterwarnings("ignore")
def test_eight_bit_is_near(generate: Run, plain: Path):
    found = generate("--eight-bit")
    assert 0 < relative_error(clip(found).latents, clip(plain).latents) < 0.05


def test_compile_without_a_compiler_is_refused(generate: Run, capsys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    line = refusal(generate, capsys, tmp_path, "--compile", "--device", "cpu")
    assert "--compile needs a compiler" in line


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_compiled_clips_are_the_same_within_rounding(generate: Run, plain: Path):
    found = generate("--compile", "--device", "cpu")
    assert provenance(found)["placement"]["compile"]
    for name in ("left", "up"):
        assert relative_error(clip(found, name).latents, clip(plain, name).latents) < 5e-4


def test_resume_makes_what_is_missing(generate: Run, plain: Path, tmp_path: Path, capsys):
    with pytest.raises(SystemExit):
        generate("--device", "cpu", out=plain)
    assert "not empty" in capsys.readouterr().err
    before = hashlib.sha256((plain / "scene.ply").read_bytes()).hexdigest()
    (plain / "clips/up/clip.safetensors").unlink()
    (plain / "scene.ply").unlink()
    generate("--device", "cpu", "--resume", out=plain)
    assert hashlib.sha256((plain / "scene.ply").read_bytes()).hexdigest() == before


@pytest.fixture(scope="module")
def wan(tmp_path_factory) -> Path:
    return save_pipeline(tmp_path_factory.mktemp("wan"))


def test_teacher_is_wan_vace_of_a_folder(generate: Run, plain: Path, wan: Path):
    flags = ("--teacher", wan, "--trajectories", "left")
    silent, red = (clip(generate(*flags, *prompt)) for prompt in ((), ("--prompt", "a red room")))
    assert silent.latents.shape == clip(plain).latents.shape
    assert relative_error(silent.latents, clip(plain).latents) > 0.1
    assert relative_error(red.latents, silent.latents) > 0
    assert relative_error(clip(generate(*flags)).latents, silent.latents) == 0


def test_steps_are_wan_s_too_and_its_sampler_is_its_own(generate: Run, capsys, wan: Path, tmp_path: Path):
    flags = ("--teacher", wan, "--trajectories", "left")
    one, two = (clip(generate(*flags, "--steps", steps)) for steps in (1, 2))
    assert relative_error(one.latents, two.latents) > 0
    with pytest.raises(SystemExit):
        generate(*flags, "--sampler", "heun", out=tmp_path / "out")
    assert "leave out --sampler" in capsys.readouterr().err.splitlines()[-1]


def test_teacher_that_is_none_is_one_line(generate: Run, capsys, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit):
        generate("--teacher", tmp_path / "empty", out=tmp_path / "out")
    assert "holds no Wan VACE pipeline" in capsys.readouterr().err.splitlines()[-1]
