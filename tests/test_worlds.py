"""Worlds: determinism, exact depth against float64 geometry, clearances of the cameras, colors, captions."""

import dataclasses
import functools

import numpy as np
import pytest
import torch
from torch import Tensor

from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.sky import MAX_DEPTH
from lyra.geometry.trajectories import DISTANCE_RANGES, TRAJECTORY_NAMES, trajectory_cameras
from lyra.worlds import INPUT_FOV, Terrain, World, describe_world, render_world, sample_world
from lyra.worlds.world import BOX, CYLINDER, ELLIPSOID, GABLE, PYRAMID

SEEDS = {
    "room": (2, 11),
    "table": (1, 19),
    "street": (0, 15),
    "landscape": (5, 14),
    "building": (10, 13),
}
ALL = [pytest.param(seed, id=f"{kind}-{seed}") for kind, seeds in SEEDS.items() for seed in seeds]
ONE_EACH = [pytest.param(seeds[0], id=kind) for kind, seeds in SEEDS.items()]
OUTDOORS = ("street", "landscape", "building")


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """The tracer's many small operations wait on each other when several threads share busy cores."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@functools.cache
def world_of(seed: int) -> World:
    return sample_world(seed)


def cameras_at(centers: list[tuple[float, float, float]], size: int, fov: float = INPUT_FOV) -> Cameras:
    """Cameras that face the point one unit ahead of the input camera."""
    poses = []
    for center in centers:
        z = np.array([0, 0, 1.0]) - center
        z = z / np.linalg.norm(z)
        x = np.cross([0, 1, 0], z)
        x = x / np.linalg.norm(x)
        pose = np.eye(4)
        pose[:3] = np.stack([x, np.cross(z, x), z, np.array(center)], 1)
        poses.append(pose)
    intrinsics = intrinsics_from_fov(fov, size, size).expand(len(poses), 4)
    return Cameras(torch.from_numpy(np.array(poses)).float(), intrinsics, size, size)


def unproject(cameras: Cameras, depth: Tensor) -> Tensor:
    """World points [view, height, width, 3] in float64, written out independently of the tracer."""
    u = torch.arange(cameras.width, dtype=torch.float64) + 0.5
    v = torch.arange(cameras.height, dtype=torch.float64) + 0.5
    fx, fy, cx, cy = cameras.intrinsics[0].double()
    x = ((u[None, :] - cx) / fx).expand(cameras.height, -1)
    y = ((v[:, None] - cy) / fy).expand(-1, cameras.width)
    local = torch.stack([x, y, torch.ones_like(x)], -1) * depth.double()[..., None]
    pose = cameras.camera_to_world.double()
    return torch.einsum("vij,vhwj->vhwi", pose[:, :3, :3], local) + pose[:, None, None, :3, 3]


def project(cameras: Cameras, view: int, points: Tensor) -> tuple[Tensor, Tensor]:
    """Pixel positions [..., 2] and z-depth [...] of world points in one view."""
    to_camera = torch.linalg.inv(cameras.camera_to_world[view].double())
    local = points @ to_camera[:3, :3].T + to_camera[:3, 3]
    fx, fy, cx, cy = cameras.intrinsics[view].double()
    pixel = torch.stack([local[..., 0] / local[..., 2] * fx + cx, local[..., 1] / local[..., 2] * fy + cy], -1)
    return pixel, local[..., 2]


def ground_gap(terrain: Terrain, p: Tensor) -> Tensor:
    """Height of room points [point, 3] above the terrain, float64, from the node heights alone."""
    size = round(len(terrain.corners) ** 0.5)
    nodes = terrain.corners[:, 0].double().view(size, size)
    index = torch.asinh(p[:, ::2] / terrain.stretch.double()) * terrain.density.double() + (size - 1) / 2
    column, row = index.clamp(0, size - 1.001).unbind(1)
    j, i = column.long(), row.long()
    a, b = column - j, row - i
    height = (1 - a) * (1 - b) * nodes[i, j] + a * (1 - b) * nodes[i, j + 1]
    height = height + (1 - a) * b * nodes[i + 1, j] + a * b * nodes[i + 1, j + 1]
    return height - p[:, 1]


def object_distance(world: World, index: int, points: Tensor) -> Tensor:
    """A function of room points [point, 3], float64, that is negative inside an object, zero on its surface and, near
    the surface, the distance from it."""
    cos, sin = world.yaws[index].double().cos(), world.yaws[index].double().sin()
    turn = torch.stack([cos, 0 * cos, -sin, 0 * cos, 0 * cos + 1, 0 * cos, sin, 0 * cos, cos]).view(3, 3)
    q, half, kind = (
        (points - world.centers[index].double()) @ turn.T,
        world.half_sizes[index].double(),
        int(world.kinds[index]),
    )
    if kind == ELLIPSOID:
        scaled = (q / half).norm(dim=1)
        return (scaled - 1) * scaled / (q / half**2).norm(dim=1).clamp(min=1e-9)
    if kind == CYLINDER:
        return torch.maximum(q[:, ::2].norm(dim=1) - half[0], q[:, 1].abs() - half[1])
    # Boxes and roofs are where all their planes' distances are negative.
    planes = (q.abs() - half).amax(1)
    share = (q[:, 1] / half[1] + 1) / 2  # how far down from the ridge, 0 to 1
    sides = {BOX: (), GABLE: (2,), PYRAMID: (0, 2)}[kind]
    for axis in sides:
        rise = torch.sqrt(1 / half[axis] ** 2 + 0.25 / half[1] ** 2)
        planes = torch.maximum(planes, (q[:, axis].abs() / half[axis] - share) / rise)
    return planes


def nearest_distance(world: World, points: Tensor) -> Tensor:
    """Signed distance of world points [point, 3] from the nearest thing, ground or wall; negative inside it.

    Objects farther off than the size of their bounding sphere are left out: they neither hold the point nor touch it.
    """
    p = points @ world.rotation.double().T
    if world.terrain is not None:
        best = ground_gap(world.terrain, p)
    elif world.sky is not None:
        best = world.room[1, 1].double() - p[:, 1]
    else:
        best = torch.minimum(p - world.room[0], world.room[1] - p).amin(1)
    centers, radii = world.centers.double(), world.half_sizes.double().norm(dim=1) + 0.05
    near = torch.cdist(p, centers, compute_mode="donot_use_mm_for_euclid_dist") < radii
    for index in near.any(0).nonzero()[:, 0].tolist():
        chosen = near[:, index].nonzero()[:, 0]
        best[chosen] = torch.minimum(best[chosen], object_distance(world, index, p[chosen]))
    return best


def assert_same(first: object, second: object) -> None:
    assert dataclasses.is_dataclass(first)
    for field in dataclasses.fields(first):
        one, other = getattr(first, field.name), getattr(second, field.name)
        if dataclasses.is_dataclass(one):
            assert_same(one, other)
        elif isinstance(one, Tensor):
            assert torch.equal(one, other), field.name
        else:
            assert one == other, field.name


@pytest.mark.parametrize("seed", ONE_EACH)
def test_same_seed_same_bytes(seed: int):
    world, again = world_of(seed), sample_world(seed)
    assert_same(world, again)
    camera = cameras_at([(0, 0, 0)], 48)
    for one, other in zip(render_world(world, camera), render_world(again, camera), strict=True):
        assert torch.equal(one, other)


def test_seeds_differ_and_all_kinds_occur():
    camera = cameras_at([(0, 0, 0)], 32)
    pictures = []
    for kind, seeds in SEEDS.items():
        for seed in seeds:
            assert world_of(seed).kind == kind, seed
            pictures.append(render_world(world_of(seed), camera, supersample=1)[0].flatten())
    apart = torch.cdist(torch.stack(pictures), torch.stack(pictures), p=1) / pictures[0].numel()
    assert (apart + torch.eye(len(pictures))).min() > 0.02


@pytest.mark.parametrize("seed", ALL)
def test_depth_lies_on_the_stated_surfaces(seed: int):
    world = world_of(seed)
    cameras = cameras_at([(0, 0, 0), (0.3, -0.1, 0.1), (-0.25, 0.03, -0.4)], 48)
    _, depth = render_world(world, cameras, supersample=1)
    seen = depth < MAX_DEPTH
    points = unproject(cameras, depth)[seen]
    # float32 positions at distance t are good to about 1e-6 t.
    assert (nearest_distance(world, points).abs() / (1 + depth[seen].double())).max() < 2e-5


@pytest.mark.parametrize("seed", ALL)
def test_nothing_stands_before_the_depth(seed: int):
    """Marches along every ray: no point short of the depth is inside anything, the sky's rays included."""
    world = world_of(seed)
    cameras = cameras_at([(0.1, 0.02, 0.2)], 24)
    _, depth = render_world(world, cameras, supersample=1)
    deepest = torch.zeros(depth.numel(), dtype=torch.float64)
    for step in torch.linspace(0.0, 1.0, 40)[1:-1].tolist():
        # Dense towards the end, where the ray comes near the surface.
        reach = depth.double() * (1 - (1 - step) ** 2)
        inside = -nearest_distance(world, unproject(cameras, reach).flatten(0, 2)) / (1 + reach.flatten())
        deepest = torch.maximum(deepest, inside)
    if world.kind == "landscape":
        # The ladder of radii may step over the very top of a crest.
        assert (deepest > 2e-5).float().mean() < 0.02
        assert deepest.max() < 5e-3
    else:
        assert deepest.max() < 2e-5


