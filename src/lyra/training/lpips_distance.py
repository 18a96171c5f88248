"""LPIPS of VGG, with its published weights alone: those of torchvision's VGG16 and the fitted ones of ``lpips``.

Both are pickles: ``lyra convert lpips vgg16-397923af.pth -o lpips.safetensors`` reads them once, and ``LYRA_LPIPS``
names what it wrote. Without them there is no LPIPS; in every table stands the distance of ``lyra.evaluation.judge``.

Source: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric" (2018), version 0.1.
"""

import os
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lyra.errors import LyraError
from lyra.files import load_tensors

VARIABLE = "LYRA_LPIPS"
"""Environment variable with the file's name."""
BLOCKS = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))
"""Numbers of the convolutions in torchvision's ``vgg16().features``, by block."""
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
"""Of pictures in [-1, 1], by channel."""


class LpipsDistance:
    """LPIPS-VGG of two pictures in [0, 1]; what ``lpips.LPIPS(net="vgg")(..., normalize=True)`` gives."""

    def __init__(self, weights: Mapping[str, Tensor]):
        """Takes ``features.N.weight`` and ``.bias`` of the trunk and ``heads.N`` of the five layers.

        Raises:
            LyraError: one is missing.
        """
        try:
            self.blocks = [
                [(weights[f"features.{n}.weight"].float(), weights[f"features.{n}.bias"].float()) for n in block]
                for block in BLOCKS
            ]
            self.heads = [weights[f"heads.{n}"].float().reshape(1, -1, 1, 1) for n in range(len(BLOCKS))]
        except KeyError as missing:
            raise LyraError(f"the weights of LPIPS lack {missing}: convert them again (lyra convert lpips)") from None

    @classmethod
    def find(cls) -> "LpipsDistance | None":
        """With the weights that ``LYRA_LPIPS`` names; None where it is not set.

        Raises:
            LyraError: the file is missing or another.
        """
        name = os.environ.get(VARIABLE)
        return cls(load_tensors(Path(name))) if name else None

    def features(self, images: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """Unit-length features of five layers."""
        shift, scale = (images.new_tensor(values)[:, None, None] for values in (SHIFT, SCALE))
        x, found = (images * 2 - 1 - shift) / scale, []
        for index, block in enumerate(self.blocks):
            if index:
                x = F.max_pool2d(x, 2)
            for weight, bias in block:
                x = F.relu(F.conv2d(x, weight, bias, padding=1))
            found.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
        return found

    def to(self, device: torch.device | str) -> "LpipsDistance":
        """The same on another device."""
        self.blocks = [[(weight.to(device), bias.to(device)) for weight, bias in block] for block in self.blocks]
        self.heads = [head.to(device) for head in self.heads]
        return self

    def compare(
        self, prediction: Float[Tensor, "batch 3 height width"], truth: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, ""]:
        """Mean distance; gradients flow to the first pictures."""
        with torch.no_grad():
            wanted = self.features(truth)
        triples = zip(self.features(prediction.clamp(0, 1)), wanted, self.heads, strict=True)
        return torch.stack([((a - b).square() * head).sum(1).mean() for a, b, head in triples]).sum()

    @torch.no_grad()
    def distance(self, images: Float[Tensor, "batch 3 height width"], features: list[Tensor]) -> Float[Tensor, "batch"]:
        """Distance to pictures whose features are known."""
        triples = zip(self.features(images.clamp(0, 1)), features, self.heads, strict=True)
        return torch.stack([((a - b).square() * head).sum(1).mean((1, 2)) for a, b, head in triples]).sum(0)
