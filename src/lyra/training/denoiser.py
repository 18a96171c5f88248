"""The teacher's network learns to denoise clips of worlds, given the cache of their first frame."""

from dataclasses import dataclass

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lyra.cache.warp import build_cache
from lyra.device.memory import autocast_training
from lyra.geometry.trajectories import noise_generator
from lyra.teacher import TeacherConfig
from lyra.teacher.conditioning import Condition, condition_network, encode_buffers
from lyra.teacher.residual import coverage, residual_space
from lyra.teacher.sampling import SIGMA_DATA, precondition, sample_euler, schedule_sigmas
from lyra.tokenizer.linear import LinearTokenizer
from lyra.tokenizer.tokenizer import Tokenizer
from lyra.training.world_clips import WorldClip


@dataclass(frozen=True)
class DenoiserObjective:
    """What the denoiser's loss is made of."""

    batch: int = 4
    seed: int = 0
    log_sigma_mean: float = 0.3
    log_sigma_std: float = 1.4
    """Noise levels are log-normal; wide, since few-step sampling visits high levels."""
    drop_condition: float = 0.1
    """Share of clips whose buffers are zeroed, so that guidance has an unconditional pass."""


@dataclass(frozen=True)
class EncodedClips:
    """Clips as the teacher's network sees them, normalized latents in half precision."""

    latents: Float[Tensor, "clip channel time height width"]
    buffers: Float[Tensor, "clip buffer_channel time height width"]
    covered: Float[Tensor, "clip 1 time height width"]
    """Share of a cell's pixels that the cache covers."""


@torch.no_grad()
def encode_clips(clips: list[WorldClip], tokenizer: Tokenizer, teacher: TeacherConfig) -> EncodedClips:
    """Latents of each clip and of the views of its first frame's cache, by true depth."""
    latents, buffers, covered = [], [], []
    for clip in clips:
        signal = clip.signal()
        cache = build_cache(signal[:, :, 0], clip.depth[:1], clip.cameras[:1], teacher.edges, teacher.warp)
        views = teacher.view_cache(cache, clip.cameras)
        latents.append(tokenizer.normalize(tokenizer.encode(signal)).half())
        buffers.append(encode_buffers(tokenizer, views, teacher.max_buffers).half())
        covered.append(coverage(views.masks[:, 0], tokenizer.spec).half())
    return EncodedClips(torch.cat(latents), torch.cat(buffers), torch.cat(covered))


def channel_weights(tokenizer: Tokenizer) -> Float[Tensor, "channel"]:
    """How much each normalized channel counts in the loss: the amplitude of its change in pixels, mean 1.

    All channels are normalised to one variance, but in a linear tokenizer the first carry most of the picture.
    """
    if not isinstance(tokenizer, LinearTokenizer):
        return torch.ones(tokenizer.spec.channels)
    amplitude = tokenizer.pixel_weights()[:, 1].sqrt()
    return amplitude / amplitude.mean()


def denoiser_loss(
    transformer: nn.Module,
    clips: EncodedClips,
    text: Float[Tensor, "text_token text_channel"],
    weights: Float[Tensor, "channel"],
    teacher: TeacherConfig,
    objective: DenoiserObjective,
    step: int,
) -> tuple[Tensor, dict[str, float]]:
    """EDM loss on the latent frames after the first, which is given.

    Source: Karras et al. 2022, equation 8 (its weighting makes it a plain error of the raw network's target).
    """
    generator = noise_generator(objective.seed, f"denoiser/{step}")
    pick = torch.randint(len(clips.latents), (objective.batch,), generator=generator)
    device = next(transformer.parameters()).device
    clean, buffers = clips.latents[pick].float().to(device), clips.buffers[pick].float().to(device)
    importance = weights.to(device)[:, None, None, None].expand_as(clean)
    if teacher.spread is not None:
        space = residual_space(buffers, clips.covered[pick].float().to(device), teacher.spread)
        clean = space.of(clean)
        # The error as it shows in pixels: what the cache leaves open counts most.
        importance = (importance * space.spread).square()
        importance = importance / importance[:, :, 1:].mean((1, 2, 3, 4), keepdim=True)
    keep = (torch.rand(objective.batch, generator=generator) >= objective.drop_condition).to(device)
    spread = torch.randn(objective.batch, generator=generator).to(device)
    sigma = (objective.log_sigma_mean + objective.log_sigma_std * spread).exp()
    noise = torch.randn(clean.shape, generator=generator).to(device) * sigma[:, None, None, None, None]
    noise[:, :, 0] = 0

    condition = Condition(
        clean * _first_frame_mask(clean),
        buffers * keep[:, None, None, None, None],
        text.to(device).expand(objective.batch, *text.shape),
    )
    # Like the sampler: the known frame is scaled as if it carried no noise.
    rescale = ((sigma**2 + SIGMA_DATA**2) ** 0.5 / SIGMA_DATA)[:, None, None, None, None]
    known = _first_frame_mask(clean)
    noisy = torch.where(known.bool(), clean * rescale, clean + noise)
    network = condition_network(transformer, condition, teacher.fps)
    with autocast_training(device):
        estimate = precondition(lambda x, time: network(x, time).float())(noisy, sigma)
    level = sigma[:, None, None, None, None]
    weight = (level**2 + SIGMA_DATA**2) / (level * SIGMA_DATA) ** 2
    error = (weight * (estimate - clean) ** 2)[:, :, 1:]
    loss = (error * importance[:, :, 1:]).mean()
    return loss, {"error": error.mean().item()}


def _first_frame_mask(latents: Tensor) -> Tensor:
    mask = torch.zeros_like(latents)
    mask[:, :, 0] = 1
    return mask


def contact_strip(
    transformer: nn.Module,
    clips: EncodedClips,
    tokenizer: Tokenizer,
    text: Float[Tensor, "text_token text_channel"],
    teacher: TeacherConfig,
    scheduler,
    count: int = 5,
) -> Float[Tensor, "3 height width"]:
    """For some clips a row: first frame, last warped image, last imagined frame, last true frame."""
    rows = []
    for index in range(min(count, len(clips.latents))):
        latents, buffers = clips.latents[index : index + 1].float(), clips.buffers[index : index + 1].float()
        first = latents * _first_frame_mask(latents)
        device = next(transformer.parameters()).device
        condition = Condition(first, buffers, text[None]).to(device)
        network = condition_network(transformer, condition, teacher.fps)
        noise = torch.randn(latents.shape, generator=noise_generator(0, f"sample/{index}"))
        noise, sigmas = noise.to(device), schedule_sigmas(scheduler, teacher.steps).to(device)
        start = condition.first_frame
        imagined = sample_euler(precondition(network), noise, sigmas, start, torch.zeros_like(start)).to(first.device)
        if teacher.spread is not None:
            imagined = residual_space(buffers, clips.covered[index : index + 1].float(), teacher.spread).restore(
                imagined
            )
        frames = [
            tokenizer.decode(tokenizer.denormalize(z))[0] for z in (latents, buffers[:, : latents.shape[1]], imagined)
        ]
        true, warped, drawn = frames
        rows.append(torch.cat([true[:, 0], warped[:, -1], drawn[:, -1], true[:, -1]], dim=-1))
    return (rearrange(torch.stack(rows), "n c h w -> c (n h) w") / 2 + 0.5).clamp(0, 1)
