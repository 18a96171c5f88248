"""Where the ground is and which way is up, by RANSAC on the scene's own surfaces."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lyra.errors import LyraError
from lyra.simulation.surfaces import Shots

STEEPEST = 40.0
"""Degrees by which the camera's own up may differ from the scene's."""
THICKNESS = 0.02
"""Distance to the plane, as a share of a point's distance to the camera, within which it belongs to it."""
_TRIES = 2000


@dataclass(frozen=True)
class Ground:
    """A plane ``up @ x = height`` in the world."""

    up: tuple[float, float, float]
    """Unit vector."""
    height: float
    """Of the plane along ``up``, scene units; negative where the camera is above it."""
    confidence: float
    """In [0, 1]: share of the surfaces that face up and lie at or below its height that are this plane."""
    deviation: float
    """Median distance of its points from it, scene units."""

    @property
    def below_camera(self) -> float:
        """How far the ground is under the input camera, scene units."""
        return -self.height


def find_ground(shots: Shots, seed: int = 0) -> Ground:
    """The large low plane that many surfaces lie on.

    Raises:
        LyraError: no surface faces up.
    """
    points, normals = surface_points(shots)
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(seed))[:20_000]
    points, normals = points[order], normals[order]
    least = torch.cos(torch.deg2rad(torch.tensor(STEEPEST)))
    # The camera's own up is -y, and whatever it stands on is below it.
    facing = (-normals[:, 1] > least) & (points[:, 1] > 0)
    if int(facing.sum()) < 50:
        raise LyraError("no ground is in sight: say where up is, or give a scene that shows the ground")
    points, normals = points[facing].double(), normals[facing].double()
    up, height = _best_plane(points, seed, float(least))
    for _ in range(3):
        inside = _distance(points, up, height).abs() < THICKNESS
        up, height = _fit(points[inside], up)
    share = _distance(points, up, height)
    inside = share.abs() < THICKNESS
    low = share < THICKNESS
    deviation = float((points[inside] @ up - height).abs().median())
    confidence = float(inside.sum() / low.sum().clamp(min=1)) * min(1.0, float(inside.double().mean()) / 0.3)
    x, y, z = up.tolist()
    return Ground((x, y, z), height, confidence, deviation)


def surface_points(shots: Shots) -> tuple[Float[Tensor, "point 3"], Float[Tensor, "point 3"]]:
    """Points of all valid pixels and their unit normals towards the camera."""
    points = shots.points()
    across = points[:, :, 2:] - points[:, :, :-2]
    down = points[:, 2:] - points[:, :-2]
    normals = F.normalize(torch.linalg.cross(down[:, :, 1:-1], across[:, 1:-1]), dim=-1)
    inner = points[:, 1:-1, 1:-1]
    towards = shots.cameras.centers[:, None, None] - inner
    normals = torch.where((normals * towards).sum(-1, keepdim=True) < 0, -normals, normals)
    valid = shots.valid[:, 1:-1, 1:-1] & shots.valid[:, 1:-1, 2:] & shots.valid[:, 2:, 1:-1]
    return inner[valid], normals[valid]


def _distance(points: Float[Tensor, "point 3"], up: Float[Tensor, "3"], height: float) -> Float[Tensor, "point"]:
    return (points @ up - height) / points.norm(dim=-1).clamp(min=0.2)


def _best_plane(points: Float[Tensor, "point 3"], seed: int, least: float) -> tuple[Float[Tensor, "3"], float]:
    """The plane through three points on which most lie, less what is below it: the ground is under everything."""
    generator = torch.Generator().manual_seed(seed)
    chosen = points[torch.randint(len(points), (_TRIES, 3), generator=generator)]
    ups = F.normalize(torch.linalg.cross(chosen[:, 1] - chosen[:, 0], chosen[:, 2] - chosen[:, 0]), dim=-1)
    ups = torch.where(ups[:, 1:2] > 0, -ups, ups)
    heights = (ups * chosen[:, 0]).sum(-1)
    part = points[torch.randperm(len(points), generator=generator)[:4000]]
    distance = (part @ ups.T - heights) / part.norm(dim=-1, keepdim=True).clamp(min=0.2)
    score = (distance.abs() < THICKNESS).double().mean(0) - (distance < -THICKNESS).double().mean(0)
    score = torch.where((-ups[:, 1] > least) & (heights < 0), score, -1.0)
    best = int(score.argmax())
    return ups[best], float(heights[best])


def _fit(points: Float[Tensor, "point 3"], up: Float[Tensor, "3"]) -> tuple[Float[Tensor, "3"], float]:
    middle = points.mean(0)
    _, _, axes = torch.linalg.svd(points - middle, full_matrices=False)
    normal = axes[2] * torch.sign(axes[2] @ up)
    return normal, float(normal @ middle)
