"""Camera files: lyra's own JSON, nerfstudio's ``transforms.json``, NPZ of published video data sets, and others'."""

import json
import math
import warnings
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lyra.errors import LyraError, LyraWarning
from lyra.files.atomic import explain_reading, write_atomically
from lyra.files.camera_frames import Frame, SeenCamera, Shape, fit, see
from lyra.files.colmap import is_model, read_model
from lyra.files.foreign_cameras import is_trained_scene, read_camera_path, read_real_estate, read_trained_scene
from lyra.files.lenses import Distortion, Lens
from lyra.files.picture_files import picture_shape
from lyra.files.strict_json import to_json
from lyra.files.transforms import read_transforms
from lyra.geometry.cameras import Cameras

SUFFIXES = (".json", ".npz", ".txt", ".bin")
"""Of camera files; a folder with a COLMAP model in it is one too."""
_LARGEST_ARRAY = 64 << 20
"""Bytes that an array in an NPZ may unpack to."""
_NPZ_FOV = 55.0
"""Degrees, where an NPZ of poses has no intrinsics beside it."""


def save_cameras(cameras: Cameras, path: Path) -> None:
    """Writes cameras with one leading axis as JSON; every number survives unchanged.

    Raises:
        LyraError: The file cannot be written.
        ValueError: The cameras do not have exactly one batch axis, or hold NaN.
    """
    if cameras.camera_to_world.ndim != 3:
        raise ValueError(f"cameras to be saved need one batch axis, not {tuple(cameras.camera_to_world.shape)}")
    if not bool(cameras.camera_to_world.isfinite().all() and cameras.intrinsics.isfinite().all()):
        raise ValueError("cameras to be saved hold NaN or infinity")
    content = {
        "camera_to_world": cameras.camera_to_world.tolist(),
        "intrinsics": cameras.intrinsics.tolist(),
        "height": cameras.height,
        "width": cameras.width,
    }
    with write_atomically(path) as temporary:
        temporary.write_text(to_json(content) + "\n", encoding="utf-8")


def is_camera_file(path: Path) -> bool:
    """Whether a path may be a file of cameras, by its name alone; a folder is one where it holds a COLMAP model."""
    return path.suffix.lower() in SUFFIXES or is_model(path)


def load_cameras(path: Path, height: int, width: int) -> Cameras:
    """Reads cameras for images of ``height`` x ``width`` pixels, in float32.

    Where the aspect ratio differs from the file's, the view is the centre crop that ``load_photo`` would
    take, so that pixels stay square. Foreign axes become OpenCV's; lens distortion is ignored with a warning, since
    these cameras are to be drawn with. An NPZ holds ``data`` (N 4 4, OpenCV camera_to_world) and ``inds``, with the
    intrinsics (fx, fy, cx, cy in pixels) in ``../intrinsics/`` under the same name, or 55 degrees where there are none.

    Raises:
        LyraError: The file is missing, no camera file, or holds an impossible camera (its frame is named).
    """
    frames = read_frames(Path(path), height, width)
    if any(not frame.distortion.straight for frame in frames):
        warnings.warn(
            f"{path}: lens distortion is ignored, its cameras are taken as pinholes", LyraWarning, stacklevel=2
        )
    shapes = {frame.picture: _shape_where_needed(frame) for frame in frames}
    cameras = [see(Path(path), frame, shapes[frame.picture], (width, height)) for frame in frames]
    return _join(cameras, height, width, straightened=False)


def load_seen_cameras(path: Path, shape: Shape) -> list[SeenCamera]:
    """The cameras of a film's frames, all of one shape, checked against it.

    Raises:
        LyraError: as ``load_cameras``; or they are cameras of other pictures, or of lenses that cannot be undone.
    """
    frames = read_frames(Path(path), *shape.shown[::-1])
    seen = [see(Path(path), frame, shape) for frame in frames]
    _check_lenses(Path(path), frames, seen)
    return seen


def fit_cameras(seen: list[SeenCamera], height: int, width: int) -> Cameras:
    """Cameras of straightened pictures that were brought to ``height`` x ``width`` pixels."""
    return _join(seen, height, width, straightened=True)


