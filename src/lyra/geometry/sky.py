"""How far the sky is: the one meaning of depths that are no place."""

from jaxtyping import Bool, Float
from torch import Tensor

MAX_DEPTH = 100.0
"""Depths are clamped to this many scene units; sky and invalid pixels are put there."""
SKY_FROM = 0.9 * MAX_DEPTH
"""Z-depths from here on are the sky's: from aside its points are a little nearer than they were put."""


def is_sky(depth: Float[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
    """Which z-depths (scene units) are the sky's."""
    return depth >= SKY_FROM
