"""The input views of a scene: depth, lens and, where there are several posed photos, their common scale."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lyra.cache.warp import build_cache, render_cache
from lyra.depth import DepthEstimator, scene_depth
from lyra.depth.alignment import align_depth
from lyra.depth.anchoring import LEAST_ANCHORS, fit_to_anchors, median_ratio
from lyra.errors import LyraError
from lyra.files.photos import Photo
from lyra.geometry.cameras import Cameras, concatenate_cameras, intrinsics_from_fov, through_lens
from lyra.geometry.sky import MAX_DEPTH, is_sky
from lyra.views.posing import Anchors, PosedPhotos
from lyra.views.views import Views

DEFAULT_FOV = 55.0
_SEARCH_SIDE = 96
"""Pixels of the shorter side at which the poses' unit is searched."""
_UNITS = (0.03, 30.0, 61)
"""Scene units of the farthest camera's distance: smallest, largest and how many are tried at first."""
_UNCOVERED = 0.5
"""Error of a pixel that the first view says nothing about; that of unrelated pictures is about a third."""


def estimate_views(
    estimator: DepthEstimator, photos: Sequence[Photo], cameras: Cameras | None, fov: float | None
) -> tuple[Views, dict[str, Any]]:
    """Depth and lens of the input view, and its further views in its frame and scale.

    Args:
        estimator: Of depth.
        photos: The input view first.
        cameras: Of all photos, in any unit; None for a single photo.
        fov: Degrees of the shorter side, where the user says so.

    Returns:
        The views, and the field of view with the source it came from.

    Raises:
        LyraError: a photo shows nothing that a depth can be given, or nothing of what the first one shows.
    """
    first = photos[0]
    prediction = estimator.predict(first.image)
    try:
        depth = scene_depth(prediction)
    except ValueError as error:
        raise LyraError(f"no depth can be found in the photo ({error}): give another one") from error
    shorter = min(first.image.shape[1:])
    from_file = None if cameras is None else _fov(float(cameras.intrinsics[0, 0]), shorter)
    choices = (
        ("option", fov),
        ("camera file", from_file),
        ("exif", first.fov_degrees),
        ("depth estimator", prediction.fov_degrees),
        ("default", DEFAULT_FOV),
    )
    source, degrees = next((source, value) for source, value in choices if value is not None)
    if cameras is None or source != "camera file":
        lens = intrinsics_from_fov(degrees, *first.image.shape[1:])
    else:
        lens = cameras.intrinsics[0]
    camera = Cameras(torch.eye(4)[None], lens[None], *first.image.shape[1:])
    views = Views(first.image[None], depth[None], camera)
    if cameras is not None and len(photos) > 1:
        poses = through_lens(cameras, lens).relative_to(cameras.camera_to_world[0])
        views = _join_views(estimator, views, photos[1:], poses[1:])
    return views, {"degrees": degrees, "source": source}


def lift_posed(estimator: DepthEstimator, posed: PosedPhotos) -> tuple[Views, dict[str, Any]]:
    """Views of photos whose cameras were found: each one's depth agrees with the points that it shares with others.

    Args:
        estimator: Of depth.
        posed: The input view first.

    Returns:
        As ``estimate_views``.

    Raises:
        LyraError: no depth can be found in a photo.
    """
    depths = []
    for index, photo in enumerate(posed.photos):
        try:
            depths.append(scene_depth(estimator.predict(photo.image)))
        except ValueError as error:
            raise LyraError(f"no depth can be found in photo {index + 1} ({error}): leave it out") from error
    images, cameras = torch.stack([photo.image for photo in posed.photos]), posed.cameras
    views = anchor(Views(images, torch.stack(depths), cameras), posed.anchors)
    focal = float(cameras.intrinsics[0, 0])
    return views, {"degrees": _fov(focal, min(images.shape[2:])), "source": "photos"}


