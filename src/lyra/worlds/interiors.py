"""What a furnished room is made of while it is filled: triangles, textures, places taken and places to put things on.

Lengths are in metres: x across, y down with the floor at 0, z deep; the corner is the origin.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from lyra.worlds.meshes import Mesh, build_textures, unlit_mesh


@dataclass(frozen=True)
class Top:
    """A level surface that things stand on."""

    x: float
    z: float
    half_width: float
    half_depth: float
    yaw: float
    height: float
    """Metres above the floor."""


@dataclass
class Room:
    """A room while it is filled."""

    width: float
    depth: float
    height: float
    random: np.random.Generator
    chains: list = field(default_factory=list)
    parts: list = field(default_factory=list)
    footprints: list = field(default_factory=list)
    """Of what stands on the floor: left, near, right, far."""
    tops: list = field(default_factory=list)
    windows: list = field(default_factory=list)
    """Places just inside."""
    _numbers: dict = field(default_factory=dict)

    def texture(self, name: object, chain: list) -> int:
        """The number of a texture, added on first use."""
        if name not in self._numbers:
            self._numbers[name] = len(self.chains)
            self.chains.append(chain)
        return self._numbers[name]

    def add(self, vertices: np.ndarray, uv: np.ndarray, texture: np.ndarray, tint: np.ndarray) -> None:
        """Triangles, all of one surface where ``tint`` is one color."""
        self.parts.append(
            (vertices, uv, np.broadcast_to(texture, len(vertices)), np.broadcast_to(tint, (len(vertices), 3)))
        )

    def free(self, left: float, near: float, right: float, far: float, gap: float = 0.0) -> bool:
        """Whether nothing stands in a rectangle of the floor."""
        if left < 0 or near < 0 or right > self.width or far > self.depth:
            return False
        return all(
            right + gap < a or left - gap > c or far + gap < b or near - gap > d for a, b, c, d in self.footprints
        )

    def mesh(self) -> Mesh:
        """All of it."""
        surface = np.concatenate([np.full(len(part[0]), index) for index, part in enumerate(self.parts)])
        columns = [np.concatenate([np.asarray(part[k]) for part in self.parts]) for k in range(4)]
        return unlit_mesh(columns[0], columns[1], columns[2], columns[3], surface, build_textures(self.chains))


def turn(points: np.ndarray, yaw: float) -> np.ndarray:
    """Points turned about the vertical: +z goes to +x at a quarter turn."""
    cos, sin = math.cos(yaw), math.sin(yaw)
    x, z = points[..., 0], points[..., 2]
    return np.stack([cos * x + sin * z, points[..., 1], cos * z - sin * x], -1)


def box_triangles(half: Sequence[float] | np.ndarray, repeat_m: float) -> tuple[np.ndarray, np.ndarray]:
    """The 12 triangles of a box around the origin, and texture positions that repeat every so many metres."""
    faces, places = [], []
    for axis in range(3):
        u, v = [(2, 1), (0, 2), (0, 1)][axis]
        for sign in (-1, 1):
            corners = np.zeros((4, 3))
            corners[:, axis] = sign * half[axis]
            corners[:, u] = np.array([-1, 1, 1, -1]) * half[u]
            corners[:, v] = np.array([-1, -1, 1, 1]) * half[v]
            for fan in ((0, 1, 2), (0, 2, 3)):
                faces.append(corners[list(fan)])
                places.append(corners[list(fan)][:, [u, v]] / repeat_m)
    return np.array(faces), np.array(places)


def round_triangles(radii: Sequence[float], heights: Sequence[float], sides: int = 14) -> np.ndarray:
    """A turned body about the vertical, foot at y = 0: radii at heights, closed at the top."""
    angle = np.arange(sides + 1) * 2 * math.pi / sides
    rings = []
    for radius, height in zip(radii, heights, strict=True):
        rings.append(np.stack([radius * np.cos(angle), np.full(sides + 1, -height), radius * np.sin(angle)], -1))
    rings.append(np.broadcast_to(np.array([0.0, -heights[-1], 0.0]), (sides + 1, 3)))
    faces = []
    for low, high in pairwise(rings):
        for k in range(sides):
            faces.append([low[k], low[k + 1], high[k + 1]])
            faces.append([low[k], high[k + 1], high[k]])
    return np.array(faces)
