"""Textures of outdoor surfaces: fronts of houses, roofs, paving, soil, plants and clouds."""

import numpy as np
from numpy.random import Generator

from lyra.worlds.patterns import TEXTURE_SIZE, cells, hsv, natural_color, noise, ramp

WINDOWS = 4
"""Windows along each side of a front's texture."""


def _grid() -> tuple[np.ndarray, np.ndarray]:
    side = np.arange(TEXTURE_SIZE) / TEXTURE_SIZE
    v, u = np.meshgrid(side, side, indexing="ij")
    return v, u


def _wall(rng: Generator) -> np.ndarray:
    """Render, brick or ashlar with stains that run down."""
    fine, stain = noise(rng, 0.8), noise(rng, 1.5, (4, 1))
    style = rng.choice(3, p=(0.55, 0.3, 0.15))
    if style == 0:
        pale = 1 - (1 - natural_color(rng, 0.55, 0.95)) * rng.uniform(0.4, 1.0)
        body = pale * (1 + rng.uniform(0.01, 0.05) * fine)[..., None]
    else:
        rows = int(rng.choice([20, 28, 36]) if style == 1 else rng.choice([8, 12]))
        color = hsv(rng.normal(0.045, 0.02) % 1, rng.uniform(0.3, 0.65), rng.uniform(0.35, 0.7))
        color = color if style == 1 else natural_color(rng, 0.45, 0.8) * 0.5 + 0.25
        tone, joint = cells(rng, rows, rows // 2, 0.1, True)
        body = color * (1 + rng.uniform(0.08, 0.2) * tone + 0.08 * fine)[..., None]
        body = body + (rng.uniform(0.35, 0.7) - body) * 0.8 * joint[..., None]
    return body * (1 + rng.uniform(0.02, 0.09) * stain)[..., None]


def _front(rng: Generator) -> np.ndarray:
    """A wall with four by four windows, each a little different."""
    image, (v, u) = _wall(rng), _grid()
    row, column = (v * WINDOWS).astype(int), (u * WINDOWS).astype(int)
    y, x = v * WINDOWS % 1 - 0.5, u * WINDOWS % 1 - 0.5
    width, height = rng.uniform(0.18, 0.34), rng.uniform(0.24, 0.36)
    frame = rng.uniform(0.02, 0.05)
    trim = natural_color(rng, 0.2, 0.95) if rng.random() < 0.5 else np.full(3, rng.uniform(0.7, 0.95))
    shutter, shut = natural_color(rng, 0.2, 0.7), rng.random() < 0.3
    inside, border = (
        (np.abs(x) < width) & (np.abs(y) < height),
        (np.abs(x) < width + frame) & (np.abs(y) < height + frame),
    )
    if shut:
        wing = (np.abs(x) > width) & (np.abs(x) < width * 1.9) & (np.abs(y) < height)
        slats = 0.8 + 0.2 * np.sin(y * 150)
        image = np.where(wing[..., None], shutter * slats[..., None], image)
    image = np.where(border[..., None], trim, image)
    # Panes mirror the sky above and the street below; some show curtains or a lamp.
    mirror = rng.uniform(0.05, 0.5, (WINDOWS, WINDOWS))[row, column] * (0.5 - y)
    curtain = rng.random((WINDOWS, WINDOWS))[row, column]
    pane = 0.06 + mirror + 0.04 * noise(rng, 1.5)
    pane = np.where((curtain > 0.75) & (np.abs(x) > 0.4 * width), 0.55 + 0.1 * np.sin(x * 90), pane)
    tint = np.array([0.85, 0.95, 1.05]) * (1 + 0.1 * rng.standard_normal(3))
    image = np.where(inside[..., None], pane[..., None] * tint, image)
    bars = inside & ((np.abs(x) < 0.012) | (np.abs(y + rng.uniform(0, 0.4) * height) < 0.012))
    image = np.where(bars[..., None], trim, image)
    sill = (np.abs(x) < width + 2 * frame) & (np.abs(y - height - 1.5 * frame) < frame)
    shade = (np.abs(x) < width + frame) & (y > height + 2.5 * frame) & (y < height + 5 * frame)
    ledge = (y > 0.5 - rng.uniform(0.02, 0.05)) & (rng.random() < 0.5)
    image = np.where(shade[..., None], 0.75 * image, image)
    return np.where((sill | ledge)[..., None], 0.9 * trim, image)


def _voronoi(rng: Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Tone of the nearest of ``count`` squared jittered points, and the gap to the second nearest, in cells."""
    v, u = ((a * count).astype(np.float32) for a in _grid())
    shift = rng.uniform(0.1, 0.9, (2, count, count)).astype(np.float32)
    tones = rng.standard_normal((count, count)).astype(np.float32)
    row, column = v.astype(np.int32), u.astype(np.int32)
    v, u = v - row, u - column
    first = second = np.full(u.shape, 9.0, np.float32)
    tone = np.zeros_like(u)
    for dy in (-1, 0, 1):
        for dx in (-1, 0, 1):
            cell = (row + dy) % count * count + (column + dx) % count
            a, b = v - shift[0].take(cell) - dy, u - shift[1].take(cell) - dx
            apart = a * a + b * b
            nearer = apart < first
            tone = np.where(nearer, tones.take(cell), tone)
            second = np.where(nearer, first, np.minimum(second, apart))
            first = np.minimum(first, apart)
    return tone, np.sqrt(second) - np.sqrt(first)


def _paving(rng: Generator, kind: str) -> np.ndarray:
    fine = noise(rng, 0.6)
    if kind == "asphalt":
        gray = rng.uniform(0.25, 0.5) * (1 + 0.06 * rng.standard_normal(3))
        patch = np.tanh(4 * noise(rng, 1.9) - 3)
        return gray * (1 + 0.12 * fine + 0.07 * noise(rng, 1.5) + 0.06 * patch)[..., None]
    color = natural_color(rng, 0.35, 0.7) * 0.5 + 0.2
    if kind == "slabs":
        rows = int(rng.choice([6, 8, 12]))
        tone, joint = cells(rng, rows, rows // int(rng.choice([1, 2])), 0.05, True)
    else:
        tone, gap = _voronoi(rng, int(rng.integers(9, 20)))
        joint = (1 - gap / 0.16).clip(0, 1)
    body = color * (1 + rng.uniform(0.06, 0.16) * tone + 0.1 * fine + 0.08 * noise(rng, 1.5))[..., None]
    filler = color * 0.35 if rng.random() < 0.6 else hsv(0.25, 0.45, 0.3)
    return body + (filler - body) * joint[..., None] * 0.85


def _roof(rng: Generator) -> np.ndarray:
    """Courses of tiles, each with its shadow line, or slates."""
    v, u = _grid()
    rows = int(rng.choice([12, 16, 20]))
    red = hsv(rng.normal(0.035, 0.02) % 1, rng.uniform(0.4, 0.65), rng.uniform(0.35, 0.7))
    color = red if rng.random() < 0.6 else natural_color(rng, 0.2, 0.5) * 0.6 + 0.1
    tone, joint = cells(rng, rows, rows, 0.08, True)
    course = v * rows % 1
    wave = np.sin(2 * np.pi * u * rows) if rng.random() < 0.5 else 0.0
    light = 0.55 + 0.5 * course + 0.12 * wave - 0.25 * joint + 0.13 * tone + 0.1 * noise(rng, 1.3)
    return color * light[..., None] + 0.03 * noise(rng, 1.6)[..., None] * np.array([0.6, 1.0, 0.3])


def _leaves(rng: Generator) -> np.ndarray:
    """Bright leaves over dark gaps."""
    hue = rng.normal(0.25, 0.03) if rng.random() < 0.82 else rng.normal(0.09, 0.04)
    saturation, value = rng.uniform(0.35, 0.7), rng.uniform(0.4, 0.7)
    colors = [hsv((hue + 0.02) % 1, saturation, value * f) for f in (0.12, 0.3, 0.55, 0.85)]
    colors.append(hsv((hue - 0.03) % 1, saturation * 0.85, min(value * 1.35, 0.95)))
    tone, gap = _voronoi(rng, int(rng.integers(22, 40)))
    return ramp(0.6 * noise(rng, 0.9) + 0.7 * tone + 1.6 * gap - 0.5, colors)


def _soil(rng: Generator, kind: str) -> np.ndarray:
    fine, coarse = noise(rng, 0.5), noise(rng, 1.4)
    if kind == "grass":
        dry = rng.uniform(0, 1) ** 2
        hue, saturation = 0.26 - 0.12 * dry + rng.normal(0, 0.015), rng.uniform(0.4, 0.7) - 0.15 * dry
        value = rng.uniform(0.35, 0.6) + 0.12 * dry
        colors = [hsv(hue, saturation, value * f) for f in (0.35, 0.7, 1.0)] + [
            hsv(hue - 0.06, saturation * 0.8, value * 1.3)
        ]
        return ramp(0.8 * noise(rng, 0.4, (1, 3)) + 0.45 * coarse + 0.2 * fine, colors)
    if kind == "rock":
        color = natural_color(rng, 0.35, 0.65) * 0.4 + rng.uniform(0.15, 0.35)
        layers = np.sin(9 * noise(rng, 1.9, (1, 4)))
        crack = np.exp(-9 * np.abs(noise(rng, 1.5)))
        light = 1 + 0.16 * fine + 0.22 * coarse + 0.12 * layers - 0.5 * crack
        return color * light[..., None]
    if kind == "snow":
        return np.array([0.88, 0.91, 0.95]) * (1 + 0.02 * fine + 0.04 * coarse)[..., None]
    # Sand, gravel, earth.
    color = hsv(rng.uniform(0.06, 0.12), rng.uniform(0.2, 0.5), rng.uniform(0.4, 0.85))
    pebbles = np.clip(noise(rng, 0.7) - 1.2, 0, 1) * rng.uniform(-0.3, 0.4)
    return color * (1 + 0.1 * fine + 0.1 * coarse + pebbles)[..., None]


def outdoor_texture(rng: Generator, kind: str) -> np.ndarray:
    """One tileable sRGB texture [v, u, 3]; clouds are gray: how dense they are."""
    if kind == "front":
        return _front(rng)
    if kind == "wall":
        return _wall(rng)
    if kind == "roof":
        return _roof(rng)
    if kind in ("asphalt", "slabs", "cobbles"):
        return _paving(rng, kind)
    if kind == "leaves":
        return _leaves(rng)
    if kind == "bark":
        color = hsv(rng.uniform(0.05, 0.1), rng.uniform(0.2, 0.5), rng.uniform(0.2, 0.45))
        return color * (1 + 0.35 * noise(rng, 1.0, (6, 1)) + 0.1 * noise(rng, 0.5))[..., None]
    if kind == "paint":
        return natural_color(rng, 0.15, 0.95) * (1 + 0.015 * noise(rng, 1.2))[..., None]
    if kind == "clouds":
        cloud = 0.5 + 0.2 * noise(rng, rng.uniform(1.5, 1.8), (2, 1)) + 0.03 * noise(rng, 1.0)
        return np.repeat(cloud[..., None], 3, 2)
    return _soil(rng, kind)
