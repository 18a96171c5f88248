"""Foreground masking: what the cache's dropped depth edges would hide.

Dropping the pixels of a depth edge opens a gap through which points behind it show up in a new view. The edge's
pixels, joined to a coarse mesh, cover that gap: what is splatted behind the mesh is erased again.

Source: ``--foreground_masking`` of GEN3C; golden ``forward_warp``, variant ``cache_lyra``.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from typing import no_type_check

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from numba import njit
from torch import Tensor

from lyra.cache.warp import CacheViews, DepthCache, WarpSettings
from lyra.device.compiling import compiled
from lyra.geometry.cameras import Cameras


@dataclass(frozen=True)
class Masking:
    """How coarse the mesh is, and how far behind it a point must lie; the published values."""

    downsample: int = 4
    margin: float = 0.02
    """Scene units of z-depth."""


def mask_occluded(
    cache: DepthCache,
    views: CacheViews,
    cameras: Cameras,
    settings: WarpSettings,
    masking: Masking | None = None,
) -> CacheViews:
    """Erases from every view what lies behind the mesh of the cache's unreliable pixels.

    Args:
        cache: With ``reliable`` False on depth edges.
        views: ``render_cache`` of it.
        cameras: The same path.
        settings: The same pixel centres.
        masking: Mesh and margin.
    """
    masking = masking or Masking()
    images, masks, depth = views.images.clone(), views.masks.clone(), views.depth.clone()

    def mask(place: tuple[int, int]) -> None:
        buffer, frame = place
        mesh = edge_mesh_depth(cache, buffer, cameras[frame : frame + 1], settings, masking.downsample)
        hidden = (mesh > 0) & (mesh + masking.margin < depth[frame, buffer])
        images[frame, buffer, :, hidden] = -1
        masks[frame, buffer, hidden] = 0
        depth[frame, buffer, hidden] = 0

    places = product(range(len(cache.points)), range(len(cameras)))
    # A frame a thread: they share nothing, and a GPU that waits for a whole clip's would wait for long.
    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(mask, places))
    return replace(views, images=images, masks=masks, depth=depth)


def edge_mesh_depth(
    cache: DepthCache, buffer: int, camera: Cameras, settings: WarpSettings, downsample: int
) -> Float[Tensor, "height width"]:
    """Z-depth of the mesh of a buffer's unreliable pixels in one camera; 0 where a pixel's ray misses it."""
    transform = camera.world_to_camera[0]
    local = cache.points[buffer] @ transform[:3, :3].mT + transform[:3, 3]
    rows, columns = local.shape[0] // downsample, local.shape[1] // downsample
    vertices = F.interpolate(local.movedim(-1, 0)[None], size=(rows, columns), mode="bilinear", align_corners=False)
    edge = F.interpolate((~cache.reliable[buffer]).float()[None, None], size=(rows, columns), mode="nearest")[0, 0]
    fx, fy, cx, cy = (float(value) - settings.pixel_center * (i > 1) for i, value in enumerate(camera.intrinsics[0]))
    mesh = _trace(
        vertices[0].movedim(0, -1).double().contiguous().numpy(),
        _cells(edge > 0.5).numpy(),
        np.array([fx, fy, cx, cy]),
        camera.height,
        camera.width,
    )
    return torch.from_numpy(mesh).to(local.dtype)


def _cells(edge: Bool[Tensor, "row column"]) -> Bool[Tensor, "cell_row cell_column"]:
    """2x2 cells with any vertex on an edge."""
    return edge[:-1, :-1] | edge[1:, :-1] | edge[:-1, 1:] | edge[1:, 1:]


@no_type_check  # the tests' type-checking hook cannot wrap compiled functions
@compiled(nogil=True)
def _trace(vertices, cells, intrinsics, height, width):  # pragma: no cover (compiled)
    """Nearest hit of every pixel's ray with the two triangles of every cell, as z-depth."""
    nearest = np.full((height, width), np.inf)
    fx, fy, cx, cy = intrinsics
    for row in range(cells.shape[0]):
        for column in range(cells.shape[1]):
            if not cells[row, column]:
                continue
            corners = (
                vertices[row, column],
                vertices[row, column + 1],
                vertices[row + 1, column],
                vertices[row + 1, column + 1],
            )
            for a, b, c in ((0, 1, 2), (1, 3, 2)):
                _trace_triangle(corners[a], corners[b], corners[c], fx, fy, cx, cy, nearest)
    return np.where(np.isfinite(nearest), nearest, 0.0)


@no_type_check  # the tests' type-checking hook cannot wrap compiled functions
@njit
def _trace_triangle(p, q, r, fx, fy, cx, cy, nearest):  # pragma: no cover (compiled)
    height, width = nearest.shape
    lowest = min(p[2], q[2], r[2])
    if max(p[2], q[2], r[2]) <= 0:
        return
    left, right, top, bottom = 0, width - 1, 0, height - 1
    if lowest > 1e-6:
        us = (fx * p[0] / p[2] + cx, fx * q[0] / q[2] + cx, fx * r[0] / r[2] + cx)
        vs = (fy * p[1] / p[2] + cy, fy * q[1] / q[2] + cy, fy * r[1] / r[2] + cy)
        left, right = max(left, int(np.floor(min(us)))), min(right, int(np.ceil(max(us))))
        top, bottom = max(top, int(np.floor(min(vs)))), min(bottom, int(np.ceil(max(vs))))
    first, second = q - p, r - p
    for row in range(top, bottom + 1):
        for column in range(left, right + 1):
            # Moller and Trumbore 1997, the ray from the camera's centre with z = 1.
            x, y = (column - cx) / fx, (row - cy) / fy
            hx, hy, hz = y * second[2] - second[1], second[0] - x * second[2], x * second[1] - y * second[0]
            determinant = first[0] * hx + first[1] * hy + first[2] * hz
            if abs(determinant) < 1e-12:
                continue
            u = -(p[0] * hx + p[1] * hy + p[2] * hz) / determinant
            if u < 0 or u > 1:
                continue
            kx = -p[1] * first[2] + p[2] * first[1]
            ky = -p[2] * first[0] + p[0] * first[2]
            kz = -p[0] * first[1] + p[1] * first[0]
            v = (x * kx + y * ky + kz) / determinant
            if v < 0 or u + v > 1:
                continue
            depth = (second[0] * kx + second[1] * ky + second[2] * kz) / determinant
            if 0 < depth < nearest[row, column]:
                nearest[row, column] = depth
