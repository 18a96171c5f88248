"""What outdoor worlds share: sun and sky, trees, people, hills on the horizon. Lengths in metres."""

import math
from typing import Literal

import numpy as np
import torch
from numpy.random import Generator

from lyra.worlds.drawing import Draft, tensor, turned
from lyra.worlds.patterns import hsv
from lyra.worlds.world import BOX, CYLINDER, ELLIPSOID, Sky

Light = tuple[np.ndarray, np.ndarray]
Weather = Literal["clear", "fair", "overcast", "dusk"]
TreeStyle = Literal["broad", "conifer", "bush"]


def open_room(eye: float) -> np.ndarray:
    """The "room" of an outdoor world whose ground is ``eye`` below the camera."""
    return np.array([[-1e4, -1e4, -1e4], [1e4, eye, 1e4]])


def draw_sky(
    draft: Draft, visibility: tuple[float, float] = (300.0, 8000.0), asked: Weather | None = None
) -> tuple[Sky, Light, Light]:
    """Weather: a sky, the sun (direction, color) and the light from everywhere (color, direction)."""
    rng = draft.rng
    weather = rng.choice(["clear", "fair", "overcast", "dusk"], p=(0.25, 0.4, 0.2, 0.15))
    weather = asked or weather
    height = math.radians(rng.uniform(3, 15) if weather == "dusk" else rng.uniform(15, 70))
    azimuth = rng.uniform(-math.pi, math.pi)
    sun = np.array([math.cos(height) * math.sin(azimuth), -math.sin(height), math.cos(height) * math.cos(azimuth)])
    zenith = hsv(rng.normal(0.595, 0.015), rng.uniform(0.4, 0.75), rng.uniform(0.35, 0.75)) ** 1.6
    horizon = hsv(rng.normal(0.57, 0.03), rng.uniform(0.03, 0.25), rng.uniform(0.7, 1.05))
    warm = hsv(rng.uniform(0.07, 0.13), rng.uniform(0.05, 0.3), 1.0)
    strength, cover = rng.uniform(1.2, 2.6), rng.uniform(0.5, 0.75)
    if weather == "clear":
        cover = rng.uniform(0.8, 1.5)
    elif weather == "overcast":
        gray = rng.uniform(0.5, 1.0) * (1 + 0.05 * rng.standard_normal(3))
        zenith, horizon, strength, cover = 0.85 * gray, gray, rng.uniform(0.0, 0.3), rng.uniform(0.1, 0.4)
    elif weather == "dusk":
        warm = hsv(rng.uniform(0.03, 0.1), rng.uniform(0.35, 0.65), 1.0)
        horizon = 0.75 * (warm + rng.uniform(0, 0.4) * hsv(0.75, 0.3, 1.0))
        zenith, strength = 0.55 * zenith, rng.uniform(1.0, 2.0)
    sky = Sky(
        zenith=tensor(zenith),
        horizon=tensor(horizon),
        glow=tensor(warm * rng.uniform(0.2, 0.8) * min(1.0, strength)),
        cloud=tensor((0.45 * horizon + 0.5 * warm) * rng.uniform(0.8, 1.2)),
        cover=torch.tensor(float(cover)),
        haze=torch.tensor(1 / math.exp(rng.uniform(*np.log(visibility)))).float(),
        texture=torch.tensor(draft.texture("clouds")),
    )
    fill = (0.6 * zenith + 0.4 * horizon) * rng.uniform(0.35, 0.75)
    up = np.array([0.3 * sun[0], -1.0, 0.3 * sun[2]])
    return sky, (sun, warm * strength), (fill, up / np.linalg.norm(up))


