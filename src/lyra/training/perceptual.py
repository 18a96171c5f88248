"""The perceptual term of training: features of the ImageNet encoder, which no evaluation judges by, or LPIPS."""

from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lyra.depth.encoder import ImageEncoder
from lyra.models.convert.imagenet import load_imagenet
from lyra.training.losses import LossWeights
from lyra.training.lpips_distance import LpipsDistance

LEVELS = 3
"""Features at strides 2, 4 and 8."""
WEIGHT = 0.02
"""Of ``FeatureDistance``, where the paper's LPIPS has ``LPIPS_WEIGHT``."""
LPIPS_WEIGHT = 0.5


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


def choose_distance(
    weights: LossWeights, device: str = "cpu"
) -> tuple[Callable[[Tensor, Tensor], Tensor] | None, LossWeights]:
    """The perceptual term that can be had: LPIPS where ``LYRA_LPIPS`` names its weights, else ``FeatureDistance``.

    The paper's weight of LPIPS is that of another scale: ``FeatureDistance`` takes ``WEIGHT`` in its place. A student
    that LPIPS has taught is judged by another distance: in every table stands that of ``lyra.evaluation.judge``.

    Raises:
        LyraError: the file of LPIPS is missing or another.
    """
    if not weights.perceptual:
        return None, weights
    lpips = LpipsDistance.find()
    if lpips is not None:
        return lpips.to(device).compare, replace(weights, perceptual=LPIPS_WEIGHT)
    features = FeatureDistance()
    features.encoder.to(device)
    return features, replace(weights, perceptual=WEIGHT)
