"""Files are written whole or not at all, byte for byte alike, and read back; foreign ones are judged."""

import errno
import os
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lyra import files as formats
from lyra.errors import LyraError
from lyra.files import images
from lyra.geometry.gaussians import Gaussians


def random_gaussians(count: int = 100, seed: int = 0) -> Gaussians:
    generator = torch.Generator().manual_seed(seed)
    quaternions = torch.randn(count, 4, generator=generator)
    return Gaussians(
        means=torch.randn(count, 3, generator=generator),
        scales=torch.rand(count, 3, generator=generator) * 0.1 + 1e-4,
        quaternions=torch.nn.functional.normalize(quaternions, dim=-1),
        opacities=torch.rand(count, generator=generator),
        colors=torch.rand(count, 3, generator=generator),
    )


def left_behind(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# ---- write_atomically ----


def test_atomic_write_replaces_and_makes_folders(tmp_path):
    path = tmp_path / "new" / "folder" / "file.txt"
    for text in ("one", "two"):
        with formats.write_atomically(path) as temporary:
            assert temporary.parent == path.parent and temporary != path
            temporary.write_text(text)
        assert path.read_text() == text
    assert left_behind(path.parent) == ["file.txt"]


def test_a_failure_keeps_the_old_file(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")
    for error in (RuntimeError("ours"), KeyboardInterrupt(), LyraError("user's")):
        with pytest.raises(type(error)), formats.write_atomically(path) as temporary:
            temporary.write_text("half")
            raise error
    assert path.read_text() == "old"
    assert left_behind(tmp_path) == ["file.txt"]


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "no space left"),
        (errno.EACCES, "no permission"),
        (errno.EROFS, "read-only"),
        (errno.EIO, "/output"),
    ],
)
def test_system_errors_are_explained(tmp_path, number, words):
    path = tmp_path / "file.txt"
    with pytest.raises(LyraError, match=words) as caught, formats.write_atomically(path) as temporary:
        temporary.write_text("half")
        raise OSError(number, os.strerror(number))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)
    assert left_behind(tmp_path) == []


def test_impossible_places(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "file" / "x.png", tmp_path / "folder", tmp_path / ("n" * 300)):
        with pytest.raises(LyraError, match="cannot write"):
            formats.save_image(torch.zeros(3, 4, 4), path)
    assert left_behind(tmp_path) == ["file", "folder"]


def write_tensors(path: Path) -> None:
    formats.save_tensors({"zeros": torch.zeros(1 << 20)}, path)


def write_splats(path: Path) -> None:
    formats.save_ply(random_gaussians(50_000), path)


def write_video(path: Path) -> None:
    formats.save_video(np.random.default_rng(0).integers(0, 255, (8, 3, 480, 640), dtype=np.uint8), path, 8)


@pytest.mark.parametrize("write", [write_tensors, write_splats, write_video])
def test_a_really_full_disk(write, tmp_path, monkeypatch):
    """/dev/full fails every write with ENOSPC, here below a temporary path that points to it."""
    if not Path("/dev/full").exists():
        pytest.skip("/dev/full is missing on this system")

    def point_to_full(path: Path, name: str) -> Path:
        temporary = path.parent / name
        os.symlink("/dev/full", temporary)
        return temporary

    monkeypatch.setattr(Path, "with_name", point_to_full)
    if write is write_video:
        pytest.importorskip("av")
    with pytest.raises(LyraError, match="no space left"):
        write(tmp_path / "out")
    assert left_behind(tmp_path) == []


def test_sha256(tmp_path):
    (tmp_path / "abc").write_bytes(b"abc")
    assert formats.sha256_file(tmp_path / "abc").startswith("ba7816bf8f01cfea414140de5dae2223")
    with pytest.raises(LyraError, match="does not exist"):
        formats.sha256_file(tmp_path / "nothing")


# ---- images and videos ----


