"""The space of the small teacher."""

import pytest
import torch

from lyra.teacher.residual import Residual, coverage, measure_spread, residual_space
from lyra.teacher.sampling import SIGMA_DATA
from lyra.tokenizer.tokenizer import LatentSpec

SPEC = LatentSpec(channels=3, temporal=4, spatial=4)
SPREAD = ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def example() -> Residual:
    return residual_space(random(2, 12, 3, 4, 4), torch.rand(2, 1, 3, 4, 4), SPREAD)


def test_latents_come_back():
    latents = random(2, 3, 3, 4, 4, seed=1)
    space = example()
    assert torch.allclose(space.restore(space.of(latents)), latents, atol=1e-6)


def test_the_first_latent_frame_stays_as_it_is():
    latents = random(2, 3, 3, 4, 4, seed=1)
    assert torch.allclose(example().of(latents)[:, :, 0], latents[:, :, 0])


@pytest.mark.parametrize(("covered", "spread"), [(1.0, SPREAD[0]), (0.0, SPREAD[1])])
def test_units_are_those_of_covered_cells_and_of_holes(covered: float, spread: tuple[float, ...]):
    buffers = random(1, 12, 3, 4, 4)
    space = residual_space(buffers, torch.full((1, 1, 3, 4, 4), covered), SPREAD)
    one_off = buffers[:, :3] + torch.tensor(spread)[:, None, None, None]
    assert torch.allclose(space.of(one_off)[:, :, 1:], torch.tensor(SIGMA_DATA), atol=1e-5)


def test_coverage_is_the_share_of_covered_pixels_in_space_and_time():
    masks = (torch.rand(9, 8, 12, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    found = coverage(masks, SPEC)
    assert found.shape == (1, 1, 3, 2, 3)
    for time, frames in enumerate((slice(0, 1), slice(1, 5), slice(5, 9))):
        for row in range(2):
            for column in range(3):
                cell = masks[frames, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4]
                assert found[0, 0, time, row, column] == pytest.approx(cell.mean().item(), abs=1e-6)


def test_the_measured_spread_makes_differences_of_the_wanted_deviation():
    covered = (torch.rand(8, 1, 3, 16, 16, generator=torch.Generator().manual_seed(3)) > 0.3).float()
    known, unknown = (torch.tensor(values)[:, None, None, None] for values in SPREAD)
    suggested = random(8, 3, 3, 16, 16)
    latents = suggested + random(8, 3, 3, 16, 16, seed=1) * (covered * known + (1 - covered) * unknown)
    spread = measure_spread(latents, suggested, covered)
    for found, expected in zip(spread, SPREAD, strict=True):
        assert found == pytest.approx(expected, rel=0.05)
    difference = residual_space(suggested, covered, spread).of(latents)[:, :, 1:]
    assert difference.std().item() == pytest.approx(SIGMA_DATA, rel=0.02)
