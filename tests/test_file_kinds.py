"""What a file is: raw photos, HEIC, pages of a TIFF, brands; and nothing of its reading ends in a traceback."""

import io
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from lyra.errors import LyraError
from lyra.files.kinds import is_video
from lyra.files.photos import load_photo

RED, BLUE = (200, 30, 30), (30, 30, 200)


def flat(color: tuple[int, int, int], size: tuple[int, int] = (64, 48)) -> Image.Image:
    return Image.new("RGB", size, color)


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)


def write_raw(path: Path, photometric: int = 32803, below: bool = True, dng: bool = False) -> Path:
    """A TIFF with a small picture on its first page and a sensor's values on its own, or on the next, page."""
    order = "<"
    small, sensor = bytes(16 * 12 * 3), bytes(64 * 48)

    def page(entries: list[tuple[int, int, int, int]], next_at: int) -> bytes:
        rows = b"".join(struct.pack(order + "HHII", *entry) for entry in sorted(entries))
        return struct.pack(order + "H", len(entries)) + rows + struct.pack(order + "I", next_at)

    first_count = 8 + int(below) + int(dng)
    first_at = 8
    second_at = first_at + 2 + 12 * first_count + 4
    data_at = second_at + 2 + 12 * 8 + 4
    first = [(254, 4, 1, 1), (256, 4, 1, 16), (257, 4, 1, 12), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 2)]
    first += [(273, 4, 1, data_at), (279, 4, 1, len(small))]
    first += [(330, 4, 1, second_at)] if below else []
    first += [(50706, 1, 4, 0x00000401)] if dng else []
    second = [
        (254, 4, 1, 0),
        (256, 4, 1, 64),
        (257, 4, 1, 48),
        (258, 3, 1, 8),
        (259, 3, 1, 1),
        (262, 3, 1, photometric),
    ]
    second += [(273, 4, 1, data_at + len(small)), (279, 4, 1, len(sensor))]
    body = page(first, 0 if below else second_at) + page(second, 0)
    path.write_bytes(b"II*\0" + struct.pack("<I", first_at) + body + small + sensor)
    return path


RAWS = {
    "nikon.nef": lambda path: write_raw(path),
    "sony.tif": lambda path: write_raw(path, below=False),
    "linear.tiff": lambda path: write_raw(path, photometric=34892),
    "adobe.dng": lambda path: write_raw(path, photometric=2, dng=True),
    "canon.cr2": lambda path: path.write_bytes(b"II*\0\x10\0\0\0CR\x02\0" + bytes(200)),
    "canon.cr3": lambda path: path.write_bytes(b"\0\0\0\x18ftypcrx \0\0\0\1crx isom" + bytes(200)),
    "fuji.raf": lambda path: path.write_bytes(b"FUJIFILMCCD-RAW 0201" + bytes(200)),
    "olympus.orf": lambda path: path.write_bytes(b"IIRO\x08\0\0\0" + bytes(200)),
    "panasonic.rw2": lambda path: path.write_bytes(b"IIU\0\x18\0\0\0" + bytes(200)),
    "sigma.x3f": lambda path: path.write_bytes(b"FOVb" + bytes(200)),
}


@pytest.mark.parametrize("name", RAWS)
def test_raw_photos_are_told_what_to_do(tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch):
    RAWS[name](tmp_path / name)
    assert not is_video(tmp_path / name)
    without(monkeypatch, "rawpy")
    with pytest.raises(LyraError, match=r"is a raw photo: pip install 'lyra\[photos\]' .*JPEG") as caught:
        load_photo(tmp_path / name, 32, 32)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["canon.cr2", "canon.cr3", "fuji.raf", "sigma.x3f"])
def test_a_damaged_raw_photo_is_one_line_with_its_package(tmp_path: Path, name: str):
    pytest.importorskip("rawpy", reason="needs the extra photos")
    RAWS[name](tmp_path / name)
    with pytest.raises(LyraError, match="raw photo that cannot be read: export it as JPEG"):
        load_photo(tmp_path / name, 32, 32)


def test_a_raw_photo_of_others_is_its_sensors_picture(faults: Path, monkeypatch: pytest.MonkeyPatch):
    path = faults / "raw_photos/photo.dng"
    with monkeypatch.context() as patch:
        without(patch, "rawpy")
        with pytest.raises(LyraError, match="raw photo"):
            load_photo(path, 32, 32)
    pytest.importorskip("rawpy", reason="needs the extra photos")
    photo = load_photo(path, 96, 128)
    assert photo.source_size == (400, 300) and photo.image.std() > 0.05
    assert "developed from its raw data" in photo.notes


