"""Close-ups: one large thing on a floor before a wall (``sample_close_up``), as people photograph what they own.

The views are for the depth network alone: nothing keeps a camera that moves clear of the thing.
"""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.random import Generator

from lyra.worlds.drawing import Draft, camera_rotation, indoor_light, turned
from lyra.worlds.draws import exposed
from lyra.worlds.rooms import hang_pictures
from lyra.worlds.textures import make_atlas
from lyra.worlds.world import BOX, CYLINDER, ELLIPSOID, World

_PAINTS = "paint paint paint plaster wood marble stone checks stripes carpet tiles poster bark"


def _add_part(draft: Draft, base: np.ndarray, yaw: float, kind: int, center: np.ndarray, half: np.ndarray) -> None:
    """A part of a thing that stands on ``base``; ``center`` in the thing's own frame, y up."""
    dx, dz = turned(yaw, float(center[0]), float(center[2]))
    place = (base[0] + dx, base[1] - center[1], base[2] + dz)
    fresh = draft.rng.random() < 0.6 or len(draft.surfaces) <= 6
    if kind == CYLINDER:
        half = np.minimum(half, half[[2, 1, 0]])
    period = float(half.max() * draft.rng.uniform(0.7, 4))
    # Many real things are nearly black.
    tint = draft.rng.uniform(0.06, 0.4) if draft.rng.random() < 0.35 else None
    draft.add(kind, place, half, yaw, _PAINTS if fresh else None, period=period, tint=tint)


def _add_wheels(draft: Draft, base: np.ndarray, yaw: float, size: np.ndarray) -> None:
    """Two wheels in line, or four, with hubs that stand out."""
    rng, (length, height, width) = draft.rng, size
    in_line = rng.random() < 0.6
    radius = min(length * rng.uniform(0.25, 0.45), height * rng.uniform(0.5, 0.9))
    thick = radius * rng.uniform(0.08, 0.3)
    for x in (-1, 1):
        for z in (0,) if in_line else (-1, 1):
            center = np.array([x * (length - radius), radius, z * (width - thick)])
            _add_part(draft, base, yaw, ELLIPSOID, center, np.array([radius, radius, thick]))
            _add_part(draft, base, yaw, ELLIPSOID, center, np.array([0.35 * radius, 0.35 * radius, 1.6 * thick]))


def _add_machine(draft: Draft, base: np.ndarray, yaw: float, size: np.ndarray) -> None:
    """Wheels or feet, bodies and bars in a box of half sizes ``size``, some of them on both sides."""
    rng = draft.rng
    if rng.random() < 0.65:
        _add_wheels(draft, base, yaw, size)
    for _ in range(int(rng.integers(5, 22))):
        half = size * np.exp(rng.uniform(math.log(0.05), math.log(0.45), 3))
        if rng.random() < 0.4:  # a bar
            axis = int(rng.integers(3))
            half = np.full(3, size.max() * rng.uniform(0.01, 0.04))
            half[axis] = size[axis] * rng.uniform(0.2, 0.8)
        center = (size - half).clip(0) * rng.normal(0, 0.5, 3).clip(-1, 1)
        center[1] = half[1] + (2 * size[1] - 2 * half[1]).clip(0) * rng.beta(2, 2)
        kind = int(rng.choice([BOX, BOX, ELLIPSOID, ELLIPSOID, CYLINDER]))
        both = rng.random() < 0.4
        for side in (-1, 1) if both else (1,):
            _add_part(draft, base, yaw, kind, center * [1, 1, side], half)


def _add_heap(draft: Draft, base: np.ndarray, yaw: float, size: np.ndarray) -> None:
    """Things on and beside each other."""
    rng = draft.rng
    heights = np.zeros((8, 8))
    for _ in range(int(rng.integers(6, 26))):
        half = size * np.exp(rng.uniform(math.log(0.1), math.log(0.5), 3))
        kind = int(rng.choice([BOX, BOX, BOX, ELLIPSOID, CYLINDER]))
        x, z = rng.uniform(-1, 1, 2) * (size - half)[::2]
        column, row = (int(4 * (1 + value)) for value in np.clip([x / size[0], z / size[2]], -1, 0.99))
        across, along = (max(1, math.ceil(4 * h / s)) for h, s in ((half[0], size[0]), (half[2], size[2])))
        cells = (slice(max(0, row - along), row + along), slice(max(0, column - across), column + across))
        low = heights[cells].max()
        if low + 2 * half[1] < 2.2 * size[1]:
            _add_part(draft, base, yaw, kind, np.array([x, low + half[1], z]), half)
            heights[cells] = low + 2 * half[1]


