"""Losses of depth whose scale is unknown: its size, its edges, and the normals of the surfaces it describes.

Where a pixel's ray is (X, Y, 1), the inverse depth w of a plane is affine in X and Y, and the plane's normal is
(dw/dX, dw/dY, w - X dw/dX - Y dw/dY) up to its length: finite differences of w give normals of planes exactly, at any
step, and a common factor of w changes nothing.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

NORMAL_STEPS = (1, 3, 9)
"""Pixels to either side: fine noise and the bend of whole walls."""
_BROKEN = 0.05
"""Relative second difference of inverse depth beyond which a surface does not go on."""
_EDGE = 0.1
"""Difference of log depth of neighbours from which they are different things."""


def align_log_depth(
    log_depth: Float[Tensor, "batch height width"],
    truth: Float[Tensor, "batch height width"],
    valid: Bool[Tensor, "batch height width"],
) -> Float[Tensor, "batch height width"]:
    """What is left of the difference after the best shift of every picture; 0 where invalid."""
    residual = torch.where(valid, log_depth - truth, 0)
    count = valid.sum((1, 2), keepdim=True).clamp(min=1)
    return (residual - residual.sum((1, 2), keepdim=True) / count) * valid


def size_error(residual: Float[Tensor, "batch height width"], valid: Bool[Tensor, "batch height width"]) -> Tensor:
    """Mean absolute residual, rounded at zero."""
    smooth = (residual.square() + 0.03**2).sqrt() - 0.03
    return (smooth * valid).sum() / valid.sum().clamp(min=1)


def edge_error(
    residual: Float[Tensor, "batch height width"],
    truth: Float[Tensor, "batch height width"],
    valid: Bool[Tensor, "batch height width"],
    levels: int = 4,
    edge_weight: float = 2.0,
) -> Tensor:
    """Absolute differences of the residual between neighbours at several scales, more where the true depth jumps.

    Args:
        residual: Of log depth.
        truth: True log depth.
        valid: Where it is known.
        levels: Each takes every second pixel of the one before.
        edge_weight: By how much more neighbours count that belong to different things.
    """
    total = residual.new_zeros(())
    for level in range(levels):
        step = 2**level
        coarse, true, known = (field[:, ::step, ::step] for field in (residual, truth, valid))
        for axis in (1, 2):
            both = known.narrow(axis, 1, known.shape[axis] - 1) & known.narrow(axis, 0, known.shape[axis] - 1)
            weight = both * (1 + edge_weight * (true.diff(dim=axis).abs() > _EDGE))
            total = total + (coarse.diff(dim=axis).abs() * weight).sum() / both.sum().clamp(min=1)
    return total / levels


def normals_from_depth(
    log_depth: Float[Tensor, "batch height width"],
    focal: Float[Tensor, "batch"],
    center: Float[Tensor, "batch 2"],
    step: int = 1,
) -> Float[Tensor, "batch 3 rows columns"]:
    """Unit normals towards the far side, ``step`` pixels inside the picture's border.

    Args:
        log_depth: Of z-depth in any unit.
        focal: Pixels, the same across and down.
        center: Principal point, pixels.
        step: Pixels to either side of a difference.
    """
    mean = log_depth.mean((1, 2), keepdim=True)
    inverse = (mean - log_depth).clamp(-6, 6).exp()
    height, width = log_depth.shape[1:]
    inner = inverse[:, step : height - step, step : width - step]
    scale = (focal / (2 * step))[:, None, None]
    across = (
        inverse[:, step : height - step, 2 * step :] - inverse[:, step : height - step, : width - 2 * step]
    ) * scale
    down = (inverse[:, 2 * step :, step : width - step] - inverse[:, : height - 2 * step, step : width - step]) * scale
    rows = torch.arange(step, height - step, device=inverse.device) + 0.5
    columns = torch.arange(step, width - step, device=inverse.device) + 0.5
    x = (columns[None] - center[:, :1]) / focal[:, None]
    y = (rows[None] - center[:, 1:]) / focal[:, None]
    normal = torch.stack([across, down, inner - x[:, None] * across - y[:, :, None] * down], 1)
    return normal * (normal.square().sum(1, keepdim=True) + 1e-12).rsqrt()


def unbroken(
    truth: Float[Tensor, "batch height width"], valid: Bool[Tensor, "batch height width"], step: int
) -> Bool[Tensor, "batch rows columns"]:
    """Where a surface goes on for ``step`` pixels to all four sides."""
    height, width = truth.shape[1:]
    inverse = torch.where(valid, (-truth).exp(), 0)
    inner = inverse[:, step : height - step, step : width - step]
    across = inverse[:, step : height - step, 2 * step :] + inverse[:, step : height - step, : width - 2 * step]
    down = inverse[:, 2 * step :, step : width - step] + inverse[:, : height - 2 * step, step : width - step]
    bent = torch.maximum((across - 2 * inner).abs(), (down - 2 * inner).abs())
    # Where nothing is known inverse depth is 0, which no surface comes to.
    return bent < _BROKEN * inner


def normal_error(
    log_depth: Float[Tensor, "batch height width"],
    truth: Float[Tensor, "batch height width"],
    valid: Bool[Tensor, "batch height width"],
    focal: Float[Tensor, "batch"],
    center: Float[Tensor, "batch 2"],
) -> Tensor:
    """Mean of 1 - cos of the angle between predicted and true normals, over steps of several sizes."""
    total = log_depth.new_zeros(())
    filled = torch.where(valid, truth, truth[valid].max() if bool(valid.any()) else 0.0)
    for step in NORMAL_STEPS:
        known = unbroken(filled, valid, step)
        found, true = (normals_from_depth(field, focal, center, step) for field in (log_depth, filled))
        total = total + ((1 - (found * true).sum(1)) * known).sum() / known.sum().clamp(min=1)
    return total / len(NORMAL_STEPS)
