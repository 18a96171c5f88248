"""The 3D cache: images with depth become points, points become partial images of new views.

The teacher sees the scene only through these partial images and their masks. Several posed images fill several
buffers (GEN3C has two); pixels on depth edges are dropped, since they would smear across the discontinuity.

Source: ``Cache3D_Buffer`` and ``forward_warp`` of GEN3C; golden ``forward_warp``.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor

from lyra.geometry.cameras import Cameras, project
from lyra.geometry.sky import MAX_DEPTH


@dataclass(frozen=True)
class EdgeFilter:
    """Which pixels lie on a depth edge. The defaults are published for 704 rows; fewer rows want a smaller window and
    a higher threshold, since a floor's depth changes more from one pixel to the next.
    """

    window: int = 5
    """Pixels of the window's side, odd."""
    threshold: float = 0.05
    """Largest (max - min) / mean within the window."""


@dataclass(frozen=True)
class WarpSettings:
    """How points are splatted."""

    pixel_center: float = 0.5
    """Where a pixel's centre lies; the published model was trained with 0, the project's convention is 0.5."""
    frames_per_normalization: int = 1
    """Target frames that share the normalisation of the depth weight; published 2, so that a frame's picture
    depends (by about 1e-3) on its neighbour's."""
    depth_weight: float = 50.0
    """Exponent by which nearer points win a pixel."""


PUBLISHED_WARP = WarpSettings(pixel_center=0.0, frames_per_normalization=2)


@dataclass(frozen=True)
class DepthCache:
    """Colored points in world space, one buffer an input image."""

    points: Float[Tensor, "buffer height width 3"]
    colors: Float[Tensor, "buffer 3 height width"]
    """In [-1, 1]."""
    reliable: Bool[Tensor, "buffer height width"]
    """False on depth edges and invalid pixels, which are not splatted."""


@dataclass(frozen=True)
class CacheViews:
    """The cache seen from a path of cameras."""

    images: Float[Tensor, "time buffer 3 height width"]
    """In [-1, 1]; -1 where nothing landed."""
    masks: Float[Tensor, "time buffer height width"]
    """1 where something landed, else 0."""
    depth: Float[Tensor, "time buffer height width"]
    """Z-depth of what landed; 0 in holes."""


def reliable_depth(depth: Float[Tensor, "batch height width"], edges: EdgeFilter) -> Bool[Tensor, "batch height width"]:
    """True where the depth is positive and varies little within a window.

    The mean counts the zero padding at the image's border, as published; ratios there are inflated.
    """
    field = depth[:, None]
    window, pad = edges.window, edges.window // 2
    highest = F.max_pool2d(field, window, stride=1, padding=pad)
    lowest = -F.max_pool2d(-field, window, stride=1, padding=pad)
    mean = F.avg_pool2d(field, window, stride=1, padding=pad)
    ratio = (highest - lowest) / (mean + 1e-6)
    return ((ratio < edges.threshold) & (field > 0))[:, 0]


def unproject(
    depth: Float[Tensor, "view height width"], cameras: Cameras, pixel_center: float = 0.5
) -> Float[Tensor, "view height width 3"]:
    """World points of a z-depth map."""
    fx, fy, cx, cy = cameras.intrinsics[:, None, None, :].unbind(-1)
    v, u = torch.meshgrid(
        torch.arange(depth.shape[-2], device=depth.device, dtype=depth.dtype) + pixel_center,
        torch.arange(depth.shape[-1], device=depth.device, dtype=depth.dtype) + pixel_center,
        indexing="ij",
    )
    local = torch.stack([(u - cx) / fx * depth, (v - cy) / fy * depth, depth], dim=-1)
    rotation = cameras.camera_to_world[:, :3, :3]
    return torch.einsum("vij,vhwj->vhwi", rotation, local) + cameras.centers[:, None, None]


