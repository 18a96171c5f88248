"""The depth network learns from frames of worlds with exact depth."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float, UInt8
from torch import Tensor

from lyra.depth import DepthNet
from lyra.training.world_clips import WorldClip
from lyra.trajectories import noise_generator


@dataclass(frozen=True)
class DepthObjective:
    """What the depth network's loss is made of."""

    batch: int = 8
    seed: int = 0
    gradient_weight: float = 0.05
    """Small: absolute differences have a flat prediction as a local optimum, from which training did not leave."""


@dataclass(frozen=True)
class DepthFrames:
    """Frames with their depth."""

    images: UInt8[Tensor, "frame 3 height width"]
    log_depth: Float[Tensor, "frame height width"]


def collect_frames(clips: list[WorldClip], stride: int = 8) -> DepthFrames:
    """Every ``stride``-th frame of the clips."""
    return DepthFrames(
        torch.cat([clip.video[::stride] for clip in clips]),
        torch.cat([clip.depth[::stride].clamp(min=1e-3).log().half() for clip in clips]),
    )


def depth_loss(
    network: DepthNet, frames: DepthFrames, objective: DepthObjective, step: int
) -> tuple[Tensor, dict[str, float]]:
    """Variance-like error of log depth after the best shift, and absolute error of its differences at four scales.

    Frames are mirrored, cropped and changed in color at random, since real photographs are not lit as worlds are.
    """
    generator = noise_generator(objective.seed, f"depth/{step}")
    pick = torch.randint(len(frames.images), (objective.batch,), generator=generator)
    image, truth = augment(frames.images[pick].float() / 255, frames.log_depth[pick].float(), generator)
    with torch.autocast("cpu", torch.bfloat16):
        prediction = network(image)
    residual = prediction.float() - truth
    residual = residual - residual.mean(dim=(1, 2), keepdim=True)
    # A square near zero and linear far out, so that the few distant pixels do not rule.
    error = torch.nn.functional.huber_loss(residual, torch.zeros_like(residual), delta=0.5)
    gradient_error = torch.zeros(())
    for level in range(4):
        coarse = residual[:, :: 2**level, :: 2**level]
        gradient_error = gradient_error + coarse.diff(dim=1).abs().mean() + coarse.diff(dim=2).abs().mean()
    return 10 * error + objective.gradient_weight * gradient_error, {"log_error": residual.abs().mean().item()}


def augment(
    image: Float[Tensor, "batch 3 height width"],
    log_depth: Float[Tensor, "batch height width"],
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Random mirror, crop, brightness, contrast, tint, gamma and noise."""
    batch, _, height, width = image.shape

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        return low + (high - low) * torch.rand(batch, channels, 1, 1, generator=generator)

    if torch.rand((), generator=generator) < 0.5:
        image, log_depth = image.flip(-1), log_depth.flip(-1)
    zoom = 1 + 0.5 * torch.rand((), generator=generator).item()
    rows, columns = int(height / zoom), int(width / zoom)
    top = int(torch.randint(height - rows + 1, (), generator=generator))
    left = int(torch.randint(width - columns + 1, (), generator=generator))
    window = (slice(top, top + rows), slice(left, left + columns))
    image = torch.nn.functional.interpolate(
        image[:, :, *window], size=(height, width), mode="bilinear", align_corners=False
    )
    log_depth = torch.nn.functional.interpolate(log_depth[:, None, *window], size=(height, width), mode="nearest")[:, 0]
    image = image.clamp(1e-4, 1) ** draw(0.6, 1.6)
    image = (image - 0.5) * draw(0.6, 1.4) + 0.5 + draw(-0.15, 0.15) + draw(-0.08, 0.08, 3)
    image = image + draw(0.0, 0.03) * torch.randn(image.shape, generator=generator)
    return image.clamp(0, 1), log_depth


def depth_strip(network: DepthNet, frames: DepthFrames, count: int = 4) -> Float[Tensor, "3 height width"]:
    """Image, predicted and true log depth of some frames, a row each."""
    image = frames.images[:count].float() / 255
    maps = [network(image), frames.log_depth[:count].float()]
    gray = [((m - m.flatten(1).median(1).values[:, None, None]) / 3 + 0.5)[:, None].expand_as(image) for m in maps]
    return rearrange(torch.cat([image, *gray], dim=-1), "n c h w -> c (n h) w").clamp(0, 1)
