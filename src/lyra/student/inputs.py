"""One road from clips to what the decoder reads, for training and inference alike."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lyra.cache.warp import (
    FAR_BIAS,
    CacheViews,
    DepthCache,
    MovingCache,
    fill_holes,
    move_cache,
    render_cache,
    render_moving_cache,
)
from lyra.files.clips import Clip
from lyra.geometry.cameras import Cameras, invert_rigid, pixel_rays, plucker_map, z_depth_factor
from lyra.student.decoder import BaseSurface, DecoderConfig, StudentInputs
from lyra.student.surface import is_hidden, surface_normals
from lyra.tokenizer.tokenizer import LatentSpec, Tokenizer

PLUCKER_PIXELS = 1 << 23
"""Pixels whose rays are made at once."""


def frame_times(frames: int) -> Float[Tensor, "time"]:
    """Times of a clip's frames in [0, 1]."""
    return torch.linspace(0, 1, frames)


def encode_time(times: Float[Tensor, "time"]) -> Float[Tensor, "time 3"]:
    """[t, cos t, sin t], which is tiled to a video and tokenized after * 2 - 1.

    Source: ``timestep_embedding`` of Lyra; golden ``rays_time``.
    """
    return torch.stack([times, times.cos(), times.sin()], dim=-1)


def splat_frame_indices(frames: int, spec: LatentSpec, config: DecoderConfig) -> list[int]:
    """Frames at which the decoder places Gaussians: the first, then every so many."""
    if spec.temporal % config.splat_frames:
        raise ValueError(f"splat_frames {config.splat_frames} does not divide the compression {spec.temporal}")
    return list(range(0, frames, spec.temporal // config.splat_frames))


def splat_stride(spec: LatentSpec, config: DecoderConfig) -> int:
    """Pixels of one Gaussian's side."""
    side = spec.spatial * config.token_patch
    if side % config.splats_per_token:
        raise ValueError(f"{config.splats_per_token} Gaussians do not divide a token's {side} pixels")
    return side // config.splats_per_token


@torch.no_grad()
def prepare_student_inputs(
    clips: Sequence[Clip],
    tokenizer: Tokenizer,
    config: DecoderConfig,
    cache: DepthCache | MovingCache | None = None,
    times: Sequence[float] | None = None,
    pictures: Cameras | None = None,
) -> StudentInputs:
    """Inputs of a decoder for the clips of one scene (a batch of one).

    Cameras are expressed relative to the first clip's first frame, which is the world of the Gaussians.

    Args:
        clips: One a trajectory, all of one length.
        tokenizer: The teacher's.
        config: The decoder's.
        cache: The scene's depth cache, in the cameras' world; needed by decoders of "cache" geometry. Of a dynamic
            scene as many moments as the clips have frames.
        times: The moments that the Gaussians shall show, in [0, 1]; needed by decoders that are conditioned on time.
        pictures: Cameras of the cache's first buffers, which are pictures; clips may begin with any of them. One, that
            of the first clip's first frame, when None.

    Raises:
        ValueError: the decoder wants a cache and there is none.
    """
    origin = clips[0].cameras.camera_to_world[0]
    cameras = [clip.cameras.relative_to(origin) for clip in clips]
    frames = splat_frame_indices(len(cameras[0]), tokenizer.spec, config)
    stride = splat_stride(tokenizer.spec, config)
    latents = torch.stack([tokenizer.denormalize(clip.latents) for clip in clips])
    known = [origin] if pictures is None else list(pictures.camera_to_world)
    starts = find_starts(clips, known)
    grids = [view[frames].resized(view.height // stride, view.width // stride) for view in cameras]
    rays = [pixel_rays(grid) for grid in grids]
    base = None
    if config.geometry == "cache":
        if cache is None:
            raise ValueError("a decoder of cache geometry needs the scene's depth cache")
        to_origin = invert_rigid(origin)
        if isinstance(cache, MovingCache):
            cache = cache.map(lambda part: move_cache(part, to_origin))
        else:
            cache = move_cache(cache, to_origin)
        base = _base_surface(latents, cameras, cache, tokenizer, frames, stride, rays, starts)
    return StudentInputs(
        latents=latents[None],
        plucker=torch.cat([_encode_plucker(view, tokenizer) for view in cameras])[None],
        ray_origins=torch.stack([origins for origins, _ in rays])[None],
        ray_directions=torch.stack([directions for _, directions in rays])[None],
        pixel_angle=torch.stack([1 / grid.intrinsics[:, 0] for grid in grids])[None],
        base=base,
        times=None if times is None else _encode_times(times, cameras[0], tokenizer),
    )


def encode_times(
    targets: Sequence[float], frames: int, height: int, width: int, tokenizer: Tokenizer
) -> Float[Tensor, "target channel latent_time_plus_one latent_height latent_width"]:
    """Times of a clip's frames as a video through the tokenizer and, last, a target time as a video of one frame.

    Args:
        targets: In [0, 1].
        frames: Of the clip.
        height: Of the clip in pixels.
        width: Of the clip in pixels.
        tokenizer: The teacher's.
    """

    def encode(times: Float[Tensor, "time"]) -> Tensor:
        signal = (encode_time(times) * 2 - 1).T
        return tokenizer.encode(signal[None, :, :, None, None].expand(1, -1, -1, height, width))

    source = encode(frame_times(frames))
    return torch.cat([torch.cat([source, encode(torch.tensor([target]))], dim=2) for target in targets])


def _encode_times(targets: Sequence[float], cameras: Cameras, tokenizer: Tokenizer) -> Tensor:
    return encode_times(targets, len(cameras), cameras.height, cameras.width, tokenizer)


def _encode_plucker(cameras: Cameras, tokenizer: Tokenizer) -> Float[Tensor, "1 channel time h w"]:
    """Both halves of the Plücker map as videos of raw values, through the tokenizer."""
    return torch.cat([tokenizer.encode(_plucker_half(cameras, half)[None]) for half in range(2)], dim=1)


def _plucker_half(cameras: Cameras, half: int) -> Float[Tensor, "3 time height width"]:
    """Moments (0) or directions (1), a few frames at a time: whole maps of a large video are many gigabytes."""
    frames = max(1, PLUCKER_PIXELS // (cameras.height * cameras.width))
    video = cameras.intrinsics.new_empty(3, len(cameras), cameras.height, cameras.width)
    for first in range(0, len(cameras), frames):
        maps = plucker_map(cameras[first : first + frames])[:, 3 * half : 3 * half + 3]
        video[:, first : first + frames] = maps.movedim(1, 0)
    return video


def find_starts(clips: Sequence[Clip], pictures: Sequence[Float[Tensor, "4 4"]]) -> list[int | None]:
    """Which picture each clip's first frame is; None of a clip that goes on from the end of another."""

    def find(clip: Clip) -> int | None:
        first = clip.cameras.camera_to_world[0]
        return next((index for index, pose in enumerate(pictures) if torch.equal(pose, first)), None)

    return [find(clip) for clip in clips]


def _base_surface(
    latents: Tensor,
    cameras: Sequence[Cameras],
    cache: DepthCache | MovingCache,
    tokenizer: Tokenizer,
    frames: list[int],
    stride: int,
    rays: Sequence[tuple[Tensor, Tensor]],
    starts: Sequence[int | None],
) -> BaseSurface:
    filmed = sorted({start for start in starts if start is not None})
    distances, covered, known, colors, points = [], [], [], [], []
    for latent, view, (origins, directions), start in zip(latents, cameras, rays, starts, strict=True):
        at_frames = view[frames]
        if isinstance(cache, MovingCache):
            moments = MovingCache(tuple(cache.moments[frame] for frame in frames), cache.backdrop)
            views = render_moving_cache(moments, at_frames)
        else:
            views = render_cache(cache, at_frames)
        depth, mask = _nearest(views, start or 0)
        # Holes open behind what moves aside: they are filled from what is far of their surroundings.
        depth = depth.clamp(min=1e-3)
        log_depth = fill_holes(depth.log()[:, None] * mask[:, None], mask, depth**FAR_BIAS)[:, 0]
        distances.append(_shrink((log_depth.exp() * z_depth_factor(at_frames)).log(), stride).exp())
        # What only other photos show, and no clip begins with, is nobody's yet: their pixels are no Gaussians.
        known.append(torch.stack([_shrink(views.masks[:, index], stride) for index in filmed]))
        covered.append(known[-1].amax(0))
        video = tokenizer.decode(latent[None])[0] / 2 + 0.5
        colors.append(_shrink(video[:, frames].movedim(0, 1), stride).movedim(1, -1).clamp(0, 1))
        points.append(origins + distances[-1][..., None] * directions)
    places = torch.stack(points)
    fresh = _find_fresh(places, torch.stack(known), cameras, starts, filmed)
    parts = {"distance": torch.stack(distances), "covered": torch.stack(covered), "color": torch.stack(colors)}
    parts |= {"normals": surface_normals(places), "fresh": fresh}
    return BaseSurface(**{name: part[None] for name, part in parts.items()})


def _find_fresh(
    places: Float[Tensor, "view time height width 3"],
    known: Float[Tensor, "view picture time height width"],
    cameras: Sequence[Cameras],
    starts: Sequence[int | None],
    filmed: Sequence[int],
) -> Float[Tensor, "view time height width"]:
    """See ``BaseSurface.fresh``."""
    unseen = []
    for row, picture in enumerate(filmed):
        clip = starts.index(picture)
        # Its depth is that of its own frame, on the grid of the Gaussians.
        camera = cameras[clip][:1].resized(*places.shape[2:4])
        to_camera = camera.world_to_camera[0]
        depth = places[clip, 0] @ to_camera[2, :3] + to_camera[2, 3]
        hidden = is_hidden(places.flatten(0, -2), depth, camera).reshape(places.shape[:-1])
        unseen.append((1 - known[:, row]) * hidden)
    fresh = torch.stack(unseen).amin(0)
    # First frames are pictures, or the last frames of other clips: each picture counts once.
    fresh[:, 0] = 0
    for row, picture in enumerate(filmed):
        own = starts.index(picture)
        before = [part[own, 0] for part in unseen[:row]]
        fresh[own, 0] = torch.stack(before).amin(0) if before else 1
    return fresh


def _nearest(
    views: CacheViews, own: int
) -> tuple[Float[Tensor, "time height width"], Float[Tensor, "time height width"]]:
    """Depth and mask of the picture that a clip begins with and, in its holes, of what is nearest among all others."""
    if views.depth.shape[1] == 1:
        return views.depth[:, 0], views.masks[:, 0]
    depth = torch.where(views.masks > 0, views.depth, torch.inf)
    depth = torch.where(depth[:, own].isfinite(), depth[:, own], depth.amin(1))
    return torch.where(depth.isfinite(), depth, 0.0), depth.isfinite().to(depth.dtype)


def _shrink(maps: Tensor, stride: int) -> Tensor:
    if stride == 1:
        return maps
    extra = maps.ndim == 3
    small = F.avg_pool2d(maps[:, None] if extra else maps, stride)
    return small[:, 0] if extra else small
