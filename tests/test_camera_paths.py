"""Paths from presets and files."""

import json
import math
import warnings
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from lyra.engine.paths import (
    CameraPath,
    Look,
    choose_paths,
    preset_path,
    read_path,
    resample_cameras,
    split_path,
    turn_cameras,
)
from lyra.errors import LyraError
from lyra.files import save_cameras
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.trajectories import TRAJECTORY_NAMES, draw_distance, trajectory_cameras

LENS = intrinsics_from_fov(55.0, 32, 48)


def turning(count: int, degrees: float = 40.0) -> Cameras:
    """Cameras that turn about the vertical while they move on, from an odd start."""
    angles = torch.linspace(0.3, 0.3 + math.radians(degrees), count, dtype=torch.float64)
    poses = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    poses[:, 0, 0] = poses[:, 2, 2] = angles.cos()
    poses[:, 0, 2], poses[:, 2, 0] = angles.sin(), -angles.sin()
    poses[:, :3, 3] = torch.linspace(0, 1, count, dtype=torch.float64)[:, None] * torch.tensor([1.0, -0.5, 2.0]) + 3
    return Cameras(poses.float(), LENS.expand(count, 4).clone(), 32, 48)


def choose(*choices: str, frames: int = 9, movement: float = 1.0, look: Look = "path") -> list[CameraPath]:
    return choose_paths(choices, 4, movement, look, frames, 32, 48)


def test_presets_are_the_trajectories_to_the_bit():
    for path, name in zip(choose(*TRAJECTORY_NAMES), TRAJECTORY_NAMES, strict=True):
        assert path.name == name
        expected = trajectory_cameras(name, draw_distance(name, 4), 9, LENS, 32, 48)
        cameras = path.through(LENS)
        assert torch.equal(cameras.camera_to_world, expected.camera_to_world)
        assert torch.equal(cameras.intrinsics, expected.intrinsics)


def write_json(folder: Path, cameras: Cameras) -> Path:
    save_cameras(cameras, folder / "walk.json")
    return folder / "walk.json"


