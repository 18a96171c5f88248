"""Built worlds under the sky: streets and villages (``draw_street``), one building on its ground (``draw_building``).

Lengths are metres until ``sampling`` settles the scale.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.random import Generator

from lyra.worlds.drawing import Draft, camera_rotation, turned
from lyra.worlds.outdoor_textures import WINDOWS
from lyra.worlds.outdoors import add_car, add_hills, add_person, add_tree, draw_sky, open_room
from lyra.worlds.world import BOX, CYLINDER, ELLIPSOID, GABLE, PYRAMID, World

_STOREY = 3.1


def _body(
    draft: Draft, spot: tuple[float, float, float], columns: tuple[int, int], floors: int, yaw: float
) -> np.ndarray:
    """The walls of a house with windows in columns and floors; returns the half sizes."""
    x, ground, z = spot
    pitch = draft.rng.uniform(1.7, 3.2)
    half = 0.5 * np.array([columns[0] * pitch, floors * _STOREY, columns[1] * pitch])
    draft.add(BOX, (x, ground - half[1], z), half, yaw, "front", (1 / (WINDOWS * pitch), 1 / (WINDOWS * _STOREY)))
    # The windows begin at the corner and under the eaves.
    draft.surfaces[-1][1][2:] = [columns[0] / 2 / WINDOWS, floors / 2 / WINDOWS]
    return half


def _roof(draft: Draft, spot: tuple[float, float, float], half: np.ndarray, yaw: float, kind: str) -> None:
    """A gable or pyramid with overhanging eaves and a wall in its gables, or a ledge, on top of walls."""
    (x, top, z), rng = spot, draft.rng
    if kind == "flat":
        draft.add(BOX, (x, top - 0.15, z), (half[0] + 0.2, 0.25, half[2] + 0.2), yaw, "wall paint slabs", period=3.0)
        for _ in range(int(rng.integers(0, 3)) if math.hypot(x, z) < 45 else 0):
            aside = turned(yaw, *(rng.uniform(-0.7, 0.7, 2) * half[::2]))
            size = rng.uniform(0.3, 1.2, 3)
            draft.add(BOX, (x + aside[0], top - size[1], z + aside[1]), size, yaw, "wall paint", period=3.0)
        return
    over, rise = rng.uniform(0.2, 0.7), 0.5 * half[2] * rng.uniform(0.6, 1.5)
    shape = GABLE if kind == "gable" else PYRAMID
    eaves = np.array([half[0] + over, rise * (1 + over / half[2]), half[2] + over])
    draft.add(shape, (x, top + 2 * (eaves[1] - rise) - eaves[1], z), eaves, yaw, "roof", period=rng.uniform(3, 6))
    if shape == GABLE:
        wall = np.array([eaves[0] * 1.004, rise * 0.97, half[2]])
        draft.add(GABLE, (x, top - wall[1], z), wall, yaw, None)
        draft.surfaces[-1] = draft.surfaces[-3]
    if rng.random() < 0.6 and math.hypot(x, z) < 45:
        aside = turned(yaw, rng.uniform(-0.7, 0.7) * half[0], 0.3 * half[2])
        size = (0.3, 0.5 * rise + 0.5, 0.3)
        draft.add(BOX, (x + aside[0], top - 1.5 * rise - 0.2, z + aside[1]), size, yaw, "wall brick", period=2.0)


def _front_things(
    draft: Draft, spot: tuple[float, float, float], half: np.ndarray, yaw: float, sides: tuple[int, ...]
) -> None:
    """Doors, awnings, balconies and a plinth on the fronts at local z = +-half."""
    (x, ground, z), rng = spot, draft.rng

    def place(side: int, along: float, out: float, up: float, size: tuple[float, float, float], paint: str) -> None:
        dx, dz = turned(yaw, along, side * (half[2] + out))
        draft.add(BOX, (x + dx, ground - up, z + dz), size, yaw, paint, period=2.0)

    for side in sides:
        if rng.random() < 0.7:
            place(
                side,
                rng.uniform(-0.6, 0.6) * half[0],
                0.02,
                1.1,
                (rng.uniform(0.45, 0.9), 1.1, 0.06),
                "wood paint bark",
            )
        if rng.random() < 0.3:
            place(side, 0.0, 0.0, 0.3, (half[0] + 0.05, 0.3, 0.08), "wall slabs paint")
        if rng.random() < 0.3:
            reach = rng.uniform(0.4, 0.8)
            place(side, 0.0, reach, 2.8, (half[0] * rng.uniform(0.4, 0.9), 0.08, reach), "stripes paint carpet")
        for _ in range(int(rng.integers(0, 3)) if half[1] > 4 else 0):
            floor, along = int(rng.integers(1, max(2, int(2 * half[1] / _STOREY)))), rng.uniform(-0.7, 0.7) * half[0]
            place(side, along, 0.45, floor * _STOREY + 0.4, (0.9, 0.4, 0.45), "paint bark wall")


def add_house(
    draft: Draft, spot: tuple[float, float, float], yaw: float, floors: int, columns: int, kind: str
) -> np.ndarray:
    """A whole house; returns the half sizes of its walls."""
    draft.group += 1
    half = _body(draft, spot, (columns, max(2, columns - 2 * int(draft.rng.integers(0, 2)))), floors, yaw)
    _roof(draft, (spot[0], spot[1] - 2 * half[1], spot[2]), half, yaw, kind)
    if math.hypot(spot[0], spot[2]) < 40:
        _front_things(draft, spot, half, yaw, (-1,))
    return half


def paint_ground(draft: Draft, names: str, period: float) -> None:
    """The six sides of an outdoor "room", of which the ground is seen."""
    draft.paint(names, period=period)
    draft.surfaces *= 6


def _terrace(draft: Draft, eye: float, side: int, wide: float, end: float, roof: str) -> None:
    """A row of houses along one side of a street, at times with a gap or a tree in it."""
    rng = draft.rng
    along, yaw = -12.0 + rng.uniform(0, 6), -side * math.pi / 2
    while along < end:
        columns, floors = int(rng.integers(2, 7)), int(rng.integers(2, 7))
        gap = rng.uniform(0, 8) if rng.random() < 0.15 else 0.0
        back = rng.choice([0, 0, 0.3, 0.6])
        if rng.random() < 0.12:
            add_tree(draft, side * (wide + 3), eye, along + 3, rng.uniform(5, 12))
            along += 7
            continue
        draft.group += 1
        before = len(draft.objects)
        half = _body(draft, (0.0, eye, 0.0), (columns, columns), floors, yaw)
        # The width of a house is known only now: stand it beside the last one, its front on the line.
        spot = (side * (wide + back + half[2]), eye, along + half[0])
        draft.objects[before] = (BOX, np.array([spot[0], eye - half[1], spot[2]]), half, yaw, draft.group)
        _roof(draft, (spot[0], eye - 2 * half[1], spot[2]), half, yaw, roof if rng.random() < 0.8 else "gable")
        if along < 28:
            _front_things(draft, spot, half, yaw, (-1,))
        along += 2 * half[0] + gap


def _kerbside(draft: Draft, eye: float, side: int, kerb: float, walk: float, without: Sequence[str]) -> None:
    """Lamps, trees, parked cars and people along one kerb."""
    rng = draft.rng
    if rng.random() < 0.5:
        paint, step, tall = rng.uniform(0.3, 0.8), rng.uniform(12, 22), rng.uniform(4, 8)
        for lamp in range(3):
            draft.group += 1
            x, z = kerb + side * 0.4, 6 + step * lamp
            draft.add(CYLINDER, (x, eye - tall / 2, z), (0.07, tall / 2, 0.07), 0, "paint", tint=paint)
            draft.add(ELLIPSOID, (x, eye - tall, z), (0.2, 0.25, 0.2), 0, "snow", period=1.0)
    if rng.random() < 0.45 and "tree" not in without:
        for z in np.arange(rng.uniform(6, 14), 70, rng.uniform(8, 16)):
            add_tree(draft, kerb + side * 0.7, eye, float(z), rng.uniform(4, 8))
    if rng.random() < 0.55 and "car" not in without:
        for z in np.arange(rng.uniform(6, 12), 50, rng.uniform(5.5, 11)):
            add_car(draft, kerb - side * 1.1, eye, float(z + rng.uniform(0, 2)), math.pi / 2 + rng.normal(0, 0.03))
    for _ in range(int(rng.integers(0, 6)) if "person" not in without else 0):
        add_person(draft, kerb + side * rng.uniform(-1.0, 0.8 * walk), eye - 0.12, rng.uniform(5, 30))


def add_row_street(draft: Draft, eye: float, without: Sequence[str] = ()) -> None:
    """Rows of houses along both sides, and what stands before them; cars, trees and people may be left out."""
    rng = draft.rng
    wide = rng.uniform(4.5, 11.0)
    roof = str(rng.choice(["flat", "gable"]))
    walk = rng.uniform(1.2, 3.5)
    if rng.random() < 0.75:
        for side in (-1, 1):
            draft.group += 1
            spot = (side * (wide - 0.5 * walk + 2), eye - 0.06, 100.0)
            draft.add(BOX, spot, (0.5 * walk + 2, 0.07, 130.0), 0.0, "slabs asphalt cobbles", period=2.5)
    if rng.random() < 0.4:
        for mark in range(7):
            draft.group += 1
            paint = None if mark else "snow"
            draft.add(BOX, (0.0, eye, 3.0 + 6 * mark), (0.08, 0.012, 1.5), 0.0, paint, period=3.0)
    end = rng.uniform(35, 110)
    for side in (-1, 1):
        _terrace(draft, eye, side, wide, end, roof)
    if rng.random() < 0.6:
        spot = (rng.uniform(-4, 4), eye, end + 8)
        add_house(draft, spot, 0.0, int(rng.integers(3, 9)), int(rng.integers(5, 14)), "gable")
    for side in (-1, 1):
        _kerbside(draft, eye, side, side * (wide - walk), walk, without)


def add_village(draft: Draft, eye: float, taken: Sequence[tuple[float, float, float]] = ()) -> None:
    """Houses scattered over open ground, close to each other at the back; off the circles (x, z, radius) taken."""
    rng = draft.rng
    taken = list(taken)
    kind = rng.choice(["gable", "gable", "pyramid"])
    wanted = int(rng.integers(10, 30))
    for _ in range(160):
        far = math.exp(rng.uniform(math.log(10 + eye), math.log(140)))
        angle = rng.uniform(-0.75, 0.75)
        x, z, size = far * math.sin(angle), far * math.cos(angle), rng.uniform(4, 8)
        if any(math.hypot(x - a, z - b) < 0.85 * (size + r) for a, b, r in taken):
            continue
        taken.append((x, z, size))
        if rng.random() < 0.35:
            add_tree(draft, x, eye, z, rng.uniform(4, 11))
            continue
        floors, columns = int(rng.integers(1, 4)), int(rng.integers(2, 5))
        tower = rng.random() < 0.12
        yaw = rng.uniform(-1.5, 1.5)
        add_house(
            draft,
            (x, eye, z),
            yaw,
            3 * floors if tower else floors,
            2 if tower else columns,
            "pyramid" if tower else kind,
        )
        if len(taken) >= wanted:
            break
    for _ in range(int(rng.integers(3, 14))):
        angle, far = rng.uniform(-0.5, 0.5), rng.uniform(6 + eye, 35)
        x, z = far * math.sin(angle), far * math.cos(angle)
        if rng.random() < 0.5:
            add_person(draft, x, eye, z)
        else:
            draft.group += 1
            half = rng.uniform(0.3, 1.2, 3) * (1, 0.5, 0.6)
            draft.add(BOX, (x, eye - half[1], z), half, rng.uniform(-1, 1), "wood wall stone leaves", period=1.5)
    if rng.random() < 0.6:
        add_hills(draft, eye, rng)


def draw_street(rng: Generator) -> World:
    """A street between rows of houses, or a village."""
    draft = Draft(rng)
    village = rng.random() < 0.4
    if village:
        eye, pitch, yaw = math.exp(rng.uniform(math.log(2.0), math.log(16.0))), rng.normal(0.15, 0.12), 0.0
        paint_ground(draft, "grass cobbles slabs sand", rng.uniform(2, 5))
    else:
        eye, pitch, yaw = (
            math.exp(rng.uniform(math.log(1.5), math.log(7.0))),
            rng.normal(0.03, 0.1),
            rng.normal(0, 0.22),
        )
        paint_ground(draft, "asphalt asphalt cobbles slabs sand", rng.uniform(2, 5))
    sky, sun, fill = draw_sky(draft, (250.0, 8000.0))
    (add_village if village else add_row_street)(draft, eye)
    ground = draft.textures[draft.surfaces[0][0]][0]
    draft.things = [f"{'scattered' if village else 'rows of'} houses", f"{ground} ground"]
    rotation = camera_rotation(yaw, pitch, rng.normal(0, 0.02))
    return draft.finish("street", rotation, open_room(eye), sun, fill, sky)


def add_pagoda(draft: Draft, x: float, ground: float, z: float, wide: float, yaw: float) -> None:
    """Stacked storeys, each under a flat, wide roof with a steeper one on it."""
    rng, storeys = draft.rng, int(draft.rng.integers(2, 7))
    shrink, tall = rng.uniform(0.75, 0.9), wide * rng.uniform(0.35, 0.6)
    flare = rng.uniform(1.3, 1.7)
    first = len(draft.surfaces)
    for storey in range(storeys):
        half, eaves = np.array([wide, 0.5 * tall, wide]), ground - tall
        draft.add(BOX, (x, ground - half[1], z), half, yaw, "front wood wood wall", period=4.0)
        low, steep = (flare * wide, 0.2 * wide, flare * wide), (0.95 * wide, 0.45 * wide, 0.95 * wide)
        draft.add(PYRAMID, (x, eaves - 0.12 * wide, z), low, yaw, "roof", period=wide)
        draft.add(PYRAMID, (x, eaves - 0.35 * wide, z), steep, yaw, None)
        if storey:  # all storeys are painted like the first
            draft.surfaces[-3:] = draft.surfaces[first : first + 3]
        ground, wide, tall = eaves - 0.2 * wide, shrink * wide, shrink * tall
    draft.add(CYLINDER, (x, ground - 0.9 * wide, z), (0.05 * wide, 0.9 * wide, 0.05 * wide), yaw, "paint", period=1.0)


def add_temple(draft: Draft, x: float, ground: float, z: float, wide: float, yaw: float) -> None:
    """Columns around a core, on steps, under a gable that faces the front."""
    rng, tall, deep = draft.rng, wide * draft.rng.uniform(0.6, 1.0), wide * draft.rng.uniform(0.7, 1.4)
    for step in range(3):
        size = (wide * (1.2 - 0.06 * step), 0.3, deep * (1.2 - 0.06 * step))
        draft.add(BOX, (x, ground - 0.1 - 0.35 * step, z), size, yaw, "slabs" if step == 0 else None, period=3.0)
    floor = ground - 1.1
    core = (0.75 * wide, 0.5 * tall, 0.8 * deep)
    draft.add(BOX, (x, floor - 0.5 * tall, z), core, yaw, "wall", period=6.0)
    count = int(rng.integers(4, 8))
    for index in range(count):
        aside = wide * (2 * index / (count - 1) - 1)
        for row in (-1.0, 0.0) if index in (0, count - 1) else (-1.0,):
            dx, dz = turned(yaw, aside, row * deep)
            spot = (x + dx, floor - 0.5 * tall, z + dz)
            draft.add(
                CYLINDER,
                spot,
                (0.06 * wide, 0.5 * tall, 0.06 * wide),
                yaw,
                "marble" if index == 0 else None,
                period=4.0,
            )
    top = floor - tall
    draft.add(BOX, (x, top - 0.06 * wide, z), (1.1 * wide, 0.06 * wide, 1.1 * deep), yaw, None)
    draft.add(
        GABLE,
        (x, top - 0.3 * wide, z),
        (1.15 * deep, 0.2 * wide, 1.15 * wide),
        yaw + math.pi / 2,
        "roof wall",
        period=4.0,
    )


def _main_building(draft: Draft, x: float, ground: float, z: float, yaw: float) -> str:
    """The building a picture is about; returns its name."""
    rng = draft.rng
    name = str(rng.choice(["house", "hall", "church", "pagoda", "temple", "tower"]))
    draft.group += 1
    if name == "pagoda":
        add_pagoda(draft, x, ground, z, rng.uniform(3, 7), yaw)
    elif name == "temple":
        add_temple(draft, x, ground, z, rng.uniform(4, 8), yaw)
    elif name == "tower":
        add_house(
            draft,
            (x, ground, z),
            yaw,
            int(rng.integers(4, 12)),
            int(rng.integers(2, 4)),
            str(rng.choice(["flat", "pyramid"])),
        )
    else:
        floors, columns = int(rng.integers(1, 5)), int(rng.integers(3, 9))
        half = add_house(draft, (x, ground, z), yaw, floors, columns, str(rng.choice(["gable", "pyramid", "flat"])))
        if name != "house":
            side = turned(yaw, float(half[0]) * rng.choice([-1, 1]), float(-half[2]) * rng.uniform(0, 1))
            spot = (x + side[0], ground, z + side[1])
            if name == "church":
                add_house(draft, spot, yaw, floors + int(rng.integers(3, 6)), 2, "pyramid")
            else:
                add_house(draft, spot, yaw + math.pi / 2, max(1, floors - 1), 3, "gable")
    return name


def draw_building(rng: Generator) -> World:
    """One building on open ground, with a path, trees, walls and what is behind."""
    draft = Draft(rng)
    eye, pitch, yaw = math.exp(rng.uniform(math.log(1.5), math.log(9.0))), rng.normal(0.0, 0.1), rng.normal(0, 0.15)
    paint_ground(draft, "grass grass cobbles slabs sand asphalt", rng.uniform(2, 5))
    sky, sun, fill = draw_sky(draft)
    far = rng.uniform(14, 38)
    x, turn = rng.normal(0, 0.12) * far, rng.normal(0, 0.5)
    name = _main_building(draft, x, eye, far, turn)
    if rng.random() < 0.6:
        draft.group += 1
        draft.add(
            BOX,
            (0.4 * x, eye, 0.5 * far),
            (rng.uniform(0.8, 2.5), 0.03, 0.6 * far),
            0.5 * x / far,
            "slabs sand cobbles",
            period=2.5,
        )
    if rng.random() < 0.4:
        draft.group += 1
        tall = rng.uniform(0.5, 1.6)
        draft.add(
            BOX, (0.0, eye - tall, far + 14), (30.0, tall, 0.3), rng.normal(0, 0.1), "wall brick leaves", period=3.0
        )
        for side in (-1, 1):
            draft.add(BOX, (side * rng.uniform(11, 18), eye - tall, far), (0.3, tall, 14.0), 0.0, None)
    for _ in range(int(rng.integers(2, 13))):
        angle, away = rng.uniform(-0.65, 0.65), rng.uniform(10, 70)
        spot = away * math.sin(angle), away * math.cos(angle)
        if math.hypot(spot[0] - x, spot[1] - far) > 9:
            add_tree(draft, spot[0], eye, spot[1], rng.uniform(3, 12))
    for _ in range(int(rng.integers(0, 6))):
        add_person(draft, rng.uniform(-6, 6), eye, rng.uniform(7, far - 3))
    for _ in range(int(rng.integers(0, 4))):
        angle, away = rng.uniform(-0.7, 0.7), rng.uniform(far + 20, 110)
        spot = (away * math.sin(angle), eye, away * math.cos(angle))
        add_house(draft, spot, rng.uniform(-1, 1), int(rng.integers(1, 5)), int(rng.integers(2, 6)), "gable")
    if rng.random() < 0.5:
        add_hills(draft, eye, rng)
    draft.things = [f"a {name}", f"{draft.textures[draft.surfaces[0][0]][0]} ground"]
    rotation = camera_rotation(yaw, pitch, rng.normal(0, 0.02))
    return draft.finish("building", rotation, open_room(eye), sun, fill, sky)
