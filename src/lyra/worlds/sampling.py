"""Sampling: a seed becomes a world (``sample_world``), and a world becomes a caption (``describe_world``).

A bare room is drawn first, then pictures on its walls and furniture on its floor. The world is rescaled to the median
z-depth of its input view, drawn anew where that view is dull, and given its textures and exposure last.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from lyra.cameras import Cameras, intrinsics_from_fov
from lyra.worlds.textures import TEXTURES, hsv, make_atlas
from lyra.worlds.tracing import first_hits, render_world
from lyra.worlds.world import BOX, CYLINDER, INPUT_FOV, SPHERE, World


class _Builder:
    """Collects surfaces and objects while a world is drawn; lengths in units of the empty room's median depth."""

    def __init__(self, rng: Generator):
        self.rng = rng
        self.surfaces: list[tuple[int, list[float], np.ndarray, float]] = []
        self.objects: list[tuple[int, np.ndarray, np.ndarray, float]] = []

    def paint(self, names: str, repeats: tuple[float, float] | None = None, glow: float = 0.0):
        """Adds a surface with a texture of one of the named kinds; a pair of repeats centres it once on a face."""
        rng, wanted = self.rng, names.split()
        name = wanted[rng.integers(len(wanted))]
        index = rng.choice([i for i, kind in enumerate(TEXTURES) if kind == name])
        if repeats:
            mapping = [*repeats, 0.5, 0.5]
        else:
            scale = math.exp(rng.uniform(math.log(0.7), math.log(2.2)))
            # Bricks, tiles and books have a size of their own.
            scale *= 1.7 if name in ("brick", "tiles", "books") else 1.0
            mapping = [scale, scale, *rng.random(2)]
        tint = rng.uniform(0.55, 1.0) * (1 + 0.1 * rng.standard_normal(3)).clip(0.7, 1.2)
        self.surfaces.append((int(index), mapping, tint, glow))

    def add(
        self, kind: int, center: Sequence[float] | np.ndarray, half: Sequence[float] | np.ndarray, yaw: float, *paint
    ) -> None:
        """Adds an object and its surface."""
        self.objects.append((kind, np.array(center), np.array(half), yaw))
        self.paint(*paint)
        if kind != BOX:  # a whole number of repeats around, so that no seam shows
            mapping, around = self.surfaces[-1][1], 2 * math.pi * float(np.array(half)[0])
            mapping[0] = max(1, round(around * mapping[0])) / around


def _distance(place: np.ndarray, center: np.ndarray, half: np.ndarray, yaw: float) -> float:
    """Distance of a point from an object's yawed bounding box."""
    x, y, z = place - center
    local = np.array([math.cos(yaw) * x - math.sin(yaw) * z, y, math.sin(yaw) * x + math.cos(yaw) * z])
    return float(np.linalg.norm((np.abs(local) - half).clip(0)))


def _furnish(build: _Builder, kind: int, center: np.ndarray, half: np.ndarray, turn: float) -> None:
    """One piece of furniture that fills the given box on the floor: a table, a seat or a plain body, with things on."""
    rng = build.rng
    (x, y, z), (width, height, depth) = center, half
    floor, top = y + height, y - height
    low_box = kind == BOX and 0.07 < height < 0.22
    style = rng.choice(["table", "seat", "body"], p=(0.45, 0.25, 0.3)) if low_box else "body"
    if style == "table":
        build.add(BOX, (x, top + 0.012, z), (width, 0.012, depth), turn, "wood marble plaster")
        leg = min(width, depth) * rng.uniform(0.15, 0.6)
        build.add(CYLINDER, (x, y + 0.012, z), (leg, height - 0.012, leg), turn, "wood plaster")
    elif style == "seat":
        # The back stands at the far long side; the cushion's top is halfway up.
        cloth = rng.choice(["carpet", "plaster", "checks", "stripes"])
        shift = np.array([math.sin(turn), math.cos(turn)]) * 0.8 * depth * np.array([-1, 1])
        build.add(BOX, (x, floor - 0.5 * height, z), (width, 0.5 * height, depth), turn, cloth)
        build.objects.append(
            (BOX, np.array([x + shift[0], y, z + shift[1]]), np.array([width, height, 0.2 * depth]), turn)
        )
        build.surfaces.append(build.surfaces[-1])
        top = floor - height
    else:
        build.add(kind, center, half, turn, "wood wood plaster plaster stone carpet checks stripes marble books")
    if kind != SPHERE and top > -0.2 and rng.random() < 0.6:
        small = min(width, depth) * rng.uniform(0.3, 0.6)
        other = int(rng.choice([BOX, SPHERE, CYLINDER]))
        tall = small if other == SPHERE else small * rng.uniform(0.6, 1.8)
        paints = "plaster wood marble stripes stone checks"
        build.add(other, (x, top - tall, z), (small, tall, small), turn, paints)


