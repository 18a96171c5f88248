"""Video tokenizers: video in [-1, 1] to latents and back, causal in time.

A tokenizer of temporal compression t turns ``1 + t * n`` frames into ``1 + n`` latent frames; the first frame stands
alone, so a still image is a one-frame video. Two stand behind one interface: ``CosmosTokenizer`` (the published
networks) and ``LinearTokenizer`` (a principal-component projection of space-time patches, which at the size of
``mini`` is better than any small network that was trained in minutes).

"Raw" latents are what ``encode`` gives and the 3DGS decoder reads. "Normalized" latents have half unit standard
deviation in every channel and latent frame (``sigma_data`` = 0.5); the teacher lives in them and clips store them.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class LatentSpec:
    """Shape of a tokenizer's latents."""

    channels: int = 16
    temporal: int = 8
    """Frames after the first that share one latent frame."""
    spatial: int = 8
    """Pixels of one latent cell's side."""

    def latent_frames(self, frames: int) -> int:
        """Latent frames of a video; ``frames`` must be 1 modulo the temporal compression."""
        if frames < 1 or (frames - 1) % self.temporal:
            raise ValueError(f"{frames} frames: this tokenizer takes 1 + {self.temporal} n frames")
        return 1 + (frames - 1) // self.temporal


@runtime_checkable
class Tokenizer(Protocol):
    """What the teacher, the student and the training need of a tokenizer."""

    @property
    def spec(self) -> LatentSpec:
        """Channels and compression."""
        ...

    def encode(
        self, video: Float[Tensor, "batch 3 time height width"]
    ) -> Float[Tensor, "batch channel latent_time latent_height latent_width"]:
        """Raw latents of a video (or any three-channel signal) nominally in [-1, 1]."""
        ...

    def decode(
        self, latents: Float[Tensor, "batch channel latent_time latent_height latent_width"]
    ) -> Float[Tensor, "batch 3 time height width"]:
        """Video of raw latents, not clamped."""
        ...

    def normalize(
        self, latents: Float[Tensor, "*batch channel latent_time h w"]
    ) -> Float[Tensor, "*batch channel latent_time h w"]:
        """Raw to normalized latents."""
        ...

    def denormalize(
        self, latents: Float[Tensor, "*batch channel latent_time h w"]
    ) -> Float[Tensor, "*batch channel latent_time h w"]:
        """Normalized to raw latents."""
        ...


class LatentStatistics(nn.Module):
    """Mean and standard deviation per channel and latent frame, and the fixed factor 0.5.

    Source: Cosmos' ``mean_std.pt`` holds 16 x 16 values; the factor is EDM's ``sigma_data``. Videos longer than the
    statistics use those of the last latent frame.
    """

    mean: Float[Tensor, "channel latent_time"]
    std: Float[Tensor, "channel latent_time"]

    def __init__(self, channels: int, latent_frames: int, sigma_data: float = 0.5):
        super().__init__()
        self.sigma_data = sigma_data
        self.register_buffer("mean", torch.zeros(channels, latent_frames))
        self.register_buffer("std", torch.ones(channels, latent_frames))

    def _at(self, statistic: Tensor, latents: Tensor) -> Tensor:
        # Where the latents are: a few numbers move more quickly than a network that they belong to.
        frame = torch.arange(latents.shape[-3], device=statistic.device).clamp(max=statistic.shape[1] - 1)
        return statistic[:, frame, None, None].to(latents)

    def normalize(
        self, latents: Float[Tensor, "*batch channel latent_time h w"]
    ) -> Float[Tensor, "*batch channel latent_time h w"]:
        """Raw to normalized latents."""
        return (latents - self._at(self.mean, latents)) / self._at(self.std, latents) * self.sigma_data

    def denormalize(
        self, latents: Float[Tensor, "*batch channel latent_time h w"]
    ) -> Float[Tensor, "*batch channel latent_time h w"]:
        """Normalized to raw latents."""
        return latents / self.sigma_data * self._at(self.std, latents) + self._at(self.mean, latents)


def encode_frames(
    tokenizer: Tokenizer, frames: Float[Tensor, "time 3 height width"]
) -> Float[Tensor, "channel latent_time latent_height latent_width"]:
    """Normalized latents of pictures in [0, 1]."""
    with torch.no_grad():
        return tokenizer.normalize(tokenizer.encode((frames * 2 - 1).movedim(0, 1)[None]))[0]


def decode_frames(
    tokenizer: Tokenizer, latents: Float[Tensor, "channel latent_time latent_height latent_width"]
) -> Float[Tensor, "time 3 height width"]:
    """Pictures in [0, 1] of normalized latents."""
    with torch.no_grad():
        video = tokenizer.decode(tokenizer.denormalize(latents[None]))[0]
    return (video.movedim(1, 0) / 2 + 0.5).clamp(0, 1)
