"""Things of streets, gardens and the country, each drawn by a few parts in its usual size; see ``Painter``."""

import math
from collections.abc import Callable

import numpy as np

from lyra.worlds.drawing import Draft
from lyra.worlds.house_things import FURNITURE, Draw
from lyra.worlds.outdoors import TreeStyle, add_tree
from lyra.worlds.painter import BARK, DARK, GLASS, METAL, SKIN, WHITE, WOOD, Paint, Painter
from lyra.worlds.streets import add_house, add_pagoda, add_temple
from lyra.worlds.vocabulary import color_of

_BEAK = Paint("paint", (0.95, 0.6, 0.15))
_FUR = Paint("bark", (0.42, 0.3, 0.2), 0.5)


def _wheels(p: Painter, x: float, z: float, radius: float, thick: float = 0.12) -> None:
    for a in (-x, x):
        for b in (-z, z):
            p.ball((a, radius, b), (radius, radius, thick), DARK)
            p.ball((a, radius, b * 1.04), (0.5 * radius, 0.5 * radius, thick), METAL)


def _car(p: Painter) -> None:
    _wheels(p, 1.3, 0.72, 0.33)
    p.box((0, 0.6, 0), (2.1, 0.27, 0.84))
    p.ball((1.9, 0.62, 0), (0.4, 0.25, 0.8))
    p.ball((-1.9, 0.62, 0), (0.4, 0.25, 0.8))
    p.box((-0.15, 1.1, 0), (1.1, 0.25, 0.74), Paint("paint", (0.16, 0.2, 0.25)))
    p.box((-0.15, 1.38, 0), (1.0, 0.05, 0.72))
    for side in (-1, 1):
        p.box((-0.1, 1.1, side * 0.74), (0.05, 0.26, 0.02))


def _truck(p: Painter) -> None:
    _wheels(p, 2.0, 0.95, 0.45, 0.16)
    p.box((0, 1.55, 0), (3.2, 1.15, 1.05))
    for window in range(5):
        for side in (-1, 1):
            p.box((-2.4 + 1.15 * window, 2.0, side * 1.05), (0.45, 0.38, 0.02), Paint("paint", (0.2, 0.26, 0.32)))
    p.box((3.2, 1.9, 0), (0.02, 0.45, 0.9), GLASS)


def _bicycle(p: Painter) -> None:
    for x in (-0.52, 0.52):
        p.ball((x, 0.34, 0), (0.34, 0.34, 0.02), DARK)
        p.ball((x, 0.34, 0), (0.28, 0.28, 0.026), METAL)
    p.box((0, 0.62, 0), (0.4, 0.03, 0.025))
    p.box((-0.05, 0.4, 0), (0.3, 0.025, 0.025))
    p.tube(-0.25, 0, 0.34, 0.9, 0.022)
    p.tube(0.45, 0, 0.34, 1.0, 0.022)
    p.ball((-0.25, 0.92, 0), (0.13, 0.035, 0.06), DARK)
    p.box((0.45, 1.0, 0), (0.02, 0.02, 0.26), DARK)


def _cart(p: Painter) -> None:
    _wheels(p, 0.55, 0.5, 0.38, 0.05)
    p.box((0, 0.72, 0), (0.9, 0.22, 0.45))
    p.box((1.3, 0.55, 0), (0.5, 0.03, 0.03), WOOD)


def _boat(p: Painter) -> None:
    p.ball((0, 0.3, 0), (1.9, 0.45, 0.62))
    p.box((0, 0.6, 0), (1.35, 0.06, 0.5), WOOD)
    p.tube(0.1, 0, 0.5, 3.3, 0.04, WOOD)
    p.roof((-0.55, 1.95, 0), (0.65, 1.2, 0.03), WHITE)


def _person(p: Painter) -> None:
    trousers = Paint("paint", (0.16, 0.18, 0.26))
    for side in (-1, 1):
        p.ball((side * 0.09, 0.42, 0), (0.085, 0.44, 0.09), trousers)
        p.ball((side * 0.27, 1.15, 0), (0.055, 0.33, 0.06))
        p.ball((side * 0.27, 0.84, -0.02), (0.045, 0.06, 0.045), SKIN)
    p.ball((0, 1.16, 0), (0.22, 0.36, 0.14))
    p.ball((0, 1.62, 0), (0.1, 0.135, 0.11), SKIN)
    p.ball((0, 1.68, 0.02), (0.11, 0.1, 0.115), Paint("paint", (0.15, 0.1, 0.07)))


