"""A scene made level and metric: which way is up, where the ground is, and how many metres a scene unit has."""

import json
import math
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lyra.errors import LyraError
from lyra.files.atomic import write_atomically
from lyra.files.strict_json import to_json
from lyra.geometry.gaussians import Gaussians, transform
from lyra.simulation.ground import Ground, find_ground
from lyra.simulation.surfaces import Shots

KEY = "survey"
"""Under which ``scene.json`` keeps it."""
TYPICAL_HEIGHT = 1.5
"""Metres at which a photo is taken, where nothing is known."""
_DOUBT = 0.25
"""Relative uncertainty of that."""


@dataclass(frozen=True)
class Survey:
    """What is known of a scene's place in the world."""

    ground: Ground | None
    """None where none is in sight: the camera's own axes are then taken as level."""
    metres_per_unit: float
    uncertainty: float
    """Of the metres, relative, one standard deviation."""
    source: str
    """Where the metres come from: "known length", "camera height", "estimator NAME" or "assumed"."""

    def similarity(self) -> tuple[Float[Tensor, "3 3"], Float[Tensor, "3"], float]:
        """Rotation, translation and scale from the scene to metres, with y down along gravity and the ground at
        y = 0, the camera above the origin, looking towards z.
        """
        if self.ground is None:
            return torch.eye(3), torch.zeros(3), self.metres_per_unit
        down = -torch.tensor(self.ground.up, dtype=torch.float64)
        # z stays as near to the camera's own forward as it can.
        right = torch.linalg.cross(down, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64))
        right = right / right.norm()
        rotation = torch.stack([right, down, torch.linalg.cross(right, down)])
        shift = torch.tensor([0.0, self.metres_per_unit * self.ground.height, 0.0])
        return rotation.float(), shift, self.metres_per_unit

    def level(self, gaussians: Gaussians) -> Gaussians:
        """Gaussians through :meth:`similarity`."""
        rotation, shift, scale = self.similarity()
        return transform(gaussians, rotation.to(gaussians.means), shift.to(gaussians.means), scale)

    def as_json(self) -> dict[str, Any]:
        """What ``scene.json`` keeps."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> "Survey":
        """Reads what :meth:`as_json` gave."""
        ground = content["ground"]
        if ground is not None:
            ground = Ground(tuple(ground["up"]), *(ground[name] for name in ("height", "confidence", "deviation")))
        return cls(ground, *(content[name] for name in ("metres_per_unit", "uncertainty", "source")))


@dataclass(frozen=True)
class ScaleOptions:
    """Where metres come from; by the survey in ``scene.json`` where none is given, else assumed."""

    known: str | None = None
    """Two points of the input picture and their distance: x,y:x,y:LENGTH, as in 0.1,0.8:0.6,0.8:2.1m (points as shares
    of width and height)."""
    camera_height: float | None = None
    """Metres of the camera above the ground."""
    metric_depth: str | None = None
    """Folder or owner/name@commit of a metric depth estimator: Depth Pro, MoGe 2, or a metric Depth Anything."""

    def given(self) -> bool:
        """Whether any is."""
        return (self.known, self.camera_height, self.metric_depth) != (None, None, None)


def survey(shots: Shots) -> Survey:
    """Finds the ground; metres by the height at which photos are mostly taken, until something better is known."""
    try:
        ground = find_ground(shots)
    except LyraError:
        return Survey(None, 1.0, 1.0, "assumed")
    return replace(by_camera_height(ground, TYPICAL_HEIGHT, _DOUBT), source="assumed")


def by_camera_height(ground: Ground, height: float, doubt: float = 0.05) -> Survey:
    """Metres from how high above the ground the camera was.

    Raises:
        LyraError: the height is not positive.
    """
    if not 0 < height < 1e4:
        raise LyraError(f"a camera height of {height} m: give metres above the ground, such as 1.5")
    relative = ground.deviation / ground.below_camera
    return Survey(ground, height / ground.below_camera, math.hypot(doubt, relative), "camera height")


def by_known_length(found: Survey, shots: Shots, known: str) -> Survey:
    """Metres from a length between two points of the input view.

    Args:
        found: With the ground.
        shots: Whose first view is the input view.
        known: ``x,y:x,y:LENGTH`` with points as shares of the picture's width and height from its top left, and the
            length in metres, as in ``0.1,0.8:0.6,0.8:2.1m``.

    Raises:
        LyraError: it is written otherwise, or a point shows no surface.
    """
    ends, length = _parse(known)
    places, doubts = [], []
    height, width = shots.depth.shape[1:]
    points = shots.points()[0]
    for x, y in ends:
        column, row = min(int(x * width), width - 1), min(int(y * height), height - 1)
        around = (slice(max(row - 2, 0), row + 3), slice(max(column - 2, 0), column + 3))
        seen = shots.valid[0][around]
        if not bool(seen.any()):
            raise LyraError(f"--known: the picture shows no surface at {x},{y}: choose another point")
        near = shots.depth[0][around][seen]
        places.append(points[around][seen].median(dim=0).values)
        doubts.append(float(near.std()) if len(near) > 1 else 0.0)
    apart = float((places[0] - places[1]).norm())
    pixels = math.hypot((ends[0][0] - ends[1][0]) * width, (ends[0][1] - ends[1][1]) * height)
    if pixels < 4 or apart < 1e-3:
        raise LyraError("--known: the two points are next to each other: choose points farther apart")
    doubt = math.hypot(1.5 / pixels, math.hypot(*doubts) / apart)
    return Survey(found.ground, length / apart, doubt, "known length")


def _parse(known: str) -> tuple[list[tuple[float, float]], float]:
    try:
        *ends, length = known.split(":")
        points = [tuple(float(part) for part in end.split(",")) for end in ends]
        metres = float(length.removesuffix("m"))
        (x0, y0), (x1, y1) = points
    except ValueError:
        raise LyraError(f"--known {known}: write it as x,y:x,y:LENGTH, such as 0.1,0.8:0.6,0.8:2.1m") from None
    if not (all(0 <= share <= 1 for share in (x0, y0, x1, y1)) and 0 < metres < 1e5):
        raise LyraError(f"--known {known}: points are shares of the picture, 0 to 1, and the length is in metres")
    return [(x0, y0), (x1, y1)], metres


def by_estimate(found: Survey, shots: Shots, metric_depth: Float[Tensor, "height width"], name: str) -> Survey:
    """Metres by the median ratio of a metric estimator's depth of the photo to the scene's own.

    Args:
        found: With the ground.
        shots: Whose first view is the input view.
        metric_depth: z-depth in metres of the input view, of any size.
        name: Of the estimator.
    """
    resized = torch.nn.functional.interpolate(metric_depth[None, None].float(), shots.depth.shape[1:], mode="nearest")
    ratio = (resized[0, 0] / shots.depth[0])[shots.valid[0] & (resized[0, 0] > 0)]
    if len(ratio) < 16:
        raise LyraError("the metric estimator and the scene have no surface in common")
    middle = float(ratio.median())
    spread = float((ratio - middle).abs().median()) * 1.4826 / middle
    return Survey(found.ground, middle, spread, f"estimator {name}")


def record(folder: Path, found: Survey) -> None:
    """Writes the survey into a scene folder's ``scene.json``."""
    path = Path(folder) / "scene.json"
    content = json.loads(path.read_text())
    content[KEY] = found.as_json()
    with write_atomically(path) as temporary:
        temporary.write_text(to_json(content, indent=2) + "\n")
