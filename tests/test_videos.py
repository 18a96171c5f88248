"""Videos of every kind become frames at the model's shape; everything else is a one-line LyraError."""

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
import torch

from lyra.cli.main import main
from lyra.errors import LyraError
from lyra.files import save_cameras
from lyra.files.videos import Video, load_video
from lyra.geometry.cameras import Cameras

RED, GREEN, BLUE, GRAY = (230, 20, 20), (20, 200, 20), (20, 20, 230), (128, 128, 128)


def level_picture(level: int, width: int = 96, height: int = 64) -> np.ndarray:
    """One gray, but for a white column that makes it a picture."""
    picture = np.full((height, width, 3), level, dtype=np.uint8)
    picture[:, width // 2 : width // 2 + max(2, width // 16)] = 255
    return picture


def quadrants(width: int = 96, height: int = 64) -> np.ndarray:
    """Red top left, green top right, blue bottom left, gray bottom right."""
    picture = np.empty((height, width, 3), dtype=np.uint8)
    top, left = slice(0, height // 2), slice(0, width // 2)
    picture[:], picture[top, left] = GRAY, RED
    picture[top, width // 2 :], picture[height // 2 :, left] = GREEN, BLUE
    return picture


def noise(frames: int, width: int = 96, height: int = 64) -> list[np.ndarray]:
    """Frames whose files are large enough to be cut."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, 255, (height, width, 3), dtype=np.uint8) for _ in range(frames)]


def write_video(
    path: Path,
    pictures: Sequence[np.ndarray],
    codec: str = "libx264",
    pixels: str = "yuv420p",
    times: Sequence[int] | None = None,
    shape: Fraction | None = None,
    flags: str | None = None,
    transfer: int | None = None,
) -> Path:
    """A video of 25 frames a second, or with times in milliseconds."""
    height, width = pictures[0].shape[:2]
    with av.open(str(path), "w", options={"movflags": flags} if flags else {}) as container:
        stream: Any = container.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, pixels
        if shape is not None:
            stream.codec_context.sample_aspect_ratio = shape
        if transfer is not None:
            stream.codec_context.color_trc = transfer
        if times is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture)
            if transfer is not None:
                frame.color_trc = transfer
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def levels(video: Video) -> list[float]:
    """Gray levels (0 to 255) at the left of each frame."""
    return (video.frames[:, :, :, 2].mean((1, 2)) * 255).tolist()


CODECS = [
    ("clip.mp4", "libx264", "yuv420p"),
    ("clip.mov", "libx265", "yuv420p"),
    ("clip.avi", "mpeg4", "yuv420p"),
    ("clip.webm", "libvpx", "yuv420p"),
    ("nine.webm", "libvpx-vp9", "yuv420p"),
    ("clip.mkv", "mjpeg", "yuvj420p"),
    ("lossless.mkv", "ffv1", "yuv444p"),
    ("clip.mpg", "mpeg2video", "yuv420p"),
    ("clip.gif", "gif", "rgb8"),
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "codec", "pixels"), CODECS)
def test_frames_are_the_pictures_at_their_times_in_every_codec(tmp_path, name, codec, pixels):
    shown = [30 + 10 * number for number in range(17)]
    path = write_video(tmp_path / name, [level_picture(level) for level in shown], codec, pixels)
    video = load_video(path, 32, 48, 5)
    assert video.frames.shape == (5, 3, 32, 48)
    assert video.frames.dtype == torch.float32 and video.frames.min() >= 0 and video.frames.max() <= 1
    # GIF has 8 levels of red.
    assert levels(video) == pytest.approx(
        [shown[number] for number in (0, 4, 8, 12, 16)], abs=20 if "gif" in name else 6
    )
    assert video.seconds == pytest.approx(16 / 25, abs=0.02)
    assert video.source_size == (96, 64) and video.crop == (0, 0, 96, 64)
    assert video.cameras is None
    assert video.notes == ()
    assert video.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_an_uneven_frame_rate_is_sampled_by_time(tmp_path):
    # Dense at first: by number, most frames would be of the first tenth of a second.
    times = [*range(0, 100, 10), 250, 500, 740, 1000]
    path = write_video(tmp_path / "clip.mp4", [level_picture(20 + 15 * i) for i in range(len(times))], times=times)
    video = load_video(path, 32, 48, 5)
    wanted = [times.index(moment) for moment in (0, 250, 500, 740, 1000)]
    assert levels(video) == pytest.approx([20 + 15 * number for number in wanted], abs=6)
    assert video.seconds == pytest.approx(1.0, abs=1e-3)


def test_of_few_frames_some_are_shown_twice_and_of_many_some_not_at_all(tmp_path):
    few = write_video(tmp_path / "few.mp4", [level_picture(level) for level in (40, 120, 200)])
    video = load_video(few, 32, 48, 5)
    assert levels(video)[::2] == pytest.approx([40, 120, 200], abs=6)
    assert levels(video) == sorted(levels(video))
    assert any("3 frames where the model takes 5" in note for note in video.notes)
    many = write_video(tmp_path / "many.mp4", [level_picture(round(20 + 2 * i)) for i in range(101)])
    assert levels(load_video(many, 32, 48, 3)) == pytest.approx([20, 120, 220], abs=6)


@pytest.mark.parametrize(("transfer", "names"), [(18, ["HLG"]), (16, ["PQ"]), (1, [])])
def test_hdr_is_told(tmp_path, transfer: int, names: list[str]):
    pictures = [level_picture(level) for level in (40, 120, 200)]
    path = write_video(tmp_path / "phone.mp4", pictures, "libx265", transfer=transfer)
    notes = " ".join(load_video(path, 32, 48, 3).notes)
    assert re.findall(r"HDR \((\w+)\)", notes) == names


@pytest.mark.parametrize("name", ["2024-05-01T12:30:15.mp4", os.fsdecode(b"caf\xe9.mp4")])
def test_any_name_is_opened_also_where_it_is_relative(tmp_path, monkeypatch, name: str):
    write_video(tmp_path / name, [level_picture(level) for level in (40, 120, 200)])
    monkeypatch.chdir(tmp_path)
    assert levels(load_video(Path(name), 32, 48, 3)) == pytest.approx([40, 120, 200], abs=6)


def test_how_many_frames_may_depend_on_the_length(tmp_path):
    path = write_video(tmp_path / "clip.mp4", [level_picture(5 * i) for i in range(51)])
    asked = []

    def count(seconds: float) -> int:
        asked.append(seconds)
        return 9

    assert len(load_video(path, 32, 48, count).frames) == 9
    assert asked == [pytest.approx(2.0, abs=0.01)]


MATRICES = {
    # a, b, c, d of the display matrix: x' = a x + c y, y' = b x + d y, y down.
    90: (0, 1, -1, 0),
    180: (-1, 0, 0, -1),
    270: (0, -1, 1, 0),
}


def patch_rotation(path: Path, degrees: int) -> None:
    """Writes a clockwise turn into the track header, as a phone does."""
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 4
    assert data[start] == 0  # version
    matrix = start + 40
    one = 1 << 16
    a, b, c, d = (one * value for value in MATRICES[degrees])
    # 16.16 fixed point, but for the last column's 2.30.
    values = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    data[matrix : matrix + 36] = b"".join(value.to_bytes(4, "big", signed=True) for value in values)
    path.write_bytes(data)


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_a_phones_rotation_is_applied(tmp_path, degrees):
    upright = quadrants(96, 64)
    # The player turns clockwise what is stored, so it is stored turned the other way.
    stored = np.ascontiguousarray(np.rot90(upright, k=degrees // 90))
    path = write_video(tmp_path / "clip.mp4", [stored] * 5)
    if degrees:
        patch_rotation(path, degrees)
    video = load_video(path, 32, 48, 5)
    assert video.source_size == (96, 64)
    seen = torch.stack([video.frames[2, :, v, u] for v in (8, 24) for u in (12, 36)]) * 255
    torch.testing.assert_close(seen, torch.tensor([RED, GREEN, BLUE, GRAY]).float(), atol=8, rtol=0)


def test_pixels_that_are_not_square_are_shown_as_wide_as_they_are(tmp_path):
    # A circle, stored at half of its width.
    v, u = np.mgrid[:64, :48]
    disc = ((u - 23.5) * 2) ** 2 + (v - 31.5) ** 2 < 24**2
    picture = np.where(disc[..., None], 230, 20).astype(np.uint8).repeat(3, axis=2)
    path = write_video(tmp_path / "clip.mp4", [picture] * 5, shape=Fraction(2, 1))
    video = load_video(path, 64, 96, 5)
    assert video.source_size == (96, 64)
    round_disc = video.frames[0].mean(0) > 0.5
    assert int(round_disc.any(0).sum()) == pytest.approx(48, abs=2)
    assert int(round_disc.any(1).sum()) == pytest.approx(48, abs=2)


@pytest.mark.parametrize("size", [(97, 65), (65, 131), (17, 16), (128, 16)])
def test_odd_sizes_are_cropped_never_squashed(tmp_path, size):
    path = write_video(tmp_path / "clip.mkv", [quadrants(*size)] * 5, "ffv1", "yuv444p")
    video = load_video(path, 32, 32, 5)
    left, top, right, bottom = video.crop
    assert video.frames.shape == (5, 3, 32, 32)
    assert video.source_size == size
    assert right - left == bottom - top == min(size)
    assert abs(left - (size[0] - right)) <= 1 and abs(top - (size[1] - bottom)) <= 1


def test_a_very_large_video_is_read(tmp_path):
    planes = np.full((4320 * 3 // 2, 7680), 128, dtype=np.uint8)
    planes[:4320, :3840] = 40
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        stream = container.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 7680, 4320, "yuvj420p"
        for _ in range(2):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(planes, format="yuvj420p")))
        container.mux(stream.encode())
    video = load_video(tmp_path / "clip.mkv", 32, 32, 5)
    assert video.source_size == (7680, 4320)
    assert video.frames[0, :, 8, 8] * 255 == pytest.approx([40] * 3, abs=4)
    assert video.frames[0, :, 8, 24] * 255 == pytest.approx([128] * 3, abs=4)


# Cameras


def posed(folder: Path, count: int) -> tuple[Path, torch.Tensor]:
    """Our own file of cameras that move right, not beginning at the origin; and their poses."""
    poses = torch.eye(4).repeat(count, 1, 1)
    poses[:, 0, 3] = 3 + torch.arange(count) / 10
    poses[:, 2, 3] = -1
    lens = torch.tensor([100.0, 100, 48, 32]).expand(count, 4).clone()
    save_cameras(Cameras(poses, lens, 64, 96), folder / "cameras.json")
    return folder / "cameras.json", poses


def test_cameras_of_a_file_are_picked_with_their_frames(tmp_path):
    path = write_video(tmp_path / "clip.mp4", [level_picture(10 * i) for i in range(17)])
    file, poses = posed(tmp_path, 17)
    video = load_video(path, 32, 48, 5, file)
    assert video.cameras is not None
    expected = poses[[0, 4, 8, 12, 16], :3, 3] - poses[0, :3, 3]
    assert torch.allclose(video.cameras.centers, expected, atol=1e-5)
    assert torch.equal(video.cameras.camera_to_world[0], torch.eye(4))
    assert video.cameras.intrinsics[0].tolist() == [50, 50, 24, 16]
    assert (video.cameras.height, video.cameras.width) == (32, 48)


def test_cameras_that_do_not_fit_the_video_are_refused(tmp_path):
    path = write_video(tmp_path / "clip.mp4", [level_picture(10 * i) for i in range(17)])
    for count in (16, 18):
        with pytest.raises(LyraError, match=f"{count} cameras.*17 frames"):
            load_video(path, 32, 48, 5, posed(tmp_path, count)[0])
    with pytest.raises(LyraError, match=r"nothing\.json"):
        load_video(path, 32, 48, 5, tmp_path / "nothing.json")


def test_poses_in_the_folders_of_vipe_are_found(tmp_path):
    for name in ("rgb", "pose", "intrinsics"):
        (tmp_path / name).mkdir()
    path = write_video(tmp_path / "rgb/walk.mp4", [level_picture(10 * i) for i in range(9)])
    poses = np.tile(np.eye(4, dtype=np.float32), (9, 1, 1))
    poses[:, 0, 3] = 1 + np.arange(9) / 4
    order = np.random.default_rng(0).permutation(9)
    np.savez(tmp_path / "pose/walk.npz", data=poses[order], inds=order)
    lens = np.tile(np.array([80.0, 80, 48, 32], dtype=np.float32), (9, 1))
    np.savez(tmp_path / "intrinsics/walk.npz", data=lens, inds=np.arange(9))
    np.savez(tmp_path / "pose/other.npz", data=poses[:2], inds=np.arange(2))
    video = load_video(path, 32, 48, 5)
    assert video.cameras is not None
    assert video.cameras.centers[:, 0].tolist() == pytest.approx([0, 0.5, 1, 1.5, 2])
    assert video.cameras.intrinsics[0].tolist() == pytest.approx([40, 40, 24, 16])
    # A file that the user names goes before them.
    file, _ = posed(tmp_path, 9)
    chosen = load_video(path, 32, 48, 5, file).cameras
    assert chosen is not None and chosen.centers[-1, 0] == pytest.approx(0.8)


# Bad ones


def write_sound(path: Path) -> Path:
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        tone = (0.3 * np.sin(np.arange(44100) * 0.05)).astype(np.float32)
        for first in range(0, 40 * 1024, 1024):
            frame = av.AudioFrame.from_ndarray(tone[None, first : first + 1024], format="fltp", layout="mono")
            frame.sample_rate, frame.pts = 44100, first
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def cut(path: Path, share: float) -> Path:
    short = path.with_name(f"cut_{path.name}")
    data = path.read_bytes()
    short.write_bytes(data[: int(share * len(data))])
    return short


BAD = {
    "sound.mp4": "sound but no picture",
    "single.mp4": "single frame.*photo",
    "empty.mp4": "is empty",
    "black.mp4": "nothing but one color",
    "gray.mp4": "nothing but one color",
    "three.mkv": "3x3 pixels.*at least 16",
    "strip.mkv": "more than 8:1",
    "cut_headless.mp4": "is damaged or no video",
    "text.mp4": "is damaged or no video",
    "header.mp4": "is damaged or no video",
    "missing.mp4": "missing.mp4",
    "folder.mp4": "folder.mp4",
}


@pytest.fixture(scope="module")
def bad(tmp_path_factory) -> Path:
    """A folder with a video of every name in ``BAD``."""
    folder = tmp_path_factory.mktemp("bad")
    write_sound(folder / "sound.mp4")
    write_video(folder / "single.mp4", [quadrants()])
    (folder / "empty.mp4").write_bytes(b"")
    write_video(folder / "black.mp4", [np.zeros((64, 96, 3), np.uint8)] * 5)
    write_video(folder / "gray.mp4", [np.full((64, 96, 3), 128, np.uint8)] * 5)
    write_video(folder / "three.mkv", [noise(1, 3, 3)[0]] * 5, "ffv1", "yuv444p")
    write_video(folder / "strip.mkv", noise(5, 384, 32), "ffv1", "yuv444p")
    cut(write_video(folder / "headless.mp4", noise(10)), 0.8)
    (folder / "text.mp4").write_text("these are words, not pictures\n" * 40)
    (folder / "header.mp4").write_bytes(b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41")
    (folder / "folder.mp4").mkdir()
    return folder


@pytest.mark.parametrize("name", BAD)
def test_what_holds_no_moving_picture_is_refused_in_one_line(bad: Path, name: str):
    with pytest.raises(LyraError, match=BAD[name]) as caught:
        load_video(bad / name, 32, 32, 5)
    message = str(caught.value)
    assert "\n" not in message and name in message and len(message) - len(str(bad)) < 120


@pytest.mark.parametrize("name", [*BAD])
def test_the_command_ends_with_code_2_and_writes_nothing(bad: Path, tmp_path: Path, monkeypatch, capsys, name: str):
    command = ["lyra", "generate", str(bad / name), "-o", str(tmp_path / "out"), "--model", "smoke"]
    monkeypatch.setattr(sys, "argv", command)
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("lyra: ") and name in lines[0]
    assert not (tmp_path / "out").exists()


def test_libraries_below_print_nothing_beside_the_one_line(bad: Path, tmp_path: Path):
    # In a process of its own: what a C library prints is not seen by Python's sys.stderr.
    command = [sys.executable, "-m", "lyra.cli", "generate", str(bad / "cut_headless.mp4"), "-o", str(tmp_path / "out")]
    done = subprocess.run([*command, "--model", "smoke"], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "codec", "pixels", "flags"),
    [
        ("front.mp4", "libx264", "yuv420p", "faststart"),
        ("fragments.mp4", "libx264", "yuv420p", "frag_every_frame+empty_moov"),
        ("clip.avi", "mpeg4", "yuv420p", None),
        ("clip.mkv", "mjpeg", "yuvj420p", None),
        ("clip.webm", "libvpx", "yuv420p", None),
    ],
)
def test_of_a_file_cut_in_the_middle_what_comes_before_is_used(tmp_path, name, codec, pixels, flags):
    rows = noise(40)
    for number, picture in enumerate(rows):  # where the time can be read
        picture[:, :24] = 20 + 5 * number
    path = write_video(tmp_path / name, rows, codec, pixels, flags=flags)
    whole, video = load_video(path, 32, 48, 5), load_video(cut(path, 0.6), 32, 48, 5)
    assert not any("damaged" in note for note in whole.notes)
    assert sum("its end is damaged or missing" in note for note in video.notes) == 1
    assert 0.4 < video.seconds < 1.2 < whole.seconds
    # Every frame is whole, its time's own, and evenly spaced.
    found = (video.frames[:, :, :, 5].mean((1, 2)) * 255).tolist()
    expected = [20 + 5 * 25 * video.seconds * step / 4 for step in range(5)]
    assert found == pytest.approx(expected, abs=8)


@pytest.mark.parametrize(("name", "codec", "pixels"), CODECS[:6])
def test_a_file_with_wrong_bytes_is_refused_or_read_the_same_each_time(tmp_path, name, codec, pixels):
    path = write_video(tmp_path / name, noise(12), codec, pixels)
    whole = path.read_bytes()
    for seed in range(8):
        generator, data = np.random.default_rng(seed), bytearray(whole)
        for at in generator.integers(0, len(data), generator.integers(1, 60)):
            data[at] = int(generator.integers(0, 256))
        path.write_bytes(data)
        try:
            video = load_video(path, 32, 32, 5)
        except LyraError as refusal:
            with pytest.raises(LyraError, match=re.escape(str(refusal))):
                load_video(path, 32, 32, 5)
        else:
            assert bool(video.frames.isfinite().all())
            assert torch.equal(load_video(path, 32, 32, 5).frames, video.frames)


def test_without_its_package_the_way_to_install_it_is_named(tmp_path, monkeypatch):
    path = write_video(tmp_path / "clip.mp4", [quadrants()] * 3)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(LyraError, match=r"lyra\[video\]"):
        load_video(path, 32, 32, 5)


def test_a_phones_focal_length_gives_the_field_of_view(tmp_path):
    path = tmp_path / "clip.mov"
    with av.open(str(path), "w", options={"movflags": "use_metadata_tags"}) as container:
        container.metadata["com.apple.quicktime.camera.focal_length.35mm_equivalent"] = "26"
        stream = container.add_stream("mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for level in range(5):
            picture = np.ascontiguousarray(level_picture(40 * level))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    # 24 of 36 x 24 mm at 26 mm, since the picture is of the film's proportions.
    assert load_video(path, 32, 48, 5).fov_degrees == pytest.approx(49.55, abs=0.1)
    assert load_video(path, 32, 32, 5).fov_degrees == pytest.approx(49.55, abs=0.1)
