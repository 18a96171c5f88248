"""A tokenizer that works on another device, in tiles and in stretches of time, for less memory.

diffusers' own ``enable_tiling`` has no effect on ``AutoencoderKLCosmos`` (0.42 sets the flag and never reads it).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lyra.device.memory import Placement
from lyra.tokenizer.tokenizer import LatentSpec, Tokenizer


@dataclass(frozen=True)
class Tiling:
    """Sizes in latent cells and latent frames."""

    side: int = 64
    """Of a tile; 64 cells are 512 pixels of the published tokenizer."""
    overlap: int = 8
    """Of neighbouring tiles, blended linearly."""
    frames: int = 8
    """Latent frames at a time."""
    context: int = 2
    """Earlier latent frames that a stretch is given besides; at least 1, since a first frame is special."""

    def __post_init__(self) -> None:
        if not 0 < self.overlap < self.side or self.context < 1 or self.frames < 1:
            raise ValueError(f"tiles need 0 < overlap < side, frames and context of at least 1: {self}")


class TiledTokenizer:
    """Any tokenizer, tile by tile. Exact for tokenizers of local patches, close for the published one, whose norms and
    attention span what they are given.
    """

    def __init__(self, tokenizer: Tokenizer, tiling: Tiling):
        self.tokenizer = tokenizer
        self.tiling = tiling

    @property
    def spec(self) -> LatentSpec:
        """Channels and compression."""
        return self.tokenizer.spec

    def encode(
        self, video: Float[Tensor, "batch 3 time height width"]
    ) -> Float[Tensor, "batch channel latent_time latent_height latent_width"]:
        """Raw latents of a video (or any three-channel signal) nominally in [-1, 1]."""
        spec, step = self.spec, self.spec.temporal
        parts = []
        for first, start, end in self._stretches(spec.latent_frames(video.shape[2])):
            clip = video[:, :, first * step : (end - 1) * step + 1]
            parts.append(self._tile(self.tokenizer.encode, clip, spec.spatial, 1)[:, :, start - first :])
        return torch.cat(parts, dim=2)

    def decode(
        self, latents: Float[Tensor, "batch channel latent_time latent_height latent_width"]
    ) -> Float[Tensor, "batch 3 time height width"]:
        """Video of raw latents, not clamped."""
        spec = self.spec
        parts = []
        for first, start, end in self._stretches(latents.shape[2]):
            video = self._tile(self.tokenizer.decode, latents[:, :, first:end], 1, spec.spatial)
            known = 1 + (start - 1 - first) * spec.temporal if start else 0
            parts.append(video[:, :, known:])
        return torch.cat(parts, dim=2)

    def normalize(
        self, latents: Float[Tensor, "*batch channel latent_time h w"]
    ) -> Float[Tensor, "*batch channel latent_time h w"]:
        """Raw to normalized latents."""
        return self.tokenizer.normalize(latents)

    def denormalize(
        self, latents: Float[Tensor, "*batch channel latent_time h w"]
    ) -> Float[Tensor, "*batch channel latent_time h w"]:
        """Normalized to raw latents."""
        return self.tokenizer.denormalize(latents)

    def _stretches(self, frames: int) -> list[tuple[int, int, int]]:
        """First latent frame to read, first to keep, and end, of every stretch."""
        size, context = self.tiling.frames, self.tiling.context
        return [(max(0, s - context), s, min(s + size, frames)) for s in range(0, frames, size)]

    def _tile(self, function: Callable[[Tensor], Tensor], signal: Tensor, grid_in: int, grid_out: int) -> Tensor:
        """Applies a function to overlapping tiles; one latent cell is so many samples on either side."""
        side = self.tiling.side
        rows, columns = signal.shape[-2] // grid_in, signal.shape[-1] // grid_in
        if rows <= side and columns <= side:
            return function(signal)
        total, weight = None, None
        for top in _starts(rows, side, self.tiling.overlap):
            for left in _starts(columns, side, self.tiling.overlap):
                bottom, right = min(top + side, rows), min(left + side, columns)
                tile = function(signal[..., top * grid_in : bottom * grid_in, left * grid_in : right * grid_in])
                share = torch.outer(
                    _ramp(bottom - top, top > 0, bottom < rows, self.tiling.overlap, grid_out),
                    _ramp(right - left, left > 0, right < columns, self.tiling.overlap, grid_out),
                ).to(tile)
                if total is None or weight is None:
                    total = tile.new_zeros(*tile.shape[:-2], rows * grid_out, columns * grid_out)
                    weight = total.new_zeros(total.shape[-2:])
                place = (slice(top * grid_out, bottom * grid_out), slice(left * grid_out, right * grid_out))
                total[(..., *place)] += tile * share
                weight[place] += share
        assert total is not None and weight is not None
        return total / weight


class HostedTokenizer:
    """A tokenizer that lives where a placement says, for callers on the CPU."""

    def __init__(self, tokenizer: Tokenizer, placement: Placement):
        self.tokenizer = tokenizer
        self.placement = placement
        side = max(2, placement.tile // tokenizer.spec.spatial)
        tiling = Tiling(side=side, overlap=max(1, side // 8))
        self.worker = TiledTokenizer(tokenizer, tiling) if placement.tile else tokenizer

    @property
    def spec(self) -> LatentSpec:
        """Channels and compression."""
        return self.tokenizer.spec

    def encode(
        self, video: Float[Tensor, "batch 3 time height width"]
    ) -> Float[Tensor, "batch channel latent_time latent_height latent_width"]:
        """Raw latents of a video (or any three-channel signal) nominally in [-1, 1]."""
        return self._run(self.worker.encode, video)

    def decode(
        self, latents: Float[Tensor, "batch channel latent_time latent_height latent_width"]
    ) -> Float[Tensor, "batch 3 time height width"]:
        """Video of raw latents, not clamped."""
        return self._run(self.worker.decode, latents)

    def normalize(
        self, latents: Float[Tensor, "*batch channel latent_time h w"]
    ) -> Float[Tensor, "*batch channel latent_time h w"]:
        """Raw to normalized latents."""
        return self.tokenizer.normalize(latents)

    def denormalize(
        self, latents: Float[Tensor, "*batch channel latent_time h w"]
    ) -> Float[Tensor, "*batch channel latent_time h w"]:
        """Normalized to raw latents."""
        return self.tokenizer.denormalize(latents)

    def _run(self, function: Callable[[Tensor], Tensor], signal: Tensor) -> Tensor:
        with torch.no_grad(), self.placement.hosting(self.tokenizer), self.placement.autocast():
            return function(signal.to(self.placement.device)).to(signal)


def place_tokenizer(tokenizer: Tokenizer, placement: Placement) -> Tokenizer:
    """The tokenizer as a placement wants it, for callers on the CPU; itself where nothing is wanted."""
    if placement.device == "cpu" and not placement.tile and placement.precision == "float32":
        return tokenizer
    return HostedTokenizer(tokenizer, placement)


def _starts(length: int, side: int, overlap: int) -> list[int]:
    """Evenly spaced tiles that overlap by at least so much, the last one ending at the border."""
    if length <= side:
        return [0]
    count = math.ceil((length - overlap) / (side - overlap))
    return [round(index * (length - side) / (count - 1)) for index in range(count)]


def _ramp(cells: int, rises: bool, falls: bool, overlap: int, grid: int) -> Float[Tensor, "sample"]:
    """Weights of a tile's samples along one side: up to 1 over the overlap, and down again."""
    position = torch.arange(cells * grid) + 0.5
    weight = torch.ones(cells * grid)
    if rises:
        weight = torch.minimum(weight, position / (overlap * grid))
    if falls:
        weight = torch.minimum(weight, (cells * grid - position) / (overlap * grid))
    return weight
