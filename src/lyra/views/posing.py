"""Photos that nobody has posed: their cameras by what they have in common, in the frame of the first."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from lyra.capture import Capture, find_cameras
from lyra.errors import LyraError
from lyra.files.photos import Photo
from lyra.geometry.cameras import Cameras, project

_TOO_FAR = 8.0
"""Pixels of mean error, at the size of comparing, above which cameras are a guess."""


@dataclass(frozen=True)
class Anchors:
    """Points whose depth is known in pictures, for depth estimates to be brought to."""

    places: tuple[Float[Tensor, "_ 2"], ...]
    """u and v in pixels, one list a picture."""
    depths: tuple[Float[Tensor, "_"], ...]
    """Z-depth in the unit of the cameras."""


@dataclass(frozen=True)
class PosedPhotos:
    """Those photos that could be posed."""

    photos: list[Photo]
    cameras: Cameras
    """Relative to the first photo's, in a unit of their own, at the photos' size."""
    anchors: Anchors
    notes: tuple[str, ...]


def pose_photos(
    photos: Sequence[Photo], fov: float | None, larger: Sequence[Float[Tensor, "3 height width"]] | None = None
) -> PosedPhotos:
    """Finds the cameras of photos.

    Photos of one size and field of view are taken to be of one lens.

    Args:
        photos: The input view first, at the model's size.
        fov: Degrees of the shorter side, where the user says so.
        larger: The same photos, as large as they are to be compared; the photos themselves when None.

    Raises:
        LyraError: they have too little in common, or the first has.
        MissingExtraError: pycolmap is not installed.
    """
    images = [photo.image for photo in photos] if larger is None else list(larger)
    shorter = min(images[0].shape[1:])
    kinds = [(photo.source_size, photo.fov_degrees) for photo in photos]
    lenses = [kinds.index(kind) for kind in kinds]
    angles = [fov if fov is not None else photo.fov_degrees for photo in photos]
    focals = [None if angle is None else 0.5 * shorter / math.tan(math.radians(angle) / 2) for angle in angles]
    found = find_cameras(images, lenses, focals, fixed=fov is not None)
    _check(found, len(photos))
    assert found is not None
    left = [index + 1 for index in range(len(photos)) if index not in found.placed]
    notes = [f"the cameras of {len(found.placed)} photos were found by {len(found.points)} points that they share"]
    if left:
        names = ", ".join(map(str, left))
        notes.append(f"photo {names} shares too little with the others and was left out")
    height, width = photos[0].image.shape[1:]
    cameras = found.cameras.resized(height, width)
    return PosedPhotos([photos[index] for index in found.placed], cameras, find_anchors(found, cameras), tuple(notes))


def _check(found: Capture | None, count: int) -> None:
    advice = (
        "take photos from places a step apart that show the same things (two thirds of each), give more of them, or "
        "their cameras in a transforms.json"
    )
    if found is None or len(found.placed) < 2 or found.error > _TOO_FAR:
        raise LyraError(f"the {count} photos cannot be posed, they have too little in common: {advice}")
    if found.placed[0] != 0:
        others = ", ".join(str(index + 1) for index in found.placed)
        raise LyraError(
            f"the first photo, from which the scene is seen, shares too little with the others (photos {others} go "
            "together): name one of those first"
        )


def find_anchors(capture: Capture, cameras: Cameras) -> Anchors:
    """Where a capture's points lie in its pictures.

    Args:
        capture: With its points.
        cameras: Its cameras, at the size of the pictures.
    """
    places, depths = [], []
    u, v, z = project(capture.points, cameras)
    for view in range(len(cameras)):
        inside = (u[view] >= 0) & (u[view] < cameras.width) & (v[view] >= 0) & (v[view] < cameras.height)
        known = capture.seen[view] & inside & (z[view] > 0)
        places.append(torch.stack([u[view], v[view]], -1)[known])
        depths.append(z[view][known])
    return Anchors(tuple(places), tuple(depths))
