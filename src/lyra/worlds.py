"""Seeded, endless textured rooms, ray traced in plain torch with exact depth.

A world is a box-shaped room with furniture-like boxes, spheres and cylinders. Its geometry is stored in the *room
frame*, whose axes follow the walls (x right, y down, z forward). Room and world share their origin, the centre of
the input camera; ``World.rotation`` turns world vectors into room vectors. The median z-depth of the input view is 1.

Rays are rows ``[3, ray]``. They are culled against bounding spheres and only the surviving (object, ray) pairs are
intersected, so the cost follows the picture rather than the number of objects. Textures are filtered by a mip
chain, and colors are supersampled only where neighbouring pixels differ.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.random import Generator
from torch import Tensor

from lyra.cameras import Cameras, intrinsics_from_fov, z_depth_factor

BOX, SPHERE, CYLINDER = range(3)
INPUT_FOV = 55.0
"""Field of view in degrees of the input view that fixes a world's scale."""
_SIZE, _LEVELS = 256, 7  # texels along a texture's side; mip levels
_CHUNK = 1 << 16  # rays at a time: rows stay in cache, and large images stay bounded in memory
_REFINE_ABOVE = 0.035  # difference of neighbouring pixels (sRGB units) from which a pixel is supersampled
_CONTACT = 0.1  # reach of contact darkening, scene units
_TEXTURES = ("plaster", "plaster", "plaster", "wood", "wood", "tiles", "brick", "marble", "stone", "carpet")
_TEXTURES += ("checks", "stripes", "books", "poster", "poster", "poster")


@dataclass(frozen=True)
class World:
    """A room with objects, textures and one light; lengths in scene units, room frame.

    Surfaces are numbered: 0 to 2 the room's walls across x, floor and ceiling, walls across z is *not* enough to tell
    floor from ceiling, so 0 to 5 are (x low, x high, ceiling, floor, back, front) and 6 onward are the objects.
    """

    rotation: Float[Tensor, "3 3"]
    """World to room."""
    room: Float[Tensor, "2 3"]
    """Low and high corner of the room."""
    kinds: Int[Tensor, "object"]
    """``BOX``, ``SPHERE`` or ``CYLINDER`` (upright)."""
    centers: Float[Tensor, "object 3"]
    half_sizes: Float[Tensor, "object 3"]
    """Half extents before the yaw; a sphere's radius, thrice; a cylinder's (radius, half height, radius)."""
    yaws: Float[Tensor, "object"]
    """Rotation about the vertical, radians."""
    textures: Int[Tensor, "surface"]
    """Index into the atlas."""
    mappings: Float[Tensor, "surface 4"]
    """Texture repeats per scene unit (u, v) and offset in repeats (u, v)."""
    tints: Float[Tensor, "surface 3"]
    """Linear factor on the texture."""
    emissions: Float[Tensor, "surface"]
    """Radiance a surface gives off by itself, as a factor on its color (windows)."""
    atlas: Float[Tensor, "texel 3"]
    """Linear colors of all textures, mip level by mip level."""
    light: Float[Tensor, "2 3"]
    """Position and color of the light."""
    ambient: Float[Tensor, "2 3"]
    """Color of the ambient light and the direction it mostly comes from."""
    exposure: Float[Tensor, ""]

    def to(self, device: torch.device | str) -> Self:
        """Moves the tensors to a device."""
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})


# ------------------------------------------------------------------------------------------------ textures


def _noise(rng: Generator, power: float, stretch: tuple[float, float] = (1.0, 1.0)) -> np.ndarray:
    """Tileable noise with amplitude 1/f^power and unit deviation; ``stretch`` smooths along (v, u)."""
    fy = np.fft.fftfreq(_SIZE, 1 / _SIZE)[:, None] * stretch[0]
    fx = np.fft.rfftfreq(_SIZE, 1 / _SIZE)[None] * stretch[1]
    amplitude = (fx**2 + fy**2 + 1) ** (-power / 2)
    amplitude[0, 0] = 0
    white = rng.standard_normal((2, *amplitude.shape), dtype=np.float32)
    field = torch.fft.irfft2(torch.from_numpy((white[0] + 1j * white[1]) * amplitude), s=(_SIZE, _SIZE))
    return (field / field.std()).numpy().astype(np.float32)


def _hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """One sRGB color from hue (turns), saturation and value."""
    ramp = np.abs((hue + np.array([0, 2 / 3, 1 / 3])) % 1 * 6 - 3) - 1
    return (value * (1 - saturation * (1 - ramp.clip(0, 1)))).astype(np.float32)


def _natural(rng: Generator, low: float = 0.15, high: float = 0.85) -> np.ndarray:
    """A muted color: mostly the warm hues of wood, clay and cloth, at times green or blue."""
    hue = rng.normal(0.085, 0.05) if rng.random() < 0.6 else rng.random()
    return _hsv(hue % 1, rng.beta(1.6, 2.2) * 0.85, rng.uniform(low, high))


