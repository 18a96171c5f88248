"""Moving worlds: determinism, contact with the ground, closed-form depth, masks, textures, clearances, clips."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from torch import Tensor

from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.sky import MAX_DEPTH
from lyra.geometry.trajectories import DISTANCE_RANGES, TRAJECTORY_NAMES, trajectory_cameras
from lyra.worlds import (
    INPUT_FOV,
    MovingWorld,
    World,
    moving_pixels,
    render_moving_world,
    render_world,
    sample_moving_world,
    sample_world,
)
from lyra.worlds.moving_clips import render_moving_clip, render_source_video
from lyra.worlds.world import BOX, ELLIPSOID

SEEDS = (2, 11, 1, 0, 1028, 10)
"""Rooms, a table, a street, a landscape and a building, with people, animals, balls, posts and a cart."""
WALKER = 20
"""Parts from which on a mover has legs."""


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """The tracer's many small operations wait on each other when several threads share busy cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@functools.cache
def world_of(seed: int) -> MovingWorld:
    return sample_moving_world(seed)


def camera(size: int, views: int = 1) -> Cameras:
    pose = torch.eye(4).expand(views, 4, 4)
    return Cameras(pose, intrinsics_from_fov(INPUT_FOV, size, size).expand(views, 4), size, size)


def directions(size: int) -> Tensor:
    """Room directions [height, width, 3] of unit z-depth in float64, from the pinhole model alone."""
    fx, fy, cx, cy = intrinsics_from_fov(INPUT_FOV, size, size).double()
    pixel = torch.arange(size, dtype=torch.float64) + 0.5
    v, u = torch.meshgrid((pixel - cy) / fy, (pixel - cx) / fx, indexing="ij")
    return torch.stack([u, v, torch.ones_like(u)], -1)


def groups_of(world: MovingWorld) -> list[Tensor]:
    """Parts (rows of the paths) of each mover."""
    numbers = world.still.groups[world.movers]
    return [(numbers == number).nonzero()[:, 0] for number in numbers.unique()]


def heights(world: World, x: Tensor, z: Tensor) -> Tensor:
    """Y of a landscape's ground in float64, from the node heights alone."""
    terrain = world.terrain
    assert terrain is not None
    size = round(len(terrain.corners) ** 0.5)
    nodes = terrain.corners[:, 0].double().view(size, size)
    u, v = (torch.asinh(p / terrain.stretch.double()) * terrain.density.double() + (size - 1) / 2 for p in (x, z))
    j, i = u.long(), v.long()
    a, b = u - j, v - i
    upper = (1 - a) * nodes[i, j] + a * nodes[i, j + 1]
    return (1 - b) * upper + b * ((1 - a) * nodes[i + 1, j] + a * nodes[i + 1, j + 1])


def without_movers(world: World, movers: Tensor) -> World:
    stay = ~movers
    surfaces = torch.cat([torch.ones(6, dtype=torch.bool), stay])
    objects = {name: getattr(world, name)[stay] for name in ("kinds", "centers", "half_sizes", "yaws", "groups")}
    paints = {name: getattr(world, name)[surfaces] for name in ("textures", "mappings", "tints", "emissions")}
    return dataclasses.replace(world, **objects, **paints)


@pytest.mark.parametrize("seed", [11, 1028])
def test_same_seed_same_bytes(seed: int):
    world, again = world_of(seed), sample_moving_world(seed)
    assert torch.equal(world.paths, again.paths)
    for field in dataclasses.fields(World):
        one, other = getattr(world.still, field.name), getattr(again.still, field.name)
        if isinstance(one, Tensor):
            assert torch.equal(one, other), field.name
    times = torch.tensor([0.0, 0.7])
    for one, other in zip(
        render_moving_world(world, camera(32, 2), times), render_moving_world(again, camera(32, 2), times), strict=True
    ):
        assert torch.equal(one, other)


def test_it_is_the_still_world_of_the_seed_with_movers():
    for seed in (2, 11, 0):
        base, world = sample_world(seed), world_of(seed)
        assert world.still.kind == base.kind
        assert torch.equal(world.still.rotation, base.rotation)
        # Most of what stands in the world is that of the still one, up to the scale.
        scale = world.still.half_sizes.norm(dim=1).max() / base.half_sizes.norm(dim=1).max()
        sizes = world.still.half_sizes[~world.movers][:, None] / scale
        gaps = (sizes - base.half_sizes).norm(dim=-1) / base.half_sizes.norm(dim=-1)
        assert (gaps.amin(1) < 1e-5).all()


