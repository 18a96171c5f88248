"""What a run decides, claims and refuses before any work; one folder never mixes two runs."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from conftest import EXAMPLE
from test_video_pipeline import SIDE, save_poses, write_video

from lyra.device.ranks import Ranks
from lyra.engine.engine import Engine
from lyra.engine.paths import choose_paths, preset_path
from lyra.errors import LyraError
from lyra.generate.decisions import decide
from lyra.generate.options import GenerateOptions, TextOptions, VideoOptions
from lyra.generate.pipeline import generate
from lyra.generate.run_folder import prepare_folder
from lyra.generate.stored_clips import decode_folder
from lyra.geometry.cameras import Cameras, intrinsics_from_fov, through_lens
from lyra.models.preflight import needs_of_model
from lyra.models.smoke import build_smoke_model
from lyra.views.views import Views


@pytest.fixture(scope="module")
def smoke():
    return build_smoke_model()


@pytest.fixture(scope="module")
def video(tmp_path_factory) -> Path:
    return write_video(tmp_path_factory.mktemp("video") / "clip.mp4")


def camera_file(path: Path, step: float) -> Path:
    return save_poses(path, 5, step)


def test_a_camera_file_is_never_taken_for_the_preset_it_is_called_after(smoke, tmp_path: Path):
    def identity(choice: str) -> dict:
        return decide(smoke, [EXAMPLE], GenerateOptions(trajectories=(choice,)), Ranks()).identity

    file = camera_file(tmp_path / "left.json", 0.02)
    preset, first = identity("left"), identity(str(file))
    camera_file(file, 0.03)
    second = identity(str(file))
    assert preset != first and first != second and preset != second
    names = [path.name for path in choose_paths(("left", str(file)), 0, 1.0, "forward", 5, 8, 8)]
    assert len(set(names)) == 2


def test_a_path_that_is_called_input_does_not_replace_the_video(smoke, video: Path, tmp_path: Path):
    options = GenerateOptions(trajectories=(str(camera_file(tmp_path / "input.json", 0.02)),))
    decide(smoke, [EXAMPLE], options, Ranks())
    with pytest.raises(LyraError, match="one name"):
        decide(smoke, [video], options, Ranks())


def test_a_videos_long_path_is_refused_before_any_depth(smoke, video: Path, tmp_path: Path):
    options = GenerateOptions(trajectories=(str(save_poses(tmp_path / "long.json", 12, 0.01)),))
    with pytest.raises(LyraError, match="shorten 'long'"):
        decide(smoke, [video], options, Ranks())


def test_a_run_that_failed_early_is_no_hindrance(smoke, tmp_path: Path):
    out = tmp_path / "out"
    options = GenerateOptions(trajectories=("left",))
    with pytest.raises(LyraError):
        generate(smoke, EXAMPLE, out, replace(options, depth="typo"))
    assert not out.exists()
    # Nor is what one leaves that fails while the teacher is made.
    prepare_folder(out, {"of": "another run"}, resume=False)
    (out / "clips/input.safetensors").write_bytes(b"")
    generate(smoke, EXAMPLE, out, options)
    assert (out / "scene.ply").is_file()
    with pytest.raises(LyraError, match="not empty"):
        prepare_folder(out, {"of": "another run"}, resume=False)
    with pytest.raises(LyraError, match="another input"):
        prepare_folder(out, {"of": "another run"}, resume=True)


def test_nobodys_files_are_deleted(tmp_path: Path):
    ours = tmp_path / ".video.mp4.0123456789ab.part"
    theirs = tmp_path / "films/.download.part"
    theirs.parent.mkdir()
    for path in (ours, theirs):
        path.write_text("half")
    with pytest.raises(LyraError, match="not empty"):
        prepare_folder(tmp_path, {}, resume=False)
    assert ours.exists() and theirs.exists()
    theirs.unlink()
    prepare_folder(tmp_path, {}, resume=False)
    assert not ours.exists() and (tmp_path / "clips/run.json").exists()


@pytest.mark.parametrize(
    "given",
    [
        GenerateOptions(video=VideoOptions(chunks=2)),
        GenerateOptions(video=VideoOptions(cameras="nowhere.json")),
        GenerateOptions(text=TextOptions(prompt="", text_to_image="somewhere")),
    ],
)
def test_options_that_a_photo_has_no_use_for_are_refused(smoke, given: GenerateOptions):
    with pytest.raises(LyraError, match="--"):
        decide(smoke, [EXAMPLE], given, Ranks())


def test_a_missing_4dgs_package_is_said_before_work(smoke, video: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "fourdgs", None)
    decide(smoke, [EXAMPLE], GenerateOptions(), Ranks())
    with pytest.raises(LyraError, match="fourdgs"):
        decide(smoke, [video], GenerateOptions(), Ranks())


def test_a_video_is_said_to_need_more_memory(smoke, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(smoke.decoder, "config", replace(smoke.decoder.config, keep=0.5))
    still, moving = needs_of_model(smoke, 7), needs_of_model(smoke, 7, moving=True)
    sizes = [{stage.part: stage.activations for stage in needs.stages} for needs in (still, moving)]
    assert sizes[1]["decoder"] > sizes[0]["decoder"]
    assert sizes[1]["transformer"] == sizes[0]["transformer"]


def test_another_lens_keeps_the_zoom():
    lens = torch.stack([intrinsics_from_fov(fov, 32, 32) for fov in (60.0, 40.0)])
    cameras = Cameras(torch.eye(4).expand(2, 4, 4), lens, 32, 32)
    given = intrinsics_from_fov(80.0, 32, 32)
    found = through_lens(cameras, given)
    assert torch.allclose(found.intrinsics[0], given)
    assert found.intrinsics[1, 0] / found.intrinsics[0, 0] == pytest.approx(float(lens[1, 0] / lens[0, 0]))
    path = preset_path("left", 0.3, 5, 32, 32)
    assert torch.allclose(path.through(given).intrinsics, given.expand(5, 4))


def test_a_field_of_view_holds_for_the_poses_of_a_moving_camera_too(smoke, tmp_path: Path, monkeypatch):
    """The poses' unit is looked for with the lens that the first picture was lifted with, and zooming is kept."""
    import lyra.views.moving as rooms

    seen = []
    find = rooms.find_pose_unit
    monkeypatch.setattr(rooms, "find_pose_unit", lambda *given: seen.append(given) or find(*given))
    poses = save_poses(tmp_path / "transforms.json", 17, 0.02)
    content = json.loads(poses.read_text())
    for number, frame in enumerate(content["frames"]):
        frame["fl_x"] = frame["fl_y"] = SIDE * (1 + number / 16)
    poses.write_text(json.dumps(content))
    clip = write_video(tmp_path / "walk.mp4", shift=0.5)
    options = GenerateOptions(trajectories=("left",), fov=70.0, video=VideoOptions(cameras=str(poses), chunks=1))
    scene = generate(smoke, clip, tmp_path / "out", options)
    views, _, cameras = seen[0]
    assert torch.allclose(views.cameras.intrinsics[0], intrinsics_from_fov(70.0, 32, 32))
    assert cameras.intrinsics[-1, 0] == pytest.approx(2 * float(views.cameras.intrinsics[0, 0]), rel=0.01)
    loaded = Views.load(tmp_path / "out/clips/input.safetensors")
    assert loaded.cameras.intrinsics[-1, 0] == pytest.approx(2 * float(loaded.cameras.intrinsics[0, 0]), rel=0.01)
    assert scene.dynamic is not None


def test_a_videos_clips_are_not_decoded_as_a_still_scene(smoke, video: Path, tmp_path: Path):
    generate(smoke, video, tmp_path / "out", GenerateOptions(trajectories=("left",), video=VideoOptions(chunks=1)))
    with pytest.raises(LyraError, match="clips of a video"):
        decode_folder(Engine(smoke, "cpu"), tmp_path / "out", tmp_path / "again")