def build_cache(
    images: Float[Tensor, "buffer 3 height width"],
    depth: Float[Tensor, "buffer height width"],
    cameras: Cameras,
    edges: EdgeFilter | None,
    settings: WarpSettings | None = None,
) -> DepthCache:
    """Lifts posed images with depth into a cache.

    Args:
        images: In [-1, 1].
        depth: Z-depth in scene units; NaN and values beyond ``MAX_DEPTH`` are put at ``MAX_DEPTH``.
        cameras: One view a buffer.
        edges: Which pixels to drop; all are kept when None.
        settings: Pixel centres; the project's own when None.
    """
    settings = settings or WarpSettings()
    depth = depth.nan_to_num(nan=MAX_DEPTH, posinf=MAX_DEPTH).clamp(0, MAX_DEPTH)
    reliable = reliable_depth(depth, edges) if edges else torch.ones_like(depth, dtype=torch.bool)
    return DepthCache(unproject(depth, cameras, settings.pixel_center), images, reliable)


def render_cache(cache: DepthCache, cameras: Cameras, settings: WarpSettings | None = None) -> CacheViews:
    """Splats every buffer of a cache into every camera of a path.

    On the CPU: a GPU adds in another order each time, and the same seed is to give the same clip.
    """
    settings = settings or WarpSettings()
    group = settings.frames_per_normalization
    parts = [
        [_splat_buffer(cache, index, cameras[start : start + group], settings) for index in range(len(cache.points))]
        for start in range(0, len(cameras), group)
    ]
    images, masks, depth = (
        torch.cat([torch.stack([buffer[field] for buffer in part], dim=1) for part in parts]) for field in range(3)
    )
    return CacheViews(images, masks, depth)


def _splat_buffer(
    cache: DepthCache, index: int, cameras: Cameras, settings: WarpSettings
) -> tuple[Tensor, Tensor, Tensor]:
    """Forward bilinear splatting of one buffer; image, mask and depth per frame."""
    frames, height, width = len(cameras), cameras.height, cameras.width
    u, v, z = project(cache.points[index].reshape(-1, 3), cameras)
    u, v = u - settings.pixel_center, v - settings.pixel_center
    valid = cache.reliable[index].reshape(-1) & (z > 0)

    log_depth = torch.log1p(z.clamp(min=0))
    weight = valid / (torch.exp(settings.depth_weight * log_depth / (log_depth.max() + 1e-7)) + 1e-7)
    values = torch.cat([cache.colors[index].flatten(1).mT.expand(frames, -1, 3), z[..., None]], dim=-1)
    total, splatted = _bilinear_scatter(u, v, weight, values, height, width)

    hit = total > 0
    mean = splatted / torch.where(hit, total, torch.ones_like(total))[..., None]
    mean = rearrange(mean, "t (h w) c -> t c h w", h=height)
    hit = rearrange(hit, "t (h w) -> t h w", h=height)
    image = torch.where(hit[:, None], mean[:, :3], -1.0).clamp(-1, 1)
    return image, hit.to(image.dtype), torch.where(hit, mean[:, 3], 0.0)


def _bilinear_scatter(
    u: Tensor, v: Tensor, weight: Tensor, values: Tensor, height: int, width: int
) -> tuple[Float[Tensor, "time pixel"], Float[Tensor, "time pixel channel"]]:
    """Adds weighted values into the four neighbours of (u, v).

    A canvas padded by one pixel catches what falls outside. An exactly integer coordinate has equal floor and ceil
    and is added four times, as published.
    """
    u = (u + 1).clamp(0, width + 1).nan_to_num()
    v = (v + 1).clamp(0, height + 1).nan_to_num()
    left, right, top, bottom = u.floor(), u.ceil(), v.floor(), v.ceil()
    frames, pixels = len(u), (height + 2) * (width + 2)
    total = u.new_zeros(frames, pixels)
    splatted = u.new_zeros(frames, pixels, values.shape[-1])
    for column, horizontal in ((left, 1 - (u - left)), (right, 1 - (right - u))):
        for row, vertical in ((top, 1 - (v - top)), (bottom, 1 - (bottom - v))):
            share = weight * horizontal * vertical
            index = (row * (width + 2) + column).long()
            total.scatter_add_(1, index, share)
            splatted.scatter_add_(1, index[..., None].expand_as(values), share[..., None] * values)

    def crop(canvas: Tensor) -> Tensor:
        return canvas.unflatten(1, (height + 2, width + 2))[:, 1:-1, 1:-1].flatten(1, 2)

    return crop(total), crop(splatted)


