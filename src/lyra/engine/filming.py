"""The teacher on location: every path of a scene becomes clips on disk.

A finished clip is whole on disk before the next one begins, so an interrupted run goes on from there and ends the same.
Clips that are imagined together are one batch; a batch of which any clip is missing is run again whole. Paths longer
than a clip go on from clip to clip: the last frame's depth joins the cache that the next clip is shown.

Source: multi-trajectory and long-video generation of GEN3C.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from lyra.cache.warp import DepthCache, EdgeFilter, MovingCache, WarpSettings, build_cache, render_cache
from lyra.depth import DepthEstimator, scene_depth
from lyra.depth.alignment import align_depth
from lyra.device.memory import Placement
from lyra.device.ranks import Ranks
from lyra.engine.paths import CameraPath, split_path
from lyra.errors import LyraError
from lyra.files import save_cameras, save_video
from lyra.files.clips import Clip, load_clip, save_clip
from lyra.geometry.cameras import Cameras
from lyra.teacher import DiffusionTeacher, TeacherConfig, TeacherRequest, VideoTeacher
from lyra.teacher.guardrail import Guardrail
from lyra.tokenizer.tiling import place_tokenizer
from lyra.tokenizer.tokenizer import Tokenizer
from lyra.views.photos_views import InputViews
from lyra.views.video_views import VideoViews

_FRAMES_LOOKED_AT = 5
"""Frames of a path at which pictures are compared in how much of the path they cover."""


@dataclass(frozen=True)
class Film:
    """What clips are made with."""

    teacher: VideoTeacher
    tokenizer: Tokenizer
    depth: DepthEstimator
    config: TeacherConfig
    seed: int
    folder: Path
    """Holds one folder a clip."""
    placement: Placement
    guardrail: Guardrail | None = None
    made_of: str = ""
    """Digest of the run, which its clips carry."""

    def decode(self, clip: Clip) -> Float[Tensor, "time 3 height width"]:
        """A clip's pictures in [0, 1]."""
        tokenizer = place_tokenizer(self.tokenizer, self.placement)
        with torch.no_grad():
            video = tokenizer.decode(tokenizer.denormalize(clip.latents[None]))[0]
        return (video.movedim(1, 0) / 2 + 0.5).clamp(0, 1)


def film_paths(film: Film, views: InputViews, paths: Sequence[CameraPath], ranks: Ranks | None = None) -> list[Clip]:
    """All clips of all paths in order, from disk where they are finished there.

    Of several processes each makes every so many-th batch; all return all clips.

    Raises:
        LyraError: two clips have one name, a disk is full, or the guardrail refuses a clip.
    """
    ranks = ranks or Ranks()
    shots = [split_path(path, views.cameras.intrinsics[0], film.config.frames) for path in paths]
    names = [name for shot in shots for name in shot]
    check_names(names)
    cache = build_cache(views.images * 2 - 1, views.depth, views.cameras, film.config.edges, film.config.warp)
    mine = group_shots(shots, film.placement.batch)[ranks.rank :: ranks.world]
    total = sum(len(shot) for group in mine for shot in group)
    with tqdm(total=total, desc="teacher", unit="clip", disable=not ranks.first) as bar:
        for group in mine:
            if len(group[0]) > 1:
                _film_long(film, views, cache, group[0], bar)
            else:
                _film_batch(film, views.images[0], cache, {name: c for shot in group for name, c in shot.items()}, bar)
    ranks.wait()
    return [load_clip(_clip_path(film, name)) for name in names]


