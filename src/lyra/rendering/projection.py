"""Classic EWA projection of 3D Gaussians to the image plane, in differentiable torch.

Source: Zwicker et al., "EWA splatting" (2002), in the form that 3D Gaussian Splatting and its viewers use: the
perspective map is replaced by its derivative at the centre, and 0.3 px² is added to the variance of every splat
without lowering its opacity.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lyra.gaussians import Gaussians, matrix_from_quaternion

BLUR = 0.3
"""Variance in px² added to every splat, so that none falls between pixel centres."""
MARGIN = 0.3
"""The Jacobian is taken at a point at most this share of the half field of view outside the image."""
LARGEST_SPREAD = 1e5
"""Splats whose standard deviation may exceed this many pixels are fog on the lens; float32 cannot invert them."""
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
    """The Gaussians that one camera can see, in the image plane."""

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


def project(
    gaussians: Gaussians,
    camera_to_world: Float[Tensor, "4 4"],
    intrinsics: Float[Tensor, "4"],
    height: int,
    width: int,
    near: float,
) -> Projection:
    """Projects unbatched Gaussians into one camera.

    Gaussians nearer than ``near`` (z, scene units) and those that could be larger than ``LARGEST_SPREAD`` pixels
    are left out before anything is differentiated, so they get zero gradients and never NaN. Those outside the
    image stay. Everything is computed in the dtype of the Gaussians.
    """
    camera_to_world, intrinsics = (t.to(gaussians.means) for t in (camera_to_world, intrinsics))
    # The three axes of the camera in world space; written out as sums, because a batched product of 3x3 matrices is
    # many times slower on a CPU and autocast would round it to bfloat16.
    axes = camera_to_world[:3, :3].unbind(-1)
    center = camera_to_world[:3, 3]
    fx, fy, cx, cy = intrinsics.unbind()
    half_x, half_y = MARGIN * width / (2 * fx), MARGIN * height / (2 * fy)
    low_x, high_x = -cx / fx - half_x, (width - cx) / fx + half_x
    low_y, high_y = -cy / fy - half_y, (height - cy) / fy + half_y

    with torch.no_grad():
        offset = gaussians.means - center
        z = (offset * axes[2]).sum(-1)
        steepest = torch.stack([low_x, high_x, low_y, high_y]).abs().max()
        magnification = torch.maximum(fx, fy) * torch.sqrt(1 + steepest.square())
        bound = gaussians.scales.amax(-1) * magnification
        sane = (bound <= LARGEST_SPREAD * z) & (offset.norm(dim=-1) * torch.maximum(fx, fy) <= FARTHEST * z)
        index = ((z > near) & sane).nonzero().squeeze(-1)

    if len(index) < len(gaussians):
        gaussians = gaussians.select(index)
    offset = gaussians.means - center
    x, y, z = ((offset * axis).sum(-1) for axis in axes)
    across, down = x / z, y / z
    means = torch.stack([fx * across + cx, fy * down + cy], dim=-1)

    # Rows of Jacobian times world-to-camera rotation, then expressed in the Gaussian's own scaled axes.
    rotation = matrix_from_quaternion(gaussians.quaternions)
    tangent_x = torch.minimum(torch.maximum(across, low_x), high_x)
    tangent_y = torch.minimum(torch.maximum(down, low_y), high_y)
    row_x = (fx / z)[:, None] * (axes[0] - tangent_x[:, None] * axes[2])
    row_y = (fy / z)[:, None] * (axes[1] - tangent_y[:, None] * axes[2])
    row_x = (row_x[:, :, None] * rotation).sum(-2) * gaussians.scales
    row_y = (row_y[:, :, None] * rotation).sum(-2) * gaussians.scales
    xx, xy, yy = row_x.square().sum(-1), (row_x * row_y).sum(-1), row_y.square().sum(-1)
    # det(M Mᵀ) = |m_x × m_y|²: the usual xx*yy - xy² loses every digit for long thin splats.
    area = torch.linalg.cross(row_x, row_y).square().sum(-1)
    determinant = area + BLUR * (xx + yy) + BLUR * BLUR
    conics = torch.stack([yy + BLUR, -xy, xx + BLUR], dim=-1) / determinant[:, None]
    spreads = torch.stack([xx + BLUR, yy + BLUR], dim=-1).detach().sqrt()
    return Projection(index, means, conics, z, spreads)


def faintest_exponent(opacities: Float[Tensor, "splat"]) -> Float[Tensor, "splat"]:
    """Squared Mahalanobis radius at which a splat falls to ``ALPHA_MIN``; negative where it never reaches it."""
    return 2 * (opacities.clamp(min=1e-12).log() - math.log(ALPHA_MIN))
