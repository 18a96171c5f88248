"""Gaussians whose color depends on the view, in front of renderers that know one color a Gaussian."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lyra.geometry.cameras import Cameras
from lyra.geometry.gaussians import Gaussians
from lyra.geometry.harmonics import degree_of, harmonic_basis
from lyra.rendering.image import Rendering


def draw_each(
    draw: Callable[[Gaussians, Cameras, Float[Tensor, "3"] | None, float], Rendering],
    gaussians: Gaussians,
    cameras: Cameras,
    background: Float[Tensor, "3"] | None,
    near: float,
) -> Rendering:
    """Draws every view by itself, with the colors that the Gaussians show to its camera."""
    plain = seen_from(gaussians, gaussians.means.new_zeros(3))
    views = [
        draw(seen_from(gaussians, cameras.centers[view]), cameras[view : view + 1], background, near)
        for view in range(len(cameras))
    ] or [draw(plain, cameras, background, near)]
    return Rendering(*(torch.cat([getattr(view, name) for view in views]) for name in ("color", "depth", "alpha")))


def seen_from(gaussians: Gaussians, center: Float[Tensor, "3"]) -> Gaussians:
    """Unbatched Gaussians with the colors that they show to a point, and no harmonics left; differentiable."""
    if gaussians.harmonics is None:
        return gaussians
    directions = F.normalize(gaussians.means - center.to(gaussians.means), dim=-1)
    basis = harmonic_basis(directions, degree_of(gaussians.harmonics.shape[-2]))
    colors = gaussians.colors + torch.einsum("nk,nkc->nc", basis, gaussians.harmonics)
    return Gaussians(gaussians.means, gaussians.scales, gaussians.quaternions, gaussians.opacities, colors.clamp(min=0))
