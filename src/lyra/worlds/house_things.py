"""Things of houses, each drawn by a few parts in its usual size; see ``Painter`` for the frame."""

import math
from collections.abc import Callable

from lyra.worlds.painter import BRASS, DARK, GLASS, LEAF, METAL, PAGES, WHITE, WOOD, Paint, Painter
from lyra.worlds.vocabulary import color_of

CLOTH = Paint("carpet plaster checks stripes")
_BLADES = Paint("leaves", (0.25, 0.5, 0.2), 0.3)
_WATER = Paint("paint", (0.45, 0.6, 0.68))
_FLAME = Paint("paint", (0.98, 0.75, 0.25))

Draw = Callable[[Painter], None]


def _sofa(p: Painter, half: float = 0.95) -> None:
    p.box((0, 0.21, 0), (half, 0.15, 0.42))
    p.box((0, 0.5, 0.34), (half, 0.36, 0.1))
    for side in (-1, 1):
        p.box((side * (half - 0.08), 0.33, -0.02), (0.09, 0.27, 0.42))
    seats = 1 if half < 0.6 else 2
    for seat in range(seats):
        wide = (half - 0.18) / seats
        p.box(((2 * seat + 1 - seats) * wide, 0.42, -0.06), (wide * 0.97, 0.07, 0.33))


def _armchair(p: Painter) -> None:
    _sofa(p, 0.46)


def _chair(p: Painter) -> None:
    p.legs(0.19, 0.19, 0.45, 0.022)
    p.box((0, 0.46, 0), (0.22, 0.025, 0.22))
    p.box((0, 0.8, 0.2), (0.22, 0.16, 0.02))
    for side in (-1, 1):
        p.box((side * 0.2, 0.65, 0.2), (0.02, 0.2, 0.02))


def _stool(p: Painter) -> None:
    p.legs(0.14, 0.14, 0.45, 0.02)
    p.tube(0, 0, 0.44, 0.5, 0.2)


def _bench(p: Painter) -> None:
    for side in (-1, 1):
        p.box((side * 0.6, 0.21, 0), (0.05, 0.21, 0.2))
    p.box((0, 0.45, 0), (0.8, 0.03, 0.22))
    p.box((0, 0.75, 0.22), (0.8, 0.12, 0.025))
    for side in (-1, 1):
        p.box((side * 0.6, 0.6, 0.22), (0.04, 0.2, 0.03))


def _table(p: Painter) -> None:
    p.legs(0.52, 0.3, 0.72, 0.035)
    p.box((0, 0.735, 0), (0.62, 0.025, 0.4))


def _desk(p: Painter) -> None:
    p.box((0, 0.74, 0), (0.7, 0.022, 0.36))
    p.box((-0.5, 0.36, 0), (0.18, 0.36, 0.32))
    p.box((0.66, 0.36, 0), (0.03, 0.36, 0.32))
    for drawer in range(3):
        p.box((-0.5, 0.14 + 0.22 * drawer, -0.33), (0.06, 0.012, 0.02), METAL)


def _bed(p: Painter) -> None:
    p.box((0, 0.16, 0), (0.82, 0.12, 1.02), WOOD)
    p.box((0, 0.5, 1.02), (0.84, 0.45, 0.05), WOOD)
    p.box((0, 0.36, 0), (0.8, 0.1, 1.0), WHITE)
    p.box((0, 0.42, -0.25), (0.84, 0.07, 0.77))
    for side in (-1, 1):
        p.box((side * 0.38, 0.52, 0.75), (0.3, 0.07, 0.2), WHITE)


def _cabinet(p: Painter) -> None:
    p.box((0, 0.9, 0), (0.5, 0.9, 0.27))
    for side in (-1, 1):
        p.box((side * 0.245, 0.92, -0.28), (0.23, 0.82, 0.012))
        p.box((side * 0.05, 0.95, -0.3), (0.012, 0.08, 0.015), METAL)


def _bookshelf(p: Painter) -> None:
    p.box((0, 0.95, 0.02), (0.5, 0.95, 0.14))
    books = Paint("books", None, 0.9)
    for row in range(5):
        p.face((0, 0.22 + 0.37 * row, -0.12), (0.46, 0.155, 0.02), books)


