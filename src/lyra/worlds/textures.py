"""Textures: a random generator becomes an atlas of linear colors, and positions on it become filtered colors.

``make_atlas`` draws one tileable texture for each given name with its mip chain; ``sample_atlas`` looks colors up at
texture positions, trilinearly.
"""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from numpy.random import Generator
from torch import Tensor

from lyra.worlds.outdoor_textures import outdoor_texture
from lyra.worlds.patterns import TEXTURE_SIZE, cells, hsv, natural_color, noise, ramp

LEVELS = 7  # mip levels
_TEXELS = sum((TEXTURE_SIZE >> level) ** 2 for level in range(LEVELS))


def _books(rng: Generator, rows: int, columns: int) -> np.ndarray:
    """Books on shelves: rows of upright blocks of random width, height and color."""
    colors = [natural_color(rng) for _ in range(7)]
    image = np.full((TEXTURE_SIZE, TEXTURE_SIZE, 3), 0.07, np.float32) + 0.05 * colors[0]
    edges = np.linspace(0, TEXTURE_SIZE, rows + 1).astype(int)
    for top, bottom in pairwise(edges.tolist()):
        cuts = np.sort(rng.integers(0, TEXTURE_SIZE, columns))
        for left, right in pairwise(cuts.tolist()):
            if rng.random() < 0.12:
                continue
            start = top + int((bottom - top) * rng.uniform(0.1, 0.4))
            shade = rng.uniform(0.6, 1.1) * (0.75 + 0.25 * np.sin(np.linspace(0.3, 2.8, right - left)))
            image[start:bottom, left:right] = colors[rng.integers(len(colors))] * shade[:, None]
        image[bottom - 6 : bottom] = colors[0] * 0.8
    return image


def _poster(rng: Generator) -> np.ndarray:
    """A framed picture: a landscape, a blot painting or a composition of rectangles and discs."""
    colors = [natural_color(rng, 0.2, 1.0) for _ in range(5)]
    y, x = np.meshgrid(np.linspace(0, 1, TEXTURE_SIZE), np.linspace(0, 1, TEXTURE_SIZE), indexing="ij")
    style = rng.integers(3)
    if style == 0:
        image = ramp(y * 3 - 2 + 0.4 * noise(rng, 2.2, (2, 1)), [hsv(0.58, 0.5, 0.8), hsv(0.1, 0.15, 0.95)])
        for depth, color in enumerate(colors[:3]):
            ridge = 0.45 + 0.17 * depth + 0.07 * noise(rng, 1.7)[depth]
            hill = color * (0.9 - 0.15 * depth) * (1 + 0.12 * noise(rng, 1.0)[..., None])
            image = np.where((y > ridge)[..., None], hill, image)
    elif style == 1:
        image = ramp(np.round(noise(rng, 1.9) * 2) / 2 + 0.1 * noise(rng, 1.0), colors)
    else:
        image = colors[0] * np.ones((TEXTURE_SIZE, TEXTURE_SIZE, 1), np.float32)
        for _ in range(rng.integers(4, 12)):
            cx, cy, w, h = *rng.random(2), *rng.uniform(0.04, 0.3, 2)
            disc = ((x - cx) / w) ** 2 + ((y - cy) / h) ** 2 < 1
            rectangle = (np.abs(x - cx) < w) & (np.abs(y - cy) < h)
            inside = (disc if rng.random() < 0.4 else rectangle)[..., None]
            image = np.where(inside, colors[int(rng.integers(1, 5))] * rng.uniform(0.6, 1.1), image)
    border = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))
    mat, width = rng.uniform(0, 0.12), rng.uniform(0.02, 0.05)
    image = np.where((border < mat + width)[..., None], 0.88, image * (1 + 0.05 * noise(rng, 1.2)[..., None]))
    return np.where((border < width)[..., None], natural_color(rng, 0.1, 0.5), image)


def _woven(rng: Generator, kind: str) -> np.ndarray:
    """Checks or stripes with the unevenness of cloth or print."""
    v, u = np.meshgrid(np.arange(TEXTURE_SIZE) / TEXTURE_SIZE, np.arange(TEXTURE_SIZE) / TEXTURE_SIZE, indexing="ij")
    count = int(rng.integers(2, 7))
    wave = np.sin(2 * np.pi * count * u) + (0.5 * np.sin(4 * np.pi * count * u) if rng.random() < 0.5 else 0)
    if kind == "checks":
        wave = wave * np.sin(2 * np.pi * count * v) if rng.random() < 0.5 else wave + np.sin(2 * np.pi * count * v)
    return ramp(np.tanh(wave * 5) * 1.2 + 0.25 * noise(rng, 0.9), [natural_color(rng) for _ in range(3)])


