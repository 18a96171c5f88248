"""Finding places for the things of a brief: on floors, on tables, on walls, on the ground."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from lyra.worlds.briefs import BUILDINGS, Look, Wish, is_small
from lyra.worlds.drawing import Draft, turned
from lyra.worlds.house_things import ON_TABLES, ON_WALLS
from lyra.worlds.outdoor_things import GROWN, STANDING, grow, raise_building
from lyra.worlds.painter import LEAF, Colors, Paint, Painter, paint_of

_SMALL_FACTOR = 1.35
"""On what lies on tables, so that it can be seen from across a room."""
_TOPS = {"table": (0.76, 0.5, 0.3), "desk": (0.762, 0.55, 0.25), "stool": (0.5, 0.1, 0.1), "piano": (1.2, 0.6, 0.1),
         "bench": (0.48, 0.5, 0.1), "box": (0.485, 0.2, 0.15), "barrel": (0.85, 0.12, 0.12)}  # fmt: skip
"""Heights and half sizes of what things can lie on, metres."""
FLAT = ("rug", "blanket")
_AGAINST_WALLS = ("cabinet", "bookshelf", "fireplace", "fridge", "stove", "piano", "television", "sink", "appliance")


@dataclass(frozen=True)
class Placed:
    """A wish that has become part of a draft."""

    wish: Wish
    group: int

    def describe(self) -> str:
        """As a caption says it."""
        look = self.wish.look
        return " ".join(word for word in (look.color, look.material, self.wish.name) if word)


@dataclass
class Scenery:
    """A place in the making: what stands where."""

    draft: Draft
    colors: Colors
    unit: float
    """Scene units of a metre."""
    yaw: float
    """Of the view."""
    half_angle: float
    """Half the view's horizontal opening in which things are put, radians."""
    ground: "Ground"
    low: np.ndarray = field(default_factory=lambda: np.full(3, -1e4))
    high: np.ndarray = field(default_factory=lambda: np.full(3, 1e4))
    taken: list[tuple[float, float, float]] = field(default_factory=list)
    tops: list[tuple[np.ndarray, float, float, float]] = field(default_factory=list)
    """Middle of a top, its half sizes and yaw."""
    laid: list[tuple[float, float, float]] = field(default_factory=list)
    hung: list[tuple[np.ndarray, float]] = field(default_factory=list)
    """Places on walls, and half the width of what hangs there."""
    least: float = 0.8
    """No thing comes nearer to the camera, scene units."""
    wanted: list[tuple[float, float, float]] = field(default_factory=list)
    """Of what was asked for: nothing else stands before it."""


class Ground:
    """Heights of the ground; flat unless overridden."""

    def __init__(self, height: float):
        self.height = height

    def at(self, x: float, z: float) -> float:
        """Y of the ground."""
        return self.height


@cache
def extent(name: str) -> tuple[float, float, float]:
    """Half width, half depth and height of a thing that stands, in metres."""
    if name in BUILDINGS and name != "castle":
        return {"tower": (4.0, 4.0, 24.0), "church": (8.0, 5.0, 20.0), "hall": (11.0, 5.0, 9.0)}.get(
            name, (5.5, 5.5, 9.0)
        )
    if name in GROWN:
        return {"tree": (2.0, 2.0, 6.5), "conifer": (1.4, 1.4, 7.5), "bush": (0.7, 0.7, 1.1)}[name]
    draft = Draft(np.random.default_rng(0))
    draw, paint = STANDING[name]
    draw(Painter(draft, Colors(), np.zeros(3), 0.0, 1.0, paint, Look()))
    centers = np.array([center for _, center, *_ in draft.objects])
    halves = np.array([half for _, _, half, *_ in draft.objects])
    reach = (np.abs(centers) + halves).max(0)
    return float(reach[0]), float(reach[2]), float((halves[:, 1] - centers[:, 1]).max())


def _bearing(scenery: Scenery, side: int) -> float:
    rng, reach = scenery.draft.rng, scenery.half_angle
    if side:
        return scenery.yaw + side * rng.uniform(0.3, 0.85) * reach
    return scenery.yaw + rng.uniform(-0.8, 0.8) * reach


def _distance(scenery: Scenery, name: str, indoors: bool) -> float:
    wide, deep, high = (value * scenery.unit for value in extent(name))
    rng, size = scenery.draft.rng, max(wide * 2, high)
    if indoors:
        return max(scenery.least + math.hypot(wide, deep), rng.uniform(1.0, 2.2))
    if name in BUILDINGS:
        return rng.uniform(1.5, 2.6) * size + deep
    return max(scenery.least + math.hypot(wide, deep), rng.uniform(1.6, 4.0) * max(size, 1.1 * scenery.unit))