def _lamp(p: Painter) -> None:
    p.tube(0, 0, 0, 0.03, 0.16, METAL)
    p.tube(0, 0, 0, 1.35, 0.018, METAL)
    p.tube(0, 0, 1.25, 1.55, 0.2)
    p.tube(0, 0, 1.55, 1.58, 0.12)


def _rug(p: Painter) -> None:
    p.box((0, 0.008, 0), (0.95, 0.01, 0.65))


def _fireplace(p: Painter) -> None:
    p.box((0, 0.55, 0.05), (0.75, 0.55, 0.2))
    p.box((0, 1.13, 0), (0.85, 0.04, 0.28))
    p.box((0, 0.38, -0.14), (0.42, 0.36, 0.03), DARK)
    for log in (-0.15, 0.05, 0.2):
        p.ball((log, 0.2, -0.17), (0.08, 0.16, 0.03), _FLAME)


def _piano(p: Painter) -> None:
    p.box((0, 0.6, 0.15), (0.75, 0.6, 0.2))
    p.box((0, 0.68, -0.15), (0.75, 0.06, 0.2))
    p.box((0, 0.75, -0.22), (0.68, 0.015, 0.1), WHITE)
    for key in range(14):
        p.box((-0.62 + 0.095 * key, 0.77, -0.18), (0.018, 0.012, 0.06), DARK)
    for side in (-1, 1):
        p.box((side * 0.7, 0.31, -0.28), (0.04, 0.31, 0.04))


def _stove(p: Painter) -> None:
    p.box((0, 0.45, 0), (0.32, 0.45, 0.3))
    p.box((0, 0.4, -0.31), (0.25, 0.22, 0.015), DARK)
    p.box((0, 0.68, -0.33), (0.24, 0.015, 0.02), METAL)
    for x in (-0.15, 0.15):
        for z in (-0.13, 0.13):
            p.tube(x, z, 0.9, 0.92, 0.09, DARK)


def _fridge(p: Painter) -> None:
    p.box((0, 0.9, 0), (0.34, 0.9, 0.32))
    p.box((0, 1.2, -0.325), (0.335, 0.008, 0.01), DARK)
    for height in (0.85, 1.45):
        p.box((-0.27, height, -0.35), (0.015, 0.16, 0.02), METAL)


def _appliance(p: Painter) -> None:
    p.box((0, 0.43, 0), (0.3, 0.43, 0.29))
    p.part(1, (0, 0.4, -0.29), (0.2, 0.2, 0.03), GLASS)
    p.part(1, (0, 0.4, -0.3), (0.15, 0.15, 0.03), DARK)
    p.box((0, 0.78, -0.295), (0.28, 0.05, 0.01), METAL)


def _bathtub(p: Painter) -> None:
    p.box((0, 0.28, 0), (0.85, 0.26, 0.38))
    p.box((0, 0.55, 0), (0.78, 0.012, 0.31), _WATER)
    p.tube(-0.75, 0, 0.5, 0.75, 0.025, METAL)


def _toilet(p: Painter) -> None:
    p.tube(0, 0, 0, 0.2, 0.13)
    p.ball((0, 0.33, -0.05), (0.2, 0.13, 0.27))
    p.ball((0, 0.43, -0.05), (0.19, 0.03, 0.25))
    p.box((0, 0.6, 0.25), (0.22, 0.22, 0.09))


def _sink(p: Painter) -> None:
    p.tube(0, 0, 0, 0.75, 0.09)
    p.ball((0, 0.8, 0), (0.3, 0.12, 0.24))
    p.tube(0, 0, 0.91, 0.925, 0.2, _WATER)
    p.tube(0, 0.2, 0.85, 1.1, 0.02, METAL)


def _basket(p: Painter) -> None:
    p.tube(0, 0, 0, 0.4, 0.21)
    p.tube(0, 0, 0.4, 0.41, 0.18, DARK)
    p.tube(0, 0, 0.34, 0.42, 0.225)


