"""Tiles and stretches of time against the whole."""

import pytest
import torch
from small_cosmos import small_cosmos

from lyra.device.memory import Placement
from lyra.models.smoke import build_smoke_model
from lyra.tokenizer.cosmos import CosmosTokenizer
from lyra.tokenizer.linear import LinearTokenizer
from lyra.tokenizer.tiling import HostedTokenizer, TiledTokenizer, Tiling, place_tokenizer
from lyra.tokenizer.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def linear() -> LinearTokenizer:
    tokenizer = build_smoke_model().tokenizer
    assert isinstance(tokenizer, LinearTokenizer)
    return tokenizer


@pytest.fixture(scope="module")
def cosmos() -> CosmosTokenizer:
    return small_cosmos()


@pytest.mark.parametrize(
    "tiling",
    [
        Tiling(side=5, overlap=2, frames=1, context=1),
        Tiling(side=4, overlap=1, frames=2, context=1),
        Tiling(side=7, overlap=6, frames=3, context=2),
        Tiling(side=100, overlap=8, frames=100, context=1),
    ],
)
def test_local_patches_do_not_notice_the_tiles(linear: LinearTokenizer, tiling: Tiling):
    video = torch.rand(1, 3, 17, 44, 36) * 2 - 1
    tiled = TiledTokenizer(linear, tiling)
    assert isinstance(tiled, Tokenizer)
    latents = linear.encode(video)
    assert torch.allclose(tiled.encode(video), latents, atol=1e-5)
    assert torch.allclose(tiled.decode(latents), linear.decode(latents), atol=1e-5)


def test_the_published_network_has_the_same_shapes_and_no_seams(cosmos: CosmosTokenizer):
    video = torch.rand(1, 3, 17, 64, 96) * 2 - 1
    tiled = TiledTokenizer(cosmos, Tiling(side=6, overlap=3, frames=2, context=1))
    with torch.no_grad():
        whole = cosmos.encode(video)
        encoded, decoded = tiled.encode(video), tiled.decode(whole)
        same = TiledTokenizer(cosmos, Tiling(side=12, frames=3))
        assert torch.equal(same.encode(video), whole)
        assert torch.equal(same.decode(whole), cosmos.decode(whole))
    assert encoded.shape == whole.shape
    assert decoded.shape == video.shape
    # Columns where tiles begin or end do not jump more than others.
    jumps = decoded.diff(dim=-1).abs().mean(dim=(0, 1, 2, 3))
    assert jumps.max() < 4 * jumps.median()


def test_diffusers_own_tiling_still_does_nothing(cosmos: CosmosTokenizer):
    # The reason for ours; when this fails, theirs may serve.
    latents = torch.randn(1, 4, 2, 8, 8)
    with torch.no_grad():
        before = cosmos.decode(latents)
        cosmos.vae.enable_tiling(16, 16, 8, 8, 8, 8)
        after = cosmos.decode(latents)
    cosmos.vae.use_tiling = False
    assert torch.equal(before, after)


def test_a_placement_without_wishes_changes_nothing(linear: LinearTokenizer):
    assert place_tokenizer(linear, Placement()) is linear
    hosted = place_tokenizer(linear, Placement(tile=24))
    assert isinstance(hosted, HostedTokenizer)
    video = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    assert torch.allclose(hosted.encode(video), linear.encode(video), atol=1e-5)
    latents = linear.encode(video)
    assert torch.allclose(hosted.denormalize(hosted.normalize(latents)), latents, atol=1e-5)


def test_latents_are_normalized_where_they_are(cosmos: CosmosTokenizer):
    """The network stays at home for it; on this device everything that came would be lost."""
    hosted = HostedTokenizer(cosmos, Placement("meta", offload=True))
    latents = torch.randn(1, 4, 3, 4, 4)
    cosmos.statistics.mean.normal_()
    normal = hosted.normalize(latents)
    expected = (latents - cosmos.statistics.mean[None, :, :, None, None]) * 0.5
    assert torch.allclose(normal, expected) and torch.allclose(hosted.denormalize(normal), latents, atol=1e-6)
    assert {parameter.device.type for parameter in cosmos.parameters()} == {"cpu"}
    assert cosmos.statistics.normalize(latents.to("meta")).is_meta
    cosmos.statistics.mean.zero_()


def test_networks_compute_in_the_placements_precision(cosmos: CosmosTokenizer):
    video = torch.rand(1, 3, 9, 32, 32) * 2 - 1
    seen: set[torch.dtype] = set()
    convolutions = [module for module in cosmos.modules() if isinstance(module, torch.nn.Conv3d)]
    hooks = [module.register_forward_hook(lambda *given: seen.add(given[-1].dtype)) for module in convolutions]
    found = {}
    for precision in ("float32", "bfloat16"):
        placed = place_tokenizer(cosmos, Placement(precision=precision))
        seen.clear()
        with torch.no_grad():
            latents = placed.encode(video)
            found[precision] = latents, placed.decode(latents)
        assert seen == {getattr(torch, precision)}
        assert all(result.dtype == torch.float32 for result in found[precision])
    for hook in hooks:
        hook.remove()
    for exact, rounded in zip(*found.values(), strict=True):
        assert 0 < (exact - rounded).abs().max() < 0.05 * exact.abs().max()


@pytest.mark.parametrize("wrong", [{"overlap": 0}, {"side": 4, "overlap": 4}, {"context": 0}, {"frames": 0}])
def test_impossible_tiles_are_refused(wrong: dict[str, int]):
    with pytest.raises(ValueError, match="overlap < side"):
        Tiling(**wrong)
