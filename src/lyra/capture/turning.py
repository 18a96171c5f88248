"""Whether a camera only turns: what it sees is then moved by rotations and zooming alone, whatever is how far.

A plane before a camera that moves is moved by a homography as well, but by none that a rotation makes.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

_ROUNDS = 12
_LEAST_ZOOM = 0.01
"""Changes of focal length that are noise."""
ZOOM_FOVS = tuple(float(fov) for fov in range(30, 92, 4))
"""Fields of view of the shorter side, in degrees, that are tried where none is known."""
_CLEARER = 0.93
"""Share of the error at the usual field of view that another one must come down to, to be believed."""


@dataclass(frozen=True)
class Pair:
    """Places that two pictures share, those that a moving camera would explain."""

    first: int
    second: int
    a: Float[np.ndarray, "match 2"]
    """u and v in pixels from the picture's centre."""
    b: Float[np.ndarray, "match 2"]


@dataclass(frozen=True)
class Turn:
    """From one picture's frame to another's."""

    rotation: Float[np.ndarray, "3 3"]
    zoom: float
    """Focal length of the second over that of the first."""
    inside: Bool[np.ndarray, "match"]
    """Which matches it explains."""
    error: float
    """Mean of the capped errors in pixels."""


def fit_turn(pair: Pair, focal: float, tolerance: float, zooms: bool = True) -> Turn:
    """The rotation, and zoom, that explains most matches, by reweighted least squares.

    Args:
        pair: Matches of two pictures.
        focal: Of the first, in pixels.
        tolerance: Pixels within which a match is explained.
        zooms: Whether the second's focal length may differ.
    """
    zoom, weight = 1.0, np.ones(len(pair.a))
    rays = _rays(pair.a, focal)
    error = np.zeros(len(pair.a))
    rotation = np.eye(3)
    for step in range(_ROUNDS):
        rotation = _procrustes(rays, _rays(pair.b, focal * zoom), weight)
        seen = rays @ rotation.T
        seen = focal * seen[:, :2] / np.maximum(seen[:, 2:], 1e-6)
        if zooms and step > 2:
            zoom = float((weight[:, None] * seen * pair.b).sum() / (weight[:, None] * seen**2).sum())
        error = np.linalg.norm(zoom * seen - pair.b, axis=1)
        # Wide at first, since what moves is among them, then as narrow as measured places are.
        width = max(2 * tolerance, 2.5 * float(np.median(error))) if step < _ROUNDS - 4 else 2 * tolerance
        weight = np.maximum(0, 1 - (error / width) ** 2) ** 2 + 1e-9
    return Turn(rotation, zoom, error <= tolerance, float(np.minimum(error, 3 * tolerance).mean()))


def _rays(places: np.ndarray, focal: float) -> Float[np.ndarray, "match 3"]:
    rays = np.concatenate([places / focal, np.ones((len(places), 1))], 1)
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def _procrustes(a: np.ndarray, b: np.ndarray, weight: np.ndarray) -> Float[np.ndarray, "3 3"]:
    left, _, right = np.linalg.svd((weight[:, None] * b).T @ a)
    sign = np.diag([1.0, 1.0, np.sign(np.linalg.det(left @ right))])
    return left @ sign @ right


def find_turning_focal(pairs: Sequence[Pair], shorter: int, usual: float, tolerance: float) -> tuple[float, bool]:
    """The focal length in pixels that rotations agree best with, and whether it is told by them at all."""

    def error(fov: float) -> float:
        focal = 0.5 * shorter / np.tan(np.radians(fov) / 2)
        return float(np.mean([fit_turn(pair, focal, tolerance).error for pair in pairs]))

    errors = [error(fov) for fov in ZOOM_FOVS]
    best = int(np.argmin(errors))
    if errors[best] > _CLEARER * error(usual) or best in (0, len(errors) - 1):
        return 0.5 * shorter / np.tan(np.radians(usual) / 2), False
    return 0.5 * shorter / np.tan(np.radians(ZOOM_FOVS[best]) / 2), True


def chain_turns(
    pairs: Sequence[Pair], count: int, focal: float, tolerance: float
) -> tuple[list[np.ndarray | None], Float[np.ndarray, "view"]]:
    """Camera-to-world rotations of all pictures from the first on, and their zooms; None of what hangs on none before.

    Each is told by the earliest picture that shares most with it.

    Args:
        pairs: First before second.
        count: Of pictures.
        focal: Of the first.
        tolerance: In pixels.
    """
    rotations: list[np.ndarray | None] = [np.eye(3)] + [None] * (count - 1)
    zooms = np.ones(count)
    for picture in range(1, count):
        known = [pair for pair in pairs if pair.second == picture and rotations[pair.first] is not None]
        if not known:
            continue
        most = max(len(pair.a) for pair in known)
        pair = min((pair for pair in known if len(pair.a) >= 0.5 * most), key=lambda pair: pair.first)
        turn = fit_turn(pair, focal * zooms[pair.first], tolerance)
        before = rotations[pair.first]
        assert before is not None
        rotations[picture] = before @ turn.rotation.T
        zooms[picture] = zooms[pair.first] * turn.zoom
    steady = bool(np.abs(zooms - 1).max() < _LEAST_ZOOM)
    return rotations, np.ones(count) if steady else zooms
