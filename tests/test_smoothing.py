"""Corrections are smooth within a surface, and free at its edges."""

import pytest
import torch

from lyra.student.smoothing import smooth_on_surface


def step(size: int = 64, jump: float = 1.0) -> torch.Tensor:
    """Log distance of a wall, and of another behind it in the right half."""
    surface = torch.zeros(1, size, size)
    surface[..., size // 2 :] = jump
    return surface


@pytest.mark.parametrize("radius", [2, 8])
def test_a_constant_stays_and_noise_goes(radius):
    surface = step()
    same = smooth_on_surface(torch.full((1, 2, 64, 64), 0.3), surface, radius)
    torch.testing.assert_close(same, torch.full_like(same, 0.3))
    noise = torch.randn(1, 1, 64, 64, generator=torch.Generator().manual_seed(0))
    smooth = smooth_on_surface(noise, surface, radius)
    # Of a mean over n cells 1 / sqrt(n) is left; the mean of means takes some more away.
    assert float(smooth[..., 8:-8, 8:24].std()) < 1.3 / (2 * radius + 1)


@pytest.mark.parametrize("radius", [2, 8])
def test_both_sides_of_an_edge_keep_values_of_their_own(radius):
    surface = step()
    values = torch.where(surface > 0.5, 0.2, -0.1)[:, None]
    smooth = smooth_on_surface(values, surface, radius)
    torch.testing.assert_close(smooth, values, atol=0.01, rtol=0)


def test_half_the_grid_says_what_windows_on_all_of_it_say():
    """Compared with every window's least squares in float64, one by one."""
    generator = torch.Generator().manual_seed(1)
    rows = torch.linspace(0, 0.5, 32, dtype=torch.float64)
    surface = rows[:, None] + 0.3 * rows[None]
    field = 0.4 * surface + 0.05 * torch.randn(32, 32, generator=generator, dtype=torch.float64)
    found = smooth_on_surface(field.float()[None, None], surface.float()[None], 8)[0, 0]
    slopes, constants = torch.zeros(2, 32, 32, dtype=torch.float64)
    for row in range(32):
        for column in range(32):
            window = slice(max(0, row - 8), row + 9), slice(max(0, column - 8), column + 9)
            x, y = surface[window].flatten(), field[window].flatten()
            covariance = ((x - x.mean()) * (y - y.mean())).mean()
            slopes[row, column] = covariance / (x.var(correction=0) + 0.03**2)
            constants[row, column] = y.mean() - slopes[row, column] * x.mean()
    wanted = torch.zeros(32, 32, dtype=torch.float64)
    for row in range(32):
        for column in range(32):
            window = slice(max(0, row - 8), row + 9), slice(max(0, column - 8), column + 9)
            wanted[row, column] = slopes[window].mean() * surface[row, column] + constants[window].mean()
    assert float((found - wanted).abs().max()) < 0.01
