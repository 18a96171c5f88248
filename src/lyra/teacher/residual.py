"""The small teacher's space: the difference of a clip to what the cache suggests.

A small network cannot carry all of a picture's detail from its input to its output. Where the cache has points its
warped picture already is the answer but for little; so ``mini``'s teacher denoises the difference to it, in units of
how large that difference usually is, with and without points. The published teacher denoises the latents themselves.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lyra.teacher.sampling import SIGMA_DATA
from lyra.tokenizer.tokenizer import LatentSpec

Spread = tuple[tuple[float, ...], tuple[float, ...]]
"""Standard deviations per channel: where the cache has points, and in its holes."""


@dataclass(frozen=True)
class Residual:
    """The map between normalized latents and differences to the cache; the identity at the first latent frame."""

    suggested: Float[Tensor, "batch channel time height width"]
    """The cache's own latents."""
    spread: Float[Tensor, "batch channel time height width"]
    """Standard deviation of clean latents around them."""

    def of(self, latents: Float[Tensor, "batch channel time height width"]) -> Tensor:
        """Latents to differences of standard deviation ``SIGMA_DATA``."""
        return (latents - self.suggested) / self.spread * SIGMA_DATA

    def restore(self, difference: Float[Tensor, "batch channel time height width"]) -> Tensor:
        """Differences back to latents."""
        return difference / SIGMA_DATA * self.spread + self.suggested


def coverage(
    masks: Float[Tensor, "time height width"], spec: LatentSpec
) -> Float[Tensor, "1 1 latent_time latent_height latent_width"]:
    """Share of each latent cell's pixels that the cache covers."""
    spatial = F.avg_pool2d(masks[:, None], spec.spatial)
    later = spatial[1:].unflatten(0, (-1, spec.temporal)).mean(1)
    return torch.cat([spatial[:1], later]).movedim(1, 0)[None]


def residual_space(
    buffers: Float[Tensor, "batch buffer_channel time height width"],
    covered: Float[Tensor, "batch 1 time height width"],
    spread: Spread,
) -> Residual:
    """The space of clips with the given conditioning; the first buffer's picture is what the cache suggests."""
    known, unknown = (buffers.new_tensor(values).square()[:, None, None, None] for values in spread)
    deviation = (covered * known + (1 - covered) * unknown).sqrt()
    suggested = buffers[:, : len(known)].clone()
    suggested[:, :, 0], deviation[:, :, 0] = 0, SIGMA_DATA
    return Residual(suggested, deviation)


def measure_spread(
    latents: Float[Tensor, "batch channel time height width"],
    suggested: Float[Tensor, "batch channel time height width"],
    covered: Float[Tensor, "batch 1 time height width"],
) -> Spread:
    """Root mean square of the difference per channel, over cells that are all covered and over cells that are not."""
    squared = (latents - suggested)[:, :, 1:].float().square()
    share = covered[:, :, 1:]

    def mean(mask: Tensor) -> tuple[float, ...]:
        weight = mask.expand_as(squared[:, :1]).float()
        return tuple(((squared * weight).sum((0, 2, 3, 4)) / weight.sum().clamp(min=1)).sqrt().clamp(min=1e-3).tolist())

    return mean(share > 0.99), mean(share < 0.5)
