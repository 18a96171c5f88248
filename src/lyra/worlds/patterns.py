"""Patterns that textures are made of: tileable noise, rows of cells, colors and color ramps."""

from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
from numpy.random import Generator

TEXTURE_SIZE = 256
"""Texels along a texture's side."""


@cache
def _log_frequencies(stretch: tuple[int, int]) -> np.ndarray:
    """Logarithm of one plus the squared frequency, for real spectra; the constant term is infinite."""
    fy = np.fft.fftfreq(TEXTURE_SIZE, 1 / TEXTURE_SIZE)[:, None] * stretch[0]
    fx = np.fft.rfftfreq(TEXTURE_SIZE, 1 / TEXTURE_SIZE)[None] * stretch[1]
    result = np.log(fx**2 + fy**2 + 1)
    result[0, 0] = np.inf
    return result.astype(np.float32)


def noise(rng: Generator, power: float, stretch: tuple[int, int] = (1, 1)) -> np.ndarray:
    """Tileable noise with amplitude 1/f^power and unit deviation; ``stretch`` smooths along (v, u)."""
    amplitude = np.exp(np.float32(-power / 2) * _log_frequencies(stretch))
    white = rng.standard_normal((*amplitude.shape, 2), dtype=np.float32) * amplitude[..., None]
    field = torch.fft.irfft2(torch.view_as_complex(torch.from_numpy(white)), s=(TEXTURE_SIZE, TEXTURE_SIZE))
    return (field / field.std()).numpy()


def hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """One sRGB color from hue (turns), saturation and value."""
    ramp = np.abs((hue + np.array([0, 2 / 3, 1 / 3])) % 1 * 6 - 3) - 1
    return (value * (1 - saturation * (1 - ramp.clip(0, 1)))).astype(np.float32)


def natural_color(rng: Generator, low: float = 0.15, high: float = 0.85) -> np.ndarray:
    """A muted color: mostly the warm hues of wood, clay and cloth, at times blue, green or any other."""
    family = rng.choice(4, p=(0.6, 0.2, 0.12, 0.08))
    hue = (rng.normal(0.08, 0.04), rng.normal(0.58, 0.05), rng.normal(0.3, 0.06), rng.random())[family]
    # Cloth and paint of cold hues are rarely as saturated as wood and leather.
    saturation = rng.beta(1.6, 2.2) * (0.85, 0.6, 0.45, 0.45)[family]
    return hsv(hue % 1, saturation, rng.uniform(low, high))


def ramp(value: np.ndarray, colors: Sequence[np.ndarray]) -> np.ndarray:
    """Maps values around 0 (unit deviation) through a row of colors."""
    table = np.array(colors, np.float32)
    position = (0.5 + 0.28 * value).clip(0, 1).astype(np.float32) * (len(table) - 1)
    stop = position.astype(np.int64).clip(0, len(table) - 2)
    start, step = table[:-1][stop], np.diff(table, axis=0)[stop]
    return start + (position - stop)[..., None] * step


def cells(rng: Generator, rows: int, columns: int, joint: float, offset: bool) -> tuple[np.ndarray, ...]:
    """Brick-like cells: a random number of unit deviation for each, and how much of a texel is joint."""
    v, u = np.meshgrid(np.arange(TEXTURE_SIZE) / TEXTURE_SIZE, np.arange(TEXTURE_SIZE) / TEXTURE_SIZE, indexing="ij")
    row = (v * rows).astype(int)
    shift = rng.random(rows) if rng.random() < 0.3 else np.arange(rows) % 2 / 2
    along = (u * columns + (shift[row] if offset else 0)) % columns
    tone = rng.standard_normal((rows, columns))[row, along.astype(int)]
    edge = np.minimum(0.5 - np.abs(v * rows % 1 - 0.5), (0.5 - np.abs(along % 1 - 0.5)) * rows / columns)
    return tone, (1 - edge / joint).clip(0, 1) ** 0.5