@pytest.mark.parametrize("seed", ALL)
def test_views_agree_on_depth_and_color(seed: int):
    """True depth carries the first view's pixels to where the second view shows the same color at the same depth."""
    world, size = world_of(seed), 96
    cameras = cameras_at([(0, 0, 0), (0.12, -0.05, 0.05)], size)
    color, depth = render_world(world, cameras)
    pixel, z = project(cameras, 1, unproject(cameras, depth)[0])
    inside = (z > 0) & (pixel > 1).all(-1) & (pixel < size - 1).all(-1) & (depth[0] < MAX_DEPTH)
    grid = (pixel / size * 2 - 1)[None]
    # Inverse depth is linear in the image of a plane, so that only edges and curved things deviate.
    there = torch.nn.functional.grid_sample(1 / depth[1:, None].double(), grid, align_corners=False)[0, 0]
    ratio = (z * there)[inside]
    assert inside.float().mean() > 0.25
    assert ((ratio - 1).abs() < 5e-3).double().mean() > (0.6 if world.kind == "landscape" else 0.75)
    # The point is what the second view sees thereabouts or lies behind it; never in front of it.
    nearest = torch.nn.functional.max_pool2d(1 / depth[1:, None].double(), 3, 1, 1)
    before = torch.nn.functional.grid_sample(nearest, grid, mode="nearest", align_corners=False)[0, 0]
    assert ((z * before)[inside] < 0.98).double().mean() < 0.005
    visible = inside & ((z * there - 1).abs() < 5e-3)
    carried = torch.nn.functional.grid_sample(color[1:].double(), grid, align_corners=False)[0]
    error, unmoved = ((part - color[0]).abs().mean(0)[visible].mean() for part in (carried, color[1]))
    # What is left is resampling.
    assert error < 0.03
    assert error < 0.4 * unmoved