def test_image_round_trip(tmp_path):
    image = torch.rand(3, 5, 7, generator=torch.Generator().manual_seed(0))
    formats.save_image(image, tmp_path / "image.png")
    loaded = formats.load_image(tmp_path / "image.png")
    torch.testing.assert_close(loaded, image, atol=0.5 / 255 + 1e-6, rtol=0)
    formats.save_image(loaded, tmp_path / "again.png")
    assert (tmp_path / "image.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    formats.save_image(image * 3 - 1, tmp_path / "clamped.png")
    assert formats.load_image(tmp_path / "clamped.png").max() == 1


def test_bad_images(tmp_path):
    path = tmp_path / "image.png"
    Image.new("RGB", (64, 64), "red").save(path)
    data = path.read_bytes()
    for content in (b"words", data[: len(data) // 2], b""):
        path.write_bytes(content)
        with pytest.raises(LyraError, match="no image or damaged"):
            formats.load_image(path)
    with pytest.raises(LyraError, match="does not exist"):
        formats.load_image(tmp_path / "nothing.png")
    with pytest.raises(ValueError, match="NaN"):
        formats.save_image(torch.full((3, 4, 4), float("nan")), path)


def color_bars(time: int, height: int, width: int) -> np.ndarray:
    """Eight saturated bars that move by two pixels a frame."""
    bits = (np.arange(width) * 8 // width)[None] >> np.arange(3)[:, None] & 1
    bars = np.broadcast_to((bits * 255).astype(np.uint8)[:, None], (3, height, width))
    return np.stack([np.roll(bars, 2 * t, axis=2) for t in range(time)])


@pytest.mark.parametrize("size", [(48, 64), (47, 63)])
def test_video_reads_back(tmp_path, size):
    av = pytest.importorskip("av")
    frames = color_bars(6, *size)
    formats.save_video(frames, tmp_path / "clip.mp4", 24)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
        assert (stream.height, stream.width) == (48, 64)
        assert stream.average_rate == 24
        assert stream.codec_context.color_range == 1
        assert stream.codec_context.colorspace == 1
        assert stream.codec_context.color_primaries == 1 and stream.codec_context.color_trc == 1
        decoded = list(container.decode(video=0))
    assert [frame.pts * frame.time_base * 24 for frame in decoded] == list(range(6))
    for frame, expected in zip(decoded, frames, strict=True):
        pixels = frame.to_ndarray(format="rgb24").transpose(2, 0, 1).astype(float)
        padded = np.pad(expected, [(0, 0), (0, 48 - size[0]), (0, 64 - size[1])], mode="edge").astype(float)
        # Subsampled chroma bleeds over the edges between bars; the middles of bars are right.
        assert np.median(np.abs(pixels - padded)) < 4
        assert np.abs(pixels - padded).mean() < 20


def test_video_levels_are_bt709():
    """White, black and the primaries against the values of ITU-R BT.709 in limited range."""
    colors = np.array([[255, 0, 255, 0, 0], [255, 0, 0, 255, 0], [255, 0, 0, 0, 255]], dtype=np.uint8)
    expected = [(235, 128, 128), (16, 128, 128), (63, 102, 240), (173, 42, 26), (32, 240, 118)]
    for color, levels in zip(colors.T, expected, strict=True):
        planes = images.to_yuv420(np.tile(color[:, None, None], (1, 2, 2)))
        assert planes.shape == (3, 2)
        assert (planes[0, 0], planes[2, 0], planes[2, 1]) == levels


def test_video_bytes_are_the_same_every_time(tmp_path):
    pytest.importorskip("av")
    frames = torch.rand(12, 3, 64, 80, generator=torch.Generator().manual_seed(1))
    formats.save_video(frames, tmp_path / "a.mp4", 12)
    code = (
        "import sys, torch, lyra.files as f; from pathlib import Path; "
        "frames = torch.rand(12, 3, 64, 80, generator=torch.Generator().manual_seed(1)); "
        "f.save_video(frames, Path(sys.argv[1]), 12)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "b.mp4")], check=True)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_video_refuses(tmp_path):
    pytest.importorskip("av")
    with pytest.raises(ValueError, match="at least one frame"):
        formats.save_video(torch.zeros(0, 3, 16, 16), tmp_path / "clip.mp4", 12)
    frames = torch.zeros(3, 3, 16, 16)
    frames[2, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="NaN"):
        formats.save_video(frames, tmp_path / "clip.mp4", 12)
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("fps", [0, -1, 1e-9])
def test_video_needs_a_frame_rate(tmp_path, fps):
    pytest.importorskip("av")
    with pytest.raises(ValueError, match="frames per second"):
        formats.save_video(torch.zeros(2, 3, 16, 16), tmp_path / "clip.mp4", fps)
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize("kind", ["floats", "bytes"])
def test_video_of_frames_one_after_another_is_that_of_all_at_once(tmp_path, kind):
    pytest.importorskip("av")
    frames = torch.rand(4, 3, 17, 18, generator=torch.Generator().manual_seed(2))
    whole = frames if kind == "floats" else (frames * 255).round().to(torch.uint8).numpy()
    formats.save_video(whole, tmp_path / "whole.mp4", 12)
    formats.save_video((frame for frame in whole), tmp_path / "each.mp4", 12)
    assert (tmp_path / "whole.mp4").read_bytes() == (tmp_path / "each.mp4").read_bytes()
    with pytest.raises(ValueError, match="at least one frame"):
        formats.save_video(iter(()), tmp_path / "none.mp4", 12)


def test_video_with_a_colon_in_a_relative_name(tmp_path, monkeypatch):
    pytest.importorskip("av")
    monkeypatch.chdir(tmp_path)
    formats.save_video(torch.zeros(2, 3, 16, 16), Path("2024-05-01T12:30:15.mp4"), 12)
    assert left_behind(tmp_path) == ["2024-05-01T12:30:15.mp4"]


def test_video_without_pyav_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(LyraError, match=r"lyra\[video\]"):
        formats.save_video(torch.zeros(1, 3, 16, 16), tmp_path / "clip.mp4", 12)


# ---- tensors ----


def test_tensors_round_trip(tmp_path):
    tensors = {
        "half": torch.randn(3, 5).bfloat16(),
        "byte": torch.arange(7, dtype=torch.uint8),
        "flag": torch.tensor([True, False, True]),
        "transposed": torch.randn(4, 6).T,
        "scalar": torch.tensor(3.5, dtype=torch.float64),
        "empty": torch.zeros(0, 2),
        "long": torch.tensor([1, -1]),
    }
    formats.save_tensors(tensors, tmp_path / "a.safetensors")
    loaded = formats.load_tensors(tmp_path / "a.safetensors")
    assert loaded.keys() == tensors.keys()
    for name, tensor in tensors.items():
        assert loaded[name].dtype == tensor.dtype and torch.equal(loaded[name], tensor)
    formats.save_tensors(dict(reversed(tensors.items())), tmp_path / "b.safetensors")
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_damaged_tensors(tmp_path):
    path = tmp_path / "clip.safetensors"
    formats.save_tensors({"x": torch.ones(100)}, path)
    data = path.read_bytes()
    huge = struct.pack("<Q", 1 << 60) + data[8:]
    for content in (b"", b"words", data[:-1], data[:40], huge, data.replace(b"F32", b"X32")):
        path.write_bytes(content)
        with pytest.raises(LyraError, match=r"clip\.safetensors is damaged"):
            formats.load_tensors(path)
    with pytest.raises(LyraError, match="does not exist"):
        formats.load_tensors(tmp_path / "nothing.safetensors")