def add_tree(draft: Draft, x: float, ground: float, z: float, height: float, asked: TreeStyle | None = None) -> None:
    """A broad tree, a conifer or a bush, of many small ellipsoids of leaves."""
    rng = draft.rng
    draft.group += 1
    style = rng.choice(["broad", "conifer", "bush"], p=(0.6, 0.25, 0.15))
    style = asked or style
    leaf = height * rng.uniform(0.15, 0.35)
    if style == "bush":
        height *= 0.3
    trunk = 0.5 * height * (0.7 if style == "broad" else 1.0)
    radius = height * rng.uniform(0.02, 0.035)
    if style != "bush":
        draft.add(CYLINDER, (x, ground - trunk, z), (radius, trunk, radius), 0.0, "bark", period=4 * radius)
    if style == "conifer":
        wide, rings = height * rng.uniform(0.14, 0.24), int(rng.integers(5, 8))
        for ring in range(rings):
            share = (ring + 0.6) / rings
            size = wide * (1.08 - share) * rng.uniform(0.85, 1.15)
            spot = (
                x + 0.1 * size * rng.normal(),
                ground - height * (0.15 + 0.85 * share),
                z + 0.1 * size * rng.normal(),
            )
            half = (size, 0.75 * height / rings, size)
            draft.add(ELLIPSOID, spot, half, rng.uniform(0, 6), "leaves" if ring == 0 else None, period=leaf)
        return
    # Blobs on the shell of the crown overlap one that fills it; the smaller they are, the more ragged the outline.
    middle = ground - height * (0.66 if style == "broad" else 0.5)
    wide = height * rng.uniform(0.22, 0.42)
    crown = np.array([wide, height * (rng.uniform(0.22, 0.32) if style == "broad" else 0.5), wide])
    draft.add(ELLIPSOID, (x, middle, z), 0.72 * crown, 0.0, "leaves", period=leaf)
    detail = 1.0 if math.hypot(x, z) < 6 * height else 0.6
    for _ in range(int(detail * rng.integers(9, 16)) if style == "broad" else 5):
        way = rng.normal(size=3)
        spot = np.array([x, middle, z]) + way / np.linalg.norm(way) * crown * rng.uniform(0.5, 0.85)
        half = crown * rng.uniform(0.2, 0.42) * rng.uniform(0.75, 1.3, 3)
        draft.add(ELLIPSOID, spot, half, rng.uniform(0, 6), None)


def add_person(draft: Draft, x: float, ground: float, z: float) -> None:
    """Somebody who stands about."""
    rng, size = draft.rng, draft.rng.uniform(0.85, 1.1)
    draft.group += 1
    turn = float(rng.uniform(-3, 3))
    draft.add(BOX, (x, ground - 0.4 * size, z), (0.13, 0.4 * size, 0.1), turn, "paint carpet stripes", period=0.5)
    draft.add(
        ELLIPSOID, (x, ground - 1.1 * size, z), (0.24, 0.38 * size, 0.17), turn, "paint carpet checks", period=0.5
    )
    draft.add(ELLIPSOID, (x, ground - 1.62 * size, z), (0.1, 0.14 * size, 0.12), turn, "sand bark", period=2.0)


def add_car(draft: Draft, x: float, ground: float, z: float, yaw: float) -> None:
    """A parked car or van."""
    rng = draft.rng
    draft.group += 1
    long, high = rng.uniform(1.8, 2.4), rng.uniform(0.28, 0.4)
    draft.add(BOX, (x, ground - 0.3, z), (0.85 * long, 0.3, 0.78), yaw, "bark", period=3.0, tint=0.3)
    draft.add(BOX, (x, ground - 0.35 - high, z), (long, high, 0.88), yaw, "paint", period=4.0)
    back = turned(yaw, -0.15 * long, 0.0)
    roof = ground - 0.35 - 2 * high
    cabin = (x + back[0], roof - 0.28, z + back[1])
    draft.add(BOX, cabin, (0.55 * long, 0.28, 0.78), yaw, "asphalt", period=3.0, tint=0.35)
    draft.add(BOX, (cabin[0], roof - 0.6, cabin[2]), (0.5 * long, 0.04, 0.74), yaw, None)
    draft.surfaces[-1] = draft.surfaces[-3]


def add_hills(draft: Draft, ground: float, rng: Generator) -> None:
    """Wooded or bare hills on the horizon."""
    for _ in range(int(rng.integers(1, 6))):
        draft.group += 1
        angle, far = rng.uniform(-0.8, 0.8), math.exp(rng.uniform(math.log(120), math.log(600)))
        half = far * np.array([rng.uniform(0.2, 0.6), rng.uniform(0.03, 0.16), 0.2])
        spot = (far * math.sin(angle), ground, far * math.cos(angle))
        draft.add(ELLIPSOID, spot, half, 0.0, "leaves grass rock", period=0.25 * half[0])
