"""Classic EWA projection of 3D Gaussians to the image plane, in differentiable torch.

The perspective map is replaced by its derivative at the centre, and 0.3 px² is added to the variance of every
splat without lowering its opacity, as 3D Gaussian Splatting and its viewers do.

Source: Zwicker et al., "EWA splatting" (2002); Kerbl et al., "3D Gaussian Splatting" (2023), section 4. The
limits of the derivative for an off-centre principal point are those of gsplat 1.5.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lyra.geometry.gaussians import Gaussians, matrix_from_quaternion

BLUR = 0.3
"""Variance in px² added to every splat, so that none falls between pixel centres."""
MARGIN = 0.3
"""The derivative is taken at most this share of the half field of view outside the image."""
LARGEST_SPREAD = 1e5
"""Splats whose standard deviation may exceed this many pixels are fog that float32 cannot invert."""
FARTHEST = 1e7
"""Splats centred more than this many pixels off the axis cannot reach the image, and overflow."""
ALPHA_MIN = 1 / 255
"""Contributions fainter than this are skipped."""
ALPHA_MAX = 0.999
"""Opacity of a contribution is capped here, so that what lies behind keeps a gradient."""
TRANSMITTANCE_MIN = 1e-4
"""A pixel ends before the contribution that would take its transmittance to this or below."""


@dataclass(frozen=True)
class Projection:
    """The Gaussians in front of one camera, in its image plane."""

    index: Int[Tensor, "visible"]
    """Their positions in the projected set, ascending."""
    means: Float[Tensor, "visible 2"]
    """Centres (x, y) in pixels; the centre of the top-left pixel is (0.5, 0.5)."""
    conics: Float[Tensor, "visible 3"]
    """Inverse 2D covariance (xx, xy, yy) in px⁻²."""
    depths: Float[Tensor, "visible"]
    """z in the camera, scene units."""
    spreads: Float[Tensor, "visible 2"]
    """Standard deviations along x and y in pixels, outside the graph."""


def tangent_limits(
    intrinsics: Float[Tensor, "4"], height: int, width: int
) -> tuple[Float[Tensor, "2"], Float[Tensor, "2"]]:
    """Lowest and highest (x/z, y/z) at which the perspective derivative is taken."""
    focal, center = intrinsics[:2], intrinsics[2:]
    size = intrinsics.new_tensor([width, height])
    margin = MARGIN * size / (2 * focal)
    return -center / focal - margin, (size - center) / focal + margin


def project(
    gaussians: Gaussians,
    camera_to_world: Float[Tensor, "4 4"],
    intrinsics: Float[Tensor, "4"],
    height: int,
    width: int,
    near: float,
) -> Projection:
    """Projects unbatched Gaussians into one camera, in the dtype of the Gaussians.

    Gaussians no farther than ``near`` (z, scene units) and those beyond ``LARGEST_SPREAD`` or ``FARTHEST``
    are left out before anything is differentiated: they get zero gradients, never NaN. Those outside the image
    stay.
    """
    camera_to_world, intrinsics = (t.to(gaussians.means) for t in (camera_to_world, intrinsics))
    axes = camera_to_world[:3, :3].unbind(-1)
    center = camera_to_world[:3, 3]
    low, high = tangent_limits(intrinsics, height, width)
    fx, fy = intrinsics[:2].unbind()

    with torch.no_grad():
        focal = torch.maximum(fx, fy)
        offset = gaussians.means - center
        z = (offset * axes[2]).sum(-1)
        steepest = torch.maximum(low.abs(), high.abs()).square().sum().add(1).sqrt()
        bound = gaussians.scales.amax(-1) * focal * steepest
        sane = (bound <= LARGEST_SPREAD * z) & (offset.norm(dim=-1) * focal <= FARTHEST * z)
        index = ((z > near) & sane).nonzero().squeeze(-1)

    gaussians = gaussians.select(index)
    offset = gaussians.means - center
    x, y, z = ((offset * axis).sum(-1) for axis in axes)
    tangents = torch.stack([x / z, y / z], dim=-1)
    clamped = torch.minimum(torch.maximum(tangents, low), high)

    # Rows of derivative times world-to-camera rotation, then expressed in the Gaussian's own scaled axes.
    rotation = matrix_from_quaternion(gaussians.quaternions)
    row_x = (fx / z)[:, None] * (axes[0] - clamped[:, :1] * axes[2])
    row_y = (fy / z)[:, None] * (axes[1] - clamped[:, 1:] * axes[2])
    row_x = (row_x[:, :, None] * rotation).sum(-2) * gaussians.scales
    row_y = (row_y[:, :, None] * rotation).sum(-2) * gaussians.scales
    xx, xy, yy = row_x.square().sum(-1), (row_x * row_y).sum(-1), row_y.square().sum(-1)
    # det(M Mᵀ) = |m_x × m_y|²: the usual xx*yy - xy² loses every digit for long thin splats.
    area = torch.linalg.cross(row_x, row_y).square().sum(-1)
    determinant = area + BLUR * (xx + yy) + BLUR * BLUR
    return Projection(
        index=index,
        means=tangents * intrinsics[:2] + intrinsics[2:],
        conics=torch.stack([yy + BLUR, -xy, xx + BLUR], dim=-1) / determinant[:, None],
        depths=z,
        spreads=torch.stack([xx + BLUR, yy + BLUR], dim=-1).detach().sqrt(),
    )
