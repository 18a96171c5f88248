"""A video becomes a scene that moves: the whole chain at smoke size, through the command line as a user has it."""

import hashlib
import importlib.util
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from conftest import EXAMPLE
from PIL import Image
from plyfile import PlyData

from lyra.cli.main import main
from lyra.errors import LyraError
from lyra.files import load_dynamic, load_ply
from lyra.files.clips import load_clip
from lyra.generate.options import VideoOptions
from lyra.geometry.gaussians import merge
from lyra.rendering import render
from lyra.scene.scene import Scene
from lyra.student.inputs import frame_times
from lyra.teacher import DiffusionTeacher
from lyra.views.views import Views

SIDE, FRAMES = 48, 17
FILES = {"scene.ply", "scene.mp4", "bullet.mp4", "index.html", "scene.json", "scene.4dgs", "dynamic.safetensors"}
Run = Callable[..., Path]


def write_video(path: Path, shift: float = 0.0) -> Path:
    """A yellow square that passes in front of the project's picture, which may itself shift by pixels a frame."""
    wall = np.asarray(Image.open(EXAMPLE).convert("RGB").resize((2 * SIDE, SIDE)))
    pictures = []
    for number in range(FRAMES):
        pictures.append(np.roll(wall, -round(shift * number), axis=1)[:, :SIDE].copy())
        pictures[-1][20:34, 2 + 2 * number : 12 + 2 * number] = (240, 220, 20)
    return save_pictures(path, pictures)


def save_pictures(path: Path, pictures: Sequence[np.ndarray]) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = SIDE, SIDE, "yuv420p", 4_000_000
        for picture in pictures:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
        container.mux(stream.encode())
    return path


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4")


@pytest.fixture(scope="module")
def generate(tmp_path_factory, video: Path) -> Run:
    """Runs ``lyra generate`` with flags on the video and two trajectories; returns the scene's folder."""

    def run(*flags: object, source: Path = video, out: Path | None = None) -> Path:
        out = out or tmp_path_factory.mktemp("scene") / "out"
        command = ["lyra", "generate", str(source), "-o", str(out), "--model", "smoke", *map(str, flags)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "argv", [*command, "--trajectories", "left", "up"])
            # A film is the same whatever the flags are, and most of the time.
            patch.setattr("lyra.scene.film.FILM_FPS", 2)
            main()
        return out

    return run


@pytest.fixture(scope="module")
def plain(generate: Run) -> Path:
    """One chunk of the video."""
    return generate("--chunks", 1)


@pytest.fixture(scope="module")
def chunked(generate: Run) -> Path:
    return generate("--chunks", 2)


