"""Captures in the layouts of data sets, against the film that they were written from."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from captures import (
    COUNT,
    HEIGHT,
    WIDTH,
    film,
    write_7_scenes,
    write_colmap,
    write_nerfstudio,
    write_real_estate,
    write_tum,
)

from lyra.errors import LyraError, LyraWarning
from lyra.files.posed_folders import find_captures, load_views, open_capture

WRITERS: dict[str, Callable[[Path], Path]] = {
    "nerfstudio": lambda folder: write_nerfstudio(film(), folder),
    "nerfstudio with depth": lambda folder: write_nerfstudio(film(), folder, depth=True),
    "colmap text": lambda folder: write_colmap(film(), folder, binary=False),
    "colmap binary": lambda folder: write_colmap(film(), folder, binary=True),
    "7-scenes": lambda folder: write_7_scenes(film(), folder),
    "tum": lambda folder: write_tum(film(), folder),
}
DEPTH = {"nerfstudio with depth", "7-scenes", "tum"}


@pytest.mark.parametrize("kind", WRITERS)
def test_a_capture_is_what_was_filmed(kind: str, tmp_path: Path):
    taken = film()
    capture = open_capture(WRITERS[kind](tmp_path / "room"))
    assert (capture.layout, len(capture), capture.name) == (kind.split()[0], COUNT, "room")
    order = [2, 0, 5]
    views = load_views(capture, order, HEIGHT, WIDTH)
    expected = taken.cameras[order].relative_to(taken.cameras.camera_to_world[2])
    assert torch.allclose(views.cameras.camera_to_world, expected.camera_to_world, atol=1e-5)
    assert torch.allclose(views.cameras.intrinsics, expected.intrinsics, atol=1e-3)
    assert (views.images - taken.color[order]).abs().mean() < (0.02 if kind == "7-scenes" else 0.0021)
    assert (views.depth is not None) == (kind in DEPTH)
    if views.depth is not None:
        assert torch.allclose(views.depth, taken.depth[order], atol=6e-4)


def test_pictures_and_depth_are_cropped_alike(tmp_path: Path):
    """At a square shape the middle is used of both, and the lens goes with it."""
    taken = film()
    views = load_views(open_capture(write_7_scenes(taken, tmp_path / "room")), [0, 3], 24, 24)
    assert views.depth is not None
    middle = taken.depth[[0, 3], :, 8:56]
    # Of two by two pixels one is taken.
    inside = [middle[:, i::2, j::2] for i in range(2) for j in range(2)]
    assert torch.stack([(views.depth - part).abs() for part in inside]).amin(0).max() < 6e-4
    lens = taken.cameras.intrinsics[0] - torch.tensor([0.0, 0.0, 8.0, 0.0])
    assert torch.allclose(views.cameras.intrinsics[0], lens / 2, atol=1e-3)


def test_real_estate_text_and_its_frames(tmp_path: Path):
    """That format has no size: lenses are in widths and heights of the pictures, here of pixels that are not square."""
    taken = film()
    capture = open_capture(write_real_estate(taken, tmp_path))
    assert (capture.layout, capture.name, len(capture)) == ("realestate10k", "0a1b2c", COUNT)
    views = load_views(capture, [0, 4], HEIGHT, WIDTH)
    expected = taken.cameras[[0, 4]].relative_to(taken.cameras.camera_to_world[0])
    assert torch.allclose(views.cameras.camera_to_world, expected.camera_to_world, atol=1e-5)
    assert torch.allclose(views.cameras.intrinsics, expected.intrinsics, atol=1e-3)


def test_a_folder_of_captures_is_all_of_them(tmp_path: Path):
    for name in ("b", "a"):
        write_real_estate(film(), tmp_path / "test", name)
        write_nerfstudio(film(), tmp_path / "others" / name)
    (tmp_path / "others/readme").mkdir()
    assert [capture.name for capture in find_captures(tmp_path / "test")] == ["a", "b"]
    assert [capture.name for capture in find_captures(tmp_path / "others")] == ["a", "b"]


def test_smaller_pictures_stand_for_those_that_are_missing(tmp_path: Path):
    taken = film()
    capture = open_capture(write_nerfstudio(taken, tmp_path / "room", smaller=2))
    views = load_views(capture, [1], HEIGHT // 2, WIDTH // 2)
    assert torch.allclose(views.cameras.intrinsics[0], taken.cameras.intrinsics[1] / 2, atol=1e-4)


def test_a_missing_frame_is_an_error(tmp_path: Path):
    folder = write_nerfstudio(film(), tmp_path / "room")
    (folder / "images/3.png").unlink()
    with pytest.raises(LyraError, match=r"frame 3 \(3\.png\) has no picture"):
        load_views(open_capture(folder), [0, 3], HEIGHT, WIDTH)


def test_frames_whose_pose_was_lost_are_left_out(tmp_path: Path):
    folder = write_7_scenes(film(), tmp_path / "room")
    (folder / "frame-000002.pose.txt").write_text("-1.#IND " * 16)
    with pytest.warns(LyraWarning, match="1 frames have no pose"):
        capture = open_capture(folder)
    assert [frame.name for frame in capture.frames][1:3] == ["frame-000001", "frame-000003"]
    assert capture.depths[2].name == "frame-000003.depth.png"


def test_what_is_no_capture_is_refused(tmp_path: Path):
    with pytest.raises(LyraError, match="does not exist"):
        open_capture(tmp_path / "none")
    with pytest.raises(LyraError, match="no capture that is known"):
        open_capture(tmp_path)
    (tmp_path / "transforms.json").write_text("[]")
    with pytest.raises(LyraError, match=r"no transforms\.json"):
        open_capture(tmp_path)
    folder = write_7_scenes(film(), tmp_path / "room")
    (folder / "frame-000001.pose.txt").write_text("1 2 3")
    with pytest.raises(LyraError, match="4 x 4 numbers"):
        open_capture(folder)
