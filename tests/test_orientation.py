"""The eight ways in which pictures are stored: videos by their matrix, photos by EXIF, and cameras with them."""

import math
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_videos import BLUE, GRAY, GREEN, RED, quadrants, write_video

from lyra.files.orientation import BY_EXIF, UPRIGHT, Orientation, read_display_matrix
from lyra.files.videos import load_video

# Number of the EXIF tag: what a player does to a stored picture (EXIF 2.32, figure 4), by numpy.
SHOWN = {
    1: lambda stored: stored,
    2: np.fliplr,
    3: lambda stored: np.rot90(stored, 2),
    4: np.flipud,
    5: lambda stored: stored.swapaxes(0, 1),
    6: lambda stored: np.rot90(stored, -1),
    7: lambda stored: np.rot90(stored, 2).swapaxes(0, 1),
    8: lambda stored: np.rot90(stored),
}
MATRICES = {
    # a, b, c, d of the track header (ISO/IEC 14496-12): x' = a x + c y, y' = b x + d y, y down.
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}


def stored_as(shown: np.ndarray, number: int) -> np.ndarray:
    """The picture that is shown as ``shown`` in one of the eight ways."""
    for other in SHOWN:
        stored = np.ascontiguousarray(SHOWN[other](shown))
        if np.array_equal(SHOWN[number](stored), shown):
            return stored
    raise AssertionError


def write_matrix(path: Path, numbers: tuple[float, float, float, float]) -> Path:
    """Writes a display matrix into the track header."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4
    a, b, c, d = (round(65536 * number) for number in numbers)
    data[start + 40 : start + 76] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


def corners(frame: torch.Tensor) -> torch.Tensor:
    height, width = frame.shape[1:]
    places = [(v, u) for v in (height // 4, 3 * height // 4) for u in (width // 4, 3 * width // 4)]
    return torch.stack([frame[:, v, u] for v, u in places]) * 255


@pytest.mark.parametrize("number", MATRICES)
def test_every_display_matrix_shows_the_picture_as_a_player_does(tmp_path: Path, number: int):
    shown = quadrants(96, 64)
    path = write_video(tmp_path / "clip.mp4", [stored_as(shown, number)] * 5)
    write_matrix(path, MATRICES[number])
    video = load_video(path, 32, 48, 5)
    assert video.source_size == (96, 64)
    expected = torch.tensor([RED, GREEN, BLUE, GRAY]).float()
    torch.testing.assert_close(corners(video.frames[2]), expected, atol=8, rtol=0)
    assert not any("odd angle" in note for note in video.notes)


@pytest.mark.parametrize(("degrees", "number"), [(3, 1), (100, 6), (-85, 8), (170, 3)])
def test_an_odd_angle_is_rounded_and_told(tmp_path: Path, degrees: float, number: int):
    shown = quadrants(96, 64)
    path = write_video(tmp_path / "clip.mp4", [stored_as(shown, number)] * 5)
    angle = math.radians(degrees)
    write_matrix(path, (math.cos(angle), math.sin(angle), -math.sin(angle), math.cos(angle)))
    video = load_video(path, 32, 48, 5)
    torch.testing.assert_close(corners(video.frames[0]), torch.tensor([RED, GREEN, BLUE, GRAY]).float(), atol=8, rtol=0)
    assert sum("odd angle" in note for note in video.notes) == 1


def test_a_scaled_matrix_is_no_odd_one_and_an_empty_one_changes_nothing():
    def pack(*numbers: float) -> bytes:
        a, b, c, d = (round(65536 * number) for number in numbers)
        return struct.pack("=9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)

    assert read_display_matrix(pack(0, 2, -2, 0)) == (BY_EXIF[6], True)
    assert read_display_matrix(pack(-0.5, 0, 0, 0.5)) == (BY_EXIF[2], True)
    assert read_display_matrix(pack(0, 0, 0, 0)) == (UPRIGHT, False)
    assert read_display_matrix(None) == (UPRIGHT, True)
    assert read_display_matrix(b"short") == (UPRIGHT, False)


@pytest.mark.parametrize("number", BY_EXIF)
def test_pictures_poses_and_lenses_turn_alike(number: int):
    """A point in space falls on the same content whether the picture or its camera is turned."""
    orientation = BY_EXIF[number]
    generator = np.random.default_rng(number)
    stored = generator.integers(0, 255, (48, 64, 3), dtype=np.uint8)
    shown = np.asarray(orientation.show(Image.fromarray(stored)))
    np.testing.assert_array_equal(shown, SHOWN[number](stored))
    np.testing.assert_array_equal(np.asarray(orientation.store(Image.fromarray(shown))), stored)
    assert (shown.shape[1], shown.shape[0]) == orientation.size(64, 48)
    pose, lens = np.eye(4), np.array([50.0, 70.0, 30.0, 26.0])
    pose[:3, 3] = [0.1, 0.2, -0.3]
    turned, turned_lens = orientation.turn_pose(pose), orientation.turn_intrinsics(lens, 64, 48)
    for _ in range(5):
        point = np.append(generator.uniform(-0.2, 0.2, 2), generator.uniform(0.5, 1.0))

        def project(camera: np.ndarray, numbers: np.ndarray, point: np.ndarray = point) -> np.ndarray:
            x, y, z = (np.linalg.inv(camera) @ [*point, 1])[:3]
            return np.array([numbers[0] * x / z + numbers[2], numbers[1] * y / z + numbers[3]])

        u, v = np.floor(project(pose, lens)).astype(int)
        x, y = np.floor(project(turned, turned_lens)).astype(int)
        if 0 <= u < 64 and 0 <= v < 48:
            np.testing.assert_array_equal(shown[y, x], stored[v, u])
    assert orientation.mirrors == (number in (2, 4, 5, 7))
    assert (np.linalg.det(turned[:3, :3]) < 0) == orientation.mirrors


def test_mirrored_videos_of_others(faults: Path):
    """The same film, stored mirrored both ways: what is shown are mirrors of what is stored."""
    import av

    for name, flip in (("hflip", np.fliplr), ("vflip", np.flipud)):
        path = faults / "hflip_video" / f"{name}.mp4"
        with av.open(str(path)) as container:
            stored = next(container.decode(video=0)).to_ndarray(format="rgb24")
        video = load_video(path, 48, 64, 5)
        expected = Image.fromarray(np.ascontiguousarray(flip(stored))).resize((64, 48), Image.Resampling.LANCZOS)
        difference = np.abs(video.frames[0].permute(1, 2, 0).numpy() * 255 - np.asarray(expected)).mean()
        assert difference < 2


def test_there_are_eight():
    assert len(set(BY_EXIF.values())) == 8
    assert set(BY_EXIF.values()) == {Orientation(*numbers) for numbers in MATRICES.values()}
