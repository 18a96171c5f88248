"""A model on a device, and the three steps from an input to Gaussians.

    photos or video -> views (depth, cameras, motion) -> clips of views and paths -> Gaussians of clips

Everything that needs one of the steps takes it from here: whole runs, stored clips, synthesis of training data,
evaluation and benches.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from lyra.cache.warp import DepthCache, MovingCache, build_cache, render_cache
from lyra.depth import DepthEstimator, scene_depth
from lyra.depth.alignment import align_depth, close_seam
from lyra.device.memory import DeviceOptions, Placement, find_memory, plan
from lyra.device.ranks import Ranks
from lyra.engine.paths import CameraPath
from lyra.engine.shots import Chunk, Shelf, batch_shots, plan_chunks
from lyra.errors import LyraError
from lyra.files.clips import Clip
from lyra.files.photos import Photo
from lyra.files.videos import Video
from lyra.geometry.cameras import Cameras
from lyra.geometry.dynamic import DynamicGaussians, join
from lyra.geometry.gaussians import Gaussians, transform
from lyra.geometry.trajectories import TRAJECTORY_NAMES
from lyra.models.model import Model
from lyra.models.preflight import needs_of_model
from lyra.student import decode_scene, prepare_student_inputs
from lyra.student.decoder import GaussianDecoder, StudentInputs
from lyra.student.inputs import splat_stride
from lyra.student.moments import Source, at_every_frame, decode_moments, shrink_source
from lyra.teacher import DiffusionTeacher, TeacherConfig, TeacherRequest, VideoTeacher
from lyra.teacher.guardrail import Guardrail
from lyra.tokenizer.tiling import place_tokenizer
from lyra.tokenizer.tokenizer import Tokenizer, decode_frames, encode_frames
from lyra.views.moving import estimate_video
from lyra.views.outlook import Outlook
from lyra.views.posed_video import PosedVideo, pose_video
from lyra.views.posing import PosedPhotos, pose_photos
from lyra.views.still import estimate_views, lift_posed
from lyra.views.views import Views

_FRAMES_LOOKED_AT = 5
"""Frames of a path at which pictures are compared in how much of the path they cover."""


class Engine:
    """A model where it works. As a context it gives the model's networks back to where they were."""

    def __init__(
        self,
        model: Model,
        device: str = "auto",
        *,
        placement: Placement | None = None,
        config: TeacherConfig | None = None,
        teacher: VideoTeacher | None = None,
        depth: DepthEstimator | None = None,
        guardrail: Guardrail | None = None,
        ranks: Ranks | None = None,
    ):
        """Makes an engine.

        Args:
            model: Whose parts work.
            device: "auto", "cpu", "cuda" or "cuda:1"; only looked at where there is no ``placement``.
            placement: Where and how the parts run; the fastest that fits when None.
            config: How the teacher is sampled; the model's own way when None.
            teacher: Another one than the model's own.
            depth: Another estimator than the model's own.
            guardrail: Looks at every clip.
            ranks: The processes that share the clips.

        Raises:
            LyraError: there is no such device, or the model does not fit on it.
        """
        if placement is None:
            needs = needs_of_model(model, len(TRAJECTORY_NAMES))
            placement = plan(needs, find_memory(device, held=True), DeviceOptions(device), len(TRAJECTORY_NAMES))
        self.model = model
        self.placement = placement
        self.config = config or model.config.teacher
        self.guardrail = guardrail
        self.ranks = ranks or Ranks()
        self._teacher = teacher
        self.depth = depth
        self._homes: list[tuple[nn.Module, torch.device]] = []

    def __enter__(self) -> "Engine":
        for module in (self.model.tokenizer, self.model.transformer, self.model.depth, self.model.decoder):
            parameter = next(module.parameters(), None) if isinstance(module, nn.Module) else None
            if isinstance(module, nn.Module) and parameter is not None:
                self._homes.append((module, parameter.device))
        return self

    def __exit__(self, *_: object) -> None:
        while self._homes:
            module, home = self._homes.pop()
            module.to(home)

    @property
    def tokenizer(self) -> Tokenizer:
        """The model's, for callers on the CPU."""
        return place_tokenizer(self.model.tokenizer, self.placement)

    @property
    def exact_tokenizer(self) -> Tokenizer:
        """The same in float32, for what the student reads: rays and depth are geometry."""
        return place_tokenizer(self.model.tokenizer, replace(self.placement, precision="float32"))

    @property
    def estimator(self) -> DepthEstimator:
        """Of one picture's depth."""
        if self.depth is not None:
            return self.depth
        self.model.require("depth")
        return self.model.depth

    def frames(self, clip: Clip) -> Float[Tensor, "time 3 height width"]:
        """A clip's pictures in [0, 1]."""
        return decode_frames(self.tokenizer, clip.latents)

    # Input to views

    def views(
        self,
        source: Sequence[Photo] | Video | PosedPhotos | PosedVideo,
        cameras: Cameras | None = None,
        fov: float | None = None,
    ) -> tuple[Views, dict[str, Any]]:
        """Depth and lens of an input, all in the first picture's frame and scale.

        Args:
            source: Photos, the input view first, or a video, at the model's size; cameras of a video that has none
                are found.
            cameras: Of several photos, in any unit; found in the photos when None.
            fov: Degrees of the shorter side, where the user says so.

        Returns:
            The views, and the field of view with the source it came from.

        Raises:
            LyraError: no depth can be found, or no cameras.
        """
        if isinstance(source, Video):
            source = pose_video(source, fov) if source.cameras is None else PosedVideo(source, None, True, ())
        if not isinstance(source, PosedVideo | PosedPhotos) and len(source) > 1 and cameras is None:
            source = pose_photos(source, fov)
        with self.placement.hosting(self.estimator):
            if isinstance(source, PosedVideo):
                return estimate_video(self.estimator, source.video, fov, source.anchors, source.lens_told)
            if isinstance(source, PosedPhotos):
                return lift_posed(self.estimator, source)
            return estimate_views(self.estimator, source, cameras, fov)

    # Views to clips

    def imagine(
        self, views: Views, paths: Sequence[CameraPath], seed: int = 0, shelf: Shelf | None = None, quiet: bool = False
    ) -> list[list[Clip]]:
        """The clips of an input along some paths, those that lie on the shelf already from there.

        Clips that are imagined together are one batch; a batch of which any clip is missing is run again whole. Of
        several processes each makes every so many-th batch; all return all clips, from a shelf on disk.

        Args:
            views: Of the input.
            paths: From the input camera.
            seed: Of the noise, which also depends on each clip's name.
            shelf: Where finished clips lie; in memory when None.
            quiet: No progress bar.

        Returns:
            A list a chunk; of a video each begins with the input's own clip. A still scene is one chunk.

        Raises:
            LyraError: two clips have one name, a disk is full, or the guardrail refuses a clip.

        Source: multi-trajectory and long-video generation of GEN3C.
        """
        shelf = shelf or Shelf(fps=self.config.fps)
        chunks = plan_chunks(views, paths, self.config.frames)
        if self.ranks.first:
            self._keep_sources(shelf, chunks)
        jobs = [(chunk, group) for chunk in chunks for group in batch_shots(chunk.shots, self.placement.batch)]
        mine = jobs[self.ranks.rank :: self.ranks.world]
        total = sum(len(shot) for _, group in mine for shot in group)
        known: tuple[Chunk, DepthCache | MovingCache] | None = None
        with tqdm(total=total, desc="teacher", unit="clip", disable=quiet or not self.ranks.first) as bar:
            for chunk, group in mine:
                if known is None or known[0] is not chunk:
                    known = chunk, chunk.views.cache(self.config.edges, self.config.warp)
                if len(group[0]) > 1:
                    self._imagine_long(shelf, chunk.views, known[1], group[0], seed, bar)
                else:
                    shots = {name: cameras for shot in group for name, cameras in shot.items()}
                    self._imagine_batch(shelf, chunk.views, known[1], shots, seed)
                    bar.update(len(shots))
        self.ranks.wait()
        return [[shelf[name] for name in chunk.names] for chunk in chunks]

    def _keep_sources(self, shelf: Shelf, chunks: Sequence[Chunk]) -> None:
        """Puts the input video itself on the shelf, without the teacher."""
        for chunk in chunks:
            if chunk.source is not None and chunk.source not in shelf:
                latents = encode_frames(self.tokenizer, chunk.views.images)
                self._finish(shelf, chunk.source, Clip(latents.float().cpu(), chunk.views.cameras))

    def _imagine_batch(
        self, shelf: Shelf, views: Views, cache: DepthCache | MovingCache, shots: dict[str, Cameras], seed: int
    ) -> None:
        if all(name in shelf for name in shots):
            return
        requests = []
        for name, cameras in shots.items():
            shown = cache if isinstance(cache, MovingCache) else show_buffers(cache, cameras, self.config)
            requests.append(TeacherRequest(_first_picture(views, cameras) * 2 - 1, shown, cameras, seed, name))
        for request, latents in zip(requests, self._ask(requests), strict=True):
            if request.name not in shelf:
                self._finish(shelf, request.name, Clip(latents, request.cameras))

    def _ask(self, requests: Sequence[TeacherRequest]) -> Sequence[Tensor]:
        teacher = self.teacher
        if len(requests) > 1 and isinstance(teacher, DiffusionTeacher):
            return list(teacher.imagine_batch(requests))
        return [teacher.imagine(request) for request in requests]

    @property
    def teacher(self) -> VideoTeacher:
        """Who imagines the clips."""
        if self._teacher is None:
            self._teacher = self.model.teacher
            self._teacher.config, self._teacher.placement = self.config, self.placement
        return self._teacher

    @teacher.setter
    def teacher(self, teacher: VideoTeacher) -> None:
        self._teacher = teacher

    def _imagine_long(
        self,
        shelf: Shelf,
        views: Views,
        cache: DepthCache | MovingCache,
        shot: dict[str, Cameras],
        seed: int,
        bar: tqdm,
    ) -> None:
        """Clip after clip; what a finished one adds to the cache is found again from it, the same each time."""
        assert isinstance(cache, DepthCache)
        image, names = views.images[0], list(shot)
        recent: list[DepthCache] = []
        for name, cameras in shot.items():
            if name not in shelf:
                shown = choose_buffers(join_caches([*recent, cache]), cameras, self.config)
                [latents] = self._ask([TeacherRequest(image * 2 - 1, shown, cameras, seed, name)])
                self._finish(shelf, name, Clip(latents, cameras))
            bar.update()
            if name != names[-1]:
                image = self.frames(shelf[name])[-1]
                newest = self._lift(image, cameras[-1:], join_caches([*recent, cache]), name)
                # The input view stays in the cache; of the frames made since, the newest that there is room for.
                recent = [newest, *recent][: max(1, self.config.max_buffers - len(cache.points))]

    def _lift(
        self,
        image: Float[Tensor, "3 height width"],
        camera: Cameras,
        cache: DepthCache,
        name: str,
        seamless: bool = False,
    ) -> DepthCache:
        """The cache of a clip's last frame, its depth brought to the scale of the cache so far."""
        known = render_cache(cache, camera, self.config.warp)
        nearest = torch.where(known.masks[0] > 0, known.depth[0], torch.inf).min(dim=0).values
        try:
            with self.placement.hosting(self.estimator):
                depth = scene_depth(self.estimator.predict(image))
            aligned = align_depth(depth, nearest.nan_to_num(posinf=0.0), nearest.isfinite())
        except ValueError as error:
            raise LyraError(
                f"the path leaves the scene: nothing known is in sight at the end of clip {name!r}; move less "
                "(--movement)"
            ) from error
        if seamless:
            aligned = close_seam(aligned, nearest.nan_to_num(posinf=0.0), nearest.isfinite())
        return build_cache(image[None] * 2 - 1, aligned[None], camera, self.config.edges, self.config.warp)

    def _finish(self, shelf: Shelf, name: str, clip: Clip) -> None:
        if not bool(clip.latents.isfinite().all()):
            raise LyraError(
                f"the teacher made values that are not finite in clip {name!r}: is the model folder damaged?"
            )
        frames = self.frames(clip)
        if self.guardrail is not None:
            self.guardrail.check_video((frames * 255).round().to(torch.uint8))
        shelf.put(name, clip, frames)

    # Clips to Gaussians

    def decode(
        self, chunks: Sequence[Sequence[Clip]], views: Views | None = None, time: float | None = None
    ) -> Gaussians | DynamicGaussians:
        """The student's Gaussians: of a still scene in one pass over all clips, of a video at every moment.

        Args:
            chunks: As ``imagine`` returns them.
            views: Of the input; needed by students of "cache" geometry.
            time: Of students that are conditioned on time and make one moment at a time: the moment, in [0, 1].

        Raises:
            LyraError: values are not finite.
        """
        if views is None or views.motion is None:
            [clips] = chunks
            inputs = self.inputs(clips, views, None if time is None else [time])
            with self.placement.hosting(self.model.decoder), self.placement.autocast():
                gaussians = decode_scene(self.model.decoder, inputs.to(self.placement.device)).to("cpu")
            _require_finite([gaussians])
            return gaussians
        length = self.config.frames
        parts = [
            self._decode_chunk(clips, views.part(number * (length - 1), length)) for number, clips in enumerate(chunks)
        ]
        return join(parts, views.motion.seconds)

    def inputs(self, clips: Sequence[Clip], views: Views | None, times: Sequence[float] | None = None) -> StudentInputs:
        """What the student reads of a still scene's clips."""
        cache = None
        if self.model.decoder.config.geometry == "cache":
            if views is None:
                raise LyraError(
                    f"the decoder of model {self.model.config.name!r} needs the input view's depth: give another model"
                )
            cache = views.cache(self.config.edges)
            if isinstance(views, Outlook):
                cache = self._see_on(clips, views)
            else:
                assert isinstance(cache, DepthCache)
                cache = join_caches([cache, *self._lift_ends(clips, views, cache)])
        pictures = None if views is None else views.cameras
        return prepare_student_inputs(clips, self.exact_tokenizer, self.model.decoder.config, cache, times, pictures)

    def _lift_ends(self, clips: Sequence[Clip], views: Views, cache: DepthCache) -> list[DepthCache]:
        """The points of the last frames of clips that others go on from: those look past what the photos show."""
        lifted: list[DepthCache] = []
        if self.depth is None and "depth" not in self.model.parts:
            return lifted
        for number, (clip, after) in enumerate(pairwise(clips)):
            end, start = clip.cameras[-1:], after.cameras[:1]
            if torch.equal(end.camera_to_world, start.camera_to_world):
                if bool((views.cameras.camera_to_world == end.camera_to_world).flatten(1).all(1).any()):
                    continue  # a path that ends at a photo, and the next begins there
                known = join_caches([*lifted, cache])
                lifted.insert(0, self._lift(self.frames(clip)[-1], end, known, f"number {number}"))
        return lifted[::-1]

    def _see_on(self, clips: Sequence[Clip], outlook: Outlook) -> MovingCache:
        """Each frame's points of a scene, and in their holes those of the end of the one clip that goes on from it."""
        [clip] = clips
        cache = outlook.cache(self.config.edges)
        if self.depth is None and "depth" not in self.model.parts:
            return cache
        lifted = self._lift(self.frames(clip)[-1], clip.cameras[-1:], cache.moments[-1], "of the path", seamless=True)
        lifted = outlook.make_room(lifted)
        return cache.map(lambda moment: join_caches([moment, lifted]))

    def moving_inputs(
        self, clips: Sequence[Clip], views: Views, decoder: GaussianDecoder
    ) -> tuple[StudentInputs, Source]:
        """What the student reads of a video's clips, both on the grid of its Gaussians.

        Args:
            clips: The input video's own, then one a trajectory.
            views: Of the video.
            decoder: From ``at_every_frame``.
        """
        motion = views.moves()
        inputs = prepare_student_inputs(clips, self.exact_tokenizer, decoder.config, views.cache(self.config.edges))
        cameras = views.cameras.relative_to(views.cameras.camera_to_world[0])
        source = Source(views.depth, motion.moving, motion.still, cameras)
        return inputs, shrink_source(source, splat_stride(self.tokenizer.spec, decoder.config))

    def _decode_chunk(self, clips: Sequence[Clip], views: Views) -> DynamicGaussians:
        decoder = at_every_frame(self.model.decoder, self.tokenizer.spec.temporal)
        inputs, source = self.moving_inputs(clips, views, decoder)
        with self.placement.hosting(decoder), self.placement.autocast():
            dynamic = decode_moments(decoder, inputs, source, self.exact_tokenizer, views.moves().seconds)
        origin = views.cameras.camera_to_world[0]
        if not bool((origin == torch.eye(4)).all()):
            dynamic = dynamic.map(lambda part: transform(part, origin[:3, :3], origin[:3, 3]))
        _require_finite([dynamic.static, *dynamic.moments])
        return dynamic


