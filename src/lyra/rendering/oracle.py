"""A renderer that is easy to believe: every pixel against every Gaussian, by autograd, in any precision.

It is what the fast renderers are tested against. It has no tiles and no radius; its memory is pixels times
Gaussians.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from lyra.geometry.cameras import Cameras
from lyra.geometry.gaussians import Gaussians
from lyra.rendering.appearance import draw_each
from lyra.rendering.image import Rendering, over_background, stack_views
from lyra.rendering.projection import ALPHA_MAX, ALPHA_MIN, TRANSMITTANCE_MIN, project

PAIRS_AT_ONCE = 4_000_000


def render_oracle(
    gaussians: Gaussians,
    cameras: Cameras,
    background: Float[Tensor, "3"] | None = None,
    near: float = 0.01,
) -> Rendering:
    """Renders as :func:`lyra.rendering.render` does, in the dtype of the Gaussians."""
    if gaussians.harmonics is not None:
        return draw_each(render_oracle, gaussians, cameras, background, near)
    views = [_accumulate(gaussians, cameras, view, near) for view in range(len(cameras))]
    return over_background(stack_views(views, cameras.height, cameras.width, gaussians.means), background)


def _accumulate(gaussians: Gaussians, cameras: Cameras, view: int, near: float) -> Float[Tensor, "5 height width"]:
    """Red, green, blue, depth and alpha summed over the Gaussians of one view."""
    height, width = cameras.height, cameras.width
    splats = project(gaussians, cameras.camera_to_world[view], cameras.intrinsics[view], height, width, near)
    order = torch.argsort(splats.depths.detach(), stable=True)
    means, conics, depths = splats.means[order], splats.conics[order], splats.depths[order]
    opacities = gaussians.opacities[splats.index[order]]
    colors = gaussians.colors[splats.index[order]]
    features = torch.cat([colors, depths[:, None], torch.ones_like(depths)[:, None]], dim=-1)

    step = max(1, PAIRS_AT_ONCE // max(1, width * len(order)))
    bands = []
    for top in range(0, height, step):
        rows = torch.arange(top, min(top + step, height), dtype=means.dtype, device=means.device) + 0.5
        columns = torch.arange(width, dtype=means.dtype, device=means.device) + 0.5
        dx = columns[None, :, None] - means[:, 0]
        dy = rows[:, None, None] - means[:, 1]
        power = -0.5 * (conics[:, 0] * dx * dx + conics[:, 2] * dy * dy) - conics[:, 1] * dx * dy
        alpha = (opacities * power.exp()).clamp(max=ALPHA_MAX)
        alpha = torch.where(alpha < ALPHA_MIN, 0, alpha)
        # In logarithms, because a product over thousands of splats underflows and its gradient becomes 0/0.
        log_pass = torch.log1p(-alpha)
        log_after = log_pass.cumsum(-1)
        # Transmittance only falls, so once this is false it stays false: the pixel has ended.
        counted = log_after.detach().exp() > TRANSMITTANCE_MIN
        weights = torch.where(counted, alpha * (log_after - log_pass).exp(), 0)
        bands.append((weights @ features).movedim(-1, 0))
    return torch.cat(bands, dim=1)