def _barrel(p: Painter) -> None:
    p.tube(0, 0, 0, 0.85, 0.26)
    p.ball((0, 0.42, 0), (0.33, 0.36, 0.33))
    for height in (0.15, 0.42, 0.7):
        p.tube(0, 0, height - 0.02, height + 0.02, 0.3 if height != 0.42 else 0.335, METAL)


def _box(p: Painter) -> None:
    p.box((0, 0.24, 0), (0.32, 0.24, 0.26))
    p.box((0, 0.46, 0), (0.33, 0.025, 0.27))


def _ball(p: Painter) -> None:
    p.ball((0, 0.22, 0), (0.22, 0.22, 0.22))


def _candle(p: Painter) -> None:
    p.tube(0, 0, 0, 0.015, 0.06, BRASS)
    p.tube(0, 0, 0, 0.18, 0.03)
    p.ball((0, 0.21, 0), (0.012, 0.03, 0.012), _FLAME)


def _television(p: Painter) -> None:
    p.box((0, 0.22, 0), (0.6, 0.22, 0.2), WOOD)
    p.box((0, 0.8, 0), (0.58, 0.34, 0.03), p.main)
    p.face((0, 0.8, -0.03), (0.54, 0.3, 0.01), Paint("paint", (0.12, 0.16, 0.22)))


def _statue(p: Painter) -> None:
    p.box((0, 0.35, 0), (0.25, 0.35, 0.25), Paint("stone marble"))
    p.ball((0, 1.05, 0), (0.2, 0.38, 0.15))
    p.ball((0, 1.35, 0), (0.26, 0.1, 0.13))
    p.ball((0, 1.57, 0), (0.1, 0.14, 0.11))


def _toy(p: Painter) -> None:
    p.ball((0, 0.16, 0), (0.14, 0.16, 0.12))
    p.ball((0, 0.4, 0), (0.12, 0.11, 0.11))
    for side in (-1, 1):
        p.ball((side * 0.09, 0.5, 0), (0.045, 0.045, 0.03))
        p.ball((side * 0.16, 0.2, -0.03), (0.05, 0.1, 0.06))
        p.ball((side * 0.09, 0.06, -0.12), (0.06, 0.06, 0.1))
        p.ball((side * 0.04, 0.43, -0.11), (0.014, 0.014, 0.01), DARK)
    p.ball((0, 0.38, -0.11), (0.04, 0.03, 0.03), PAGES)


def _plant(p: Painter) -> None:
    p.tube(0, 0, 0, 0.32, 0.17)
    random = p.draft.rng
    for leaf in range(16):
        angle, high = 2.4 * leaf, 0.4 + 0.045 * leaf
        out = 0.28 * math.sin(math.pi * (0.15 + 0.8 * leaf / 16)) * random.uniform(0.7, 1.2)
        p.ball((out * math.cos(angle), high, out * math.sin(angle)), (0.13, 0.1, 0.13), LEAF)


def _blanket(p: Painter) -> None:
    p.box((0, 0.015, 0), (0.75, 0.018, 0.55))
    p.box((0.3, 0.05, 0.2), (0.4, 0.03, 0.3), yaw=0.3)


def _ladder(p: Painter) -> None:
    for side in (-1, 1):
        p.box((side * 0.22, 1.1, 0), (0.03, 1.1, 0.04))
    for rung in range(8):
        p.box((0, 0.2 + 0.27 * rung, 0), (0.22, 0.02, 0.025))


def _umbrella(p: Painter) -> None:
    p.tube(0, 0, 0, 2.0, 0.025, WOOD)
    for ring in range(5):
        p.tube(0, 0, 1.75 + 0.06 * ring, 1.82 + 0.06 * ring, 1.05 - 0.22 * ring)


def _guitar(p: Painter) -> None:
    p.ball((0, 0.22, 0), (0.2, 0.22, 0.06))
    p.ball((0, 0.48, 0), (0.15, 0.16, 0.06))
    p.ball((0, 0.38, -0.045), (0.06, 0.06, 0.02), DARK)
    p.box((0, 0.85, -0.02), (0.025, 0.32, 0.02), WOOD)
    p.box((0, 1.2, -0.02), (0.04, 0.08, 0.015), DARK)


