"""Views of furnished rooms as a hand holds a camera: across the room, or at a table and what lies on it."""

import math
from collections.abc import Iterator

import numpy as np

from lyra.worlds.furnished import Furnisher, Room
from lyra.worlds.lighting import Lamp, hang_lamp, light_surfaces
from lyra.worlds.map_views import View, look
from lyra.worlds.meshes import Mesh
from lyra.worlds.rasterizing import Lens, Surfaces, find_surfaces, surface_colors, triangle_normals

SIDE = 288
"""Pixels of a view's sides."""
_TRIES, _PROBE = 40, 1 / 8
_NEAREST_M, _MEDIAN_M = 0.18, (0.35, 8.0)
_CLOSE_SHARE = 0.3


def aim(place: np.ndarray, target: np.ndarray, random: np.random.Generator, side: int) -> Lens:
    """A camera that looks at a point, 35 to 80 degrees wide, hardly rolled."""
    x, y, z = target - place
    pitch = math.atan2(y, math.hypot(x, z))
    focal = side / 2 / math.tan(math.radians(random.uniform(42, 80)) / 2)
    rotation = look(math.atan2(x, z), float(np.clip(pitch, -0.4, 1.0)), math.radians(random.normal(0, 2.5)))
    return Lens(rotation, place, focal, side, side)


def draw_room_lens(room: Room, random: np.random.Generator, side: int) -> Lens:
    """A camera somewhere in the free part of a room."""
    if room.tops and random.random() < _CLOSE_SHARE:
        top = room.tops[int(random.integers(len(room.tops)))]
        angle, far = random.uniform(0, 2 * math.pi), random.uniform(0.35, 1.4)
        target = np.array([top.x, -top.height, top.z]) + random.uniform(-0.2, 0.2, 3) * [1, 0.3, 1]
        place = target + np.array([math.sin(angle) * far, -random.uniform(0.1, 0.8), math.cos(angle) * far])
    else:
        place = np.array(
            [
                random.uniform(0.15, room.width - 0.15),
                -random.uniform(0.8, 1.8),
                random.uniform(0.15, room.depth - 0.15),
            ]
        )
        target = np.array([random.uniform(0, room.width), -random.uniform(0.0, 1.5), random.uniform(0, room.depth)])
    return aim(place, target, random, side)


def room_worth(room: Room, mesh: Mesh, surfaces: Surfaces, lens: Lens) -> float:
    """The number of things a view shows, or 0 where the camera is badly placed."""
    x, y, z = lens.center
    if not (0.1 < x < room.width - 0.1 and 0.1 < z < room.depth - 0.1 and 0.2 < -y < room.height - 0.1):
        return 0.0
    hit = surfaces.triangle >= 0
    depth = surfaces.depth[hit]
    if hit.mean() < 0.99 or np.quantile(depth, 0.02) < _NEAREST_M or not _MEDIAN_M[0] < np.median(depth) < _MEDIAN_M[1]:
        return 0.0
    _, pixels = np.unique(mesh.surface[surfaces.triangle[hit]], return_counts=True)
    return float((pixels >= 3).sum()) if pixels.max() < 0.65 * hit.size else 0.0


def light_room(room: Room, mesh: Mesh, random: np.random.Generator) -> tuple[list[Lamp], np.ndarray]:
    """One to three lamps, some of them at windows, and the light from everywhere."""
    warm = np.array([1.0, random.uniform(0.75, 1.0), random.uniform(0.5, 1.0)])
    lamps = []
    for _ in range(int(random.integers(1, 3))):
        place = np.array(
            [
                random.uniform(0.4, room.width - 0.4),
                -room.height + random.uniform(0.08, 0.5),
                random.uniform(0.4, room.depth - 0.4),
            ]
        )
        lamps.append(hang_lamp(mesh, place, warm * random.uniform(0.5, 2.0)))
    for x, z, y in room.windows[:1]:
        if random.random() < 0.7:
            lamps.append(hang_lamp(mesh, np.array([x, y, z]), np.array([0.85, 0.95, 1.1]) * random.uniform(0.8, 2.5)))
    return lamps, np.ones(3) * random.uniform(0.15, 0.6)


def render_room_view(
    mesh: Mesh, lens: Lens, lamps: list[Lamp], ambient: np.ndarray, random: np.random.Generator
) -> View:
    """A picture at a random exposure, four samples a pixel, and depth at pixels' centres."""
    fine = lens.scaled(2.0)
    surfaces = find_surfaces(mesh, fine)
    light = light_surfaces(surfaces, triangle_normals(mesh, fine), fine, lamps, ambient, random.uniform(0.01, 0.05))
    color = surface_colors(mesh, fine, surfaces) * light
    color = color * (random.uniform(0.28, 0.52) / max(float(color.mean()), 1e-3))
    color = np.where(color > 0.7, 0.7 + 0.3 * np.tanh((color - 0.7) / 0.3), color)
    image = color.reshape(lens.height, 2, lens.width, 2, 3).mean((1, 3))
    return View((image.clip(0, 1) * 255).round().astype(np.uint8), find_surfaces(mesh, lens).depth, lens.focal)


def room_views(furnisher: Furnisher, seed: int, count: int, side: int = SIDE) -> Iterator[View]:
    """Up to so many views of one furnished room; the same for the same seed."""
    room = furnisher.furnish(seed)
    mesh, random = room.mesh(), np.random.default_rng([seed, 78])
    lamps, ambient = light_room(room, mesh, random)
    found: list[tuple[float, Lens]] = []
    for _ in range(_TRIES):
        lens = draw_room_lens(room, random, side)
        probe = lens.scaled(_PROBE)
        value = room_worth(room, mesh, find_surfaces(mesh, probe), probe)
        if value >= 6:
            found.append((value, lens))
        if len(found) >= 2 * count:
            break
    found.sort(key=lambda pair: -pair[0])
    for _, lens in found[:count]:
        yield render_room_view(mesh, lens, lamps, ambient, random)
