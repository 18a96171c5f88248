"""The teacher's samplers against the exact flow of a distribution whose denoiser is known."""

import math
from collections.abc import Callable

import pytest
import torch
from diffusers import EDMEulerScheduler
from torch import Tensor

from lyra.teacher.sampling import (
    AUGMENT_SIGMA,
    sample_euler,
    sample_heun,
    sample_multistep,
    sample_renoised,
    schedule_sigmas,
)

SHAPE = (1, 4, 3, 8, 8)
ZERO = torch.zeros(SHAPE, dtype=torch.float64)
Sampler = Callable[..., Tensor]


def make_schedule(steps: int) -> Tensor:
    return schedule_sigmas(EDMEulerScheduler(sigma_max=80.0, sigma_min=0.0002, sigma_data=0.5), steps).double()


def noise(seed: int) -> Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class TwoPeaks:
    """Independent values of -1 or 1: a denoiser that bends, so that the order of a sampler shows."""

    calls = 0

    def __call__(self, x: Tensor, sigma: Tensor) -> Tensor:
        self.calls += 1
        variance = sigma.reshape(-1, 1, 1, 1, 1) ** 2 + 0.3**2
        weight = torch.tanh(x / variance)
        return (0.3**2 * x + sigma.reshape(-1, 1, 1, 1, 1) ** 2 * weight) / variance


def end(sampler: Sampler, steps: int) -> Tensor:
    return sampler(TwoPeaks(), noise(0), make_schedule(steps), ZERO, ZERO)[:, :, 1:]


@pytest.fixture(scope="module")
def exact() -> Tensor:
    return end(sample_heun, 2000)


def error(sampler: Sampler, steps: int, exact: Tensor) -> float:
    return (end(sampler, steps) - exact).abs().mean().item()


@pytest.mark.parametrize(
    ("sampler", "order"), [(sample_euler, 1), (sample_heun, 2), (sample_multistep, 2)], ids=["euler", "heun", "2m"]
)
def test_errors_shrink_with_the_order_of_the_sampler(sampler: Sampler, order: int, exact: Tensor):
    coarse, fine = error(sampler, 60, exact), error(sampler, 240, exact)
    slope = math.log(coarse / fine) / math.log(4)
    assert slope == pytest.approx(order, abs=0.35)


def test_second_order_is_nearer_for_the_same_number_of_denoisings(exact: Tensor):
    assert error(sample_multistep, 24, exact) < 0.5 * error(sample_euler, 24, exact)
    assert error(sample_heun, 24, exact) < error(sample_euler, 47, exact)


@pytest.mark.parametrize(("sampler", "calls"), [(sample_euler, 9), (sample_heun, 17), (sample_multistep, 9)])
def test_denoisings_of_nine_steps(sampler: Sampler, calls: int):
    denoise = TwoPeaks()
    sampler(denoise, noise(0), make_schedule(9), ZERO, ZERO)
    assert denoise.calls == calls


@pytest.mark.parametrize("sampler", [sample_euler, sample_heun, sample_multistep])
def test_the_known_frame_is_imposed_on_whatever_the_network_is_shown(sampler: Sampler):
    first, seen = noise(2), []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        if sigma > AUGMENT_SIGMA:
            expected = first[:, :, 0] * ((sigma**2 + 0.25) / (AUGMENT_SIGMA**2 + 0.25)).sqrt()
            seen.append((x[:, :, 0] - expected).abs().max().item())
        return torch.where(sigma > AUGMENT_SIGMA, torch.full_like(x, 7.0), x)

    # The published end: as the noise reaches zero, the frame is the known one.
    result = sampler(denoise, noise(0), make_schedule(40), first, ZERO)
    assert max(seen) < 1e-9
    assert torch.allclose(result[:, :, 0], first[:, :, 0], atol=0.02)
    assert torch.allclose(result[:, :, 1:], torch.full_like(result[:, :, 1:], 7.0), atol=0.05)


def test_few_steps_end_at_the_network_s_own_estimate_and_draw_their_noise():
    drawn = []

    def draw(step: int) -> Tensor:
        drawn.append(step)
        return noise(10 + step)

    first = noise(2)
    sigmas = torch.tensor([80.0, 5.0, 0.5, 0.0], dtype=torch.float64)
    seen = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append((x, sigma.item()))
        return torch.full_like(x, 0.25 * len(seen))

    result = sample_renoised(denoise, noise(0), sigmas, first, ZERO, draw)
    assert drawn == [0, 1]
    assert torch.equal(result[:, :, 0], first[:, :, 0])
    assert (result[:, :, 1:] == 0.75).all()
    # The second call sees the first estimate under noise of its own level.
    second, sigma = seen[1]
    assert sigma == 5.0
    assert torch.allclose(second[:, :, 1:], 0.25 + 5.0 * noise(10)[:, :, 1:])
