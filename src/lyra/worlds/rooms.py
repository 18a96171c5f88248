"""Indoor worlds: furnished rooms (``draw_room``) and table tops (``draw_table``).

A bare room is drawn first, then pictures on its walls and furniture on its floor, or a table and what lies on it.
"""

import math

import numpy as np
from numpy.random import Generator

from lyra.worlds.drawing import Draft, camera_rotation, indoor_light, turned
from lyra.worlds.world import BOX, CYLINDER, ELLIPSOID, INPUT_FOV, World


def _distance(place: np.ndarray, center: np.ndarray, half: np.ndarray, yaw: float) -> float:
    """Distance of a point from an object's yawed bounding box."""
    x, y, z = place - center
    local = np.array([math.cos(yaw) * x - math.sin(yaw) * z, y, math.sin(yaw) * x + math.cos(yaw) * z])
    return float(np.linalg.norm((np.abs(local) - half).clip(0)))


def _furnish(draft: Draft, kind: int, center: np.ndarray, half: np.ndarray, turn: float) -> None:
    """One piece of furniture that fills the given box on the floor: a table, a seat or a plain body, with things on."""
    rng = draft.rng
    (x, y, z), (width, height, depth) = center, half
    floor, top = y + height, y - height
    low_box = kind == BOX and 0.07 < height < 0.22
    style = rng.choice(["table", "seat", "body"], p=(0.45, 0.25, 0.3)) if low_box else "body"
    if style == "table":
        draft.add(BOX, (x, top + 0.012, z), (width, 0.012, depth), turn, "wood marble plaster")
        leg = min(width, depth) * rng.uniform(0.15, 0.6)
        draft.add(CYLINDER, (x, y + 0.012, z), (leg, height - 0.012, leg), turn, "wood plaster")
    elif style == "seat":
        # The back stands at the far long side; the cushion's top is halfway up.
        cloth = rng.choice(["carpet", "plaster", "checks", "stripes"])
        shift = np.array([math.sin(turn), math.cos(turn)]) * 0.8 * depth * np.array([-1, 1])
        draft.add(BOX, (x, floor - 0.5 * height, z), (width, 0.5 * height, depth), turn, cloth)
        draft.add(BOX, (x + shift[0], y, z + shift[1]), (width, height, 0.2 * depth), turn, None)
        top = floor - height
    else:
        draft.add(kind, center, half, turn, "wood wood plaster plaster stone carpet checks stripes marble books")
    if kind != ELLIPSOID and top > -0.2 and rng.random() < 0.6:
        small = min(width, depth) * rng.uniform(0.3, 0.6)
        other = int(rng.choice([BOX, ELLIPSOID, CYLINDER]))
        tall = small if other == ELLIPSOID else small * rng.uniform(0.6, 1.8)
        paints = "plaster wood marble stripes stone checks"
        draft.add(other, (x, top - tall, z), (small, tall, small), turn, paints)


def _stand_objects(draft: Draft, room: np.ndarray, yaw: float, light: np.ndarray, count: int) -> None:
    """Furniture on the floor, clear of the cameras, the light and each other."""
    rng, floor = draft.rng, room[1, 1]
    taken: list[tuple[float, float, float]] = []
    for _ in range(60):
        angle, far = yaw + rng.uniform(-0.62, 0.62), rng.uniform(0.85, 2.6)
        x, z = far * math.sin(angle), far * math.cos(angle)
        kind = int(rng.choice([BOX, BOX, BOX, BOX, CYLINDER, ELLIPSOID]))
        width, depth = rng.uniform(0.07, 0.3), rng.uniform(0.06, 0.2)
        # Most things end below the eye; a few are tall and narrow.
        height = rng.uniform(0.04, 0.22)
        if rng.random() < 0.15:
            width, depth, height = 0.6 * width, 0.6 * depth, rng.uniform(0.25, 0.42 * (floor - room[0, 1]))
        if kind != BOX:
            width = depth = rng.uniform(0.04, 0.14)
        if kind == ELLIPSOID:
            height = width
        spread = math.hypot(width, depth)
        x, z = np.clip([x, z], room[0, ::2] + width, room[1, ::2] - depth)
        center, half = np.array([x, floor - height, z]), np.array([width, height, depth])
        turn = rng.choice([0.0, math.pi / 2]) if rng.random() < 0.4 else rng.uniform(-0.8, 0.8)
        # The things on top may reach above the body: keep the whole column clear.
        column = np.array([x, 0.4 * floor, z]), np.array([width, 0.6 * floor, depth])
        clear = min(_distance(np.zeros(3), *part, turn) for part in ((center, half), column)) > 0.78
        clear &= _distance(light, center, half, turn) > 0.15
        if not clear or any(math.hypot(x - a, z - b) < 0.8 * (spread + r) for a, b, r in taken):
            continue
        taken.append((x, z, spread))
        draft.group += 1
        _furnish(draft, kind, center, half, float(turn))
        if len(draft.objects) >= count:
            return