def anchor(views: Views, anchors: Anchors) -> Views:
    """Views whose depths agree with the anchors, in scene units: cameras and points are brought to the first's depth.

    Args:
        views: Depths of any scale each, cameras in the anchors' unit.
        anchors: Of the same pictures.
    """
    places, depths = zip(
        *(_solid(*known) for known in zip(views.depth, anchors.places, anchors.depths, strict=True)), strict=True
    )
    fitted = []
    for depth, place, wanted in zip(views.depth, places, depths, strict=True):
        if len(wanted) >= LEAST_ANCHORS:
            near = fit_to_anchors(depth, place, wanted)
        else:
            near = depth / median_ratio(depth, place, wanted) if len(wanted) else depth
        fitted.append(torch.where(is_sky(depth), depth, near))
    found = torch.stack(fitted)
    unit = found[0][~is_sky(views.depth[0])].median()
    poses = views.cameras.camera_to_world.clone()
    poses[:, :3, 3] /= unit
    scaled = torch.where(is_sky(views.depth), views.depth, (found / unit).clamp(max=0.9 * MAX_DEPTH))
    return replace(views, depth=scaled, cameras=replace(views.cameras, camera_to_world=poses))


def _solid(depth: Tensor, places: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
    """Anchors that are not where the estimate has sky."""
    u, v = places.floor().long().unbind(-1)
    solid = ~is_sky(depth)[v, u]
    return places[solid], wanted[solid]


def _fov(focal: float, side: int) -> float:
    return math.degrees(2 * math.atan(0.5 * side / focal))


def _join_views(estimator: DepthEstimator, views: Views, photos: Sequence[Photo], further: Cameras) -> Views:
    images = torch.stack([photo.image for photo in photos])
    unit = find_pose_unit(views, images, further)
    poses = further.camera_to_world.clone()
    poses[:, :3, 3] *= unit
    further = replace(further, camera_to_world=poses)
    cache = build_cache(views.images * 2 - 1, views.depth, views.cameras, None)
    known = render_cache(cache, further)
    depths = []
    for index, photo in enumerate(photos):
        try:
            depth = scene_depth(estimator.predict(photo.image))
            depths.append(align_depth(depth, known.depth[index, 0], known.masks[index, 0] > 0))
        except ValueError as error:
            raise LyraError(f"photo {index + 2} shows nothing of what the first one shows: leave it out") from error
    return Views(
        torch.cat([views.images, images]),
        torch.cat([views.depth, torch.stack(depths)]),
        concatenate_cameras([views.cameras, further]),
    )


def find_pose_unit(views: Views, images: Float[Tensor, "view 3 height width"], cameras: Cameras) -> float:
    """Scene units of one unit of some poses: that by which the first view, moved, looks most like the others.

    Pose files come in metres, in units of a reconstruction or in none. Without any movement the answer is 1.

    Args:
        views: The input view with its depth.
        images: Of the further views, in [0, 1].
        cameras: Of the further views, relative to the input view, in their own unit.
    """
    distance = cameras.centers.norm(dim=-1).max()
    if distance < 1e-6:
        return 1.0
    height, width = views.images.shape[2:]
    scale = min(1.0, _SEARCH_SIDE / min(height, width))
    size = (round(height * scale), round(width * scale))
    small, wanted = (F.interpolate(batch, size=size, mode="area") for batch in (views.images[:1], images))
    depth = F.interpolate(views.depth[:1, None], size=size, mode="nearest")[:, 0]
    cache = build_cache(small * 2 - 1, depth, views.cameras[:1].resized(*size), None)
    moving = cameras.resized(*size)

    def error(unit: float) -> float:
        poses = moving.camera_to_world.clone()
        poses[:, :3, 3] *= unit
        shown = render_cache(cache, replace(moving, camera_to_world=poses))
        difference = (shown.images[:, 0] / 2 + 0.5 - wanted).abs().mean(dim=1)
        return float(torch.where(shown.masks[:, 0] > 0, difference, _UNCOVERED).mean())

    low, high, count = _UNITS
    units = torch.logspace(math.log10(low), math.log10(high), count, dtype=torch.float64).tolist()
    best = min(range(count), key=lambda index: error(units[index] / float(distance)))
    low, high = units[max(0, best - 1)], units[min(count - 1, best + 1)]
    finer = torch.logspace(math.log10(low), math.log10(high), 9, dtype=torch.float64).tolist()
    return min((unit / float(distance) for unit in finer), key=error)
