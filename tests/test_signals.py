"""What the tokenizer is fitted to."""

import pytest
import torch

from lyra.models.recipe import SMOKE
from lyra.training.signals import (
    mask_signal,
    moving_window,
    plucker_signals,
    time_signal,
    tokenizer_signals,
)
from lyra.training.world_clips import WorldClip, render_world_clip


@pytest.fixture(scope="module")
def clips() -> list[WorldClip]:
    teacher = SMOKE.teacher
    return [render_world_clip(100_000, i, teacher.frames, teacher.height, teacher.width, 55.0) for i in range(2)]


def picture(size: int = 64) -> torch.Tensor:
    return torch.rand(3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_a_window_that_moves_by_whole_pixels_is_a_crop():
    image = picture()
    window = moving_window(image, 32, 9, velocity=(2.0, -1.0))
    assert window.shape == (1, 3, 9, 32, 32)
    for frame in range(9):
        x, y = 16 + 2 * (frame - 4), 16 - (frame - 4)
        assert torch.allclose(window[0, :, frame], image[:, y : y + 32, x : x + 32], atol=1e-4)


def test_a_zoom_of_a_ramp_is_a_flatter_ramp():
    ramp = torch.linspace(-1, 1, 65).expand(3, 65, 65)
    window = moving_window(ramp, 32, 5, zoom=0.5)
    slopes = [window[0, 0, frame, 16].diff().mean().item() for frame in (0, 4)]
    assert slopes[1] / slopes[0] == pytest.approx(0.5, rel=0.02)


def test_maps_have_the_shape_of_videos(clips: list[WorldClip]):
    teacher = SMOKE.teacher
    shape = (1, 3, teacher.frames, teacher.height, teacher.width)
    halves = plucker_signals(clips[0])
    assert [half.shape for half in halves] == [shape, shape]
    mask = mask_signal(clips[0], teacher)
    assert mask.shape == shape
    assert set(mask.unique().tolist()) <= {-1.0, 1.0}
    times = time_signal(torch.linspace(0, 1, teacher.frames), teacher.height, teacher.width)
    assert times.shape == shape
    assert times[0, 0, :, 0, 0].tolist() == pytest.approx(torch.linspace(-1, 1, teacher.frames).tolist())


def test_signals_are_videos_first_and_maps_now_and_then(clips: list[WorldClip]):
    signals = list(tokenizer_signals(clips * 16, SMOKE.teacher))
    assert len(signals) == 32 + 16 + 2 * 4 + 2 + 2
    assert all(signal.abs().max() <= 1.001 for signal in signals)
    repeated = list(tokenizer_signals(clips * 16, SMOKE.teacher))
    assert all(torch.equal(a, b) for a, b in zip(signals, repeated, strict=True))
