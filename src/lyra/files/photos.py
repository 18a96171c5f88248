"""What a user hands in: photos of any kind, brought to the model's shape.

A photo is never squashed: it is turned upright, straightened where its lens is known to bend, cropped around its centre
to the model's aspect ratio and resampled. Everything a user can get wrong ends as a one-line
:class:`~lyra.errors.LyraError`.
"""

import hashlib
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import ExifTags, Image, ImageCms
from torch import Tensor

from lyra.errors import LyraError
from lyra.files.camera_frames import SeenCamera, fit
from lyra.files.kinds import is_video
from lyra.files.lenses import straighten_picture
from lyra.files.orientation import Orientation
from lyra.files.panoramas import describe_panorama
from lyra.files.picture_files import (
    DECODING_ERRORS,
    LARGEST_ASPECT,
    LARGEST_PIXELS,
    SMALLEST_SIDE,
    guard,
    load_pixels,
    open_picture,
)
from lyra.files.poses import load_posed_images
from lyra.files.transforms import PICTURE_SUFFIXES
from lyra.geometry.cameras import Cameras

__all__ = [
    "LARGEST_ASPECT",
    "LARGEST_PIXELS",
    "SMALLEST_SIDE",
    "Photo",
    "centre_crop",
    "find_sources",
    "is_video",
    "load_photo",
    "load_posed_photos",
    "show_straight",
]

PLAUSIBLE_FOV = (5.0, 150.0)
"""Degrees; a field of view outside is taken for a mistake in the EXIF data."""
DIAGONAL_35MM = math.hypot(36.0, 24.0)
"""Diagonal of a 35 mm frame in mm, to which "35 mm equivalent" focal lengths refer (CIPA DCG-001)."""


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


def load_photo(path: Path, height: int, width: int, camera: SeenCamera | None = None) -> Photo:
    """Reads a photo and brings it to ``height`` x ``width`` pixels.

    EXIF rotation is applied, transparency is laid over white, embedded color profiles are converted to sRGB, of an
    animation the first frame is taken, and of a file of several pages the first that is no smaller version of another.

    Args:
        path: Any file that Pillow reads; a raw or HEIC photo with the extra "photos".
        height: Of the result in pixels.
        width: Of the result in pixels.
        camera: Where it is known, the camera that the photo was taken with: a distorted lens is straightened.

    Raises:
        LyraError: The file is missing, unreadable, no photo, damaged, too small, too elongated or too large.
    """
    path = Path(path)
    opened = open_picture(path)
    notes = list(opened.notes)
    with guard(path):
        focal = _focal_in_pixels(opened.image)
        rgb = _to_srgb(path, load_pixels(opened), notes)
        notes += describe_panorama(opened.image, rgb)
        if camera is not None and not camera.lens.distortion.straight:
            rgb = straighten_upright(rgb, camera)
            notes.append("its lens distortion was undone")
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
        sha256=hashlib.sha256(opened.data).hexdigest(),
        notes=tuple(notes),
    )


def straighten_upright(rgb: Image.Image, camera: SeenCamera) -> Image.Image:
    """An upright picture, straightened as it is stored or as it is shown, whichever its camera was made for."""
    if not camera.stored:
        return straighten_picture(rgb, camera.lens)
    return camera.orientation.show(straighten_picture(camera.orientation.store(rgb), camera.lens))


def show_straight(stored: Image.Image, orientation: Orientation, camera: SeenCamera | None) -> Image.Image:
    """A stored picture as it is shown, straightened where its camera is known to bend lines."""
    rgb = orientation.show(stored)
    return rgb if camera is None or camera.lens.distortion.straight else straighten_upright(rgb, camera)


def find_sources(given: Sequence[Path]) -> list[Path]:
    """The files of an input: of a folder its ``transforms.json`` or else its pictures, in the order of their names.

    Numbers in names count as numbers: ``frame2`` is before ``frame10``.

    Raises:
        LyraError: a folder holds no pictures.
    """
    found: list[Path] = []
    for path in given:
        if not path.is_dir():
            found.append(path)
        elif (path / "transforms.json").is_file():
            found.append(path / "transforms.json")
        else:
            pictures = [file for file in path.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES and file.is_file()]
            if not pictures:
                raise LyraError(f"{path} holds no pictures: give photos, or a folder with some")
            found += sorted(pictures, key=_by_number)
    return found


def _by_number(path: Path) -> list[tuple[int, int, str]]:
    parts = re.split(r"(\d+)", path.name.lower())
    return [(1, int(part), "") if part.isdigit() else (0, 0, part) for part in parts]


def load_posed_photos(path: Path, height: int, width: int) -> tuple[list[Photo], Cameras]:
    """The photos that a camera file names, and their cameras, at ``height`` x ``width`` pixels.

    Raises:
        LyraError: the file or a photo is missing or unusable, or a camera is of another picture.
    """
    posed = load_posed_images(path)
    photos = [load_photo(picture, height, width, camera) for picture, camera in posed]
    poses = np.stack([camera.pose for _, camera in posed])
    intrinsics = np.stack([fit(camera.shown_lens(), height, width) for _, camera in posed])
    cameras = Cameras(
        torch.from_numpy(poses.astype(np.float32)), torch.from_numpy(intrinsics.astype(np.float32)), height, width
    )
    return photos, cameras


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
    except (ImageCms.PyCMSError, *DECODING_ERRORS):
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
    except DECODING_ERRORS:
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
