"""Pruning, merging and moving Gaussians; rotations against float64 matrix algebra."""

import math
from dataclasses import fields

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from lyra.geometry.gaussians import (
    Gaussians,
    covariances,
    matrix_from_quaternion,
    merge,
    multiply_quaternions,
    prune,
    quaternion_from_matrix,
    transform,
)

NAMES = [f.name for f in fields(Gaussians) if f.name != "harmonics"]


def make_gaussians(*batch: int, count: int = 9, seed: int = 0, dtype: torch.dtype = torch.float64) -> Gaussians:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.rand(*batch, count, *shape, generator=generator, dtype=dtype)

    return Gaussians(draw(3), 0.1 + draw(3), F.normalize(draw(4) - 0.5, dim=-1), draw(), draw(3))


def rotation_about(axis: list[float], angle: float) -> torch.Tensor:
    """Matrix exponential of the cross-product matrix: no quaternion involved."""
    x, y, z = F.normalize(torch.tensor(axis, dtype=torch.float64), dim=0).tolist()
    cross = torch.tensor([[0, -z, y], [z, 0, -x], [-y, x, 0]], dtype=torch.float64)
    return torch.linalg.matrix_exp(angle * cross)


components = st.floats(-1, 1, allow_subnormal=False)
axes = st.lists(components, min_size=3, max_size=3).filter(lambda v: math.hypot(*v) > 0.1)
angles = st.floats(-4, 4)
rotations = st.builds(rotation_about, axes, angles)
quaternions = st.builds(
    lambda v: F.normalize(torch.tensor(v, dtype=torch.float64), dim=0),
    st.lists(components, min_size=4, max_size=4).filter(lambda v: math.hypot(*v) > 0.1),
)
quick = settings(max_examples=40, deadline=None, derandomize=True)


def test_prune_keeps_the_most_opaque_in_descending_order():
    gaussians = make_gaussians(count=50)
    kept = prune(gaussians, 12)
    ranked = sorted(range(50), key=lambda i: -gaussians.opacities[i].item())[:12]
    for name in NAMES:
        assert torch.equal(getattr(kept, name), getattr(gaussians, name)[ranked])


def test_prune_breaks_ties_by_index():
    gaussians = make_gaussians(count=200)
    levels = (torch.arange(200) * 7 % 5 / 5).double()
    gaussians = Gaussians(gaussians.means, gaussians.scales, gaussians.quaternions, levels, gaussians.colors)
    ranked = sorted(range(200), key=lambda i: (-levels[i].item(), i))[:90]
    assert torch.equal(prune(gaussians, 90).means, gaussians.means[ranked])


def test_prune_treats_every_batch_entry_alone():
    gaussians = make_gaussians(2, 3, count=20)
    kept = prune(gaussians, 6)
    for i in range(2):
        for j in range(3):
            alone = prune(gaussians.map(lambda tensor, i=i, j=j: tensor[i, j]), 6)
            for name in NAMES:
                assert torch.equal(getattr(kept, name)[i, j], getattr(alone, name))


@pytest.mark.parametrize("batch", [(), (2,)])
def test_merge_joins_along_the_splat_axis(batch: tuple[int, ...]):
    parts = [make_gaussians(*batch, count=n, seed=n) for n in (3, 5, 1)]
    merged = merge(parts)
    assert len(merged) == 9
    for name in NAMES:
        tensors = [getattr(p, name) for p in parts]
        axis = len(batch)
        assert torch.equal(getattr(merged, name).narrow(axis, 3, 5), tensors[1])
        assert getattr(merged, name).shape[axis] == 9


def test_select_follows_index_order_and_masks():
    gaussians = make_gaussians(count=5)
    assert torch.equal(gaussians.select(torch.tensor([3, 0, 3])).means, gaussians.means[[3, 0, 3]])
    assert len(gaussians.select(gaussians.opacities > 2)) == 0


@quick
@given(rotations, st.floats(0.2, 5))
def test_transform_moves_covariances_as_a_similarity_does(rotation: torch.Tensor, scale: float):
    gaussians = make_gaussians()
    translation = torch.tensor([0.3, -2.0, 1.0], dtype=torch.float64)
    moved = transform(gaussians, rotation, translation, scale)
    # The covariance as a sum over the ellipsoid's axes, turned without matrices.
    for index in range(len(gaussians)):
        q, s = gaussians.quaternions[index], gaussians.scales[index]
        ends = torch.stack([rotate_by_product(q, axis) for axis in torch.eye(3, dtype=torch.float64)])
        covariance = sum(s[k] ** 2 * torch.outer(ends[k], ends[k]) for k in range(3))
        expected = scale**2 * rotation @ covariance @ rotation.mT
        assert torch.allclose(covariances(moved)[index], expected, atol=1e-10)
        assert torch.allclose(moved.means[index], scale * rotation @ gaussians.means[index] + translation)
    assert torch.equal(moved.opacities, gaussians.opacities)
    assert torch.equal(moved.colors, gaussians.colors)


