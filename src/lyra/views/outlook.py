"""What a scene that is already there shows along a path: its own pictures and depth, from which more is imagined."""

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from lyra.cache.warp import FAR_BIAS, DepthCache, EdgeFilter, MovingCache, WarpSettings, build_cache, fill_holes
from lyra.errors import LyraError
from lyra.geometry.cameras import Cameras, look_up, project
from lyra.geometry.gaussians import Gaussians, merge, transform
from lyra.geometry.sky import MAX_DEPTH, SKY_FROM, is_sky
from lyra.rendering import render
from lyra.views.views import Views

SOLID = 0.9
"""Alpha from which a picture of a scene is taken for what is there; below, something may be new."""
_SEAM = 1 / 128
"""Of a picture's longer side: how near to a hole a scene is not relied on, so that what is new overlaps it."""
SAME = 0.05
"""Share of its depth by which something behind a surface is still that surface."""
LEAST_IN_SIGHT = 0.5
"""Share of its first picture that a path has to begin with."""
_PUSHES, _PUSH = 24, 1.06
"""How often a point is moved back along its ray at most, and by what factor."""


@dataclass(frozen=True)
class Exposures:
    """Pictures of a scene."""

    cameras: Cameras
    color: Float[Tensor, "view 3 height width"]
    """In [0, 1]; only meaningful where it is solid."""
    depth: Float[Tensor, "view height width"]
    """Z-depth of the same."""
    solid: Bool[Tensor, "view height width"]
    """Where the scene is, away from its seam to where it is not."""

    def meets(self, points: Float[Tensor, "point 3"]) -> tuple[Bool[Tensor, "view point"], Bool[Tensor, "view point"]]:
        """Which points are where a picture is open, and which are on or in front of what it shows."""
        u, v, z = project(points, self.cameras)
        inside, pixel = look_up(u, v, z, *self.depth.shape[1:])
        view = torch.arange(len(self.depth))[:, None].expand_as(inside)
        solid, depth = self.solid[view, *pixel], self.depth[view, *pixel]
        return inside & ~solid, inside & solid & (z < depth * (1 + SAME))


@dataclass(frozen=True, kw_only=True)
class Outlook(Views):
    """A scene as its own input: the picture from the first camera of a path, in that camera's frame, the picture's
    median depth at 1, and what the scene shows at each frame.
    """

    path: Exposures
    """One a frame, the first at the identity."""
    kept: Exposures
    """Further pictures that shall not lose anything."""
    start: Float[Tensor, "4 4"]
    """The first camera to world, in the scene."""
    unit: float
    """Scene units of one unit here."""

    def cache(self, edges: EdgeFilter | None, warp: WarpSettings | None = None) -> MovingCache:
        """Each frame's own points. Nothing moves against the camera that they came from: edges need no filter."""
        path, images = self.path, self.path.color * 2 - 1
        each = (slice(index, index + 1) for index in range(len(images)))
        moments = (
            replace(build_cache(images[at], path.depth[at], path.cameras[at], None, warp), reliable=path.solid[at])
            for at in each
        )
        return MovingCache(tuple(moments))

    def find_new(self, gaussians: Gaussians) -> Bool[Tensor, "splat"]:
        """Which Gaussians, in this frame, fill what the scene leaves open, and neither double nor hide what it shows.

        One is kept if it is in a hole of the scene, or at its seam, in some picture of the path, and in no picture on
        or in front of a surface of the scene.
        """
        in_hole, _ = self.path.meets(gaussians.means)
        return in_hole.any(0) & ~self._shows_through(gaussians.means)

    def _shows_through(self, points: Float[Tensor, "point 3"]) -> Bool[Tensor, "point"]:
        """Which points are where pictures show something farther, or the same."""
        return self.path.meets(points)[1].any(0) | self.kept.meets(points)[1].any(0)

    @property
    def openness(self) -> float:
        """Share of the path's pixels at which the scene leaves open what is there."""
        return 1 - float(self.path.solid.float().mean())

    def make_room(self, cache: DepthCache) -> DepthCache:
        """Points of the path's last frame in the holes that the scene has there, moved back along their rays until no
        picture shows what is behind them; those for which that is too far are not relied on.
        """
        end = self.path.cameras.centers[-1]
        places = cache.points[0][~self.path.solid[-1]]
        for _ in range(_PUSHES):
            wrong = self._shows_through(places)
            places = torch.where(wrong[:, None], end + _PUSH * (places - end), places)
        points, reliable = cache.points.clone(), cache.reliable.clone()
        points[0, ~self.path.solid[-1]] = places
        reliable[0, ~self.path.solid[-1]] &= ~self._shows_through(places)
        return replace(cache, points=points, reliable=reliable & ~self.path.solid[-1:])

    def place(self, gaussians: Gaussians) -> Gaussians:
        """Gaussians of this frame and unit, in the scene. The sky stays as far as it is in every scene."""
        far = is_sky(gaussians.means[:, 2])
        rotation, shift = self.start[:3, :3], self.start[:3, 3]
        near = transform(gaussians.select(~far), rotation, shift, self.unit)
        return merge([near, transform(gaussians.select(far), rotation, shift)])


