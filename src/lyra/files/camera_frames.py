"""Cameras as files hold them, checked one by one: rigid poses, possible lenses, and the pictures they belong to."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from lyra.errors import LyraError
from lyra.files.lenses import Distortion, Lens, straighten
from lyra.files.orientation import UPRIGHT, Orientation

ORTHONORMAL_TOLERANCE = 1e-3
"""Largest deviation of R^T R from the identity: what rounding to four digits leaves."""
_SAME_ASPECT = 0.02
"""Largest relative difference of the aspect ratios of a picture and of its camera: what rounded sizes leave."""


@dataclass(frozen=True)
class Frame:
    """One camera as read, before anything is checked."""

    name: str
    pose: Any
    """``camera_to_world`` in OpenCV axes."""
    intrinsics: Any
    height: Any
    """None where the file does not say so."""
    width: Any
    distortion: Distortion = field(default_factory=Distortion)
    picture: Path | None = None
    """The file that the frame names, where there is one."""
    angles: tuple[Any, Any] | None = None
    """In place of intrinsics: fields of view across and down in radians, the second None where pixels are square."""


@dataclass(frozen=True)
class Shape:
    """A picture's size as it is stored, and how it is turned before it is shown."""

    width: int
    height: int
    orientation: Orientation = UPRIGHT

    @property
    def shown(self) -> tuple[int, int]:
        """Width and height as shown."""
        return self.orientation.size(self.width, self.height)


@dataclass(frozen=True)
class SeenCamera:
    """A camera that was checked, for its picture as it is shown."""

    pose: Float[np.ndarray, "4 4"]
    """``camera_to_world`` of the shown picture, the rotation exactly orthonormal."""
    lens: Lens
    """Of the picture as it lies in the file if ``stored``, else as it is shown; still distorted."""
    stored: bool
    orientation: Orientation = UPRIGHT

    def shown_lens(self) -> Lens:
        """The pinhole lens of the shown and straightened picture.

        Raises:
            LyraError: the distortion cannot be undone; the text is to follow a frame's name.
        """
        lens = straighten(self.lens)
        if not self.stored:
            return lens
        intrinsics = self.orientation.turn_intrinsics(lens.intrinsics, lens.width, lens.height)
        width, height = (lens.height, lens.width) if self.orientation.swaps else (lens.width, lens.height)
        return Lens(width, height, intrinsics)


def see(
    path: Path, frame: Frame, shape: Shape | None = None, default: tuple[float | int, float | int] | None = None
) -> SeenCamera:
    """Checks one camera of a file, and puts it to its picture where that is known.

    A size that the file does not tell is the picture's. A camera that was made for the picture as it is stored turns
    with it. Without a picture a lens given in pixels needs a size, of which its principal point may be the middle; for
    one given by its angle ``default`` (width and height) will do, since only its proportions count.

    Raises:
        LyraError: an impossible camera, or one of another picture; the frame is named.
    """
    pose = check_pose(path, frame)
    size = _given_size(path, frame)
    intrinsics = None if frame.angles is not None else _check_intrinsics(path, frame)
    if shape is None:
        middle = default if intrinsics is None else (2 * float(intrinsics[2]), 2 * float(intrinsics[3]))
        size = size or middle
        if size is None or not min(size) >= 1:
            raise LyraError(f'{path}: {frame.name} says no image size: add "w" and "h"')
        return SeenCamera(pose, _lens(path, frame, intrinsics, *size), stored=False)
    turn = shape.orientation
    stored = turn != UPRIGHT and _is_of_stored(path, frame, size, intrinsics, shape)
    actual = (shape.width, shape.height) if stored else shape.shown
    lens = _lens(path, frame, intrinsics, *(size or actual))
    if abs(lens.width * actual[1] / (lens.height * actual[0]) - 1) > _SAME_ASPECT:
        raise LyraError(
            f"{path}: {frame.name} is a camera of {lens.width:.0f}x{lens.height:.0f} pixels, its picture has "
            f"{actual[0]}x{actual[1]}: give the pictures that the cameras were made of"
        )
    if stored and turn.mirrors:
        raise LyraError(
            f"{path}: {frame.name} has a picture that its orientation mirrors, which no camera does: save it upright"
        )
    pose = turn.turn_pose(pose) if stored else pose
    return SeenCamera(pose, lens.scaled(*actual), stored, turn if stored else UPRIGHT)