def _stand_objects(build: _Builder, room: np.ndarray, yaw: float, light: np.ndarray, count: int) -> None:
    """Furniture on the floor, clear of the cameras, the light and each other."""
    rng, floor = build.rng, room[1, 1]
    taken: list[tuple[float, float, float]] = []
    for _ in range(60):
        angle, far = yaw + rng.uniform(-0.62, 0.62), rng.uniform(0.85, 2.6)
        x, z = far * math.sin(angle), far * math.cos(angle)
        kind = int(rng.choice([BOX, BOX, BOX, BOX, CYLINDER, SPHERE]))
        width, depth = rng.uniform(0.07, 0.3), rng.uniform(0.06, 0.2)
        # Most things end below the eye; a few are tall and narrow.
        height = rng.uniform(0.04, 0.22)
        if rng.random() < 0.15:
            width, depth, height = 0.6 * width, 0.6 * depth, rng.uniform(0.25, 0.42 * (floor - room[0, 1]))
        if kind != BOX:
            width = depth = rng.uniform(0.04, 0.14)
        if kind == SPHERE:
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
        _furnish(build, kind, center, half, float(turn))
        if len(build.objects) >= count:
            return


def _hang_pictures(build: _Builder, room: np.ndarray, yaw: float, count: int) -> None:
    """Pictures, book shelves and windows on the walls in view: thin boxes whose face shows one texture once."""
    rng = build.rng
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
        build.add(BOX, center, half, math.pi / 2 if side else 0.0, *paint, rng.uniform(1, 3) if window else 0.0)
        if len(used) >= count:
            return


def _draw_room(rng: Generator) -> tuple[np.ndarray, np.ndarray, float]:
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
        (cy, sy), (cp, sp), (cr, sr) = ((math.cos(a), math.sin(a)) for a in (yaw, pitch, roll))
        rotation = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]) @ [[1, 0, 0], [0, cp, sp], [0, -sp, cp]]
        rotation = rotation @ [[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]]
        low = np.array([-rng.uniform(0.7, 2.4), -rng.uniform(0.5, 1.0), -rng.uniform(1.0, 2.5)])
        high = np.array([rng.uniform(0.7, 2.4), rng.uniform(0.48, 0.8), rng.uniform(1.0, 3.0)])
        inward = rays @ rotation.T
        room = np.stack([low, high]) / np.median(np.maximum(low / inward, high / inward).min(1))
        corners = reach @ rotation.T
        sides = np.abs(room[:, 0]).min() > 0.66 and np.abs(room[:, 1]).min() > 0.41
        inside = (corners > room[0] + 0.07).all() and (corners < room[1] - 0.07).all()
        if sides and inside and room[0, 2] < -0.86 and room[1, 2] > 0.76:
            return rotation, room, yaw


