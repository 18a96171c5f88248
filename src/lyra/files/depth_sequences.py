"""RGB-D films with the camera's poses, in the layouts of 7-Scenes (and 3DMatch) and of TUM."""

import re
import warnings
from bisect import bisect_left
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from lyra.errors import LyraError, LyraWarning
from lyra.files.atomic import explain_reading
from lyra.files.camera_frames import Frame

_INTRINSICS = ("camera-intrinsics.txt", "camera_intrinsics.txt", "intrinsics.txt", "calibration.txt")
_KINECT = (585.0, 585.0, 320.0, 240.0)
"""fx, fy, cx, cy that 7-Scenes gives for its 640 x 480 pixels. Source: its page, "camera calibration"."""
_TUM = {
    "freiburg1": (517.3, 516.5, 318.6, 255.3),
    "freiburg2": (520.9, 521.0, 325.1, 249.7),
    "freiburg3": (535.4, 539.2, 320.1, 247.6),
}
"""fx, fy, cx, cy of 640 x 480 pixels by the sequence's name, centres of pixels at whole numbers. Source: TUM RGB-D,
"file formats", "intrinsic camera calibration"; its distortion is left alone, as its own tools do."""
_TUM_DEFAULT = (525.0, 525.0, 319.5, 239.5)
_TOGETHER = 0.02
"""Seconds between a color frame and the depth or pose that belongs to it, at most. Source: TUM's ``associate.py``."""

Sequenced = tuple[tuple[Frame, ...], dict[int, Path]]
"""Frames, and files of depth by number of the frame."""


def is_7_scenes(folder: Path) -> bool:
    """Whether a folder holds ``frame-000000.pose.txt`` and so on."""
    return folder.is_dir() and any(folder.glob("frame-*.pose.txt"))


def read_7_scenes(folder: Path) -> Sequenced:
    """Frames in the order of their numbers; those whose pose was lost (not finite) are left out with a note.

    The lens is that of ``camera-intrinsics.txt`` (3 x 3, here or in the folder above), else the Kinect's.

    Raises:
        LyraError: a pose or the lens is damaged.
    """
    lens = _find_lens(folder) or _KINECT
    frames, depths, lost = [], {}, 0
    for path in sorted(folder.glob("frame-*.pose.txt")):
        name = path.name.removesuffix(".pose.txt")
        pose = _numbers(path, (4, 4))
        if not np.isfinite(pose).all():
            lost += 1
            continue
        depth = folder / f"{name}.depth.png"
        if depth.is_file():
            depths[len(frames)] = depth
        pictures = [folder / f"{name}.color.{suffix}" for suffix in ("jpg", "png", "jpeg")]
        picture = next((file for file in pictures if file.is_file()), pictures[0])
        frames.append(Frame(name, _rigid(pose), lens, None, None, picture=picture))
    if lost:
        warnings.warn(f"{folder}: {lost} frames have no pose and are left out", LyraWarning, stacklevel=2)
    return tuple(frames), depths


def is_tum(folder: Path) -> bool:
    """Whether a folder holds ``groundtruth.txt`` and ``rgb.txt``."""
    return (folder / "groundtruth.txt").is_file() and (folder / "rgb.txt").is_file()


def read_tum(folder: Path) -> Sequenced:
    """Color frames in the order of time that have a pose; depth where one is near in time.

    Raises:
        LyraError: a list is damaged, or no frame has a pose.
    """
    colors, truth = _timed(folder / "rgb.txt"), _timed(folder / "groundtruth.txt")
    known = _timed(folder / "depth.txt") if (folder / "depth.txt").is_file() else []
    given = _find_lens(folder)
    lens = given or _tum_lens(folder)
    times, depth_times = [row[0] for row in truth], [row[0] for row in known]
    frames, depths = [], {}
    for time, words in colors:
        at = _nearest(times, time)
        if at is None:
            continue
        near = _nearest(depth_times, time)
        if near is not None and (folder / known[near][1][0]).is_file():
            depths[len(frames)] = folder / known[near][1][0]
        pose = _tum_pose(folder / "groundtruth.txt", truth[at][1])
        frames.append(Frame(f"frame {time:.6f}", pose, lens, None, None, picture=folder / words[0]))
    if not frames:
        raise LyraError(f"{folder}: no picture of rgb.txt has a pose within {_TOGETHER} s in groundtruth.txt")
    return tuple(frames), depths


def _tum_lens(folder: Path) -> tuple[float, float, float, float]:
    name = re.search(r"freiburg[123]", str(folder.resolve()))
    fx, fy, cx, cy = _TUM[name.group()] if name else _TUM_DEFAULT
    return fx, fy, cx + 0.5, cy + 0.5


def _tum_pose(path: Path, words: Sequence[str]) -> np.ndarray:
    """Of tx ty tz qx qy qz qw, camera to world."""
    try:
        tx, ty, tz, x, y, z, w = map(float, words)
        x, y, z, w = np.array([x, y, z, w]) / np.linalg.norm([x, y, z, w])
    except ValueError:
        raise LyraError(f"{path} is no list of time tx ty tz qx qy qz qw: download it again") from None
    rotation = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y), tx],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x), ty],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y), tz],
        [0, 0, 0, 1],
    ]
    return np.array(rotation)


def _timed(path: Path) -> list[tuple[float, list[str]]]:
    """Rows of a list by time; those that begin with # are comments."""
    with explain_reading(path):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    rows = [line.replace(",", " ").split() for line in lines if line.strip() and not line.lstrip().startswith("#")]
    try:
        return sorted((float(words[0]), words[1:]) for words in rows if words[1:])
    except ValueError:
        raise LyraError(f"{path} is no list by time: download it again") from None


def _nearest(times: Sequence[float], time: float) -> int | None:
    at = bisect_left(times, time)
    near = [i for i in (at - 1, at) if 0 <= i < len(times) and abs(times[i] - time) <= _TOGETHER]
    return min(near, key=lambda i: abs(times[i] - time), default=None)


def _find_lens(folder: Path) -> tuple[float, float, float, float] | None:
    """fx, fy, cx, cy of a 3 x 3 matrix, or of four numbers, in a file of the folder or of the one above."""
    for path in (place / name for place in (folder, folder.parent) for name in _INTRINSICS):
        if not path.is_file():
            continue
        values = _numbers(path, None)
        if values.size in (9, 16):
            matrix = values.reshape(3, 3) if values.size == 9 else values.reshape(4, 4)
            return matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2]
        if values.size >= 4:
            return tuple(values.ravel()[:4].tolist())
        raise LyraError(f"{path} holds no lens: give a 3 x 3 matrix, or fx fy cx cy")
    return None


def _numbers(path: Path, shape: tuple[int, int] | None) -> np.ndarray:
    with explain_reading(path):
        text = path.read_text(encoding="utf-8", errors="replace").replace(",", " ")
    try:
        values = np.array([float(word.replace("-1.#IND", "nan")) for word in text.split()])
        return values if shape is None else values.reshape(shape)
    except ValueError:
        wanted = "numbers" if shape is None else f"{shape[0]} x {shape[1]} numbers"
        raise LyraError(f"{path} does not hold {wanted}: make or download it again") from None


def _rigid(pose: np.ndarray) -> np.ndarray:
    """The nearest rotation, where rounding and tracking left a little more than rounding: up to a percent."""
    left, scale, right = np.linalg.svd(pose[:3, :3])
    if np.abs(scale - 1).max() > 0.01 or np.linalg.det(left @ right) < 0:
        return pose
    rigid = pose.copy()
    rigid[:3, :3] = left @ right
    return rigid
