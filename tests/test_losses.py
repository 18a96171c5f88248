"""The depth loss against its definition in float64."""

import pytest
import torch

from lyra.training.losses import depth_loss


def depths(seed: int = 0, views: int = 3) -> torch.Tensor:
    return 0.5 + torch.rand(views, 7, 9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mask(seed: int = 5) -> torch.Tensor:
    return torch.rand(3, 7, 9, generator=torch.Generator().manual_seed(seed)) < 0.7


def by_definition(prediction: torch.Tensor, truth: torch.Tensor, valid: torch.Tensor) -> float:
    """Plain python, value by value."""
    total, count = 0.0, 0
    for view in range(len(prediction)):
        pair = []
        for depth in (prediction, truth):
            values = [float(v) for v, ok in zip(depth[view].flatten(), valid[view].flatten(), strict=True) if ok]
            if values:
                median = sorted(values)[(len(values) - 1) // 2]
                spread = sum(abs(v - median) for v in values) / len(values)
                pair.append([(v - median) / spread for v in values])
        for a, b in zip(*pair, strict=True) if pair else ():
            error = abs(a - b)
            total, count = total + (0.5 * error**2 if error < 1 else error - 0.5), count + 1
    return total / count


def test_depth_loss_is_its_definition():
    assert float(depth_loss(depths(0), depths(1), mask())) == pytest.approx(by_definition(depths(0), depths(1), mask()))


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 3.0), (7.0, 0.0), (0.2, -1.0)])
def test_depth_loss_ignores_scale_and_shift_of_every_frame(scale: float, shift: float):
    reference = depth_loss(depths(0), depths(1), mask())
    moved = depths(0)
    moved[1] = scale * moved[1] + shift
    assert torch.allclose(depth_loss(moved, depths(1), mask()), reference)
    truth = scale * depths(1) + shift
    assert torch.allclose(depth_loss(depths(0), truth, mask()), reference)
    assert depth_loss(scale * depths(1) + shift, depths(1), mask()) < 1e-20


def test_depth_loss_tells_order_and_is_never_negative():
    loss = depth_loss(-depths(0), depths(0), mask())
    assert loss > 0.1


def test_depth_loss_ignores_invalid_pixels():
    valid = mask()
    prediction, truth = depths(0), depths(1)
    reference = depth_loss(prediction, truth, valid)
    prediction[~valid], truth[~valid] = 1e6, float("nan")
    prediction.requires_grad_()
    loss = depth_loss(prediction, truth, valid)
    assert torch.equal(loss, reference)
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert gradient.isfinite().all()
    assert (gradient[~valid] == 0).all()


def test_a_view_without_valid_pixels_plays_no_part():
    valid = mask()
    valid[1] = False
    keep = [0, 2]
    expected = depth_loss(depths(0)[keep], depths(1)[keep], valid[keep])
    assert torch.equal(depth_loss(depths(0), depths(1), valid), expected)


def test_without_any_valid_pixel_the_loss_is_zero_and_harms_no_gradient():
    prediction = depths(0).requires_grad_()
    loss = depth_loss(prediction, depths(1), torch.zeros(3, 7, 9, dtype=torch.bool))
    assert loss == 0
    (gradient,) = torch.autograd.grad(loss + prediction.sum(), prediction)
    assert torch.equal(gradient, torch.ones_like(gradient))


def test_flat_depth_gives_a_finite_loss_and_gradient():
    prediction = torch.ones(3, 7, 9, requires_grad=True)
    loss = depth_loss(prediction, depths(1).float(), torch.ones(3, 7, 9, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(loss, prediction)
    assert loss.isfinite()
    assert gradient.isfinite().all()