def _beast(p: Painter, long: float, leg: float, girth: float, ears: float = 0.06) -> None:
    """Four legs, a body along x, a neck, a head and a tail."""
    for x in (-0.36 * long, 0.36 * long):
        for z in (-0.5 * girth, 0.5 * girth):
            p.tube(x, z, 0, leg + 0.1 * long, 0.16 * girth + 0.01)
    body = leg + 0.75 * girth
    p.ball((0, body, 0), (0.55 * long, girth, 0.8 * girth))
    p.ball((0.5 * long, body + 0.75 * girth, 0), (0.14 * long, 0.8 * girth, 0.4 * girth))
    p.ball((0.62 * long, body + 1.4 * girth, 0), (0.19 * long, 0.42 * girth, 0.4 * girth))
    for side in (-1, 1):
        p.ball(
            (0.55 * long, body + 1.4 * girth + 0.3 * girth + ears, side * 0.25 * girth),
            (0.03 * long, ears, 0.09 * girth),
        )
        p.ball((0.74 * long, body + 1.5 * girth, side * 0.25 * girth), (0.02, 0.02, 0.02), DARK)
    p.ball((-0.62 * long, body + 0.3 * girth, 0), (0.16 * long, 0.07 * long, 0.05 * long))


def _sheep(p: Painter) -> None:
    _beast(p, 0.95, 0.32, 0.27)
    random = p.draft.rng
    for _ in range(14):
        way = random.normal(size=3)
        way /= np.linalg.norm(way)
        p.ball((0.42 * way[0], 0.52 + 0.18 * way[1], 0.18 * way[2]), (0.15, 0.12, 0.13))


def _cow(p: Painter) -> None:
    _beast(p, 1.7, 0.65, 0.4, 0.09)
    for x, z in ((-0.4, -0.25), (0.25, -0.3), (-0.1, -0.2)):
        p.ball((x, 1.05, z), (0.24, 0.2, 0.13), DARK if p.look.color is None else p.main)


def _bird(p: Painter) -> None:
    for side in (-1, 1):
        p.tube(0, side * 0.05, 0, 0.16, 0.012, _BEAK)
    p.ball((0, 0.26, 0), (0.22, 0.13, 0.12))
    p.ball((-0.24, 0.3, 0), (0.12, 0.04, 0.07))
    p.ball((0.2, 0.44, 0), (0.085, 0.085, 0.08))
    p.ball((0.3, 0.43, 0), (0.06, 0.02, 0.025), _BEAK)


def _tent(p: Painter) -> None:
    p.roof((0, 0.85, 0), (1.5, 0.85, 1.2))
    p.box((-1.5, 0.5, 0), (0.02, 0.5, 0.3), DARK)


def _flowers(p: Painter) -> None:
    random = p.draft.rng
    stalk = Paint("leaves", (0.25, 0.5, 0.2), 0.3)
    for _ in range(9):
        x, z, high = random.uniform(-0.28, 0.28), random.uniform(-0.2, 0.2), random.uniform(0.25, 0.5)
        p.tube(x, z, 0, high, 0.01, stalk)
        p.ball((x, 0.4 * high, z), (0.06, 0.02, 0.03), stalk)
        p.ball((x, high, z), (0.075, 0.04, 0.075))
        p.ball((x, high + 0.02, z), (0.026, 0.03, 0.026), Paint("paint", (0.95, 0.8, 0.2)))


def _palm(p: Painter) -> None:
    for ring in range(7):
        p.tube(0.04 * ring, 0, 0.7 * ring, 0.72 + 0.7 * ring, 0.16 - 0.008 * ring, BARK)
    for leaf in range(11):
        angle = 0.571 * leaf
        for piece in range(4):
            out = 0.45 + 0.5 * piece
            high = 5.15 + 0.35 * math.sin(0.9 * piece) - 0.14 * piece**1.6
            p.part(
                1, (0.28 + out * math.cos(angle), high, out * math.sin(angle)), (0.36, 0.05, 0.14), None, -angle
            )  # fmt: skip