def _ramp(value: np.ndarray, colors: Sequence[np.ndarray]) -> np.ndarray:
    """Maps values around 0 (unit deviation) through a row of colors."""
    position = (0.5 + 0.28 * value).clip(0, 1) * (len(colors) - 1)
    stops = np.arange(len(colors))
    return np.stack([np.interp(position, stops, [c[i] for c in colors]) for i in range(3)], -1)


def _cells(rng: Generator, rows: int, columns: int, joint: float, offset: bool) -> tuple[np.ndarray, ...]:
    """Brick-like cells: a random number of unit deviation for each, and how much of a texel is joint."""
    v, u = np.meshgrid(np.arange(_SIZE) / _SIZE, np.arange(_SIZE) / _SIZE, indexing="ij")
    row = (v * rows).astype(int)
    shift = rng.random(rows) if rng.random() < 0.3 else np.arange(rows) % 2 / 2
    along = (u * columns + (shift[row] if offset else 0)) % columns
    tone = rng.standard_normal((rows, columns))[row, along.astype(int)]
    edge = np.minimum(0.5 - np.abs(v * rows % 1 - 0.5), (0.5 - np.abs(along % 1 - 0.5)) * rows / columns)
    return tone, (1 - edge / joint).clip(0, 1) ** 0.5


def _blocks(rng: Generator, rows: int, columns: int, colors: Sequence[np.ndarray], shelf: bool) -> np.ndarray:
    """Rows of upright blocks of random width, height and color: books on shelves."""
    image = np.full((_SIZE, _SIZE, 3), 0.07, np.float32) + 0.05 * colors[0]
    edges = np.linspace(0, _SIZE, rows + 1).astype(int)
    for top, bottom in zip(edges[:-1], edges[1:], strict=True):
        cuts = np.sort(rng.integers(0, _SIZE, columns))
        for left, right in zip(cuts[:-1], cuts[1:], strict=True):
            if rng.random() < 0.12 and shelf:
                continue
            start = top + int((bottom - top) * rng.uniform(0.1, 0.4))
            shade = rng.uniform(0.6, 1.1) * (0.75 + 0.25 * np.sin(np.linspace(0.3, 2.8, right - left)))
            image[start:bottom, left:right] = colors[rng.integers(len(colors))] * shade[:, None]
        image[bottom - 6 : bottom] = colors[0] * 0.8
    return image


def _poster(rng: Generator) -> np.ndarray:
    """A framed picture: a landscape, a blot painting or a composition of rectangles and discs."""
    colors = [_natural(rng, 0.2, 1.0) for _ in range(5)]
    y, x = np.meshgrid(np.linspace(0, 1, _SIZE), np.linspace(0, 1, _SIZE), indexing="ij")
    style = rng.integers(3)
    if style == 0:
        image = _ramp(y * 3 - 2 + 0.4 * _noise(rng, 2.2, (2, 1)), [_hsv(0.58, 0.5, 0.8), _hsv(0.1, 0.15, 0.95)])
        for depth, color in enumerate(colors[:3]):
            ridge = 0.45 + 0.17 * depth + 0.07 * _noise(rng, 1.7)[depth]
            hill = color * (0.9 - 0.15 * depth) * (1 + 0.12 * _noise(rng, 1.0)[..., None])
            image = np.where((y > ridge)[..., None], hill, image)
    elif style == 1:
        image = _ramp(np.round(_noise(rng, 1.9) * 2) / 2 + 0.1 * _noise(rng, 1.0), colors)
    else:
        image = colors[0] * np.ones((_SIZE, _SIZE, 1), np.float32)
        for _ in range(rng.integers(4, 12)):
            cx, cy, w, h = *rng.random(2), *rng.uniform(0.04, 0.3, 2)
            disc = ((x - cx) / w) ** 2 + ((y - cy) / h) ** 2 < 1
            rectangle = (np.abs(x - cx) < w) & (np.abs(y - cy) < h)
            inside = disc if rng.random() < 0.4 else rectangle
            image = np.where(inside[..., None], colors[rng.integers(1, 5)] * rng.uniform(0.6, 1.1), image)
    border = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))
    mat, width = rng.uniform(0, 0.12), rng.uniform(0.02, 0.05)
    image = np.where((border < mat + width)[..., None], 0.88, image * (1 + 0.05 * _noise(rng, 1.2)[..., None]))
    return np.where((border < width)[..., None], _natural(rng, 0.1, 0.5), image)


def _woven(rng: Generator, kind: str) -> np.ndarray:
    """Checks or stripes with the unevenness of cloth or print."""
    v, u = np.meshgrid(np.arange(_SIZE) / _SIZE, np.arange(_SIZE) / _SIZE, indexing="ij")
    count = int(rng.integers(2, 7))
    wave = np.sin(2 * np.pi * count * u) + (0.5 * np.sin(4 * np.pi * count * u) if rng.random() < 0.5 else 0)
    if kind == "checks":
        wave = wave * np.sin(2 * np.pi * count * v) if rng.random() < 0.5 else wave + np.sin(2 * np.pi * count * v)
    return _ramp(np.tanh(wave * 5) * 1.2 + 0.25 * _noise(rng, 0.9), [_natural(rng) for _ in range(3)])


