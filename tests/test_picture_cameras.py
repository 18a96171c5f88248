"""Cameras and the pictures they belong to: sizes, names, and pictures that are another camera's."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from test_videos import level_picture, write_video

from lyra.errors import LyraError
from lyra.files import load_cameras
from lyra.files.photos import load_posed_photos
from lyra.files.videos import load_video


def fov_of_shorter(focal: float, side: int) -> float:
    return 2 * math.degrees(math.atan(side / 2 / focal))


def write(folder: Path, name: str = "a.png", size: tuple[int, int] = (160, 120), **settings) -> Path:
    picture = folder / name
    picture.parent.mkdir(exist_ok=True)
    Image.new("RGB", size, "gray").save(picture)
    frame = {"file_path": settings.pop("file_path", name), "transform_matrix": np.eye(4).tolist()}
    path = folder / "transforms.json"
    path.write_text(json.dumps({**settings, "frames": [frame]}))
    return path


@pytest.mark.parametrize("name", ["good", "angle_only", "fl_nosize", "noext", "backslash"])
def test_cameras_of_others_have_the_true_field_of_view(faults: Path, name: str):
    photos, cameras = load_posed_photos(faults / "posed_no_size" / f"{name}.json", 64, 64)
    assert len(photos) == 2 and photos[0].source_size == (640, 480)
    assert fov_of_shorter(float(cameras.intrinsics[0, 0]), 64) == pytest.approx(38.56, abs=0.05)


@pytest.mark.parametrize(
    "settings",
    [
        {"camera_angle_x": 1.0},
        {"camera_angle_x": 1.0, "camera_angle_y": 2 * math.atan(0.75 * math.tan(0.5))},
        {"fl_x": 80 / math.tan(0.5)},
        {"fl_x": 80 / math.tan(0.5), "cx": 80, "cy": 60},
        {"fl_x": 160 / math.tan(0.5), "w": 320, "h": 240},
    ],
)
def test_a_size_that_is_not_told_is_the_pictures(tmp_path: Path, settings: dict):
    path = write(tmp_path, **settings)
    for height, width in ((120, 160), (60, 60), (96, 40)):
        _, cameras = load_posed_photos(path, height, width)
        scale = max(height / 120, width / 160)
        assert float(cameras.intrinsics[0, 0]) == pytest.approx(scale * 80 / math.tan(0.5), rel=1e-5)
        assert cameras.intrinsics[0, 2:].tolist() == pytest.approx([width / 2, height / 2])
        # And the same where the file is a path for the camera.
        path_cameras = load_cameras(path, height, width)
        assert float(path_cameras.intrinsics[0, 0]) == pytest.approx(float(cameras.intrinsics[0, 0]), rel=1e-5)


def test_a_path_without_pictures_needs_a_size_or_an_angle(tmp_path: Path):
    path = write(tmp_path, fl_x=100.0)
    (tmp_path / "a.png").unlink()
    with pytest.raises(LyraError, match=r'frame 0 .*says no image size: add "w" and "h"'):
        load_cameras(path, 48, 64)
    path = write(tmp_path, fl_x=100.0, cx=80.0, cy=60.0)
    (tmp_path / "a.png").unlink()
    assert load_cameras(path, 60, 80).intrinsics[0].tolist() == [50, 50, 40, 30]
    path = write(tmp_path, camera_angle_x=1.0)
    (tmp_path / "a.png").unlink()
    assert float(load_cameras(path, 48, 64).intrinsics[0, 0]) == pytest.approx(32 / math.tan(0.5))


def test_a_picture_of_another_shape_is_refused(tmp_path: Path):
    with pytest.raises(LyraError, match=r"frame 0 \(a\.png\) is a camera of 160x120 pixels.*160x100"):
        load_posed_photos(write(tmp_path, size=(160, 100), fl_x=100.0, w=160, h=120), 32, 32)
    # Rounded sizes of a scaled picture are no other shape.
    load_posed_photos(write(tmp_path, size=(81, 60), fl_x=100.0, w=160, h=120), 32, 32)


@pytest.mark.parametrize(
    ("stored", "named"),
    [
        ("train/r_0.png", "train\\r_0.png"),
        ("train/r_0.png", ".\\train\\r_0"),
        ("train/r_0.jpg", "./train/r_0"),
        ("train/r.0.png", "train/r.0"),
        ("r_0.PNG", "r_0"),
        ("r_0.webp", "r_0"),
    ],
)
def test_names_without_suffix_and_with_backslashes_are_found(tmp_path: Path, stored: str, named: str):
    photos, _ = load_posed_photos(write(tmp_path, stored, camera_angle_x=1.0, file_path=named), 32, 32)
    assert photos[0].source_size == (160, 120)


def test_a_name_that_is_nowhere_is_told(tmp_path: Path):
    with pytest.raises(LyraError, match=r"train/r_7 does not exist"):
        load_posed_photos(write(tmp_path, camera_angle_x=1.0, file_path="train\\r_7"), 32, 32)


def video_with(tmp_path: Path, **settings) -> tuple[Path, Path]:
    path = write_video(tmp_path / "clip.mp4", [level_picture(10 * i) for i in range(5)])
    frames = [{"transform_matrix": np.eye(4).tolist()}] * 5
    (tmp_path / "t.json").write_text(json.dumps({**settings, "frames": frames}))
    return path, tmp_path / "t.json"


def test_a_videos_cameras_are_of_its_size(tmp_path: Path):
    path, file = video_with(tmp_path, fl_x=100.0)
    video = load_video(path, 32, 48, 3, file)
    assert video.cameras is not None and video.cameras.intrinsics[0].tolist() == [50, 50, 24, 16]
    path, file = video_with(tmp_path, fl_x=100.0, w=100, h=100)
    with pytest.raises(LyraError, match="100x100 pixels, its picture has 96x64"):
        load_video(path, 32, 48, 3, file)
    path, file = video_with(tmp_path, fl_x=100.0, k1=0.1)
    assert "its lens distortion was undone" in load_video(path, 32, 48, 3, file).notes
    path, file = video_with(tmp_path, fl_x=100.0, camera_model="EQUIRECTANGULAR")
    with pytest.raises(LyraError, match="EQUIRECTANGULAR"):
        load_video(path, 32, 48, 3, file)
