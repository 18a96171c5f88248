"""The six camera trajectories of the paper.

All start at the input camera (the identity) and keep facing the point at ``center_depth`` in front of it. Distances
are in scene units, where the input view's median depth is 1.

Source: ``generate_camera_trajectory`` with Lyra's data-generation settings; the golden ``trajectories`` holds its
output. One of its habits is kept because the published decoder was trained with it: the translation column of
world_to_camera is minus the position instead of minus the rotated position, so the true camera centre differs
slightly from the nominal one. Poses and pictures agree, since both come from the same matrix.
"""

import hashlib
import math
from collections.abc import Mapping
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from lyra.geometry.cameras import Cameras, invert_rigid

TrajectoryName = Literal["left", "right", "up", "zoom_out", "zoom_in", "clockwise"]
TRAJECTORY_NAMES: tuple[TrajectoryName, ...] = get_args(TrajectoryName)

DISTANCE_RANGES: Mapping[TrajectoryName, tuple[float, float]] = {
    "left": (0.2, 0.3),
    "right": (0.2, 0.3),
    "up": (0.1, 0.2),
    "zoom_out": (0.3, 0.4),
    "zoom_in": (0.3, 0.4),
    "clockwise": (0.4, 0.6),
}
"""Uniform ranges of the movement's distance in scene units (paper, data generation)."""

_DIRECTIONS: Mapping[str, tuple[float, float, float]] = {
    "left": (-1.0, 0.0, 0.0),
    "right": (1.0, 0.0, 0.0),
    "up": (0.0, -1.0, 0.0),
    "zoom_out": (0.0, 0.0, -1.0),
    "zoom_in": (0.0, 0.0, 1.0),
}
_CLOCKWISE_RADII = (0.15, 0.10)
_CLOCKWISE_CIRCLES = 2


def trajectory(
    name: TrajectoryName,
    distance: float,
    frames: int,
    center_depth: float = 1.0,
    initial_world_to_camera: Float[Tensor, "4 4"] | None = None,
) -> Float[Tensor, "time 4 4"]:
    """World-to-camera matrices of one named trajectory.

    Args:
        name: Which movement.
        distance: Its length; linear moves end at ``(frames - 1) / frames`` of it, as published.
        frames: Number of cameras, at least 2.
        center_depth: Depth of the point that the cameras keep facing.
        initial_world_to_camera: The first camera; the identity when None.

    Raises:
        ValueError: ``frames`` is below 2, or the name is unknown.
    """
    if frames < 2:
        raise ValueError(f"a trajectory needs at least 2 frames, got {frames}")
    if name not in TRAJECTORY_NAMES:
        raise ValueError(f"unknown trajectory {name!r}; known: {', '.join(TRAJECTORY_NAMES)}")
    steps = torch.arange(frames, dtype=torch.float64)
    if name == "clockwise":
        angle = 2 * math.pi * _CLOCKWISE_CIRCLES * steps / (frames - 1)
        radius_x, radius_y = (r * distance * center_depth for r in _CLOCKWISE_RADII)
        positions = torch.stack([radius_x * (angle.cos() - 1), radius_y * angle.sin(), torch.zeros_like(angle)], -1)
    else:
        direction = torch.tensor(_DIRECTIONS[name], dtype=torch.float64)
        positions = (steps * distance * center_depth / frames)[:, None] * direction
    look_at = _look_at_center(positions, center_depth)
    if initial_world_to_camera is not None:
        look_at = look_at @ initial_world_to_camera.double()
    return look_at.float()


def _look_at_center(positions: Float[Tensor, "time 3"], center_depth: float) -> Float[Tensor, "time 4 4"]:
    center = positions.new_tensor([0.0, 0.0, center_depth])
    forward = torch.nn.functional.normalize(center - positions, dim=-1)
    down = positions.new_tensor([0.0, 1.0, 0.0]).expand_as(forward)
    right = torch.nn.functional.normalize(torch.linalg.cross(down, forward), dim=-1)
    matrix = torch.eye(4, dtype=positions.dtype).repeat(len(positions), 1, 1)
    matrix[:, :3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=1)
    matrix[:, :3, 3] = -positions
    return matrix


def draw_distance(name: TrajectoryName, seed: int, movement: float = 1.0) -> float:
    """The distance of one trajectory, drawn from its range by seed and name alone.

    Drawn per name, so that running a subset of the trajectories, or resuming, does not change the others.
    """
    low, high = DISTANCE_RANGES[name]
    uniform = noise_generator(seed, f"distance/{name}")
    return movement * (low + (high - low) * torch.rand((), generator=uniform, dtype=torch.float64).item())


def trajectory_cameras(
    name: TrajectoryName,
    distance: float,
    frames: int,
    intrinsics: Float[Tensor, "4"],
    height: int,
    width: int,
) -> Cameras:
    """A named trajectory as cameras that share one set of intrinsics."""
    return Cameras(
        invert_rigid(trajectory(name, distance, frames)), intrinsics.expand(frames, 4).clone(), height, width
    )


def fly_through(distance: float, frames: int, intrinsics: Float[Tensor, "4"], height: int, width: int) -> Cameras:
    """A closed, smooth path through the region that the six trajectories cover, for videos and previews."""
    phase = torch.linspace(0, 2 * math.pi, frames + 1, dtype=torch.float64)[:-1]
    positions = distance * torch.stack(
        [
            0.9 * phase.sin(),
            -0.35 * (2 * phase).sin().clamp(min=-0.5),
            0.6 * (1 - phase.cos()) - 0.4 * phase.sin() ** 2,
        ],
        dim=-1,
    )
    look_at = _look_at_center(positions, 1.0)
    look_at[:, :3, 3] = -torch.einsum("tij,tj->ti", look_at[:, :3, :3], positions)
    return Cameras(invert_rigid(look_at.float()), intrinsics.expand(frames, 4).clone(), height, width)


def noise_generator(seed: int, stream: str) -> torch.Generator:
    """A CPU random generator for one named stream of one seed, the same on every machine."""
    digest = hashlib.sha256(f"{seed}/{stream}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