def digests(folder: Path) -> dict[str, str]:
    """Checksums of what a resumed run must repeat: everything but scene.json's timings."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != "scene.json")
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def decode(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as container:
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]


# What a folder holds


def test_a_dynamic_scenes_folder_is_complete(plain: Path):
    assert {path.name for path in plain.iterdir()} == FILES | {"frames", "clips"}
    assert sorted(path.name for path in (plain / "frames").iterdir()) == [f"000{index}.ply" for index in range(5)]
    names = {"input", "left", "up", "input.json", "input.safetensors", "run.json"}
    assert {path.name for path in (plain / "clips").iterdir()} == names
    for name in ("input", "left", "up"):
        files = {path.name for path in (plain / "clips" / name).iterdir()}
        assert files == {"clip.safetensors", "video.mp4", "cameras.json"}
    assert all((plain / name).stat().st_size > 500 for name in FILES)


def test_the_plys_are_the_moments(plain: Path):
    dynamic = load_dynamic(plain / "dynamic.safetensors")
    assert torch.equal(dynamic.times, frame_times(5))
    for index in range(5):
        found = load_ply(plain / f"frames/{index:04d}.ply")
        expected = merge([dynamic.static, dynamic.moments[index]])
        assert torch.equal(found.means, expected.means)
        assert torch.allclose(found.opacities, expected.opacities, atol=1e-5)
        vertices = PlyData.read(str(plain / f"frames/{index:04d}.ply"))["vertex"]
        assert len(vertices) == len(expected)
    assert (plain / "scene.ply").read_bytes() == (plain / "frames/0000.ply").read_bytes()
    scene = Scene.load(plain)
    assert scene.dynamic is not None and len(scene.dynamic) == 5


@pytest.mark.skipif(importlib.util.find_spec("fourdgs") is None, reason="fourdgs is not installed")
def test_the_formats_own_package_reads_the_4dgs_file(plain: Path):
    import fourdgs

    dynamic = load_dynamic(plain / "dynamic.safetensors")
    content = fourdgs.read(str(plain / "scene.4dgs"))
    assert len(content.gaussians.positions) == len(dynamic.static) + sum(len(moment) for moment in dynamic.moments)


def test_one_film_moves_through_time_and_the_other_stands_still(plain: Path):
    for name in ("scene.mp4", "bullet.mp4"):
        frames = decode(plain / name)
        assert len(frames) == 6 and np.std(frames[0]) > 5
        assert frames[0].shape[0] == frames[0].shape[1] >= 256
        assert max(np.abs(frame.astype(float) - frames[0]).mean() for frame in frames) > 0.5


def test_the_page_holds_the_scene_by_itself(plain: Path):
    page = (plain / "index.html").read_text()
    assert "clip" in page and 'type="range"' in page
    assert 'src="http' not in page and 'href="http' not in page


def test_scene_json_says_where_the_scene_came_from(plain: Path, video: Path):
    content = json.loads((plain / "scene.json").read_text())
    dynamic = load_dynamic(plain / "dynamic.safetensors")
    given = content["input"]
    assert given["name"] == "clip.mp4" and given["sha256"] == hashlib.sha256(video.read_bytes()).hexdigest()
    assert given["size"] == [SIDE, SIDE] and given["frames"] == 5
    assert given["seconds"] == pytest.approx(16 / 25, abs=0.01) and dynamic.seconds == given["seconds"]
    assert any("its camera stands" in note for note in given["notes"])
    counts = {"static": len(dynamic.static), "moments": [len(moment) for moment in dynamic.moments]}
    assert content["gaussians"] == counts
    assert content["options"]["video"] == {"chunks": 1}
    assert set(content["timings"]) >= {"cameras", "depth", "teacher", "student", "files"}


def test_the_input_views_are_the_videos(plain: Path, video: Path):
    views = Views.load(plain / "clips/input.safetensors")
    given = decode(video)
    for index, number in enumerate((0, 4, 8, 12, 16)):
        small = Image.fromarray(given[number]).resize((32, 32), Image.Resampling.LANCZOS)
        expected = torch.from_numpy(np.asarray(small, np.float32) / 255).permute(2, 0, 1)
        assert (views.images[index] - expected).abs().mean() < 0.01
    # The square is all that moves.
    share = views.moves().moving.float().mean((1, 2))
    assert share.min() > 0.04 and share.max() < 0.5
    assert 0.1 < views.moves().still.float().mean() < 0.9


def test_the_scene_shows_the_video_at_the_input_camera_at_each_of_its_times(plain: Path):
    """Even with random weights: a moment's own picture is nearer to it than every other one."""
    scene, views = Scene.load(plain), Views.load(plain / "clips/input.safetensors")
    assert scene.dynamic is not None
    pictures = torch.stack([render(scene.dynamic.moment(index), scene.input_camera).color[0] for index in range(5)])
    changing = ~views.moves().still
    errors = (pictures[:, None] - views.images[None]).square().mean(2)[:, :, changing].mean(-1)
    assert errors.argmin(dim=1).tolist() == list(range(5))


# Resuming


class KilledError(Exception):
    """As if the process had ended."""


def test_a_killed_run_resumes_to_the_same_bytes(generate: Run, chunked: Path, tmp_path: Path, monkeypatch):
    imagine, done = DiffusionTeacher.imagine, []

    def imagine_two(self, request):
        if len(done) == 2:
            raise KilledError
        done.append(request.name)
        return imagine(self, request)

    out = tmp_path / "out"
    with monkeypatch.context() as patch:
        patch.setattr(DiffusionTeacher, "imagine", imagine_two)
        with pytest.raises(KilledError):
            generate("--chunks", 2, out=out)
    assert done == ["left.0", "up.0"]
    assert not any((out / name).exists() for name in FILES)
    assert not list(out.rglob("*.part"))
    generate("--chunks", 2, "--resume", out=out)
    assert digests(out) == digests(chunked)