@pytest.mark.parametrize("seed", ALL)
def test_scale_and_colors(seed: int):
    world = world_of(seed)
    color, depth = render_world(world, cameras_at([(0, 0, 0)], 64), supersample=1)
    assert color.isfinite().all()
    assert color.min() >= 0
    assert color.max() <= 1
    assert color.std() > 0.05
    seen = depth[depth < MAX_DEPTH]
    assert abs(float(seen.median()) - 1) < 0.01
    assert depth.max() <= MAX_DEPTH
    assert (world.sky is not None) == (world.kind in OUTDOORS)
    assert (world.terrain is not None) == (world.kind == "landscape")
    if world.sky is None:
        assert depth.max() < 20


@pytest.mark.parametrize("kind", OUTDOORS)
def test_the_sky_is_at_the_largest_depth_whatever_the_camera(kind: str):
    """Rays that rise and meet nothing end at MAX_DEPTH exactly."""
    shares = []
    for seed in SEEDS[kind]:
        world = world_of(seed)
        cameras = cameras_at([(0, 0, 0), (-0.2, 0, -0.3)], 40, fov=70.0)
        _, depth = render_world(world, cameras, supersample=1)
        far = unproject(cameras, torch.full_like(depth, MAX_DEPTH))
        sky = depth == MAX_DEPTH
        shares.append(float(sky.float().mean()))
        assert (nearest_distance(world, far[sky]) > -2e-3).all()
    assert max(shares) > 0.1


