"""Paths for the camera: the six presets or files of cameras, cut to the lengths that a teacher films.

A path's first camera is the input view. Of a file's lens only the change along the path counts: the photo's own field
of view is that of the first frame. Files are in scene units (the input view's median depth is 1) or, by the movement
factor, in any other.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor

from lyra.errors import LyraError
from lyra.files import load_cameras
from lyra.files.poses import is_camera_file
from lyra.geometry.cameras import Cameras, through_lens
from lyra.geometry.gaussians import matrix_from_quaternion, quaternion_from_matrix
from lyra.geometry.trajectories import TRAJECTORY_NAMES, TrajectoryName, draw_distance, trajectory_cameras

Look = Literal["path", "center", "forward"]
"""Where the cameras of a path look: as the path says, at the point one scene unit ahead of the input view, or always
as the input view does."""


@dataclass(frozen=True)
class CameraPath:
    """One way of the camera from the input view on."""

    name: str
    """Names the clip, its folder and its noise."""
    cameras: Cameras
    """The first is the identity; of the intrinsics only the change from the first counts."""

    def through(self, intrinsics: Float[Tensor, "4"]) -> Cameras:
        """The path seen through the photo's lens, zoomed and shifted along the way as the path's own."""
        return through_lens(self.cameras, intrinsics)


def preset_path(name: TrajectoryName, distance: float, frames: int, height: int, width: int) -> CameraPath:
    """One of the six trajectories; ``distance`` in scene units."""
    return CameraPath(name, trajectory_cameras(name, distance, frames, torch.ones(4), height, width))


def preset_paths(seed: int, frames: int, height: int, width: int, movement: float = 1.0) -> list[CameraPath]:
    """All six trajectories at distances that the seed draws; ``movement`` is a factor on them."""
    return [preset_path(name, draw_distance(name, seed, movement), frames, height, width) for name in TRAJECTORY_NAMES]


def read_path(file: Path, height: int, width: int, scale: float = 1.0) -> CameraPath:
    """A path from a camera file of any kind that ``load_cameras`` reads.

    Args:
        file: Its cameras in order; the first is put at the input view.
        height: Of the images to be made, in pixels.
        width: Of the images to be made, in pixels.
        scale: Scene units of one unit of the file.

    Raises:
        LyraError: the file is missing or damaged, or holds fewer than 2 cameras.
    """
    cameras = load_cameras(file, height, width)
    if len(cameras) < 2:
        raise LyraError(f"{file} holds one camera: a path needs at least 2")
    poses = cameras.relative_to(cameras.camera_to_world[0]).camera_to_world.clone()
    poses[0] = torch.eye(4)
    poses[:, :3, 3] *= scale
    return CameraPath(name_file(file), replace(cameras, camera_to_world=poses))


def name_file(file: Path) -> str:
    """The name of the path that a file holds."""
    name = re.sub(r"[^a-z0-9]+", "_", Path(file).stem.lower()).strip("_")[:40] or "path"
    # A run tells its paths by their names: a file is never taken for the preset that it is called after.
    return f"{name}_file" if name in TRAJECTORY_NAMES else name


def choose_paths(
    choices: Sequence[str], seed: int, movement: float, look: Look, frames: int, height: int, width: int
) -> list[CameraPath]:
    """Paths of presets and files, each as long as a clip or, where a file is longer, as whole clips end to end.

    Args:
        choices: Names of presets and names of files.
        seed: Of the presets' distances.
        movement: Factor on the presets' distances and on the files' translations.
        look: Where the cameras look.
        frames: Of one clip.
        height: Of the images to be made, in pixels.
        width: Of the images to be made, in pixels.

    Raises:
        LyraError: neither a preset nor a file, a damaged file, or two paths of one name.
    """
    paths = []
    for choice in choices:
        if choice in TRAJECTORY_NAMES:
            preset = cast(TrajectoryName, choice)
            path = preset_path(preset, draw_distance(preset, seed, movement), frames, height, width)
        elif is_camera_file(Path(choice)):
            path = read_path(Path(choice), height, width, movement)
            path = replace(path, cameras=fill_clips(path.cameras, frames))
        else:
            raise LyraError(
                f"unknown trajectory {choice!r}: give {', '.join(TRAJECTORY_NAMES)}, or a file of cameras (.json .npz "
                ".txt .bin, or COLMAP's folder)"
            )
        paths.append(replace(path, cameras=turn_cameras(path.cameras, look)))
    names = [path.name for path in paths]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise LyraError(f"two trajectories are named {repeated[0]!r}: name each once, or rename the file")
    return paths


def fill_clips(cameras: Cameras, frames: int) -> Cameras:
    """The same path as long as whole clips of ``frames`` cameras end to end, as few as do not leave out any of it."""
    count = max(1, math.ceil((len(cameras) - 1) / (frames - 1)))
    return resample_cameras(cameras, count * (frames - 1) + 1)


def resample_cameras(cameras: Cameras, frames: int) -> Cameras:
    """The same path in another number of frames, evenly in time.

    Positions and lenses go straight from camera to camera, rotations along the shortest arc.
    """
    if len(cameras) == frames:
        return cameras
    position = torch.linspace(0, len(cameras) - 1, frames, dtype=torch.float64)
    before = position.floor().long().clamp(max=len(cameras) - 2)
    share = (position - before)[:, None]
    poses = cameras.camera_to_world.double()
    quaternions = quaternion_from_matrix(poses[:, :3, :3])
    turned = _spherical(quaternions[before], quaternions[before + 1], share)
    result = torch.eye(4, dtype=torch.float64).repeat(frames, 1, 1)
    result[:, :3, :3] = matrix_from_quaternion(turned)
    result[:, :3, 3] = torch.lerp(poses[before, :3, 3], poses[before + 1, :3, 3], share)
    lens = cameras.intrinsics.double()
    lens = torch.lerp(lens[before], lens[before + 1], share)
    return replace(cameras, camera_to_world=result.float(), intrinsics=lens.float())


def _spherical(start: Tensor, end: Tensor, share: Tensor) -> Tensor:
    """Between unit quaternions; the two signs of a quaternion are one rotation, the nearer one is taken."""
    cosine = (start * end).sum(-1, keepdim=True)
    end, angle = torch.where(cosine < 0, -end, end), cosine.abs().clamp(max=1).acos()
    near = angle < 1e-4  # a straight line is as good, and does not divide by zero
    sine = torch.where(near, torch.ones_like(angle), angle.sin())
    first = torch.where(near, 1 - share, ((1 - share) * angle).sin() / sine)
    second = torch.where(near, share, (share * angle).sin() / sine)
    return first * start + second * end


def turn_cameras(cameras: Cameras, look: Look) -> Cameras:
    """The cameras at their places, turned as ``look`` says.

    Raises:
        LyraError: a camera stands at the point that it shall look at.
    """
    if look == "path":
        return cameras
    poses = torch.eye(4, dtype=torch.float64).repeat(len(cameras), 1, 1)
    poses[:, :3, 3] = cameras.camera_to_world[:, :3, 3].double()
    if look == "center":
        forward = poses.new_tensor([0.0, 0.0, 1.0]) - poses[:, :3, 3]
        down = poses.new_tensor([0.0, 1.0, 0.0]).expand_as(forward)
        right = torch.linalg.cross(down, forward)
        if bool((right.norm(dim=-1) < 1e-6).any()):
            raise LyraError("a camera stands at, or right above, the point to look at: leave out --look center")
        right, forward = (torch.nn.functional.normalize(axis, dim=-1) for axis in (right, forward))
        poses[:, :3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=-1)
    return replace(cameras, camera_to_world=poses.float())


def split_path(path: CameraPath, intrinsics: Float[Tensor, "4"], frames: int) -> dict[str, Cameras]:
    """A path through the photo's lens as clips of ``frames`` cameras, by name.

    Each clip begins at the last camera of the one before.

    Raises:
        ValueError: the path is not 1 + n (frames - 1) cameras long.
    """
    cameras = path.through(intrinsics)
    count, rest = divmod(len(cameras) - 1, frames - 1)
    if rest or count < 1:
        raise ValueError(f"{len(cameras)} cameras do not make whole clips of {frames}")
    if count == 1:
        return {path.name: cameras}
    return {
        f"{path.name}_{index + 1:02d}": cameras[index * (frames - 1) : (index + 1) * (frames - 1) + 1]
        for index in range(count)
    }
