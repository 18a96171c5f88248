"""Color by direction, against scipy's harmonics and against turning the camera instead of the scene."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.gaussians import Gaussians, matrix_from_quaternion, merge, prune, transform
from lyra.geometry.harmonics import harmonic_basis
from lyra.rendering import render
from lyra.rendering.appearance import seen_from
from lyra.rendering.oracle import render_oracle


def colorful(count: int = 40, coefficients: int = 15) -> Gaussians:
    return Gaussians(
        means=torch.randn(count, 3) * 0.4 + torch.tensor([0.0, 0.0, 2.0]),
        scales=torch.rand(count, 3) * 0.1 + 0.02,
        quaternions=F.normalize(torch.randn(count, 4), dim=-1),
        opacities=torch.rand(count) * 0.9 + 0.05,
        colors=torch.rand(count, 3),
        harmonics=torch.randn(count, coefficients, 3) * 0.2,
    )


def cameras(poses: torch.Tensor) -> Cameras:
    return Cameras(poses, intrinsics_from_fov(60.0, 40, 48).expand(len(poses), 4), 40, 48)


def test_basis_is_scipys():
    special = pytest.importorskip("scipy.special")
    directions = F.normalize(torch.randn(50, 3, dtype=torch.float64), dim=-1)
    x, y, z = directions.numpy().T
    polar, azimuth = np.arccos(z), np.arctan2(y, x)
    expected = []
    for degree in (1, 2, 3):
        for order in range(-degree, degree + 1):
            value = special.sph_harm_y(degree, abs(order), polar, azimuth)
            if order == 0:
                expected.append(value.real)
            else:  # real harmonics with the Condon-Shortley sign, as 3DGS has them
                expected.append(np.sqrt(2) * (value.imag if order < 0 else value.real))
    np.testing.assert_allclose(harmonic_basis(directions, 3).numpy(), np.stack(expected, -1), atol=1e-12)


def test_each_view_has_its_own_colors():
    gaussians = colorful()
    poses = torch.eye(4).repeat(2, 1, 1)
    poses[1, 0, 3] = 0.5
    both, oracle = render(gaussians, cameras(poses)), render_oracle(gaussians, cameras(poses))
    torch.testing.assert_close(both.color, oracle.color, atol=2e-5, rtol=0)
    for view in range(2):
        plain = seen_from(gaussians, poses[view, :3, 3])
        assert torch.equal(both.color[view], render(plain, cameras(poses[view : view + 1])).color[0])
    assert not torch.allclose(
        seen_from(gaussians, poses[0, :3, 3]).colors, seen_from(gaussians, poses[1, :3, 3]).colors
    )


def test_turning_the_scene_and_the_camera_together_changes_nothing():
    gaussians = colorful()
    rotation = matrix_from_quaternion(torch.randn(4))
    shift = torch.tensor([0.3, -1.0, 2.0])
    pose = torch.eye(4)
    pose[:3, :3], pose[:3, 3] = rotation, shift
    before = render(gaussians, cameras(torch.eye(4)[None])).color
    after = render(transform(gaussians, rotation, shift), cameras(pose[None])).color
    torch.testing.assert_close(after, before, atol=1e-4, rtol=0)


def test_merging_and_pruning_keep_harmonics():
    one, plain = colorful(10, 3), colorful(5, 8)
    whole = merge([one, plain, seen_from(plain, torch.zeros(3))])
    assert whole.harmonics is not None and whole.harmonics.shape == (20, 8, 3)
    assert one.harmonics is not None
    assert torch.equal(whole.harmonics[:10, :3], one.harmonics) and not whole.harmonics[:10, 3:].any()
    kept = prune(whole, 4)
    order = whole.opacities.argsort(descending=True, stable=True)[:4]
    assert kept.harmonics is not None
    assert torch.equal(kept.harmonics, whole.harmonics[order])


def test_no_harmonics_cost_nothing():
    gaussians = seen_from(colorful(), torch.zeros(3))
    assert gaussians.harmonics is None and seen_from(gaussians, torch.ones(3)) is gaussians
