"""A z-buffer for textured triangles: exact z-depth, normals, filtered textures and stored light at every pixel.

A triangle is drawn by homogeneous edge functions: with its corners as the columns of M, the ray d = (x, y, 1) of a
pixel meets its plane at the weights b = z M^-1 d, which add up to 1, so that 1 / z is the sum of M^-1 d and nothing
needs to be clipped.

Source: Olano & Greer 1997, Triangle scan conversion using 2D homogeneous coordinates.
"""

from dataclasses import dataclass
from typing import no_type_check

import numpy as np
from jaxtyping import Float, Int, UInt8
from numba import njit

from lyra.worlds.meshes import Mesh

NOTHING = -1
"""The triangle of a pixel that meets none."""
# The tests' type-checking import hook must not wrap what numba compiles, hence ``no_type_check``.
_NEAR = 0.02
_EDGE = 1e-7
"""By so much of the whole do neighbours overlap, or else their common edge would let pixels through."""


@dataclass(frozen=True)
class Lens:
    """A pinhole camera at a place of a mesh."""

    rotation: Float[np.ndarray, "3 3"]
    """Rows are the camera's right, down and forward in the mesh's frame."""
    center: Float[np.ndarray, "3"]
    """Metres."""
    focal: float
    """Pixels."""
    height: int
    width: int

    def scaled(self, factor: float) -> "Lens":
        """The same view with more or fewer pixels."""
        height, width = round(self.height * factor), round(self.width * factor)
        return Lens(self.rotation, self.center, self.focal * width / self.width, height, width)


@dataclass(frozen=True)
class Surfaces:
    """What every pixel's ray meets first."""

    depth: Float[np.ndarray, "height width"]
    """Z-depth in metres; infinite where there is nothing."""
    triangle: Int[np.ndarray, "height width"]
    weights: Float[np.ndarray, "height width 2"]
    """Of the triangle's first two corners."""
    gradients: Float[np.ndarray, "triangle 3 3"]
    """M^-1 of each triangle as the lens sees it."""
    back: UInt8[np.ndarray, "triangle"]
    """1 where a triangle is seen from behind; corners run clockwise in the picture from the front."""


def find_surfaces(mesh: Mesh, lens: Lens) -> Surfaces:
    """Nearest triangle of every pixel; texels that are holes let the ray through."""
    seen = (mesh.vertices.astype(np.float64) - lens.center) @ lens.rotation.T
    textures = mesh.textures
    depth, triangle, weights, gradients, back = _rasterize(
        seen,
        mesh.uv,
        mesh.texture,
        textures.texels,
        textures.offsets,
        textures.sizes,
        textures.holes,
        lens.focal,
        lens.height,
        lens.width,
    )
    return Surfaces(depth, triangle, weights, gradients, back)


def triangle_normals(mesh: Mesh, lens: Lens) -> Float[np.ndarray, "triangle 3"]:
    """Unit normals in the camera's frame, turned to the camera."""
    seen = (mesh.vertices.astype(np.float64) - lens.center) @ lens.rotation.T
    normal = np.cross(seen[:, 1] - seen[:, 0], seen[:, 2] - seen[:, 0])
    normal /= np.linalg.norm(normal, axis=1, keepdims=True).clip(min=1e-12)
    away = (normal * seen[:, 0]).sum(1) > 0
    return np.where(away[:, None], -normal, normal)


def surface_colors(mesh: Mesh, lens: Lens, surfaces: Surfaces) -> Float[np.ndarray, "height width 3"]:
    """Texture colors in [0, 1] (sRGB), filtered over the pixel; black where there is nothing."""
    textures = mesh.textures
    return _shade(
        surfaces.triangle,
        surfaces.depth,
        surfaces.gradients,
        mesh.uv,
        mesh.texture,
        mesh.tint,
        textures.texels,
        textures.offsets,
        textures.sizes,
        lens.focal,
    )


def stored_light(mesh: Mesh, surfaces: Surfaces) -> Float[np.ndarray, "height width 3"]:
    """Stored light in [0, 1] at every pixel; 0.5 where a triangle has none."""
    return _light(surfaces.triangle, surfaces.weights, mesh.light, mesh.light_offset, mesh.light_size, mesh.light_uv)