def _easel(p: Painter) -> None:
    for x in (-0.35, 0, 0.35):
        p.box((x, 0.75, 0.1 if x else 0.3), (0.025, 0.75, 0.025))
    p.box((0, 1.05, 0.03), (0.42, 0.34, 0.02), WHITE)
    p.face((0, 1.05, 0.0), (0.38, 0.3, 0.008), Paint("poster"))


# On walls: the base is the middle of the lower edge, and the back lies at z = 0.


def _picture(p: Painter) -> None:
    p.box((0, 0.3, -0.02), (0.42, 0.3, 0.02), WOOD)
    p.face((0, 0.3, -0.045), (0.38, 0.26, 0.008), Paint("poster") if p.look.color is None else p.main)


def _mirror(p: Painter) -> None:
    p.box((0, 0.45, -0.02), (0.33, 0.45, 0.02), p.main)
    p.box((0, 0.45, -0.04), (0.29, 0.41, 0.008), GLASS)


def _clock(p: Painter) -> None:
    p.ball((0, 0.2, -0.02), (0.2, 0.2, 0.03))
    p.ball((0, 0.2, -0.035), (0.17, 0.17, 0.025), WHITE if p.look.color is None else PAGES)
    p.box((0.03, 0.24, -0.065), (0.008, 0.06, 0.005), DARK)
    p.box((-0.035, 0.2, -0.065), (0.045, 0.008, 0.005), DARK)


def _window(p: Painter) -> None:
    p.box((0, 0.55, -0.02), (0.5, 0.55, 0.03), p.main)
    pane = Paint("paint", (0.72, 0.85, 0.95))
    for x in (-0.235, 0.235):
        for y in (0.29, 0.81):
            p.box((x, y, -0.04), (0.2, 0.22, 0.015), pane)


def _door(p: Painter) -> None:
    p.box((0, 1.02, -0.01), (0.5, 1.02, 0.02), WOOD)
    p.box((0, 1.0, -0.03), (0.43, 0.98, 0.025))
    p.ball((0.34, 1.0, -0.08), (0.035, 0.035, 0.03), BRASS)


def _curtain(p: Painter) -> None:
    p.box((0, 1.75, -0.06), (0.75, 0.02, 0.02), BRASS)
    for fold in range(8):
        x = -0.63 + 0.18 * fold
        p.part(2, (x, 0.86, -0.06), (0.085, 0.86, 0.05))


def _blackboard(p: Painter) -> None:
    p.box((0, 0.5, -0.02), (0.95, 0.5, 0.02), WOOD)
    p.box((0, 0.5, -0.04), (0.9, 0.45, 0.01))


# On table tops.


def _book(p: Painter) -> None:
    p.box((0, 0.02, 0), (0.105, 0.02, 0.075))
    p.box((0.006, 0.02, -0.004), (0.103, 0.015, 0.074), PAGES)


def _cup(p: Painter) -> None:
    p.tube(0, 0, 0, 0.095, 0.045)
    p.tube(0, 0, 0.09, 0.1, 0.036, Paint("paint", (0.22, 0.13, 0.08)))
    p.box((0.058, 0.05, 0), (0.02, 0.03, 0.008))


def _bottle(p: Painter) -> None:
    p.tube(0, 0, 0, 0.18, 0.04)
    p.ball((0, 0.18, 0), (0.04, 0.045, 0.04))
    p.tube(0, 0, 0.2, 0.29, 0.015)


def _bowl(p: Painter) -> None:
    p.tube(0, 0, 0, 0.02, 0.05)
    p.ball((0, 0.065, 0), (0.12, 0.055, 0.12))
    p.tube(0, 0, 0.065, 0.1, 0.12)
    p.tube(0, 0, 0.095, 0.105, 0.105, Paint("paint", (0.3, 0.27, 0.24)))


def _plate(p: Painter) -> None:
    p.tube(0, 0, 0, 0.012, 0.09)
    p.tube(0, 0, 0.01, 0.022, 0.135)