@pytest.mark.parametrize("seed", SEEDS)
def test_only_movers_change(seed: int):
    world = world_of(seed)
    later, movers = world.at(0.6), world.movers
    for field in dataclasses.fields(World):
        if field.name not in ("centers", "yaws"):
            assert getattr(later, field.name) is getattr(world.still, field.name), field.name
    assert torch.equal(later.centers[~movers], world.still.centers[~movers])
    assert torch.equal(later.yaws[~movers], world.still.yaws[~movers])
    assert torch.equal(world.at(0.0).centers, world.still.centers)
    assert torch.allclose(world.at(1.0).centers[movers], world.paths[:, -1, :3])
    # Nothing jumps: from one of 17 frames to the next no part moves by more than a third of the view's depth.
    steps = world.paths[:, ::8, :3].diff(dim=1).norm(dim=-1)
    assert steps.max() < 0.33


@pytest.mark.parametrize("seed", SEEDS)
def test_movers_are_seen_and_move(seed: int):
    world, times = world_of(seed), torch.linspace(0, 1, 9)
    masks = moving_pixels(world, camera(64, 9), times)
    shares = masks.float().mean((1, 2))
    assert 0.035 < shares.mean() < 0.27
    assert shares.min() > 0.01
    assert (masks != masks[:1]).float().mean((1, 2)).max() > 0.25 * shares.mean()
    _, depth = render_world(world.at(0.0), camera(64), supersample=1)
    assert abs(float(depth[depth < MAX_DEPTH].median()) - 1) < 0.01
    for parts in groups_of(world):
        way = (world.paths[parts, :, :3] - world.paths[parts, :1, :3]).norm(dim=-1).amax()
        turn = (world.paths[parts, :, 3] - world.paths[parts, :1, 3]).abs().amax()
        size = world.still.half_sizes[world.movers][parts].amax()
        assert way > 0.5 * size or turn > 1


@pytest.mark.parametrize("seed", SEEDS)
def test_movers_stand_on_something(seed: int):
    world = world_of(seed)
    paths, halves = world.paths.double(), world.still.half_sizes[world.movers].double()
    still = without_movers(world.still, world.movers)
    boxes = still.kinds == BOX
    tops = (still.centers[:, 1] - still.half_sizes[:, 1])[boxes].double()
    levels = torch.cat([world.still.room[1, 1:2].double(), tops])
    for parts in groups_of(world):
        bottoms = paths[parts, :, 1] + halves[parts, 1, None]
        legs = len(parts) >= WALKER
        if world.still.terrain is not None:
            ground = heights(world.still, paths[parts, :, 0], paths[parts, :, 2])
            sunk = (bottoms - ground).amax(0)
        else:
            # The level of the ground is unknown to the test: the lowest point over time must be on some level.
            lowest = bottoms.amax()
            hop = lowest - bottoms.amax(0).amin()
            level = levels[(levels - lowest).abs().argmin()]
            assert abs(float(level - lowest)) < 1e-5 + 0.06 * float(hop)
            sunk = bottoms.amax(0) - level
            assert sunk.max() < 1e-5
        if legs:
            # Some foot is on the ground at every time, and none is in it.
            assert sunk.abs().max() < 2e-5
        else:
            assert sunk.max() > -0.06 * float(bottoms.amax(0).max() - bottoms.amax(0).min()) - 1e-4
            assert sunk.max() < halves[parts, 1].max()


def test_a_standing_foot_stays_in_its_place():
    """Feet do not slide: over most keys one of the lowest parts does not move at all."""
    world = world_of(11)
    parts = next(parts for parts in groups_of(world) if len(parts) >= WALKER)
    paths, halves = world.paths[parts].double(), world.still.half_sizes[world.movers][parts].double()
    steps = paths[..., :3].diff(dim=1).norm(dim=-1)
    low = (paths[..., 1] + halves[:, 1, None]).sub(world.still.room[1, 1].double()).abs()[:, 1:] < 1e-4
    body = steps.median(0).values
    foot = torch.where(low, steps, torch.inf).amin(0)
    moving = body > 1e-4
    assert (foot < 0.35 * body)[moving].double().mean() > 0.8


@pytest.mark.parametrize("seed", SEEDS)
def test_the_mask_is_where_movers_change_the_depth(seed: int):
    world, times = world_of(seed), torch.tensor([0.0, 0.31, 1.0])
    _, depth, moving = render_moving_world(world, camera(64, 3), times, supersample=1)
    bare = without_movers(world.still, world.movers)
    _, behind = render_world(bare, camera(64), supersample=1)
    changed = (behind - depth) > 1e-5 * depth
    assert (changed == moving).float().mean() > 0.9995
    assert (depth <= behind * (1 + 1e-5)).all()