def test_a_finished_run_resumes_without_the_teacher(generate: Run, plain: Path, tmp_path: Path, monkeypatch):
    out = tmp_path / "out"
    shutil.copytree(plain, out)
    shutil.rmtree(out / "frames")
    for name in FILES:
        (out / name).unlink()

    def refuse(self, request):
        raise KilledError

    monkeypatch.setattr(DiffusionTeacher, "imagine", refuse)
    generate("--chunks", 1, "--resume", out=out)
    assert digests(out) == digests(plain)


def test_another_video_or_another_cut_is_another_run(generate: Run, plain: Path, tmp_path: Path, capsys):
    other = write_video(tmp_path / "other.mp4", shift=1)
    for flags, source in ((("--chunks", 1), other), (("--chunks", 2), None)):
        with pytest.raises(SystemExit):
            generate(*flags, "--resume", out=plain, **({"source": source} if source else {}))
        assert "another input, model, seed or options" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        generate("--chunks", 1, out=plain)
    assert "not empty" in capsys.readouterr().err


# Long videos


def test_chunks_overlap_by_a_frame(chunked: Path):
    dynamic = load_dynamic(chunked / "dynamic.safetensors")
    assert len(dynamic) == 2 * (5 - 1) + 1
    assert torch.allclose(dynamic.times, frame_times(9))
    assert dynamic.seconds == pytest.approx(16 / 25, abs=0.01)
    assert len(list((chunked / "frames").iterdir())) == 9
    names = {f"{name}.{part}" for name in ("input", "left", "up") for part in (0, 1)}
    assert {path.name for path in (chunked / "clips").iterdir() if path.is_dir()} == names
    views = Views.load(chunked / "clips/input.safetensors")
    assert len(views) == 9
    # The input's clips are the video's halves (to what a tokenizer of random weights keeps: their mean).
    for part, own in ((0, slice(0, 5)), (1, slice(4, 9))):
        shown = np.stack(decode(chunked / f"clips/input.{part}/video.mp4")).mean(0).transpose(2, 0, 1) / 255
        errors = [
            np.abs(shown - views.images[half].mean(0).numpy()).mean()
            for half in (own, slice(4 - own.start, 9 - own.start))
        ]
        assert errors[0] < 0.8 * errors[1]


def test_by_itself_a_video_is_cut_to_come_near_the_models_frame_rate(generate: Run, tmp_path: Path):
    # 0.64 seconds at 8 frames a second are 5.1 steps: one clip of 4.
    out = generate()
    assert len(load_dynamic(out / "dynamic.safetensors")) == 5


def test_impossible_cuts_are_refused(generate: Run, tmp_path: Path, capsys):
    for chunks in (0, -1, 65):
        with pytest.raises(LyraError, match="give 1 to 64"):
            VideoOptions(chunks=chunks)
    with pytest.raises(SystemExit) as caught:
        generate("--chunks", 0, out=tmp_path / "out")
    assert caught.value.code == 2 and "0 chunks" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


# A moving camera


def save_poses(path: Path, count: int, step: float) -> Path:
    """A ``transforms.json`` of a camera that moves right; its axes are OpenGL's, of which x is the same."""
    frames = []
    for number in range(count):
        pose = np.diag([1.0, -1, -1, 1])
        pose[0, 3] = step * number
        frames.append({"file_path": f"{number}.png", "transform_matrix": pose.tolist()})
    path.write_text(json.dumps({"w": SIDE, "h": SIDE, "fl_x": float(SIDE), "frames": frames}))
    return path