def hang_pictures(draft: Draft, room: np.ndarray, yaw: float, count: int) -> None:
    """Pictures, book shelves and windows on the walls in view: thin boxes whose face shows one texture once."""
    rng = draft.rng
    used: list[np.ndarray] = []
    for _ in range(20):
        angle = yaw + rng.uniform(-0.55, 0.55)
        ahead = np.array([math.sin(angle), 0.0, math.cos(angle)])
        with np.errstate(divide="ignore"):
            reach = np.where(ahead > 0, room[1], room[0])[::2] / ahead[::2]
        side = int(reach.argmin()) == 0
        center = ahead * reach.min()
        width, height = rng.uniform(0.1, 0.32), rng.uniform(0.1, 0.26)
        center[1] = rng.uniform(0.6 * room[0, 1], 0.1 * room[1, 1])
        height = min(height, 0.9 * (center[1] - room[0, 1]))
        apart = all(np.linalg.norm(center - other) > 0.6 for other in used)
        if not apart or np.linalg.norm(center) < 0.85 + width:
            continue
        used.append(center)
        half = (width, height, rng.uniform(0.008, 0.05))
        window = rng.random() < 0.2
        paint = ("poster plaster" if window else "poster poster poster books", (0.5 / width, 0.5 / height))
        draft.group += 1
        draft.add(BOX, center, half, math.pi / 2 if side else 0.0, *paint, rng.uniform(1, 3) if window else 0.0)
        if len(used) >= count:
            return


