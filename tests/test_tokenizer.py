"""Both tokenizers behind their one interface; the linear one against the singular value decomposition."""

import pytest
import torch
from small_cosmos import small_cosmos

from lyra.tokenizer.cosmos import CosmosTokenizer
from lyra.tokenizer.linear import LinearTokenizer, fit_linear_tokenizer
from lyra.tokenizer.tokenizer import LatentSpec, LatentStatistics, Tokenizer


def smooth_video(batch: int = 6, frames: int = 9, height: int = 16, width: int = 24, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(batch, 3, 3, 5, 6, generator=generator, dtype=torch.float64)
    video = torch.nn.functional.interpolate(coarse, (frames, height, width), mode="trilinear", align_corners=True)
    return 2 * video - 1 + 0.1 * torch.randn(video.shape, generator=generator, dtype=torch.float64)


def patches_of(video: torch.Tensor, frames: int, side: int) -> torch.Tensor:
    """Non-overlapping patches as rows, by unfolding."""
    blocks = video.unfold(2, frames, frames).unfold(3, side, side).unfold(4, side, side)
    return blocks.permute(0, 2, 3, 4, 1, 5, 6, 7).flatten(4).flatten(0, 3)


@pytest.fixture(scope="module")
def linear() -> LinearTokenizer:
    tokenizer = LinearTokenizer(channels=12, temporal=4, spatial=4, latent_frames=3).double().eval()
    fit_linear_tokenizer(smooth_video().split(2), tokenizer)
    return tokenizer


@pytest.fixture(scope="module")
def cosmos() -> CosmosTokenizer:
    return small_cosmos(latent_frames=2, layers=2)


@pytest.fixture(params=["linear", "cosmos"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return request.getfixturevalue(request.param)


def video_for(tokenizer: Tokenizer, latent_frames: int = 3, seed: int = 1) -> torch.Tensor:
    video = smooth_video(1, 1 + tokenizer.spec.temporal * (latent_frames - 1), 32, 48, seed)
    return video if isinstance(tokenizer, LinearTokenizer) else video.float()


def test_linear_tokenizer_reconstructs_as_well_as_the_svd(linear: LinearTokenizer):
    video = smooth_video()
    error = linear.decode(linear.encode(video)) - video
    for part, residual, frames in ((video[:, :, :1], error[:, :, :1], 1), (video[:, :, 1:], error[:, :, 1:], 4)):
        patches = patches_of(part, frames, 4)
        singular = torch.linalg.svdvals(patches - patches.mean(0))
        best = singular[12:].square().sum()
        assert best > 0
        assert torch.allclose(residual.square().sum(), best, rtol=1e-8)


def test_linear_latents_are_white_on_the_data_they_were_fitted_to(linear: LinearTokenizer):
    latents = linear.encode(smooth_video())
    for part in (latents[:, :, :1], latents[:, :, 1:]):
        rows = part.movedim(1, -1).flatten(0, -2)
        assert torch.allclose(rows.mean(0), torch.zeros(12, dtype=torch.float64), atol=1e-9)
        covariance = rows.mT @ rows / len(rows)
        assert torch.allclose(covariance, torch.eye(12, dtype=torch.float64), atol=1e-8)


def test_linear_fit_does_not_depend_on_how_the_videos_come(linear: LinearTokenizer):
    other = LinearTokenizer(12, 4, 4, 3).double()
    fit_linear_tokenizer(smooth_video().flip(0).split(1), other)
    for name, value in linear.state_dict().items():
        assert torch.allclose(other.state_dict()[name], value, atol=1e-7)


def test_linear_decode_of_encode_is_a_projection(linear: LinearTokenizer):
    video = video_for(linear)
    once = linear.decode(linear.encode(video))
    assert (once - video).abs().max() > 1e-3
    assert torch.allclose(linear.decode(linear.encode(once)), once, atol=1e-10)
    latents = torch.randn(1, 12, 3, 4, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert torch.allclose(linear.encode(linear.decode(latents)), latents, atol=1e-10)


def test_linear_pixel_weights_are_the_squared_change_of_pixels(linear: LinearTokenizer):
    zero = torch.zeros(1, 12, 2, 1, 1, dtype=torch.float64)
    for channel in (0, 5, 11):
        for frame in (0, 1):
            unit = zero.clone()
            unit[0, channel, frame] = 1
            change = (linear.decode(unit) - linear.decode(zero)).square()
            part = change[:, :, :1] if frame == 0 else change[:, :, 1:]
            assert torch.allclose(part.mean(), linear.pixel_weights()[channel, frame])


@torch.no_grad()
def test_tokenizers_satisfy_the_protocol_and_their_spec(tokenizer: Tokenizer):
    assert isinstance(tokenizer, Tokenizer)
    video, spec = video_for(tokenizer), tokenizer.spec
    latents = tokenizer.encode(video)
    expected = (1, spec.channels, spec.latent_frames(video.shape[2]), 32 // spec.spatial, 48 // spec.spatial)
    assert latents.shape == expected
    assert latents.dtype == video.dtype
    assert tokenizer.decode(latents).shape == video.shape
    assert torch.equal(tokenizer.encode(video), latents)


@torch.no_grad()
def test_tokenizers_are_causal(tokenizer: Tokenizer):
    video, temporal = video_for(tokenizer), tokenizer.spec.temporal
    latents = tokenizer.encode(video)
    for known in (0, 1):
        changed = video.clone()
        changed[:, :, 1 + known * temporal :] = video_for(tokenizer, seed=9)[:, :, 1 + known * temporal :]
        other = tokenizer.encode(changed)
        assert torch.allclose(other[:, :, : known + 1], latents[:, :, : known + 1], atol=1e-5)
        assert (other[:, :, known + 1 :] - latents[:, :, known + 1 :]).abs().max() > 1e-3
    decoded = tokenizer.decode(latents)
    assert torch.allclose(tokenizer.decode(latents[:, :, :2]), decoded[:, :, : 1 + temporal], atol=1e-5)


@torch.no_grad()
def test_a_still_image_is_the_first_latent_frame(tokenizer: Tokenizer):
    video = video_for(tokenizer)
    latents, still = tokenizer.encode(video), tokenizer.encode(video[:, :, :1])
    assert still.shape[2] == 1
    assert torch.allclose(still, latents[:, :, :1], atol=1e-5)
    assert torch.allclose(tokenizer.decode(still), tokenizer.decode(latents)[:, :, :1], atol=1e-5)


@torch.no_grad()
def test_batch_entries_are_encoded_alone(tokenizer: Tokenizer):
    videos = torch.cat([video_for(tokenizer, 2, seed) for seed in (1, 2)])
    latents = tokenizer.encode(videos)
    for index in range(2):
        one = slice(index, index + 1)
        assert torch.allclose(tokenizer.encode(videos[one]), latents[one], atol=1e-5)


def test_wrong_frame_counts_are_refused(tokenizer: Tokenizer):
    temporal = tokenizer.spec.temporal
    for frames in (2, temporal, temporal + 2):
        with pytest.raises(ValueError, match=f"{frames} frames"):
            tokenizer.encode(torch.zeros(1, 3, frames, 32, 32))


def test_latent_frames_count_the_first_apart():
    spec = LatentSpec(16, 8, 8)
    assert [spec.latent_frames(n) for n in (1, 9, 121)] == [1, 2, 16]
    for frames in (0, -7, 8, 120):
        with pytest.raises(ValueError, match="takes 1 \\+ 8 n frames"):
            spec.latent_frames(frames)


@pytest.mark.parametrize("frames", [1, 3, 5])
def test_denormalize_inverts_normalize(frames: int):
    statistics, generator = LatentStatistics(4, 3).double(), torch.Generator().manual_seed(0)
    statistics.mean.copy_(torch.randn(4, 3, generator=generator))
    statistics.std.copy_(0.1 + torch.rand(4, 3, generator=generator))
    latents = torch.randn(2, 4, frames, 5, 6, generator=generator, dtype=torch.float64)
    normalized = statistics.normalize(latents)
    assert torch.allclose(statistics.denormalize(normalized), latents)
    assert torch.allclose(statistics.normalize(statistics.denormalize(latents)), latents)
    # Unbatched latents are normalized alike, and later frames take the last statistics.
    assert torch.equal(statistics.normalize(latents[0]), normalized[0])
    channel, frame = 2, frames - 1
    mean, std = (t[channel, min(frame, 2)] for t in (statistics.mean, statistics.std))
    expected = 0.5 * (latents[:, channel, frame] - mean) / std
    assert torch.allclose(normalized[:, channel, frame], expected)


def test_normalized_latents_have_half_unit_deviation(tokenizer: Tokenizer):
    assert isinstance(tokenizer, LinearTokenizer | CosmosTokenizer)
    saved = {name: value.clone() for name, value in tokenizer.statistics.state_dict().items()}
    with torch.no_grad():
        latents = tokenizer.encode(torch.cat([video_for(tokenizer, 2, seed) for seed in range(3)]))
    frames = tokenizer.statistics.mean.shape[1]
    spread = latents[:, :, [0] + [1] * (frames - 1)]
    tokenizer.statistics.mean.copy_(spread.mean((0, 3, 4)))
    tokenizer.statistics.std.copy_(spread.std((0, 3, 4)))
    normalized = tokenizer.normalize(latents)
    tokenizer.statistics.load_state_dict(saved)
    assert torch.allclose(normalized.std((0, 3, 4)), torch.tensor(0.5, dtype=latents.dtype), atol=1e-4)
    assert normalized.mean((0, 3, 4)).abs().max() < 1e-4
