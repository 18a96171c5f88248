"""How good depth is whose scale is unknown: errors after the best scale, and the angle between normals."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lyra.depth.geometry import normals_from_depth, unbroken

NORMAL_STEP = 3
"""Pixels to either side of the differences that make a normal."""

DepthMethod = Callable[[Float[Tensor, "3 height width"]], Float[Tensor, "height width"]]
"""Depth of an image in [0, 1], any scale."""


@dataclass(frozen=True)
class DepthScores:
    """Of one picture."""

    relative: float
    """Mean absolute relative error after the medians are made equal."""
    within: float
    """Share of pixels within a factor of 1.25 then."""
    affine: float
    """Mean absolute relative error after the best affine map of inverse depth."""
    normals_deg: float
    """Mean angle between normals where a surface goes on; NaN without a focal length."""


def score_depth(
    predicted: Float[Tensor, "height width"],
    true: Float[Tensor, "height width"],
    known: Bool[Tensor, "height width"],
    focal: float | None = None,
) -> DepthScores:
    """Errors of depth over the known pixels.

    Args:
        predicted: Positive, any scale.
        true: Metres, or any unit.
        known: Where ``true`` is.
        focal: Pixels, the principal point in the middle; for normals.
    """
    p, t = predicted[known].double(), true[known].double()
    scaled = p * (t.median() / p.median())
    relative = ((scaled - t).abs() / t).mean()
    within = (torch.maximum(scaled / t, t / scaled) < 1.25).double().mean()
    matrix = torch.stack([1 / p, torch.ones_like(p)], 1)
    inverse = matrix @ torch.linalg.lstsq(matrix, (1 / t)[:, None]).solution[:, 0]
    # No farther than the farthest that was measured: an inverse at or below zero would be anywhere.
    affine = ((1 / inverse.clamp(min=(1 / t).min()) - t).abs() / t).mean()
    angle = _normal_angle(predicted, true, known, focal) if focal else math.nan
    return DepthScores(relative.item(), within.item(), affine.item(), angle)


def _normal_angle(predicted: Tensor, true: Tensor, known: Tensor, focal: float) -> float:
    height, width = true.shape
    log_true = torch.where(known, true, true[known].max()).log()[None]
    center, lens = torch.tensor([[width / 2, height / 2]]), torch.tensor([float(focal)])
    found, right = (normals_from_depth(x, lens, center, NORMAL_STEP) for x in (predicted.log()[None], log_true))
    # Arc tangents, since the arc cosine of nearly 1 is coarse in float32.
    sine = torch.linalg.cross(found, right, dim=1).norm(dim=1)
    angle = torch.atan2(sine, (found * right).sum(1))
    whole = unbroken(log_true, known[None], NORMAL_STEP)
    return math.degrees(angle[whole].mean().item())


def constant_depth(image: Float[Tensor, "3 height width"]) -> Float[Tensor, "height width"]:
    """The same everywhere."""
    return torch.ones(image.shape[1:])


def row_depth(image: Float[Tensor, "3 height width"]) -> Float[Tensor, "height width"]:
    """One over the row: a floor with its horizon a little above the picture."""
    height, width = image.shape[1:]
    return 1 / (torch.arange(height) + 0.1 * height)[:, None].expand(height, width)
