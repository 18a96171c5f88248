"""The depth network's contract, and scene units."""

import pytest
import torch

from lyra.cache import MAX_DEPTH
from lyra.depth import DepthEstimator, DepthNet, DepthNetConfig, DepthPrediction, scene_depth


@pytest.fixture(scope="module")
def network() -> DepthNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DepthNet(DepthNetConfig(width=8, levels=4, max_width=32)).eval()


def photo(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (101, 35)])
def test_depth_of_any_size_has_median_one(network: DepthNet, height: int, width: int):
    prediction = network.predict(photo(height, width))
    assert isinstance(network, DepthEstimator)
    assert prediction.depth.shape == prediction.valid.shape == (height, width)
    assert prediction.depth.isfinite().all()
    assert prediction.depth.min() > 0
    assert prediction.depth.median() == 1
    assert prediction.valid.all()
    assert not prediction.metric


@pytest.mark.parametrize(("height", "width"), [(16, 16), (31, 64)])
def test_depth_from_sixteen_pixels_on(network: DepthNet, height: int, width: int):
    assert network.predict(photo(height, width)).depth.median() == 1


def test_depth_does_not_depend_on_the_scale_that_the_network_predicts(network: DepthNet):
    before = network.predict(photo(40, 36)).depth
    # Log depth plus a constant is depth in another unit.
    handle = network.register_forward_hook(lambda module, args, output: torch.add(torch.as_tensor(output), 2.5))
    after = network.predict(photo(40, 36)).depth
    handle.remove()
    assert torch.allclose(before, after, atol=1e-5)


def test_depth_depends_on_image_and_place(network: DepthNet):
    with torch.no_grad():
        flat = network(torch.full((1, 3, 32, 32), 0.5))[0]
        assert not torch.allclose(network(photo(32, 32)[None]), network(photo(32, 32, 1)[None]))
    assert (flat[4] - flat[-4]).abs().max() > 1e-4


def test_batch_entries_are_predicted_alone(network: DepthNet):
    images = torch.stack([photo(36, 44, seed) for seed in range(2)])
    with torch.no_grad():
        assert torch.allclose(network(images)[1:], network(images[1:]), atol=1e-5)


def predicted(depth: torch.Tensor, valid: torch.Tensor | None = None) -> DepthPrediction:
    return DepthPrediction(depth, torch.ones_like(depth, dtype=torch.bool) if valid is None else valid, None, False)


@pytest.mark.parametrize("unit", [0.01, 1.0, 40.0])
def test_scene_depth_has_median_one_whatever_the_unit(unit: float):
    depth = 1 + torch.rand(9, 9, generator=torch.Generator().manual_seed(0))
    scene = scene_depth(predicted(unit * depth))
    assert scene.median() == pytest.approx(1, abs=1e-6)
    assert torch.allclose(scene, depth / depth.median(), rtol=1e-5)


def test_sky_goes_to_the_far_clamp_and_stays_out_of_the_median():
    depth = 2 + torch.rand(9, 9, generator=torch.Generator().manual_seed(0))
    valid = torch.ones(9, 9, dtype=torch.bool)
    valid[:6] = False
    near, far = depth.clone(), depth.clone()
    near[:6], far[:6] = 1e-3, 1e5
    for sky in (near, far):
        scene = scene_depth(predicted(sky, valid))
        assert (scene[:6] == MAX_DEPTH).all()
        assert scene[6:].median() == pytest.approx(1, abs=1e-6)


def test_far_valid_pixels_are_clamped():
    depth = torch.ones(5, 5)
    depth[0] = 1e4
    scene = scene_depth(predicted(depth))
    assert (scene[0] == MAX_DEPTH).all()
    assert (scene[1:] == 1).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0, -3.0])
def test_depth_that_is_no_distance_counts_as_invalid(bad: float):
    depth = torch.full((5, 5), 2.0)
    depth[:3] = bad
    scene = scene_depth(predicted(depth))
    assert (scene[:3] == MAX_DEPTH).all()
    assert (scene[3:] == 1).all()


@pytest.mark.parametrize("depth", [torch.ones(4, 4), torch.full((4, 4), float("nan"))])
def test_a_view_without_valid_pixels_is_an_error(depth: torch.Tensor):
    with pytest.raises(ValueError, match="no valid pixel"):
        scene_depth(predicted(depth, depth.isnan()))
