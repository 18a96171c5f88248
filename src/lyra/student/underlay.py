"""A coarse layer close behind the surface, which closes what is open between its Gaussians.

One Gaussian a pixel is either wide enough to leave no gap from nearby, and blurs the picture, or sharp, and a grid of
gaps shows when the camera comes closer. With a few wide ones behind them the sharp ones may be small: what is seen
between them is the color of the place.
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lyra.geometry.gaussians import Gaussians
from lyra.student.surface import lie_on_surface

SPREAD = 0.7
"""Standard deviation in a block's side: neighbours leave no gap."""
THICKNESS = 0.25
"""Of the layer, as a share of its Gaussians' width."""
BEHIND = 1.5
"""How far behind the surface it lies, in sides of a block, where the surface faces the ray: no Gaussian of the surface
that the layer's could cover is sorted behind them."""
EVEN = 0.05
"""Largest relative second difference of inverse distance of blocks where a surface goes on: the layer ends before an
edge, since it would stick out there."""


def lay_under(
    gaussians: Gaussians,
    origins: Float[Tensor, "splat 3"],
    normals: Float[Tensor, "splat 3"],
    pixel_angle: Float[Tensor, "splat"],
    members: Int[Tensor, "block square"],
    max_stretch: float = 3.0,
) -> Gaussians:
    """One Gaussian for each block of a surface's, of its mean color and as opaque as its least opaque.

    Args:
        gaussians: [target, splat], one a cell of the student's grid.
        origins: Of the rays through the cells.
        normals: Of the surface at the cells, unit length and of either sign, or zero.
        pixel_angle: Side of one cell at distance 1.
        members: The Gaussians of each block, by their numbers; see ``find_blocks``.
        max_stretch: How many times longer at most along the slope of the surface.
    """
    side = members.shape[1] ** 0.5
    starts = origins[members[:, 0]]
    centers = gaussians.means[:, members].mean(2)
    distance = (centers - starts).norm(dim=-1, keepdim=True).clamp(min=1e-6)
    rays = (centers - starts) / distance
    facing = normals[members] * torch.where((normals[members] * rays[0, :, None]).sum(-1, keepdim=True) > 0, -1.0, 1.0)
    facing = F.normalize(facing.mean(1), dim=-1).expand_as(rays)
    width = distance * pixel_angle[members[:, :1]] * side
    quaternions, cosine = lie_on_surface(facing, rays)
    stretch = 1 / cosine[..., None].clamp(min=1 / max_stretch)
    slope = (stretch.square() - 1).clamp(min=0).sqrt()
    shape = torch.cat([stretch, torch.ones_like(stretch), torch.full_like(stretch, THICKNESS)], dim=-1)
    return Gaussians(
        means=starts + (distance + BEHIND * width * (1 + slope)) * rays,
        scales=SPREAD * width * shape,
        quaternions=quaternions,
        opacities=gaussians.opacities[:, members].amin(2),
        colors=gaussians.colors[:, members].mean(2),
    )


def find_blocks(
    cells: Int[Tensor, "splat"], distance: Float[Tensor, "view time height width"], side: int
) -> Int[Tensor, "block square"]:
    """Blocks of a surface all of whose cells have a Gaussian, where it goes on: the Gaussians' numbers, a row a block.

    Args:
        cells: Of the Gaussians, ascending, in the order view, time, row, column.
        distance: Of the surface; ``side`` divides height and width.
        side: Of a block in cells.
    """
    numbers = torch.full((distance.numel(),), -1, device=cells.device)
    numbers[cells] = torch.arange(len(cells), device=cells.device)
    pattern = "v t (h i) (w j) -> (v t h w) (i j)"
    members = rearrange(numbers.reshape(distance.shape), pattern, i=side, j=side)
    return members[(members >= 0).all(1) & _goes_on(distance, side)]


def keep_most_opaque(
    opacities: Float[Tensor, "splat"], members: Int[Tensor, "block square"], count: int
) -> Int[Tensor, "kept"]:
    """Numbers of at most so many Gaussians, the most opaque of the surface and what lies behind them.

    A block goes with any of its surface's Gaussians: without the layer, gaps show in what is left of the surface.

    Args:
        opacities: Of the surface's, then the blocks'.
        members: As of ``find_blocks``.
        count: Of both together.
    """
    surface = len(opacities) - len(members)
    order = opacities[:surface].argsort(descending=True, stable=True)
    kept = torch.zeros(surface, dtype=torch.bool, device=opacities.device)
    kept[order[: round(count * surface / max(1, len(opacities)))]] = True
    chosen = kept.nonzero()[:, 0]
    blocks = kept[members].all(1).nonzero()[:, 0][: max(0, count - len(chosen))]
    return torch.cat([chosen, surface + blocks])


def _goes_on(distance: Float[Tensor, "view time height width"], side: int) -> Bool[Tensor, "block"]:
    """Of each block whether the surface is even around it and its neighbours."""
    inverse = 1 / F.avg_pool2d(distance.flatten(0, 1)[:, None], side)
    bend = torch.zeros_like(inverse)
    for axis in (2, 3):
        # At the picture's border nothing says that a surface ends.
        second = inverse.diff(n=2, dim=axis).abs() / inverse.narrow(axis, 1, max(0, inverse.shape[axis] - 2))
        inner = bend.narrow(axis, 1, second.shape[axis])
        inner.copy_(torch.maximum(inner, second))
    return F.max_pool2d(bend, 3, 1, 1).flatten() < EVEN