def bare_room(rng: Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """A room whose bare walls have a median depth of 1 and which the cameras cannot leave.

    Returns:
        World-to-room rotation, low and high corner, and the yaw of the view in radians. Objects only bring the median
        depth down, so that the clearances of the bare room grow when the furnished one is rescaled.
    """
    pixels = (np.arange(24) + 0.5) / 12 - 1
    y, x = np.meshgrid(pixels, pixels, indexing="ij")
    slope = math.tan(math.radians(INPUT_FOV) / 2)
    rays = np.stack([slope * x, slope * y, np.ones_like(x)], -1).reshape(-1, 3)
    reach = np.stack(np.meshgrid([-0.3, 0.3], [-0.3, 0.3], [-0.4, 0.4]), -1).reshape(-1, 3)
    while True:
        yaw, pitch, roll = rng.uniform(-0.7, 0.7), rng.normal(0.12, 0.1), rng.normal(0, 0.015)
        rotation = camera_rotation(yaw, pitch, roll)
        low = np.array([-rng.uniform(0.7, 2.4), -rng.uniform(0.5, 1.0), -rng.uniform(1.0, 2.5)])
        high = np.array([rng.uniform(0.7, 2.4), rng.uniform(0.48, 0.8), rng.uniform(1.0, 3.0)])
        inward = rays @ rotation.T
        room = np.stack([low, high]) / np.median(np.maximum(low / inward, high / inward).min(1))
        corners = reach @ rotation.T
        sides = np.abs(room[:, 0]).min() > 0.66 and np.abs(room[:, 1]).min() > 0.41
        inside = (corners > room[0] + 0.07).all() and (corners < room[1] - 0.07).all()
        if sides and inside and room[0, 2] < -0.86 and room[1, 2] > 0.76:
            return rotation, room, yaw


def draw_room(rng: Generator) -> World:
    """A furnished room."""
    draft = Draft(rng)
    rotation, room, yaw = bare_room(rng)
    walls = "plaster plaster plaster plaster plaster plaster brick stone stripes tiles wood"
    draft.paint(walls)
    first = draft.surfaces[0]
    draft.surfaces.append(first)
    draft.paint("plaster")
    draft.paint("wood wood tiles carpet marble stone checks")
    draft.surfaces += [first, first]
    if rng.random() < 0.4:  # an accent wall
        draft.paint(walls)
        draft.surfaces[5] = draft.surfaces.pop()
    light = np.array([rng.uniform(*(0.8 * room[:, 0])), 0.85 * room[0, 1], rng.uniform(0.2, 0.8 * room[1, 2])])
    hang_pictures(draft, room, yaw, int(rng.integers(1, 6)))
    _stand_objects(draft, room, yaw, light, int(rng.integers(8, 24)))
    lamp, cool, fill = indoor_light(rng)
    kinds = [kind for kind, *_ in draft.objects]
    counts = [(kinds.count(kind), name) for kind, name in ((BOX, "box"), (ELLIPSOID, "sphere"), (CYLINDER, "cylinder"))]
    draft.things = [f"{n} {'boxes' if name == 'box' and n > 1 else name + 's' * (n > 1)}" for n, name in counts if n]
    return draft.finish("room", rotation, room, (light, lamp), (cool, fill))


_PAINTS = "plaster wood marble stripes stone checks paint paint carpet tiles"


def _lay_vessel(draft: Draft, x: float, z: float, top: float, size: float, name: str, turn: float) -> None:
    """A cup, a bottle or a bowl."""
    rng = draft.rng
    radius, height = size * rng.uniform(0.28, 0.5), size * rng.uniform(0.4, 0.7)
    if name == "bottle":
        radius, height = 0.7 * radius, 1.5 * height
    body = (radius, height, radius)
    draft.add(CYLINDER, (x, top - height, z), body, turn, "paint paint " + _PAINTS, period=2 * size)
    if name == "bottle":
        draft.add(ELLIPSOID, (x, top - 2 * height, z), (radius, 0.9 * radius, radius), turn, None)
        draft.add(CYLINDER, (x, top - 2.5 * height, z), (0.35 * radius, 0.5 * height, 0.35 * radius), turn, None)
    elif name == "cup":
        dark = (0.88 * radius, 0.02 * height, 0.88 * radius)
        draft.add(CYLINDER, (x, top - 2.005 * height, z), dark, turn, "bark", tint=0.5)
        dx, dz = turned(turn, 1.2 * radius, 0.0)
        draft.add(BOX, (x + dx, top - height, z + dz), (0.3 * radius, 0.5 * height, 0.1 * radius), turn, None)


def _lay_thing(draft: Draft, x: float, z: float, top: float, size: float) -> str:
    """One thing of about the given size on a table top; returns what it is."""
    rng, turn = draft.rng, float(draft.rng.uniform(-1.6, 1.6))
    draft.group += 1
    name = str(rng.choice(["books", "box", "ball", "cup", "plate", "bottle", "fruit", "bowl"]))
    if name == "books":
        for _ in range(int(rng.integers(1, 5))):
            half = np.array([0.75, 0.0, 0.55]) * size * rng.uniform(0.8, 1.15)
            half[1] = size * rng.uniform(0.07, 0.2)
            face = (0.5 / half[0], 0.5 / half[2])
            draft.add(BOX, (x, top - half[1], z), half, turn + rng.normal(0, 0.15), "poster poster paint stripes", face)
            top -= 2 * half[1]
    elif name == "box":
        half = size * rng.uniform(0.35, 0.9, 3)
        draft.add(BOX, (x, top - half[1], z), half, turn, _PAINTS + " poster books", period=size * rng.uniform(1, 4))
    elif name in ("ball", "fruit"):
        for _ in range(1 if name == "ball" else int(rng.integers(2, 6))):
            radius = size * (rng.uniform(0.4, 0.8) if name == "ball" else rng.uniform(0.25, 0.35))
            flat = 1.0 if name == "ball" else rng.uniform(0.75, 1.1)
            half = (radius, radius * flat, radius)
            draft.add(ELLIPSOID, (x, top - radius * flat, z), half, turn, _PAINTS, period=size * rng.uniform(0.8, 4))
            x, z = x + rng.uniform(-1, 1) * size * 0.7, z + rng.uniform(-1, 1) * size * 0.7
    elif name == "plate":
        for _ in range(int(rng.integers(1, 3))):
            half = (size, 0.06 * size, size)
            draft.add(CYLINDER, (x, top - half[1], z), half, turn, "paint plaster marble stripes")
            top, size = top - 0.12 * size, 0.6 * size
        if rng.random() < 0.5:
            half = (0.7 * size, 0.4 * size, 0.6 * size)
            draft.add(ELLIPSOID, (x, top - 0.3 * size, z), half, turn, "stone leaves marble", period=size)
    else:
        _lay_vessel(draft, x, z, top, size, name, turn)
    return name


def draw_table(rng: Generator) -> World:
    """Small things on a table, seen from above; the unit is the way to the table along the view."""
    draft = Draft(rng)
    yaw, pitch, roll = rng.uniform(-0.5, 0.5), math.radians(rng.uniform(18, 52)), rng.normal(0, 0.02)
    top, ahead = math.sin(pitch), math.cos(pitch)
    table = np.array([rng.uniform(0.6, 1.6), 0.03, rng.uniform(0.5, 1.0)])
    center = np.array([rng.uniform(-0.15, 0.15), top + table[1], ahead * 0.95 + rng.uniform(-0.1, 0.3)])
    low = np.array([-rng.uniform(1.2, 2.6), -rng.uniform(0.5, 1.2), -rng.uniform(1.0, 2.0)])
    high = np.array([rng.uniform(1.2, 2.6), top + rng.uniform(0.6, 1.0), center[2] + table[2] + rng.uniform(0.1, 2.2)])
    room = np.stack([low, high])
    draft.paint("plaster plaster plaster brick stone wood tiles books")
    first = draft.surfaces[0]
    draft.surfaces.append(first)
    draft.paint("plaster")
    draft.paint("wood wood tiles carpet marble stone checks")
    draft.surfaces += [first, first]
    draft.add(
        BOX,
        center,
        table,
        0.0,
        "wood wood wood marble plaster stone checks stripes carpet",
        period=rng.uniform(0.5, 1.6),
    )
    for side in (-1, 1):
        leg = (center[0] + side * 0.9 * table[0], 0.5 * (top + high[1]) + 0.03, center[2])
        draft.add(BOX, leg, (0.04, 0.5 * (high[1] - top) - 0.03, 0.7 * table[2]), 0.0, None)
    hang_pictures(draft, room, yaw, int(rng.integers(0, 3)))
    wanted, taken, names = int(rng.integers(8, 26)), [], []
    for _ in range(60):
        size = math.exp(rng.uniform(math.log(0.05), math.log(0.17)))
        spot = center[::2] + (table[::2] - size).clip(0.02) * rng.uniform(-1, 1, 2)
        x, z = spot[0] if rng.random() < 0.3 else np.clip(spot[0], -0.6, 0.6), spot[1]
        if all(math.hypot(x - a, z - b) > 0.9 * (size + other) for a, b, other in taken):
            taken.append((x, z, size))
            names.append(_lay_thing(draft, float(x), float(z), top, size))
        if len(taken) >= wanted:
            break
    draft.things = sorted(set(names))
    lamp, cool, fill = indoor_light(rng)
    light = np.array(
        [rng.uniform(*(0.7 * room[:, 0])), rng.uniform(0.5, 0.9) * room[0, 1], rng.uniform(-0.6, 0.8 * high[2])]
    )
    rotation = camera_rotation(yaw, pitch, roll)
    return draft.finish("table", rotation, room, (light, 1.5 * lamp), (cool, fill))