def _vase(p: Painter) -> None:
    p.ball((0, 0.11, 0), (0.075, 0.11, 0.075))
    p.tube(0, 0, 0.18, 0.27, 0.035)
    p.tube(0, 0, 0.26, 0.275, 0.05)
    for stem in range(5):
        angle = 1.26 * stem
        x, z, high = 0.05 * math.cos(angle), 0.05 * math.sin(angle), 0.36 + 0.03 * (stem % 3)
        p.tube(x * 0.6, z * 0.6, 0.24, high, 0.005, _BLADES)
        p.ball((x, high, z), (0.03, 0.025, 0.03), Paint("paint", (0.92, 0.85, 0.4)))


def _teapot(p: Painter) -> None:
    p.ball((0, 0.085, 0), (0.095, 0.085, 0.095))
    p.ball((0, 0.18, 0), (0.02, 0.02, 0.02))
    p.box((0.11, 0.1, 0), (0.035, 0.012, 0.012))
    p.box((-0.115, 0.09, 0), (0.012, 0.045, 0.012))


def _laptop(p: Painter) -> None:
    p.box((0, 0.01, 0), (0.17, 0.01, 0.12))
    p.box((0, 0.125, 0.12), (0.17, 0.115, 0.008))
    p.face((0, 0.125, 0.11), (0.155, 0.1, 0.003), Paint("poster"))
    p.box((0, 0.021, 0.02), (0.145, 0.002, 0.06), DARK)


def _fruit(p: Painter, wide: float = 0.042, tall: float = 0.04, stalk: bool = True) -> None:
    p.ball((0, tall, 0), (wide, tall, wide))
    if stalk:
        p.tube(0, 0, 1.9 * tall, 2.3 * tall, 0.004, WOOD)


def _pear(p: Painter) -> None:
    _fruit(p, 0.042, 0.042, stalk=False)
    p.ball((0, 0.09, 0), (0.024, 0.035, 0.024))


def _banana(p: Painter) -> None:
    for piece in range(5):
        turn = -0.8 + 0.4 * piece
        p.ball((0.09 * math.sin(turn), 0.02, 0.09 - 0.09 * math.cos(turn)), (0.026, 0.02, 0.02))


def _grapes(p: Painter) -> None:
    for ring, count in enumerate((7, 5, 2)):
        for berry in range(count):
            angle = 6.283 * berry / count
            out = 0.045 - 0.017 * ring
            p.ball((out * math.cos(angle), 0.018 + 0.026 * ring, out * math.sin(angle)), (0.018, 0.018, 0.018))


def _cherries(p: Painter) -> None:
    for x, z in ((-0.02, 0.0), (0.02, 0.01), (0.0, -0.025)):
        p.ball((x, 0.017, z), (0.018, 0.017, 0.018))


def _bread(p: Painter) -> None:
    p.ball((0, 0.055, 0), (0.15, 0.055, 0.065))


def _cake(p: Painter) -> None:
    p.tube(0, 0, 0, 0.01, 0.15, WHITE)
    p.tube(0, 0, 0.01, 0.1, 0.12)
    p.tube(0, 0, 0.1, 0.112, 0.122, Paint("paint", (0.95, 0.9, 0.86)))
    for cherry in range(6):
        p.ball(
            (0.09 * math.cos(cherry), 0.122, 0.09 * math.sin(cherry)),
            (0.014, 0.014, 0.014),
            Paint("paint", (0.8, 0.1, 0.12)),
        )


def _colored(name: str, names: str = "paint") -> Paint:
    return Paint(names, color_of(name))


