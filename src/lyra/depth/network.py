"""The small depth network of ``mini``: an ImageNet encoder, and a decoder that knows where in the picture it is."""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lyra.depth.encoder import ImageEncoder
from lyra.depth.prediction import DepthPrediction

STRIDE = 32


@dataclass(frozen=True)
class DepthNetConfig:
    """Size of the depth network."""

    size: int = 224
    """Images are brought to this shorter side, a multiple of 32."""
    multiplier: float = 1.0
    """Of the encoder's channels; ImageNet weights fit 1.0 alone."""
    width: int = 32
    """Channels at half resolution; they double with every level up to ``max_width``."""
    max_width: int = 128

    def __post_init__(self) -> None:
        if self.size % STRIDE:
            raise ValueError(f"size must be a multiple of {STRIDE}, got {self.size}")


class DepthNet(nn.Module):
    """Log depth relative to the view's median, and the sky; rows and columns are an input, for the ground."""

    def __init__(self, config: DepthNetConfig):
        super().__init__()
        self.config = config
        self.encoder = ImageEncoder(config.multiplier)
        widths = [min(config.width * 2**level, config.max_width) for level in range(len(self.encoder.widths))]
        self.laterals = nn.ModuleList(
            nn.Conv2d(channels + 2, width, 1) for channels, width in zip(self.encoder.widths, widths, strict=True)
        )
        self.middle = nn.Sequential(_Residual(widths[-1]), _GlobalMix(widths[-1]), _Residual(widths[-1]))
        self.narrow = nn.ModuleList(nn.Conv2d(wide, width, 3, padding=1) for width, wide in pairwise(widths))
        self.join = nn.ModuleList(_Residual(width) for width in widths[:-1])
        self.norm = nn.GroupNorm(8, widths[0])
        self.refine = nn.Conv2d(widths[0] + 3, 16, 3, padding=1)
        self.out = nn.Conv2d(16, 2, 3, padding=1)

    def forward(self, image: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch 2 height width"]:
        """Log depth up to a constant of the view, and the logit of being sky.

        Args:
            image: In [0, 1], both sides multiples of 32.
        """
        features = self.encoder(image)
        skips = [
            lateral(torch.cat([feature, _position(feature)], dim=1))
            for lateral, feature in zip(self.laterals, features, strict=True)
        ]
        x = self.middle(skips[-1])
        for level in reversed(range(len(self.join))):
            x = _resize(self.narrow[level](x), skips[level].shape[-2:]) + skips[level]
            x = self.join[level](x)
        x = _resize(F.silu(self.norm(x)), image.shape[-2:])
        return self.out(F.silu(self.refine(torch.cat([x, image], dim=1))))

    @torch.no_grad()
    def predict(self, image: Float[Tensor, "3 height width"]) -> DepthPrediction:
        """Depth whose median outside the sky is 1, of an image of any size: give the whole photo, not a small copy.

        The picture and its mirror image are averaged. Where all is taken for sky, all is taken for a surface instead.
        """
        height, width = image.shape[1:]
        scale = self.config.size / min(height, width)
        size = [max(STRIDE, round(side * scale / STRIDE) * STRIDE) for side in (height, width)]
        small = F.interpolate(image[None], size=size, mode="bicubic", align_corners=False, antialias=True)
        small = small.clamp(0, 1).to(next(self.parameters()).device)
        output = (self(small).float() + self(small.flip(-1)).float().flip(-1)) / 2
        output = _resize(output, (height, width))[0].to(image.device)
        valid = output[1] < 0
        if not bool(valid.any()):
            valid = torch.ones_like(valid)
        depth = (output[0] - output[0][valid].median()).clamp(-4, 4).exp()
        return DepthPrediction(depth, valid, None, False)


def _resize(x: Tensor, size: tuple[int, int] | torch.Size) -> Tensor:
    return F.interpolate(x, size=tuple(size), mode="bilinear", align_corners=False)


def _position(x: Tensor) -> Tensor:
    """Rows and columns of the grid, each from -1 to 1, as two channels."""
    rows, columns = (torch.linspace(-1, 1, n, device=x.device, dtype=x.dtype) for n in x.shape[-2:])
    grid = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
    return grid.expand(len(x), -1, -1, -1)


class _Residual(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.norm = nn.GroupNorm(8, width)
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        # Blocks start as the identity: without it the first steps can saturate every activation behind them.
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.silu(self.first(self.norm(x))))


class _GlobalMix(nn.Module):
    """Lets every pixel see the whole view's mean, which decides what is near."""

    def __init__(self, width: int):
        super().__init__()
        self.mix = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.silu(self.mix(x.mean((2, 3))))[:, :, None, None]