@torch.no_grad()
def expose(gaussians: Gaussians, cameras: Cameras) -> Exposures:
    """Renders a scene, and finds where it is solid."""
    # One at a time: the renderer's memory is that of one picture.
    pictures = [render(gaussians, cameras[index : index + 1], torch.zeros(3)) for index in range(len(cameras))]
    color, depth, alpha = (torch.cat([getattr(picture, name) for picture in pictures]) for name in _FIELDS)
    width = max(1, round(_SEAM * max(cameras.height, cameras.width)))
    holes = F.max_pool2d((alpha <= SOLID).float()[:, None], 2 * width + 1, stride=1, padding=width)[:, 0]
    return Exposures(cameras, (color / alpha[:, None].clamp(min=1e-6)).clamp(0, 1), depth, holes == 0)


_FIELDS = ("color", "depth", "alpha")


def find_unit(pictures: Exposures) -> float:
    """The median depth of the first picture's surfaces, scene units; 1 where there is only sky."""
    surface = pictures.solid[0] & ~is_sky(pictures.depth[0])
    return float(pictures.depth[0][surface].median()) if bool(surface.any()) else 1.0


def look_ahead(gaussians: Gaussians, cameras: Cameras, kept: Cameras) -> Outlook:
    """What a scene shows along a path.

    Args:
        gaussians: Of the scene, on the CPU.
        cameras: Of the path's frames, in the scene.
        kept: Cameras whose pictures shall not lose anything.

    Raises:
        LyraError: less than half of the first picture shows the scene.
    """
    path = expose(gaussians, cameras)
    solid = path.solid[0]
    if float(solid.float().mean()) < LEAST_IN_SIGHT:
        raise LyraError(
            f"the path begins where only {100 * float(solid.float().mean()):.0f} % of the picture show the scene: "
            "begin it where more of the scene is in sight"
        )
    unit = find_unit(path)
    start = cameras.camera_to_world[0]
    path, others = (_seen_from(start, unit, pictures) for pictures in (path, expose(gaussians, kept)))
    mask, depth = solid[None].float(), path.depth[:1].clamp(min=1e-3)
    first = fill_holes(path.color[:1] * mask[:, None], mask, depth**FAR_BIAS)
    behind = fill_holes(depth[:, None].log() * mask[:, None], mask, depth**FAR_BIAS)[:, 0].exp()
    return Outlook(first, behind, path.cameras[:1], path=path, kept=others, start=start, unit=unit)


def _seen_from(start: Float[Tensor, "4 4"], unit: float, pictures: Exposures) -> Exposures:
    """The same pictures in another frame and unit; the sky stays as far as it is in every scene."""
    poses = pictures.cameras.relative_to(start).camera_to_world.clone()
    poses[:, :3, 3] /= unit
    # The engine tells by it that a path begins at the picture.
    poses[(pictures.cameras.camera_to_world == start).flatten(1).all(1)] = torch.eye(4)
    depth = torch.where(is_sky(pictures.depth), MAX_DEPTH, (pictures.depth / unit).clamp(max=0.99 * SKY_FROM))
    return replace(pictures, cameras=replace(pictures.cameras, camera_to_world=poses), depth=depth)
