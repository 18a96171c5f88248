"""The input of a dynamic scene: pictures, depth and cameras at every moment, and what stays the same.

Depth is estimated picture by picture and made consistent over time: what stands still has one depth for all pictures,
to which each picture's depth is brought, and what moves a body of its own.
"""

from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from lyra.cache.warp import build_cache, fill_holes, render_cache
from lyra.depth import DepthEstimator, scene_depth
from lyra.depth.alignment import align_depth
from lyra.errors import LyraError
from lyra.files.photos import Photo
from lyra.files.videos import Video
from lyra.geometry.cameras import Cameras, through_lens
from lyra.geometry.sky import is_sky
from lyra.views.bodies import fill_outlines, find_shadows, give_bodies
from lyra.views.own_motion import find_movers
from lyra.views.posing import Anchors
from lyra.views.static_scene import see_static
from lyra.views.still import anchor, estimate_views, find_pose_unit
from lyra.views.views import Motion, Views

CHANGE = 0.08
"""Largest difference of color to the backdrop, averaged over a pixel's surroundings, that is taken for noise."""
_GROWN = 2
"""Pixels by which what moves is widened: its edge mixes with what is behind."""
_LEAST_STILL = 0.2
"""Share of a picture that must be like the backdrop for its depth to be aligned by it."""


def estimate_video(
    estimator: DepthEstimator,
    video: Video,
    fov: float | None = None,
    anchors: Anchors | None = None,
    lens_told: bool = True,
) -> tuple[Views, dict[str, Any]]:
    """Depth of every frame, consistent over time, and what moves.

    Args:
        estimator: Of one picture's depth.
        video: Frames and, if its camera moves, where it was.
        fov: Degrees of the shorter side, where the user says so.
        anchors: Points that stand still, in the unit of the video's cameras.
        lens_told: Whether the cameras' focal length is more than a guess.

    Returns:
        The views, and the field of view with the source it came from.

    Raises:
        LyraError: no depth can be found.
    """
    first = _as_photo(video)
    start, lens = estimate_views(estimator, [first], None if video.cameras is None else video.cameras[:1], fov)
    if video.cameras is None:
        return _still_camera(estimator, video, start), lens
    if not lens_told and lens["source"] == "camera file":
        lens = {**lens, "source": "default"}
    return _moving_camera(estimator, video, start, anchors), lens


def _as_photo(video: Video) -> Photo:
    return Photo(video.frames[0], video.fov_degrees, video.source_size, video.crop, video.sha256, video.notes)


def find_backdrop(
    images: Float[Tensor, "time 3 height width"],
) -> tuple[Float[Tensor, "3 height width"], Bool[Tensor, "time height width"]]:
    """What each pixel shows most of the time, and where and when it shows something else.

    A pixel that never shows one thing for long has its median as the backdrop and counts as moving.
    """
    backdrop = images.median(dim=0).values
    change = F.avg_pool2d((images - backdrop).abs().mean(1, keepdim=True), 3, stride=1, padding=1)
    moving = F.max_pool2d((change > CHANGE).float(), 2 * _GROWN + 1, stride=1, padding=_GROWN)[:, 0] > 0
    return backdrop, moving


def _still_camera(estimator: DepthEstimator, video: Video, start: Views) -> Views:
    backdrop, moving = find_backdrop(video.frames)
    moving = fill_outlines(moving)
    depths = [_predict(estimator, frame) for frame in video.frames]
    # Sky that comes and goes would tear holes: it is where most pictures have it.
    sky = torch.stack([is_sky(depth) for depth in depths]).float().mean(0) > 0.5
    # The backdrop has the first picture's scale, by what both show.
    behind = _without_sky(_align(_predict(estimator, backdrop), start.depth[0], ~moving[0]), ~sky)
    still = ~moving.any(0)
    aligned = []
    for index, depth in enumerate(depths):
        known = ~moving[index]
        if float(known.float().mean()) >= _LEAST_STILL:
            depth = _align(depth, behind, known)
        else:
            depth = _align(depth, aligned[-1] if aligned else start.depth[0], torch.ones_like(known))
        aligned.append(torch.where(is_sky(depth) & ~sky, behind, depth))
    count = len(video.frames)
    settled = torch.stack(aligned)
    if not bool(moving.all()):
        everywhere = behind.expand(count, -1, -1)
        settled = stand_up(video.frames, settled, backdrop.expand(count, -1, -1, -1), everywhere, moving)
        # What does not change in a picture is what it is in all others.
        settled = torch.where(moving, settled, everywhere)
    motion = Motion(moving, still, backdrop, behind, video.seconds)
    return Views(video.frames, settled, start.cameras[[0] * count], motion)