def test_heic_is_read_with_its_package_and_told_without(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "phone.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    with monkeypatch.context() as patch:
        without(patch, "pillow_heif")
        with pytest.raises(LyraError, match=r"HEIC photo: pip install 'lyra\[photos\]' .*JPEG"):
            load_photo(path, 32, 32)
    heif = pytest.importorskip("pillow_heif", reason="needs the extra photos")
    with pytest.raises(LyraError, match="HEIC photo that cannot be read: convert"):
        load_photo(path, 32, 32)
    heif.from_pillow(flat(RED)).save(path, quality=95)
    photo = load_photo(path, 48, 64)
    assert photo.image[:, 24, 32].mul(255).tolist() == pytest.approx(RED, abs=6)
    assert not is_video(path)


def pages(path: Path, pictures: list[Image.Image], kinds: list[int], break_from: int | None = None) -> Path:
    """A TIFF of several pages with their NewSubfileType; later ones may be made unreadable."""
    infos = []
    for kind in kinds:
        info = TiffImagePlugin.ImageFileDirectory_v2()
        info[254] = kind
        infos.append(info)
    buffer = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(buffer, True) as writer:
        for picture, info in zip(pictures, infos, strict=True):
            picture.save(writer, format="TIFF", tiffinfo=info)
            writer.newFrame()
    data = bytearray(buffer.getvalue())
    if break_from is not None:
        image = Image.open(io.BytesIO(bytes(data)))
        at = None
        for _ in range(break_from):
            at = image.tag_v2.next  # pyright: ignore[reportAttributeAccessIssue]
            image.seek(image.tell() + 1)
        assert at
        data[at : at + 40] = b"\xff" * 40
    path.write_bytes(bytes(data))
    return path


def test_later_pages_are_never_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = pages(tmp_path / "a.tif", [flat(RED), flat(BLUE), flat(BLUE)], [0, 0, 0], break_from=1)
    photo = load_photo(path, 48, 64)
    assert photo.image[:, 24, 32].mul(255).tolist() == pytest.approx(RED, abs=2)
    assert "it has several pages: one was used" in photo.notes
    sought = []
    monkeypatch.setattr(TiffImagePlugin.TiffImageFile, "seek", lambda self, frame: sought.append(frame))
    load_photo(path, 48, 64)
    assert sought in ([], [0])


def test_a_later_page_of_others(faults: Path):
    photo = load_photo(faults / "later_tiff_page/pages_jp2.tif", 96, 128)
    assert photo.source_size == (128, 96) and photo.image.std() > 0.02


@pytest.mark.parametrize("first", [1, 4, 5])
def test_a_small_version_or_a_mask_is_not_taken_for_the_picture(tmp_path: Path, first: int):
    path = pages(tmp_path / "a.tif", [flat(BLUE, (32, 24)), flat(RED)], [first, 0])
    photo = load_photo(path, 48, 64)
    assert photo.source_size == (64, 48)
    assert photo.image[:, 24, 32].mul(255).tolist() == pytest.approx(RED, abs=2)
    alone = pages(tmp_path / "b.tif", [flat(BLUE)], [first])
    assert load_photo(alone, 48, 64).source_size == (64, 48)


def test_a_damaged_first_page_is_one_line(tmp_path: Path):
    path = pages(tmp_path / "a.tif", [flat(RED), flat(BLUE)], [0, 0])
    whole = path.read_bytes()
    for seed in range(40):
        generator, data = np.random.default_rng(seed), bytearray(whole)
        for at in generator.integers(4, 300, 12):
            data[at] = int(generator.integers(0, 256))
        path.write_bytes(data)
        try:
            load_photo(path, 32, 32)
        except LyraError as problem:
            assert "\n" not in str(problem)


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP"])
def test_a_damaged_later_frame_of_an_animation_does_no_harm(tmp_path: Path, kind: str):
    path = tmp_path / f"a.{kind.lower()}"
    flat(RED).save(path, kind, save_all=True, append_images=[flat(BLUE)] * 3)
    data = bytearray(path.read_bytes())
    if kind == "GIF":
        data[-30:-2] = b"\xff" * 28
    path.write_bytes(data)
    photo = load_photo(path, 48, 64)
    assert photo.image[:, 24, 32].mul(255).tolist() == pytest.approx(RED, abs=8)
    assert "an animation: its first frame was used" in photo.notes


def brands(major: bytes, *others: bytes) -> bytes:
    size = 16 + 4 * len(others)
    return struct.pack(">I", size) + b"ftyp" + major + bytes(4) + b"".join(others) + bytes(64)


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (brands(b"isom", b"iso2"), True),
        (brands(b"qt  "), True),
        (brands(b"XYZ1", b"mp42"), True),
        (brands(b"3gp4"), True),
        (brands(b"XYZ1", b"abcd"), False),
        (brands(b"heic", b"mif1"), False),
        (brands(b"mif1", b"heic"), False),
        (brands(b"avif", b"mif1"), False),
        (brands(b"heim", b"mif1"), False),
        (brands(b"crx ", b"isom"), False),
        (b"\0\0\0\x08wide\0\0\0\0mdat" + bytes(64), True),
    ],
)
def test_brands_tell_films_from_pictures(tmp_path: Path, head: bytes, expected: bool):
    (tmp_path / "file.bin").write_bytes(head)
    assert is_video(tmp_path / "file.bin") is expected


def test_a_container_of_an_unknown_kind_is_no_photo(tmp_path: Path):
    (tmp_path / "file.dat").write_bytes(brands(b"XYZ1", b"abcd"))
    with pytest.raises(LyraError, match="no photo that can be read"):
        load_photo(tmp_path / "file.dat", 32, 32)
