import math

import pytest
import torch

from lyra.evaluation.depth_scores import constant_depth, row_depth, score_depth

FOCAL = 60.0


def floor_and_wall() -> torch.Tensor:
    y = (torch.arange(48) + 0.5 - 24) / FOCAL
    return torch.minimum(1 / y.clamp(min=1e-3), torch.tensor(5.0))[:, None].expand(48, 64)


def test_the_truth_at_another_scale_has_no_error():
    true = floor_and_wall()
    scores = score_depth(7 * true, true, torch.ones_like(true, dtype=torch.bool), FOCAL)
    assert scores.relative < 1e-5 and scores.within == 1 and scores.affine < 1e-5 and scores.normals_deg < 0.1


def test_errors_have_their_closed_form():
    true = torch.full((48, 64), 2.0)
    known = torch.ones_like(true, dtype=torch.bool)
    wrong = true.clone()
    wrong[:12] *= 1.5
    scores = score_depth(wrong, true, known, FOCAL)
    assert scores.relative == pytest.approx(0.125) and scores.within == pytest.approx(0.75)
    # A wall turned by 30 degrees.
    x = (torch.arange(64) + 0.5 - 32) / FOCAL
    turned = (1 / (math.cos(math.pi / 6) + math.sin(math.pi / 6) * x)).expand(48, 64)
    assert score_depth(turned, true, known, FOCAL).normals_deg == pytest.approx(30, abs=0.1)
    assert math.isnan(score_depth(turned, true, known).normals_deg)


def test_unknown_pixels_do_not_count():
    true = floor_and_wall()
    known = torch.ones_like(true, dtype=torch.bool)
    known[:, :20] = False
    wrong = true.clone()
    wrong[:, :20] = 50
    assert score_depth(wrong, true, known).relative < 1e-6


def test_baselines():
    image = torch.zeros(3, 40, 30)
    assert bool((constant_depth(image) == 1).all())
    assert bool((row_depth(image).diff(dim=0) < 0).all())
