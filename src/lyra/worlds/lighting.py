"""Light in a room: lamps with shadows, light from all around, and darkness where surfaces meet."""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float
from numba import njit

from lyra.worlds.meshes import Mesh
from lyra.worlds.rasterizing import Lens, Surfaces, find_surfaces

_SHADOW_SIDE = 320
_BIAS = 0.03
"""Metres by which a surface may lie behind what the lamp sees and still be lit."""
FACES = (
    ((0, 0, -1), (0, 1, 0), (1, 0, 0)),
    ((0, 0, 1), (0, 1, 0), (-1, 0, 0)),
    ((1, 0, 0), (0, 0, -1), (0, 1, 0)),
    ((1, 0, 0), (0, 0, 1), (0, -1, 0)),
    ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    ((-1, 0, 0), (0, 1, 0), (0, 0, -1)),
)
"""Right, down and forward of the six cameras around a lamp: +x, -x, +y, -y, +z, -z."""


@dataclass(frozen=True)
class Lamp:
    """A point light and the depth of what it sees on six sides."""

    place: Float[np.ndarray, "3"]
    color: Float[np.ndarray, "3"]
    """Light at one metre."""
    depth: Float[np.ndarray, "6 side side"]


def hang_lamp(mesh: Mesh, place: Float[np.ndarray, "3"], color: Float[np.ndarray, "3"]) -> Lamp:
    """A lamp with its shadows of a mesh."""
    focal, side = _SHADOW_SIDE / 2, _SHADOW_SIDE
    views = [find_surfaces(mesh, Lens(np.array(face, np.float64), place, focal, side, side)).depth for face in FACES]
    return Lamp(place, color, np.stack(views))


def light_surfaces(
    surfaces: Surfaces,
    normals: Float[np.ndarray, "triangle 3"],
    lens: Lens,
    lamps: list[Lamp],
    ambient: Float[np.ndarray, "3"],
    softness: float = 0.03,
) -> Float[np.ndarray, "height width 3"]:
    """Light that every pixel's surface receives.

    Args:
        surfaces: What the lens sees.
        normals: Of the triangles, in the camera's frame, turned to the camera.
        lens: The camera.
        lamps: Shine, weaker with distance.
        ambient: From everywhere, less in corners.
        softness: Of the shadows' edges, in parts of the distance to the lamp.
    """
    light = ambient * close_corners(surfaces.depth, surfaces.triangle, normals, lens.focal)[..., None]
    for lamp in lamps:
        center = lens.rotation @ (lamp.place - lens.center)
        light = (
            light
            + _shine(
                surfaces.depth,
                surfaces.triangle,
                normals,
                lens.focal,
                center,
                np.ascontiguousarray(lens.rotation.T),
                lamp.depth,
                softness,
            )[..., None]
            * lamp.color
        )
    return light


@njit(cache=True)
@no_type_check
def _shine(depth, triangle, normals, focal, lamp, to_world, seen, softness):  # noqa: C901
    """Share of one lamp's light at every pixel."""
    height, width = depth.shape
    result = np.zeros((height, width), np.float32)
    side = seen.shape[1]
    d = np.zeros(3)
    for row in range(height):
        for column in range(width):
            index = triangle[row, column]
            if index < 0:
                continue
            z = depth[row, column]
            x, y = (column + 0.5 - width / 2) / focal * z, (row + 0.5 - height / 2) / focal * z
            to = (lamp[0] - x, lamp[1] - y, lamp[2] - z)
            distance = np.sqrt(to[0] ** 2 + to[1] ** 2 + to[2] ** 2) + 1e-6
            facing = (to[0] * normals[index, 0] + to[1] * normals[index, 1] + to[2] * normals[index, 2]) / distance
            if facing <= 0:
                continue
            for k in range(3):
                d[k] = -(to_world[k, 0] * to[0] + to_world[k, 1] * to[1] + to_world[k, 2] * to[2])
            a, b, c = abs(d[0]), abs(d[1]), abs(d[2])
            if a >= b and a >= c:
                face, far, u, v = (0, d[0], -d[2], d[1]) if d[0] > 0 else (1, -d[0], d[2], d[1])
            elif b >= c:
                face, far, u, v = (2, d[1], d[0], -d[2]) if d[1] > 0 else (3, -d[1], d[0], d[2])
            else:
                face, far, u, v = (4, d[2], d[0], d[1]) if d[2] > 0 else (5, -d[2], -d[0], d[1])
            open_, count = 0, 0
            for i in range(-1, 2):
                for j in range(-1, 2):
                    p = int((u / far + i * softness) * side / 2 + side / 2)
                    q = int((v / far + j * softness) * side / 2 + side / 2)
                    if 0 <= p < side and 0 <= q < side:
                        count += 1
                        if seen[face, q, p] > far - _BIAS * (1 + far / 2):
                            open_ += 1
            result[row, column] = facing * open_ / max(count, 1) / (0.3 + distance * distance)
    return result


@njit(cache=True)
@no_type_check
def close_corners(depth, triangle, normals, focal, radius=0.35, rings=2, spokes=6):
    """Share of the light from everywhere that gets to every pixel, by the depth around it, from 0.2 to 1.

    Source: horizon-like screen-space ambient occlusion.
    """
    height, width = depth.shape
    result = np.ones((height, width), np.float32)
    for row in range(height):
        for column in range(width):
            index = triangle[row, column]
            if index < 0:
                continue
            z = depth[row, column]
            x, y = (column + 0.5 - width / 2) / focal * z, (row + 0.5 - height / 2) / focal * z
            reach = radius * focal / z
            turn = ((column * 7 + row * 13) % 16) / 16 * 6.2832 / spokes
            blocked = 0.0
            for spoke in range(spokes):
                angle = spoke * 6.2832 / spokes + turn
                highest = 0.0
                for ring in range(1, rings + 1):
                    far = reach * ring / rings
                    p, q = int(column + np.cos(angle) * far), int(row + np.sin(angle) * far)
                    if p < 0 or q < 0 or p >= width or q >= height or triangle[q, p] < 0:
                        continue
                    other = depth[q, p]
                    dx, dy = (p + 0.5 - width / 2) / focal * other - x, (q + 0.5 - height / 2) / focal * other - y
                    dz = other - z
                    length = np.sqrt(dx * dx + dy * dy + dz * dz) + 1e-6
                    if length > 2 * radius:
                        continue
                    rise = (dx * normals[index, 0] + dy * normals[index, 1] + dz * normals[index, 2]) / length
                    highest = max(highest, (rise - 0.1) * min(1.0, 2 - length / radius))
                blocked += min(highest, 1.0)
            result[row, column] = max(0.2, 1 - 1.1 * blocked / spokes)
    return result
