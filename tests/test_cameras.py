"""Cameras and rays against closed forms in float64."""

import math

import pytest
import torch
import torch.nn.functional as F

from lyra.cache.warp import unproject
from lyra.geometry.cameras import (
    Cameras,
    concatenate_cameras,
    intrinsics_from_fov,
    invert_rigid,
    pixel_rays,
    plucker_map,
    z_depth_factor,
)


def make_poses(count: int, seed: int = 0) -> torch.Tensor:
    """Random rigid transforms in float64."""
    generator = torch.Generator().manual_seed(seed)
    rotation, _ = torch.linalg.qr(torch.randn(count, 3, 3, generator=generator, dtype=torch.float64))
    pose = torch.eye(4, dtype=torch.float64).repeat(count, 1, 1)
    pose[:, :3, :3] = rotation * torch.linalg.det(rotation)[:, None, None]
    pose[:, :3, 3] = torch.randn(count, 3, generator=generator, dtype=torch.float64)
    return pose


def make_cameras(count: int = 3, height: int = 12, width: int = 20, seed: int = 0) -> Cameras:
    intrinsics = torch.tensor([17.0, 23.0, 9.3, 6.8], dtype=torch.float64).expand(count, 4)
    return Cameras(make_poses(count, seed), intrinsics, height, width)


def project(points: torch.Tensor, cameras: Cameras) -> torch.Tensor:
    """Pixel coordinates of world points [view height width 3], by the general inverse and the matrix K."""
    matrix = torch.zeros(len(cameras), 3, 3, dtype=torch.float64)
    fx, fy, cx, cy = cameras.intrinsics.unbind(-1)
    matrix[:, 0, 0], matrix[:, 1, 1], matrix[:, 0, 2], matrix[:, 1, 2], matrix[:, 2, 2] = fx, fy, cx, cy, 1.0
    homogeneous = torch.cat([points, torch.ones_like(points[..., :1])], dim=-1)
    local = torch.einsum("vij,vhwj->vhwi", torch.linalg.inv(cameras.camera_to_world), homogeneous)[..., :3]
    pixels = torch.einsum("vij,vhwj->vhwi", matrix, local)
    return pixels[..., :2] / pixels[..., 2:]


def pixel_centers(height: int, width: int) -> torch.Tensor:
    rows, columns = torch.arange(height) + 0.5, torch.arange(width) + 0.5
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"), dim=-1).double()


