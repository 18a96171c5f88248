"""Camera files of other programs: 3DGS' ``cameras.json``, nerfstudio's ``camera_path.json``, RealEstate10K's text."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lyra.errors import LyraError
from lyra.files.atomic import explain_reading
from lyra.files.camera_frames import Frame, as_numbers
from lyra.files.transforms import OPENGL_TO_OPENCV

_LARGEST_TEXT = 64 << 20
_COLUMNS = 19
"""Of RealEstate10K: time, fx, fy, cx, cy in picture sizes, two zeros, and world_to_camera row by row."""


def is_trained_scene(content: Any) -> bool:
    """Whether JSON is the ``cameras.json`` that 3DGS training writes beside its scenes."""
    return isinstance(content, list) and bool(content) and isinstance(content[0], dict) and "rotation" in content[0]


def read_trained_scene(path: Path, content: list[Any]) -> list[Frame]:
    """The frames of 3DGS' ``cameras.json``: OpenCV axes, centres and camera-to-world rotations, in the file's order.

    Raises:
        LyraError: an entry is no camera.
    """
    frames = []
    for index, entry in enumerate(content):
        name = f"camera {index}"
        values = entry if isinstance(entry, dict) else {}
        rotation, center = as_numbers(values.get("rotation"), (3, 3)), as_numbers(values.get("position"), (3,))
        if rotation is None or center is None:
            raise LyraError(f"{path}: {name} has no rotation and position: give 3DGS' cameras.json")
        if isinstance(values.get("img_name"), str):
            name += f" ({values['img_name']})"
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = rotation, center
        size = values.get("height"), values.get("width")
        frames.append(Frame(name, pose, [values.get("fx"), values.get("fy"), None, None], *size))
    return frames


def read_camera_path(path: Path, content: Mapping[str, Any]) -> list[Frame]:
    """The frames of nerfstudio's ``camera_path.json``: OpenGL axes, vertical fields of view in degrees.

    Raises:
        LyraError: an entry is no camera, or the path is of another kind of camera.
    """
    kind = str(content.get("camera_type") or "perspective").lower()
    if kind != "perspective":
        raise LyraError(f"{path} is a path of {kind} cameras: export it as perspective")
    entries = content["camera_path"]
    if not isinstance(entries, list):
        raise LyraError(f'{path} has a "camera_path" that is no list: export it again')
    frames = []
    for index, entry in enumerate(entries):
        name, values = f"camera {index}", entry if isinstance(entry, dict) else {}
        flat = as_numbers(values.get("camera_to_world"), (16,))
        pose = as_numbers(values.get("camera_to_world"), (4, 4)) if flat is None else flat.reshape(4, 4)
        fov = as_numbers(values.get("fov"), ())
        if pose is None or fov is None or not 0 < fov < 180:
            raise LyraError(f"{path}: {name} has no camera_to_world and fov: export the path again")
        height, width = content.get("render_height"), content.get("render_width")
        if height is None or width is None:
            # The file's own proportions; square where it does not tell them.
            aspect = as_numbers(values.get("aspect"), ())
            height, width = 1000.0, 1000.0 * (1.0 if aspect is None else float(aspect))
        try:
            focal = 0.5 * float(height) / math.tan(math.radians(float(fov)) / 2)
        except (TypeError, ValueError):
            raise LyraError(f"{path} has a render_height that is no number: export the path again") from None
        frames.append(Frame(name, pose @ OPENGL_TO_OPENCV, [focal, focal, None, None], height, width))
    return frames


def read_real_estate(path: Path) -> list[Frame]:
    """The frames of a RealEstate10K text: an address, then a line a frame; lenses are in sizes of the picture.

    The picture's proportions are those that make its pixels square.

    Raises:
        LyraError: the file is missing, or something else.
    """
    with explain_reading(path):
        if path.stat().st_size > _LARGEST_TEXT:
            raise LyraError(f"{path} is too large for a file of cameras")
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = [line.split() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    if rows and len(rows[0]) != _COLUMNS:  # the film's address
        rows = rows[1:]
    frames = []
    for index, words in enumerate(rows):
        numbers = as_numbers(words, (_COLUMNS,))
        if numbers is None or not np.isfinite(numbers).all() or min(numbers[1:3]) <= 0:
            raise LyraError(
                f"{path} is no text of cameras (at frame {index}): give RealEstate10K's {_COLUMNS} numbers a line, or "
                "COLMAP's images.txt with its cameras.txt"
            )
        fx, fy, cx, cy = numbers[1:5]
        view = np.vstack([numbers[7:].reshape(3, 4), [0, 0, 0, 1]])
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = view[:3, :3].T, -view[:3, :3].T @ view[:3, 3]
        width, height = 1000 * fy / fx, 1000.0
        frames.append(Frame(f"frame {index}", pose, [fx * width, fy * height, cx * width, cy * height], height, width))
    if not frames:
        raise LyraError(f"{path} holds no cameras: give RealEstate10K's text, or COLMAP's images.txt")
    return frames
