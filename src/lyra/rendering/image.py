"""What a renderer returns."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Rendering:
    """Pictures of a set of Gaussians, one per camera."""

    color: Float[Tensor, "view 3 height width"]
    """Display-referred sRGB, composited over the background."""
    depth: Float[Tensor, "view height width"]
    """Expected z-depth in scene units, the mean weighted by visibility; 0 where alpha is 0."""
    alpha: Float[Tensor, "view height width"]
    """Accumulated opacity in [0, 1)."""


def over_background(image: Float[Tensor, "view 5 height width"], background: Float[Tensor, "3"] | None) -> Rendering:
    """Puts accumulated red, green, blue, depth and alpha over a background (white if none is given)."""
    color, depth, alpha = image[:, :3], image[:, 3], image[:, 4]
    background = image.new_ones(3) if background is None else background.to(image)
    return Rendering(
        color=color + (1 - alpha)[:, None] * background[:, None, None],
        # Alpha is 0 or at least 1/255, since fainter contributions are skipped: the floor changes no value.
        depth=depth / alpha.clamp(min=1e-6),
        alpha=alpha,
    )


def stack_views(views: list[Tensor], height: int, width: int, like: Tensor) -> Float[Tensor, "view 5 height width"]:
    """Stacks accumulated views; none at all is an empty stack."""
    return torch.stack(views) if views else like.new_zeros(0, 5, height, width)
