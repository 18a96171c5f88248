"""Brings a picture's estimated depth to true depths that are known at some of its pixels."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

LEAST_ANCHORS = 8
"""Below, depth cannot be told to be wrong by them."""
_BENT = 40
"""Below, only scale and contrast are fitted."""
_CONTRAST = (0.5, 2.0)
"""Bounds of the factor on differences of log depth."""
_ROUNDS = 8
_CELLS = 12
"""Of the smooth correction along the shorter side."""
_STIFF, _BENDING = 0.03, 0.3
"""Weights, in anchors a cell, that hold the correction at zero and straight."""


def fit_to_anchors(
    depth: Float[Tensor, "height width"],
    places: Float[Tensor, "point 2"],
    wanted: Float[Tensor, "point"],
    smooth: bool = True,
) -> Float[Tensor, "height width"]:
    """Depth that agrees with what is known at some pixels, and bends smoothly between them.

    Log depth is scaled and shifted, then corrected by a field of a few cells; both leave out what disagrees with most
    others (a wrong point, or one that the network took for what is behind it).

    Args:
        depth: Estimated z-depth, any scale, positive and finite.
        places: u and v in pixels, inside of the picture.
        wanted: True z-depth there, positive.
        smooth: Whether to correct after scaling.

    Returns:
        Z-depth in the unit of ``wanted``.

    Raises:
        ValueError: fewer than 8 anchors.
    """
    if len(places) < LEAST_ANCHORS:
        raise ValueError("too few points are known to fit depth to")
    log_depth = depth.double().log()
    here = _sample(log_depth, places)
    target = wanted.double().log()
    contrast, shift = _fit_line(here, target)
    fitted = contrast * log_depth + shift
    if smooth and len(places) >= _BENT:
        fitted = fitted + _fit_field(target - _sample(fitted, places), places, *depth.shape)
    return fitted.exp().to(depth.dtype)


def median_ratio(
    depth: Float[Tensor, "height width"], places: Float[Tensor, "point 2"], wanted: Float[Tensor, "point"]
) -> float:
    """The factor from known depths to estimated ones that half of the points are above of."""
    return float((_sample(depth.double().log(), places) - wanted.double().log()).median().exp())


def _sample(field: Tensor, places: Tensor) -> Float[Tensor, "point"]:
    """Of the nearest pixel: between two surfaces there is no depth."""
    u, v = places.floor().long().unbind(-1)
    return field[v.clamp(0, field.shape[0] - 1), u.clamp(0, field.shape[1] - 1)]


def _weights(residual: Tensor) -> Tensor:
    """Tukey's, with a width from the residuals themselves; what is far off counts nothing."""
    width = 4.7 * 1.48 * residual.abs().median().clamp(min=5e-3)
    return (1 - (residual / width).square()).clamp(min=0).square()


def _fit_line(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    contrast = x.new_ones(())
    shift = (y - x).median()
    for _ in range(_ROUNDS):
        weight = _weights(y - contrast * x - shift)
        total = weight.sum().clamp(min=1e-9)
        mean_x, mean_y = (weight * x).sum() / total, (weight * y).sum() / total
        spread = (weight * (x - mean_x).square()).sum() / total
        # Held at 1 as if by a tenth of the points at a spread of a tenth.
        both = (weight * (x - mean_x) * (y - mean_y)).sum() / total
        contrast = ((both + 1e-3) / (spread + 1e-3)).clamp(*_CONTRAST)
        shift = mean_y - contrast * mean_x
    return contrast, shift


def _fit_field(residual: Tensor, places: Tensor, height: int, width: int) -> Float[Tensor, "height width"]:
    """A field of some cells, straight where nothing is known, that takes the residual away."""
    rows, columns = _grid(height, width)
    basis = _bilinear(places, height, width, rows, columns)
    smooth = _second_differences(rows, columns).to(basis)
    hold = _STIFF * torch.eye(rows * columns, dtype=basis.dtype) + _BENDING * smooth.T @ smooth
    field = residual.new_zeros(rows * columns)
    for _ in range(_ROUNDS):
        weight = _weights(residual - basis @ field)
        field = torch.linalg.solve(basis.T @ (weight[:, None] * basis) + hold, basis.T @ (weight * residual))
    grid = field.reshape(1, 1, rows, columns)
    return F.interpolate(grid, size=(height, width), mode="bilinear", align_corners=True)[0, 0]


def _grid(height: int, width: int) -> tuple[int, int]:
    shorter = min(height, width)
    return max(2, round(_CELLS * height / shorter)), max(2, round(_CELLS * width / shorter))


def _bilinear(places: Tensor, height: int, width: int, rows: int, columns: int) -> Float[Tensor, "point cell"]:
    """How much each cell's corner counts at each place; corners lie on the picture's outermost pixel centres."""
    u = ((places[:, 0].double() - 0.5) / max(1, width - 1)).clamp(0, 1) * (columns - 1)
    v = ((places[:, 1].double() - 0.5) / max(1, height - 1)).clamp(0, 1) * (rows - 1)
    left, top = u.floor().clamp(max=columns - 2), v.floor().clamp(max=rows - 2)
    basis = torch.zeros(len(places), rows * columns, dtype=torch.float64)
    row = torch.arange(len(places))
    for down in (0, 1):
        for across in (0, 1):
            share = (1 - (u - left - across).abs()) * (1 - (v - top - down).abs())
            basis[row, ((top + down) * columns + left + across).long()] += share
    return basis


def _second_differences(rows: int, columns: int) -> Float[Tensor, "difference cell"]:
    cells = torch.eye(rows * columns, dtype=torch.float64).reshape(rows, columns, -1)
    parts = [cells.diff(n=2, dim=axis).flatten(0, 1) for axis in (0, 1) if cells.shape[axis] > 2]
    return torch.cat(parts) if parts else torch.zeros(0, rows * columns, dtype=torch.float64)