def _require_finite(parts: Sequence[Gaussians]) -> None:
    if not all(bool(value.isfinite().all()) for part in parts for value in part.tensors().values()):
        raise LyraError("the student made values that are not finite: is the model folder damaged?")


def join_caches(caches: Sequence[DepthCache]) -> DepthCache:
    """The buffers of several caches in one."""
    return DepthCache(
        torch.cat([cache.points for cache in caches]),
        torch.cat([cache.colors for cache in caches]),
        torch.cat([cache.reliable for cache in caches]),
    )


def _first_picture(views: Views, cameras: Cameras) -> Float[Tensor, "3 height width"]:
    """The picture that a path begins with: the one whose camera is the path's first."""
    if views.motion is not None:
        return views.images[0]
    same = (views.cameras.camera_to_world == cameras.camera_to_world[0]).flatten(1).all(1)
    return views.images[int(same.float().argmax())]


def show_buffers(cache: DepthCache, cameras: Cameras, config: TeacherConfig) -> DepthCache | MovingCache:
    """What a teacher is shown of a path; see ``choose_buffers``.

    A teacher that takes one buffer is shown the one that covers most of the path and, in its holes, the one of the
    others that covers most: as a scene is whose moments are all the same.
    """
    if config.max_buffers > 1 or len(cache.points) == 1:
        return choose_buffers(cache, cameras, config)
    chosen = choose_buffers(cache, cameras, replace(config, max_buffers=2))
    own = choose_buffers(chosen, cameras, config)
    other = 0 if torch.equal(own.points[0], chosen.points[1]) else 1
    return MovingCache((own,) * len(cameras), pick_buffers(chosen, [other]))


def pick_buffers(cache: DepthCache, index: Sequence[int]) -> DepthCache:
    """Some buffers of a cache."""
    picked = list(index)
    return replace(cache, points=cache.points[picked], colors=cache.colors[picked], reliable=cache.reliable[picked])


def choose_buffers(cache: DepthCache, cameras: Cameras, config: TeacherConfig) -> DepthCache:
    """The buffers that a teacher is shown of a path: all, or those that cover most of it, in their order."""
    if len(cache.points) <= config.max_buffers:
        return cache
    frames = torch.linspace(0, len(cameras) - 1, min(_FRAMES_LOOKED_AT, len(cameras))).round().long()
    covered = render_cache(cache, cameras[frames], config.warp).masks.mean(dim=(0, 2, 3))
    best = covered.argsort(descending=True, stable=True)[: config.max_buffers]
    return pick_buffers(cache, sorted(best.tolist()))
