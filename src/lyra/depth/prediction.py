"""What a depth estimator gives, and how it becomes depth in scene units."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lyra.geometry.sky import MAX_DEPTH


@dataclass(frozen=True)
class DepthPrediction:
    """Depth of one view."""

    depth: Float[Tensor, "height width"]
    """Z-depth, in scene units or metres; only ratios count where ``metric`` is False."""
    valid: Bool[Tensor, "height width"]
    """False on sky and wherever the estimator has no opinion."""
    fov_degrees: float | None
    """Field of view of the image's shorter side if the estimator predicts one."""
    metric: bool


@runtime_checkable
class DepthEstimator(Protocol):
    """A model that predicts depth of an image."""

    def predict(self, image: Float[Tensor, "3 height width"]) -> DepthPrediction:
        """Depth of an image in [0, 1]."""
        ...


def scene_depth(prediction: DepthPrediction) -> Float[Tensor, "height width"]:
    """Depth in scene units: the median of the valid pixels becomes 1, invalid ones go to the far clamp.

    Raises:
        ValueError: no pixel is valid.
    """
    valid = prediction.valid & prediction.depth.isfinite() & (prediction.depth > 0)
    if not bool(valid.any()):
        raise ValueError("the depth estimator found no valid pixel")
    depth = prediction.depth / prediction.depth[valid].median()
    return torch.where(valid, depth, torch.full_like(depth, MAX_DEPTH)).clamp(max=MAX_DEPTH)
