"""Placing movers: proposals of what moves and along which track, and whether there is room for it and it is seen.

A mover is made up for a share of the view, or is a thing that the world has already. Proposals are drawn until one
stays in the picture, off walls, cameras and other things, with ground under it all the way.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from lyra.geometry.cameras import Cameras
from lyra.geometry.sky import MAX_DEPTH
from lyra.worlds.drawing import Draft, tensor
from lyra.worlds.draws import _REACH, CLEARANCE, _kept, input_camera
from lyra.worlds.intersections import box_gaps
from lyra.worlds.movers import (
    KEYS,
    OUTLINES,
    STYLES,
    Body,
    Ground,
    Style,
    Thing,
    Track,
    draw_track,
    extent_of,
    make_thing,
    pose,
)
from lyra.worlds.terrain import ground_at, heights_at
from lyra.worlds.tracing import camera_rays, first_hits, world_depth
from lyra.worlds.world import BOX, GROUND, INPUT_FOV, World

VIEW_SIZE = 64
"""Pixels along a side of the view in which movers are placed."""
LOOKS = np.linspace(0, KEYS - 1, 5).round().astype(int)
"""Keys at which a mover must be seen."""
_CHECKED = np.linspace(0, KEYS - 1, 33).round().astype(int)  # keys at which room is looked for
_MARGIN = 0.03  # scene units between a mover and other things
_TRIES = 60
_WET = 0.3  # share of water from which ground does not carry
_LARGEST = 0.3  # half size, scene units, of a thing that a world may set in motion: no houses


@dataclass(frozen=True)
class Mover:
    """A mover before it joins a world."""

    objects: World  # its objects with their surfaces, after the world's six sides
    paths: np.ndarray  # [part, key, 4]
    hull: World  # a box around it at each of the checked keys
    stands_on: int = -1  # group of what it stands on; -1 is the ground
    names: tuple[str, ...] = ()  # textures to be added to the atlas


@dataclass(frozen=True)
class Scenery:
    """What movers are put into, and what the input camera sees of it."""

    world: World
    point: np.ndarray  # [pixel, 3], room frame
    depth: Tensor  # [pixel]
    surface: Tensor  # [pixel]


def objects_depth(world: World, cameras: Cameras) -> Tensor:
    """Z-depth [view, height, width] of a world's objects alone; infinite where there is none."""
    bare = replace(world, terrain=None)
    rays = camera_rays(bare, cameras, torch.arange(len(cameras) * cameras.height * cameras.width).to(world.kinds))
    depth, surface = first_hits(bare, rays, None)
    return torch.where(surface >= 6, depth, torch.inf).view(len(cameras), cameras.height, cameras.width)


def look_at(world: World) -> Scenery:
    """A world and what its input view shows."""
    camera = input_camera(VIEW_SIZE)
    depth = world_depth(world, camera).flatten()
    rays = camera_rays(world, camera, torch.arange(VIEW_SIZE * VIEW_SIZE))
    nearest, surface = first_hits(replace(world, terrain=None), rays, None)
    if world.terrain is not None:
        surface = torch.where(nearest > depth * 1.0001, torch.where(depth < MAX_DEPTH, GROUND, -1), surface)
    return Scenery(world, (rays.o + depth * rays.d).T.numpy().astype(np.float64), depth, surface)


def _drawn_objects(world: World, draft: Draft, names: int) -> World:
    """The objects of a draft, as parts of a world whose atlas has this many textures before theirs."""
    kinds, centers, halves, yaws, _ = zip(*draft.objects, strict=True)
    textures, mappings, tints, glows = zip(*draft.surfaces, strict=True)

    def after_sides(name: str, values: Tensor) -> Tensor:
        return torch.cat([getattr(world, name)[:6], values])

    return replace(
        world,
        kinds=torch.tensor(kinds),
        centers=tensor(centers),
        half_sizes=tensor(halves),
        yaws=tensor(yaws),
        groups=torch.zeros(len(kinds), dtype=torch.long),
        textures=after_sides("textures", torch.tensor(textures) + names),
        mappings=after_sides("mappings", tensor(mappings)),
        tints=after_sides("tints", tensor(tints)),
        emissions=after_sides("emissions", tensor(glows)),
    )


