"""Brings one view's depth to the scale of a scene that it partly shows."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from lyra.cache.warp import fill_holes

QUANTILES = (0.1, 0.9)
"""The affine fit leaves out the nearest and the farthest tenth."""
_STEPS, _RATE, _SMOOTHNESS = 100, 1e-3, 0.1
_CELL = 16
"""Pixels of one cell's side of the smooth correction."""
_MOST_STEP = 0.3
"""Largest difference of log depths that is a step at a seam; what differs more shows two different things."""


def align_depth(
    depth: Float[Tensor, "height width"],
    target: Float[Tensor, "height width"],
    mask: Bool[Tensor, "height width"],
    steps: int = _STEPS,
) -> Float[Tensor, "height width"]:
    """Depth that agrees with a known one where both are known, and bends smoothly elsewhere.

    First an affine map of inverse depth between the quantiles, by least squares; then a smooth field of factors, by a
    fixed number of gradient steps.

    Args:
        depth: Estimated z-depth, any scale, positive.
        target: Z-depth in scene units, for example of the warped cache.
        mask: Where ``target`` is known.
        steps: Of the second stage.

    Raises:
        ValueError: the mask holds fewer than 16 pixels.

    Source: GEN3C's alignment of a new chunk's depth to the cache.
    """
    mask = mask & (target > 0) & (depth > 0) & depth.isfinite()
    if int(mask.sum()) < 16:
        raise ValueError("too few pixels are known to align depth by")
    rigid = _fit_inverse(depth, target, mask)
    return rigid * _fit_factors(rigid, target, mask, steps) if steps else rigid


def close_seam(
    depth: Float[Tensor, "height width"],
    target: Float[Tensor, "height width"],
    mask: Bool[Tensor, "height width"],
) -> Float[Tensor, "height width"]:
    """Depth that is the known one where that is known, and goes on from it without a step.

    Args:
        depth: As ``align_depth`` gives it.
        target: Z-depth in scene units.
        mask: Where ``target`` is known.
    """
    step = (target.clamp(min=1e-6) / depth.clamp(min=1e-6)).log()
    alike = mask & (step.abs() < _MOST_STEP)
    known = alike.to(depth.dtype)[None]
    return torch.where(mask, target, depth * fill_holes((step * alike)[None, None], known)[0, 0].exp())


def _fit_inverse(depth: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    source, wanted = 1 / depth.double(), 1 / target.double().clamp(min=1e-6)
    middle = mask.clone()
    for values in (source, wanted):
        low, high = torch.quantile(_thin(values[mask]), values.new_tensor(QUANTILES))
        middle &= (values >= low) & (values <= high)
    if int(middle.sum()) < 16:  # a flat view: all its pixels are alike
        middle = mask
    x, y = source[middle], wanted[middle]
    deviation = x - x.mean()
    variance = deviation.square().mean()
    # A slope of a flat, or against the order of near and far, would turn the view inside out.
    slope = (deviation * (y - y.mean())).mean() / variance if variance > 1e-12 else variance.new_zeros(())
    if slope <= 0:
        slope, offset = (y / x).median(), y.new_zeros(())
    else:
        offset = y.mean() - slope * x.mean()
    lowest = 0.05 * _thin(wanted[mask]).quantile(QUANTILES[0])
    return (1 / (slope * source + offset).clamp(min=lowest)).to(depth.dtype)


def _thin(values: Tensor) -> Tensor:
    """At most some 2^20 of the values, evenly: ``torch.quantile`` takes no more than 2^24."""
    return values[:: max(1, len(values) >> 20)]


def _fit_factors(depth: Tensor, target: Tensor, mask: Tensor, steps: int) -> Tensor:
    height, width = depth.shape
    cells = (max(2, height // _CELL), max(2, width // _CELL))
    wanted = torch.where(mask, (target / depth).clamp(1e-3, 1e3).log(), torch.zeros_like(depth))
    with torch.enable_grad():
        field = torch.zeros(1, 1, *cells, dtype=depth.dtype, device=depth.device, requires_grad=True)
        optimizer = torch.optim.Adam([field], lr=_RATE)
        for _ in range(steps):
            optimizer.zero_grad()
            error = (_enlarge(field, height, width) - wanted)[mask].abs().mean()
            bend = field.diff(dim=-1).abs().mean() + field.diff(dim=-2).abs().mean()
            (error + _SMOOTHNESS * bend).backward()
            optimizer.step()
    return _enlarge(field.detach(), height, width).exp()


def _enlarge(field: Tensor, height: int, width: int) -> Tensor:
    return F.interpolate(field, size=(height, width), mode="bicubic", align_corners=False)[0, 0]
