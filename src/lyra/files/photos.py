"""What a user hands in: photos of any kind, brought to the model's shape.

A photo is never squashed: it is turned upright, cropped around its centre to the model's aspect ratio and
resampled. Everything a user can get wrong ends as a one-line :class:`~lyra.errors.LyraError`.
"""

import hashlib
import io
import math
import struct
import warnings
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import ExifTags, Image, ImageCms, ImageFile, ImageOps
from torch import Tensor

from lyra.errors import LyraError
from lyra.files.poses import load_posed_images
from lyra.geometry.cameras import Cameras

SMALLEST_SIDE = 16
"""Pixels below which a photo holds nothing to reconstruct."""
LARGEST_ASPECT = 8.0
"""Longer over shorter side; beyond it a centre crop would show a meaningless part."""
LARGEST_PIXELS = 178_000_000
"""More is refused before decoding (a decompression bomb, or a file that would not fit in memory)."""
LARGEST_BYTES = 1 << 30
PLAUSIBLE_FOV = (5.0, 150.0)
"""Degrees; a field of view outside is taken for a mistake in the EXIF data."""
DIAGONAL_35MM = math.hypot(36.0, 24.0)
"""Diagonal of a 35 mm frame in mm, to which "35 mm equivalent" focal lengths refer (CIPA DCG-001)."""

# A closed list: other Pillow plugins are rare, and some start external programs (EPS). MPO, a phone's JPEG
# with extra pictures, opens through JPEG.
PHOTO_FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "PPM", "JPEG2000")
_STILL_BRANDS = {b"avif", b"avis", b"heic", b"heix", b"heif", b"mif1", b"msf1", b"hevc"}
_VIDEO_SUFFIXES = {
    ".mp4",
    ".mov",
    ".mkv",
    ".webm",
    ".avi",
    ".m4v",
    ".mpg",
    ".mpeg",
    ".wmv",
    ".ts",
    ".mts",
    ".m2ts",
    ".3gp",
    ".flv",
    ".ogv",
}
_DECODING_ERRORS = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError),
    *(struct.error, zlib.error),
)


@dataclass(frozen=True)
class Photo:
    """A photo at the model's shape, and what was done to it."""

    image: Float[Tensor, "3 height width"]
    """Upright, display-referred sRGB in [0, 1]."""
    fov_degrees: float | None
    """Field of view of the shorter side of the crop, from EXIF; None when unknown or implausible."""
    source_size: tuple[int, int]
    """Width and height of the upright photo in pixels."""
    crop: tuple[int, int, int, int]
    """Left, top, right, bottom of the part used, in pixels of the upright photo."""
    sha256: str
    """Hex digest of the file."""
    notes: tuple[str, ...]
    """What a user may want to know, one sentence each."""

    @classmethod
    def of(cls, image: Float[Tensor, "3 height width"]) -> "Photo":
        """A picture in [0, 1] as if it had been read from a file."""
        height, width = image.shape[1:]
        return cls(image, None, (width, height), (0, 0, width, height), "", ())


def load_photo(path: Path, height: int, width: int) -> Photo:
    """Reads a photo and brings it to ``height`` x ``width`` pixels.

    EXIF rotation is applied, transparency is laid over white, embedded color profiles are converted to sRGB,
    and of an animation the first frame is taken.

    Raises:
        LyraError: The file is missing, unreadable, no photo, damaged, too small, too elongated or too large.
    """
    path = Path(path)
    data = _read(path)
    notes: list[str] = []
    # Pillow reports odd metadata as warnings; they are of no use to someone who wants a scene.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        opened = _open(path, data)
        _check_size(path, opened.size)
        if getattr(opened, "n_frames", 1) > 1 and opened.format != "MPO":
            notes.append("an animation: its first frame was used")
        focal = _focal_in_pixels(opened)
        upright = _decode(path, opened, notes)
        rgb = _to_srgb(path, upright, notes)
    crop = centre_crop(rgb.size, height, width)
    crop_size = (crop[2] - crop[0], crop[3] - crop[1])
    notes += _describe_fit(rgb.size, crop_size, height, width)
    resized = rgb.resize((width, height), Image.Resampling.LANCZOS, box=crop, reducing_gap=3.0)
    pixels = torch.from_numpy(np.asarray(resized, dtype=np.float32) / 255)
    return Photo(
        image=pixels.permute(2, 0, 1).contiguous(),
        fov_degrees=_plausible_fov(focal, min(crop_size), notes),
        source_size=rgb.size,
        crop=crop,
        sha256=hashlib.sha256(data).hexdigest(),
        notes=tuple(notes),
    )


def load_posed_photos(path: Path, height: int, width: int) -> tuple[list[Photo], Cameras]:
    """The photos that a camera file names, and their cameras, at ``height`` x ``width`` pixels.

    Raises:
        LyraError: the file or a photo is missing or unusable.
    """
    paths, cameras = load_posed_images(path, height, width)
    return [load_photo(photo, height, width) for photo in paths], cameras