def _hull(world: World, track: Track, base: np.ndarray, extent: np.ndarray) -> World:
    """Boxes around a thing at the checked keys; ``base`` is the y of its lowest point."""
    # A little off the ground, so that a kerb or a mark on the road is not in the way.
    half = extent * (1, 0.96, 1)
    centers = np.stack([track.place[:, 0], base - extent[1] - 0.04 * extent[1], track.place[:, 1]], -1)[_CHECKED]
    # Boxes without a look of their own: any surface does.
    count = len(centers)
    any_surface = torch.zeros(6 + count, dtype=torch.long)
    return replace(
        world,
        kinds=torch.full((count,), BOX),
        centers=tensor(centers),
        half_sizes=tensor(half).expand(count, 3),
        yaws=tensor(track.yaw[_CHECKED]),
        groups=torch.zeros(count, dtype=torch.long),
        **{name: getattr(world, name)[any_surface] for name in ("textures", "mappings", "tints", "emissions")},
    )


def _corners(boxes: World) -> Tensor:
    """A grid of points [box, point, 3] in and on boxes."""
    lines = [torch.linspace(-1, 1, n) for n in (3, 4, 3)]
    local = torch.stack(torch.meshgrid(*lines, indexing="ij"), -1).view(1, -1, 3) * boxes.half_sizes[:, None]
    cos, sin = boxes.yaws.cos()[:, None], boxes.yaws.sin()[:, None]
    x, y, z = local.unbind(-1)
    return torch.stack([cos * x + sin * z, y, cos * z - sin * x], -1) + boxes.centers[:, None]


def _blockers(world: World, hull: World) -> Tensor:
    """Which objects [object] of a world a mover would run into."""
    points = _corners(hull).flatten(0, 1)
    low, high = points.amin(0), points.amax(0)
    reach = world.half_sizes.norm(dim=1, keepdim=True) + _MARGIN
    near = ((world.centers > low - reach) & (world.centers < high + reach)).all(1)
    hit = near.clone()
    if near.any():
        some = _kept(world, near)
        inside = (box_gaps(some, points) < _MARGIN).any(1)
        inside |= (box_gaps(hull, _corners(some).flatten(0, 1)) == 0).any(0).view(len(some.kinds), -1).any(1)
        hit[near] = inside
    return hit


def _has_room(world: World, hull: World, support: int) -> bool:
    """Whether a mover stays off walls, cameras, the lamp, steep ground, water and the edge of what it stands on."""
    places = (torch.tensor(_REACH)[:, None] * world.rotation).sum(-1)
    if box_gaps(hull, places).min() < 1.1 * CLEARANCE:
        return False
    points = _corners(hull)
    if world.sky is None:
        if box_gaps(hull, world.light[:1]).min() < 0.1:
            return False
        if torch.minimum(points - world.room[0], world.room[1] - points).min() < 0:
            return False
    if world.terrain is not None:
        x, z = points[..., 0].flatten(), points[..., 2].flatten()
        heights = heights_at(world.terrain, x, z).view(points.shape[:2])
        wet = ground_at(world.terrain, x, z)[:, 6].max()
        return bool(wet < _WET and (heights.amax(1) - heights.amin(1)).max() < 0.5 * hull.half_sizes[0, 1])
    if support >= 6:
        top = replace(_kept(world, torch.arange(len(world.kinds)) == support - 6))
        feet = points.flatten(0, 1).clone()
        feet[:, 1] = top.centers[0, 1]
        return bool(box_gaps(top, feet).max() == 0)
    return True


def _supports(scenery: Scenery) -> np.ndarray:
    """Pixels that show ground or level tops on which something may stand, in the middle of the view's distances."""
    world, surface, depth = scenery.world, scenery.surface, scenery.depth
    point, half = torch.from_numpy(scenery.point).float(), world.half_sizes
    owner = (surface - 6).clamp(min=0)
    on_top = (point[:, 1] - (world.centers[owner, 1] - half[owner, 1])).abs() < 1e-4
    wide = half[owner][:, ::2].amin(1) > 0.12
    # Table tops, floors and pavements; nobody walks on roofs or cupboards.
    low = half[owner, 1] < 0.1
    fits = (surface == GROUND) | ((surface >= 6) & (world.kinds[owner] == BOX) & on_top & wide & low)
    return (fits & (depth > 0.4) & (depth < 3.0)).nonzero()[:, 0].numpy()