def load_posed_images(path: Path) -> list[tuple[Path, SeenCamera]]:
    """Image files and cameras of a JSON file whose frames name their pictures (``file_path``), in order.

    Raises:
        LyraError: as ``load_cameras``, a frame names no picture, or one that is no camera's.
    """
    path = Path(path)
    content = _read_json(path)
    entries = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(entries, list) or not entries:
        raise LyraError(f'{path} has no "frames" with pictures: give a nerfstudio transforms.json')
    for index, entry in enumerate(entries):
        name = entry.get("file_path") if isinstance(entry, dict) else None
        if not isinstance(name, str) or not name:
            raise LyraError(f"{path}: frame {index} names no picture (file_path)")
    frames = read_transforms(path, content)
    posed = []
    for frame in frames:
        assert frame.picture is not None
        posed.append((frame.picture, see(path, frame, picture_shape(frame.picture))))
    _check_lenses(path, frames, [camera for _, camera in posed])
    return posed


def _check_lenses(path: Path, frames: list[Frame], seen: list[SeenCamera]) -> None:
    """Says which frame has a lens that cannot be undone."""
    for frame, camera in zip(frames, seen, strict=True):
        try:
            camera.shown_lens()
        except LyraError as problem:
            raise LyraError(f"{path}: {frame.name} {problem}") from None


def _shape_where_needed(frame: Frame) -> Shape | None:
    """The shape of a picture whose size the file does not tell, where the picture is there."""
    if frame.picture is None or frame.width is not None or not frame.picture.is_file():
        return None
    return picture_shape(frame.picture)


def _join(seen: list[SeenCamera], height: int, width: int, straightened: bool) -> Cameras:
    lenses = [camera.shown_lens() if straightened else _as_pinhole(camera) for camera in seen]
    return Cameras(
        torch.from_numpy(np.stack([camera.pose for camera in seen]).astype(np.float32)),
        torch.from_numpy(np.stack([fit(lens, height, width) for lens in lenses]).astype(np.float32)),
        height,
        width,
    )


def _as_pinhole(camera: SeenCamera) -> Lens:
    """The lens of the shown picture as if it were not distorted."""
    return replace(camera, lens=replace(camera.lens, distortion=Distortion())).shown_lens()


def read_frames(path: Path, height: int, width: int) -> list[Frame]:
    """The cameras of a file of any kind that is known, before they are checked.

    Args:
        path: The file.
        height: Of the images they are for, where an NPZ does not tell it.
        width: As ``height``.

    Raises:
        LyraError: The file is missing, no camera file, or holds none.
    """
    suffix = path.suffix.lower()
    if is_model(path):
        frames = read_model(path)
    elif suffix == ".npz":
        frames = _npz_frames(path, height, width)
    elif suffix == ".txt":
        frames = read_real_estate(path)
    else:
        frames = _json_frames(path)
    if not frames:
        raise LyraError(f"{path} holds no cameras: give at least one")
    return frames


def _read_json(path: Path) -> Any:
    with explain_reading(path):
        data = path.read_bytes()
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise LyraError(f"{path} is no JSON: give cameras.json or a nerfstudio transforms.json") from None


def _json_frames(path: Path) -> list[Frame]:
    content = _read_json(path)
    if is_trained_scene(content):
        return read_trained_scene(path, content)
    if isinstance(content, dict) and "camera_to_world" in content:
        return _own_frames(path, content)
    if isinstance(content, dict) and "frames" in content:
        return read_transforms(path, content)
    if isinstance(content, dict) and "camera_path" in content:
        return read_camera_path(path, content)
    raise LyraError(f'{path} has neither "camera_to_world" nor "frames": give a camera file (docs/inputs.md)')


def _npz_frames(path: Path, height: int, width: int) -> list[Frame]:
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
        Frame(f"frame {i}", pose, lens, *size)
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


def _own_frames(path: Path, content: dict[str, Any]) -> list[Frame]:
    poses, intrinsics = content["camera_to_world"], content.get("intrinsics")
    if not isinstance(poses, list) or not isinstance(intrinsics, list) or len(poses) != len(intrinsics):
        raise LyraError(f"{path} needs as many intrinsics as camera_to_world: make it again")
    # None is how a lens says that it does not know its middle, which our own files always do.
    size = content.get("height"), content.get("width")
    return [
        Frame(f"frame {i}", pose, numbers, *size)
        for i, (pose, numbers) in enumerate(zip(poses, intrinsics, strict=True))
    ]
