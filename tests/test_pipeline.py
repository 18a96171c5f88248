"""The whole chain at smoke size: files, resume, seeds, bad inputs, through the command line as a user has it."""

import hashlib
import json
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import av
import pytest
import torch
from command_line import run_here, run_process
from PIL import Image
from plyfile import PlyData

import lyra
from lyra.device.memory import DeviceOptions, Placement
from lyra.engine.engine import Engine
from lyra.errors import LyraError
from lyra.files import load_ply, save_cameras
from lyra.files.clips import load_clip
from lyra.generate.options import GenerateOptions, TextOptions
from lyra.generate.pipeline import generate
from lyra.geometry.cameras import Cameras
from lyra.geometry.gaussians import Gaussians
from lyra.geometry.trajectories import TRAJECTORY_NAMES
from lyra.scene.scene import Scene
from lyra.views.views import Views

RESULT = ("scene.ply", "scene.mp4", "index.html")


def digests(folder: Path) -> dict[str, str]:
    """Checksums of what a resumed run must repeat: everything but scene.json's timings."""
    files = [folder / name for name in RESULT] + sorted((folder / "clips").rglob("*"))
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files if p.is_file()}


@pytest.fixture(scope="module")
def smoke():
    return lyra.load("smoke")


@pytest.fixture(scope="module")
def finished(smoke, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("scene") / "out"
    generate(smoke, Path(__file__).parents[1] / "examples/room.png", folder, GenerateOptions())
    return folder


def test_a_scene_folder_is_complete(finished: Path):
    for name in RESULT:
        assert (finished / name).stat().st_size > 1000
    for name in TRAJECTORY_NAMES:
        files = {path.name for path in (finished / "clips" / name).iterdir()}
        assert files == {"clip.safetensors", "video.mp4", "cameras.json"}
    provenance = json.loads((finished / "scene.json").read_text())
    expected = hashlib.sha256((Path(__file__).parents[1] / "examples/room.png").read_bytes()).hexdigest()
    assert provenance["input"]["sha256"] == expected
    assert provenance["options"]["seed"] == 0
    assert set(provenance["distances"]) == set(TRAJECTORY_NAMES)
    assert provenance["fov"] == {"degrees": 55.0, "source": "default"}
    assert not list(finished.rglob("*.tmp*"))
    with av.open(str(finished / "scene.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) > 30


def test_the_ply_opens_elsewhere_with_the_values_that_we_rendered(finished: Path):
    vertices = PlyData.read(str(finished / "scene.ply"))["vertex"]
    scene = Scene.load(finished)
    assert len(vertices) == len(scene.gaussians)
    assert torch.allclose(torch.tensor(vertices["y"].copy()), scene.gaussians.means[:, 1])
    opacity = torch.sigmoid(torch.tensor(vertices["opacity"].copy()))
    assert torch.allclose(opacity, scene.gaussians.opacities, atol=1e-5)


def test_same_seed_same_scene_and_another_seed_another(smoke, finished: Path, tmp_path: Path, photo: Path):
    example = Path(__file__).parents[1] / "examples/room.png"
    generate(smoke, example, tmp_path / "again", GenerateOptions())
    assert digests(tmp_path / "again") == digests(finished)
    generate(smoke, example, tmp_path / "other", GenerateOptions(seed=1))
    assert digests(tmp_path / "other")["scene.ply"] != digests(finished)["scene.ply"]


def test_one_trajectory_is_the_same_alone_and_among_six(smoke, finished: Path, tmp_path: Path):
    options = GenerateOptions(trajectories=("up",))
    generate(smoke, Path(__file__).parents[1] / "examples/room.png", tmp_path / "out", options)
    alone, among = (load_clip(folder / "clips/up/clip.safetensors") for folder in (tmp_path / "out", finished))
    assert torch.equal(alone.latents, among.latents)
    assert torch.equal(alone.cameras.camera_to_world, among.cameras.camera_to_world)


@pytest.mark.parametrize("finished_clips", [0, 2, 6])
def test_an_interrupted_run_resumes_to_the_same_bytes(smoke, finished: Path, tmp_path: Path, finished_clips: int):
    partial = tmp_path / "out"
    shutil.copytree(finished, partial)
    for name in (*RESULT, "scene.json"):
        (partial / name).unlink()
    for name in TRAJECTORY_NAMES[finished_clips:]:
        (partial / "clips" / name / "clip.safetensors").unlink()
    generate(smoke, Path(__file__).parents[1] / "examples/room.png", partial, GenerateOptions(resume=True))
    assert digests(partial) == digests(finished)


def test_a_killed_process_leaves_nothing_half_written_and_resumes(finished: Path, tmp_path: Path):
    out, example = tmp_path / "out", Path(__file__).parents[1] / "examples/room.png"
    command = [sys.executable, "-m", "lyra.cli", "generate", str(example), "-o", str(out), "--model", "smoke"]
    process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while len(list(out.glob("clips/*/clip.safetensors"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "scene.json").exists()
    done = run_here("generate", example, "-o", out, "--model", "smoke", "--resume")
    assert done.returncode == 0, done.stderr
    assert digests(out) == digests(finished)


def test_resume_reads_the_depth_that_its_clips_were_made_of(
    smoke, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """On a GPU it may come out otherwise the second time, and would no longer fit the finished clips."""

    def predict(image: torch.Tensor) -> None:
        raise AssertionError("depth was estimated again")

    partial = tmp_path / "out"
    shutil.copytree(finished, partial)
    (partial / "scene.json").unlink()
    (partial / "clips/left/clip.safetensors").unlink()
    monkeypatch.setattr(smoke.depth, "predict", predict)
    generate(smoke, Path(__file__).parents[1] / "examples/room.png", partial, GenerateOptions(resume=True))
    assert digests(partial) == digests(finished)


def test_processes_share_a_scene_only_where_they_are_told_to(smoke, photo: Path, monkeypatch: pytest.MonkeyPatch):
    """A list of photos under torchrun: each process makes its own scene, whole."""
    for name, value in (("WORLD_SIZE", "2"), ("RANK", "1"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    scene = generate(smoke, photo, None, GenerateOptions(trajectories=("left", "right")))
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK"):
        monkeypatch.delenv(name)
    alone = generate(smoke, photo, None, GenerateOptions(trajectories=("left", "right")))
    assert torch.equal(scene.gaussians.means, alone.gaussians.means)


def test_resume_refuses_another_run(smoke, finished: Path, tmp_path: Path):
    example = Path(__file__).parents[1] / "examples/room.png"
    shutil.copytree(finished, tmp_path / "out")
    with pytest.raises(LyraError, match="another input, model, seed or options"):
        generate(smoke, example, tmp_path / "out", GenerateOptions(seed=3, resume=True))
    with pytest.raises(LyraError, match="not empty"):
        generate(smoke, example, tmp_path / "out", GenerateOptions())


def test_every_gaussian_lies_on_the_ray_of_a_pixel(smoke, finished: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(smoke.decoder, "config", replace(smoke.decoder.config, keep=1.0))
    clips = [load_clip(finished / "clips" / name / "clip.safetensors") for name in TRAJECTORY_NAMES]
    views = Views.load(finished / "clips/input.safetensors")
    gaussians = Engine(smoke, placement=Placement()).decode([clips], views)
    assert isinstance(gaussians, Gaussians)
    # The first ones belong to trajectory "left", whose first frame is the input view: rays through the origin.
    directions = torch.nn.functional.normalize(gaussians.means[:256], dim=-1)
    assert directions[:, 2].min() > 0.5
    # Pruned, they are what the file holds.
    assert len(load_ply(finished / "scene.ply").means) <= len(gaussians)
    assert load_ply(finished / "scene.ply").means.isfinite().all()


def test_evaluate_prints_one_json_object(finished: Path):
    done = run_process("evaluate", "scene", finished, "--json")
    assert done.returncode == 0, done.stderr
    numbers = json.loads(done.stdout)
    assert set(numbers) == {"input_psnr", "coverage", "visible_psnr", "seconds", "peak_memory_mb"}
    assert 0 <= numbers["coverage"] <= 1


def test_render_writes_a_video_along_a_preset_and_a_file(finished: Path, tmp_path: Path):
    cameras = finished / "clips/left/cameras.json"
    for choice in ("zoom_in", cameras):
        out = tmp_path / "clip.mp4"
        done = run_here("render", finished, "--cameras", choice, "-o", out, "--frames", 5, "--size", 64)
        assert done.returncode == 0, done.stderr
        with av.open(str(out)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        assert len(frames) == 5
        assert frames[0].shape == (64, 64, 3)


def make_bad_inputs(folder: Path) -> dict[str, Path]:
    good = Image.effect_noise((64, 64), 50).convert("RGB")
    good.save(folder / "good.jpg")
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "text.jpg").write_text("not an image")
    (folder / "truncated.jpg").write_bytes((folder / "good.jpg").read_bytes()[:900])
    Image.new("RGB", (1, 1)).save(folder / "pixel.png")
    Image.new("RGB", (20000, 10)).save(folder / "strip.png")
    names = ("empty.jpg", "text.jpg", "truncated.jpg", "pixel.png", "strip.png", "missing.jpg")
    return {name: folder / name for name in names}


@pytest.mark.parametrize("name", ["empty.jpg", "text.jpg", "truncated.jpg", "pixel.png", "strip.png", "missing.jpg"])
def test_bad_pictures_end_in_one_line_and_nothing_written(name: str, tmp_path: Path):
    path = make_bad_inputs(tmp_path)[name]
    # One of them as a user has it.
    run = run_process if name == "truncated.jpg" else run_here
    done = run("generate", path, "-o", tmp_path / "out", "--model", "smoke")
    assert done.returncode == 2
    assert done.stderr.startswith("lyra: ")
    assert len(done.stderr.splitlines()) == 1
    assert name in done.stderr
    assert not (tmp_path / "out").exists()


def test_debug_shows_the_traceback(tmp_path: Path):
    done = run_here("generate", tmp_path / "none.jpg", "-o", tmp_path / "out", "--model", "smoke", "--debug")
    assert done.returncode == 2
    assert "Traceback" in done.stderr


def test_an_unknown_model_is_named(tmp_path: Path, photo: Path):
    done = run_here("generate", photo, "-o", tmp_path / "out", "--model", "nothere")
    assert done.returncode == 2
    assert "unknown model 'nothere'" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_output_that_is_a_file_or_cannot_be_made(smoke, tmp_path: Path, photo: Path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(LyraError, match="is a file"):
        generate(smoke, photo, tmp_path / "file", GenerateOptions())
    with pytest.raises(LyraError, match="file"):
        generate(smoke, photo, tmp_path / "file" / "below", GenerateOptions())


def test_a_read_only_output_folder(tmp_path: Path):
    # /proc refuses new files even to root, for whom permission bits mean nothing.
    done = run_here("generate", Path(__file__).parents[1] / "examples/room.png", "-o", "/proc/lyra", "--model", "smoke")
    assert done.returncode == 2
    assert "/proc" in done.stderr
    assert "Traceback" not in done.stderr


def test_options_that_cannot_be():
    for make in (
        lambda: GenerateOptions(fov=200.0),
        lambda: GenerateOptions(movement=0.0),
        lambda: GenerateOptions(trajectories=()),
        lambda: GenerateOptions(trajectories=("up", "up")),
    ):
        with pytest.raises(LyraError):
            make()


def test_too_little_memory_is_said_before_work(smoke, tmp_path: Path, photo: Path, monkeypatch):
    import psutil

    # What the process holds counts as free; of the tests' own process that is more than a model needs.
    held = SimpleNamespace(memory_info=lambda: SimpleNamespace(rss=10 * 2**20))
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=10 * 2**20))
    monkeypatch.setattr(psutil, "Process", lambda: held)
    with pytest.raises(LyraError, match="not enough memory"):
        generate(smoke, photo, tmp_path / "out", GenerateOptions())
    assert not (tmp_path / "out").exists()


def test_a_missing_extra_is_said_before_work(smoke, tmp_path: Path, photo: Path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(LyraError, match=r"lyra\[video\]"):
        generate(smoke, photo, tmp_path / "out", GenerateOptions())
    assert not (tmp_path / "out").exists()


EXAMPLE = Path(__file__).parents[1] / "examples/room.png"


def save_walk(folder: Path, frames: int) -> Path:
    """A file of cameras that move right and turn a little."""
    poses = torch.eye(4).repeat(frames, 1, 1)
    angles = torch.linspace(0, -0.2, frames)
    poses[:, 0, 0] = poses[:, 2, 2] = angles.cos()
    poses[:, 0, 2], poses[:, 2, 0] = angles.sin(), -angles.sin()
    poses[:, 0, 3] = torch.linspace(0, 0.2, frames)
    lens = torch.tensor([30.0, 30.0, 16.0, 16.0])
    save_cameras(Cameras(poses, lens.expand(frames, 4).clone(), 32, 32), folder / "walk.json")
    return folder / "walk.json"


def test_a_preset_and_a_file_of_cameras_make_one_scene(smoke, tmp_path: Path):
    walk = save_walk(tmp_path, 9)
    generate(smoke, EXAMPLE, tmp_path / "out", GenerateOptions(trajectories=("left", str(walk))))
    assert {path.name for path in (tmp_path / "out/clips").iterdir()} == {
        *("left", "walk_01", "walk_02", "input.json", "input.safetensors", "run.json")
    }
    provenance = json.loads((tmp_path / "out/scene.json").read_text())
    assert provenance["options"]["trajectories"] == ["left", "walk"]
    assert set(provenance["distances"]) == {"left"}
    # The file's content, not its name, is what a resumed run must repeat.
    save_walk(tmp_path, 10)
    options = GenerateOptions(trajectories=("left", str(walk)), resume=True)
    with pytest.raises(LyraError, match="another input, model, seed or options"):
        generate(smoke, EXAMPLE, tmp_path / "out", options)


def test_two_posed_photos_make_one_scene(smoke, tmp_path: Path):
    photo = Image.open(EXAMPLE).convert("RGB")
    frames = []
    for index in range(2):
        photo.crop((4 * index, 0, photo.width - 8 + 4 * index, photo.height)).save(tmp_path / f"{index}.png")
        pose = torch.eye(4)
        pose[0, 3] = 0.05 * index
        frames.append({"file_path": f"{index}.png", "transform_matrix": pose.tolist()})
    size = {"w": photo.width - 8, "h": photo.height, "fl_x": float(photo.width)}
    (tmp_path / "transforms.json").write_text(json.dumps({**size, "frames": frames}))
    scene = generate(smoke, tmp_path / "transforms.json", tmp_path / "out", GenerateOptions(trajectories=("right",)))
    assert scene.provenance["input"]["photos"] == 2
    assert scene.provenance["fov"]["source"] == "camera file"
    assert len(Views.load(tmp_path / "out/clips/input.safetensors").images) == 2
    assert len(scene.provenance["further_sha256"]) == 1


@pytest.mark.parametrize("sampler", ["heun", "multistep", "few_step"])
def test_every_sampler_makes_a_scene(smoke, finished: Path, tmp_path: Path, sampler):
    options = GenerateOptions(trajectories=("left",), sampler=sampler, steps=3)
    scene = generate(smoke, EXAMPLE, tmp_path / "out", options)
    assert scene.provenance["model"]["teacher"]["sampler"] == sampler
    assert scene.provenance["model"]["teacher"]["steps"] == 3
    path = "clips/left/clip.safetensors"
    assert digests(tmp_path / "out")[path] != digests(finished)[path]


def test_tiles_and_batches_make_a_scene(smoke, tmp_path: Path):
    options = GenerateOptions(trajectories=("left", "up"), device=DeviceOptions(device="cpu", tile=24, batch=2))
    scene = generate(smoke, EXAMPLE, tmp_path / "out", options)
    assert scene.provenance["placement"]["tile"] == 24
    assert scene.provenance["placement"]["batch"] == 2
    assert scene.gaussians.means.isfinite().all()


def test_a_prompt_needs_who_reads_it(smoke, tmp_path: Path, photo: Path):
    cases = [
        (None, GenerateOptions(), "nothing to begin with"),
        (photo, GenerateOptions(text=TextOptions("a room")), "'smoke' takes no text: give the photo"),
        (None, GenerateOptions(text=TextOptions("frobnicated quux")), "nothing in .* can be drawn.*--text-to-image"),
        (None, GenerateOptions(text=TextOptions("a room", text_to_image="nowhere")), "'nowhere' is no folder"),
        (photo, GenerateOptions(depth="nowhere"), "'nowhere' is no folder"),
        (photo, GenerateOptions(steps=0), "0 sampling steps"),
        (photo, GenerateOptions(teacher="nowhere"), "'nowhere' is no folder"),
        (photo, GenerateOptions(trajectories=("sideways",)), "unknown trajectory 'sideways'"),
    ]
    for index, (path, options, message) in enumerate(cases):
        with pytest.raises(LyraError, match=message):
            generate(smoke, path, tmp_path / str(index), options)
        assert not (tmp_path / str(index) / "scene.json").exists()


def test_text_becomes_a_scene_with_a_picture_in_between(smoke, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    def draw(prompt, model, height, width, seed, device):
        asked.append((prompt, model.source, seed))
        return torch.rand(3, 48, 48, generator=torch.Generator().manual_seed(seed))

    monkeypatch.setattr("lyra.generate.pipeline.draw_first_image", draw)
    options = GenerateOptions(seed=5, trajectories=("left",), text=TextOptions("a room", text_to_image=str(tmp_path)))
    generate(smoke, None, tmp_path / "out", options)
    assert asked == [("a room", str(tmp_path), 5)]
    first = digests(tmp_path / "out")
    for name in (*RESULT, "scene.json", "clips/left/clip.safetensors"):
        (tmp_path / "out" / name).unlink()
    generate(smoke, None, tmp_path / "out", replace(options, resume=True))
    assert len(asked) == 1
    assert digests(tmp_path / "out") == first


def test_weights_whose_licence_asks_for_a_guardrail_do_not_run_without(smoke, tmp_path: Path, photo: Path):
    model = replace(smoke, config=replace(smoke.config, licence="NVIDIA Open Model License"))
    sys.modules["cosmos_guardrail"] = None  # pyright: ignore[reportArgumentType]
    try:
        with pytest.raises(LyraError, match="pip install cosmos-guardrail"):
            generate(model, photo, tmp_path / "out", GenerateOptions())
        assert not (tmp_path / "out").exists()
        options = GenerateOptions(trajectories=("left",), guardrail="off")
        assert len(generate(model, photo, tmp_path / "out", options).gaussians)
    finally:
        del sys.modules["cosmos_guardrail"]
