"""Drawing the places of briefs: rooms, table tops, streets, villages, gardens and the country."""

import math
from collections.abc import Callable, Mapping
from dataclasses import replace

import numpy as np
import torch
from numpy.random import Generator

from lyra.worlds.asked_things import Ground, Placed, Scenery, hang, lay, place_all, put, stand
from lyra.worlds.briefs import BUILDINGS, Brief, Look, Wish
from lyra.worlds.drawing import Draft, camera_rotation, indoor_light, tensor
from lyra.worlds.house_things import ON_TABLES, ON_WALLS
from lyra.worlds.landscapes import draw_terrain
from lyra.worlds.outdoors import Weather, add_hills, add_tree, draw_sky, open_room
from lyra.worlds.painter import Colors, Paint, paint_of
from lyra.worlds.patterns import hsv
from lyra.worlds.rooms import bare_room
from lyra.worlds.streets import add_row_street, add_village, paint_ground
from lyra.worlds.terrain import heights_at
from lyra.worlds.vocabulary import Place
from lyra.worlds.world import BOX, Sky, Terrain, World

_EYE = 1.5
"""Metres of the camera over an indoor floor."""
_EXTRAS: dict[str, str] = {
    "room": "picture plant rug chair lamp box",
    "living room": "sofa rug table picture lamp plant television bookshelf armchair",
    "kitchen": "cabinet stove fridge table chair window clock sink",
    "dining room": "table chair chair chair picture plant lamp window",
    "bedroom": "bed cabinet lamp rug picture window chair",
    "bathroom": "bathtub sink toilet mirror plant basket",
    "office": "desk chair bookshelf lamp picture plant window",
    "library": "bookshelf bookshelf bookshelf bookshelf armchair desk lamp rug",
    "workshop": "box barrel box stool table lamp basket",
    "gallery": "picture picture picture picture statue bench",
}
"""What else stands in a room of each kind."""
_WALLS = {
    "kitchen": "tiles plaster plaster",
    "bathroom": "tiles",
    "workshop": "brick plaster stone",
    "library": "plaster wood",
    "gallery": "plaster",
}
_FLOORS = {"kitchen": "tiles wood", "bathroom": "tiles marble", "workshop": "stone slabs", "gallery": "wood marble"}
_SOILS = {
    "beach": "sand",
    "desert": "sand",
    "snowfield": "snow",
    "mountains": "grass",
    "lake": "grass",
    "forest": "grass",
}


def draw_place(brief: Brief, rng: Generator, colors: Colors, aspect: float) -> tuple[World, list[Placed]]:
    """A world for a brief, without its atlas and at no settled scale, and what was placed in it.

    Args:
        brief: What is to be shown.
        rng: Decides what the brief does not.
        colors: Takes the colors that surfaces shall have.
        aspect: Width of the picture by its height.
    """
    return _DRAW[brief.place](brief, rng, colors, aspect)


def _paint_side(draft: Draft, colors: Colors, look: Look, usual: str, pale: bool = False) -> None:
    """One side of a room in the look asked for."""
    paint = paint_of(look, Paint(usual))
    draft.paint(paint.names)
    rgb = paint.rgb
    if pale and rgb is None and paint.names == "plaster":
        return
    if rgb is not None:
        colors.wanted[len(draft.surfaces) - 1] = rgb