def _streetlamp(p: Painter) -> None:
    p.tube(0, 0, 0, 0.4, 0.1)
    p.tube(0, 0, 0, 3.6, 0.05)
    p.ball((0, 3.75, 0), (0.2, 0.24, 0.2), Paint("paint", (0.98, 0.93, 0.75)))
    p.tube(0, 0, 3.95, 4.0, 0.17)


def _fence(p: Painter) -> None:
    for post in range(17):
        p.box((-2.4 + 0.3 * post, 0.5, 0), (0.06, 0.5, 0.02))
    for height in (0.3, 0.75):
        p.box((0, height, 0.03), (2.5, 0.04, 0.02))


def _fountain(p: Painter) -> None:
    water = Paint("paint", (0.6, 0.78, 0.86))
    p.tube(0, 0, 0, 0.45, 1.5)
    p.tube(0, 0, 0.45, 0.47, 1.38, water)
    p.tube(0, 0, 0.4, 1.3, 0.16)
    p.ball((0, 1.35, 0), (0.65, 0.16, 0.65))
    p.tube(0, 0, 1.4, 1.46, 0.55, water)
    p.tube(0, 0, 1.4, 2.3, 0.06, water)
    p.ball((0, 2.3, 0), (0.22, 0.16, 0.22), water)


def _well(p: Painter) -> None:
    p.tube(0, 0, 0, 0.8, 0.65)
    p.tube(0, 0, 0.8, 0.81, 0.52, DARK)
    for side in (-1, 1):
        p.tube(0.6 * side, 0, 0.7, 1.9, 0.05, WOOD)
    p.roof((0, 2.1, 0), (0.85, 0.25, 0.6), Paint("roof", None, 1.0))


def _rock(p: Painter) -> None:
    random = p.draft.rng
    for _ in range(4):
        x, z = random.uniform(-0.35, 0.35, 2)
        p.ball((x, 0.28, z), random.uniform(0.3, 0.6, 3) * (1, 0.8, 1))


def _castle(p: Painter) -> None:
    p.box((0, 3.5, 0), (7.0, 3.5, 5.0))
    for x in (-7, 7):
        for z in (-5, 5):
            p.tube(x, z, 0, 10, 1.8)
            p.roof((x, 11.5, z), (2.2, 1.8, 2.2), Paint("roof", None, 3.0), pyramid=True)
    p.box((0, 6, 0), (3.0, 6.0, 2.5))
    for tooth in range(9):
        for z in (-5, 5):
            p.box((-6 + 1.5 * tooth, 7.4, z), (0.45, 0.45, 0.3))
    p.box((0, 1.6, -5.0), (1.2, 1.6, 0.15), DARK)
    for slit in (-4, -2.4, 2.4, 4):
        p.box((slit, 4.2, -5.0), (0.22, 0.7, 0.1), DARK)


def _tractor(p: Painter) -> None:
    for z in (-0.75, 0.75):
        p.ball((-0.7, 0.75, z), (0.75, 0.75, 0.2), DARK)
        p.ball((-0.7, 0.75, 1.05 * z), (0.35, 0.35, 0.2))
        p.ball((1.1, 0.42, 0.8 * z), (0.42, 0.42, 0.13), DARK)
    p.box((0.7, 1.05, 0), (0.85, 0.35, 0.38))
    p.box((-0.6, 1.1, 0), (0.5, 0.3, 0.5))
    p.box((-0.6, 1.85, 0), (0.5, 0.45, 0.5), GLASS)
    p.box((-0.6, 2.35, 0), (0.6, 0.05, 0.6))
    p.tube(1.0, 0.2, 1.3, 2.1, 0.05, DARK)


def _bridge(p: Painter) -> None:
    for piece in range(9):
        x = -2.4 + 0.6 * piece
        high = 0.75 - 0.11 * (x / 0.9) ** 2
        p.box((x, high, 0), (0.32, 0.08, 0.75))
        for side in (-1, 1):
            p.box((x, high + 0.45, side * 0.72), (0.04, 0.4, 0.04))
            p.box((x, high + 0.85, side * 0.72), (0.32, 0.04, 0.05))
    for x in (-2.3, 2.3):
        p.box((x, 0.1, 0), (0.4, 0.2, 0.8), Paint("stone", None, 1.0))