@dataclass(frozen=True)
class MovingCache:
    """The 4D cache: frame t of a path sees what is known at frame t.

    Source: ``Cache4D`` of GEN3C, which has no backdrop.
    """

    moments: tuple[DepthCache, ...]
    """One buffer each."""
    backdrop: DepthCache | None = None
    """What other moments show behind what moves; seen where a moment's own points leave holes."""

    def map(self, function: Callable[[DepthCache], DepthCache]) -> "MovingCache":
        """Applies a function to every moment and the backdrop."""
        backdrop = None if self.backdrop is None else function(self.backdrop)
        return MovingCache(tuple(function(moment) for moment in self.moments), backdrop)


def render_moving_cache(
    cache: MovingCache,
    cameras: Cameras,
    look: Callable[[DepthCache, Cameras], CacheViews] = render_cache,
) -> CacheViews:
    """Frame t of a path sees moment t.

    Args:
        cache: As many moments as the path has frames.
        cameras: The path.
        look: Splats a still cache, for example with foreground masking.
    """
    if len(cache.moments) != len(cameras):
        raise ValueError(f"{len(cache.moments)} moments, but a path of {len(cameras)} frames")
    views = [look(moment, cameras[index : index + 1]) for index, moment in enumerate(cache.moments)]
    own = CacheViews(*(torch.cat([getattr(view, name) for view in views]) for name in ("images", "masks", "depth")))
    if cache.backdrop is None:
        return own
    behind = look(cache.backdrop, cameras)
    hit = own.masks > 0
    return CacheViews(
        torch.where(hit[:, :, None], own.images, behind.images),
        torch.where(hit, own.masks, behind.masks),
        torch.where(hit, own.depth, behind.depth),
    )


def view_cache(cache: DepthCache | MovingCache, cameras: Cameras, settings: WarpSettings | None = None) -> CacheViews:
    """A cache of either kind seen from a path of cameras."""
    if isinstance(cache, MovingCache):
        return render_moving_cache(cache, cameras, lambda part, path: render_cache(part, path, settings))
    return render_cache(cache, cameras, settings)


def move_cache(cache: DepthCache, transform: Float[Tensor, "4 4"]) -> DepthCache:
    """The cache with its points moved rigidly, for example into another camera's frame."""
    return replace(cache, points=cache.points @ transform[:3, :3].mT + transform[:3, 3])


FAR_BIAS = 4
"""Power of the depth by which a known pixel counts where holes are filled: they open behind what moves aside."""


def fill_views(views: CacheViews) -> CacheViews:
    """The same views with holes filled from what is far of their surroundings; the masks stay."""
    masks = views.masks.flatten(0, 1)
    weights = views.depth.flatten(0, 1).clamp(min=1e-3) ** FAR_BIAS
    filled = fill_holes(views.images.flatten(0, 1) * masks[:, None], masks, weights)
    return replace(views, images=filled.unflatten(0, views.images.shape[:2]))


def fill_holes(
    values: Float[Tensor, "batch channel height width"],
    masks: Float[Tensor, "batch height width"],
    weights: Float[Tensor, "batch height width"] | None = None,
) -> Float[Tensor, "batch channel height width"]:
    """Fills what a mask leaves open from coarser and coarser averages of what it covers.

    Used for the base depth that ``mini``'s student corrects; a batch entry with an empty mask becomes 0.

    Args:
        values: What is filled.
        masks: 1 where it is known, 0 in holes.
        weights: How much each known value counts in the averages, positive; all the same when None.
    """
    weights = masks if weights is None else weights * masks
    return _fill(values, masks[:, None], weights[:, None])[0]


def _fill(values: Tensor, masks: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Filled values, and the weights that filled cells have for coarser levels' sake."""
    height, width = values.shape[-2:]
    if max(height, width) == 1:
        return values, weights
    known, total, summed = (F.avg_pool2d(x, 2, ceil_mode=True) for x in (masks, weights, values * weights))
    coarse, coarse_weights = _fill(
        summed / total.clamp(min=1e-12), (known > 0).to(masks.dtype), total / known.clamp(min=1e-8)
    )
    size = (height, width)
    level = F.interpolate(coarse_weights, size=size, mode="bilinear", align_corners=False)
    smooth = F.interpolate(coarse * coarse_weights, size=size, mode="bilinear", align_corners=False)
    smooth = smooth / level.clamp(min=1e-12)
    return torch.where(masks > 0, values, smooth), torch.where(masks > 0, weights, level)
