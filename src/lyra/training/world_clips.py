"""Clips of procedural worlds on disk: what tokenizer, depth network and denoiser learn from.

One file a world: ``video`` uint8 [clip time 3 height width], ``depth`` float16 [clip time height width],
``camera_to_world`` [clip time 4 4], ``intrinsics`` [4].
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm import tqdm

from lyra.files import load_tensors, save_tensors
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.trajectories import TRAJECTORY_NAMES, draw_distance, noise_generator, trajectory_cameras
from lyra.worlds import render_world, sample_world

FIRST_IMAGE_SEED = 200_000
"""From here on worlds give the single images of self-distillation and nothing else."""
FIRST_VIDEO_SEED = 300_000
"""From here on moving worlds give its videos."""


@dataclass(frozen=True)
class WorldClip:
    """A posed clip with exact depth."""

    video: UInt8[Tensor, "time 3 height width"]
    depth: Float[Tensor, "time height width"]
    cameras: Cameras

    def signal(self) -> Float[Tensor, "1 3 time height width"]:
        """The video in [-1, 1], as tokenizers take it."""
        return (self.video.float() / 127.5 - 1).movedim(0, 1)[None]


def render_world_clip(seed: int, index: int, frames: int, height: int, width: int, fov: float) -> WorldClip:
    """Clip ``index`` of a world: one of the paper's six movements, drawn by seed."""
    generator = noise_generator(seed, f"clip/{index}")
    start = int(torch.randint(len(TRAJECTORY_NAMES), (), generator=noise_generator(seed, "clips")))
    name = TRAJECTORY_NAMES[(start + index) % len(TRAJECTORY_NAMES)]
    movement = 0.7 + 0.6 * torch.rand((), generator=generator).item()
    cameras = trajectory_cameras(
        name,
        draw_distance(name, seed, movement),
        frames,
        intrinsics_from_fov(fov, height, width),
        height,
        width,
    )
    color, depth = render_world(sample_world(seed), cameras)
    return WorldClip((color * 255).round().to(torch.uint8), depth, cameras)


def prepare_world_clips(
    folder: Path, seeds: range, clips: int, frames: int, height: int, width: int, fov: float = 55.0
) -> list[Path]:
    """Renders the worlds that ``folder`` lacks; returns one path a world in the order of ``seeds``."""
    paths = [folder / f"{seed:07d}.safetensors" for seed in seeds]
    missing = [(seed, path) for seed, path in zip(seeds, paths, strict=True) if not path.exists()]
    for seed, path in tqdm(missing, desc="worlds", disable=not missing):
        rendered = [render_world_clip(seed, index, frames, height, width, fov) for index in range(clips)]
        tensors = {
            "video": torch.stack([clip.video for clip in rendered]),
            "depth": torch.stack([clip.depth for clip in rendered]).half(),
            "camera_to_world": torch.stack([clip.cameras.camera_to_world for clip in rendered]),
            "intrinsics": rendered[0].cameras.intrinsics[0].clone(),
        }
        save_tensors(tensors, path)
    return paths


def load_world_clips(paths: list[Path]) -> Iterator[WorldClip]:
    """All clips of the given worlds, in order."""
    for path in paths:
        tensors = load_tensors(path)
        height, width = tensors["video"].shape[-2:]
        for video, depth, pose in zip(
            tensors["video"], tensors["depth"].float(), tensors["camera_to_world"], strict=True
        ):
            intrinsics = tensors["intrinsics"].expand(len(pose), 4)
            yield WorldClip(video, depth, Cameras(pose, intrinsics, height, width))
