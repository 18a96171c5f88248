"""Photos of every kind become upright sRGB at the model's shape; everything else is a one-line LyraError."""

import hashlib
import io
import math
import os
import stat
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms, ImageFile

from lyra.errors import LyraError
from lyra.files.photos import Photo, load_photo

RED, GREEN, BLUE, GRAY = (230, 20, 20), (20, 200, 20), (20, 20, 230), (128, 128, 128)


def quadrants(width: int = 96, height: int = 64) -> Image.Image:
    """Red top left, green top right, blue bottom left, gray bottom right."""
    image = Image.new("RGB", (width, height), GRAY)
    image.paste(RED, (0, 0, width // 2, height // 2))
    image.paste(GREEN, (width // 2, 0, width, height // 2))
    image.paste(BLUE, (0, height // 2, width // 2, height))
    return image


def corners(photo: Photo) -> torch.Tensor:
    """Colors (0 to 255) at the middles of the quadrants: top left, top right, bottom left, bottom right."""
    height, width = photo.image.shape[1:]
    rows, columns = (height // 4, 3 * height // 4), (width // 4, 3 * width // 4)
    return torch.stack([photo.image[:, v, u] for v in rows for u in columns]) * 255


def assert_quadrants(photo: Photo, tolerance: float = 4.0) -> None:
    expected = torch.tensor([RED, GREEN, BLUE, GRAY], dtype=torch.float32)
    torch.testing.assert_close(corners(photo), expected, atol=tolerance, rtol=0)


def noise_jpeg(width: int = 320, height: int = 240, **options) -> bytes:
    pixels = np.random.default_rng(0).integers(0, 255, (height, width, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("size", [(1000, 400), (400, 1000), (512, 512), (20, 16), (129, 128)])
@pytest.mark.parametrize(("height", "width"), [(128, 128), (48, 80), (70, 32)])
def test_any_shape_is_centre_cropped_never_squashed(tmp_path, size, height, width):
    path = tmp_path / "photo.png"
    quadrants(*size).save(path)
    photo = load_photo(path, height, width)
    left, top, right, bottom = photo.crop
    assert photo.image.shape == (3, height, width)
    assert photo.image.min() >= 0 and photo.image.max() <= 1
    assert photo.source_size == size
    assert abs(left - (size[0] - right)) <= 1 and abs(top - (size[1] - bottom)) <= 1
    assert right - left == size[0] or bottom - top == size[1]
    scales = ((right - left) / width, (bottom - top) / height)
    assert scales[0] == pytest.approx(scales[1], abs=0.5 / min(height, width) + 1e-9)
    assert photo.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_notes_say_what_happened(tmp_path):
    quadrants(2000, 1333).save(tmp_path / "wide.png")
    photo = load_photo(tmp_path / "wide.png", 128, 128)
    assert photo.notes == ("centre-cropped 2000x1333 to 1333x1333 (model shape 128x128)",)
    quadrants(32, 32).save(tmp_path / "small.png")
    assert "enlarged from 32x32" in load_photo(tmp_path / "small.png", 128, 128).notes[0]
    quadrants(128, 128).save(tmp_path / "same.png")
    assert load_photo(tmp_path / "same.png", 128, 128).notes == ()


def test_fine_patterns_average_out_instead_of_aliasing(tmp_path):
    checker = (np.indices((1024, 1024)).sum(0) % 2 * 255).astype(np.uint8)
    Image.fromarray(checker).save(tmp_path / "checker.png")
    image = load_photo(tmp_path / "checker.png", 96, 96).image
    assert (image - 0.5).abs().max() < 0.02


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    image = quadrants()
    stored = image.transpose(undo[orientation]) if orientation in undo else image
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    stored.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    photo = load_photo(tmp_path / "photo.jpg", 64, 96)
    assert photo.source_size == (96, 64)
    assert_quadrants(photo)
    assert ("turned upright by its EXIF orientation" in photo.notes) == (orientation > 1)


@pytest.mark.parametrize("mode", ["L", "LA", "P", "1", "RGBA", "PA", "CMYK", "YCbCr"])
def test_pixel_modes(tmp_path, mode):
    suffix = {"CMYK": "jpg", "YCbCr": "jpg", "PA": "tiff"}.get(mode, "png")
    path = tmp_path / f"photo.{suffix}"
    image = Image.new("RGB", (64, 64), "black")
    image.paste("white", (32, 0, 64, 64))
    if mode == "PA":
        image = image.convert("P")
    image.convert(mode).save(path)
    photo = load_photo(path, 64, 64)
    assert photo.image[:, :, :30].max() < 0.05
    assert photo.image[:, :, 34:].min() > 0.95


def test_sixteen_bit_keeps_its_gray_levels(tmp_path):
    ramp = np.tile(np.linspace(0, 65535, 64).astype(np.uint16), (64, 1))
    for name in ("photo.png", "photo.tiff"):
        Image.fromarray(ramp).save(tmp_path / name)
        row = load_photo(tmp_path / name, 64, 64).image[0, 10]
        torch.testing.assert_close(row, torch.linspace(0, 1, 64), atol=0.005, rtol=0)


def test_float_pictures(tmp_path):
    values = np.full((32, 32), 0.25, dtype=np.float32)
    Image.fromarray(values).save(tmp_path / "photo.tiff")
    assert load_photo(tmp_path / "photo.tiff", 32, 32).image.mean() == pytest.approx(0.25, abs=0.002)
    values[3, 4] = float("nan")
    Image.fromarray(values).save(tmp_path / "nan.tiff")
    with pytest.raises(LyraError, match="NaN"):
        load_photo(tmp_path / "nan.tiff", 32, 32)


def test_transparency_is_laid_over_white(tmp_path):
    image = quadrants(64, 64).convert("RGBA")
    image.paste((0, 0, 0, 0), (0, 0, 32, 32))
    image.paste((0, 0, 0, 128), (32, 32, 64, 64))
    image.save(tmp_path / "photo.png")
    photo = load_photo(tmp_path / "photo.png", 64, 64)
    seen = corners(photo)
    assert seen[0].min() > 254
    torch.testing.assert_close(seen[1], torch.tensor(GREEN).float(), atol=2, rtol=0)
    assert seen[3] == pytest.approx([127] * 3, abs=2)
    assert "transparent parts were laid over white" in photo.notes


def test_transparent_palette(tmp_path):
    image = Image.new("P", (32, 32), 1)
    image.putpalette([0, 0, 0, 200, 10, 10])
    image.paste(0, (0, 0, 16, 32))
    image.save(tmp_path / "photo.gif", transparency=0)
    photo = load_photo(tmp_path / "photo.gif", 32, 32)
    assert photo.image[:, :, :14].min() > 0.99
    assert photo.image[0, 16, 24] == pytest.approx(200 / 255, abs=0.02)


def test_animation_uses_its_first_frame(tmp_path):
    frames = [Image.new("RGB", (32, 32), color) for color in (RED, GREEN)]
    frames[0].save(tmp_path / "photo.webp", save_all=True, append_images=frames[1:], lossless=True)
    photo = load_photo(tmp_path / "photo.webp", 32, 32)
    assert "an animation: its first frame was used" in photo.notes
    assert photo.image[:, 16, 16] * 255 == pytest.approx(RED, abs=2)


def test_color_profiles(tmp_path):
    image = quadrants()
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.save(tmp_path / "same.png", icc_profile=srgb)
    assert_quadrants(load_photo(tmp_path / "same.png", 64, 96), tolerance=1)
    image.save(tmp_path / "broken.png", icc_profile=b"not a profile")
    photo = load_photo(tmp_path / "broken.png", 64, 96)
    assert_quadrants(photo, tolerance=1)
    assert "its color profile is damaged and was ignored" in photo.notes
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    image.save(tmp_path / "other.png", icc_profile=lab)  # a profile of another color space does not fit
    assert_quadrants(load_photo(tmp_path / "other.png", 64, 96), tolerance=1)


def test_a_profile_with_swapped_primaries_swaps_colors(tmp_path):
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    count = int.from_bytes(profile[128:132], "big")
    entries = [132 + 12 * i for i in range(count)]
    offsets = {bytes(profile[e : e + 4]): int.from_bytes(profile[e + 4 : e + 8], "big") for e in entries}
    red, blue = offsets[b"rXYZ"], offsets[b"bXYZ"]
    profile[red : red + 20], profile[blue : blue + 20] = profile[blue : blue + 20], profile[red : red + 20]
    name = bytes(profile).find("sRGB".encode("utf-16-be"))
    profile[name : name + 8] = "test".encode("utf-16-be")  # a profile that calls itself sRGB is believed
    Image.new("RGB", (32, 32), (255, 0, 0)).save(tmp_path / "photo.png", icc_profile=bytes(profile))
    photo = load_photo(tmp_path / "photo.png", 32, 32)
    assert photo.image[:, 16, 16].tolist() == pytest.approx([0, 0, 1], abs=0.02)
    assert "colors were converted from its embedded profile to sRGB" in photo.notes


def save_with_exif(path: Path, size: tuple[int, int], **tags) -> None:
    exif = Image.Exif()
    shot = exif.get_ifd(ExifTags.IFD.Exif)
    shot.update({ExifTags.Base[name]: value for name, value in tags.items()})
    quadrants(*size).save(path, exif=exif)


def test_field_of_view_from_35mm_equivalent(tmp_path):
    path = tmp_path / "photo.jpg"
    save_with_exif(path, (300, 200), FocalLengthIn35mmFilm=24)
    # A 3:2 photo is a whole 36x24 mm frame; a square crop of it spans its 24 mm.
    expected = math.degrees(2 * math.atan(12 / 24))
    assert load_photo(path, 64, 64).fov_degrees == pytest.approx(expected, abs=0.01)
    assert load_photo(path, 64, 96).fov_degrees == pytest.approx(expected, abs=0.01)
    # A crop of 2:1 keeps the width, so its shorter side spans less than 24 mm.
    expected = math.degrees(2 * math.atan(9 / 24))
    assert load_photo(path, 64, 128).fov_degrees == pytest.approx(expected, abs=0.01)


def test_field_of_view_from_sensor_resolution(tmp_path):
    tags = {"FocalLength": 50.0, "FocalPlaneXResolution": 4000 / 3.6, "FocalPlaneResolutionUnit": 3}
    save_with_exif(tmp_path / "photo.jpg", (300, 200), ExifImageWidth=4000, ExifImageHeight=2667, **tags)
    fov = load_photo(tmp_path / "photo.jpg", 64, 64).fov_degrees
    assert fov == pytest.approx(math.degrees(2 * math.atan(12 / 50)), abs=0.05)


def test_unknown_or_implausible_field_of_view(tmp_path):
    quadrants().save(tmp_path / "plain.png")
    assert load_photo(tmp_path / "plain.png", 64, 64).fov_degrees is None
    save_with_exif(tmp_path / "zero.jpg", (96, 64), FocalLengthIn35mmFilm=0, FocalLength=4.2)
    assert load_photo(tmp_path / "zero.jpg", 64, 64).fov_degrees is None
    save_with_exif(tmp_path / "tele.jpg", (96, 64), FocalLengthIn35mmFilm=2000)
    photo = load_photo(tmp_path / "tele.jpg", 64, 64)
    assert photo.fov_degrees is None
    assert "was ignored" in photo.notes[-1]


def test_broken_exif_does_not_cost_the_photo(tmp_path):
    quadrants().save(tmp_path / "photo.jpg", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff garbage", quality=95)
    assert_quadrants(load_photo(tmp_path / "photo.jpg", 64, 96))


def assert_refused(path: Path, words: str) -> None:
    with pytest.raises(LyraError, match=words) as caught:
        load_photo(path, 64, 64)
    message = str(caught.value)
    assert "\n" not in message and path.name in message and len(message) - len(str(path)) < 100


def test_files_that_are_no_photo(tmp_path):
    assert_refused(tmp_path / "nothing.jpg", "does not exist")
    assert_refused(tmp_path, "is a folder")
    for name, data, words in [
        ("empty.jpg", b"", "is empty"),
        ("text.jpg", b"these are words, not pixels\n" * 40, "no photo"),
        ("page.svg", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no photo"),
        (
            "clip.jpg",
            b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41",
            "video where a photo is expected",
        ),
        ("clip.mkv", b"\x1aE\xdf\xa3" + bytes(60), "video"),
        ("phone.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC.*convert"),
        ("bits.png", b"\x89PNG\r\n\x1a\n" + bytes(50), "no photo|damaged"),
    ]:
        (tmp_path / name).write_bytes(data)
        assert_refused(tmp_path / name, words)


@pytest.mark.parametrize("size", [(1, 1), (15, 400), (20_000, 10)])
def test_too_small(tmp_path, size):
    Image.new("RGB", size).save(tmp_path / "photo.png")
    assert_refused(tmp_path / "photo.png", "shorter side is too small")


def test_too_elongated(tmp_path):
    Image.new("RGB", (400, 40)).save(tmp_path / "photo.png")
    assert_refused(tmp_path / "photo.png", "more than 8:1")


def test_decompression_bombs_are_refused_before_decoding(tmp_path):
    for size in [(13_400, 13_400), (30_000, 30_000)]:
        Image.new("1", size).save(tmp_path / "photo.png")
        assert_refused(tmp_path / "photo.png", "too many")


@pytest.mark.parametrize("kept", [0.3, 0.8, 0.98])
@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("tolerant", [False, True])
def test_truncated_jpeg_is_detected(tmp_path, monkeypatch, kept, progressive, tolerant):
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", tolerant)
    data = noise_jpeg(progressive=progressive)
    cut = int(kept * len(data))
    (tmp_path / "cut.jpg").write_bytes(data[:cut])
    assert_refused(tmp_path / "cut.jpg", "damaged or incomplete")
    (tmp_path / "zeros.jpg").write_bytes(data[:cut] + bytes(len(data) - cut))
    assert_refused(tmp_path / "zeros.jpg", "damaged or incomplete")
    assert ImageFile.LOAD_TRUNCATED_IMAGES is tolerant


@pytest.mark.parametrize("suffix", ["png", "webp", "gif", "tiff"])
def test_other_truncated_formats_are_detected(tmp_path, suffix):
    path = tmp_path / f"photo.{suffix}"
    Image.open(io.BytesIO(noise_jpeg())).save(path)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert_refused(path, "damaged or incomplete|no photo")


def test_a_jpeg_with_bytes_after_its_end_is_fine(tmp_path):
    buffer = io.BytesIO()
    quadrants().save(buffer, "JPEG", quality=95)
    (tmp_path / "photo.jpg").write_bytes(buffer.getvalue() + b"\xff\xda motion photo")
    assert_quadrants(load_photo(tmp_path / "photo.jpg", 64, 96))


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may read everything")
def test_no_permission(tmp_path):
    quadrants().save(tmp_path / "photo.png")
    (tmp_path / "photo.png").chmod(stat.S_IWUSR)
    assert_refused(tmp_path / "photo.png", "no permission")


def test_no_permission_is_explained(tmp_path, monkeypatch):
    quadrants().save(tmp_path / "photo.png")

    def refuse(*_args, **_kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", refuse)
    assert_refused(tmp_path / "photo.png", "no permission")


@pytest.mark.parametrize("name", ["house_indoor.jpg", "pagoda.png", "restaurant.jpg"])
def test_real_photos(name):
    path = Path(os.environ.get("LYRA_MEDIA", Path(__file__).parents[1] / "../shared/media")) / name
    if not path.exists():
        pytest.skip(f"{path} is missing: set LYRA_MEDIA to the folder of real photos")
    photo = load_photo(path, 128, 128)
    assert photo.image.shape == (3, 128, 128)
    assert photo.image.std() > 0.1
