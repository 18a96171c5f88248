"""What a renderer returns."""

from dataclasses import dataclass
from typing import Self

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Rendering:
    """Pictures of a set of Gaussians, one per camera."""

    color: Float[Tensor, "view 3 height width"]
    """Display-referred sRGB, composited over the background."""
    depth: Float[Tensor, "view height width"]
    """Expected z-depth in scene units: the mean over what is seen, weighted by visibility; 0 where alpha is 0."""
    alpha: Float[Tensor, "view height width"]
    """Accumulated opacity in [0, 1)."""

    @classmethod
    def composite(
        cls,
        color: Float[Tensor, "view 3 height width"],
        weighted_depth: Float[Tensor, "view height width"],
        alpha: Float[Tensor, "view height width"],
        background: Float[Tensor, "3"],
    ) -> Self:
        """Puts accumulated color over a background and turns accumulated depth into its mean."""
        # Alpha is 0 or at least 1/255, since fainter contributions are skipped: the floor never changes a value.
        return cls(
            color=color + (1 - alpha)[:, None] * background[:, None, None],
            depth=weighted_depth / alpha.clamp(min=1e-6),
            alpha=alpha,
        )


def white(like: Tensor) -> Float[Tensor, "3"]:
    """The default background, with the dtype and device of another tensor."""
    return torch.ones(3, dtype=like.dtype, device=like.device)