def _read(path: Path) -> bytes:
    """The file's bytes, after the checks that need no decoding."""
    try:
        if path.is_dir():
            raise LyraError(f"{path} is a folder: give one photo (JPEG, PNG, WebP or TIFF)")
        size = path.stat().st_size
        if size == 0:
            raise LyraError(f"{path} is empty: export or download the photo again")
        with path.open("rb") as file:
            head = file.read(32)
            if _has_video_head(path, head):
                raise LyraError(f"{path} is a video where a photo is expected: give one photo")
            if _is_heic(head):
                raise LyraError(f"{path} is a HEIC photo, which cannot be read: convert it to JPEG or PNG")
            if size > LARGEST_BYTES:
                raise LyraError(f"{path} has {size / 2**30:.1f} GiB, too much for a photo: export it as JPEG")
            return head + file.read()
    except FileNotFoundError:
        raise LyraError(f"{path} does not exist: check the path") from None
    except PermissionError:
        raise LyraError(f"{path} cannot be read: no permission (chmod +r, or copy it)") from None
    except OSError as error:
        raise LyraError(f"{path} cannot be read: {error.strerror or error}") from error


def is_video(path: Path) -> bool:
    """Whether a file is a video, by its content or else its suffix; False where it cannot be read."""
    try:
        with path.open("rb") as file:
            return _has_video_head(path, file.read(32))
    except OSError:
        return False


def _has_video_head(path: Path, head: bytes) -> bool:
    """By content, so that a video under another name is told apart; by suffix for the rest."""
    if head[4:8] == b"ftyp":
        return head[8:12] not in _STILL_BRANDS
    if head.startswith(b"\x1aE\xdf\xa3") or (head.startswith(b"RIFF") and head[8:12] == b"AVI "):
        return True
    return path.suffix.lower() in _VIDEO_SUFFIXES


