"""Depth brought to the scale of a scene."""

import pytest
import torch

from lyra.depth.alignment import align_depth


def surfaces(height: int = 48, width: int = 64) -> torch.Tensor:
    """A floor that recedes, and a box before it."""
    rows = torch.linspace(0.1, 1, height)[:, None].expand(height, width)
    depth = 1 / rows
    depth[20:40, 20:40] = 1.2
    return depth.clone()


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (0.2, 0.0), (3.0, 0.4), (0.5, -0.02)])
def test_an_affine_change_of_inverse_depth_is_undone(scale: float, shift: float):
    target = surfaces()
    estimated = 1 / (scale / target + shift)
    mask = torch.zeros_like(target, dtype=torch.bool)
    mask[:, 10:40] = True
    aligned = align_depth(estimated, target, mask, steps=0)
    assert torch.allclose(aligned, target, rtol=1e-3)
    # Nothing is left to bend.
    assert torch.allclose(align_depth(estimated, target, mask), target, rtol=0.02)


def test_outliers_beyond_the_quantiles_do_not_pull():
    target = surfaces()
    known = target.clone()
    known[:3] = 90.0  # sky in the cache, wall in the estimate
    aligned = align_depth(2 * target, known, torch.ones_like(target, dtype=torch.bool), steps=0)
    assert torch.allclose(aligned[5:], target[5:], rtol=0.1)


def test_a_slow_bend_is_followed_where_the_target_is_known():
    target = surfaces()
    bend = torch.linspace(0.95, 1.05, 64).expand(48, 64)
    everywhere = torch.ones_like(target, dtype=torch.bool)
    stiff = align_depth(target * bend, target, everywhere, steps=0)
    bent = align_depth(target * bend, target, everywhere)
    assert ((bent / target).log().abs()).mean() < 0.5 * ((stiff / target).log().abs()).mean()


def test_near_and_far_are_never_swapped():
    target = surfaces()
    aligned = align_depth(1 / target, target, torch.ones_like(target, dtype=torch.bool), steps=0)
    assert (aligned > 0).all()
    assert aligned.isfinite().all()
    assert torch.corrcoef(torch.stack([aligned.flatten().log(), (1 / target).flatten().log()]))[0, 1] > 0.9


def test_a_flat_view_takes_the_target_s_level():
    flat, target = torch.full((32, 32), 5.0), torch.full((32, 32), 1.5)
    aligned = align_depth(flat, target, torch.ones(32, 32, dtype=torch.bool))
    assert torch.allclose(aligned, target, rtol=1e-3)


def test_the_same_input_gives_the_same_depth_and_leaves_no_graph():
    target = surfaces()
    mask = torch.rand(48, 64, generator=torch.Generator().manual_seed(1)) > 0.5
    with torch.no_grad():
        first, again = (align_depth(target * 1.3, target, mask) for _ in range(2))
    assert torch.equal(first, again)
    assert not first.requires_grad


def test_too_little_to_align_by_is_refused():
    mask = torch.zeros(48, 64, dtype=torch.bool)
    mask[0, :10] = True
    with pytest.raises(ValueError, match="too few pixels"):
        align_depth(surfaces(), surfaces(), mask)
