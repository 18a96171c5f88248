"""Moving worlds: a still world and one to three things that move in it (``sample_moving_world``), at any time.

Movers are the last objects of the still world. Each has a path: its centre and yaw at even instants from time 0 to 1.
Everything else, textures and exposure among it, is the same at all times, so that a mover carries its texture along,
and shadows follow because each time is traced by itself.
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.random import Generator
from torch import Tensor

from lyra.geometry.cameras import Cameras
from lyra.geometry.sky import MAX_DEPTH
from lyra.worlds.draws import _kept, _scaled, input_camera, sample_world
from lyra.worlds.patterns import TEXTURE_SIZE
from lyra.worlds.placing import LOOKS, VIEW_SIZE, find_mover, look_at, objects_depth
from lyra.worlds.textures import make_atlas
from lyra.worlds.tracing import render_world, world_depth
from lyra.worlds.world import World

_OTHER_WORLDS = 1 << 40  # where no room is left, the seed's world is another one, far off all seeds in use


@dataclass(frozen=True)
class MovingWorld:
    """A world whose last objects move; lengths in scene units, room frame."""

    still: World
    """As it is at time 0."""
    paths: Float[Tensor, "part key 4"]
    """Centre and yaw of the last objects at even instants from time 0 to 1; linear between them."""

    def at(self, time: float) -> World:
        """The world at a time in [0, 1]."""
        if not 0 <= time <= 1:
            raise ValueError(f"time {time} is outside of [0, 1]")
        keys = self.paths.shape[1] - 1
        key = min(int(time * keys), keys - 1)
        here = torch.lerp(self.paths[:, key], self.paths[:, key + 1], time * keys - key)
        stay = len(self.still.kinds) - len(here)
        return replace(
            self.still,
            centers=torch.cat([self.still.centers[:stay], here[:, :3]]),
            yaws=torch.cat([self.still.yaws[:stay], here[:, 3]]),
        )

    @property
    def movers(self) -> Bool[Tensor, "object"]:
        """Which objects move."""
        count = len(self.still.kinds)
        return torch.arange(count, device=self.paths.device) >= count - len(self.paths)

    def to(self, device: torch.device | str) -> "MovingWorld":
        """Moves the tensors to a device."""
        return MovingWorld(self.still.to(device), self.paths.to(device))


def _joined(world: World, part: World) -> World:
    """A world with the objects of another one added."""
    objects = {
        name: torch.cat([getattr(world, name), getattr(part, name)])
        for name in ("kinds", "centers", "half_sizes", "yaws", "groups")
    }
    surfaces = {
        name: torch.cat([getattr(world, name), getattr(part, name)[6:]])
        for name in ("textures", "mappings", "tints", "emissions")
    }
    return replace(world, **objects, **surfaces)


def _with_textures(world: World, names: tuple[str, ...], atlas: Tensor) -> World:
    """The world with textures added behind its own, level by level."""
    before, after, start, other, levels = len(world.texture_names), len(names), 0, 0, []
    size = TEXTURE_SIZE
    while start < len(world.atlas):
        levels += [world.atlas[start : start + before * size**2], atlas[other : other + after * size**2]]
        start, other, size = start + before * size**2, other + after * size**2, size // 2
    return replace(world, atlas=torch.cat(levels), texture_names=world.texture_names + names)


def _settled(world: MovingWorld) -> MovingWorld:
    """Rescaled to a median depth of 1 in the input view at time 0."""
    for _ in range(3):
        depth = world_depth(world.at(0.0), input_camera(VIEW_SIZE))
        factor = 1 / float(depth[depth < MAX_DEPTH].median())
        paths = torch.cat([world.paths[..., :3] * factor, world.paths[..., 3:]], -1)
        world = MovingWorld(_scaled(world.still, factor), paths)
    return world


def _shows_motion(world: MovingWorld) -> bool:
    """Whether movers cover enough of the input view, and their outlines change by a good part of that."""
    looks = torch.linspace(0, 1, len(LOOKS))
    shown = moving_pixels(world, input_camera(VIEW_SIZE)[[0] * len(looks)], looks)
    shares = shown.float().mean((1, 2))
    changed = (shown[1:] != shown[:-1]).float().mean((1, 2)).sum()
    return bool(shares.min() > 0.015 and 0.04 < shares.mean() < 0.25 and changed > 0.8 * shares.mean())


def _try_world(rng: Generator, base: World) -> MovingWorld | None:
    """Movers in a world, or None where it has no room for any."""
    wanted = int(rng.choice([1, 2, 3], p=(0.4, 0.4, 0.2)))
    total, movers, names = rng.uniform(0.07, 0.2), [], ()
    scenery = look_at(base)
    for _ in range(wanted):
        share = total / wanted * rng.uniform(0.7, 1.3)
        found = find_mover(rng, scenery, share, movers, len(base.texture_names) + len(names))
        if found is not None:
            mover, scenery = found
            movers.append(mover)
            names = names + mover.names
    if not movers:
        return None
    world = scenery.world
    for number, mover in enumerate(movers, int(base.groups.max()) + 1):
        world = _joined(world, replace(mover.objects, groups=torch.full_like(mover.objects.groups, number)))
    paths = torch.from_numpy(np.concatenate([mover.paths for mover in movers])).float()
    centers, yaws = world.centers.clone(), world.yaws.clone()
    centers[-len(paths) :], yaws[-len(paths) :] = paths[:, 0, :3], paths[:, 0, 3]
    world = replace(world, centers=centers, yaws=yaws)
    moving = _settled(MovingWorld(world, paths))
    if not _shows_motion(moving):
        return None
    if names:
        moving = replace(moving, still=_with_textures(moving.still, names, make_atlas(rng, names)))
    return moving


def sample_moving_world(seed: int) -> MovingWorld:
    """Draws the moving world of a seed.

    ``sample_world`` of the seed, into which one to three things are put, or of which some are set in motion: boxes,
    balls, carts, people and animals slide, turn, bounce, sway, drive or walk on floors, tables and the ground. At time
    0 the input view's median z-depth, sky apart, is 1. Movers cover 4 to 25 % of the input view on average, are in it
    throughout, keep ``CLEARANCE`` from the cameras of the six trajectories at all times and do not enter walls or other
    things, which make room for them where it is narrow.

    Args:
        seed: As for ``sample_world``; the same seed gives the same bytes.
    """
    rng = np.random.default_rng([seed, 1])
    for other in range(1000):
        base = sample_world(seed + other * _OTHER_WORLDS)
        for _ in range(6):
            moving = _try_world(rng, base)
            if moving is not None:
                return moving
    raise AssertionError("no world has room for a mover")


def moving_pixels(
    world: MovingWorld, cameras: Cameras, times: Float[Tensor, "view"], depth: Tensor | None = None
) -> Bool[Tensor, "view height width"]:
    """Pixels whose first hit is a mover.

    Args:
        world: On the device of the cameras.
        cameras: In world coordinates.
        times: Of the views, in [0, 1].
        depth: Z-depth of all views [view, height, width], where it is known already.
    """
    masks = []
    for index, time in enumerate(times.tolist()):
        now, camera = world.at(time), cameras[[index]]
        seen = world_depth(now, camera) if depth is None else depth[index : index + 1]
        # The same rays meet the same objects: the depths agree but for rounding.
        masks.append(objects_depth(_kept(now, world.movers), camera) <= seen * (1 + 1e-5))
    return torch.cat(masks)


@torch.no_grad()
def render_moving_world(
    world: MovingWorld, cameras: Cameras, times: Float[Tensor, "view"], supersample: int = 2
) -> tuple[Float[Tensor, "view 3 height width"], Float[Tensor, "view height width"], Bool[Tensor, "view height width"]]:
    """Renders a moving world, view i at time i.

    Args:
        world: On the device of the cameras.
        cameras: In world coordinates (the input camera is the identity), float32.
        times: Of the views, in [0, 1].
        supersample: As for ``render_world``.

    Returns:
        Colors and z-depth as of ``render_world``, and which pixels' first hit is a mover.
    """
    if len(times) != len(cameras):
        raise ValueError(f"{len(cameras)} cameras, but {len(times)} times")
    views = [render_world(world.at(time), cameras[[index]], supersample) for index, time in enumerate(times.tolist())]
    color, depth = (torch.cat(part) for part in zip(*views, strict=True))
    return color, depth, moving_pixels(world, cameras, times, depth)