def _spot(scenery: Scenery, name: str, side: int, indoors: bool) -> tuple[float, float] | None:
    """A free place for a thing; None where none was found."""
    wide, deep, _ = (value * scenery.unit for value in extent(name))
    radius = 0.8 * math.hypot(wide, deep)
    for trial in range(120):
        angle, far = _bearing(scenery, side), _distance(scenery, name, indoors) * (1 + 0.004 * trial)
        x, z = far * math.sin(angle), far * math.cos(angle)
        margin = radius if name not in _AGAINST_WALLS else deep
        x = float(np.clip(x, scenery.low[0] + margin, scenery.high[0] - margin))
        z = float(np.clip(z, scenery.low[2] + margin, scenery.high[2] - margin))
        if math.hypot(x, z) - math.hypot(wide, deep) < scenery.least - 0.1 or z <= 0:
            continue
        if _hides(scenery.wanted, x, z, radius):
            continue
        # Where there is little room things stand closer.
        gap = 1.0 if trial < 50 else 0.7
        if name in FLAT or all(math.hypot(x - a, z - b) > gap * (radius + other) for a, b, other in scenery.taken):
            return x, z
    return None


def _hides(wanted: Sequence[tuple[float, float, float]], x: float, z: float, radius: float) -> bool:
    """Whether something stands between the camera and what was asked for."""
    bearing, far = math.atan2(x, z), math.hypot(x, z)
    return any(
        far < math.hypot(a, b) and abs(bearing - math.atan2(a, b)) < 0.9 * (radius / far + other / math.hypot(a, b))
        for a, b, other in wanted
    )


def _against_wall(scenery: Scenery, name: str, x: float, z: float) -> tuple[float, float, float]:
    """The place moved back to the wall behind it, and the yaw that faces the room."""
    _, deep, _ = (value * scenery.unit for value in extent(name))
    gap = deep + 0.02 * scenery.unit
    walls = [
        (abs(scenery.high[2] - z), (x, scenery.high[2] - gap, 0.0)),
        (abs(scenery.high[0] - x), (scenery.high[0] - gap, z, math.pi / 2)),
        (abs(x - scenery.low[0]), (scenery.low[0] + gap, z, -math.pi / 2)),
    ]
    return min(walls)[1]


def _painter(scenery: Scenery, wish: Wish, base: np.ndarray, yaw: float, unit: float, usual: Paint) -> Painter:
    return Painter(scenery.draft, scenery.colors, base, yaw, unit, paint_of(wish.look, usual), wish.look)


def stand(scenery: Scenery, wish: Wish, indoors: bool) -> Placed | None:
    """Puts a thing on the floor or the ground."""
    rng, name = scenery.draft.rng, wish.name
    spot = _spot(scenery, name, wish.side, indoors)
    if spot is None:
        return None
    x, z = spot
    wide, deep, _ = (value * scenery.unit for value in extent(name))
    yaw = math.atan2(x, z) + rng.normal(0, 0.35)
    if indoors and (name in _AGAINST_WALLS or (name in ("bed", "sofa") and rng.random() < 0.5)):
        x, z, yaw = _against_wall(scenery, name, x, z)
        if any(
            math.hypot(x - a, z - b) < 0.8 * (math.hypot(wide, deep) * 0.8 + other) for a, b, other in scenery.taken
        ):
            return None
    if name not in FLAT:
        scenery.taken.append((x, z, 0.8 * math.hypot(wide, deep)))
    base = np.array([x, scenery.ground.at(x, z), z])
    return put(scenery, wish, base, yaw)


def put(scenery: Scenery, wish: Wish, base: np.ndarray, yaw: float) -> Placed:
    """Draws a standing thing at a place."""
    name = wish.name
    if name in BUILDINGS and name != "castle":
        painter = _painter(scenery, wish, base, yaw, scenery.unit, Paint("wall", None, 3.0))
        raise_building(painter, name)
    elif name in GROWN:
        painter = _painter(scenery, wish, base, yaw, scenery.unit, LEAF)
        grow(painter, name)
    else:
        draw, usual = STANDING[name]
        painter = _painter(scenery, wish, base, yaw, scenery.unit, usual)
        draw(painter)
    if name in _TOPS:
        high, half_x, half_z = (value * scenery.unit for value in _TOPS[name])
        scenery.tops.append((base - np.array([0, high, 0]), half_x, half_z, yaw))
    return Placed(wish, scenery.draft.group)


