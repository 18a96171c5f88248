"""Nerfstudio's ``transforms.json``, as it and others (instant-ngp, NeRF's synthetic scenes) write it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lyra.errors import LyraError
from lyra.files.camera_frames import Frame, as_numbers
from lyra.files.lenses import read_distortion

OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
"""Nerfstudio's cameras have y up and look along -z."""
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".avif", ".heic", ".dng")
"""What a picture may end in whose name has no ending, as in NeRF's synthetic scenes; the first there is counts."""


def read_transforms(path: Path, content: Mapping[str, Any]) -> list[Frame]:
    """The frames of a ``transforms.json``; settings stand at the top or in a frame, which takes precedence.

    Raises:
        LyraError: its frames are none, or one has a lens that cannot be undone (it is named).
    """
    entries = content["frames"]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise LyraError(f'{path} has "frames" that are no list of cameras: give a nerfstudio transforms.json')
    shared = {key: value for key, value in content.items() if key != "frames"}
    return [_read_frame(path, index, {**shared, **entry}) for index, entry in enumerate(entries)]


def _read_frame(path: Path, index: int, entry: Mapping[str, Any]) -> Frame:
    named = entry.get("file_path")
    picture = find_picture(path.parent, named) if isinstance(named, str) and named else None
    name = f"frame {index}" if picture is None else f"frame {index} ({picture.name})"
    pose = as_numbers(entry.get("transform_matrix"), (4, 4))
    if pose is None:
        raise LyraError(f"{path}: {name} has no 4x4 transform_matrix")
    try:
        distortion = read_distortion(entry)
    except LyraError as problem:
        raise LyraError(f"{path}: {name} {problem}") from None
    intrinsics, angles = None, None
    if "fl_x" in entry:
        fx = entry["fl_x"]
        intrinsics = [fx, entry.get("fl_y", fx), entry.get("cx"), entry.get("cy")]
    elif "camera_angle_x" in entry:
        angles = (entry["camera_angle_x"], entry.get("camera_angle_y"))
    size = entry.get("h"), entry.get("w")
    return Frame(name, pose @ OPENGL_TO_OPENCV, intrinsics, *size, distortion, picture, angles)


def find_picture(folder: Path, name: str) -> Path:
    """The file that a frame names: as it is, with the slashes of another system, or without its suffix.

    Where there is none, the name as it is read on this system.
    """
    plain = folder / name
    if plain.is_file():
        return plain
    turned = folder / name.replace("\\", "/")
    for path in (turned, *(turned.with_name(turned.name + suffix) for suffix in PICTURE_SUFFIXES)):
        if path.is_file():
            return path
        # Cameras' and other systems' names are in capitals as often as not.
        if path.with_name(turned.name + path.suffix.upper()).is_file() and path != turned:
            return path.with_name(turned.name + path.suffix.upper())
    return turned
