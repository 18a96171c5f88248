"""Camera files: ours, nerfstudio's, and a real capture."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lyra import files as formats
from lyra.errors import LyraError
from lyra.geometry.cameras import Cameras
from lyra.geometry.gaussians import matrix_from_quaternion

ROOT = Path(__file__).parents[1]
MEDIA = Path(os.environ.get("LYRA_MEDIA", ROOT / "../shared/media"))


def some_cameras(count: int = 4, height: int = 60, width: int = 80) -> Cameras:
    generator = torch.Generator().manual_seed(3)
    poses = torch.eye(4).repeat(count, 1, 1)
    poses[:, :3, :3] = matrix_from_quaternion(torch.randn(count, 4, generator=generator))
    poses[:, :3, 3] = torch.randn(count, 3, generator=generator)
    return Cameras(poses, torch.tensor([[70.0, 71.0, 40.5, 29.5]]).repeat(count, 1), height, width)


def test_cameras_round_trip(tmp_path):
    cameras = some_cameras()
    formats.save_cameras(cameras, tmp_path / "cameras.json")
    loaded = formats.load_cameras(tmp_path / "cameras.json", 60, 80)
    torch.testing.assert_close(loaded.camera_to_world, cameras.camera_to_world, atol=1e-6, rtol=0)
    assert torch.equal(loaded.intrinsics, cameras.intrinsics)
    assert (loaded.height, loaded.width) == (60, 80)


def test_cameras_at_another_size(tmp_path):
    formats.save_cameras(some_cameras(), tmp_path / "cameras.json")
    twice = formats.load_cameras(tmp_path / "cameras.json", 120, 160)
    assert torch.equal(twice.intrinsics, some_cameras().resized(120, 160).intrinsics)
    # Another aspect ratio is the centre crop: square pixels, the centre stays the centre.
    square = formats.load_cameras(tmp_path / "cameras.json", 30, 30)
    assert square.intrinsics[0].tolist() == pytest.approx([35, 35.5, 20.25 - 5, 14.75])


def write_camera_file(path: Path, **changes) -> None:
    formats.save_cameras(some_cameras(), path)
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))


def test_impossible_cameras_are_named(tmp_path):
    path = tmp_path / "cameras.json"
    good = some_cameras().camera_to_world

    def changed(edit) -> list:
        poses = good.clone()
        edit(poses[2])
        return poses.tolist()

    def scale(pose):
        pose[:3, :3] *= 1.1

    def mirror(pose):
        pose[:3, 0] *= -1

    def poison(pose):
        pose[0, 3] = float("nan")

    for edit, words in [
        (scale, "not orthonormal"),
        (mirror, "mirrored"),
        (poison, "NaN or infinity"),
        (lambda pose: pose.copy_(pose.T.clone()), "last row"),
    ]:
        write_camera_file(path, camera_to_world=changed(edit))
        with pytest.raises(LyraError, match=f"frame 2 .*{words}"):
            formats.load_cameras(path, 60, 80)
    intrinsics = some_cameras().intrinsics.tolist()
    for value in ([0, 1, 2, 3], [1, 2, 3], "wide", [float("inf"), 1, 1, 1], [None] * 4):
        write_camera_file(path, intrinsics=[intrinsics[0], value, *intrinsics[2:]])
        with pytest.raises(LyraError, match=r"frame 1 .*intrinsics"):
            formats.load_cameras(path, 60, 80)


def test_what_is_no_camera_file(tmp_path):
    path = tmp_path / "cameras.json"
    for changes, words in [
        ({"intrinsics": []}, "as many intrinsics"),
        ({"camera_to_world": [], "intrinsics": []}, "no cameras"),
        ({"camera_to_world": [[1, 2]] * 4}, "frame 0 has no 4x4"),
        ({"height": None}, "height and width"),
        ({"width": 0}, "height and width"),
    ]:
        write_camera_file(path, **changes)
        with pytest.raises(LyraError, match=words):
            formats.load_cameras(path, 60, 80)
    for text, words in [("", "no JSON"), ("\x89PNG", "no JSON"), ("[]", "neither"), ("{}", "neither")]:
        path.write_text(text)
        with pytest.raises(LyraError, match=words):
            formats.load_cameras(path, 60, 80)
    path.write_text('{"frames": [{"file_path": "images/a.png", "fl_x": 5}]}')
    with pytest.raises(LyraError, match=r"frame 0 \(a.png\) has no 4x4"):
        formats.load_cameras(path, 60, 80)


def test_nerfstudio_axes_and_sizes(tmp_path):
    path = tmp_path / "transforms.json"
    pose = np.eye(4)
    pose[:3, 3] = [1, 2, 3]
    content = {"camera_angle_x": 1.0, "w": 80, "h": 60, "frames": [{"transform_matrix": pose.tolist()}]}
    path.write_text(json.dumps(content))
    cameras = formats.load_cameras(path, 30, 40)
    # OpenGL's camera looks along -z with y up; the same camera in OpenCV's axes has z and y turned around.
    assert cameras.camera_to_world[0, :3, 2].tolist() == [0, 0, -1]
    assert cameras.camera_to_world[0, :3, 1].tolist() == [0, -1, 0]
    assert cameras.camera_to_world[0, :3, 3].tolist() == [1, 2, 3]
    focal = 20 / np.tan(0.5)
    assert cameras.intrinsics[0].tolist() == pytest.approx([focal, focal, 20, 15])
    path.write_text(json.dumps({**content, "k1": 0.1}))
    with pytest.warns(UserWarning, match="distortion"):
        formats.load_cameras(path, 30, 40)


def test_a_real_capture():
    path = MEDIA / "mydesk" / "transforms.json"
    if not path.exists():
        pytest.skip(f"{path} is missing: set LYRA_MEDIA to the folder of real captures")
    cameras = formats.load_cameras(path, 180, 320)
    assert len(cameras) == len(json.loads(path.read_text())["frames"])
    assert cameras.intrinsics[0].tolist() == pytest.approx([276.406, 276.775, 159.682, 90.160], abs=1e-2)
    # The images themselves tell whether the axes are right: matched points must lie on each other's
    # epipolar lines.
    features = pytest.importorskip("skimage.feature")
    points, descriptors = [], []
    for name in ("frame0.jpg", "frame80.jpg"):
        sift = features.SIFT()
        sift.detect_and_extract(np.asarray(Image.open(path.parent / name).convert("L").reduce(2)) / 255)
        points.append(sift.keypoints[:, ::-1] + 0.5)
        descriptors.append(sift.descriptors)
    pairs = features.match_descriptors(*descriptors, max_ratio=0.7, cross_check=True)
    fx, fy, cx, cy = cameras.intrinsics[0].double().numpy()
    inverse = np.linalg.inv([[fx, 0, cx], [0, fy, cy], [0, 0, 1]])
    motion = (cameras.world_to_camera[1].double() @ cameras.camera_to_world[0].double()).numpy()
    essential = np.cross(motion[:3, 3], motion[:3, :3], axisb=0, axisc=0)
    first, second = (np.c_[p[pairs[:, i]], np.ones(len(pairs))] for i, p in enumerate(points))
    lines = first @ (inverse.T @ essential @ inverse).T
    distances = np.abs((lines * second).sum(1)) / np.hypot(lines[:, 0], lines[:, 1])
    assert len(pairs) > 50
    assert np.median(distances) < 0.5  # pixels; 1.5 with the axes left as they are in the file
