"""Depth of imagined clips: consistent over the clip, in agreement with its known cameras.

Source: the paper supervises depth with an estimate of every generated video whose scale is the video's own. Here the
cameras are known, and so is the input's depth, from which the clip was imagined. A few frames are estimated; each
estimate is brought to what the input's points show in that frame and, where those leave holes, to the frame estimated
before it. The frames between see the same points.
"""

from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from lyra.cache.warp import EdgeFilter, build_cache, fill_holes, render_cache, view_cache
from lyra.depth import DepthEstimator, scene_depth
from lyra.depth.alignment import align_depth
from lyra.engine.engine import Engine
from lyra.files.clips import Clip
from lyra.geometry.cameras import Cameras
from lyra.geometry.sky import MAX_DEPTH, is_sky
from lyra.views.views import Views

MOST_PIXELS = 1 << 16
"""Of a frame's depth: of larger frames every second, fourth or so on pixel of a row and a column is kept."""
AGREES = 0.15
"""Logarithm of depth by which an estimate may differ from a known point and still be taken for the same surface."""
_LEAST_KNOWN = 64
"""Pixels by which an estimate can be aligned."""


def depth_of_clip(engine: Engine, clip: Clip, views: Views) -> Float[Tensor, "time height width"]:
    """Z-depth of every frame of an imagined clip in scene units, on the grid that ``thin`` keeps.

    Args:
        engine: Its tokenizer and depth estimator.
        clip: Imagined of ``views``.
        views: The input, which is the clip's first frame; of a video as many pictures as the clip has frames.
    """
    seen = view_cache(views.cache(engine.config.edges), clip.cameras)
    known = torch.where(seen.masks > 0, seen.depth, torch.inf).amin(1)
    known[0] = views.depth[0]
    every = engine.tokenizer.spec.temporal
    with engine.placement.hosting(engine.estimator):
        return thin(
            align_frames(engine.estimator, engine.frames(clip), clip.cameras, known, every, engine.config.edges)
        )


def align_frames(
    estimator: DepthEstimator,
    frames: Float[Tensor, "time 3 height width"],
    cameras: Cameras,
    known: Float[Tensor, "time height width"],
    every: int = 1,
    edges: EdgeFilter | None = None,
) -> Float[Tensor, "time height width"]:
    """Depth of successive frames that agree with what is known, and with each other.

    Args:
        estimator: Of one picture's depth, in a scale that may differ from frame to frame.
        frames: In [0, 1].
        cameras: One a frame, in scene units.
        known: Z-depth of known points in each frame; infinity where there are none. All of the first frame is known.
        every: Of so many frames one is estimated, and the last.
        edges: Pixels of an estimated frame that other frames are not shown.
    """
    keys = [*range(0, len(frames) - 1, every), len(frames) - 1]
    depths: dict[int, Tensor] = {0: known[0]}

    def lifted(key: int, index: int, edges: EdgeFilter | None = edges) -> Tensor:
        """What the frame ``index`` sees of a frame whose depth is found."""
        at = slice(key, key + 1)
        cache = build_cache(frames[at] * 2 - 1, depths[key][None], cameras[at], edges)
        view = render_cache(cache, cameras[index : index + 1])
        return torch.where(view.masks[0, 0] > 0, view.depth[0, 0], torch.inf)

    for before, key in pairwise(keys):
        passed = torch.where(known[key].isfinite(), known[key], lifted(before, key))
        depths[key] = _estimate(estimator, frames[key], passed)
        for index in range(before + 1, key):
            near = torch.minimum(lifted(before, index), lifted(key, index))
            # Around what stands in front the edge filter leaves a rim: there its pixels are better than a guess.
            rims = torch.minimum(lifted(before, index, None), lifted(key, index, None))
            near = torch.where(near.isfinite(), near, rims)
            depths[index] = _close(torch.where(known[index].isfinite(), known[index], near))
    return torch.stack([depths[index] for index in range(len(frames))]).clamp(max=MAX_DEPTH)


def _estimate(
    estimator: DepthEstimator, frame: Float[Tensor, "3 height width"], target: Float[Tensor, "height width"]
) -> Float[Tensor, "height width"]:
    """A frame's depth: the target where the estimate agrees with it, which is then the same from every camera.

    Elsewhere the estimate, bent smoothly by what it differs from the target around.
    """
    try:
        depth = scene_depth(estimator.predict(frame))
    except ValueError:  # nothing but sky, or nothing at all
        return _close(target)
    sky = is_sky(depth)
    common = target.isfinite() & ~sky & ~is_sky(target.nan_to_num(posinf=0.0))
    if int(common.sum()) < _LEAST_KNOWN:
        return depth
    depth = torch.where(sky, depth, align_depth(depth, target, common, steps=0))
    difference = torch.where(common, target / depth, torch.ones_like(depth)).log()
    same = common & (difference.abs() < AGREES)
    bend = fill_holes((difference * same)[None, None], same.float()[None])[0, 0].exp()
    return torch.where(same, target, torch.where(sky, depth, depth * bend))


def _close(depth: Float[Tensor, "height width"]) -> Float[Tensor, "height width"]:
    """Depth whose holes are filled from around."""
    there = depth.isfinite()
    logarithm = torch.where(there, depth, torch.ones_like(depth)).clamp(min=1e-3).log()
    return torch.where(there, depth, fill_holes((logarithm * there)[None, None], there.float()[None])[0, 0].exp())


def thin(depth: Float[Tensor, "time height width"]) -> Float[Tensor, "time small_height small_width"]:
    """Every so many-th pixel of a row and a column, from the middle of the first cell on, never averages."""
    stride = 1
    while depth.shape[1] * depth.shape[2] > MOST_PIXELS * stride**2:
        stride *= 2
    return depth[:, stride // 2 :: stride, stride // 2 :: stride].contiguous()