def rotate_by_product(quaternion: torch.Tensor, vector: torch.Tensor) -> torch.Tensor:
    """v + 2 w (u x v) + 2 u x (u x v), the vector form of q v q*."""
    w, u = quaternion[0], quaternion[1:]
    once = torch.linalg.cross(u, vector)
    return vector + 2 * w * once + 2 * torch.linalg.cross(u, once)


def test_transform_and_its_inverse_cancel():
    gaussians, rotation = make_gaussians(2), rotation_about([1.0, 2.0, -1.0], 2.1)
    translation = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    there = transform(gaussians, rotation, translation, 2.5)
    back = transform(there, rotation.mT, -rotation.mT @ translation / 2.5, 1 / 2.5)
    assert torch.allclose(back.means, gaussians.means)
    assert torch.allclose(covariances(back), covariances(gaussians))


@pytest.mark.parametrize("scale", [0.0, -1.0])
def test_transform_refuses_scales_that_are_not_positive(scale: float):
    with pytest.raises(ValueError, match="positive scale"):
        transform(make_gaussians(), torch.eye(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64), scale)


@quick
@given(rotations)
def test_matrix_survives_the_round_trip_through_a_quaternion(rotation: torch.Tensor):
    quaternion = quaternion_from_matrix(rotation)
    assert torch.allclose(quaternion.norm(), torch.ones((), dtype=torch.float64))
    assert quaternion[0] >= 0
    assert torch.allclose(matrix_from_quaternion(quaternion), rotation, atol=1e-12)


@quick
@given(quaternions)
def test_quaternion_survives_the_round_trip_up_to_sign(quaternion: torch.Tensor):
    back = quaternion_from_matrix(matrix_from_quaternion(quaternion))
    assert torch.allclose((back @ quaternion).abs(), torch.ones((), dtype=torch.float64), atol=1e-12)


AXES = [[1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0], [1.0, 1, 0], [0, 1.0, -1], [1.0, -2, 3]]


@pytest.mark.parametrize("axis", AXES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_half_turns_survive_the_round_trip(axis: list[float], dtype: torch.dtype):
    unit = F.normalize(torch.tensor(axis, dtype=torch.float64), dim=0)
    # A turn by 180 degrees is 2 u u^T - 1, exactly.
    half_turn = 2 * torch.outer(unit, unit) - torch.eye(3, dtype=torch.float64)
    for matrix in (half_turn, rotation_about(axis, math.pi - 1e-4), rotation_about(axis, math.pi + 1e-4)):
        quaternion = quaternion_from_matrix(matrix.to(dtype))
        tolerance = 8 * torch.finfo(dtype).eps
        assert torch.allclose(matrix_from_quaternion(quaternion).double(), matrix, atol=tolerance)


@quick
@given(axes, angles)
def test_quaternions_turn_as_the_matrix_exponential(axis: list[float], angle: float):
    unit = F.normalize(torch.tensor(axis, dtype=torch.float64), dim=0)
    quaternion = torch.cat([torch.tensor([math.cos(angle / 2)]).double(), math.sin(angle / 2) * unit])
    assert torch.allclose(matrix_from_quaternion(quaternion), rotation_about(axis, angle), atol=1e-6)


@quick
@given(quaternions, quaternions, quaternions)
def test_quaternion_product_is_the_rotation_group(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor):
    product = multiply_quaternions
    assert torch.allclose(
        matrix_from_quaternion(product(a, b)), matrix_from_quaternion(a) @ matrix_from_quaternion(b), atol=1e-12
    )
    assert torch.allclose(product(product(a, b), c), product(a, product(b, c)), atol=1e-12)
    assert torch.allclose(product(a, b).norm(), torch.ones((), dtype=torch.float64))
    unit = torch.tensor([1.0, 0, 0, 0], dtype=torch.float64)
    assert torch.equal(product(unit, a), a)
    inverse = a * torch.tensor([1.0, -1, -1, -1], dtype=torch.float64)
    assert torch.allclose(product(a, inverse), unit, atol=1e-12)


def test_matrices_are_proper_rotations_whatever_the_length_of_the_quaternion():
    quaternions = 7 * torch.randn(50, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrices = matrix_from_quaternion(quaternions)
    assert torch.allclose(matrices @ matrices.mT, torch.eye(3, dtype=torch.float64).expand(50, 3, 3), atol=1e-12)
    assert torch.allclose(torch.linalg.det(matrices), torch.ones(50, dtype=torch.float64))
    assert torch.allclose(matrix_from_quaternion(-0.01 * quaternions), matrices, atol=1e-12)