@pytest.mark.parametrize("seed", ALL)
def test_no_camera_of_the_trajectories_is_inside_anything(seed: int):
    world = world_of(seed)
    intrinsics = intrinsics_from_fov(INPUT_FOV, 8, 8)
    centers = torch.cat(
        [
            trajectory_cameras(name, 1.3 * DISTANCE_RANGES[name][1], 17, intrinsics, 8, 8).centers
            for name in TRAJECTORY_NAMES
        ]
    )
    assert centers.norm(dim=1).max() > 0.45
    assert nearest_distance(world, centers.double()).min() > 0.03


@pytest.mark.parametrize("seed", ONE_EACH)
def test_other_sizes_and_fields_of_view(seed: int):
    """A wider view that shares rays with a narrower one has the same depth there."""
    world = world_of(seed)
    pose = torch.eye(4)[None]
    k = intrinsics_from_fov(40.0, 30, 40)
    narrow = Cameras(pose, k[None], 30, 40)
    wide = Cameras(pose, (k + torch.tensor([0.0, 0.0, 16.0, 10.0]))[None], 50, 72)
    _, depth = render_world(world, narrow)
    _, wider = render_world(world, wide)
    part = wider[:, 10:40, 16:56]
    close = (part / depth - 1).abs() < 1e-4
    assert close.float().mean() > 0.99


@pytest.mark.parametrize("seed", ONE_EACH)
def test_supersampling_leaves_depth_alone_and_agrees_with_a_dense_image(seed: int):
    world, camera = world_of(seed), cameras_at([(0, 0, 0)], 64)
    plain, depth = render_world(world, camera, supersample=1)
    smooth, depth_again = render_world(world, camera, supersample=2)
    assert torch.equal(depth, depth_again)
    dense, _ = render_world(world, camera.resized(512, 512), supersample=1)
    dense = torch.nn.functional.avg_pool2d(dense, 8)
    assert (smooth - dense).square().mean() < 0.8 * (plain - dense).square().mean()
    assert (smooth - dense).abs().mean() < 0.03


def test_captions_name_the_kind_and_what_is_there():
    captions = {seed: describe_world(world_of(seed)) for seeds in SEEDS.values() for seed in seeds}
    words = {
        "room": "a room with",
        "table": "table with",
        "street": "houses",
        "landscape": "landscape",
        "building": "a ",
    }
    for kind, seeds in SEEDS.items():
        for seed in seeds:
            assert words[kind] in captions[seed]
            assert captions[seed].isascii()
            assert 10 < len(captions[seed]) < 160
    assert len(set(captions.values())) > 0.8 * len(captions)