def test_unprojected_pixels_project_to_their_centres_at_one_half():
    cameras = make_cameras()
    depth = 0.5 + torch.rand(3, 12, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    centers = pixel_centers(12, 20).expand(3, -1, -1, -1)
    assert torch.allclose(project(unproject(depth, cameras), cameras), centers, atol=1e-10)


def test_points_along_a_ray_project_to_its_pixel():
    cameras = make_cameras()
    origins, directions = pixel_rays(cameras)
    centers = pixel_centers(12, 20).expand(3, -1, -1, -1)
    for distance in (0.3, 7.0):
        assert torch.allclose(project(origins + distance * directions, cameras), centers, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rays_are_of_unit_length_and_start_at_the_centre(dtype: torch.dtype):
    cameras = make_cameras().to(dtype)
    origins, directions = pixel_rays(cameras)
    assert directions.dtype == dtype
    tolerance = 4 * torch.finfo(dtype).eps
    assert torch.allclose(directions.norm(dim=-1), torch.ones(3, 12, 20, dtype=dtype), atol=tolerance)
    assert torch.equal(origins, cameras.camera_to_world[:, None, None, :3, 3].expand_as(origins))


def test_first_ray_of_an_identity_camera_in_closed_form():
    cameras = Cameras(torch.eye(4)[None], torch.tensor([[10.0, 20.0, 4.0, 3.0]]), 6, 8)
    _, directions = pixel_rays(cameras)
    expected = F.normalize(torch.tensor([-3.5 / 10, -2.5 / 20, 1.0]), dim=0)
    assert torch.allclose(directions[0, 0, 0], expected, atol=1e-7)


def test_plucker_moment_is_orthogonal_to_the_direction():
    moment, direction = plucker_map(make_cameras()).split(3, dim=1)
    assert (moment * direction).sum(1).abs().max() < 1e-14


def test_plucker_coordinates_do_not_depend_on_the_origin_along_the_ray():
    cameras = make_cameras(count=1)
    plucker = plucker_map(cameras)
    origins, directions = pixel_rays(cameras)
    for row, column, slide in ((0, 0, 2.0), (7, 13, -1.5)):
        moved = cameras.camera_to_world.clone()
        moved[0, :3, 3] = origins[0, row, column] + slide * directions[0, row, column]
        other = plucker_map(Cameras(moved, cameras.intrinsics, 12, 20))
        assert torch.allclose(other[0, :, row, column], plucker[0, :, row, column], atol=1e-13)
        # Other pixels' rays do change.
        assert (other - plucker).abs().max() > 0.01


def test_resized_coarse_rays_pass_through_the_middle_of_their_cells():
    cameras = make_cameras(height=12, width=20)
    _, coarse = pixel_rays(cameras.resized(3, 5))
    _, fine = pixel_rays(cameras)
    # The middle of a 4 x 4 cell lies halfway between its two middle pixels, on the plane z = 1.
    local = torch.einsum("vji,vhwj->vhwi", cameras.camera_to_world[:, :3, :3], fine)
    plane = local / local[..., 2:]
    middle = (plane[:, 1::4, 1::4] + plane[:, 2::4, 2::4]) / 2
    expected = F.normalize(torch.einsum("vij,vhwj->vhwi", cameras.camera_to_world[:, :3, :3], middle), dim=-1)
    assert torch.allclose(coarse, expected, atol=1e-13)


def test_resizing_back_and_in_two_steps_is_consistent():
    cameras = make_cameras()
    there = cameras.resized(30, 10)
    assert (there.height, there.width) == (30, 10)
    assert torch.allclose(there.resized(12, 20).intrinsics, cameras.intrinsics)
    assert torch.allclose(cameras.resized(6, 40).resized(30, 10).intrinsics, there.intrinsics)
    assert torch.equal(there.camera_to_world, cameras.camera_to_world)


def test_invert_rigid_is_the_matrix_inverse():
    poses = make_poses(20)
    assert torch.allclose(invert_rigid(poses), torch.linalg.inv(poses), atol=1e-12)
    assert torch.allclose(invert_rigid(invert_rigid(poses)), poses, atol=1e-14)


def test_relative_to_makes_the_origin_the_identity_and_keeps_distances():
    cameras = make_cameras()
    relative = cameras.relative_to(cameras.camera_to_world[1])
    assert torch.allclose(relative.camera_to_world[1], torch.eye(4, dtype=torch.float64), atol=1e-14)
    assert torch.allclose(
        torch.cdist(relative.centers, relative.centers), torch.cdist(cameras.centers, cameras.centers)
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_cameras_are_refused(dtype: torch.dtype):
    with pytest.raises(TypeError):
        Cameras(torch.eye(4, dtype=dtype)[None], torch.ones(1, 4), 4, 4)
    with pytest.raises(TypeError):
        make_cameras().to(dtype)


def test_half_precision_intrinsics_are_refused():
    with pytest.raises(TypeError):
        Cameras(torch.eye(4)[None], torch.ones(1, 4, dtype=torch.bfloat16), 4, 4)


def test_z_depth_factor_in_closed_form_whatever_the_pose():
    cameras = make_cameras()
    fx, fy, cx, cy = cameras.intrinsics[0].tolist()
    centers = pixel_centers(12, 20)
    x, y = (centers[..., 0] - cx) / fx, (centers[..., 1] - cy) / fy
    factor = z_depth_factor(cameras)
    assert torch.allclose(factor, (1 + x**2 + y**2).sqrt().expand(3, -1, -1), atol=1e-12)
    assert factor.min() >= 1


@pytest.mark.parametrize(("height", "width"), [(48, 80), (80, 48), (64, 64)])
def test_fov_spans_the_shorter_side(height: int, width: int):
    intrinsics = intrinsics_from_fov(50.0, height, width)
    fx, fy, cx, cy = intrinsics.tolist()
    assert fx == fy
    assert (cx, cy) == (width / 2, height / 2)
    assert 2 * math.degrees(math.atan(min(height, width) / 2 / fx)) == pytest.approx(50, abs=1e-4)


def test_joined_cameras_keep_their_order_and_refuse_other_sizes():
    first, second = make_cameras(2, seed=1), make_cameras(3, seed=2)
    joined = concatenate_cameras([first, second])
    assert len(joined) == 5
    assert torch.equal(joined[2:].camera_to_world, second.camera_to_world)
    with pytest.raises(ValueError, match="differ in image size"):
        concatenate_cameras([first, second.resized(6, 10)])
