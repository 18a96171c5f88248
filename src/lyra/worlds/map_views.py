"""Views of maps that look like photographs: where a camera may stand, and pictures with exact z-depth."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from lyra.worlds.meshes import Mesh
from lyra.worlds.rasterizing import (
    Lens,
    Surfaces,
    find_surfaces,
    stored_light,
    surface_colors,
)

SIDE = 352
"""Pixels of a view's sides."""
_PROBE = 1 / 8
_TRIES, _KEPT_OF_TRIES = 40, 0.3
_NEAREST_M, _MEDIAN_M = 0.3, (0.6, 14.0)
_FEWEST_SURFACES = 8


@dataclass(frozen=True)
class View:
    """A picture and its depth."""

    image: UInt8[np.ndarray, "height width 3"]
    depth: Float[np.ndarray, "height width"]
    """Z-depth in metres; infinite is sky."""
    focal: float
    """Pixels; the principal point is the middle."""


def look(yaw: float, pitch: float, roll: float) -> Float[np.ndarray, "3 3"]:
    """Rows right, down and forward of a camera, angles in radians; a positive pitch looks down."""
    forward = np.array([math.sin(yaw) * math.cos(pitch), math.sin(pitch), math.cos(yaw) * math.cos(pitch)])
    right = np.array([math.cos(yaw), 0.0, -math.sin(yaw)])
    down = np.cross(forward, right)
    cos, sin = math.cos(roll), math.sin(roll)
    return np.stack([cos * right + sin * down, cos * down - sin * right, forward])


def draw_lens(place: Float[np.ndarray, "3"], random: np.random.Generator, side: int = SIDE) -> Lens:
    """A camera at a place: looking mostly a little down, 35 to 80 degrees wide, hardly rolled."""
    pitch = math.radians(float(np.clip(random.normal(12, 15), -20, 55)))
    roll = math.radians(float(random.normal(0, 2.5)))
    fov = math.radians(random.uniform(42, 80))
    focal = side / 2 / math.tan(fov / 2)
    return Lens(look(random.uniform(0, 2 * math.pi), pitch, roll), place, focal, side, side)


def standing_places(
    mesh: Mesh, spawns: Float[np.ndarray, "spawn 3"], count: int, random: np.random.Generator
) -> Float[np.ndarray, "count 3"]:
    """Eyes above spawn points and above what faces up (floors, ground, table tops), 0.4 to 1.9 metres over it."""
    corners = mesh.vertices.astype(np.float64)
    cross = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    area = np.linalg.norm(cross, axis=1).clip(min=1e-9)
    level = abs(cross[:, 1]) / area > 0.95
    # The root lets table tops count beside the ground, which is far larger.
    weight = np.where(level, np.sqrt(area), 0)
    places = np.empty((count, 3))
    for index in range(count):
        if len(spawns) and (random.random() < 0.35 or not level.any()):
            places[index] = spawns[random.integers(len(spawns))] + random.uniform(-0.4, 0.4, 3) * [1, 0, 1]
            places[index, 1] -= random.uniform(-0.3, 0.6)
        else:
            pick = random.choice(len(weight), p=weight / weight.sum()) if level.any() else random.integers(len(weight))
            share = random.dirichlet([1, 1, 1])
            places[index] = share @ corners[pick]
            places[index, 1] -= random.uniform(0.4, 1.9)
    return places


def worth(mesh: Mesh, surfaces: Surfaces, lens: Lens) -> float:
    """How much a view shows: the number of its surfaces, or 0 where the camera is badly placed.

    Bad are views from inside a solid (backs of faces), into the void below the horizon, of something before the lens,
    and of hardly anything.
    """
    hit = surfaces.triangle >= 0
    if hit.mean() < 0.5:
        return 0.0
    depth = surfaces.depth[hit]
    middle = float(np.median(depth))
    if np.quantile(depth, 0.03) < _NEAREST_M or not _MEDIAN_M[0] < middle < _MEDIAN_M[1]:
        return 0.0
    if surfaces.back[surfaces.triangle[hit]].mean() > 0.03:
        return 0.0
    rows, columns = np.nonzero(~hit)
    rays = np.stack([columns + 0.5 - lens.width / 2, rows + 0.5 - lens.height / 2, np.full(len(rows), lens.focal)], -1)
    falling = (rays / np.linalg.norm(rays, axis=-1, keepdims=True)) @ lens.rotation[:, 1] > 0.03
    if falling.sum() > 0.01 * hit.size:
        return 0.0
    _, pixels = np.unique(mesh.surface[surfaces.triangle[hit]], return_counts=True)
    seen = (pixels >= 3).sum()
    return float(seen) if seen >= _FEWEST_SURFACES and pixels.max() < 0.7 * hit.size else 0.0


