"""The small depth network of ``mini``."""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lyra.depth.prediction import DepthPrediction


@dataclass(frozen=True)
class DepthNetConfig:
    """Size of the depth network."""

    width: int = 32
    """Channels at half resolution; they double with every level."""
    levels: int = 4
    max_width: int = 128


class DepthNet(nn.Module):
    """A U-Net that predicts log depth relative to the view's median; image rows are an input, for the ground."""

    def __init__(self, config: DepthNetConfig):
        super().__init__()
        self.config = config
        widths = [min(config.width * 2**i, config.max_width) for i in range(config.levels + 1)]
        self.stem = nn.Conv2d(5, widths[0], 4, 2, 1)
        pairs = list(pairwise(widths))
        self.encoder = nn.ModuleList(_Down(a, b) for a, b in pairs)
        self.middle = nn.Sequential(_Residual(widths[-1]), _GlobalMix(widths[-1]), _Residual(widths[-1]))
        self.decoder = nn.ModuleList(_Up(b, a) for a, b in reversed(pairs))
        self.norm = nn.GroupNorm(8, widths[0])
        self.refine = nn.Conv2d(widths[0] + 5, 16, 3, padding=1)
        self.out = nn.Conv2d(16, 1, 3, padding=1)

    def forward(self, image: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch height width"]:
        """Log depth up to a constant of the view, for images in [0, 1] of any size."""
        original = image.shape[-2:]
        step = 2 ** (self.config.levels + 1)
        image = F.pad(image, (0, -original[1] % step, 0, -original[0] % step), mode="replicate")
        height, width = image.shape[-2:]
        rows = torch.linspace(-1, 1, height, device=image.device, dtype=image.dtype)
        columns = torch.linspace(-1, 1, width, device=image.device, dtype=image.dtype)
        position = torch.stack([rows[:, None].expand(-1, width), columns.expand(height, -1)])
        full = torch.cat([image * 2 - 1, position.expand(len(image), -1, -1, -1)], dim=1)
        x = self.stem(full)
        skips = []
        for down in self.encoder:
            skip, x = down(x)
            skips.append(skip)
        x = self.middle(x)
        for up, skip in zip(self.decoder, reversed(skips), strict=True):
            x = up(x, skip)
        x = F.interpolate(F.silu(self.norm(x)), size=(height, width), mode="bilinear", align_corners=False)
        log_depth = self.out(F.silu(self.refine(torch.cat([x, full], dim=1))))[:, 0]
        return log_depth[:, : original[0], : original[1]]

    @torch.no_grad()
    def predict(self, image: Float[Tensor, "3 height width"]) -> DepthPrediction:
        """Depth with median 1; every pixel is valid, since the network knows no sky."""
        log_depth = self(image[None])[0].float()
        depth = (log_depth - log_depth.median()).clamp(-4, 4).exp()
        return DepthPrediction(depth, torch.ones_like(depth, dtype=torch.bool), None, False)


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


class _Down(nn.Module):
    def __init__(self, width: int, wider: int):
        super().__init__()
        self.residual = _Residual(width)
        self.down = nn.Conv2d(width, wider, 4, 2, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.residual(x)
        return x, self.down(x)


class _Up(nn.Module):
    def __init__(self, width: int, narrower: int):
        super().__init__()
        self.narrow = nn.Conv2d(width, narrower, 3, padding=1)
        self.join = nn.Conv2d(2 * narrower, narrower, 1)
        self.residual = _Residual(narrower)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = F.interpolate(self.narrow(x), size=skip.shape[-2:], mode="bilinear", align_corners=False)
        return self.residual(self.join(torch.cat([x, skip], dim=1)))


class _GlobalMix(nn.Module):
    """Lets every pixel see the whole view's mean, which decides what is near."""

    def __init__(self, width: int):
        super().__init__()
        self.mix = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + F.silu(self.mix(x.mean((2, 3))))[:, :, None, None]
