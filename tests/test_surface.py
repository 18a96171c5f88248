"""Gaussians that lie on the surface they start from."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lyra.geometry.cameras import Cameras, intrinsics_from_fov, pixel_rays
from lyra.geometry.gaussians import covariances, matrix_from_quaternion
from lyra.rendering import render
from lyra.student.decoder import BaseSurface, DecoderConfig, StudentInputs, activate_cache
from lyra.student.surface import lie_on_surface, surface_normals

SIDE = 24
FOCAL = float(intrinsics_from_fov(50.0, SIDE, SIDE)[0])


def camera() -> Cameras:
    return Cameras(torch.eye(4)[None], intrinsics_from_fov(50.0, SIDE, SIDE)[None], SIDE, SIDE)


def plane_inputs(normal: Tensor, offset: float) -> StudentInputs:
    """The plane normal . x = offset, as a still scene of one view and frame."""
    origins, directions = (rays[None, None] for rays in pixel_rays(camera()))
    distance = offset / (directions * normal).sum(-1)
    points = origins + distance[..., None] * directions
    base = BaseSurface(
        distance=distance,
        covered=torch.ones_like(distance),
        color=torch.full((*distance.shape, 3), 0.5),
        normals=surface_normals(points),
        fresh=torch.ones_like(distance),
    )
    empty = torch.zeros(1, 1, 1, 1, SIDE, SIDE)
    return StudentInputs(empty, empty, origins, directions, torch.full((1, 1, 1), 1 / FOCAL), base)


def unit(*values: float) -> Tensor:
    return torch.nn.functional.normalize(torch.tensor(values), dim=0)


@pytest.mark.parametrize(
    "normal", [unit(0.0, 0.0, 1.0), unit(0.6, 0.1, 1.0), unit(0.0, 1.0, 0.4), unit(-1.0, 0.5, 0.6)]
)
def test_normals_of_a_plane_are_the_planes(normal: Tensor):
    base = plane_inputs(normal, 2.0).base
    assert base is not None
    assert torch.allclose((base.normals * normal).sum(-1).abs(), torch.ones(1), atol=1e-4)


def test_an_edge_of_depth_leaves_the_normals_of_both_sides_alone():
    points = torch.stack(torch.meshgrid(torch.arange(6.0), torch.arange(8.0), indexing="xy"), dim=-1)
    points = torch.cat([points, torch.where(points[..., :1] < 3, 0.0, 50.0)], dim=-1)
    assert torch.allclose(surface_normals(points)[..., 2].abs(), torch.ones(1))


def test_a_single_row_and_a_single_point_have_no_normal():
    for shape in ((1, 5, 3), (1, 1, 3)):
        assert torch.equal(surface_normals(torch.rand(shape)), torch.zeros(shape))


def test_frames_are_rotations_whose_last_axis_is_the_normal_and_whose_second_is_level():
    generator = torch.Generator().manual_seed(0)
    normals, rays = torch.nn.functional.normalize(torch.randn(2, 500, 3, generator=generator), dim=-1)
    quaternions, cosine = lie_on_surface(normals, rays)
    axes = matrix_from_quaternion(quaternions)
    assert torch.allclose(axes @ axes.mT, torch.eye(3).expand(500, 3, 3), atol=1e-5)
    assert torch.allclose(axes.det(), torch.ones(500), atol=1e-5)
    assert torch.allclose((axes[..., 2] * normals).sum(-1).abs(), torch.ones(500), atol=1e-5)
    assert (axes[..., 2] * rays).sum(-1).max() <= 0  # towards the camera
    steep = cosine < 0.99
    assert (axes[..., 1] * rays).sum(-1)[steep].abs().max() < 0.02
    assert torch.allclose(cosine, (normals * rays).sum(-1).abs(), atol=1e-5)


def test_what_has_no_normal_faces_the_ray():
    rays = torch.nn.functional.normalize(torch.randn(50, 3), dim=-1)
    quaternions, cosine = lie_on_surface(torch.zeros(50, 3), rays)
    assert torch.allclose(matrix_from_quaternion(quaternions)[..., 2], -rays, atol=1e-5)
    assert torch.equal(cosine, torch.ones(50))


def test_a_stretched_gaussian_covers_on_its_surface_what_a_round_one_covers_of_the_picture():
    normal = unit(0.9, 0.2, 1.0)
    inputs = plane_inputs(normal, 2.0)
    config = DecoderConfig(geometry="cache", max_stretch=4.0, base_scale=0.5, near=0.1, far=100.0)
    gaussians = activate_cache(torch.zeros(1, 1, 1, SIDE, SIDE, 12), inputs, config)
    # On the plane, the axes of what a circle about the ray covers: its shadow along the ray.
    flat = torch.eye(3) - normal[:, None] * normal
    on_plane = torch.linalg.eigvalsh(flat @ covariances(gaussians) @ flat)
    width = 0.5 / FOCAL * gaussians.means.norm(dim=-1)
    ray = inputs.ray_directions[..., None]
    shadow = torch.eye(3) - ray @ normal[None] / (ray[..., 0] @ normal)[..., None, None]
    expected = torch.linalg.eigvalsh(shadow @ (torch.eye(3) - ray @ ray.mT) @ shadow.mT) * (width**2)[..., None]
    assert torch.allclose(on_plane[..., 1:], expected[..., 1:], rtol=0.01)
    assert torch.allclose(covariances(gaussians) @ normal, (width**2)[..., None] * normal, rtol=0.01, atol=1e-8)


def test_the_stretch_ends_at_its_limit():
    inputs = plane_inputs(unit(1.0, 0.0, 0.6), 2.0)  # nowhere nearer to head-on than 34 degrees
    config = DecoderConfig(geometry="cache", max_stretch=1.2, near=0.01, far=1e4)
    scales = activate_cache(torch.zeros(1, 1, 1, SIDE, SIDE, 12), inputs, config).scales
    assert torch.allclose(scales.amax(-1) / scales.amin(-1), torch.tensor(1.2), rtol=1e-4)
    with pytest.raises(ValueError, match="max_stretch"):
        DecoderConfig(max_stretch=0.5)


def test_a_slope_seen_from_its_front_has_no_gaps_where_round_gaussians_leave_some():
    """A wall that the input view grazes, looked at head-on."""
    inputs = plane_inputs(unit(1.0, 0.0, 0.5), 2.0)
    angle = -torch.atan2(torch.tensor(1.0), torch.tensor(0.5)).item()
    turned = torch.eye(4)
    turned[0, 0] = turned[2, 2] = torch.tensor(angle).cos()
    turned[0, 2], turned[2, 0] = -torch.tensor(angle).sin(), torch.tensor(angle).sin()
    centre = inputs.ray_directions[0, 0, 0, SIDE // 2, SIDE // 2]
    base = inputs.base
    assert base is not None
    centre = centre * base.distance[0, 0, 0, SIDE // 2, SIDE // 2]
    turned[:3, 3] = centre - 1.5 * turned[:3, 2]
    front = Cameras(turned[None], intrinsics_from_fov(20.0, 96, 96)[None], 96, 96)
    alphas = []
    for stretch in (1.0, 4.0):
        config = replace(DecoderConfig(geometry="cache", near=0.1, far=100.0, base_scale=0.54), max_stretch=stretch)
        config = replace(config, opacity_shift=5.0)
        gaussians = activate_cache(torch.zeros(1, 1, 1, SIDE, SIDE, 12), inputs, config)
        alphas.append(render(gaussians.map(lambda tensor: tensor.flatten(0, 4)), front).alpha[0, 24:72, 24:72].min())
    assert alphas[0] < 0.5 and alphas[1] > 0.9
