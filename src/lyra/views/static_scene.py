"""What stands still, seen from every camera of a video whose camera moves: its color and depth, also behind what moves.

Each picture is seen from the others' cameras; what most of them agree on stands still.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lyra.cache.warp import DepthCache, EdgeFilter, build_cache, fill_holes, render_cache
from lyra.geometry.cameras import Cameras
from lyra.geometry.sky import MAX_DEPTH

MOST_SOURCES = 12
"""Pictures that are seen from each camera: evenly many of the others."""
_EDGES = EdgeFilter(window=3, threshold=0.2)
"""What smears from an edge of depth into the open is nobody's."""
_LEAST_VOTES = 2


def see_static(
    images: Float[Tensor, "time 3 height width"],
    depth: Float[Tensor, "time height width"],
    cameras: Cameras,
    moving: Bool[Tensor, "time height width"],
) -> tuple[Float[Tensor, "time 3 height width"], Float[Tensor, "time height width"]]:
    """Color and depth of what stands still at every camera; where too few pictures tell, those of what is around it.

    Args:
        images: In [0, 1].
        depth: Z-depth of each, all in the unit of the cameras.
        cameras: One a picture.
        moving: What moves, and is not looked at.
    """
    count = len(images)
    picks = sorted({round(float(x)) for x in torch.linspace(0, count - 1, min(count, MOST_SOURCES))})
    caches = []
    for pick in picks:
        at = slice(pick, pick + 1)
        cache = build_cache(images[at] * 2 - 1, depth[at], cameras[at], _EDGES)
        caches.append(DepthCache(cache.points, cache.colors, cache.reliable & ~moving[at]))
    colors, depths, known = [], [], []
    for index in range(count):
        at = slice(index, index + 1)
        views = [render_cache(cache, cameras[at]) for pick, cache in zip(picks, caches, strict=True) if pick != index]
        masks = torch.cat([view.masks[0] for view in views]) > 0
        own = ~moving[at]
        masks = torch.cat([masks, own])
        shown = torch.cat([*(view.images[0] / 2 + 0.5 for view in views), images[at]])
        logs = torch.cat([*(view.depth[0].clamp(1e-3, MAX_DEPTH).log() for view in views), depth[at].log()])
        colors.append(_median(shown, masks[:, None].expand_as(shown)))
        depths.append(_median(logs, masks))
        known.append((masks.sum(0) >= _LEAST_VOTES) | own[0])
    behind, seen = torch.stack(depths), torch.stack(known)
    filled = fill_holes(behind[:, None] * seen[:, None], seen.float())[:, 0].exp()
    color = torch.stack(colors)
    color = torch.where(seen[:, None], color, fill_holes(color * seen[:, None], seen.float()))
    return color, filled


def _median(values: Tensor, masks: Tensor) -> Tensor:
    """Over the first axis, of what is known; 0 where nothing is."""
    return torch.where(masks, values, torch.nan).nanmedian(dim=0).values.nan_to_num(0.0)