def choose_lenses(
    mesh: Mesh, spawns: Float[np.ndarray, "spawn 3"], count: int, random: np.random.Generator, side: int = SIDE
) -> list[Lens]:
    """Up to ``count`` cameras whose views show much, out of many tries."""
    found: list[tuple[float, Lens]] = []
    for place in standing_places(mesh, spawns, _TRIES * count, random):
        lens = draw_lens(place, random, side)
        probe = lens.scaled(_PROBE)
        value = worth(mesh, find_surfaces(mesh, probe), probe)
        if value > 0:
            found.append((value, lens))
        if len(found) * _KEPT_OF_TRIES >= count:
            break
    found.sort(key=lambda pair: -pair[0])
    return [lens for _, lens in found[: min(count, max(1, round(len(found) * 0.6)))]] if found else []


def render_view(mesh: Mesh, lens: Lens, random: np.random.Generator) -> View:
    """A picture in the map's stored light at a random exposure, four samples a pixel, and depth at pixels' centres."""
    fine = lens.scaled(2.0)
    surfaces = find_surfaces(mesh, fine)
    light = stored_light(mesh, surfaces)
    color = surface_colors(mesh, fine, surfaces) * (random.uniform(0.02, 0.15) + light)
    hit = surfaces.triangle >= 0
    bright = float(color[hit].mean())
    color = color * (random.uniform(0.25, 0.5) / max(bright, 1e-3))
    # Bright parts are compressed as a camera does.
    color = np.where(color > 0.7, 0.7 + 0.3 * np.tanh((color - 0.7) / 0.3), color)
    color = np.where(hit[..., None], color, draw_sky(fine, random))
    image = color.reshape(lens.height, 2, lens.width, 2, 3).mean((1, 3))
    depth = find_surfaces(mesh, lens).depth
    return View((image.clip(0, 1) * 255).round().astype(np.uint8), depth, lens.focal)


def draw_sky(lens: Lens, random: np.random.Generator) -> Float[np.ndarray, "height width 3"]:
    """A sky that is paler to the horizon, with soft clouds on some days."""
    rows = (np.arange(lens.height) + 0.5 - lens.height / 2) / lens.focal
    columns = (np.arange(lens.width) + 0.5 - lens.width / 2) / lens.focal
    rays = np.stack([*np.meshgrid(columns, rows), np.ones((lens.height, lens.width))], -1)
    rays = rays @ lens.rotation
    rise = (-rays[..., 1] / np.linalg.norm(rays, axis=-1)).clip(0, 1)
    high = np.array([0.25, 0.45, 0.8]) * random.uniform(0.5, 1.2) + random.uniform(-0.1, 0.15, 3)
    low = np.array([0.8, 0.85, 0.9]) * random.uniform(0.7, 1.1) + random.uniform(-0.05, 0.05, 3)
    share = (rise**0.6)[..., None]
    sky = high * share + low * (1 - share)
    if random.random() < 0.6:
        clouds = _soft_noise(lens.height, lens.width, random)
        amount = ((clouds - random.uniform(0.3, 0.6)) * 3).clip(0, 1)[..., None]
        sky = sky * (1 - amount) + random.uniform(0.6, 1.0) * amount
    return sky.clip(0, 1)


def _soft_noise(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """Noise of several sizes in [0, 1]."""
    total, weight = np.zeros((height, width)), 0.0
    for cells in (3, 6, 12, 24):
        grid = random.random((cells + 1, cells + 1))
        y, x = np.linspace(0, cells - 1e-6, height), np.linspace(0, cells - 1e-6, width)
        row, column = y.astype(int), x.astype(int)
        fy, fx = (y - row)[:, None], (x - column)[None]
        fy, fx = fy * fy * (3 - 2 * fy), fx * fx * (3 - 2 * fx)
        corners = [grid[row + dy][:, column + dx] for dy in range(2) for dx in range(2)]
        layer = (corners[0] * (1 - fx) + corners[1] * fx) * (1 - fy) + (corners[2] * (1 - fx) + corners[3] * fx) * fy
        total, weight = total + layer / cells, weight + 1 / cells
    return total / weight


def map_views(
    mesh: Mesh, spawns: Float[np.ndarray, "spawn 3"], count: int, seed: int, side: int = SIDE
) -> Iterator[View]:
    """Up to so many views of a map; the same for the same seed."""
    random = np.random.default_rng(seed)
    for lens in choose_lenses(mesh, spawns, count, random, side):
        yield render_view(mesh, lens, random)