@njit(cache=True)
@no_type_check
def _inverse(m, out):
    """Inverse of the 3 x 3 matrix whose columns are the rows of ``m``; returns its determinant."""
    a, b, c = m[0, 0], m[1, 0], m[2, 0]
    d, e, f = m[0, 1], m[1, 1], m[2, 1]
    g, h, i = m[0, 2], m[1, 2], m[2, 2]
    det = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    if abs(det) < 1e-14:
        return 0.0
    out[0, 0], out[0, 1], out[0, 2] = (e * i - f * h) / det, (c * h - b * i) / det, (b * f - c * e) / det
    out[1, 0], out[1, 1], out[1, 2] = (f * g - d * i) / det, (a * i - c * g) / det, (c * d - a * f) / det
    out[2, 0], out[2, 1], out[2, 2] = (d * h - e * g) / det, (b * g - a * h) / det, (a * e - b * d) / det
    return det


@njit(cache=True)
@no_type_check
def _bounds(corners, focal, height, width):
    """Columns and rows that the part of a triangle before the near plane can cover."""
    left, right, top, bottom = 1e30, -1e30, 1e30, -1e30
    for k in range(3):
        p, q = corners[k], corners[(k + 1) % 3]
        for end in range(2):
            if end == 0:
                x, y, z = p[0], p[1], p[2]
                if z < _NEAR:
                    continue
            else:
                if (p[2] < _NEAR) == (q[2] < _NEAR):
                    continue
                t = (_NEAR - p[2]) / (q[2] - p[2])
                x, y, z = p[0] + t * (q[0] - p[0]), p[1] + t * (q[1] - p[1]), _NEAR
            column, row = focal * x / z + width / 2, focal * y / z + height / 2
            left, right = min(left, column), max(right, column)
            top, bottom = min(top, row), max(bottom, row)
    first_column, last_column = int(max(left - 1, 0.0)), int(min(right + 1, width - 1.0))
    first_row, last_row = int(max(top - 1, 0.0)), int(min(bottom + 1, height - 1.0))
    return first_column, last_column, first_row, last_row


@njit(cache=True)
@no_type_check
def _is_hole(u, v, texture, texels, offsets, sizes):
    wide, high = sizes[texture, 0, 0], sizes[texture, 0, 1]
    column, row = int((u - np.floor(u)) * wide) % wide, int((v - np.floor(v)) * high) % high
    return texels[offsets[texture, 0] + row * wide + column, 3] < 128


@njit(cache=True)
@no_type_check
def _rasterize(seen, uv, texture, texels, offsets, sizes, holes, focal, height, width):
    depth = np.full((height, width), np.inf, np.float32)
    triangle = np.full((height, width), NOTHING, np.int32)
    weights = np.zeros((height, width, 2), np.float32)
    gradients = np.zeros((len(seen), 3, 3))
    back = np.zeros(len(seen), np.uint8)
    for index in range(len(seen)):
        inverse = gradients[index]
        determinant = _inverse(seen[index], inverse)
        if determinant == 0.0 or max(seen[index, 0, 2], seen[index, 1, 2], seen[index, 2, 2]) < _NEAR:
            continue
        back[index] = determinant < 0
        first_column, last_column, first_row, last_row = _bounds(seen[index], focal, height, width)
        has_holes = holes[texture[index]] == 1
        for row in range(first_row, last_row + 1):
            y = (row + 0.5 - height / 2) / focal
            for column in range(first_column, last_column + 1):
                x = (column + 0.5 - width / 2) / focal
                a = inverse[0, 0] * x + inverse[0, 1] * y + inverse[0, 2]
                b = inverse[1, 0] * x + inverse[1, 1] * y + inverse[1, 2]
                c = inverse[2, 0] * x + inverse[2, 1] * y + inverse[2, 2]
                total = a + b + c
                slack = -_EDGE * total
                if total <= 0 or a < slack or b < slack or c < slack:
                    continue
                z = 1 / total
                if z < _NEAR or z >= depth[row, column]:
                    continue
                if has_holes:
                    u = (a * uv[index, 0, 0] + b * uv[index, 1, 0] + c * uv[index, 2, 0]) * z
                    v = (a * uv[index, 0, 1] + b * uv[index, 1, 1] + c * uv[index, 2, 1]) * z
                    if _is_hole(u, v, texture[index], texels, offsets, sizes):
                        continue
                depth[row, column] = z
                triangle[row, column] = index
                weights[row, column, 0], weights[row, column, 1] = a * z, b * z
    return depth, triangle, weights, gradients, back