FURNITURE: dict[str, tuple[Draw, Paint]] = {
    "sofa": (_sofa, CLOTH),
    "armchair": (_armchair, CLOTH),
    "chair": (_chair, Paint("wood wood paint", None, 1.6)),
    "stool": (_stool, Paint("wood paint", None, 1.6)),
    "bench": (_bench, WOOD),
    "table": (_table, WOOD),
    "desk": (_desk, WOOD),
    "bed": (_bed, CLOTH),
    "cabinet": (_cabinet, Paint("wood wood paint plaster", None, 1.6)),
    "bookshelf": (_bookshelf, WOOD),
    "lamp": (_lamp, Paint("plaster paint", (0.93, 0.87, 0.72))),
    "rug": (_rug, Paint("carpet checks stripes", None, 1.2)),
    "fireplace": (_fireplace, Paint("brick stone marble", None, 0.9)),
    "piano": (_piano, Paint("paint", (0.07, 0.06, 0.06))),
    "stove": (_stove, WHITE),
    "fridge": (_fridge, WHITE),
    "appliance": (_appliance, WHITE),
    "bathtub": (_bathtub, WHITE),
    "toilet": (_toilet, WHITE),
    "sink": (_sink, WHITE),
    "basket": (_basket, Paint("carpet sand", (0.66, 0.5, 0.3), 0.1)),
    "barrel": (_barrel, WOOD),
    "box": (_box, Paint("paint wood", (0.66, 0.5, 0.34))),
    "ball": (_ball, Paint("paint checks stripes")),
    "television": (_television, DARK),
    "statue": (_statue, Paint("stone marble", (0.75, 0.73, 0.7))),
    "toy": (_toy, Paint("carpet", (0.6, 0.42, 0.25), 0.1)),
    "plant": (_plant, Paint("paint", (0.7, 0.38, 0.26))),
    "blanket": (_blanket, CLOTH),
    "ladder": (_ladder, WOOD),
    "umbrella": (_umbrella, Paint("paint stripes", None, 1.0)),
    "guitar": (_guitar, Paint("wood", (0.7, 0.42, 0.2), 1.6)),
    "easel": (_easel, WOOD),
}
"""Things that stand on floors, and the paint they have when none is asked for."""

ON_WALLS: dict[str, tuple[Draw, Paint, float, float]] = {
    "picture": (_picture, WOOD, 0.42, 1.35),
    "mirror": (_mirror, BRASS, 0.33, 1.1),
    "clock": (_clock, DARK, 0.2, 1.75),
    "window": (_window, WHITE, 0.5, 0.95),
    "door": (_door, Paint("wood paint", None, 1.6), 0.5, 0.0),
    "curtain": (_curtain, CLOTH, 0.75, 0.25),
    "blackboard": (_blackboard, Paint("paint", (0.1, 0.2, 0.15)), 0.95, 0.9),
}
"""Things on walls: half their width, and how high their lower edge is."""

ON_TABLES: dict[str, tuple[Draw, Paint, float]] = {
    "book": (_book, Paint("paint", None), 0.13),
    "cup": (_cup, WHITE, 0.06),
    "bottle": (_bottle, Paint("paint", (0.12, 0.3, 0.17)), 0.045),
    "bowl": (_bowl, Paint("paint marble"), 0.13),
    "plate": (_plate, WHITE, 0.14),
    "vase": (_vase, Paint("paint marble"), 0.08),
    "teapot": (_teapot, Paint("paint", (0.85, 0.82, 0.75)), 0.12),
    "laptop": (_laptop, METAL, 0.2),
    "candle": (_candle, PAGES, 0.06),
    "fruit": (_fruit, _colored("tomato"), 0.06),
    "apple": (_fruit, _colored("firebrick"), 0.06),
    "pear": (_pear, _colored("yellowgreen"), 0.06),
    "citrus": (_fruit, _colored("darkorange"), 0.06),
    "lemon": (lambda p: p.ball((0, 0.033, 0), (0.048, 0.033, 0.035)), _colored("gold"), 0.06),
    "banana": (_banana, _colored("gold"), 0.12),
    "melon": (lambda p: _fruit(p, 0.13, 0.12), _colored("darkgreen"), 0.14),
    "grapes": (_grapes, _colored("indigo"), 0.08),
    "cherry": (_cherries, _colored("crimson"), 0.05),
    "bread": (_bread, _colored("peru"), 0.16),
    "cake": (_cake, _colored("chocolate"), 0.16),
    "knife": (lambda p: p.box((0, 0.006, 0), (0.11, 0.006, 0.012)), METAL, 0.1),
}
"""Things on tables, and half their width."""