def film_video(
    film: Film, views: VideoViews, paths: Sequence[CameraPath], ranks: Ranks | None = None
) -> list[list[Clip]]:
    """The clips of a moving scene, a list for each of its chunks; the first is the input video's own.

    Paths start at the input camera and go on with it: where that moves, they move with it.

    Raises:
        LyraError: a path is longer than a clip, or a disk is full.
    """
    ranks = ranks or Ranks()
    length = film.config.frames
    check_names(["input", *(path.name for path in paths)])
    check_lengths(paths, views.cameras.intrinsics[0], length)
    starts = range(0, len(views) - 1, length - 1)
    jobs: list[tuple[VideoViews, dict[str, Cameras]]] = []
    for number, start in enumerate(starts):
        part = views.part(start, length)
        end = "" if len(starts) == 1 else f".{number}"
        shots = {f"{path.name}{end}": follow(part.cameras, path.through(part.cameras.intrinsics[0])) for path in paths}
        _film_source(film, part, f"input{end}", ranks)
        names = list(shots)
        firsts = range(0, len(names), film.placement.batch)
        jobs += [
            (part, {name: shots[name] for name in names[first : first + film.placement.batch]}) for first in firsts
        ]
    mine = jobs[ranks.rank :: ranks.world]
    with tqdm(total=sum(len(shots) for _, shots in mine), desc="teacher", unit="clip", disable=not ranks.first) as bar:
        for part, shots in mine:
            cache = moving_cache(part, film.config.edges, film.config.warp)
            _film_batch(film, part.images[0], cache, shots, bar)
    ranks.wait()
    ends = [""] if len(starts) == 1 else [f".{number}" for number in range(len(starts))]
    names = ["input", *(path.name for path in paths)]
    return [[load_clip(_clip_path(film, name + end)) for name in names] for end in ends]


def check_names(names: Sequence[str]) -> None:
    """Every clip has a folder of its own.

    Raises:
        LyraError: two clips have one name.
    """
    if len(set(names)) < len(names):
        raise LyraError(f"two clips have one name among {', '.join(names)}: rename a camera file")


def check_lengths(paths: Sequence[CameraPath], lens: Float[Tensor, "4"], length: int) -> None:
    """A video's paths are of its chunks' length.

    Raises:
        LyraError: one is longer or shorter.
    """
    for path in paths:
        if len(path.through(lens)) != length:
            raise LyraError(f"a video takes camera paths of {length} frames: shorten {path.name!r}")


def _film_source(film: Film, views: VideoViews, name: str, ranks: Ranks) -> None:
    """The input video itself as a clip, without the teacher."""
    if not ranks.first or _clip_path(film, name).exists():
        return
    tokenizer = place_tokenizer(film.tokenizer, film.placement)
    with torch.no_grad():
        latents = tokenizer.normalize(tokenizer.encode((views.images * 2 - 1).movedim(0, 1)[None]))[0]
    _finish(film, name, Clip(latents.float().cpu(), views.cameras))


def follow(source: Cameras, path: Cameras) -> Cameras:
    """A path that begins at the input camera, carried along with it."""
    return replace(path, camera_to_world=source.camera_to_world @ path.camera_to_world)


def moving_cache(views: VideoViews, edges: EdgeFilter | None, warp: WarpSettings | None = None) -> MovingCache:
    """The 4D cache of a video: each frame's own points and, where the camera stands still, the backdrop's."""
    moments = tuple(
        build_cache(views.images[at] * 2 - 1, views.depth[at], views.cameras[at], edges, warp)
        for at in (slice(index, index + 1) for index in range(len(views)))
    )
    if not views.is_still:
        return MovingCache(moments)
    behind = build_cache(views.backdrop[None] * 2 - 1, views.backdrop_depth[None], views.cameras[:1], edges, warp)
    # What moves for most of a chunk has no backdrop in it.
    seen = views.moving.float().mean(0) < 0.5
    return MovingCache(moments, replace(behind, reliable=behind.reliable & seen))


def group_shots(shots: Sequence[dict[str, Cameras]], batch: int) -> list[list[dict[str, Cameras]]]:
    """Paths that are imagined together: single clips by the batch, in order; a long path alone."""
    groups: list[list[dict[str, Cameras]]] = []
    for shot in shots:
        last = groups[-1] if groups else None
        if len(shot) == 1 and last is not None and len(last[0]) == 1 and len(last) < batch:
            last.append(shot)
        else:
            groups.append([shot])
    return groups


def _clip_path(film: Film, name: str) -> Path:
    return film.folder / name / "clip.safetensors"


