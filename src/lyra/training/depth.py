"""The depth network learns from single views of worlds with exact depth."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, UInt8
from torch import Generator, Tensor
from tqdm import tqdm

from lyra.depth import DepthNet
from lyra.device.memory import autocast_training
from lyra.files import load_tensors, save_tensors
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.sky import is_sky
from lyra.geometry.trajectories import noise_generator
from lyra.worlds import render_moving_world, render_world, sample_close_up, sample_moving_world, sample_world

FIRST_MOVING_VIEW_SEED = 350_000
"""From here on moving worlds give views to learn depth from."""
FIRST_CLOSE_UP_SEED = 400_000
"""From here on close-ups do."""


@dataclass(frozen=True)
class DepthObjective:
    """What the depth network's loss is made of."""

    batch: int = 8
    seed: int = 0
    gradient_weight: float = 0.4
    """Not much more: absolute differences have a flat prediction as a local optimum, which training would not leave."""
    sky_weight: float = 0.5


@dataclass(frozen=True)
class DepthFrames:
    """Views of worlds."""

    images: UInt8[Tensor, "frame 3 height width"]
    depth: Float[Tensor, "frame height width"]
    """Z-depth; ``MAX_DEPTH`` is sky."""


def render_frame(seed: int, size: int) -> tuple[UInt8[Tensor, "3 height width"], Float[Tensor, "height width"]]:
    """The input view of a world, at a field of view between 40 and 75 degrees, a little moved and turned.

    Seeds from ``FIRST_MOVING_VIEW_SEED`` on are of moving worlds, which have people and animals, at some time, and from
    ``FIRST_CLOSE_UP_SEED`` on of one large thing.
    """
    generator = noise_generator(seed, "depth view")
    draw = torch.rand(4, generator=generator)
    turn, tilt = ((draw[:2] - 0.5) * 0.3).tolist()
    pose = torch.eye(4)
    cos, sin = torch.tensor(turn).cos(), torch.tensor(turn).sin()
    yaw = torch.tensor([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
    cos, sin = torch.tensor(tilt).cos(), torch.tensor(tilt).sin()
    pose[:3, :3] = yaw @ torch.tensor([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])
    camera = Cameras(pose[None], intrinsics_from_fov(view_fov(seed), size, size)[None], size, size)
    if seed >= FIRST_CLOSE_UP_SEED:
        color, depth = render_world(sample_close_up(seed), camera)
    elif seed >= FIRST_MOVING_VIEW_SEED:
        color, depth, _ = render_moving_world(sample_moving_world(seed), camera, draw[3:])
    else:
        color, depth = render_world(sample_world(seed), camera)
    return (color[0] * 255).round().to(torch.uint8), depth[0]


def view_fov(seed: int) -> float:
    """Field of view of ``render_frame``'s picture in degrees."""
    return 40 + 35 * torch.rand(4, generator=noise_generator(seed, "depth view"))[2].item()


def prepare_frames(folder: Path, seeds: Sequence[int], size: int) -> DepthFrames:
    """Views of the given worlds, rendered on first use, one file a world."""
    images, depths = [], []
    for seed in tqdm(seeds, desc="views"):
        path = folder / f"{seed:07d}.safetensors"
        if not path.exists():
            image, depth = render_frame(seed, size)
            save_tensors({"image": image, "depth": depth.half()}, path)
        tensors = load_tensors(path)
        images.append(tensors["image"])
        depths.append(tensors["depth"])
    return DepthFrames(torch.stack(images), torch.stack(depths))


FROZEN_STAGES = 3
"""Of the encoder: edges and textures are ImageNet's, and most of a step's time would go into their gradients."""


def freeze_early_stages(network: DepthNet) -> None:
    """Keeps the encoder's first stages as they are, and lays all weights out as the CPU's convolutions like them."""
    network.encoder.stem.requires_grad_(False)
    network.encoder.stages[:FROZEN_STAGES].requires_grad_(False)
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]


def depth_loss(
    network: DepthNet, frames: DepthFrames, objective: DepthObjective, step: int
) -> tuple[Tensor, dict[str, float]]:
    """Error of log depth after the best shift and of its differences at four scales, and the sky's cross entropy.

    Frames are mirrored, cropped, blurred and changed in color at random, since photographs are not lit as worlds are.
    """
    generator = noise_generator(objective.seed, f"depth/{step}")
    pick = torch.randint(len(frames.images), (objective.batch,), generator=generator)
    image, truth, valid = augment(
        frames.images[pick].float() / 255, frames.depth[pick].float(), network.config.size, generator
    )
    device = next(network.parameters()).device
    image, truth, valid = image.to(device), truth.to(device), valid.to(device)
    with autocast_training(device):
        output = network(image.contiguous(memory_format=torch.channels_last))
    log_depth, sky = output.float().unbind(1)
    residual = log_depth - truth.log()
    count = valid.sum((1, 2), keepdim=True).clamp(min=1)
    residual = (residual - (residual * valid).sum((1, 2), keepdim=True) / count) * valid
    # A square near zero and linear far out, so that the few distant pixels do not rule.
    error = F.huber_loss(residual, torch.zeros_like(residual), delta=0.5)
    gradient_error = residual.new_zeros(())
    for level in range(4):
        coarse, known = residual[:, :: 2**level, :: 2**level], valid[:, :: 2**level, :: 2**level]
        for axis in (1, 2):
            both = known.narrow(axis, 1, known.shape[axis] - 1) & known.narrow(axis, 0, known.shape[axis] - 1)
            gradient_error = gradient_error + (coarse.diff(dim=axis).abs() * both).mean()
    sky_error = F.binary_cross_entropy_with_logits(sky, (~valid).float())
    loss = 10 * error + objective.gradient_weight * gradient_error + objective.sky_weight * sky_error
    log_error = residual.abs().sum() / valid.sum().clamp(min=1)
    return loss, {"log_error": log_error.item(), "sky": sky_error.item()}


def augment(
    image: Float[Tensor, "batch 3 height width"],
    depth: Float[Tensor, "batch height width"],
    size: int,
    generator: Generator,
) -> tuple[Float[Tensor, "batch 3 size size"], Float[Tensor, "batch size size"], Bool[Tensor, "batch size size"]]:
    """Random mirror, crop, blur, brightness, contrast, tint, gamma and noise.

    Returns:
        Image, depth, and where there is no sky.
    """
    batch, _, height, width = image.shape

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        return low + (high - low) * torch.rand(batch, channels, 1, 1, generator=generator)

    if torch.rand((), generator=generator) < 0.5:
        image, depth = image.flip(-1), depth.flip(-1)
    zoom = 1 + 0.5 * torch.rand((), generator=generator).item()
    rows, columns = int(height / zoom), int(width / zoom)
    top = int(torch.randint(height - rows + 1, (), generator=generator))
    left = int(torch.randint(width - columns + 1, (), generator=generator))
    window = (slice(top, top + rows), slice(left, left + columns))
    image, depth = image[:, :, *window], depth[:, None, *window]
    # The network is also given pictures of the model's own size, enlarged.
    if torch.rand((), generator=generator) < 0.5:
        coarse = int(torch.randint(96, size, (), generator=generator)) if size > 96 else size
        image = F.interpolate(image, size=(coarse, coarse), mode="bilinear", antialias=True, align_corners=False)
    image = F.interpolate(image, size=(size, size), mode="bicubic", antialias=True, align_corners=False)
    depth = F.interpolate(depth, size=(size, size), mode="nearest")[:, 0]
    image = image.clamp(1e-4, 1) ** draw(0.6, 1.6)
    image = (image - 0.5) * draw(0.6, 1.4) + 0.5 + draw(-0.15, 0.15) + draw(-0.08, 0.08, 3)
    image = image + draw(0.0, 0.03) * torch.randn(image.shape, generator=generator)
    return image.clamp(0, 1), depth.clamp(min=1e-3), ~is_sky(depth)


@torch.no_grad()
def depth_strip(network: DepthNet, frames: DepthFrames, count: int = 6) -> Float[Tensor, "3 height width"]:
    """Image, predicted and true inverse depth of some frames, a row each; sky is black."""
    rows = []
    for image, depth in zip(frames.images[:count], frames.depth[:count].float(), strict=True):
        picture = image.float() / 255
        prediction = network.predict(picture)
        known = ~is_sky(depth)
        maps = [prediction.valid / prediction.depth, known * depth[known].median() / depth]
        rows.append(torch.cat([picture, *(m.mul(0.5).expand(3, -1, -1) for m in maps)], dim=-1))
    return rearrange(torch.stack(rows), "n c h w -> c (n h) w").clamp(0, 1)