def _moving_camera(estimator: DepthEstimator, video: Video, start: Views, anchors: Anchors | None) -> Views:
    """Depth by the points that stand still where there are any, else aligned from frame to frame; then settled."""
    assert video.cameras is not None
    # Another field of view than the file's holds for all frames; what the file says of zooming stays.
    cameras = through_lens(video.cameras, start.cameras.intrinsics[0]).relative_to(video.cameras.camera_to_world[0])
    if anchors is None:
        cameras, depth = _align_in_order(estimator, video, start, cameras)
    else:
        raw = torch.stack([start.depth[0], *(_predict(estimator, frame) for frame in video.frames[1:])])
        views = anchor(Views(video.frames, raw, cameras), anchors)
        cameras, depth = views.cameras, views.depth
    return settle_views(Views(video.frames, depth, cameras), video.seconds)


def settle_views(views: Views, seconds: float) -> Views:
    """Views of a camera that moves, with what moves told apart, still surfaces at one depth for all, and bodies.

    Args:
        views: Depth of every picture by itself, in the unit of the cameras.
        seconds: From the first picture to the last.
    """
    moving = find_movers(views.images, views.depth, views.cameras)
    if float(moving.float().mean()) > 1 - _LEAST_STILL:
        moving = torch.ones_like(moving)  # nothing agrees: nothing is known to stand still
        return replace(views, motion=Motion(moving, ~moving[0], views.images[0], views.depth[0], seconds))
    moving = _grow(moving)
    backdrops, behind = see_static(views.images, views.depth, views.cameras, moving)
    sky = is_sky(views.depth)
    # Sky is nowhere: it stays as each picture has it.
    behind = torch.where(sky & ~moving, views.depth, behind)
    settled = torch.where(moving, views.depth, behind)
    settled = stand_up(views.images, settled, backdrops, behind, moving)
    motion = Motion(moving, torch.zeros_like(moving[0]), backdrops[0], behind[0], seconds)
    return Views(views.images, settled, views.cameras, motion)


def stand_up(
    images: Float[Tensor, "time 3 height width"],
    depth: Float[Tensor, "time height width"],
    backdrops: Float[Tensor, "time 3 height width"],
    behind: Float[Tensor, "time height width"],
    moving: Bool[Tensor, "time height width"],
) -> Float[Tensor, "time height width"]:
    """Depth in which what moves has a body, and its shadows lie; see ``give_bodies``."""
    raised = behind.clamp(min=1e-3).log() - depth.clamp(min=1e-3).log()
    return give_bodies(depth, behind, moving, find_shadows(images, backdrops, moving, raised))


def _grow(mask: Tensor) -> Bool[Tensor, "time height width"]:
    return F.max_pool2d(mask.float()[:, None], 3, stride=1, padding=1)[:, 0] > 0


def _align_in_order(
    estimator: DepthEstimator, video: Video, start: Views, poses: Cameras
) -> tuple[Cameras, Float[Tensor, "time height width"]]:
    """Each frame's depth is aligned to the frame before it, seen from where the frame is."""
    scale = find_pose_unit(start, video.frames[1:], poses[1:])
    moved = poses.camera_to_world.clone()
    moved[:, :3, 3] *= scale
    cameras = replace(poses, camera_to_world=moved)
    depths = [start.depth[0]]
    for index in range(1, len(poses)):
        before = build_cache(
            video.frames[index - 1 : index] * 2 - 1, depths[-1][None], cameras[index - 1 : index], None
        )
        known = render_cache(before, cameras[index : index + 1])
        seen = known.masks[0, 0] > 0
        if int(seen.sum()) < _LEAST_KNOWN:
            raise LyraError(f"frame {index} shows nothing of the frame before it: give a slower video")
        depths.append(_align(_predict(estimator, video.frames[index]), known.depth[0, 0], seen))
    return cameras, torch.stack(depths)


def _predict(estimator: DepthEstimator, image: Float[Tensor, "3 height width"]) -> Float[Tensor, "height width"]:
    try:
        return scene_depth(estimator.predict(image))
    except ValueError as error:
        raise LyraError(f"no depth can be found in a frame ({error}): give another video") from error


def _without_sky(depth: Tensor, solid: Tensor) -> Float[Tensor, "height width"]:
    """Depth in which some pixels are no sky, but as far as what surrounds them."""
    wrong = solid & is_sky(depth)
    known = (~is_sky(depth)).float()
    if not bool(wrong.any()) or not bool(known.any()):
        return depth
    filled = fill_holes((depth.log() * known)[None, None], known[None])[0, 0].exp()
    return torch.where(wrong, filled, depth)


def _align(depth: Tensor, target: Tensor, known: Tensor) -> Float[Tensor, "height width"]:
    """To a known depth's scale; sky stays where it is."""
    solid = known & ~is_sky(target) & ~is_sky(depth)
    if int(solid.sum()) < _LEAST_KNOWN:
        return depth
    return torch.where(is_sky(depth), depth, align_depth(depth, target, solid))


_LEAST_KNOWN = 16
"""Pixels by which a depth can be aligned."""
