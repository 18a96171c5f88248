"""A tokenizer of principal components: what is measurably best at the size of ``mini``."""

from collections.abc import Iterable

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from lyra.tokenizer.tokenizer import LatentSpec, LatentStatistics


class LinearTokenizer(nn.Module):
    """Whitened principal components of causal space-time patches, the first frame apart."""

    first_mean: Float[Tensor, "patch"]
    first_basis: Float[Tensor, "patch channel"]
    later_mean: Float[Tensor, "patches"]
    later_basis: Float[Tensor, "patches channel"]

    def __init__(self, channels: int = 16, temporal: int = 4, spatial: int = 4, latent_frames: int = 5):
        super().__init__()
        self._spec = LatentSpec(channels, temporal, spatial)
        self.statistics = LatentStatistics(channels, latent_frames)
        for name, frames in (("first", 1), ("later", temporal)):
            size = 3 * frames * spatial**2
            self.register_buffer(f"{name}_mean", torch.zeros(size))
            self.register_buffer(f"{name}_basis", torch.eye(size, channels))

    @property
    def spec(self) -> LatentSpec:
        """Channels and compression."""
        return self._spec

    def _patches(self, video: Tensor, frames: int) -> Tensor:
        s = self._spec.spatial
        return rearrange(video, "b c (t p) (h q) (w r) -> b t h w (c p q r)", p=frames, q=s, r=s)

    def encode(
        self, video: Float[Tensor, "batch 3 time height width"]
    ) -> Float[Tensor, "batch channel latent_time latent_height latent_width"]:
        """Raw latents, near unit variance on the data that the basis was fitted to."""
        self._spec.latent_frames(video.shape[2])
        parts = [(self._patches(video[:, :, :1], 1) - self.first_mean) @ _whitening(self.first_basis)]
        if video.shape[2] > 1:
            later = self._patches(video[:, :, 1:], self._spec.temporal)
            parts.append((later - self.later_mean) @ _whitening(self.later_basis))
        return rearrange(torch.cat(parts, dim=1), "b t h w c -> b c t h w")

    def decode(
        self, latents: Float[Tensor, "batch channel latent_time latent_height latent_width"]
    ) -> Float[Tensor, "batch 3 time height width"]:
        """Video of raw latents, not clamped."""
        s = self._spec.spatial
        cells = rearrange(latents, "b c t h w -> b t h w c")
        first = cells[:, :1] @ self.first_basis.mT + self.first_mean
        later = cells[:, 1:] @ self.later_basis.mT + self.later_mean
        pattern = "b t h w (c p q r) -> b c (t p) (h q) (w r)"
        return torch.cat([rearrange(first, pattern, c=3, q=s, r=s), rearrange(later, pattern, c=3, q=s, r=s)], dim=2)

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

    def pixel_weights(self) -> Float[Tensor, "channel 2"]:
        """Mean squared pixel change of a unit change in each channel, for the first and the later frames."""
        return torch.stack([self.first_basis.square().mean(0), self.later_basis.square().mean(0)], dim=-1)


def _whitening(basis: Float[Tensor, "patch channel"]) -> Float[Tensor, "patch channel"]:
    # Columns of the basis are orthogonal with length equal to the component's standard deviation.
    return basis / basis.square().sum(0)


def fit_linear_tokenizer(
    videos: Iterable[Float[Tensor, "batch 3 time height width"]], tokenizer: LinearTokenizer
) -> None:
    """Sets a tokenizer's bases to the principal components of the patches of ``videos`` (in [-1, 1]), in place.

    One pass accumulates means and covariances in float64. Signs are fixed so that the result is unique.
    """
    sums: dict[str, list] = {"first": [0, 0.0, 0.0], "later": [0, 0.0, 0.0]}
    for video in videos:
        patches = {
            "first": tokenizer._patches(video[:, :, :1], 1),
            "later": tokenizer._patches(video[:, :, 1:], tokenizer.spec.temporal),
        }
        for name, patch in patches.items():
            flat = patch.flatten(0, -2).double()
            sums[name][0] += len(flat)
            sums[name][1] += flat.sum(0)
            sums[name][2] += flat.mT @ flat
    for name, (count, total, product) in sums.items():
        mean = total / count
        variance, vectors = torch.linalg.eigh(product / count - torch.outer(mean, mean))
        order = variance.argsort(descending=True)[: tokenizer.spec.channels]
        vectors = vectors[:, order]
        vectors = vectors * torch.where(vectors.sum(0) < 0, -1.0, 1.0)
        scale = variance[order].clamp(min=1e-8).sqrt()
        getattr(tokenizer, f"{name}_mean").copy_(mean)
        getattr(tokenizer, f"{name}_basis").copy_(vectors * scale)
