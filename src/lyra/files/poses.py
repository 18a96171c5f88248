"""Camera files: lyra's own JSON, nerfstudio's ``transforms.json`` and the NPZ of published video data sets."""

import json
import math
import warnings
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lyra.errors import LyraError
from lyra.files.atomic import explain_reading, write_atomically
from lyra.geometry.cameras import Cameras

ORTHONORMAL_TOLERANCE = 1e-3
"""Largest deviation of R^T R from the identity: what rounding to four digits leaves."""
_OPENGL_TO_OPENCV = np.diag([1.0, -1.0, -1.0, 1.0])
"""Nerfstudio's cameras have y up and look along -z."""
_LARGEST_ARRAY = 64 << 20
"""Bytes that an array in an NPZ may unpack to."""
_NPZ_FOV = 55.0
"""Degrees, where an NPZ of poses has no intrinsics beside it."""
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
    ignored with a warning. An NPZ holds ``data`` (N 4 4, OpenCV camera_to_world) and ``inds``, with the intrinsics
    (fx, fy, cx, cy in pixels) in ``../intrinsics/`` under the same name, or 55 degrees where there are none.

    Raises:
        LyraError: The file is missing, no camera file, or holds an impossible camera (its frame is named).
    """
    path = Path(path)
    frames = _npz_frames(path, height, width) if path.suffix.lower() == ".npz" else _json_frames(path, height, width)
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


def load_posed_images(path: Path, height: int, width: int) -> tuple[list[Path], Cameras]:
    """Image files and cameras of a JSON file whose frames name their pictures (``file_path``), in order.

    Raises:
        LyraError: as ``load_cameras``, or a frame names no picture.
    """
    path = Path(path)
    content = _read_json(path)
    entries = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise LyraError(f'{path} has no "frames" with pictures: give a nerfstudio transforms.json')
    images = []
    for index, entry in enumerate(entries):
        name = entry.get("file_path") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name:
            raise LyraError(f"{path}: frame {index} names no picture (file_path)")
        images.append(path.parent / name)
    return images, load_cameras(path, height, width)


def _read_json(path: Path) -> Any:
    with explain_reading(path):
        data = path.read_bytes()
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise LyraError(f"{path} is no JSON: give cameras.json or a nerfstudio transforms.json") from None


def _json_frames(path: Path, height: int, width: int) -> list[_Frame]:
    content = _read_json(path)
    if isinstance(content, dict) and "camera_to_world" in content:
        return _own_frames(path, content)
    if isinstance(content, dict) and "frames" in content:
        return _nerfstudio_frames(path, content, height, width)
    raise LyraError(f'{path} has neither "camera_to_world" nor "frames": give a camera file')


def _npz_frames(path: Path, height: int, width: int) -> list[_Frame]:
    poses = _load_npz(path)
    if poses.ndim != 3 or poses.shape[1:] not in ((4, 4), (3, 4)):
        raise LyraError(f"{path} has poses of shape {list(poses.shape)}: give [frames, 4, 4]")
    if poses.shape[1] == 3:
        bottom = np.broadcast_to(np.array([0.0, 0.0, 0.0, 1.0]), (len(poses), 1, 4))
        poses = np.concatenate([poses, bottom], axis=1)
    lens_file = path.parent.parent / "intrinsics" / path.name
    if lens_file.is_file():
        lenses = _load_npz(lens_file)
        if lenses.shape != (len(poses), 4):
            raise LyraError(f"{lens_file} does not hold fx, fy, cx, cy of {len(poses)} frames")
        # The size of the images is not written down; the principal point of these data is their centre.
        sizes = [(2 * lens[3], 2 * lens[2]) for lens in lenses]
    else:
        focal = 0.5 * min(height, width) / math.tan(math.radians(_NPZ_FOV) / 2)
        lenses = np.tile([focal, focal, width / 2, height / 2], (len(poses), 1))
        sizes = [(height, width)] * len(poses)
    return [
        _Frame(f"frame {i}", pose, lens, *size)
        for i, (pose, lens, size) in enumerate(zip(poses, lenses, sizes, strict=True))
    ]


def _load_npz(path: Path) -> np.ndarray:
    """``data`` in the order of ``inds``; no pickle is read and nothing large is unpacked."""
    try:
        with explain_reading(path), zipfile.ZipFile(path) as archive:
            if max((entry.file_size for entry in archive.infolist()), default=0) > _LARGEST_ARRAY:
                raise LyraError(f"{path} unpacks to more than {_LARGEST_ARRAY >> 20} MB: no camera file")
        with np.load(path, allow_pickle=False) as arrays:
            data = np.asarray(arrays["data"], dtype=np.float64)
            order = np.argsort(arrays["inds"], kind="stable") if "inds" in arrays else np.arange(len(data))
            return data[order]
    except (zipfile.BadZipFile, KeyError, ValueError, TypeError, IndexError, EOFError):
        raise LyraError(f'{path} is no NPZ of poses (an array "data", and "inds"): make or download it again') from None


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
