"""Self-distillation data of things that move: the teacher imagines clips of videos, stored one file a scene.

A video enters forward and backward. Turned forward again, the clips of the second kind are far from the input camera
while time is early: the paper's augmentation. Their poses are turned as well, which its published code forgets.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from lyra.cache.warp import EdgeFilter
from lyra.engine.filming import moving_cache
from lyra.engine.synthesis import claim_folder
from lyra.files import load_tensors, save_tensors
from lyra.files.clips import Clip
from lyra.files.videos import Video
from lyra.geometry.cameras import Cameras
from lyra.geometry.trajectories import TRAJECTORY_NAMES, draw_distance, trajectory_cameras
from lyra.models.model import Model
from lyra.student import DecoderConfig, StudentInputs, prepare_student_inputs
from lyra.student.inputs import splat_stride
from lyra.student.moments import Source, shrink_source
from lyra.teacher import TeacherRequest
from lyra.tokenizer.tokenizer import Tokenizer
from lyra.views.video_views import VideoViews, estimate_video


@dataclass(frozen=True)
class MovingScene:
    """One video and the clips that the teacher imagined around it."""

    views: VideoViews
    clips: tuple[Clip, ...]
    """The input video's own, then one a trajectory."""
    backward: tuple[Clip, ...]
    """One a trajectory, of the video run backward; as imagined: their first frame is the video's last."""


def reverse(views: VideoViews) -> VideoViews:
    """The same video run backward."""
    return replace(
        views,
        images=views.images.flip(0),
        depth=views.depth.flip(0),
        cameras=views.cameras[list(range(len(views)))[::-1]],
        moving=views.moving.flip(0),
    )


def input_clip(model: Model, views: VideoViews) -> Clip:
    """The input video itself as a clip."""
    latents = model.tokenizer.normalize(model.tokenizer.encode((views.images * 2 - 1).movedim(0, 1)[None]))[0]
    return Clip(latents.float(), views.cameras)


def prepare_moving_inputs(
    clips: Sequence[Clip], views: VideoViews, tokenizer: Tokenizer, config: DecoderConfig, edges: EdgeFilter | None
) -> tuple[StudentInputs, Source]:
    """What the student is given of a video and its clips, both on the grid of its Gaussians.

    Args:
        clips: The input video's own, then one a trajectory.
        views: Of the video.
        tokenizer: The teacher's.
        config: Of a decoder from ``at_every_frame``.
        edges: The teacher's filter of the cache.
    """
    inputs = prepare_student_inputs(clips, tokenizer, config, moving_cache(views, edges))
    cameras = views.cameras.relative_to(views.cameras.camera_to_world[0])
    source = Source(views.depth, views.moving, views.still, cameras)
    return inputs, shrink_source(source, splat_stride(tokenizer.spec, config))


@torch.no_grad()
def imagine_moving_clips(model: Model, views: VideoViews, seed: int) -> tuple[Clip, ...]:
    """The teacher's clips of a video from a still camera, one a trajectory."""
    teacher = model.config.teacher
    cache = moving_cache(views, teacher.edges, teacher.warp)
    clips = []
    for name in TRAJECTORY_NAMES:
        distance = draw_distance(name, seed)
        lens, size = views.cameras.intrinsics[0], views.images.shape[2:]
        cameras = trajectory_cameras(name, distance, teacher.frames, lens, *size)
        request = TeacherRequest(views.images[0] * 2 - 1, cache, cameras, seed, name)
        clips.append(Clip(model.teacher.imagine(request), cameras))
    return tuple(clips)


def as_video(frames: Float[Tensor, "time 3 height width"], seconds: float) -> Video:
    """Frames in [0, 1] as if they had been read from a file."""
    height, width = frames.shape[2:]
    return Video(frames, seconds, (width, height), (0, 0, width, height), "", None, ())


def synthesize_videos(
    model: Model, videos: Iterable[tuple[int, Float[Tensor, "time 3 height width"]]], folder: Path
) -> list[Path]:
    """Imagines twelve clips for every (seed, video) that ``folder`` lacks; returns one path a scene.

    Args:
        model: Whose teacher and depth.
        videos: From a still camera, in [0, 1], of the model's length and size. Lazily made: those that are there
            already are not looked at.
        folder: Of the files; each is written whole or not at all.

    Raises:
        LyraError: ``folder`` holds clips of another teacher, tokenizer or depth network.
    """
    claim_folder(model, folder)
    paths = []
    for seed, frames in tqdm(videos, desc="synthesize videos"):
        path = folder / f"{seed:07d}.safetensors"
        paths.append(path)
        if path.exists():
            continue
        views, _ = estimate_video(model.depth, as_video(frames, (len(frames) - 1) / model.config.teacher.fps))
        forward = imagine_moving_clips(model, views, seed)
        backward = imagine_moving_clips(model, reverse(views), seed + 1)
        save_moving_scene(MovingScene(views, (input_clip(model, views), *forward), backward), path)
    return paths


def save_moving_scene(scene: MovingScene, path: Path) -> None:
    """Writes a scene; of its clips those that the teacher made, without the input video's own."""
    tensors = scene.views.tensors()
    for name, clips in (("forward", scene.clips[1:]), ("backward", scene.backward)):
        tensors[f"{name}.latents"] = torch.stack([clip.latents for clip in clips]).half()
        tensors[f"{name}.camera_to_world"] = torch.stack([clip.cameras.camera_to_world for clip in clips])
    save_tensors(tensors, path)


def load_moving_scene(path: Path, model: Model) -> MovingScene:
    """Reads what ``save_moving_scene`` wrote; the input video's own clip is made anew."""
    views, tensors = VideoViews.load(path), load_tensors(path)

    def clips(name: str) -> Sequence[Clip]:
        lens, size = views.cameras.intrinsics, views.images.shape[2:]
        poses = tensors[f"{name}.camera_to_world"]
        latents = tensors[f"{name}.latents"].float()
        return [Clip(z, Cameras(pose, lens, *size)) for z, pose in zip(latents, poses, strict=True)]

    with torch.no_grad():
        first = input_clip(model, views)
    return MovingScene(views, (first, *clips("forward")), tuple(clips("backward")))