def _is_of_stored(
    path: Path, frame: Frame, size: tuple[float | int, float | int] | None, intrinsics: np.ndarray | None, shape: Shape
) -> bool:
    """Whether a camera was made for a picture as it is stored, which most programs look at, or as it is shown."""
    if not shape.orientation.swaps or shape.width == shape.height:
        return True
    if size is not None:
        aspect = np.log(size[0] / size[1])
    elif intrinsics is not None and min(intrinsics[2:]) > 0:
        aspect = np.log(intrinsics[2] / intrinsics[3])
    else:
        return True
    stored = np.log(shape.width / shape.height)
    return bool(abs(aspect - stored) <= abs(aspect + stored))


def _given_size(path: Path, frame: Frame) -> tuple[float, float] | None:
    if frame.width is None and frame.height is None:
        return None
    size = as_numbers([frame.width, frame.height], (2,))
    if size is None or not np.isfinite(size).all() or (size < 1).any():
        raise LyraError(f"{path}: {frame.name} has no valid image height and width")
    return float(size[0]), float(size[1])


def _check_intrinsics(path: Path, frame: Frame) -> np.ndarray:
    """fx, fy, cx, cy; a principal point that is not given is NaN."""
    intrinsics, fine = as_numbers(frame.intrinsics, (4,)), False
    if intrinsics is not None:
        unknown = np.isnan(intrinsics[2:]) & [value is None for value in list(frame.intrinsics)[2:]]
        fine = np.isfinite(intrinsics[:2]).all() and (np.isfinite(intrinsics[2:]) | unknown).all()
    if intrinsics is None or not fine or (intrinsics[:2] <= 0).any():
        raise LyraError(f"{path}: {frame.name} has no valid intrinsics fx fy cx cy (finite, focal lengths above 0)")
    return intrinsics


def _lens(path: Path, frame: Frame, intrinsics: np.ndarray | None, width: float | int, height: float | int) -> Lens:
    if intrinsics is None:
        assert frame.angles is not None
        across, down = (as_numbers(angle, ()) for angle in frame.angles)
        if across is None or not 0 < across < np.pi or (down is not None and not 0 < down < np.pi):
            raise LyraError(f"{path}: {frame.name} has no valid intrinsics (an angle between 0 and pi)")
        fx = 0.5 * width / np.tan(0.5 * float(across))
        fy = fx if down is None else 0.5 * height / np.tan(0.5 * float(down))
        intrinsics = np.array([fx, fy, np.nan, np.nan])
    center = np.where(np.isnan(intrinsics[2:]), [width / 2, height / 2], intrinsics[2:])
    return Lens(width, height, np.array([*intrinsics[:2], *center]), frame.distortion)


def fit(lens: Lens, height: int, width: int) -> Float[np.ndarray, "4"]:
    """Intrinsics of a picture brought to ``height`` x ``width``: scaled to cover it, then cropped around the centre."""
    size = np.array([lens.width, lens.height])
    scale = max(width / size[0], height / size[1])
    fitted = lens.intrinsics * scale
    fitted[2:] += (np.array([width, height]) - size * scale) / 2
    return fitted


def check_pose(path: Path, frame: Frame) -> Float[np.ndarray, "4 4"]:
    """The pose if it is rigid, with its rotation made exactly orthonormal.

    Raises:
        LyraError: it is none; the frame is named.
    """
    pose = as_numbers(frame.pose, (4, 4))
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


def as_numbers(value: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """``value`` as numbers of the given shape, None where it is anything else."""
    try:
        array = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        return None
    return array if array.shape == shape and value is not None else None