def _ground_of(world: World, height: float) -> Ground:
    """The ground as a function: a plane, or the terrain."""
    terrain = world.terrain
    if terrain is None:
        return lambda place: np.full(place.shape[:-1], height)
    return lambda place: heights_at(terrain, tensor(place[..., 0]), tensor(place[..., 1])).numpy().astype(np.float64)


def _finish(world: World, objects: World, body: Body, track: Track, height: float, names: tuple[str, ...]) -> Mover:
    paths = pose(body, track, _ground_of(world, height))
    base = (paths[..., 1] + body.half_sizes[:, 1, None]).max(0)
    return Mover(objects, paths, _hull(world, track, base, body.extent), names=names)


def _propose_new(rng: Generator, scenery: Scenery, share: float, still: bool, names: int) -> tuple[Mover, int] | None:
    """Something made up that covers about a share of the view, and the surface that it stands on."""
    world, supports = scenery.world, _supports(scenery)
    if len(supports) < 20:
        return None
    first = rng.choice(supports)
    support = int(scenery.surface[first])
    others = supports[scenery.surface[supports].numpy() == support]
    second = rng.choice(others)
    start, end = scenery.point[first], scenery.point[second]
    far = 0.5 * float(scenery.depth[first] + scenery.depth[second])
    name: Thing = list(OUTLINES)[rng.integers(len(OUTLINES))]
    area = (2 * far * math.tan(math.radians(INPUT_FOV) / 2)) ** 2
    size = math.sqrt(share * area / OUTLINES[name])
    styles: list[Style] = [style for style in STYLES[name] if still or style != "turn"]
    style = styles[rng.integers(len(styles))]
    draft = Draft(rng)
    body = make_thing(draft, name, size)
    way = (end - start)[::2]
    distance = float(np.linalg.norm(way))
    wide = 2 * float(body.extent[::2].mean())
    if distance < 0.7 * wide and style not in ("turn", "bounce"):
        return None
    # At most about the view's width, and not so many times its own size that frames have nothing in common.
    reach = min(0.9 * far, rng.uniform(1.5, 4.0) * max(wide, 0.6 * size))
    target = start[::2] + way * min(1.0, reach / max(distance, 1e-6))
    track = draw_track(rng, style, start[::2], target, body.extent)
    textures = tuple(name for name, _ in draft.textures)
    return _finish(world, _drawn_objects(world, draft, names), body, track, float(start[1]), textures), support


def _propose_known(rng: Generator, scenery: Scenery, still: bool) -> tuple[Mover, int, Tensor] | None:
    """One of a room's or table's own things, set in motion where it stands; also which objects it is."""
    world = scenery.world
    if world.sky is not None:  # outdoors most things have roots or foundations
        return None
    seen = scenery.surface[scenery.surface >= 6] - 6
    groups, counts = world.groups[seen].unique(return_counts=True)
    fits = ((counts > 0.02 * VIEW_SIZE**2) & (counts < 0.15 * VIEW_SIZE**2)).nonzero()[:, 0]
    if not len(fits):
        return None
    chosen = world.groups == groups[fits[rng.integers(len(fits))]]
    part = _kept(world, chosen)
    centers, halves = (v.numpy().astype(np.float64) for v in (part.centers, part.half_sizes))
    yaws = part.yaws.numpy().astype(np.float64)
    low, main = (centers[:, 1] + halves[:, 1]).max(), halves.prod(1).argmax()
    supports = _supports(scenery)
    heights = scenery.point[supports, 1]
    beside = supports[np.abs(heights - low) < 2e-3] if len(supports) else supports
    if not len(beside):
        return None
    surfaces = scenery.surface[beside]
    support = int(surfaces[int(rng.integers(len(surfaces)))])
    beside = beside[surfaces.numpy() == support]
    base = np.array([centers[main, 0], low, centers[main, 2]])
    body = Body(centers - base, halves, yaws, extent_of(centers - base, halves, yaws))
    way = scenery.point[rng.choice(beside)][::2] - base[::2]
    wide = 2 * float(body.extent[::2].mean())
    distance = float(np.linalg.norm(way))
    style = STYLES["box" if still else "ball"][rng.integers(4)]
    if body.extent.max() > _LARGEST or (distance < 0.7 * wide and style not in ("turn", "bounce")):
        return None
    target = base[::2] + way * min(1.0, rng.uniform(1.5, 4.0) * wide / max(distance, 1e-6))
    track = draw_track(rng, style, base[::2], target, body.extent)
    track = replace(track, yaw=track.yaw - track.yaw[0])
    return _finish(world, part, body, track, float(low), ()), support, chosen