def _texture(rng: Generator, kind: str) -> np.ndarray:
    """One tileable sRGB texture [v, u, 3] of a kind of surface."""
    base, fine = natural_color(rng), noise(rng, rng.uniform(0.7, 1.1))
    dark, light = base * rng.uniform(0.4, 0.75), (base * rng.uniform(1.1, 1.4)).clip(0, 1)
    if kind == "plaster":
        pale = 1 - (1 - natural_color(rng, 0.55, 0.95)) * rng.uniform(0.25, 1.0)
        relief = rng.uniform(0.01, 0.04) * fine + rng.uniform(0, 0.03) * noise(rng, 1.8)
        return pale * (1 + relief[..., None])
    if kind == "wood":
        wood = hsv(rng.uniform(0.05, 0.1), rng.uniform(0.3, 0.65), rng.uniform(0.3, 0.8))
        rows = int(rng.integers(3, 8))
        tone, joint = cells(rng, rows, int(rng.integers(1, 3)), 0.02 * rows / 4, True)
        rings = np.sin(14 * noise(rng, 1.9, (1, 9)) + 6 * tone) * 0.5 + 0.6 * noise(rng, 0.8, (1, 14))
        image = ramp(0.8 * rings + 0.7 * tone, [wood * 0.6, wood * 0.85, wood, wood * 1.15])
        return image * (1 - 0.6 * joint[..., None])
    if kind in ("tiles", "brick"):
        rows = int(rng.integers(2, 5)) * 2
        base = hsv(rng.normal(0.04, 0.02) % 1, 0.5, rng.uniform(0.4, 0.75)) if kind == "brick" else base
        spread = rng.uniform(0.1, 0.3) if kind == "brick" else rng.uniform(0, 0.12)
        tone, joint = cells(rng, rows, rows // 2 if kind == "brick" else rows, 0.06, kind == "brick")
        body = base * (1 + spread * tone + rng.uniform(0.03, 0.12) * fine)[..., None]
        return body + (rng.uniform(0.2, 0.9) - body) * joint[..., None]
    if kind == "marble":
        vein = np.abs(noise(rng, 1.7) + 0.3 * fine)
        veined = 2.5 * np.exp(-5 * vein) - 1.2 + 0.4 * noise(rng, 1.6)
        return ramp(veined, [0.4 + 0.55 * light, 0.3 + 0.5 * base, dark])
    if kind == "stone":
        return ramp(noise(rng, rng.uniform(1.1, 1.6)), [dark, base, 0.8 * base + 0.2 * natural_color(rng), light])
    if kind == "carpet":
        pattern = np.tanh(3 * noise(rng, 2.0)) * rng.uniform(0, 1)
        return ramp(pattern + 0.6 * noise(rng, 0.4), [dark, base, light])
    if kind == "books":
        return _books(rng, int(rng.integers(2, 5)), int(rng.integers(9, 20)))
    if kind in ("checks", "stripes"):
        return _woven(rng, kind)
    return _poster(rng) if kind == "poster" else outdoor_texture(rng, kind)


def make_atlas(rng: Generator, names: Sequence[str]) -> Float[Tensor, "texel 4"]:
    """Textures of the named kinds in linear color with their mip chains, level-major."""
    images = torch.from_numpy(np.stack([_texture(rng, kind).astype(np.float32) for kind in names]))
    mean = images.mean((1, 2), keepdim=True)
    # Photographs have about this much more fine contrast than the patterns as they are drawn.
    gain = torch.from_numpy(rng.uniform(1.1, 1.8, (len(names), 1, 1, 1)).astype(np.float32))
    images = (mean + gain * (images - mean)).clamp(0.01, 0.97)
    level = images.pow(2.2).permute(0, 3, 1, 2).contiguous()
    levels = []
    for _ in range(LEVELS):
        levels.append(level.permute(0, 2, 3, 1).reshape(-1, 3))
        level = torch.nn.functional.avg_pool2d(level, 2)
    return torch.nn.functional.pad(torch.cat(levels), (0, 1))


def sample_atlas(atlas: Tensor, texture: Tensor, uv: Tensor, footprint: Tensor) -> Float[Tensor, "ray 3"]:
    """Trilinear lookup; ``uv`` [2, ray] in repeats, ``footprint`` in texels per pixel."""
    count = len(atlas) // _TEXELS
    level = footprint.clamp(min=1).log2().clamp(max=LEVELS - 1.001)
    lower = level.long()
    texels, weights = [], []
    for step in (0, 1):
        size = TEXTURE_SIZE >> (lower + step)
        # Texels before level k: count * SIZE^2 * (1 + 1/4 + ... ) = 4/3 count (SIZE^2 - size^2).
        start = count * 4 * (TEXTURE_SIZE * TEXTURE_SIZE - size * size) // 3 + texture * (size * size)
        position = uv * size - 0.5
        corner = position.floor()
        u, v = position - corner
        u0, v0 = corner.long()
        blend = (level - lower) if step else 1 - (level - lower)
        columns = (u0 & (size - 1), (u0 + 1) & (size - 1))
        for row, share in ((v0, blend * (1 - v)), (v0 + 1, blend * v)):
            first = start + (row & (size - 1)) * size
            texels += [first + columns[0], first + columns[1]]
            weights += [share * (1 - u), share * u]
    # One fused gather and weighted sum: several times faster than indexing corner by corner.
    taps = torch.stack(texels, 1), torch.stack(weights, 1)
    bag = torch.nn.functional.embedding_bag(taps[0], atlas, per_sample_weights=taps[1], mode="sum")
    return bag[:, :3]