def lay(scenery: Scenery, wish: Wish, factor: float = _SMALL_FACTOR) -> Placed | None:
    """Puts a small thing on one of the tops."""
    rng = scenery.draft.rng
    draw, usual, half = ON_TABLES[wish.name]
    size = half * scenery.unit * factor
    for _ in range(60):
        middle, half_x, half_z, yaw = scenery.tops[int(rng.integers(len(scenery.tops)))]
        across = rng.uniform(-1, 1) * max(0.0, half_x - size)
        if wish.side:
            across = wish.side * abs(across)
        along = rng.uniform(-1, 0.6) * max(0.0, half_z - size)
        x = middle[0] + math.cos(yaw) * across + math.sin(yaw) * along
        z = middle[2] - math.sin(yaw) * across + math.cos(yaw) * along
        if all(math.hypot(x - a, z - b) > 0.95 * (size + other) for a, b, other in scenery.laid):
            scenery.laid.append((x, z, size))
            turn = math.atan2(x, z) + rng.normal(0, 0.4)
            draw(_painter(scenery, wish, np.array([x, middle[1], z]), turn, scenery.unit * factor, usual))
            return Placed(wish, scenery.draft.group)
    return None


def hang(scenery: Scenery, wish: Wish) -> Placed | None:
    """Puts a thing on a wall in view."""
    draw, usual, half, low = ON_WALLS[wish.name]
    half, floor = half * scenery.unit, scenery.ground.at(0.0, 0.0)
    for _ in range(60):
        angle = _bearing(scenery, wish.side)
        ahead = np.array([math.sin(angle), math.cos(angle)])
        with np.errstate(divide="ignore"):
            reach = np.where(ahead > 0, scenery.high[::2], scenery.low[::2]) / ahead
        sideways = int(reach.argmin()) == 0
        x, z = ahead * reach.min()
        spot = np.array([x, floor - low * scenery.unit, z])
        apart = all(np.linalg.norm((spot - other)[::2]) > 1.1 * (half + size) for other, size in scenery.hung)
        along, wall = (z, scenery.high[2]) if sideways else (x, scenery.high[0])
        fits = abs(along) + half < abs(wall)
        if apart and fits and z > 0.3 and math.hypot(x, z) > 0.85 + half:
            scenery.hung.append((spot, half))
            yaw = 0.0 if not sideways else math.copysign(math.pi / 2, x)
            draw(_painter(scenery, wish, spot, yaw, scenery.unit, usual))
            return Placed(wish, scenery.draft.group)
    return None


def _build_in(scenery: Scenery, wish: Wish, placed: Sequence[Placed]) -> Placed:
    """Puts a door or a window into the front of the first building."""
    groups = [thing.group for thing in placed if thing.wish.name in BUILDINGS]
    walls = [part for part in scenery.draft.objects if part[-1] in groups[:1]]
    if not walls:
        return Placed(wish, -1)
    draw, usual, _, low = ON_WALLS[wish.name]
    _, center, half, yaw, _ = walls[0]
    along = 0.35 * half[0] * (wish.side or 1)
    foot = center + np.array([0, half[1] - low * scenery.unit, 0])
    x, z = turned(yaw, float(along), -float(half[2]) - 0.06 * scenery.unit)
    draw(_painter(scenery, wish, foot + np.array([x, 0, z]), yaw, scenery.unit, usual))
    return Placed(wish, scenery.draft.group)


def place_all(scenery: Scenery, wishes: Sequence[Wish], indoors: bool) -> list[Placed]:
    """Puts all things of a brief somewhere, the large ones first; one without a place has group -1."""
    placed: list[Placed] = []
    large = [wish for wish in wishes if not is_small(wish.name) and not (indoors and wish.name in ON_WALLS)]
    hanging = [wish for wish in wishes if indoors and wish.name in ON_WALLS]
    small = [wish for wish in wishes if is_small(wish.name)]
    for wish in hanging:
        placed += [hung for _ in range(wish.count) if (hung := hang(scenery, wish))] or [Placed(wish, -1)]
    if small and not any(wish.name in _TOPS for wish in large) and not scenery.tops:
        stand(scenery, Wish("table", "table"), indoors)
    order = sorted(
        large,
        key=lambda wish: -(extent(wish.name)[0] if wish.name in STANDING or wish.name in (*GROWN, *BUILDINGS) else 0.5),
    )
    order.sort(key=lambda wish: wish.name not in _TOPS or not small)
    for wish in order:
        if wish.name in ON_WALLS:
            placed.append(_build_in(scenery, wish, placed))
            continue
        placed += [stood for _ in range(wish.count) if (stood := stand(scenery, wish, indoors))] or [Placed(wish, -1)]
    for wish in small:
        laid = [thing for _ in range(wish.count) if scenery.tops and (thing := lay(scenery, wish))]
        placed += laid or [Placed(wish, -1)]
    scenery.wanted = list(scenery.taken)
    return placed