def test_depth_of_a_ball_and_a_box_on_a_hand_made_path():
    """Closed forms in float64: a quadratic for the ball, slabs for the box, at positions interpolated by hand."""
    size, time = 96, 0.37
    base = world_of(2)
    still = dataclasses.replace(
        without_movers(base.still, torch.arange(len(base.still.kinds)) < len(base.still.kinds) - 2),
        kinds=torch.tensor([ELLIPSOID, BOX]),
        half_sizes=torch.tensor([[0.11, 0.11, 0.11], [0.1, 0.06, 0.14]]),
    )
    rotation = base.still.rotation.double()
    start, end = ((rotation @ torch.tensor(p, dtype=torch.float64)) for p in ([-0.2, 0.0, 0.7], [0.1, 0.1, 0.6]))
    other = rotation @ torch.tensor([0.22, 0.05, 0.8], dtype=torch.float64)
    t = torch.linspace(0, 1, 129, dtype=torch.float64)[:, None]
    ball = torch.cat([start + t * (end - start), 0 * t], 1)
    box = torch.cat([other + 0 * t, 0.2 + 1.5 * t], 1)
    world = MovingWorld(still, torch.stack([ball, box]).float())
    _, depth, moving = render_moving_world(world, camera(size), torch.tensor([time]), supersample=1)
    d = directions(size) @ rotation.T
    center = start + time * (end - start)
    a, b, c = (d * d).sum(-1), (d * center).sum(-1), (center * center).sum() - 0.11**2
    ball_depth = torch.where(b * b > a * c, (b - (b * b - a * c).clamp(min=0).sqrt()) / a, torch.inf)
    cos, sin = np.cos(0.2 + 1.5 * time), np.sin(0.2 + 1.5 * time)
    turn = torch.tensor([[cos, 0, -sin], [0, 1, 0], [sin, 0, cos]], dtype=torch.float64)
    half = torch.tensor([0.1, 0.06, 0.14], dtype=torch.float64)
    o, local = -(turn @ other), d @ turn.T
    low, high = (-half - o) / local, (half - o) / local
    near, far = torch.minimum(low, high).amax(-1), torch.maximum(low, high).amin(-1)
    expected = torch.minimum(ball_depth, torch.where(near < far, near, torch.inf))
    assert 0.03 < moving.float().mean() < 0.4
    both = moving[0] & expected.isfinite()
    assert (moving[0] == expected.isfinite()).float().mean() > 0.998  # outlines are a rounding error wide
    error = (depth[0][both].double() / expected[both] - 1).abs()
    assert error.quantile(0.99) < 1e-5


def test_textures_move_with_their_things():
    """With lamps out and movers glowing, a surface point has one color at all times, wherever it has gone."""
    size, errors, unmoved = 160, [], []
    for seed in (1, 2, 11):
        world = world_of(seed)
        glow = torch.cat([torch.zeros(6, dtype=torch.bool), world.movers]).float()
        still = dataclasses.replace(
            world.still,
            emissions=glow,
            exposure=torch.tensor(2.0),
            light=torch.stack([world.still.light[0], torch.zeros(3)]),
            ambient=torch.stack([torch.zeros(3), world.still.ambient[1]]),
        )
        color, depth, moving = render_moving_world(
            MovingWorld(still, world.paths), camera(size, 2), torch.tensor([0.0, 0.25])
        )
        rotation = still.rotation.double()
        point = (directions(size) * depth[0, ..., None].double()) @ rotation.T
        # The mover that each point is on, by its distance from every part's surface.
        before, after = world.paths[:, 0].double(), world.paths[:, 32].double()
        halves = still.half_sizes[world.movers].double()
        pixels = moving[0].nonzero()
        p = point[moving[0]][:, None] - before[None, :, :3]
        cos, sin = before[:, 3].cos(), before[:, 3].sin()
        local = torch.stack([cos * p[..., 0] - sin * p[..., 2], p[..., 1], sin * p[..., 0] + cos * p[..., 2]], -1)
        unit = local / halves
        kinds = still.kinds[world.movers]
        level = torch.where(kinds == BOX, unit.abs().amax(-1), unit.norm(dim=-1))
        owner = torch.where(kinds < 2, (level - 1).abs(), torch.inf).argmin(1)
        on = (level[torch.arange(len(owner)), owner] - 1).abs() < 1e-4
        q, cos, sin = local[torch.arange(len(owner)), owner], after[owner, 3].cos(), after[owner, 3].sin()
        moved = torch.stack([cos * q[:, 0] + sin * q[:, 2], q[:, 1], cos * q[:, 2] - sin * q[:, 0]], -1)
        there = (moved + after[owner, :3]) @ rotation
        fx, fy, cx, cy = intrinsics_from_fov(INPUT_FOV, size, size).double()
        u, v = fx * there[:, 0] / there[:, 2] + cx, fy * there[:, 1] / there[:, 2] + cy
        grid = torch.stack([u, v], -1)[None, None] / size * 2 - 1
        seen = torch.nn.functional.grid_sample(depth[1][None, None].double(), grid, align_corners=False)[0, 0, 0]
        visible = on & ((seen / there[:, 2] - 1).abs() < 2e-3)
        carried = torch.nn.functional.grid_sample(color[1:].double(), grid, align_corners=False)[0, :, 0]
        first = color[0][:, pixels[:, 0], pixels[:, 1]]
        errors.append((carried - first).abs().mean(0)[visible])
        unmoved.append((color[1][:, pixels[:, 0], pixels[:, 1]] - first).abs().mean(0)[visible])
    assert len(torch.cat(errors)) > 500
    assert torch.cat(errors).median() < 0.02
    assert torch.cat(errors).mean() < 0.35 * torch.cat(unmoved).mean()