def _is_heic(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and head[8:12] not in (b"avif", b"avis") and b"avif" not in head[16:]


def _open(path: Path, data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=PHOTO_FORMATS)
    except Image.DecompressionBombError:
        raise LyraError(f"{path} has too many pixels: scale it below {LARGEST_PIXELS // 10**6} MP") from None
    except _DECODING_ERRORS:
        raise LyraError(f"{path} is no photo that can be read: give a JPEG, PNG, WebP or TIFF") from None


def _check_size(path: Path, size: tuple[int, int]) -> None:
    shape = f"{size[0]}x{size[1]}"
    if min(size) < SMALLEST_SIDE:
        raise LyraError(f"{path} is {shape} pixels, the shorter side is too small: give at least {SMALLEST_SIDE}")
    if max(size) > LARGEST_ASPECT * min(size):
        raise LyraError(f"{path} is {shape} pixels, more than {LARGEST_ASPECT:.0f}:1: crop it first")
    if size[0] * size[1] > LARGEST_PIXELS:
        raise LyraError(f"{path} is {shape} pixels, too many: scale it below {LARGEST_PIXELS // 10**6} MP")


def _decode(path: Path, image: Image.Image, notes: list[str]) -> Image.Image:
    """All pixels, upright. A file that ends early is an error, never a half-grey picture."""
    damaged = f"{path} is damaged or incomplete: export or download the photo again"
    # Another library in the process may have switched Pillow to filling what is missing with grey.
    tolerant, ImageFile.LOAD_TRUNCATED_IMAGES = ImageFile.LOAD_TRUNCATED_IMAGES, False
    try:
        if image.format in ("JPEG", "MPO") and not _has_end_marker(image.fp.getvalue()):  # pyright: ignore
            raise LyraError(damaged)
        image.load()
    except MemoryError:
        raise LyraError(f"{path} does not fit in memory: scale it down first") from None
    except _DECODING_ERRORS:
        raise LyraError(damaged) from None
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = tolerant
    try:
        orientation = image.getexif().get(ExifTags.Base.Orientation, 1)
        upright = ImageOps.exif_transpose(image)
    except _DECODING_ERRORS:  # broken EXIF does not make the pixels unusable
        notes.append("its EXIF data is damaged and was ignored")
        return image
    if orientation in range(2, 9):
        notes.append("turned upright by its EXIF orientation")
    return upright


def _has_end_marker(data: bytes) -> bool:
    """Whether a JPEG's entropy-coded data is followed by an end-of-image marker.

    An interrupted download into a preallocated file is padded with zeros, which decode to grey without error.
    Segments are skipped by their lengths because the EXIF thumbnail holds an end marker of its own.
    """
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:  # fill byte
            position += 1
        elif marker == 0xDA:
            return data.find(b"\xff\xd9", position) >= 0
        elif marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without a length
            position += 2
        else:
            position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return b"\xff\xd9" in data[position:]


def _to_srgb(path: Path, image: Image.Image, notes: list[str]) -> Image.Image:
    """8-bit sRGB, transparency over white."""
    profile = image.info.get("icc_profile")
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _to_8_bit(path, image)
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = image.getchannel("A")
        image = image.convert("RGB")
    if image.mode not in ("L", "RGB", "CMYK"):
        image = image.convert("L" if image.mode == "1" else "RGB")
    rgb = _apply_profile(image, profile, notes) if profile else image.convert("RGB")
    if alpha is None or alpha.getextrema() == (255, 255):
        return rgb
    notes.append("transparent parts were laid over white")
    return Image.composite(rgb, Image.new("RGB", rgb.size, "white"), alpha)


def _to_8_bit(path: Path, image: Image.Image) -> Image.Image:
    """Gray levels of 16 bits, or floats in [0, 1], as 8 bits."""
    values = np.asarray(image).astype(np.float64)
    top = 1.0 if image.mode == "F" else 65535.0
    if not np.isfinite(values).all() or values.min() < 0 or values.max() > top:
        raise LyraError(f"{path} holds values outside [0, {top:g}] or NaN: export it as 8-bit PNG or JPEG")
    return Image.fromarray(np.rint(values * (255 / top)).astype(np.uint8))


def _apply_profile(image: Image.Image, profile: bytes, notes: list[str]) -> Image.Image:
    """Converts from the embedded ICC profile to sRGB; a profile that does not fit is ignored."""
    spaces = {"RGB": "RGB ", "L": "GRAY", "CMYK": "CMYK"}
    try:
        source = ImageCms.getOpenProfile(io.BytesIO(profile))
        described: Any = source.profile  # a C object that Pillow's annotations do not know
        name = (described.profile_description or "").lower()
        is_srgb = name.startswith("srgb") and "linear" not in name
        if described.xcolor_space != spaces[image.mode] or is_srgb:
            return image.convert("RGB")
        converted = ImageCms.profileToProfile(
            image,
            source,
            ImageCms.createProfile("sRGB"),
            renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
            outputMode="RGB",
            flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
        )
    except (ImageCms.PyCMSError, *_DECODING_ERRORS):
        notes.append("its color profile is damaged and was ignored")
        return image.convert("RGB")
    notes.append("colors were converted from its embedded profile to sRGB")
    return converted if converted is not None else image.convert("RGB")


def centre_crop(size: tuple[int, int], height: int, width: int) -> tuple[int, int, int, int]:
    """The largest centred box (left, top, right, bottom) of the model's aspect ratio."""
    crop_width = min(size[0], max(1, round(size[1] * width / height)))
    crop_height = min(size[1], max(1, round(size[0] * height / width)))
    left, top = (size[0] - crop_width) // 2, (size[1] - crop_height) // 2
    return left, top, left + crop_width, top + crop_height


def _describe_fit(size: tuple[int, int], crop: tuple[int, int], height: int, width: int) -> list[str]:
    shape = f"(model shape {width}x{height})"
    notes = []
    if crop != size:
        notes.append(f"centre-cropped {size[0]}x{size[1]} to {crop[0]}x{crop[1]} {shape}")
    if crop[0] < width or crop[1] < height:
        notes.append(f"enlarged from {crop[0]}x{crop[1]}, less detail than the model can use {shape}")
    return notes


def _focal_in_pixels(image: Image.Image) -> float | None:
    """Focal length in pixels of the full photo from EXIF, None when it is not told.

    A focal length in 35 mm terms scales with the diagonal. Otherwise the physical focal length is combined
    with the sensor's pixels per length unit, which count pixels of the photo as taken (``ExifImageWidth``).
    """
    try:
        exif = image.getexif()
        shot = exif.get_ifd(ExifTags.IFD.Exif)
        focal_35mm = float(shot.get(ExifTags.Base.FocalLengthIn35mmFilm, 0))
        if math.isfinite(focal_35mm) and focal_35mm > 0:
            return focal_35mm / DIAGONAL_35MM * math.hypot(*image.size)
        unit = {2: 25.4, 3: 10.0, 4: 1.0, 5: 1e-3}.get(shot.get(ExifTags.Base.FocalPlaneResolutionUnit, 2))
        focal = float(shot.get(ExifTags.Base.FocalLength, 0))
        density = float(shot.get(ExifTags.Base.FocalPlaneXResolution, 0))
        taken = [shot.get(ExifTags.Base.ExifImageWidth, 0), shot.get(ExifTags.Base.ExifImageHeight, 0)]
        if unit is None or not (focal > 0 and density > 0):
            return None
        scale = max(image.size) / max(taken) if min(taken) > 0 else 1.0
        pixels = focal * density / unit * scale
    except (*_DECODING_ERRORS, ArithmeticError, AttributeError):
        return None
    return pixels if math.isfinite(pixels) and pixels > 0 else None


def _plausible_fov(focal: float | None, side: int, notes: list[str]) -> float | None:
    if focal is None:
        return None
    fov = math.degrees(2 * math.atan(0.5 * side / focal))
    if PLAUSIBLE_FOV[0] <= fov <= PLAUSIBLE_FOV[1]:
        return fov
    notes.append(f"its EXIF focal length means a field of view of {fov:.1f} degrees and was ignored")
    return None