def write_nerfstudio(folder: Path, cameras: Cameras) -> Path:
    flip = torch.diag(torch.tensor([1.0, -1.0, -1.0, 1.0]))
    frames = [{"transform_matrix": (pose @ flip).tolist()} for pose in cameras.camera_to_world]
    fx, fy, cx, cy = cameras.intrinsics[0].tolist()
    content = {"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "w": 48, "h": 32, "frames": frames}
    (folder / "walk.json").write_text(json.dumps(content))
    return folder / "walk.json"


def write_npz(folder: Path, cameras: Cameras) -> Path:
    """The published layout: pose/ID.npz beside intrinsics/ID.npz, frames in any order."""
    order = np.random.default_rng(0).permutation(len(cameras))
    for kind, data in (("pose", cameras.camera_to_world), ("intrinsics", cameras.intrinsics)):
        (folder / kind).mkdir()
        np.savez(folder / kind / "walk.npz", data=data.numpy()[order], inds=order)
    return folder / "pose/walk.npz"


@pytest.mark.parametrize("write", [write_json, write_nerfstudio, write_npz])
def test_files_of_every_kind_give_the_same_path(write, tmp_path: Path):
    cameras = turning(9)
    path = read_path(write(tmp_path, cameras), 32, 48, scale=0.5)
    assert path.name == "walk"
    assert torch.equal(path.cameras.camera_to_world[0], torch.eye(4))
    expected = cameras.relative_to(cameras.camera_to_world[0]).camera_to_world
    assert torch.allclose(path.cameras.camera_to_world[:, :3, :3], expected[:, :3, :3], atol=1e-5)
    assert torch.allclose(path.cameras.camera_to_world[:, :3, 3], 0.5 * expected[:, :3, 3], atol=1e-5)
    assert torch.allclose(path.through(LENS).intrinsics, LENS.expand(9, 4), atol=1e-4)


def test_the_photo_s_lens_zooms_as_the_file_does(tmp_path: Path):
    cameras = turning(5)
    lens = cameras.intrinsics.clone()
    lens[:, :2] *= torch.linspace(1, 2, 5)[:, None]
    lens[:, 2] += torch.linspace(0, 4, 5)
    save_cameras(Cameras(cameras.camera_to_world, lens, 32, 48), tmp_path / "zoom.json")
    photo = torch.tensor([50.0, 51.0, 23.0, 17.0])
    seen = read_path(tmp_path / "zoom.json", 32, 48).through(photo).intrinsics
    assert torch.allclose(seen[0], photo)
    assert torch.allclose(seen[-1], torch.tensor([100.0, 102.0, 27.0, 17.0]), atol=1e-4)


def test_poses_without_intrinsics_keep_the_lens(tmp_path: Path):
    np.savez(tmp_path / "bare.npz", data=turning(4).camera_to_world.numpy()[:, :3])
    assert torch.allclose(read_path(tmp_path / "bare.npz", 32, 48).through(LENS).intrinsics, LENS.expand(4, 4))


def test_resampling_keeps_the_arc_and_the_ends():
    cameras = turning(5)
    finer, truth = resample_cameras(cameras, 17), turning(17)
    assert torch.allclose(finer.camera_to_world, truth.camera_to_world, atol=1e-5)
    assert torch.allclose(resample_cameras(truth, 5).camera_to_world, cameras.camera_to_world, atol=1e-5)
    assert resample_cameras(cameras, 5) is cameras


def test_a_path_of_two_cameras_fills_a_clip(tmp_path: Path):
    (path,) = choose(str(write_json(tmp_path, turning(2))))
    assert len(path.cameras) == 9
    steps = path.cameras.centers.diff(dim=0).norm(dim=-1)
    assert torch.allclose(steps, steps[:1].expand(8), rtol=1e-4)


@pytest.mark.parametrize(("count", "clips"), [(9, 1), (10, 2), (17, 2), (18, 3), (50, 7)])
def test_longer_paths_are_whole_clips_that_share_their_ends(count: int, clips: int, tmp_path: Path):
    (path,) = choose(str(write_json(tmp_path, turning(count))))
    shots = split_path(path, LENS, 9)
    assert len(shots) == clips
    assert all(len(cameras) == 9 for cameras in shots.values())
    parts = list(shots.values())
    for before, after in pairwise(parts):
        assert torch.equal(before.camera_to_world[-1], after.camera_to_world[0])
    expected = turning(count)
    expected = expected.relative_to(expected.camera_to_world[0])
    assert torch.allclose(parts[-1].camera_to_world[-1], expected.camera_to_world[-1], atol=1e-4)
    assert list(shots) == (["walk"] if clips == 1 else [f"walk_{i:02d}" for i in range(1, clips + 1)])


def test_looking_at_the_centre_and_forward():
    cameras = preset_path("left", 0.5, 9, 32, 48).cameras
    toward = turn_cameras(cameras, "center")
    target = torch.tensor([0.0, 0.0, 1.0]) - toward.centers
    assert torch.allclose(toward.camera_to_world[:, :3, 2], target / target.norm(dim=-1, keepdim=True), atol=1e-6)
    assert torch.allclose(torch.linalg.det(toward.camera_to_world[:, :3, :3]), torch.ones(9), atol=1e-5)
    forward = turn_cameras(cameras, "forward")
    assert torch.equal(forward.camera_to_world[:, :3, :3], torch.eye(3).expand(9, 3, 3))
    for turned in (toward, forward):
        assert torch.allclose(turned.centers, cameras.centers)
        assert torch.allclose(turned.camera_to_world[0], torch.eye(4), atol=1e-7)


def test_what_is_no_path_is_refused(tmp_path: Path):
    one = tmp_path / "one.json"
    save_cameras(turning(1), one)
    (tmp_path / "text.npz").write_text("no archive")
    np.savez(tmp_path / "flat.npz", data=np.zeros(5))
    np.savez(tmp_path / "pickled.npz", data=np.array([{}, None], dtype=object))
    cases = [
        ("sideways", "unknown trajectory 'sideways'"),
        (str(tmp_path / "none.json"), "does not exist"),
        (str(one), "at least 2"),
        (str(tmp_path / "text.npz"), "no NPZ of poses"),
        (str(tmp_path / "flat.npz"), "4, 4"),
        (str(tmp_path / "pickled.npz"), "no NPZ of poses"),
    ]
    for choice, message in cases:
        with pytest.raises(LyraError, match=message) as caught:
            choose(choice)
        assert "\n" not in str(caught.value)


def test_an_archive_that_unpacks_to_much_is_refused(tmp_path: Path):
    np.savez_compressed(tmp_path / "bomb.npz", data=np.zeros((600_000, 4, 4)))
    with pytest.raises(LyraError, match="unpacks to more than"):
        choose(str(tmp_path / "bomb.npz"))


def test_two_paths_of_one_name_are_refused(tmp_path: Path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    files = [str(write_json(tmp_path / name, turning(4))) for name in ("a", "b")]
    with pytest.raises(LyraError, match="two trajectories are named 'walk'"):
        choose(*files)


def test_a_camera_at_the_point_it_looks_at_is_refused(tmp_path: Path):
    poses = torch.eye(4).repeat(3, 1, 1)
    poses[:, 2, 3] = torch.tensor([0.0, 0.5, 1.0])
    save_cameras(Cameras(poses, LENS.expand(3, 4).clone(), 32, 48), tmp_path / "through.json")
    with pytest.raises(LyraError, match="a camera stands at"), warnings.catch_warnings():
        choose(str(tmp_path / "through.json"), look="center", frames=3)
