"""The surface that a "cache" decoder starts from: which way it faces, and the shape of Gaussians that lie on it."""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from lyra.geometry.cameras import Cameras, look_up, project
from lyra.geometry.gaussians import quaternion_from_matrix
from lyra.geometry.sky import is_sky

BEHIND = 0.1
"""A point is hidden from a view where it lies behind all that shows around it by more than this share."""
_AROUND = 2
"""Pixels around a point's own in which the view must be nearer: edges of depth are not exact."""


def surface_normals(points: Float[Tensor, "*batch height width 3"]) -> Float[Tensor, "*batch height width 3"]:
    """Unit normals, of either sign, of a grid of points.

    Along rows and columns the nearer of the two neighbours tells the slope: at an edge of depth it is the one on the
    same surface. A grid of one row or column has the normals of points in a line; of one point, no direction: zero.
    """
    across, down = _nearer_step(points, -2), _nearer_step(points, -3)
    return F.normalize(torch.linalg.cross(across, down), dim=-1)


def _nearer_step(points: Tensor, axis: int) -> Tensor:
    """Difference to the nearer neighbour along an axis, in the axis' direction."""
    if points.shape[axis] < 2:
        return torch.zeros_like(points)
    steps = points.diff(dim=axis)
    first, last = steps.narrow(axis, 0, 1), steps.narrow(axis, -1, 1)
    before, after = torch.cat([first, steps], dim=axis), torch.cat([steps, last], dim=axis)
    nearer = before.square().sum(-1, keepdim=True) < after.square().sum(-1, keepdim=True)
    return torch.where(nearer, before, after)


def lie_on_surface(
    normals: Float[Tensor, "*batch 3"], directions: Float[Tensor, "*batch 3"]
) -> tuple[Float[Tensor, "*batch 4"], Float[Tensor, "*batch"]]:
    """Frames of Gaussians on a surface: the slope as the ray sees it, level across it, and the normal.

    Args:
        normals: Unit length, of either sign; zero where there is none, which counts as facing the ray.
        directions: Of the rays, unit length.

    Returns:
        Quaternions (w, x, y, z) from the three axes to the world, and the cosine between normal and ray in [0, 1].
    """
    faces = (normals * directions).sum(-1, keepdim=True)
    known = normals.square().sum(-1, keepdim=True) > 0.5
    normals = torch.where(known, normals * torch.where(faces > 0, -1.0, 1.0), -directions)
    cosine = torch.where(known, faces.abs(), 1.0).clamp(max=1)
    slope = directions + cosine * normals
    # Seen head-on there is no slope: any direction on the surface will do, as long as it does not flicker.
    upright = torch.tensor([0.0, 1.0, 0.0], dtype=slope.dtype, device=slope.device).expand_as(slope)
    upright = upright - (upright * normals).sum(-1, keepdim=True) * normals
    slope = F.normalize(slope + 1e-3 * upright, dim=-1)
    level = torch.linalg.cross(normals, slope)
    return quaternion_from_matrix(torch.stack([slope, level, normals], dim=-1)), cosine[..., 0]


def is_hidden(
    points: Float[Tensor, "point 3"], depth: Float[Tensor, "height width"], camera: Cameras
) -> Bool[Tensor, "point"]:
    """Which points a picture does not show: outside of its view, or behind what it shows.

    Args:
        points: In the camera's world.
        depth: Z-depth of the picture.
        camera: One, of the depth's size.
    """
    u, v, z = (values[0] for values in project(points, camera))
    inside, pixel = look_up(u, v, z, *depth.shape)
    farthest = F.max_pool2d(depth[None], 2 * _AROUND + 1, stride=1, padding=_AROUND)[0]
    # Sky is behind everything but sky, also close to an edge of it: who looks past the edge sees more of it.
    past = is_sky(z) & ~is_sky(depth[pixel])
    return ~inside | past | (z > farthest[pixel] * (1 + BEHIND))
