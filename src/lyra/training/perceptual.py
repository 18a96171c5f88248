"""The perceptual term of training: features of the ImageNet encoder, which no evaluation judges by."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lyra.depth.encoder import ImageEncoder
from lyra.models.convert.imagenet import load_imagenet

LEVELS = 3
"""Features at strides 2, 4 and 8."""


class FeatureDistance:
    """Mean squared distance of unit-length features, summed over levels; gradients flow to the first picture."""

    def __init__(self) -> None:
        self.encoder = ImageEncoder().eval()
        load_imagenet(self.encoder)
        self.encoder.requires_grad_(False)

    def __call__(
        self, prediction: Float[Tensor, "batch 3 height width"], truth: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, ""]:
        """Distance of pictures in [0, 1], whose sides are multiples of 32."""
        with torch.no_grad():
            wanted = self.features(truth)
        pairs = zip(self.features(prediction.clamp(0, 1)), wanted, strict=True)
        return torch.stack([(a - b).square().sum(1).mean() for a, b in pairs]).sum()

    def features(self, images: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """Unit-length features, fine to coarse."""
        return [F.normalize(feature, dim=1) for feature in self.encoder(images, LEVELS)]
