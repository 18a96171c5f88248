"""Depth of many views to one surface: a truncated signed distance field, and its zero by marching cubes.

The field lies in a grid that widens with the distance from an apex behind the input camera: (x / w, y / w, log w), w
the depth from the apex. Its cells are everywhere the same share of their distance, as the errors of depth are, so that
one grid holds a table and the houses behind it.

Source: Curless and Levoy, "A Volumetric Method for Building Complex Models from Range Images" (1996).
"""

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise
from typing import no_type_check

import numba
import numpy as np
import torch
from jaxtyping import Float, Int

from lyra.errors import LyraError, MissingExtraError
from lyra.simulation.surfaces import Shots

APEX = 0.7
"""Scene units behind the input camera; the farthest trajectory backs by 0.4."""
TRUNCATION = 0.025
"""Share of its depth before and behind a surface in which it is felt: as far as views differ on where it is."""


@dataclass(frozen=True)
class Grid:
    """Where the field's samples are."""

    low: tuple[float, float, float]
    """Lowest x / w, y / w and log w."""
    cell: float
    """Step along each, so also a cell's side as a share of its depth."""
    shape: tuple[int, int, int]

    def place(self, index: Float[np.ndarray, "point 3"]) -> Float[np.ndarray, "point 3"]:
        """World positions of (fractional) indices."""
        x, y, depth = (index * self.cell + np.array(self.low)).T
        depth = np.exp(depth)
        return np.stack([x * depth, y * depth, depth - APEX], axis=1)


def choose_grid(shots: Shots, samples: int = 6_000_000, farthest: float = 12.0) -> Grid:
    """A grid around all that the shots show, except its outermost hundredths.

    Args:
        shots: Of the scene.
        samples: How many the grid has at most.
        farthest: Surfaces beyond this many scene units from the apex are left out.

    Raises:
        LyraError: nothing is solid.
    """
    points = shots.points()[shots.valid].double()
    depth = points[:, 2] + APEX
    kept = (depth > 0.2) & (depth < farthest)
    if int(kept.sum()) < 100:
        raise LyraError("the scene shows no solid surface: its splats are too faint or too far for a mesh")
    points, depth = points[kept], depth[kept]
    part = points[torch.randperm(len(points), generator=torch.Generator().manual_seed(0))[:200_000]]
    behind = part[:, 2] + APEX
    tangents = torch.stack([part[:, 0] / behind, part[:, 1] / behind, behind.log()], dim=1)
    low, high = (torch.quantile(tangents, q, dim=0) for q in (0.005, 0.995))
    size = (high - low).clamp(min=0.05)
    cell = float((size.prod() / samples) ** (1 / 3))
    low, size = low - 4 * cell, size + 8 * cell
    return Grid((float(low[0]), float(low[1]), float(low[2])), cell, _whole(size / cell))


def _whole(size: torch.Tensor) -> tuple[int, int, int]:
    x, y, z = (math.ceil(float(value)) for value in size)
    return x, y, z


def fuse(shots: Shots, grid: Grid) -> tuple[Float[np.ndarray, "x y z"], Float[np.ndarray, "x y z"]]:
    """The field in truncations (-1 to 1, positive in front) and how many views have seen each sample."""
    field, weight = (np.zeros(grid.shape, np.float32) for _ in range(2))
    cameras = shots.cameras
    poses = cameras.world_to_camera[:, :3].double().numpy()
    depth = torch.where(shots.valid, shots.depth, 0).float().numpy()
    arguments = (poses, cameras.intrinsics.double().numpy(), depth, np.array(grid.low), grid.cell, field, weight)
    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads) as pool:
        parts = np.linspace(0, grid.shape[0], 4 * threads + 1).astype(int)
        for work in [pool.submit(_fuse, *arguments, *ends) for ends in pairwise(parts)]:
            work.result()
    return field, weight


@numba.njit(nogil=True, cache=True)
@no_type_check
def _fuse(poses, intrinsics, depths, low, cell, field, weight, first, last):
    views, height, width = depths.shape
    for i in range(first, last):
        for j in range(field.shape[1]):
            for k in range(field.shape[2]):
                behind = math.exp(low[2] + k * cell)
                x, y, z = (low[0] + i * cell) * behind, (low[1] + j * cell) * behind, behind - APEX
                reach = TRUNCATION * behind
                total, count = 0.0, 0.0
                for v in range(views):
                    p = poses[v]
                    depth = p[2, 0] * x + p[2, 1] * y + p[2, 2] * z + p[2, 3]
                    if depth < 0.02:
                        continue
                    u = (
                        intrinsics[v, 0] * (p[0, 0] * x + p[0, 1] * y + p[0, 2] * z + p[0, 3]) / depth
                        + intrinsics[v, 2]
                    )
                    w = (
                        intrinsics[v, 1] * (p[1, 0] * x + p[1, 1] * y + p[1, 2] * z + p[1, 3]) / depth
                        + intrinsics[v, 3]
                    )
                    if u < 0 or w < 0 or u >= width or w >= height:
                        continue
                    seen = depths[v, int(w), int(u)]
                    if seen <= 0:
                        continue
                    distance = (seen - depth) / reach
                    if distance > -1:
                        total += min(distance, 1.0)
                        count += 1
                if count > 0:
                    field[i, j, k] = total / count
                    weight[i, j, k] = count


def close_ground(
    grid: Grid,
    field: Float[np.ndarray, "x y z"],
    weight: Float[np.ndarray, "x y z"],
    up: Float[np.ndarray, "3"],
    height: float,
) -> None:
    """Lays the ground where no view has seen: samples near the plane ``up @ x = height`` that nothing is known of."""
    columns = np.indices(grid.shape).reshape(3, -1).T
    unknown = weight.ravel() == 0
    points = grid.place(columns[unknown].astype(np.float64))
    distance = (points @ up - height) / (TRUNCATION * (points[:, 2] + APEX))
    near = np.abs(distance) < 1
    places = np.flatnonzero(unknown)[near]
    field.ravel()[places] = distance[near]
    weight.ravel()[places] = 1


def extract(
    grid: Grid, field: Float[np.ndarray, "x y z"], weight: Float[np.ndarray, "x y z"]
) -> tuple[Float[np.ndarray, "vertex 3"], Int[np.ndarray, "face 3"]]:
    """The surface where the field is zero between samples that were seen; its front faces the views.

    Raises:
        LyraError: there is no surface.
        MissingExtraError: scikit-image is not installed.
    """
    try:
        from scipy.ndimage import minimum_filter
        from skimage.measure import marching_cubes
    except ImportError:
        raise MissingExtraError("scikit-image", "mesh", "a mesh") from None
    # A cell with a corner that nothing is known of has no surface, and its neighbours' corners are this cell's.
    known = minimum_filter(weight, size=3, mode="constant") > 0
    try:
        vertices, faces, _, _ = marching_cubes(field, 0.0, mask=known, gradient_direction="descent")
    except (RuntimeError, ValueError):
        raise LyraError("the scene shows no closed surface: its splats are too faint or too scattered") from None
    return grid.place(vertices.astype(np.float64)), faces.astype(np.int64)