def _shown(scenery: Scenery, mover: Mover) -> Tensor:
    """Which pixels [look, pixel] of the input view show a mover."""
    views, camera = [], input_camera(VIEW_SIZE)
    for key in LOOKS:
        path = torch.from_numpy(mover.paths[:, key]).float()
        objects = replace(mover.objects, centers=path[:, :3], yaws=path[:, 3])
        views.append(objects_depth(objects, camera).flatten() < scenery.depth)
    return torch.stack(views)


def _well_seen(shown: Tensor, share: float) -> bool:
    covered = shown.float().mean(1)
    return bool(covered.min() > 0.25 * share and 0.5 * share < covered.mean() < 1.7 * share)


def _in_frame(hull: World) -> bool:
    """Whether most of a mover is inside of the input view most of the time."""
    points = (_corners(hull)[..., None] * hull.rotation).sum(-2)  # room to world
    slope = math.tan(math.radians(INPUT_FOV) / 2) * points[..., 2]
    inside = (points[..., 2] > 0.3) & (points[..., :2].abs() < slope[..., None]).all(-1)
    return bool(inside.float().mean() > 0.75)


def _apart(mover: Mover, others: list[Mover]) -> bool:
    """Whether movers keep off each other at all times."""
    for other in others:
        reach = mover.hull.half_sizes[0, ::2].norm() + other.hull.half_sizes[0, ::2].norm()
        gaps = (mover.hull.centers - other.hull.centers)[:, ::2].norm(dim=1)
        if gaps.min() < reach:
            return False
    return True


def _removable(world: World, gone: Tensor, mover: Mover) -> bool:
    """Whether the things in a mover's way are few and small, so that they may make room for it."""
    few = len(world.groups[gone].unique()) <= 3 and int((~gone).sum()) > 5
    return few and bool(world.half_sizes[gone].amax() < 1.5 * mover.hull.half_sizes[0].amax())


def _propose(
    rng: Generator, scenery: Scenery, share: float, others: list[Mover], names: int
) -> tuple[Mover, Tensor] | None:
    """A mover that has room, and which of the world's objects it is."""
    world, used = scenery.world, torch.zeros(len(scenery.world.kinds), dtype=torch.bool)
    if rng.random() < 0.35:
        known = _propose_known(rng, scenery, bool(others))
        if known is None:
            return None
        mover, support, used = known
    else:
        new = _propose_new(rng, scenery, share, bool(others), names)
        if new is None:
            return None
        mover, support = new
    if not _in_frame(mover.hull) or not _apart(mover, others) or not _has_room(world, mover.hull, support):
        return None
    return replace(mover, stands_on=int(world.groups[support - 6]) if support >= 6 else -1), used


def find_mover(
    rng: Generator, scenery: Scenery, share: float, others: list[Mover], names: int
) -> tuple[Mover, Scenery] | None:
    """One more mover, and the scenery without what stood in its way; None where no room is found.

    Args:
        rng: Draws the proposals.
        scenery: With the movers' own things taken out.
        share: Of the input view's pixels that a new mover should cover.
        others: Movers that are there already.
        names: How many textures there are already.
    """
    world = scenery.world
    bases = torch.tensor([other.stands_on for other in others], dtype=torch.long)
    for attempt in range(_TRIES):
        proposal = _propose(rng, scenery, share, others, names)
        if proposal is None:
            continue
        mover, used = proposal
        blockers = _blockers(world, mover.hull) & ~used & (world.groups != mover.stands_on)
        gone = torch.isin(world.groups, world.groups[blockers])
        if gone.any() and (attempt < _TRIES // 4 or not _removable(world, gone, mover)):
            continue
        gone |= used
        if torch.isin(world.groups[gone], bases).any():
            continue
        rest = look_at(_kept(world, ~gone)) if gone.any() else scenery
        shown = _shown(rest, mover)
        if _well_seen(shown, float(shown.float().mean()) if used.any() else share):
            return mover, rest
    return None