@pytest.mark.parametrize("seed", SEEDS)
def test_no_mover_comes_near_a_camera_of_the_trajectories(seed: int):
    world = world_of(seed)
    intrinsics = intrinsics_from_fov(INPUT_FOV, 8, 8)
    centers = torch.cat(
        [
            trajectory_cameras(name, 1.3 * DISTANCE_RANGES[name][1], 17, intrinsics, 8, 8).centers
            for name in TRAJECTORY_NAMES
        ]
    ).double()
    places = centers @ world.still.rotation.double().T
    halves = world.still.half_sizes[world.movers].double()
    for key in range(0, world.paths.shape[1], 4):
        path = world.paths[:, key].double()
        p = places[:, None] - path[None, :, :3]
        cos, sin = path[:, 3].cos(), path[:, 3].sin()
        local = torch.stack([cos * p[..., 0] - sin * p[..., 2], p[..., 1], sin * p[..., 0] + cos * p[..., 2]], -1)
        assert (local.abs() - halves).clamp(min=0).norm(dim=-1).min() > 0.03


@pytest.mark.parametrize("seed", [2, 11, 1])
def test_movers_stay_in_the_room(seed: int):
    world = world_of(seed)
    reach = world.still.half_sizes[world.movers][:, None].amin(-1, keepdim=True)
    assert (world.paths[..., :3] - reach > world.still.room[0]).all()
    assert (world.paths[..., :3] + reach < world.still.room[1] + 1e-3).all()


def test_shadows_follow():
    """Somewhere on what stands still, the light changes with time."""
    world = world_of(11)
    color, depth, moving = render_moving_world(world, camera(64, 2), torch.tensor([0.0, 1.0]), supersample=1)
    same = ~moving.any(0) & ((depth[0] - depth[1]).abs() < 1e-6)
    change = (color[0] - color[1]).abs().amax(0)[same]
    assert (change > 0.03).float().mean() > 0.003
    assert change.median() < 1e-4


def test_times_outside_are_refused():
    world = world_of(2)
    with pytest.raises(ValueError, match="outside"):
        world.at(1.1)
    with pytest.raises(ValueError, match="times"):
        render_moving_world(world, camera(16, 2), torch.tensor([0.0]))


def test_clips_show_the_world_at_their_times():
    clip = render_source_video(11, 5, 24, 32)
    assert clip.video.shape == (5, 3, 24, 32)
    assert clip.signal().shape == (1, 3, 5, 24, 32)
    assert torch.equal(clip.times, torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))
    assert torch.equal(clip.cameras.camera_to_world, torch.eye(4).expand(5, 4, 4))
    color, depth, moving = render_moving_world(world_of(11), clip.cameras[[3]], torch.tensor([0.75]))
    assert torch.equal(clip.video[3], (color[0] * 255).round().to(torch.uint8))
    assert torch.equal(clip.depth[3], depth[0])
    assert torch.equal(clip.moving[3], moving[0])
    # Any order of times, here backwards, from the same cameras.
    back = render_moving_clip(11, clip.cameras, clip.times.flip(0))
    assert torch.equal(back.video, clip.video.flip(0))