@njit(cache=True)
@no_type_check
def _bilinear(u, v, texture, level, texels, offsets, sizes, out, share):
    wide, high = sizes[texture, level, 0], sizes[texture, level, 1]
    base = offsets[texture, level]
    x, y = (u - np.floor(u)) * wide - 0.5, (v - np.floor(v)) * high - 0.5
    column, row = int(np.floor(x)), int(np.floor(y))
    fx, fy = x - column, y - row
    for dy in range(2):
        line = base + ((row + dy) % high) * wide
        share_y = fy if dy else 1 - fy
        for dx in range(2):
            texel = texels[line + (column + dx) % wide]
            factor = share * share_y * (fx if dx else 1 - fx) / 255
            for channel in range(3):
                out[channel] += factor * texel[channel]


@njit(cache=True)
@no_type_check
def _shade(triangle, depth, gradients, uv, texture, tint, texels, offsets, sizes, focal):
    height, width = triangle.shape
    colors = np.zeros((height, width, 3), np.float32)
    last = offsets.shape[1] - 1
    out = np.zeros(3)
    for row in range(height):
        y = (row + 0.5 - height / 2) / focal
        for column in range(width):
            index = triangle[row, column]
            if index < 0:
                continue
            x = (column + 0.5 - width / 2) / focal
            g, z, t = gradients[index], depth[row, column], texture[index]
            u, v, along, down, total_x, total_y = 0.0, 0.0, np.zeros(2), np.zeros(2), 0.0, 0.0
            for k in range(3):
                share = (g[k, 0] * x + g[k, 1] * y + g[k, 2]) * z
                u += share * uv[index, k, 0]
                v += share * uv[index, k, 1]
                total_x += g[k, 0]
                total_y += g[k, 1]
            for k in range(3):  # how texture positions change by one pixel across and down
                for axis in range(2):
                    along[axis] += (g[k, 0]) * uv[index, k, axis]
                    down[axis] += (g[k, 1]) * uv[index, k, axis]
            step = z / focal
            wide, high = sizes[t, 0, 0], sizes[t, 0, 1]
            du_x, dv_x = (along[0] - u * total_x) * step * wide, (along[1] - v * total_x) * step * high
            du_y, dv_y = (down[0] - u * total_y) * step * wide, (down[1] - v * total_y) * step * high
            footprint = np.sqrt(np.sqrt((du_x**2 + dv_x**2 + 1e-12) * (du_y**2 + dv_y**2 + 1e-12)))
            detail = min(max(np.log2(max(footprint, 1e-6)), 0.0), last - 0.001)
            level = int(detail)
            out[:] = 0
            _bilinear(u, v, t, level, texels, offsets, sizes, out, 1 - (detail - level))
            _bilinear(u, v, t, level + 1, texels, offsets, sizes, out, detail - level)
            for channel in range(3):
                colors[row, column, channel] = out[channel] * tint[index, channel]
    return colors


@njit(cache=True)
@no_type_check
def _light(triangle, weights, light, light_offset, light_size, light_uv):
    height, width = triangle.shape
    result = np.full((height, width, 3), 0.5, np.float32)
    for row in range(height):
        for column in range(width):
            index = triangle[row, column]
            if index < 0 or light_offset[index] < 0:
                continue
            a, b = weights[row, column, 0], weights[row, column, 1]
            c = 1 - a - b
            wide, high = light_size[index, 0], light_size[index, 1]
            place = light_uv[index]
            x = min(max(a * place[0, 0] + b * place[1, 0] + c * place[2, 0], 0.0), wide - 1.001)
            y = min(max(a * place[0, 1] + b * place[1, 1] + c * place[2, 1], 0.0), high - 1.001)
            x, y = max(x, 0.0), max(y, 0.0)
            left, top = int(x), int(y)
            fx, fy = x - left, y - top
            for channel in range(3):
                value = 0.0
                for dy in range(2):
                    for dx in range(2):
                        at = light_offset[index] + min(top + dy, high - 1) * wide + min(left + dx, wide - 1)
                        share = (fy if dy else 1 - fy) * (fx if dx else 1 - fx)
                        value += share * light[at, channel]
                result[row, column, channel] = value / 255
    return result
