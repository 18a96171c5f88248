"""What things bump into: the mesh in metres with z up, asked for distances, and cut into convex parts."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int

from lyra.errors import MissingExtraError
from lyra.export.usd import UPRIGHT
from lyra.simulation.mesh import Mesh
from lyra.simulation.survey import Survey

SPACING = 0.02
"""Metres between the samples that stand for the surface; distances are right to half of it."""


def to_world(mesh: Mesh, survey: Survey) -> Mesh:
    """A scene's mesh in metres: x right, y forward, z up, the ground at z = 0."""
    rotation, shift, scale = survey.similarity()
    turn = (UPRIGHT @ rotation).double().numpy()
    return Mesh(scale * mesh.vertices @ turn.T + (UPRIGHT @ shift).double().numpy(), mesh.faces, mesh.colors)


@dataclass(frozen=True)
class Part:
    """A convex polyhedron."""

    vertices: Float[np.ndarray, "vertex 3"]
    faces: Int[np.ndarray, "face 3"]


@dataclass(frozen=True)
class Collider:
    """A scene's surface in metres, z up; the ground also goes on as a plane at z = 0 where nothing is known."""

    mesh: Mesh

    @cached_property
    def samples(self) -> Float[np.ndarray, "point 3"]:
        """Points over the whole surface, no hole between them wider than ``SPACING``."""
        corners = self.mesh.vertices[self.mesh.faces]
        longest = np.linalg.norm(corners - np.roll(corners, 1, axis=1), axis=2).max(1)
        steps = np.clip(np.ceil(longest / SPACING).astype(int), 1, 60)
        points = [self.mesh.vertices]
        for count in np.unique(steps):
            own = corners[steps == count]
            i, j = np.meshgrid(np.arange(count + 1), np.arange(count + 1), indexing="ij")
            a, b = (axis[i + j <= count] / count for axis in (i, j))
            weights = np.stack([1 - a - b, a, b], axis=1)
            points.append(np.einsum("wk,fkc->fwc", weights, own).reshape(-1, 3))
        whole = np.concatenate(points)
        _, first = np.unique(np.floor(whole / (SPACING / 2)).astype(np.int64), axis=0, return_index=True)
        return whole[np.sort(first)]

    @cached_property
    def _tree(self) -> Any:
        from scipy.spatial import KDTree

        return KDTree(self.samples)

    def nearest(
        self, points: Float[np.ndarray, "point 3"]
    ) -> tuple[Float[np.ndarray, "point"], Float[np.ndarray, "point 3"]]:
        """Distance to the surface or the ground in metres, and the unit vector away from it."""
        distance, index = self._tree.query(points)
        away = points - self.samples[index]
        below = points[:, 2] < distance
        distance = np.where(below, points[:, 2], distance)
        away = np.where(below[:, None], [0.0, 0.0, 1.0], away / np.maximum(np.linalg.norm(away, axis=1), 1e-9)[:, None])
        return distance, away

    def hits_sphere(self, center: Float[np.ndarray, "3"], radius: float) -> bool:
        """Whether a ball touches the surface or the ground."""
        return bool(self.nearest(center[None])[0][0] < radius)

    def hits_capsule(self, foot: Float[np.ndarray, "3"], height: float, radius: float) -> bool:
        """Whether an upright capsule that stands at ``foot`` touches what is higher than a step of its radius."""
        heights = np.arange(2 * radius, max(height - radius, 2 * radius) + 1e-9, radius / 2)
        centers = foot + np.stack([0 * heights, 0 * heights, heights], axis=1)
        return bool((self.nearest(centers)[0] < radius).any())

    def cast(
        self, origins: Float[np.ndarray, "ray 3"], directions: Float[np.ndarray, "ray 3"], farthest: float = 30.0
    ) -> Float[np.ndarray, "ray"]:
        """Metres along unit rays to the surface or the ground, infinite beyond ``farthest``; by sphere tracing."""
        travelled = np.zeros(len(origins))
        going = np.ones(len(origins), bool)
        for _ in range(200):
            if not going.any():
                break
            distance, _ = self.nearest(origins[going] + travelled[going, None] * directions[going])
            travelled[going] += np.maximum(distance, SPACING / 4) * (distance > SPACING)
            still = (distance > SPACING) & (travelled[going] < farthest)
            going[np.flatnonzero(going)[~still]] = False
        return np.where(travelled < farthest, travelled, np.inf)

    def ground_height(
        self, places: Float[np.ndarray, "place 2"], below: float = 1.0
    ) -> tuple[Float[np.ndarray, "place"], Bool[np.ndarray, "place"]]:
        """Height of the highest surface lower than ``below`` metres at places (x, y), 0 where only the plane is
        there; and where a surface was seen.
        """
        column = SPACING
        low = self.samples[self.samples[:, 2] < below]
        from scipy.spatial import KDTree

        lists = KDTree(low[:, :2]).query_ball_point(places, column)
        heights = np.array([low[found, 2].max() if found else 0.0 for found in lists])
        return heights, np.array([bool(found) for found in lists])

    def parts(self, cell: float = 0.5, thickness: float = 0.04) -> list[Part]:
        """The surface as convex pieces: the hull of what lies in each cell of a lattice, thickened to the back.

        Concave rooms stay open, which one hull, or a decomposition of a closed body, would not give.

        Args:
            cell: Side of a cell in metres; a piece may be off by what the surface bends within it.
            thickness: Metres that a piece goes behind the surface.
        """
        try:
            from scipy.spatial import ConvexHull, QhullError
        except ImportError:
            raise MissingExtraError("scipy", "mesh", "a collider") from None
        corners = self.mesh.vertices[self.mesh.faces]
        crosses = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
        normals = crosses / np.maximum(np.linalg.norm(crosses, axis=1, keepdims=True), 1e-12)
        axis = np.abs(normals).argmax(1)
        facing = 2 * axis + (normals[np.arange(len(axis)), axis] > 0)
        keys = np.concatenate([np.floor(corners.mean(1) / cell).astype(np.int64), facing[:, None]], axis=1)
        _, group = np.unique(keys, axis=0, return_inverse=True)
        found = []
        for number in range(group.max() + 1):
            own = corners[group == number].reshape(-1, 3)
            back = own - thickness * np.repeat(normals[group == number], 3, axis=0)
            points = np.unique(np.round(np.concatenate([own, back]), 5), axis=0)
            try:
                hull = ConvexHull(points)
            except QhullError:
                continue
            used, renumbered = np.unique(hull.simplices, return_inverse=True)
            found.append(Part(points[used], _outward(points[used], renumbered.reshape(-1, 3))))
        return found


def _outward(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """Faces of a convex body with their fronts outside."""
    a, b, c = (vertices[faces[:, i]] for i in range(3))
    inside = (np.cross(b - a, c - a) * (a - vertices.mean(0))).sum(1) < 0
    return np.where(inside[:, None], faces[:, ::-1], faces).astype(np.int64)
