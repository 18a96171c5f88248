"""Clips of moving worlds: what is learned about things that move."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.worlds.motion import render_moving_world, sample_moving_world


@dataclass(frozen=True)
class MovingClip:
    """A posed clip of a moving world with exact depth."""

    video: UInt8[Tensor, "time 3 height width"]
    depth: Float[Tensor, "time height width"]
    """Z-depth, scene units."""
    moving: Bool[Tensor, "time height width"]
    """Pixels that show something that moves."""
    cameras: Cameras
    times: Float[Tensor, "time"]
    """When each frame is seen, in [0, 1]."""

    def signal(self) -> Float[Tensor, "1 3 time height width"]:
        """The video in [-1, 1], as tokenizers take it."""
        return (self.video.float() / 127.5 - 1).movedim(0, 1)[None]


def render_moving_clip(seed: int, cameras: Cameras, times: Float[Tensor, "time"]) -> MovingClip:
    """The moving world of a seed, seen by camera i at time i (in [0, 1], in any order).

    Seeds below ``input_views.FIRST_TRAINING_SEED`` are for tests and evaluation.
    """
    color, depth, moving = render_moving_world(sample_moving_world(seed), cameras, times)
    return MovingClip((color * 255).round().to(torch.uint8), depth, moving, cameras, times)


def render_source_video(seed: int, frames: int, height: int, width: int, fov: float = 55.0) -> MovingClip:
    """What a user's video would be: the input camera stands still while time runs from 0 to 1."""
    pose = torch.eye(4).expand(frames, 4, 4)
    cameras = Cameras(pose, intrinsics_from_fov(fov, height, width).expand(frames, 4), height, width)
    return render_moving_clip(seed, cameras, torch.linspace(0, 1, frames))