def _texture(rng: Generator, kind: str) -> np.ndarray:
    """One tileable sRGB texture [v, u, 3] of a kind named in ``_TEXTURES``."""
    base, fine = _natural(rng), _noise(rng, rng.uniform(0.7, 1.1))
    dark, light = base * rng.uniform(0.4, 0.75), (base * rng.uniform(1.1, 1.4)).clip(0, 1)
    if kind == "plaster":
        pale = 1 - (1 - _natural(rng, 0.55, 0.95)) * rng.uniform(0.4, 1.0)
        relief = rng.uniform(0.01, 0.05) * fine + rng.uniform(0.01, 0.06) * _noise(rng, 1.8)
        return pale * (1 + relief[..., None])
    if kind == "wood":
        wood = _hsv(rng.uniform(0.05, 0.1), rng.uniform(0.3, 0.65), rng.uniform(0.3, 0.8))
        rows = int(rng.integers(3, 8))
        tone, joint = _cells(rng, rows, int(rng.integers(1, 3)), 0.02 * rows / 4, True)
        rings = np.sin(14 * _noise(rng, 1.9, (1, 9)) + 6 * tone) * 0.5 + 0.6 * _noise(rng, 0.8, (1, 14))
        image = _ramp(0.8 * rings + 0.7 * tone, [wood * 0.6, wood * 0.85, wood, wood * 1.15])
        return image * (1 - 0.6 * joint[..., None])
    if kind in ("tiles", "brick"):
        rows = int(rng.integers(2, 5)) * 2
        base = _hsv(rng.normal(0.04, 0.02) % 1, 0.5, rng.uniform(0.4, 0.75)) if kind == "brick" else base
        spread = rng.uniform(0.1, 0.3) if kind == "brick" else rng.uniform(0, 0.12)
        tone, joint = _cells(rng, rows, rows // 2 if kind == "brick" else rows, 0.06, kind == "brick")
        body = base * (1 + spread * tone + rng.uniform(0.03, 0.12) * fine)[..., None]
        return body + (rng.uniform(0.2, 0.9) - body) * joint[..., None]
    if kind == "marble":
        vein = np.abs(_noise(rng, 1.7) + 0.3 * fine)
        return _ramp(2.5 * np.exp(-5 * vein) - 1.2 + 0.4 * _noise(rng, 1.6), [0.4 + 0.55 * light, 0.3 + 0.5 * base, dark])
    if kind == "stone":
        return _ramp(_noise(rng, rng.uniform(1.1, 1.6)), [dark, base, _natural(rng), light])
    if kind == "carpet":
        pattern = np.tanh(3 * _noise(rng, 2.0)) * rng.uniform(0, 1)
        return _ramp(pattern + 0.6 * _noise(rng, 0.4), [dark, base, light])
    if kind == "books":
        return _blocks(rng, int(rng.integers(2, 5)), int(rng.integers(9, 20)), [_natural(rng) for _ in range(7)], True)
    return _poster(rng) if kind == "poster" else _woven(rng, kind)


def _make_atlas(rng: Generator) -> Float[Tensor, "texel 3"]:
    """All textures in linear color with their mip chains, level-major."""
    images = np.stack([_texture(rng, kind) for kind in _TEXTURES]).clip(0.01, 0.97).astype(np.float32)
    level = torch.from_numpy(images).pow(2.2).permute(0, 3, 1, 2)
    levels = []
    for _ in range(_LEVELS):
        levels.append(level.permute(0, 2, 3, 1).reshape(-1, 3))
        level = torch.nn.functional.avg_pool2d(level, 2)
    return torch.cat(levels)


def _sample_atlas(world: World, texture: Tensor, uv: Tensor, footprint: Tensor) -> Float[Tensor, "ray 3"]:
    """Trilinear lookup; ``uv`` [2, ray] in repeats, ``footprint`` in texels per pixel."""
    count = len(_TEXTURES)
    level = footprint.clamp(min=1).log2().clamp(max=_LEVELS - 1.001)
    lower = level.long()
    color = 0
    for step in (0, 1):
        index = lower + step
        size = _SIZE >> index
        # Texels before level k: count * SIZE^2 * (1 + 1/4 + ... ) = 4/3 count (SIZE^2 - size^2).
        start = count * 4 * (_SIZE * _SIZE - size * size) // 3 + texture * size * size
        position = uv * size - 0.5
        corner = position.floor()
        weight = position - corner
        u0, v0 = corner.long()
        blend = (level - lower) if step else 1 - (level - lower)
        for dv in (0, 1):
            row = start + ((v0 + dv) & (size - 1)) * size
            wv = blend * (weight[1] if dv else 1 - weight[1])
            for du in (0, 1):
                texel = row + ((u0 + du) & (size - 1))
                color = color + world.atlas[texel] * (wv * (weight[0] if du else 1 - weight[0]))[:, None]
    return color
