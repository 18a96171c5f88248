"""Sampling: a seed becomes a world (``sample_world``), and a world becomes a caption (``describe_world``).

A world of a kind drawn by the seed is rescaled to the median z-depth of its input view, cleared of what the cameras
would run into, drawn anew where its view is dull, and given its textures and exposure last.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.sky import MAX_DEPTH
from lyra.worlds.intersections import box_gaps
from lyra.worlds.landscapes import draw_landscape
from lyra.worlds.rooms import draw_room, draw_table
from lyra.worlds.streets import draw_building, draw_street
from lyra.worlds.terrain import heights_at
from lyra.worlds.textures import make_atlas
from lyra.worlds.tracing import render_world, world_depth
from lyra.worlds.world import GROUND, INPUT_FOV, World, WorldKind

_MAKERS: Mapping[WorldKind, tuple[float, Callable[[Generator], World]]] = {
    "room": (0.4, draw_room),
    "table": (0.15, draw_table),
    "street": (0.15, draw_street),
    "landscape": (0.15, draw_landscape),
    "building": (0.15, draw_building),
}
CLEARANCE = 0.06
"""How near a camera of the six trajectories may come to anything, scene units."""
# Positions that the trajectories reach at 1.3 times their largest distances.
_REACH = [(0.0, 0.0, 0.0), (0.39, 0.0, 0.0), (-0.39, 0.0, 0.0), (0.0, -0.26, 0.0), (0.2, 0.0, 0.0), (-0.2, 0.0, 0.0)]
_REACH += [(0.0, 0.0, z) for z in (-0.52, -0.35, -0.18, 0.13, 0.26, 0.39, 0.52)]
_REACH += [(-0.12, 0.08, 0.0), (-0.12, -0.08, 0.0), (0.0, -0.13, 0.0)]


def input_camera(size: int) -> Cameras:
    """The camera that fixes a world's scale: the identity with ``INPUT_FOV``."""
    return Cameras(torch.eye(4)[None], intrinsics_from_fov(INPUT_FOV, size, size)[None], size, size)


def _scaled(world: World, factor: float) -> World:
    """The same world with all lengths multiplied."""
    mappings = world.mappings.clone()
    mappings[:, :2] /= factor
    lengths = {name: getattr(world, name) * factor for name in ("room", "centers", "half_sizes")}
    light, sky, terrain = world.light, world.sky, world.terrain
    if sky is None:
        light = torch.stack([light[0] * factor, light[1]])
    else:
        sky = replace(sky, haze=sky.haze / factor)
    if terrain is not None:
        terrain = replace(terrain, corners=terrain.corners * factor, stretch=terrain.stretch * factor)
    return replace(world, **lengths, mappings=mappings, light=light, sky=sky, terrain=terrain)


def _kept(world: World, keep: Tensor) -> World:
    """The same world with some of its objects only."""
    surfaces = torch.cat([torch.ones(6, dtype=torch.bool), keep])
    objects = {name: getattr(world, name)[keep] for name in ("kinds", "centers", "half_sizes", "yaws", "groups")}
    return replace(
        world,
        **objects,
        **{name: getattr(world, name)[surfaces] for name in ("textures", "mappings", "tints", "emissions")},
    )


def _clear_of_cameras(world: World) -> World | None:
    """The world without the things that cameras would run into; None if they would run into the ground or a wall."""
    places = (torch.tensor(_REACH)[:, None] * world.rotation).sum(-1)
    ground = world.room[1, 1] if world.terrain is None else heights_at(world.terrain, places[:, 0], places[:, 2])
    if (ground - places[:, 1]).min() < CLEARANCE:
        return None
    if world.sky is None and torch.minimum(places - world.room[0], world.room[1] - places).min() < CLEARANCE:
        return None
    near = world.groups[box_gaps(world, places).amin(1) < CLEARANCE]
    keep = ~torch.isin(world.groups, near)
    return world if keep.all() else _kept(world, keep)


def settled(world: World) -> World | None:
    """The world at median depth 1 with room for the cameras; None if it cannot be had or the view is dull."""
    for _ in range(4):
        depth = world_depth(world, input_camera(64))
        seen = depth[depth < MAX_DEPTH]
        if len(seen) < 0.35 * depth.numel():
            return None
        near, middle, far = torch.quantile(seen, torch.tensor([0.05, 0.5, 0.95])).tolist()
        scaled = _scaled(world, 1 / middle)
        cleared = _clear_of_cameras(scaled)
        # A view of little more than one wall teaches nothing about depth.
        if cleared is None or far <= 1.5 * near or len(cleared.kinds) < 4:
            return None
        if cleared is scaled:
            # The sky begins at MAX_DEPTH whatever the scale was while the median was taken.
            exact = world_depth(scaled, input_camera(64))
            if abs(float(exact[exact < MAX_DEPTH].median()) - 1) < 0.005:
                return scaled
        world = cleared
    return None


def sample_world(seed: int) -> World:
    """Draws the world of a seed.

    The input camera is at the origin of the world, looks along +z and sees the scene, sky apart, at a median z-depth
    of 1. No camera of the six trajectories comes within ``CLEARANCE`` of anything, at up to 1.3 times their distances.

    Args:
        seed: Any non-negative integer; the same seed gives the same bytes.

    Returns:
        The world, on the CPU, in float32.
    """
    rng = np.random.default_rng(seed)
    share, (_, draw) = rng.random(), _MAKERS["room"]
    for probability, draw in _MAKERS.values():  # noqa: B007
        share -= probability
        if share < 0:
            break
    while (world := settled(draw(rng))) is None:
        pass
    return exposed(rng, replace(world, atlas=make_atlas(rng, world.texture_names)))


def exposed(rng: Generator, world: World) -> World:
    """The world at an automatic exposure: the input view's mean radiance is brought to a random brightness."""
    colors, _ = render_world(world, input_camera(32), supersample=1)
    radiance = -torch.log1p(-colors.clamp(max=0.9999).pow(2.2)).mean()
    return replace(world, exposure=torch.tensor(math.exp(rng.normal(-1.0, 0.3))) / radiance)


def describe_world(world: World) -> str:
    """A short caption: what stands in the world and what its surfaces are made of."""
    made_of = {"tiles": "tiled", "checks": "checked", "stripes": "striped", "carpet": "carpeted"}
    names = [world.texture_names[int(index)] for index in world.textures.tolist()]
    names = [made_of.get(name, name) for name in names]
    things = ", ".join(world.things)
    if world.kind == "room":
        return f"a room with {names[5]} walls, a {names[GROUND]} floor, {things}"
    if world.kind == "table":
        return f"a {names[6]} table with {things}, seen from above"
    return f"a {world.kind} with {things}"