def _draw(rng: Generator) -> World:
    """One random world without its textures; its scale and exposure are not settled yet."""
    build = _Builder(rng)
    rotation, room, yaw = _draw_room(rng)
    walls = "plaster plaster plaster plaster plaster plaster brick stone stripes tiles wood"
    build.paint(walls)
    first = build.surfaces[0]
    build.surfaces.append(first)
    build.paint("plaster")
    build.paint("wood wood tiles carpet marble stone checks")
    build.surfaces += [first, first]
    if rng.random() < 0.4:  # an accent wall
        build.paint(walls)
        build.surfaces[5] = build.surfaces.pop()
    light = np.array([rng.uniform(*(0.8 * room[:, 0])), 0.85 * room[0, 1], rng.uniform(0.2, 0.8 * room[1, 2])])
    _hang_pictures(build, room, yaw, int(rng.integers(1, 4)))
    _stand_objects(build, room, yaw, light, int(rng.integers(6, 15)))
    warm = hsv(rng.uniform(0.06, 0.13), rng.uniform(0.0, 0.35), 1.0)
    cool = hsv(rng.uniform(0.0, 1.0), rng.uniform(0.0, 0.12), 1.0) * rng.uniform(0.15, 0.6)
    fill = np.array([rng.normal(), -abs(rng.normal()) - 0.3, rng.normal() - 0.5])
    kinds, centers, halves, yaws = zip(*build.objects, strict=True)
    textures, mappings, tints, glows = zip(*build.surfaces, strict=True)

    def tensor(values: object) -> Tensor:
        return torch.from_numpy(np.array(values, np.float32))

    return World(
        rotation=tensor(rotation),
        room=tensor(room),
        kinds=torch.tensor(kinds),
        centers=tensor(centers),
        half_sizes=tensor(halves),
        yaws=tensor(yaws),
        textures=torch.tensor(textures),
        mappings=tensor(mappings),
        tints=tensor(tints),
        emissions=tensor(glows),
        atlas=torch.zeros(0, 4),
        light=tensor([light, warm * rng.uniform(0.6, 1.6)]),
        ambient=tensor([cool, fill / np.linalg.norm(fill)]),
        exposure=torch.tensor(1.0),
    )


def _input_camera(size: int) -> Cameras:
    """The camera that fixes a world's scale: the identity with ``INPUT_FOV``."""
    return Cameras(torch.eye(4)[None], intrinsics_from_fov(INPUT_FOV, size, size)[None], size, size)


def _scaled(world: World, factor: float) -> World:
    """The same world with all lengths multiplied."""
    light = torch.stack([world.light[0] * factor, world.light[1]])
    mappings = world.mappings.clone()
    mappings[:, :2] /= factor
    lengths = {name: getattr(world, name) * factor for name in ("room", "centers", "half_sizes")}
    return replace(world, **lengths, light=light, mappings=mappings)


def _input_depth(world: World, size: int = 128) -> Tensor:
    """The z-depth map of the input view, without colors."""
    camera = _input_camera(size)
    k = camera.intrinsics[0]
    v, u = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    d = torch.stack([(u - k[2]) / k[0], (v - k[3]) / k[1], torch.ones_like(u)]).flatten(1)
    d = (world.rotation[:, :, None] * d).sum(1)
    return first_hits(world, torch.zeros(3, 1), torch.where(d.abs() < 1e-7, 1e-7, d))[0]


def sample_world(seed: int) -> World:
    """Draws the world of a seed.

    The input camera is at the origin of the world, looks along +z and sees the scene at a median z-depth of 1.
    Every object is at least 0.75 away from it, side walls 0.65, floor and ceiling 0.4, the wall behind 0.85.

    Args:
        seed: Any non-negative integer; the same seed gives the same bytes.

    Returns:
        The world, on the CPU, in float32.
    """
    rng = np.random.default_rng(seed)
    while True:
        world = _draw(rng)
        near, middle, far = torch.quantile(_input_depth(world), torch.tensor([0.05, 0.5, 0.95])).tolist()
        world = _scaled(world, 1 / middle)
        # A view of little more than one wall teaches nothing about depth.
        if far > 1.7 * near and len(world.kinds) >= 6:
            break
    world = replace(world, atlas=make_atlas(rng))
    colors, _ = render_world(world, _input_camera(32), supersample=1)
    # An automatic exposure: the view's mean radiance is brought to a random brightness.
    radiance = -torch.log1p(-colors.clamp(max=0.9999).pow(2.2)).mean()
    return replace(world, exposure=torch.tensor(math.exp(rng.normal(-1.0, 0.3))) / radiance)


def describe_world(world: World) -> str:
    """A short caption: what stands in the room and what its surfaces are made of."""
    kinds = world.kinds.tolist()
    counts = [(kinds.count(kind), name) for kind, name in enumerate(("box", "sphere", "cylinder"))]
    things = [f"{n} {'boxes' if name == 'box' and n > 1 else name + 's' * (n > 1)}" for n, name in counts if n]
    made_of = {"tiles": "tiled", "checks": "checked", "stripes": "striped", "carpet": "carpeted"}
    wall, floor = (TEXTURES[int(world.textures[surface])] for surface in (5, 3))
    wall, floor = made_of.get(wall, wall), made_of.get(floor, floor)
    return f"a room with {wall} walls, a {floor} floor, {', '.join(things)}"
