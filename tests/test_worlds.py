"""Rooms: determinism, exact depth, clearances of the cameras, colors."""

import dataclasses
import functools

import numpy as np
import pytest
import torch

from lyra.cameras import Cameras, intrinsics_from_fov
from lyra.worlds import INPUT_FOV, World, describe_world, render_world, sample_world
from lyra.worlds.world import BOX, SPHERE

SEEDS = range(30)


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


def cameras_at(centers: list[tuple[float, float, float]], size: int, look_at: float = 1.0) -> Cameras:
    poses = []
    for center in centers:
        z = np.array([0, 0, look_at]) - center
        z = z / np.linalg.norm(z)
        x = np.cross([0, 1, 0], z)
        x = x / np.linalg.norm(x)
        pose = np.eye(4)
        pose[:3] = np.stack([x, np.cross(z, x), z, np.array(center)], 1)
        poses.append(pose)
    intrinsics = intrinsics_from_fov(INPUT_FOV, size, size).expand(len(poses), 4)
    return Cameras(torch.from_numpy(np.array(poses)).float(), intrinsics, size, size)


def unproject(cameras: Cameras, depth: torch.Tensor) -> torch.Tensor:
    """World points [view, height, width, 3] in float64, written out independently of the tracer."""
    n = torch.arange(cameras.width, dtype=torch.float64) + 0.5
    fx, fy, cx, cy = cameras.intrinsics[0].double()
    x = ((n[None, :] - cx) / fx).expand(cameras.height, -1)
    y = ((n[:, None] - cy) / fy).expand(-1, cameras.width)
    local = torch.stack([x, y, torch.ones_like(x)], -1) * depth.double()[..., None]
    pose = cameras.camera_to_world.double()
    return torch.einsum("vij,vhwj->vhwi", pose[:, :3, :3], local) + pose[:, None, None, :3, 3]


def surface_distance(world: World, points: torch.Tensor) -> torch.Tensor:
    """Distance in float64 of world points [point, 3] from the nearest surface of the world."""
    p = points @ world.rotation.double().T
    best = torch.minimum((p - world.room[0]).abs(), (p - world.room[1]).abs()).amin(1)
    for kind, center, half, yaw in zip(
        world.kinds.tolist(), world.centers.double(), world.half_sizes.double(), world.yaws.double(), strict=True
    ):
        cos, sin = yaw.cos(), yaw.sin()
        turn = torch.stack([cos, 0 * cos, -sin, 0 * cos, 0 * cos + 1, 0 * cos, sin, 0 * cos, cos]).view(3, 3)
        q = ((p - center) @ turn.T).abs()
        if kind == SPHERE:
            signed = q.norm(dim=1) - half[0]
        else:
            # A cylinder is the box of (distance from its axis, height).
            gap = q - half if kind == BOX else torch.stack([q[:, ::2].norm(dim=1), q[:, 1]], 1) - half[:2]
            signed = gap.clamp(min=0).norm(dim=1) + gap.amax(1).clamp(max=0)
        best = torch.minimum(best, signed.abs())
    return best


def test_same_seed_same_bytes_and_seeds_differ():
    first, again, other = world_of(3), sample_world(3), world_of(4)
    for field in dataclasses.fields(World):
        assert torch.equal(getattr(first, field.name), getattr(again, field.name)), field.name
    camera = cameras_at([(0, 0, 0)], 48)
    picture, depth = render_world(first, camera)
    repeated, depth_again = render_world(again, camera)
    assert torch.equal(picture, repeated)
    assert torch.equal(depth, depth_again)
    assert (picture - render_world(other, camera)[0]).abs().mean() > 0.02
    assert describe_world(first) == describe_world(again)


@pytest.mark.parametrize("seed", range(6))
def test_depth_lies_on_the_stated_surfaces(seed: int):
    world = world_of(seed)
    cameras = cameras_at([(0, 0, 0), (0.3, -0.2, 0.1), (-0.25, 0.2, -0.4)], 64)
    _, depth = render_world(world, cameras)
    points = unproject(cameras, depth).flatten(0, 2)
    assert surface_distance(world, points).max() < 1e-5