def _stall(p: Painter) -> None:
    p.box((0, 0.45, 0), (1.1, 0.45, 0.45), WOOD)
    for x in (-1.05, 1.05):
        for z in (-0.5, 0.5):
            p.tube(x, z, 0, 2.2, 0.035, WOOD)
    p.roof((0, 2.35, 0), (1.3, 0.25, 0.75))
    for fruit in range(9):
        p.ball(
            (-0.8 + 0.2 * fruit, 0.97, -0.2),
            (0.09, 0.08, 0.09),
            Paint("paint", color_of(("tomato", "gold", "yellowgreen")[fruit // 3])),
        )


def _mailbox(p: Painter) -> None:
    p.tube(0, 0, 0, 1.0, 0.04, WOOD)
    p.box((0, 1.12, 0), (0.16, 0.13, 0.26))
    p.box((0.17, 1.22, 0.1), (0.01, 0.1, 0.03), Paint("paint", (0.8, 0.1, 0.1)))


def _snowman(p: Painter) -> None:
    for height, size in ((0.42, 0.45), (1.05, 0.33), (1.52, 0.22)):
        p.ball((0, height, 0), (size, size, size))
    p.ball((0, 1.5, -0.25), (0.035, 0.035, 0.14), _BEAK)
    for side in (-1, 1):
        p.ball((side * 0.08, 1.58, -0.2), (0.025, 0.025, 0.02), DARK)
        p.box((side * 0.5, 1.15, 0), (0.25, 0.015, 0.015), BARK)
    p.tube(0, 0, 1.7, 1.73, 0.27, DARK)
    p.tube(0, 0, 1.7, 1.95, 0.17, DARK)


def _campfire(p: Painter) -> None:
    for log in range(5):
        p.part(0, (0.15 * math.cos(1.26 * log), 0.1, 0.15 * math.sin(1.26 * log)), (0.35, 0.07, 0.07), BARK, 1.26 * log)
    flames = Paint("paint", (0.98, 0.55, 0.12)), Paint("paint", (1.0, 0.85, 0.3))
    for tongue in range(6):
        x, z = 0.13 * math.cos(1.05 * tongue), 0.13 * math.sin(1.05 * tongue)
        p.ball((x, 0.35 + 0.06 * (tongue % 3), z), (0.1, 0.28, 0.1), flames[tongue % 2])


OUTDOORS: dict[str, tuple[Draw, Paint]] = {
    "car": (_car, Paint("paint", None, 4.0)),
    "truck": (_truck, Paint("paint", None, 4.0)),
    "bicycle": (_bicycle, Paint("paint")),
    "cart": (_cart, WOOD),
    "boat": (_boat, Paint("paint", None, 3.0)),
    "person": (_person, Paint("paint carpet checks stripes", None, 0.4)),
    "animal": (lambda p: _beast(p, 0.9, 0.35, 0.22), _FUR),
    "dog": (lambda p: _beast(p, 0.75, 0.3, 0.14, 0.07), _FUR),
    "cat": (lambda p: _beast(p, 0.45, 0.15, 0.085, 0.04), Paint("bark", (0.5, 0.45, 0.4), 0.3)),
    "horse": (lambda p: _beast(p, 1.75, 0.85, 0.36, 0.09), _FUR),
    "cow": (_cow, Paint("paint", (0.88, 0.85, 0.8))),
    "sheep": (_sheep, Paint("snow", (0.9, 0.88, 0.83), 0.3)),
    "bird": (_bird, WHITE),
    "tent": (_tent, Paint("paint stripes", None, 1.5)),
    "flower": (_flowers, Paint("paint", (0.9, 0.3, 0.4))),
    "palm": (_palm, Paint("leaves", color_of("olivedrab"), 0.5)),
    "streetlamp": (_streetlamp, DARK),
    "fence": (_fence, WOOD),
    "fountain": (_fountain, Paint("stone marble", (0.72, 0.7, 0.66))),
    "rock": (_rock, Paint("rock", None, 1.5)),
    "well": (_well, Paint("stone brick", None, 1.0)),
    "tractor": (_tractor, Paint("paint", (0.2, 0.45, 0.2))),
    "bridge": (_bridge, WOOD),
    "stall": (_stall, Paint("stripes paint", None, 0.8)),
    "mailbox": (_mailbox, Paint("paint", (0.75, 0.2, 0.15))),
    "snowman": (_snowman, Paint("snow", (0.93, 0.94, 0.96))),
    "campfire": (_campfire, BARK),
    "castle": (_castle, Paint("stone brick", (0.6, 0.56, 0.5), 2.0)),
}
"""Things on the ground, and the paint they have when none is asked for."""

STANDING = {**FURNITURE, **OUTDOORS}
_LEAVES: dict[str, tuple[TreeStyle, float]] = {
    "tree": ("broad", 6.5),
    "conifer": ("conifer", 7.5),
    "bush": ("bush", 3.6),
}
"""How a tree grows, and its height in metres before the style's own factor."""
GROWN = tuple(_LEAVES)
_BODY = ("front", "wall")

Build = Callable[[Draft, float, float, float, float], None]


def _building(name: str) -> Build:
    """A building whose walls may be painted, by the makers of streets; in metres."""

    def build(draft: Draft, x: float, ground: float, z: float, yaw: float) -> None:
        rng, spot = draft.rng, (x, ground, z)
        if name == "pagoda":
            add_pagoda(draft, x, ground, z, 4.0, yaw)
        elif name == "temple":
            add_temple(draft, x, ground, z, 5.0, yaw)
        elif name == "tower":
            add_house(draft, spot, yaw, int(rng.integers(5, 9)), 2, str(rng.choice(["flat", "pyramid"])))
        elif name == "church":
            add_house(draft, spot, yaw, 2, 3, "gable")
            add_house(draft, (x + 4.5, ground, z - 1), yaw, 5, 2, "pyramid")
        elif name == "hall":
            add_house(draft, spot, yaw, 2, 8, str(rng.choice(["gable", "flat"])))
        else:
            add_house(draft, spot, yaw, int(rng.integers(1, 3)), int(rng.integers(3, 5)), "gable")

    return build


def raise_building(p: Painter, name: str) -> None:
    """A building at a painter's base, its walls in the painter's paint where one was asked for."""
    draft, first = p.draft, len(p.draft.surfaces)
    _building(name)(draft, float(p.base[0]), float(p.base[1]), float(p.base[2]), p.yaw)
    group = p.draft.group
    for index in range(first - 6, len(draft.objects)):
        kind, center, half, yaw, _ = draft.objects[index]
        draft.objects[index] = (kind, p.base + (center - p.base) * p.unit, half * p.unit, yaw, group)
        texture, mapping, tint, glow = draft.surfaces[index + 6]
        repeats = [mapping[0] / p.unit, mapping[1] / p.unit, *mapping[2:]]
        draft.surfaces[index + 6] = (texture, repeats, tint, glow)
    _dress(p, first, _BODY if name not in ("pagoda", "temple") else ("front", "wall", "wood", "marble"))


def grow(p: Painter, name: str) -> None:
    """A tree or a bush at a painter's base, its leaves in the painter's paint."""
    style, height = _LEAVES[name]
    first = len(p.draft.surfaces)
    x, y, z = (float(value) for value in p.base)
    add_tree(p.draft, x, y, z, height * p.unit * float(p.draft.rng.uniform(0.85, 1.15)), style)
    _dress(p, first, ("leaves",))


def _dress(p: Painter, first: int, names: tuple[str, ...]) -> None:
    """Gives surfaces from ``first`` on with one of the named textures the wanted color and material."""
    draft = p.draft
    made_of = p.look.material is not None and p.main.names != "leaves"
    slot = draft.texture(p.main.names) if made_of else None
    for index in range(first, len(draft.surfaces)):
        texture, mapping, tint, glow = draft.surfaces[index]
        if draft.textures[texture][0] in names:
            if slot is not None:
                draft.surfaces[index] = (slot, mapping, tint, glow)
            if p.main.rgb is not None and p.look != type(p.look)():
                p.colors.wanted[index] = p.main.rgb
