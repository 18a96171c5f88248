"""What the teacher's network is given besides noise: the GEN3C input layout.

Channels, in order: noisy latent 16 | condition mask 1 | buffer 0 image 16 | buffer 0 mask 16 | buffer 1 image 16 |
buffer 1 mask 16 | padding 1. Buffers that hold nothing are zero *latents*, not encoded black.

Source: ``encode_warped_frames`` and the 82-channel patch embedding of GEN3C; goldens ``gen3c_dit``, ``gen3c_sampler``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from einops import rearrange, repeat
from jaxtyping import Float
from torch import Tensor, nn

from lyra.cache.warp import CacheViews
from lyra.teacher.residual import Residual
from lyra.teacher.sampling import Network
from lyra.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Condition:
    """One clip's conditioning in normalized latents."""

    first_frame: Float[Tensor, "batch channel time height width"]
    """The input view's latent at the first latent frame, zero after it."""
    buffers: Float[Tensor, "batch buffer_channel time height width"]
    """Image and mask latents of every buffer."""
    text: Float[Tensor, "batch text_token text_channel"]
    """Text embedding."""
    space: Residual | None = None
    """Where the small teacher denoises instead of in normalized latents."""

    def without_camera(self, negative_text: Float[Tensor, "batch text_token text_channel"]) -> "Condition":
        """The unconditional twin: negative text and zeroed buffers, the first frame kept."""
        return Condition(self.first_frame, torch.zeros_like(self.buffers), negative_text, self.space)

    def to(self, device: torch.device | str) -> "Condition":
        """Moves it to a device."""
        space = self.space and Residual(self.space.suggested.to(device), self.space.spread.to(device))
        return Condition(self.first_frame.to(device), self.buffers.to(device), self.text.to(device), space)


def stack_conditions(conditions: Sequence[Condition]) -> Condition:
    """Conditions of several clips as one batch."""
    if len(conditions) == 1:
        return conditions[0]
    spaces = [condition.space for condition in conditions if condition.space is not None]
    return Condition(
        torch.cat([condition.first_frame for condition in conditions]),
        torch.cat([condition.buffers for condition in conditions]),
        torch.cat([condition.text for condition in conditions]),
        Residual(torch.cat([s.suggested for s in spaces]), torch.cat([s.spread for s in spaces])) if spaces else None,
    )


def encode_buffers(
    tokenizer: Tokenizer, views: CacheViews, max_buffers: int
) -> Float[Tensor, "1 buffer_channel time height width"]:
    """Normalized latents of the warped images and their masks, in buffer order, zeros for missing buffers.

    Raises:
        ValueError: the views have more buffers than the teacher takes.
    """
    count = views.images.shape[1]
    if count > max_buffers:
        raise ValueError(f"{count} cache buffers, but this teacher takes {max_buffers}")
    images = rearrange(views.images, "t n c h w -> n c t h w")
    masks = repeat(views.masks * 2 - 1, "t n h w -> n 3 t h w").to(images.dtype)
    interleaved = rearrange(torch.stack([images, masks], dim=1), "n two c t h w -> (n two) c t h w")
    # One signal at a time keeps the peak memory of a large tokenizer at that of one video.
    latents = torch.cat([tokenizer.normalize(tokenizer.encode(signal[None])) for signal in interleaved])
    latents = rearrange(latents, "n c t h w -> (n c) t h w")
    missing = (max_buffers - count) * 2 * tokenizer.spec.channels
    empty = latents.new_zeros(missing, *latents.shape[1:])
    return torch.cat([latents, empty])[None]


def encode_first_frame(
    tokenizer: Tokenizer, image: Float[Tensor, "3 height width"], latent_frames: int
) -> Float[Tensor, "1 channel latent_time latent_height latent_width"]:
    """Normalized latent of the input image (in [-1, 1]) at the first latent frame, zero after it.

    The tokenizer is causal, so encoding the one frame equals encoding it with black frames behind it.
    """
    latent = tokenizer.normalize(tokenizer.encode(image[None, :, None]))
    return torch.cat([latent, latent.new_zeros(1, latent.shape[1], latent_frames - 1, *latent.shape[3:])], dim=2)


def condition_network(transformer: nn.Module, condition: Condition, fps: float) -> Network:
    """A ``CosmosTransformer3DModel`` with its conditioning bound, as F(c_in x, c_noise).

    The network works in the type of its weights; what goes in and comes out keeps the sampler's.
    """
    mask = torch.zeros_like(condition.first_frame[:, :1])
    mask[:, :, 0] = 1
    padding = torch.zeros_like(mask)
    dtype = getattr(transformer, "dtype", condition.first_frame.dtype)
    text = condition.text.to(dtype)

    def network(x: Tensor, time: Tensor) -> Tensor:
        layout = torch.cat([x, mask, condition.buffers, padding], dim=1).to(dtype)
        return transformer(layout, time, text, fps=fps, return_dict=False)[0].to(x.dtype)

    return network