@pytest.mark.parametrize("seed", range(6))
def test_nothing_stands_before_the_depth(seed: int):
    """Marches along every ray: no point short of the depth is in an object's inscribed ball."""
    world = world_of(seed)
    cameras = cameras_at([(0.1, 0.1, 0.2)], 24)
    _, depth = render_world(world, cameras)
    radii = world.half_sizes.double().amin(1)
    for step in torch.linspace(0.02, 0.98, 60).tolist():
        points = unproject(cameras, depth * step).flatten(0, 2) @ world.rotation.double().T
        assert (torch.cdist(points, world.centers.double()) > 0.999 * radii).all()


@pytest.mark.parametrize("seed", range(4))
def test_depth_reprojects_into_a_second_view(seed: int):
    world, size = world_of(seed), 96
    cameras = cameras_at([(0, 0, 0), (0.12, -0.05, 0.05)], size)
    _, depth = render_world(world, cameras)
    points = unproject(cameras, depth)[0]
    to_second = torch.linalg.inv(cameras.camera_to_world[1].double())
    local = points @ to_second[:3, :3].T + to_second[:3, 3]
    fx, fy, cx, cy = cameras.intrinsics[1].double()
    u, v = local[..., 0] / local[..., 2] * fx + cx, local[..., 1] / local[..., 2] * fy + cy
    inside = (local[..., 2] > 0) & (u > 1) & (u < size - 1) & (v > 1) & (v < size - 1)
    grid = torch.stack([u, v], -1)[None] / size * 2 - 1
    seen = torch.nn.functional.grid_sample(1 / depth[1:, None].double(), grid, align_corners=False)[0, 0]
    # Inverse depth is linear in the image of a plane, so that only edges and curved things deviate.
    ratio = (local[..., 2] * seen)[inside]
    assert inside.float().mean() > 0.6
    assert ((ratio - 1).abs() < 2e-3).float().mean() > 0.8
    # The point is either what the second view sees or lies behind it; never in front, but for mixed edge pixels.
    assert (ratio < 0.995).float().mean() < 0.04


def test_scale_colors_and_variety():
    camera, spreads = cameras_at([(0, 0, 0)], 64), []
    for seed in SEEDS:
        colors, depth = render_world(world_of(seed), camera, supersample=1)
        assert colors.isfinite().all()
        assert colors.min() >= 0
        assert colors.max() <= 1
        assert abs(float(depth.median()) - 1) < 0.01, seed
        spreads.append(float(colors.std()))
    assert np.mean(np.array(spreads) > 0.08) > 0.9


def test_cameras_in_range_are_never_inside_anything():
    centers = [(x, y, z) for x in (-0.3, 0, 0.3) for y in (-0.3, 0, 0.3) for z in (-0.4, 0, 0.4)]
    cameras = cameras_at([c for c in centers if np.linalg.norm(c) <= 0.6], 16)
    for seed in SEEDS:
        world = world_of(seed)
        _, depth = render_world(world, cameras, supersample=1)
        assert depth.min() > 0.05, seed
        assert surface_distance(world, cameras.centers.double()).min() > 0.05, seed
        inside = (cameras.centers @ world.rotation.T - world.room[0] > 0) & (
            world.room[1] - cameras.centers @ world.rotation.T > 0
        )
        assert inside.all(), seed


def test_supersampling_leaves_depth_alone_and_agrees_with_a_dense_image():
    world, camera = world_of(1), cameras_at([(0, 0, 0)], 64)
    plain, depth = render_world(world, camera, supersample=1)
    smooth, depth_again = render_world(world, camera, supersample=2)
    assert torch.equal(depth, depth_again)
    dense, _ = render_world(world, camera.resized(512, 512), supersample=1)
    dense = torch.nn.functional.avg_pool2d(dense, 8)
    assert (smooth - dense).square().mean() < 0.6 * (plain - dense).square().mean()
    assert (smooth - dense).abs().mean() < 0.01