def _add_plant(draft: Draft, base: np.ndarray, yaw: float, size: np.ndarray) -> None:
    """A pot, stems and leaves."""
    rng = draft.rng
    pot, tall = 0.5 * size[[0, 2]].min() * rng.uniform(0.4, 1.0), size[1] * rng.uniform(0.15, 0.4)
    _add_part(draft, base, yaw, CYLINDER, np.array([0, tall, 0]), np.array([pot, tall, pot]))
    draft.paint("leaves leaves grass bark", period=0.3)
    for _ in range(int(rng.integers(12, 40))):
        half = size.max() * rng.uniform(0.05, 0.2) * np.array([1, rng.uniform(0.05, 1), rng.uniform(0.3, 1)])
        center = size * rng.normal(0, 0.4, 3).clip(-0.9, 0.9)
        center[1] = 2 * tall + (2 * size[1] - 2 * tall) * rng.beta(2, 1.5)
        dx, dz = turned(yaw, center[0], center[2])
        place = (base[0] + dx, base[1] - center[1], base[2] + dz)
        draft.objects.append((ELLIPSOID, np.array(place), half, rng.uniform(-1.6, 1.6), draft.group))
        draft.surfaces.append(draft.surfaces[-1])
    # The paint alone was no object's.
    del draft.surfaces[-1]


_Maker = Callable[[Draft, np.ndarray, float, np.ndarray], None]
_MAKERS: tuple[_Maker, ...] = (_add_machine, _add_machine, _add_machine, _add_heap, _add_heap, _add_plant)


def draw_close_up(rng: Generator) -> World:
    """One large thing, a unit away, and smaller ones around and behind it."""
    draft = Draft(rng)
    pitch = math.radians(rng.uniform(-4, 28))
    size = np.array([rng.uniform(0.2, 0.6), rng.uniform(0.15, 0.42), rng.uniform(0.08, 0.35)])
    base = np.array([rng.uniform(-0.15, 0.15), max(0.12, math.sin(pitch) + size[1]), math.cos(pitch)])
    behind = base[2] + size[[0, 2]].max() + math.exp(rng.uniform(math.log(0.05), math.log(3.0)))
    low = np.array([-rng.uniform(0.8, 3.0), base[1] - rng.uniform(1.2, 2.6), -1.5])
    high = np.array([rng.uniform(0.8, 3.0), base[1], behind])
    room = np.stack([low, high])
    draft.paint("plaster plaster plaster brick stone stripes tiles wood books")
    first = draft.surfaces[0]
    draft.surfaces.append(first)
    draft.paint("plaster")
    draft.paint("wood wood tiles carpet marble stone checks plaster sand")
    draft.surfaces += [first, first]
    hang_pictures(draft, room, 0.0, int(rng.integers(0, 4)))
    for _ in range(int(rng.integers(0, 12))):
        half = np.exp(rng.uniform(math.log(0.03), math.log(0.3), 3))
        x, z = rng.uniform(-1.2, 1.2), rng.uniform(base[2] - 0.3, behind)
        if abs(x - base[0]) > size[0] + half[0] or z > base[2] + size.max() + half[2]:
            draft.group += 1
            spot, kind = np.array([x, base[1], z]), int(rng.choice([BOX, ELLIPSOID, CYLINDER]))
            _add_part(draft, spot, rng.uniform(-1.6, 1.6), kind, half * [0, 1, 0], half)
    draft.group += 1
    yaw = rng.normal(0, 0.5) if rng.random() < 0.6 else rng.uniform(-math.pi, math.pi)
    _MAKERS[rng.integers(len(_MAKERS))](draft, base, float(yaw), size)
    lamp, cool, fill = indoor_light(rng)
    light = np.array([rng.uniform(-0.7, 0.7), 0.8 * low[1], rng.uniform(-0.5, 0.8 * behind)])
    rotation = camera_rotation(rng.normal(0, 0.08), pitch, rng.normal(0, 0.02))
    return draft.finish("room", rotation, room, (light, 1.5 * lamp), (cool, fill))


def sample_close_up(seed: int) -> World:
    """Draws the close-up of a seed; the input camera is the origin's, lengths in units of the way to the thing."""
    rng = np.random.default_rng(seed)
    world = draw_close_up(rng)
    return exposed(rng, replace(world, atlas=make_atlas(rng, world.texture_names)))
