"""Corrections of a surface that are smooth where it is, and free where it ends."""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

EDGE = 0.03
"""Standard deviation of log distance, within a window, from which on a surface counts as ending there."""
_COARSE = 4
"""Radius from which on windows are as good on half the grid."""


def smooth_on_surface(
    corrections: Float[Tensor, "picture channel height width"],
    log_distance: Float[Tensor, "picture height width"],
    radius: int,
) -> Float[Tensor, "picture channel height width"]:
    """Each correction becomes, within every window, a straight function of the surface's log distance.

    Where the surface is even that is the window's mean; across an edge of depth both sides keep values of their own.

    The functions are found on a grid of half the size, where that leaves windows of several cells.

    Args:
        corrections: Any values on the grid of the Gaussians.
        log_distance: Of the surface that is corrected.
        radius: Of the windows, in cells.

    Source: He et al., "Guided Image Filtering", 2010, with the surface as the guide; He and Sun, "Fast Guided Filter",
    2015, for the smaller grid.
    """
    guide = log_distance[:, None]
    # Differences to a rough level: squares of numbers of like size lose what matters here.
    fine = guide - guide.mean((2, 3), keepdim=True)
    if radius < _COARSE or any(length % 2 for length in guide.shape[2:]):
        slope, constant = _fit(corrections, fine, radius)
    else:
        both = torch.stack(_fit(F.avg_pool2d(corrections, 2), F.avg_pool2d(fine, 2), radius // 2)).flatten(0, 1)
        size = corrections.shape[2:]
        slope, constant = F.interpolate(both, size, mode="bilinear", align_corners=False).unflatten(0, (2, -1))
    return slope * fine + constant


def _fit(
    corrections: Float[Tensor, "picture channel height width"],
    guide: Float[Tensor, "picture 1 height width"],
    radius: int,
) -> tuple[Float[Tensor, "picture channel height width"], Float[Tensor, "picture channel height width"]]:
    """Slope and constant of the function of each window, averaged over the windows that a cell is in."""
    side = 2 * radius + 1

    def mean(values: Tensor) -> Tensor:
        # Windows are cut off at the border: what lies outside does not count. Rows, then columns: the same, and faster.
        for shape, pad in (((side, 1), (radius, 0)), ((1, side), (0, radius))):
            values = F.avg_pool2d(values, shape, stride=1, padding=pad, count_include_pad=False)
        return values

    center, mean_corrections = mean(guide), mean(corrections)
    variance = (mean(guide.square()) - center.square()).clamp(min=0)
    slope = (mean(guide * corrections) - center * mean_corrections) / (variance + EDGE**2)
    return mean(slope), mean(mean_corrections - slope * center)


def smooth_corrections(
    raw: Float[Tensor, "target view time height width 12"],
    distance: Float[Tensor, "batch view time height width"],
    radius: int,
) -> Float[Tensor, "target view time height width 12"]:
    """The head's output with corrections of distance, scale and rotation smooth on the base surface.

    Color and opacity stay free: they tell details, and what is seen of a surface.
    """
    places = distance.expand(raw.shape[:-1]).flatten(0, 2).log()
    fields = rearrange(raw, "b v t h w c -> (b v t) c h w").float()
    color = slice(1, 4)
    place = torch.cat([fields[:, :1], fields[:, 4:-1]], dim=1)
    place = smooth_on_surface(place, places, radius)
    smooth = torch.cat([place[:, :1], fields[:, color], place[:, 1:], fields[:, -1:]], dim=1)
    return rearrange(smooth, "(b v t) c h w -> b v t h w c", b=raw.shape[0], v=raw.shape[1])
