"""Films are what their names say, in colors that any player shows, and other names are refused."""

from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from test_verification import CAMERA, wall

from lyra.errors import LyraError
from lyra.files import save_video
from lyra.files.videos import load_video
from lyra.scene.film import render_video
from lyra.scene.scene import Scene

COLOR = (200, 40, 90)
CONTAINERS = {
    "film.mp4": (b"ftyp", "h264"),
    "film.m4v": (b"ftyp", "h264"),
    "film.mov": (b"ftypqt", "h264"),
    "film.mkv": (b"matroska", "h264"),
    "film.webm": (b"webm", "vp9"),
    "film.avi": (b"AVI ", "mjpeg"),
    "film.gif": (b"GIF89a", "gif"),
    "FILM.GIF": (b"GIF89a", "gif"),
    "film": (b"ftyp", "h264"),
}


def frames(count: int = 13, height: int = 48, width: int = 64) -> np.ndarray:
    """One color, and a white bar that moves."""
    result = np.empty((count, 3, height, width), np.uint8)
    result[:] = np.array(COLOR)[:, None, None]
    for number in range(count):
        result[number, :, :, 4 * number : 4 * number + 6] = 255
    return result


@pytest.mark.parametrize("name", CONTAINERS)
def test_the_suffix_is_the_format(tmp_path: Path, name: str):
    mark, codec = CONTAINERS[name]
    save_video(frames(), tmp_path / name, 24)
    data = (tmp_path / name).read_bytes()
    assert mark in data[:64]
    with av.open(str(tmp_path / name)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == codec and (stream.width, stream.height) == (64, 48)
        shown = list(container.decode(video=0))
    assert len(shown) == 13
    # The twelfth frame begins after half a second in all of them: GIF's hundredths do not add up to another length.
    assert float(shown[12].time) == pytest.approx(0.5, abs=0.011)
    assert shown[0].to_ndarray(format="rgb24")[40, 60].tolist() == pytest.approx(COLOR, abs=4)
    save_video(frames(), tmp_path / f"again.{name.partition('.')[2] or 'mp4'}", 24)
    assert data == (tmp_path / f"again.{name.partition('.')[2] or 'mp4'}").read_bytes()


@pytest.mark.parametrize("name", ["film.mp4", "film.webm", "film.avi", "film.mov", "film.gif"])
@pytest.mark.parametrize("height", [96, 720])
def test_colors_come_back_through_our_own_reader(tmp_path: Path, name: str, height: int):
    save_video(frames(3, height, height), tmp_path / name, 5)
    video = load_video(tmp_path / name, 32, 32, 3)
    assert video.frames[1, :, 16, 28].mul(255).tolist() == pytest.approx(COLOR, abs=5)


@pytest.mark.parametrize(
    ("name", "first", "last", "kind"),
    [
        ("f_%04d.png", "f_0000.png", "f_0012.png", "PNG"),
        ("f%d.png", "f0.png", "f12.png", "PNG"),
        ("%03d.jpg", "000.jpg", "012.jpg", "JPEG"),
        ("deep/er/%02d.webp", "deep/er/00.webp", "deep/er/12.webp", "WEBP"),
    ],
)
def test_numbered_pictures(tmp_path: Path, name: str, first: str, last: str, kind: str):
    save_video(frames(height=47, width=63), tmp_path / name, 24)
    assert len([path for path in (tmp_path / name).parent.iterdir() if path.is_file()]) == 13
    for file in (first, last):
        with Image.open(tmp_path / file) as picture:
            assert picture.format == kind and picture.size == (63, 47)
            assert picture.convert("RGB").getpixel((61, 20)) == pytest.approx(COLOR, abs=12)


@pytest.mark.parametrize(
    "name",
    [
        "film.xyz",
        "film.ply",
        "film.mp3",
        "film.png",
        "film.jpg",
        "film_%04d.mp4",
        "film_%d_%d.png",
        "film_%s.png",
        "a.ogv",
    ],
)
def test_other_names_are_refused_before_anything_is_drawn(tmp_path: Path, name: str):
    with pytest.raises(LyraError, match="film") as caught:
        render_video(tmp_path / "no scene", tmp_path / name, "fly", 2, 64)
    assert name in str(caught.value) and "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["film.gif", "film.webm", "film.avi", "f_%02d.png"])
def test_scenes_are_filmed_in_them(tmp_path: Path, name: str):
    Scene(wall(2.0, 1.0), CAMERA).save(tmp_path / "scene")
    render_video(tmp_path / "scene", tmp_path / name, "left", 3, 64)
    files = [path for path in tmp_path.iterdir() if path.is_file()]
    assert len(files) == (3 if "%" in name else 1) and all(path.stat().st_size > 200 for path in files)


def test_a_slow_gif_and_a_fast_one_have_their_length(tmp_path: Path):
    for fps, expected in ((7, 13 / 7), (30, 13 / 30), (60, 13 * 0.02)):
        save_video(frames(), tmp_path / "a.gif", fps)
        with Image.open(tmp_path / "a.gif") as picture:
            total = 0
            for number in range(picture.n_frames):  # pyright: ignore[reportAttributeAccessIssue]
                picture.seek(number)
                total += picture.info["duration"]
        assert total / 1000 == pytest.approx(expected, abs=0.011)