@pytest.mark.parametrize("chunks", [1, 2])
def test_a_moving_camera_makes_a_scene_around_its_way(generate: Run, tmp_path: Path, chunks: int):
    clip = write_video(tmp_path / "walk.mp4", shift=0.5)
    poses = save_poses(tmp_path / "transforms.json", FRAMES, 0.02)
    out = generate("--cameras", poses, "--chunks", chunks, source=clip)
    content = json.loads((out / "scene.json").read_text())
    assert content["fov"]["source"] == "camera file"
    assert content["fov"]["degrees"] == pytest.approx(2 * np.degrees(np.arctan(0.5)), abs=0.1)
    assert not any("still" in note for note in content["input"]["notes"])
    views = Views.load(out / "clips/input.safetensors")
    assert not views.is_still
    centers = views.cameras.centers
    assert torch.allclose(centers[:, 0], torch.linspace(0, 1, len(views)) * centers[-1, 0], atol=1e-4)
    assert centers[-1, 0] > 0.01
    # Every trajectory starts at its chunk's first camera and is carried along with it.
    for part in range(chunks):
        end = "" if chunks == 1 else f".{part}"
        start = views.cameras.camera_to_world[4 * part]
        moved = load_clip(out / f"clips/left{end}/clip.safetensors").cameras
        assert torch.allclose(moved.camera_to_world[0], start, atol=1e-5)
        assert moved.centers[-1, 0] < views.cameras.centers[4 * part + 4, 0] - 0.05
    dynamic = load_dynamic(out / "dynamic.safetensors")
    assert len(dynamic) == 4 * chunks + 1
    for index in range(len(dynamic)):
        whole = render(dynamic.moment(index), views.cameras[index : index + 1])
        # Whatever random weights make of it, it is in sight of the moment's own camera.
        assert whole.alpha.mean() > 0.7
        assert (whole.color[0] - views.images[index]).abs().mean() < 0.25


def test_cameras_that_do_not_fit_are_refused(generate: Run, tmp_path: Path, capsys):
    poses = save_poses(tmp_path / "transforms.json", FRAMES - 1, 0.02)
    with pytest.raises(SystemExit) as caught:
        generate("--cameras", poses, out=tmp_path / "out")
    line = capsys.readouterr().err.splitlines()[-1]
    assert caught.value.code == 2 and line.startswith("lyra: ") and "16 cameras" in line and "17 frames" in line
    assert not (tmp_path / "out").exists()


# Odd videos


@pytest.mark.parametrize("kind", ["nothing moves", "everything moves", "two frames"])
def test_odd_videos_make_a_scene(generate: Run, tmp_path: Path, capsys, kind: str):
    generator = np.random.default_rng(0)
    wall = np.asarray(Image.open(EXAMPLE).convert("RGB").resize((SIDE, SIDE)))
    pictures = {
        "nothing moves": [wall] * 9,
        "everything moves": list(generator.integers(0, 255, (9, SIDE, SIDE, 3), dtype=np.uint8)),
        "two frames": [wall, np.roll(wall, 4, axis=1)],
    }[kind]
    source = save_pictures(tmp_path / "odd.mp4", pictures)
    if kind == "nothing moves":
        out = generate(source=source)
    else:
        # Nothing in them tells whether the camera stands: that is for the user to say.
        with pytest.raises(SystemExit) as caught:
            generate(source=source, out=tmp_path / "untold")
        assert caught.value.code == 2 and "--cameras still" in capsys.readouterr().err.splitlines()[-1]
        out = generate("--cameras", "still", source=source)
    dynamic = load_dynamic(out / "dynamic.safetensors")
    assert len(dynamic) == 5
    views = Views.load(out / "clips/input.safetensors")
    assert bool(views.moves().still.all()) == (kind == "nothing moves")
    notes = json.loads((out / "scene.json").read_text())["input"]["notes"]
    assert any("shown twice" in note for note in notes) == (kind == "two frames")
    for index in range(5):
        assert render(dynamic.moment(index), views.cameras[:1]).alpha.mean() > 0.7


# What is not a video


def test_a_photo_makes_a_still_scene_as_before(generate: Run):
    out = generate(source=EXAMPLE)
    names = {"scene.ply", "scene.mp4", "index.html", "scene.json", "clips"}
    assert {path.name for path in out.iterdir()} == names
    assert Scene.load(out).dynamic is None


def test_a_prompt_beside_a_video_is_refused(generate: Run, tmp_path: Path, capsys):
    with pytest.raises(SystemExit) as caught:
        generate("--prompt", "a room", out=tmp_path / "out")
    assert caught.value.code == 2 and "prompt" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