def _film_batch(
    film: Film,
    image: Float[Tensor, "3 height width"],
    cache: DepthCache | MovingCache,
    shots: dict[str, Cameras],
    bar: tqdm,
) -> None:
    if not all(_clip_path(film, name).exists() for name in shots):
        requests = []
        for name, cameras in shots.items():
            shown = cache if isinstance(cache, MovingCache) else choose_buffers(cache, cameras, film.config)
            requests.append(TeacherRequest(image * 2 - 1, shown, cameras, film.seed, name))
        for request, latents in zip(requests, _imagine(film.teacher, requests), strict=True):
            if not _clip_path(film, request.name).exists():
                _finish(film, request.name, Clip(latents, request.cameras))
    bar.update(len(shots))


def _imagine(teacher: VideoTeacher, requests: Sequence[TeacherRequest]) -> Sequence[Tensor]:
    if len(requests) > 1 and isinstance(teacher, DiffusionTeacher):
        return list(teacher.imagine_batch(requests))
    return [teacher.imagine(request) for request in requests]


def _film_long(film: Film, views: InputViews, cache: DepthCache, shots: dict[str, Cameras], bar: tqdm) -> None:
    """Clip after clip; what a finished one adds to the cache is found again from its file, the same each time."""
    image, names = views.images[0], list(shots)
    recent: list[DepthCache] = []
    for name, cameras in shots.items():
        if not _clip_path(film, name).exists():
            shown = choose_buffers(join_caches([*recent, cache]), cameras, film.config)
            request = TeacherRequest(image * 2 - 1, shown, cameras, film.seed, name)
            _finish(film, name, Clip(film.teacher.imagine(request), cameras))
        bar.update()
        if name != names[-1]:
            image = film.decode(load_clip(_clip_path(film, name)))[-1]
            newest = _lift_frame(film, image, cameras[-1:], join_caches([*recent, cache]), name)
            # The input view stays in the cache; of the frames made since, the newest that there is room for.
            recent = [newest, *recent][: max(1, film.config.max_buffers - len(cache.points))]


def _lift_frame(film: Film, image: Tensor, camera: Cameras, cache: DepthCache, name: str) -> DepthCache:
    """The cache of a clip's last frame, its depth brought to the scale of the cache so far."""
    known = render_cache(cache, camera, film.config.warp)
    nearest = torch.where(known.masks[0] > 0, known.depth[0], torch.inf).min(dim=0).values
    try:
        depth = scene_depth(film.depth.predict(image))
        aligned = align_depth(depth, nearest.nan_to_num(posinf=0.0), nearest.isfinite())
    except ValueError as error:
        raise LyraError(
            f"the path leaves the scene: nothing known is in sight at the end of clip {name!r}; move less (--movement)"
        ) from error
    return build_cache(image[None] * 2 - 1, aligned[None], camera, film.config.edges, film.config.warp)


def join_caches(caches: Sequence[DepthCache]) -> DepthCache:
    """The buffers of several caches in one."""
    return DepthCache(
        torch.cat([cache.points for cache in caches]),
        torch.cat([cache.colors for cache in caches]),
        torch.cat([cache.reliable for cache in caches]),
    )


def choose_buffers(cache: DepthCache, cameras: Cameras, config: TeacherConfig) -> DepthCache:
    """The buffers that a teacher is shown of a path: all, or those that cover most of it, in their order."""
    if len(cache.points) <= config.max_buffers:
        return cache
    frames = torch.linspace(0, len(cameras) - 1, min(_FRAMES_LOOKED_AT, len(cameras))).round().long()
    covered = render_cache(cache, cameras[frames], config.warp).masks.mean(dim=(0, 2, 3))
    best = covered.argsort(descending=True, stable=True)[: config.max_buffers]
    index = sorted(best.tolist())
    return DepthCache(cache.points[index], cache.colors[index], cache.reliable[index])


def _finish(film: Film, name: str, clip: Clip) -> None:
    """``clip.safetensors`` is written last: where it exists the clip is whole."""
    folder = film.folder / name
    if not bool(clip.latents.isfinite().all()):
        raise LyraError(f"the teacher made values that are not finite in clip {name!r}: is the model folder damaged?")
    video = film.decode(clip)
    if film.guardrail is not None:
        film.guardrail.check_video((video * 255).round().to(torch.uint8))
    save_video(video, folder / "video.mp4", fps=film.config.fps)
    save_cameras(clip.cameras, folder / "cameras.json")
    save_clip(clip, _clip_path(film, name), film.made_of)
