"""Camera files: lyra's own JSON and nerfstudio's ``transforms.json``."""

import json
import math
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lyra.cameras import Cameras
from lyra.errors import LyraError
from lyra.formats.files import explain_reading, write_atomically

ORTHONORMAL_TOLERANCE = 1e-3
"""Largest deviation of R^T R from the identity: what rounding to four digits leaves."""
_OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
"""Nerfstudio's cameras have y up and look along -z."""
_DISTORTION = ("k1", "k2", "k3", "k4", "p1", "p2")


@dataclass(frozen=True)
class _Frame:
    """One camera as read, before anything is checked."""

    name: str
    pose: Any
    intrinsics: Any
    height: Any
    width: Any


def save_cameras(cameras: Cameras, path: Path) -> None:
    """Writes cameras with one leading axis as JSON; every number survives unchanged.

    Raises:
        LyraError: The file cannot be written.
        ValueError: The cameras do not have exactly one batch axis.
    """
    if cameras.camera_to_world.ndim != 3:
        raise ValueError(f"cameras to be saved need one batch axis, not {tuple(cameras.camera_to_world.shape)}")
    content = {
        "camera_to_world": cameras.camera_to_world.tolist(),
        "intrinsics": cameras.intrinsics.tolist(),
        "height": cameras.height,
        "width": cameras.width,
    }
    with write_atomically(path) as temporary:
        temporary.write_text(json.dumps(content, allow_nan=False) + "\n", encoding="utf-8")


def load_cameras(path: Path, height: int, width: int) -> Cameras:
    """Reads cameras for images of ``height`` x ``width`` pixels, in float32.

    Where the aspect ratio differs from the file's, the view is the centre crop that ``load_photo`` would
    take, so that pixels stay square. Nerfstudio's OpenGL axes become OpenCV's; its lens distortion is
    ignored with a warning.

    Raises:
        LyraError: The file is missing, no camera file, or holds an impossible camera (its frame is named).
    """
    path = Path(path)
    with explain_reading(path):
        data = path.read_bytes()
    try:
        content = json.loads(data)
    except (ValueError, RecursionError):
        raise LyraError(f"{path} is no JSON: give cameras.json or a nerfstudio transforms.json") from None
    if isinstance(content, dict) and "camera_to_world" in content:
        frames = _own_frames(path, content)
    elif isinstance(content, dict) and "frames" in content:
        frames = _nerfstudio_frames(path, content, height, width)
    else:
        raise LyraError(f'{path} has neither "camera_to_world" nor "frames": give a camera file')
    if not frames:
        raise LyraError(f"{path} holds no cameras: give at least one")
    poses = np.stack([_check_pose(path, frame) for frame in frames])
    intrinsics = np.stack([_fit_intrinsics(path, frame, height, width) for frame in frames])
    return Cameras(
        torch.from_numpy(poses.astype(np.float32)),
        torch.from_numpy(intrinsics.astype(np.float32)),
        height,
        width,
    )


def _own_frames(path: Path, content: dict[str, Any]) -> list[_Frame]:
    poses, intrinsics = content["camera_to_world"], content.get("intrinsics")
    if not isinstance(poses, list) or not isinstance(intrinsics, list) or len(poses) != len(intrinsics):
        raise LyraError(f"{path} needs as many intrinsics as camera_to_world: make it again")
    size = content.get("height"), content.get("width")
    return [
        _Frame(f"frame {i}", pose, numbers, *size)
        for i, (pose, numbers) in enumerate(zip(poses, intrinsics, strict=True))
    ]


def _nerfstudio_frames(path: Path, content: dict[str, Any], height: int, width: int) -> list[_Frame]:
    """Settings stand at the top or in a frame, which takes precedence."""
    entries = content["frames"]
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise LyraError(f'{path} has "frames" that are no list of cameras: give a nerfstudio transforms.json')
    shared = {key: value for key, value in content.items() if key != "frames"}
    frames, distorted = [], False
    for index, entry in enumerate(entries):
        merged = {**shared, **entry}
        name = f"frame {index}"
        if isinstance(entry.get("file_path"), str):
            name += f" ({Path(entry['file_path']).name})"
        distorted |= any(merged.get(key) for key in _DISTORTION)
        pose = _matrix(merged.get("transform_matrix"), (4, 4))
        if pose is None:
            raise LyraError(f"{path}: {name} has no 4x4 transform_matrix")
        size = merged.get("h", height), merged.get("w", width)
        frames.append(_Frame(name, pose @ _OPENGL_TO_OPENCV, _nerfstudio_intrinsics(merged, *size), *size))
    if distorted:
        warnings.warn(f"{path}: lens distortion is ignored, undistort the images first", stacklevel=3)
    return frames


def _nerfstudio_intrinsics(entry: dict[str, Any], height: Any, width: Any) -> list[Any] | None:
    try:
        if "fl_x" in entry:
            fx, fy = entry["fl_x"], entry.get("fl_y", entry["fl_x"])
        else:
            fx = 0.5 * width / math.tan(0.5 * entry["camera_angle_x"])
            fy = 0.5 * height / math.tan(0.5 * entry["camera_angle_y"]) if "camera_angle_y" in entry else fx
        return [fx, fy, entry.get("cx", width / 2), entry.get("cy", height / 2)]
    except (KeyError, TypeError, ZeroDivisionError):
        return None


def _matrix(value: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """``value`` as numbers of the given shape, None where it is anything else."""
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return array if array.shape == shape else None


def _check_pose(path: Path, frame: _Frame) -> np.ndarray:
    """The pose if it is rigid, with its rotation made exactly orthonormal."""
    pose = _matrix(frame.pose, (4, 4))
    if pose is None:
        raise LyraError(f"{path}: {frame.name} has no 4x4 matrix of numbers as camera_to_world")
    if not np.isfinite(pose).all():
        raise LyraError(f"{path}: {frame.name} holds NaN or infinity in camera_to_world")
    rotation = pose[:3, :3]
    if not np.allclose(pose[3], [0, 0, 0, 1], atol=1e-6):
        raise LyraError(f"{path}: {frame.name} has a camera_to_world whose last row is not 0 0 0 1 (transposed?)")
    if np.abs(rotation.T @ rotation - np.eye(3)).max() > ORTHONORMAL_TOLERANCE:
        raise LyraError(f"{path}: {frame.name} has a rotation that is not orthonormal, scaled or sheared")
    if np.linalg.det(rotation) < 0:
        raise LyraError(f"{path}: {frame.name} has a mirrored rotation (determinant -1), flip one axis")
    left, _, right = np.linalg.svd(rotation)
    pose[:3, :3] = left @ right
    return pose


def _fit_intrinsics(path: Path, frame: _Frame, height: int, width: int) -> np.ndarray:
    """Scales to cover the requested size, then crops around the centre."""
    size = _matrix([frame.width, frame.height], (2,))
    if size is None or not np.isfinite(size).all() or (size < 1).any():
        raise LyraError(f"{path}: {frame.name} has no valid image height and width")
    intrinsics = _matrix(frame.intrinsics, (4,))
    if intrinsics is None or not np.isfinite(intrinsics).all() or (intrinsics[:2] <= 0).any():
        raise LyraError(f"{path}: {frame.name} has no valid intrinsics fx fy cx cy (finite, focal lengths above 0)")
    scale = max(width / size[0], height / size[1])
    fitted = intrinsics * scale
    fitted[2:] += (np.array([width, height]) - size * scale) / 2
    return fitted
