"""Furnished rooms: walls with real textures, furniture at its real size along them, and small things on everything.

Rooms are in metres: x across, y down with the floor at 0, z deep; the corner is the origin.
"""

import math
from collections.abc import Sequence

import numpy as np

from lyra.worlds.furniture import Furniture, FurnitureStore, Model
from lyra.worlds.interiors import Room, Top, box_triangles, round_triangles, turn
from lyra.worlds.maps import MapArchive
from lyra.worlds.meshes import mip_chain

_ROOM_KINDS = {
    "kitchen": (("Kitchen", 1.0), ("Miscellaneous", 0.2)),
    "living": (("Living room", 1.0), ("Miscellaneous", 0.3), ("Office", 0.2)),
    "bedroom": (("Bedroom", 1.0), ("Living room", 0.4)),
    "office": (("Office", 1.0), ("Living room", 0.5), ("Miscellaneous", 0.3)),
    "bath": (("Bathroom", 1.0), ("Miscellaneous", 0.1)),
}
_KIND_SHARES = (0.45, 0.25, 0.1, 0.13, 0.07)
_SMALL_M, _TALLEST_ON_TOP_M = 0.5, 0.55
_CATEGORIES_ON_TOP = ("Kitchen", "Miscellaneous", "Office", "Living room", "Bathroom")


