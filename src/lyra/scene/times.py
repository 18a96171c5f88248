"""How time runs in films of a dynamic scene."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lyra.errors import LyraError


@dataclass(frozen=True)
class TimeOptions:
    """How time runs in a film of a dynamic scene; a still one is the same at all times."""

    start: float = 0.0
    """When the film begins, in [0, 1] of the scene."""
    end: float = 1.0
    """When it ends; before ``start`` time runs backward, at ``start`` it stands still."""
    loops: int = 1
    """How often that is shown while the camera goes its way once."""

    def __post_init__(self) -> None:
        if not (0 <= self.start <= 1 and 0 <= self.end <= 1):
            raise LyraError("times of a scene go from 0 (its beginning) to 1 (its end)")
        if self.loops < 1:
            raise LyraError(f"{self.loops} loops: give at least 1")

    def over(self, frames: int) -> Float[Tensor, "time"]:
        """When each frame of a film is."""
        share = torch.arange(frames) * self.loops / max(1, frames - 1)
        # The last frame is the end, not a beginning again.
        share = torch.where(share >= self.loops, torch.ones_like(share), share % 1)
        return self.start + (self.end - self.start) * share
