"""One picture of a world: an input of self-distillation, and of tests."""

import torch
from jaxtyping import UInt8
from torch import Tensor

from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.worlds.draws import sample_world
from lyra.worlds.tracing import render_world

FIRST_TRAINING_SEED = 100_000
"""Seeds below it are for tests and evaluation; training never sees them."""


def render_input_view(seed: int, height: int, width: int, fov: float = 55.0) -> UInt8[Tensor, "3 height width"]:
    """One picture of a world."""
    camera = Cameras(torch.eye(4)[None], intrinsics_from_fov(fov, height, width)[None], height, width)
    color, _ = render_world(sample_world(seed), camera)
    return (color[0] * 255).round().to(torch.uint8)
