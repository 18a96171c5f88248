"""The published tokenizer: diffusers' ``AutoencoderKLCosmos``."""

from typing import Any

from diffusers import AutoencoderKLCosmos
from jaxtyping import Float
from torch import Tensor, nn

from lyra.tokenizer.tokenizer import LatentSpec, LatentStatistics


class CosmosTokenizer(nn.Module):
    """diffusers' ``AutoencoderKLCosmos`` behind the tokenizer interface, with GEN3C's statistics."""

    def __init__(self, vae: AutoencoderKLCosmos, latent_frames: int = 16):
        super().__init__()
        self.vae = vae
        config: Any = vae.config
        self._spec = LatentSpec(
            config.latent_channels, config.temporal_compression_ratio, config.spatial_compression_ratio
        )
        self.statistics = LatentStatistics(config.latent_channels, latent_frames)

    @property
    def spec(self) -> LatentSpec:
        """Channels and compression."""
        return self._spec

    def encode(
        self, video: Float[Tensor, "batch 3 time height width"]
    ) -> Float[Tensor, "batch channel latent_time latent_height latent_width"]:
        """Raw latents (the encoder is deterministic)."""
        self._spec.latent_frames(video.shape[2])
        posterior: Any = self.vae.encode(video, return_dict=False)[0]
        return posterior.mode()

    def decode(
        self, latents: Float[Tensor, "batch channel latent_time latent_height latent_width"]
    ) -> Float[Tensor, "batch 3 time height width"]:
        """Video of raw latents, not clamped."""
        return self.vae.decode(latents, return_dict=False)[0]

    def normalize(
        self, latents: Float[Tensor, "*batch channel latent_time h w"]
    ) -> Float[Tensor, "*batch channel latent_time h w"]:
        """Raw to normalized latents."""
        return self.statistics.normalize(latents)

    def denormalize(
        self, latents: Float[Tensor, "*batch channel latent_time h w"]
    ) -> Float[Tensor, "*batch channel latent_time h w"]:
        """Normalized to raw latents."""
        return self.statistics.denormalize(latents)
