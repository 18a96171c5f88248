"""What the scene shows along its own trajectories: color, depth and where depth can be believed."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from lyra.engine.paths import resample_cameras
from lyra.generate.run_folder import EXTENSIONS
from lyra.geometry.cameras import Cameras, concatenate_cameras, pixel_rays, z_depth_factor
from lyra.geometry.gaussians import Gaussians
from lyra.geometry.sky import SKY_FROM
from lyra.geometry.trajectories import DISTANCE_RANGES, TRAJECTORY_NAMES, trajectory_cameras
from lyra.rendering import render
from lyra.scene.scene import Scene

SOLID = 0.7
"""Alpha from which a pixel shows a surface."""
STEP = 0.06
"""Share of its depth by which a pixel may differ from its neighbours' mean; between two surfaces it shows neither."""


@dataclass(frozen=True)
class Shots:
    """Pictures of a scene, one a camera."""

    cameras: Cameras
    color: Float[Tensor, "view 3 height width"]
    depth: Float[Tensor, "view height width"]
    """z-depth in scene units."""
    valid: Bool[Tensor, "view height width"]
    """A surface, no sky, and no edge between two."""

    def points(self) -> Float[Tensor, "view height width 3"]:
        """Where every pixel's surface lies in the world; only meaningful where it is valid."""
        origins, directions = pixel_rays(self.cameras)
        return origins + directions * (self.depth * z_depth_factor(self.cameras))[..., None]


def own_cameras(camera: Cameras, size: int = 192, each: int = 3) -> Cameras:
    """The input view and ``each`` views along each of the six trajectories, longer side ``size`` pixels."""
    parts = [camera]
    for name in TRAJECTORY_NAMES:
        path = trajectory_cameras(
            name, DISTANCE_RANGES[name][1], 4 * each + 1, camera.intrinsics[0], camera.height, camera.width
        )
        parts.append(path[torch.arange(4, 4 * each + 1, 4)])
    factor = size / max(camera.height, camera.width)
    whole = concatenate_cameras([part.relative_to(torch.eye(4)) for part in parts])
    return whole.resized(round(camera.height * factor), round(camera.width * factor))


def scene_cameras(scene: Scene, size: int = 192, each: int = 3) -> Cameras:
    """Those of ``own_cameras``, and ``each`` along every clip by which the scene was extended."""
    whole = own_cameras(scene.input_camera, size, each)
    parts = [whole]
    for extension in scene.provenance.get(EXTENSIONS, []):
        ends = torch.tensor(extension["path"])
        corners = replace(whole, camera_to_world=ends, intrinsics=whole.intrinsics[:1].expand(len(ends), 4))
        parts.append(resample_cameras(corners, each * (len(ends) - 1) + 1)[1:])
    return concatenate_cameras(parts)


@torch.no_grad()
def shoot(gaussians: Gaussians, cameras: Cameras) -> Shots:
    """Renders the scene, and marks the depths that are a surface's."""
    views = [render(gaussians, cameras[i : i + 1]) for i in range(len(cameras))]
    depth, alpha = (torch.cat([getattr(view, name) for view in views]) for name in ("depth", "alpha"))
    color = torch.cat([view.color for view in views]).clamp(0, 1)
    return Shots(cameras, color, depth, believable(depth, alpha))


def believable(
    depth: Float[Tensor, "view height width"], alpha: Float[Tensor, "view height width"]
) -> Bool[Tensor, "view height width"]:
    """Depths of solid pixels that are near those around them, neither sky nor edge."""
    # A slope has twice its step between the neighbours on its two sides: it is no edge where the middle is the mean.
    around = F.pad(depth[:, None], (1, 1, 1, 1), mode="replicate")[:, 0]
    bends = [
        (around[:, 2:, 1:-1] + around[:, :-2, 1:-1] - 2 * depth).abs(),
        (around[:, 1:-1, 2:] + around[:, 1:-1, :-2] - 2 * depth).abs(),
    ]
    smooth = torch.maximum(*bends) < STEP * depth
    return smooth & (alpha > SOLID) & (depth > 0) & (depth < SKY_FROM)