def _light_room(brief: Brief, rng: Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    lamp, cool, fill = indoor_light(rng)
    if brief.hour == "evening":
        lamp, cool = lamp * hsv(0.08, 0.45, 1.0) * 1.2, cool * 0.45
    elif brief.hour == "night":
        lamp, cool = lamp * hsv(0.09, 0.4, 1.0), cool * hsv(0.62, 0.4, 0.5) * 0.4
    elif brief.hour in ("morning", "noon"):
        cool = cool * 1.3 + 0.15
    else:
        # Colors that were asked for should be seen as they are.
        lamp = 0.5 * lamp + 0.5 * lamp.mean()
    return lamp, cool, fill


def _wide_room(rng: Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """A bare room in which furniture finds a place."""
    while True:
        rotation, room, yaw = bare_room(rng)
        wide, deep = room[1, 0] - room[0, 0], room[1, 2]
        if wide > 1.9 and deep > 1.35 and abs(yaw) < 0.55:
            return rotation, room, yaw


def _draw_room(brief: Brief, rng: Generator, colors: Colors, aspect: float) -> tuple[World, list[Placed]]:
    draft = Draft(rng)
    rotation, room, yaw = _wide_room(rng)
    kind = brief.setting or "room"
    _paint_side(draft, colors, brief.walls, _WALLS.get(kind, "plaster plaster plaster plaster wood"), pale=True)
    first, wanted = draft.surfaces[0], colors.wanted.get(0)
    draft.surfaces.append(first)
    draft.paint("plaster")
    _paint_side(draft, colors, brief.floor, _FLOORS.get(kind, "wood wood carpet tiles"))
    draft.surfaces += [first, first]
    if wanted is not None:
        colors.wanted |= dict.fromkeys((1, 4, 5), wanted)
    unit = room[1, 1] / _EYE
    scenery = Scenery(draft, colors, unit, yaw, 0.42 * min(1.35, aspect), Ground(float(room[1, 1])), room[0], room[1])
    placed = place_all(scenery, brief.wishes, indoors=True)
    _add_extras(scenery, brief, _EXTRAS.get(kind, _EXTRAS["room"]))
    lamp, cool, fill = _light_room(brief, rng)
    light = np.array([rng.uniform(*(0.6 * room[:, 0])), 0.85 * room[0, 1], rng.uniform(0.1, 0.7 * room[1, 2])])
    return draft.finish("room", rotation, room, (light, 1.2 * lamp), (cool, fill)), placed


def _add_extras(scenery: Scenery, brief: Brief, names: str) -> None:
    """What the words left open, as the seed has it."""
    rng, there = scenery.draft.rng, {wish.name for wish in brief.wishes} | set(brief.absent)
    for name in names.split():
        if name in there or rng.random() < 0.35:
            continue
        wish = Wish(name, name)
        if name in ON_WALLS:
            hang(scenery, wish)
        else:
            stand(scenery, wish, indoors=True)
    if scenery.tops and rng.random() < 0.7:
        for name in rng.choice(sorted(ON_TABLES), 3):
            if name not in there:
                lay(scenery, Wish(str(name), str(name)))


def _draw_table(brief: Brief, rng: Generator, colors: Colors, aspect: float) -> tuple[World, list[Placed]]:
    """Small things on a table, seen from above; the unit is the way to the table."""
    draft = Draft(rng)
    pitch, yaw = math.radians(rng.uniform(24, 42)), 0.0
    top, ahead, unit = math.sin(pitch), math.cos(pitch), rng.uniform(1.25, 1.6)
    half = np.array([rng.uniform(0.7, 1.1), 0.03, rng.uniform(0.5, 0.8)])
    center = np.array([0.0, top + half[1], ahead + rng.uniform(0.0, 0.2)])
    low = np.array([-rng.uniform(1.5, 2.6), -rng.uniform(0.6, 1.2), -rng.uniform(1.2, 2.0)])
    high = np.array([rng.uniform(1.5, 2.6), top + 0.75 * unit, center[2] + half[2] + rng.uniform(0.3, 2.0)])
    room = np.stack([low, high])
    _paint_side(draft, colors, brief.walls, "plaster plaster plaster brick wood")
    first, wanted = draft.surfaces[0], colors.wanted.get(0)
    draft.surfaces.append(first)
    draft.paint("plaster")
    _paint_side(draft, colors, brief.floor, "wood tiles carpet")
    draft.surfaces += [first, first]
    if wanted is not None:
        colors.wanted |= dict.fromkeys((1, 4, 5), wanted)
    tables = [wish for wish in brief.wishes if wish.name in ("table", "desk")]
    wish = tables[0] if tables else Wish("table", "table")
    paint = paint_of(wish.look, Paint("wood wood marble plaster"))
    draft.group += 1
    draft.add(BOX, center, half, 0.0, paint.names, period=rng.uniform(0.6, 1.4))
    if paint.rgb is not None:
        colors.wanted[len(draft.surfaces) - 1] = paint.rgb
    table = Placed(wish, draft.group)
    for side in (-1, 1):
        leg = (center[0] + side * 0.9 * half[0], 0.5 * (top + high[1]) + 0.03, center[2])
        draft.objects.append(
            (BOX, np.array(leg), np.array([0.04, 0.5 * (high[1] - top) - 0.03, 0.7 * half[2]]), 0.0, draft.group)
        )
        draft.surfaces.append(draft.surfaces[-1])
    scenery = Scenery(draft, colors, unit, yaw, 0.4, Ground(high[1]), low, high)
    middle = np.array([0.0, top, ahead + 0.02])
    scenery.tops.append((middle, min(float(half[0]), 0.42 * aspect), 0.3, 0.0))
    small = [wish for wish in brief.wishes if wish.name in ON_TABLES]
    placed = [table] if tables else []
    for wish in sorted(small, key=lambda wish: -ON_TABLES[wish.name][2]):
        laid = [thing for _ in range(wish.count) if (thing := lay(scenery, wish, 1.0))]
        placed += laid or [Placed(wish, -1)]
    for wish in brief.wishes:
        if wish.name not in ON_TABLES and wish.name not in ("table", "desk"):
            placed.append(_beside(scenery, wish, middle))
    there = {wish.name for wish in brief.wishes} | set(brief.absent)
    for name in rng.choice(sorted(ON_TABLES), max(0, 4 - len(small))):
        if name not in there:
            lay(scenery, Wish(str(name), str(name)), 1.0)
    lamp, cool, fill = _light_room(brief, rng)
    light = np.array([rng.uniform(*(0.6 * room[:, 0])), 0.8 * room[0, 1], rng.uniform(-0.5, 0.7 * high[2])])
    return draft.finish("table", camera_rotation(yaw, pitch, 0.0), room, (light, 1.6 * lamp), (cool, fill)), placed


def _beside(scenery: Scenery, wish: Wish, middle: np.ndarray) -> Placed:
    """Something larger, made small enough to stand on the table, or on the wall."""
    if wish.name in ON_WALLS:
        return hang(scenery, wish) or Placed(wish, -1)
    x = middle[0] + (wish.side or scenery.draft.rng.choice([-1, 1])) * 0.4
    unit, scenery.unit = scenery.unit, 0.28 * scenery.unit
    placed = put(scenery, wish, np.array([x, middle[1], middle[2] + 0.25]), 0.0)
    scenery.unit = unit
    return placed


def _sky(brief: Brief, draft: Draft, visibility: tuple[float, float]) -> tuple[Sky, tuple, tuple]:
    """Weather and hour as asked."""
    asked: Weather | None = None
    if brief.hour in ("evening", "morning"):
        asked = "dusk"
    elif brief.weather is not None:
        asked = {"clear": "clear", "cloudy": "fair", "overcast": "overcast", "fog": "overcast"}[brief.weather]  # pyright: ignore
    elif brief.hour == "noon":
        asked = "clear"
    sky, (sun, light), (fill, up) = draw_sky(draft, visibility, asked)
    # The sun stands behind the camera or beside it, so that colors can be seen.
    if sun[2] > 0.3 and brief.hour not in ("evening", "morning"):
        sun = sun * np.array([1, 1, -1])
    if brief.weather == "fog":
        sky = replace(
            sky,
            haze=torch.tensor(1 / 45.0 * visibility[1] / 8000),
            horizon=0.8 * torch.ones(3),
            zenith=0.75 * torch.ones(3),
        )
    if brief.hour == "night":
        blue = np.array([0.10, 0.14, 0.28])
        light, fill = light.mean() * np.array([0.5, 0.6, 0.9]) * 0.6, fill.mean() * np.array([0.45, 0.55, 0.9]) * 0.5
        sky = replace(
            sky, zenith=tensor(0.12 * blue), horizon=tensor(0.35 * blue), cloud=tensor(0.3 * blue), glow=sky.glow * 0
        )
    return sky, (sun, light), (fill, up)


def _autumn(draft: Draft, colors: Colors, first: int) -> None:
    """Leaves turn."""
    rng = draft.rng
    for index in range(first, len(draft.surfaces)):
        if draft.textures[draft.surfaces[index][0]][0] == "leaves" and index not in colors.wanted:
            colors.wanted[index] = tuple(float(v) for v in hsv(rng.uniform(0.03, 0.13), 0.75, 0.6))  # type: ignore[assignment]


def _draw_built(brief: Brief, rng: Generator, colors: Colors, aspect: float) -> tuple[World, list[Placed]]:
    """A street, a village, or a garden or yard with what was asked for; in metres."""
    draft = Draft(rng)
    tall = any(wish.name in BUILDINGS for wish in brief.wishes)
    eye = rng.uniform(1.7, 2.6) if brief.place != "village" else rng.uniform(1.9, 3.2)
    usual = {"street": "asphalt cobbles slabs", "village": "cobbles grass slabs", "building": "grass grass slabs"}[
        brief.place
    ]
    if brief.setting in ("park", "farm"):
        usual = "grass"
    if brief.season == "winter":
        usual = "snow"
    paint = paint_of(brief.floor, Paint(usual))
    paint_ground(draft, paint.names, rng.uniform(2, 4))
    if paint.rgb is not None:
        colors.wanted[3] = paint.rgb
    sky, sun, fill = _sky(brief, draft, (300.0, 8000.0))
    scenery = Scenery(draft, colors, 1.0, 0.0, 0.36 * min(1.4, aspect), Ground(eye), least=2.6)
    placed = place_all(scenery, brief.wishes, indoors=False)
    first = len(draft.surfaces)
    if brief.place == "street":
        add_row_street(draft, eye, without=brief.absent)
    elif brief.place == "village":
        add_village(draft, eye, taken=[(x, z, r + 3) for x, z, r in scenery.taken])
    else:
        _add_greenery(scenery, brief, eye, 5 if tall else 9)
        if rng.random() < 0.5:
            add_hills(draft, eye, rng)
    if brief.season == "autumn":
        _autumn(draft, colors, first)
    rotation = camera_rotation(0.0, rng.normal(0.02 if not tall else -0.06, 0.03), 0.0)
    kind = "street" if brief.place in ("street", "village") else "building"
    return draft.finish(kind, rotation, open_room(eye), sun, fill, sky), placed


def _add_greenery(scenery: Scenery, brief: Brief, eye: float, count: int) -> None:
    rng, draft = scenery.draft.rng, scenery.draft
    if {"tree", "conifer"} & set(brief.absent):
        return
    for _ in range(count):
        angle, away = rng.uniform(-0.7, 0.7), rng.uniform(14, 60)
        x, z = away * math.sin(angle), away * math.cos(angle)
        # Nothing grows between the camera and what was asked for.
        behind = all(
            math.hypot(x - a, z - b) > r + 3 and (z > b or abs(x / z - a / b) > 0.2) for a, b, r in scenery.taken
        )
        if behind:
            add_tree(draft, x, eye, z, rng.uniform(3, 10))


class _Slope(Ground):
    """The heights of a terrain."""

    def __init__(self, terrain: Terrain):
        self.terrain = terrain

    def at(self, x: float, z: float) -> float:
        return float(heights_at(self.terrain, tensor([x]), tensor([z])))


def _draw_country(brief: Brief, rng: Generator, colors: Colors, aspect: float) -> tuple[World, list[Placed]]:
    """Open country; the unit is about the view's depth, a few metres."""
    draft = Draft(rng)
    eye = rng.uniform(0.28, 0.5)
    unit = eye / 1.8
    draft.paint("grass", period=rng.uniform(0.4, 1.0), tint=1.0)
    draft.surfaces *= 6
    fog = (40.0, 1500.0) if brief.weather != "fog" else (15.0, 40.0)
    sky, sun, fill = _sky(brief, draft, fog)
    soil = "snow" if brief.season == "winter" else _SOILS.get(brief.setting or "", "grass")
    water = 0.6 if brief.water or brief.setting == "lake" else 0.45 if brief.setting == "beach" else 0.0
    terrain = draw_terrain(draft, sun[0], eye, soil, water)
    scenery = Scenery(draft, colors, unit, 0.0, 0.36 * min(1.4, aspect), _Slope(terrain), least=0.75)
    placed = place_all(scenery, brief.wishes, indoors=False)
    first = len(draft.surfaces)
    trees = {"forest": 40, "meadow": 6, "mountains": 10, "lake": 8, "snowfield": 4}.get(brief.setting or "", 0)
    for _ in range(0 if {"tree", "conifer"} & set(brief.absent) else trees):
        far, angle = math.exp(rng.uniform(math.log(1.6), math.log(12))), rng.uniform(-0.75, 0.75)
        x, z = far * math.sin(angle), far * math.cos(angle)
        if all(z > b or abs(x / z - a / b) > 0.15 + r / b for a, b, r in scenery.taken):
            size = rng.uniform(4, 9) * unit
            add_tree(draft, x, scenery.ground.at(x, z) + 0.02 * size, z, size, "conifer" if soil == "snow" else None)
    while len(draft.objects) < 4:  # a bare plain has stones at least
        put(scenery, Wish("rock", "rock"), np.array([x := rng.uniform(-1, 1), scenery.ground.at(x, 2.5), 2.5]), 0.0)
    if brief.season == "autumn":
        _autumn(draft, colors, first)
    rotation = camera_rotation(0.0, rng.normal(0.06 + 0.1 * eye, 0.04), 0.0)
    return draft.finish("landscape", rotation, open_room(1e4), sun, fill, sky, terrain), placed


_Drawer = Callable[[Brief, Generator, Colors, float], tuple[World, list[Placed]]]
_DRAW: Mapping[Place, _Drawer] = {
    "room": _draw_room,
    "table": _draw_table,
    "street": _draw_built,
    "village": _draw_built,
    "building": _draw_built,
    "landscape": _draw_country,
}