class Furnisher:
    """Fills rooms out of the furniture's catalogues and the maps' textures."""

    def __init__(self, store: FurnitureStore, archive: MapArchive):
        self.store, self.archive = store, archive
        names = archive.texture_names
        self.surfaces = {
            "wall": _named(names, ("plaster", "wallpaper", "wall0", "concrete", "bricks", "tile", "stucco", "tapet")),
            "floor": _named(names, ("carpet", "wood", "tile", "floor", "parquet", "planks", "stone")),
            "wood": _named(names, ("wood", "planks", "table")),
            "door": _named(names, ("door0", "door_")),
            "picture": _named(names, ("tex_pics/",)),
            "any": _named(
                names, ("box0", "books", "shop/", "tetra", "tin0", "textil", "metal", "marble", "carpet", "tex_pics")
            ),
        }
        entries = store.entries
        self.standing = {
            kind: [
                e
                for e in entries
                if e.category == kind
                and not e.opening
                and e.elevation < 0.05
                and 0.25 < e.size[1] < 2.4
                and e.size[0] < 2.8
            ]
            for kind in {c for parts in _ROOM_KINDS.values() for c, _ in parts}
        }
        self.hanging = [
            e
            for e in entries
            if e.elevation > 0.5 and not e.opening and e.category in _CATEGORIES_ON_TOP and e.size[2] < 0.7
        ]
        self.small = [
            e
            for e in entries
            if e.category in _CATEGORIES_ON_TOP
            and max(e.size[0], e.size[2]) < _SMALL_M
            and 0.02 < e.size[1] < _TALLEST_ON_TOP_M
        ]
        self.openings = [e for e in entries if e.opening and e.size[1] > 0.4]
        self.people = [e for e in entries if e.category == "Characters" and e.size[1] > 0.8]

    def surface(self, room: Room, kind: str) -> int:
        """A texture of a kind, drawn at random."""
        names = self.surfaces[kind]
        name = names[int(room.random.integers(len(names)))]
        return room.texture(name, self.archive.picture(name)[1])

    def plain(self, room: Room) -> int:
        """Nearly white, a little spotted."""
        key = ("plain", int(room.random.integers(4)))
        noise = np.random.default_rng(key[1]).normal(238, 1.5 + 2 * key[1], (64, 64, 1)).clip(0, 255)
        return room.texture(
            key, mip_chain(np.concatenate([noise.repeat(3, 2), np.full((64, 64, 1), 255)], 2).astype(np.uint8))
        )

    def furnish(self, seed: int) -> Room:
        """A whole room; the same for the same seed."""
        random = np.random.default_rng([seed, 77])
        kind = str(random.choice(list(_ROOM_KINDS), p=_KIND_SHARES))
        room = Room(random.uniform(2.3, 6.0), random.uniform(2.6, 6.5), random.uniform(2.25, 3.1), random)
        self._shell(room)
        if kind == "kitchen" or random.random() < 0.15:
            for wall in random.permutation(4)[: random.integers(1, 4)]:
                self._counter(room, int(wall))
        self._openings(room)
        self._along_walls(room, kind)
        self._tables(room)
        self._on_walls(room)
        self._floor_things(room)
        self._clutter(room)
        return room

    def box(
        self,
        room: Room,
        center: Sequence[float] | np.ndarray,
        half: Sequence[float] | np.ndarray,
        yaw: float,
        texture: int,
        tint: object,
        repeat_m: float = 1.0,
    ) -> None:
        """A box; y of ``center`` is its middle."""
        faces, places = box_triangles(half, repeat_m)
        room.add(turn(faces, yaw) + np.asarray(center), places, np.array(texture), np.asarray(tint))

    def place(self, room: Room, model: Model, x: float, y: float, z: float, yaw: float, scale: float = 1.0) -> None:
        """A model with its foot at a point."""
        numbers = np.array(
            [
                self.plain(room) if chain is None else room.texture((id(model), index), chain)
                for index, chain in enumerate(model.pictures)
            ]
        )
        tints = model.tints * (1 if room.random.random() < 0.6 else room.random.uniform(0.5, 1.3, 3))
        room.add(
            turn(model.vertices * scale, yaw) + np.array([x, y, z]),
            model.uv,
            numbers[model.material],
            tints[model.material],
        )

    def _shell(self, room: Room) -> None:
        random, w, d, h = room.random, room.width, room.depth, room.height
        color = _pale(random)
        plain_walls = random.random() < 0.6
        for axis, at in ((0, -0.05), (0, w + 0.05), (2, -0.05), (2, d + 0.05)):
            texture = self.plain(room) if plain_walls else self.surface(room, "wall")
            tint = color if plain_walls else random.uniform(0.8, 1.2)
            center = [w / 2, -h / 2, d / 2]
            center[axis] = at
            half = [w / 2 + 0.1, h / 2, d / 2 + 0.1]
            half[axis] = 0.05
            self.box(room, center, half, 0.0, texture, np.ones(3) * tint, random.uniform(0.8, 2.5))
        floor = self.surface(room, "floor") if random.random() < 0.85 else self.plain(room)
        self.box(room, (w / 2, 0.05, d / 2), (w / 2, 0.05, d / 2), 0.0, floor, _pale(random), random.uniform(0.5, 2.0))
        self.box(room, (w / 2, -h - 0.05, d / 2), (w / 2, 0.05, d / 2), 0.0, self.plain(room), _pale(random, 0.85), 2.0)
        if random.random() < 0.6:
            tint, texture = _pale(random, 0.5), self.plain(room)
            for x, z, a, b in (
                (w / 2, 0.01, w / 2, 0.01),
                (w / 2, d - 0.01, w / 2, 0.01),
                (0.01, d / 2, 0.01, d / 2),
                (w - 0.01, d / 2, 0.01, d / 2),
            ):
                self.box(room, (x, -0.05, z), (a, 0.05, b), 0.0, texture, tint)

    def _wall_place(self, room: Room, wall: int, along: float, deep: float) -> tuple[float, float, float]:
        """x, z and yaw of something so far along a wall whose middle is so far from it."""
        if wall == 0:
            return along, room.depth - deep, 0.0
        if wall == 1:
            return room.width - deep, along, math.pi / 2
        if wall == 2:
            return along, deep, math.pi
        return deep, along, -math.pi / 2

    def _wall_length(self, room: Room, wall: int) -> float:
        return room.width if wall in (0, 2) else room.depth

    def _stand(
        self, room: Room, wall: int, along: float, width: float, depth: float, gap: float = 0.0
    ) -> tuple[float, float, float] | None:
        """Where something of that size stands at a wall, if there is room; takes the floor."""
        x, z, yaw = self._wall_place(room, wall, along, depth / 2 + 0.02)
        a, b = (width / 2, depth / 2) if wall in (0, 2) else (depth / 2, width / 2)
        if not room.free(x - a, z - b, x + a, z + b, gap):
            return None
        room.footprints.append((x - a, z - b, x + a, z + b))
        return x, z, yaw

    def _counter(self, room: Room, wall: int) -> None:
        """Kitchen cabinets with a worktop, and cabinets above."""
        random, length = room.random, self._wall_length(room, wall)
        start, end = sorted(random.uniform(0, length, 2))
        start, end = (0.02 if start < 0.8 else start), (length - 0.02 if end > length - 0.8 else end)
        if end - start < 0.8:
            return
        deep, high = random.uniform(0.55, 0.65), random.uniform(0.82, 0.95)
        stand = self._stand(room, wall, (start + end) / 2, end - start, deep)
        if stand is None:
            return
        wood = random.random() < 0.5
        front = self.surface(room, "wood") if wood else self.plain(room)
        tint = random.uniform(0.6, 1.1) * np.ones(3) if wood else _pale(random, 0.3)
        slab = self.surface(room, "any") if random.random() < 0.4 else self.plain(room)
        slab_tint, handle = random.uniform(0.1, 1.0) * np.ones(3) * _pale(random, 0.8), random.uniform(0.1, 0.8)
        x, z, yaw = stand
        self.box(room, (x, -high / 2, z), ((end - start) / 2, high / 2, deep / 2 - 0.03), yaw, front, tint * 0.7)
        self.box(room, (x, -high - 0.02, z), ((end - start) / 2, 0.02, deep / 2), yaw, slab, slab_tint)
        room.tops.append(Top(x, z, (end - start) / 2, deep / 2, yaw, high + 0.04))
        above, bottom, top = (
            random.random() < 0.75,
            random.uniform(1.3, 1.5),
            random.uniform(1.9, min(2.3, room.height)),
        )
        count = max(1, round((end - start) / random.uniform(0.4, 0.65)))
        step = (end - start) / count
        for k in range(count):
            along = start + (k + 0.5) * step
            cx, cz, _ = self._wall_place(room, wall, along, deep - 0.02)
            self.box(room, (cx, -high / 2 - 0.03, cz), (step / 2 - 0.006, high / 2 - 0.05, 0.015), yaw, front, tint)
            hx, hz, _ = self._wall_place(room, wall, along + step * 0.35, deep + 0.01)
            self.box(room, (hx, -high + 0.18, hz), (0.008, 0.07, 0.012), yaw, self.plain(room), np.ones(3) * handle)
            if above and random.random() < 0.85:
                ux, uz, _ = self._wall_place(room, wall, along, 0.17)
                half = (step / 2 - 0.004, (top - bottom) / 2, 0.17)
                self.box(room, (ux, -(top + bottom) / 2, uz), half, yaw, front, tint)

    def _openings(self, room: Room) -> None:
        random = room.random
        for wall in range(4):
            length = self._wall_length(room, wall)
            if random.random() < 0.35:
                along, high, half = (
                    random.uniform(0.5, max(0.51, length - 0.5)),
                    random.uniform(1.95, 2.1),
                    random.uniform(0.38, 0.48),
                )
                x, z, yaw = self._wall_place(room, wall, along, 0.02)
                texture = self.surface(room, "door") if random.random() < 0.6 else self.plain(room)
                faces, _ = box_triangles((half, high / 2, 0.025), 1.0)
                places = np.concatenate([faces[..., :1] / (2 * half) + 0.5, faces[..., 1:2] / high + 0.5], -1)
                room.add(turn(faces, yaw) + np.array([x, -high / 2, z]), places, np.array(texture), _pale(random, 0.5))
            elif random.random() < 0.5:
                along, half = random.uniform(0.6, max(0.61, length - 0.6)), random.uniform(0.3, 0.9)
                bottom, top = random.uniform(0.8, 1.1), random.uniform(1.8, 2.15)
                x, z, yaw = self._wall_place(room, wall, along, 0.01)
                self.box(
                    room,
                    (x, -(bottom + top) / 2, z),
                    (half, (top - bottom) / 2, 0.012),
                    yaw,
                    self.plain(room),
                    random.uniform(1.0, 3.0) * np.ones(3),
                )
                for side in (-1, 0, 1):
                    fx, fz, _ = self._wall_place(room, wall, along + side * half, 0.03)
                    self.box(
                        room,
                        (fx, -(bottom + top) / 2, fz),
                        (0.03, (top - bottom) / 2, 0.03),
                        yaw,
                        self.plain(room),
                        np.ones(3) * 0.9,
                    )
                for y in (bottom, top):
                    self.box(room, (x, -y, z), (half + 0.03, 0.03, 0.05), yaw, self.plain(room), np.ones(3) * 0.9)
                room.windows.append((*self._wall_place(room, wall, along, 0.35)[:2], -(bottom + top) / 2))

    def _along_walls(self, room: Room, kind: str) -> None:
        random = room.random
        categories, shares = zip(*_ROOM_KINDS[kind], strict=True)
        shares = np.array(shares) / sum(shares)
        for _ in range(int(random.integers(8, 24))):
            entries = self.standing[str(random.choice(categories, p=shares))]
            entry = entries[int(random.integers(len(entries)))]
            model = self.store.model(entry)
            if model is None:
                continue
            width, _, depth = entry.size
            if random.random() < 0.75:
                wall = int(random.integers(4))
                along = random.uniform(width / 2, max(width / 2 + 0.01, self._wall_length(room, wall) - width / 2))
                stand = self._stand(room, wall, along, width, depth)
            else:
                stand = self._stand_free(room, width, depth)
            if stand is not None:
                self.place(room, model, stand[0], 0.0, stand[1], stand[2] + random.normal(0, 0.03))
                self._remember_top(room, entry, *stand)

    def _stand_free(self, room: Room, width: float, depth: float) -> tuple[float, float, float] | None:
        random = room.random
        radius = math.hypot(width, depth) / 2
        x, z = random.uniform(0, room.width), random.uniform(0, room.depth)
        if not room.free(x - radius, z - radius, x + radius, z + radius):
            return None
        room.footprints.append((x - radius, z - radius, x + radius, z + radius))
        return x, z, random.uniform(0, 2 * math.pi)

    def _remember_top(self, room: Room, entry: Furniture, x: float, z: float, yaw: float) -> None:
        if entry.top is not None and 0.2 < entry.top < 1.5 and min(entry.size[0], entry.size[2]) > 0.25:
            room.tops.append(Top(x, z, entry.size[0] * 0.42, entry.size[2] * 0.42, yaw, entry.top))

    def _tables(self, room: Room) -> None:
        random = room.random
        for _ in range(int(random.integers(0, 3))):
            width, depth, high = random.uniform(0.6, 1.8), random.uniform(0.5, 0.95), random.uniform(0.45, 0.78)
            stand = self._stand_free(room, width, depth)
            if stand is None:
                continue
            x, z, yaw = stand
            texture = self.surface(room, "wood") if random.random() < 0.7 else self.plain(room)
            tint, leg = random.uniform(0.3, 1.1) * np.ones(3), random.uniform(0.015, 0.05)
            self.box(room, (x, -high, z), (width / 2, 0.02, depth / 2), yaw, texture, tint, random.uniform(0.4, 1.5))
            for i in (-1, 1):
                for j in (-1, 1):
                    foot = turn(np.array([i * (width / 2 - leg), 0, j * (depth / 2 - leg)]), yaw)
                    self.box(room, (x + foot[0], -high / 2, z + foot[2]), (leg, high / 2, leg), yaw, texture, tint)
            room.tops.append(Top(x, z, width / 2, depth / 2, yaw, high + 0.02))
            for _ in range(int(random.integers(0, 5))):
                chairs = [
                    e for e in self.store.entries if "hair" in e.name and e.category != "Characters" and e.size[1] < 1.3
                ]
                model = self.store.model(chairs[int(random.integers(len(chairs)))])
                if model is not None:
                    angle = random.uniform(0, 2 * math.pi)
                    offset = turn(np.array([0, 0, random.uniform(0.5, 0.75) * (width + depth) / 1.7]), angle)
                    cx, cz = x + offset[0], z + offset[2]
                    if 0.3 < cx < room.width - 0.3 and 0.3 < cz < room.depth - 0.3:
                        self.place(room, model, cx, 0.0, cz, angle + random.normal(0, 0.3))
                        room.footprints.append((cx - 0.25, cz - 0.25, cx + 0.25, cz + 0.25))

    def _on_walls(self, room: Room) -> None:
        random = room.random
        for _ in range(int(random.integers(1, 8))):
            wall = int(random.integers(4))
            along, up = random.uniform(0.3, self._wall_length(room, wall) - 0.3), random.uniform(1.1, 1.9)
            choice = random.random()
            if choice < 0.5:
                half, high = random.uniform(0.1, 0.45), random.uniform(0.1, 0.4)
                x, z, yaw = self._wall_place(room, wall, along, 0.02)
                texture = self.surface(room, "picture")
                faces, _ = box_triangles((half, high, 0.015), 1.0)
                places = np.concatenate([faces[..., :1] / (2 * half) + 0.5, faces[..., 1:2] / (2 * high) + 0.5], -1)
                room.add(turn(faces, yaw) + np.array([x, -up, z]), places, np.array(texture), np.ones(3) * 0.9)
            elif choice < 0.75:
                half, deep = random.uniform(0.2, 0.7), random.uniform(0.1, 0.17)
                x, z, yaw = self._wall_place(room, wall, along, deep)
                self.box(room, (x, -up, z), (half, 0.012, deep), yaw, self.surface(room, "wood"), np.ones(3))
                room.tops.append(Top(x, z, half, deep, yaw, up + 0.012))
            else:
                entry = self.hanging[int(random.integers(len(self.hanging)))]
                model = self.store.model(entry)
                if model is not None and entry.elevation + entry.size[1] < room.height:
                    x, z, yaw = self._wall_place(room, wall, along, entry.size[2] / 2 + 0.01)
                    self.place(room, model, x, -entry.elevation, z, yaw)

    def _floor_things(self, room: Room) -> None:
        random = room.random
        if random.random() < 0.4:
            half = random.uniform(0.4, 1.2, 2)
            center = (random.uniform(0.5, room.width - 0.5), -0.004, random.uniform(0.5, room.depth - 0.5))
            self.box(
                room,
                center,
                (half[0], 0.004, half[1]),
                random.normal(0, 0.1),
                self.surface(room, "floor"),
                _pale(random, 0.2),
            )
        if random.random() < 0.12 and self.people:
            entry = self.people[int(random.integers(len(self.people)))]
            model, stand = self.store.model(entry), self._stand_free(room, 0.5, 0.4)
            if model is not None and stand is not None:
                self.place(room, model, stand[0], 0.0, stand[1], stand[2])
        for _ in range(int(random.integers(0, 8))):
            stand = self._stand_free(room, 0.25, 0.25)
            if stand is not None:
                self._thing(room, stand[0], 0.0, stand[1], 1.8)

    def _clutter(self, room: Room) -> None:
        random = room.random
        for top in list(room.tops):
            area = 4 * top.half_width * top.half_depth
            taken: list[tuple[float, float]] = []
            for _ in range(int(random.integers(0, max(2, int(4 + 10 * area))))):
                a, b = random.uniform(-0.92, 0.92, 2) * (top.half_width, top.half_depth)
                if any(math.hypot(a - c, b - d) < 0.11 for c, d in taken):
                    continue
                taken.append((a, b))
                place = turn(np.array([a, 0.0, b]), top.yaw)
                self._thing(room, top.x + place[0], -top.height, top.z + place[2], 1.0)

    def _thing(self, room: Room, x: float, y: float, z: float, scale: float) -> None:
        """Something small that stands at a point."""
        random = room.random
        choice, yaw = random.random(), random.uniform(0, 2 * math.pi)
        if choice < 0.5:
            entry = self.small[int(random.integers(len(self.small)))]
            model = self.store.model(entry)
            if model is not None:
                self.place(room, model, x, y, z, yaw)
            return
        texture = self.surface(room, "any") if random.random() < 0.6 else self.plain(room)
        tint = random.uniform(0.15, 1.1, 3) if random.random() < 0.7 else np.ones(3)
        if choice < 0.75:
            half = random.uniform(0.02, 0.14, 3) * scale
            self.box(room, (x, y - half[1], z), half, yaw, texture, tint, random.uniform(0.1, 0.4))
            return
        radius, high = random.uniform(0.025, 0.09) * scale, random.uniform(0.05, 0.3) * scale
        if random.random() < 0.4:  # a bottle
            faces = round_triangles([radius, radius, radius * 0.4, radius * 0.4], [0.0, high * 0.6, high * 0.8, high])
        elif random.random() < 0.5:  # a bowl or cup
            faces = round_triangles([radius * 0.5, radius * 0.9, radius], [0.0, high * 0.4, high * 0.6])
        else:
            faces = round_triangles([radius, radius], [0.0, high])
        places = np.stack([np.arctan2(faces[..., 2], faces[..., 0]) / math.pi, faces[..., 1] / high], -1)
        room.add(faces + np.array([x, y, z]), places, np.array(texture), tint)


def _named(names: Sequence[str], parts: Sequence[str]) -> list[str]:
    wrong = ("alien", "ufo", "grate", "_blend", "light", "fence")
    return [name for name in names if any(p in name for p in parts) and not any(p in name for p in wrong)]


def _pale(random: np.random.Generator, least: float = 0.55) -> np.ndarray:
    return (random.uniform(least, 1.0) * np.ones(3) + random.normal(0, 0.06, 3)).clip(0.05, 1.1)
