"""Corrections of a surface that are smooth where it is, and free where it ends."""

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

EDGE = 0.03
"""Standard deviation of log distance, within a window, from which on a surface counts as ending there."""


def smooth_on_surface(
    corrections: Float[Tensor, "picture channel height width"],
    log_distance: Float[Tensor, "picture height width"],
    radius: int,
) -> Float[Tensor, "picture channel height width"]:
    """Each correction becomes, within every window, a straight function of the surface's log distance.

    Where the surface is even that is the window's mean; across an edge of depth both sides keep values of their own.

    Args:
        corrections: Any values on the grid of the Gaussians.
        log_distance: Of the surface that is corrected.
        radius: Of the windows, in cells.

    Source: He et al., "Guided Image Filtering", 2010, with the surface as the guide.
    """
    side = 2 * radius + 1

    def mean(values: Tensor) -> Tensor:
        # Windows are cut off at the border: what lies outside does not count. Rows, then columns: the same, and faster.
        for shape, pad in (((side, 1), (radius, 0)), ((1, side), (0, radius))):
            values = F.avg_pool2d(values, shape, stride=1, padding=pad, count_include_pad=False)
        return values

    guide = log_distance[:, None]
    center, level = mean(guide), mean(corrections)
    # Differences to a rough level first: squares of numbers of like size lose what matters here.
    offset = guide - guide.mean((2, 3), keepdim=True)
    shifted = center - guide.mean((2, 3), keepdim=True)
    variance = (mean(offset.square()) - shifted.square()).clamp(min=0)
    slope = (mean(offset * corrections) - shifted * level) / (variance + EDGE**2)
    constant = level - slope * shifted
    return mean(slope) * offset + mean(constant)
