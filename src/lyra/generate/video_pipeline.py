"""Video to 4D scene: the same chain as for a photo, with a cache, clips and Gaussians that move."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from lyra.depth import DepthEstimator
from lyra.device.ranks import Ranks
from lyra.engine.filming import film_video
from lyra.engine.video_synthesis import prepare_moving_inputs
from lyra.errors import LyraError
from lyra.files.clips import Clip
from lyra.files.moving_splats import save_4dgs
from lyra.files.videos import Video
from lyra.generate.runs import Decisions, GenerateOptions, Timings, describe_run, make_film
from lyra.geometry.dynamic import DynamicGaussians, join
from lyra.geometry.gaussians import transform
from lyra.models.model import Model
from lyra.scene.film import write_bullet, write_fly_through
from lyra.scene.scene import Scene
from lyra.student.moments import at_every_frame, decode_moments
from lyra.tokenizer.tiling import place_tokenizer
from lyra.viewer.page import write_viewer
from lyra.views.video_views import VideoViews, estimate_video


def generate_from_video(
    model: Model,
    path: Path,
    out: Path,
    decided: Decisions,
    estimator: DepthEstimator,
    options: GenerateOptions,
    ranks: Ranks,
) -> Scene:
    """Turns a video into a dynamic scene and writes all of its files to ``out``.

    Args:
        model: With a student of "cache" geometry.
        path: Of the video.
        out: Folder of the scene, prepared.
        decided: With the video's frames.
        estimator: Of depth, frame by frame.
        options: Seed, trajectories and so on.
        ranks: The processes that share the clips.

    Raises:
        LyraError: no depth can be found, a disk is full, or values are not finite.
    """
    timings, video, fov = Timings(), decided.video, {}
    assert video is not None
    if ranks.first:
        with timings.stage("depth"):
            views, fov = estimate_video(estimator, video, options.fov)
            views.save(out / "clips/input.safetensors")
    ranks.wait()
    views = VideoViews.load(out / "clips/input.safetensors")
    with timings.stage("teacher"):
        film = make_film(model, estimator, decided, options, out / "clips")
        chunks = film_video(film, views, decided.paths, ranks)
    if not ranks.first:
        ranks.wait()
        return Scene.load(out)
    with timings.stage("student"):
        dynamic = decode_chunks(model, chunks, views, decided)
        scene = Scene.of_moments(dynamic, views.cameras[:1])
    with timings.stage("files"):
        write_fly_through(scene, out / "scene.mp4")
        write_bullet(scene, out / "bullet.mp4")
        write_viewer(dynamic, out / "index.html", scene.input_camera, title=path.stem)
        save_4dgs(dynamic, out / "scene.4dgs", scene.input_camera)
    provenance = {
        **describe_run(decided, options, timings),
        "input": describe_video(path, video),
        "fov": fov,
        "gaussians": {"static": len(dynamic.static), "moments": [len(moment) for moment in dynamic.moments]},
    }
    scene = Scene.of_moments(dynamic, scene.input_camera, provenance)
    scene.save(out)
    ranks.wait()
    return scene


def decode_chunks(
    model: Model, chunks: Sequence[Sequence[Clip]], views: VideoViews, decided: Decisions
) -> DynamicGaussians:
    """The student's Gaussians at every time of a video, chunk after chunk.

    Raises:
        LyraError: its values are not finite.
    """
    length = decided.config.frames
    parts = []
    for number, clips in enumerate(chunks):
        part = views.part(number * (length - 1), length)
        parts.append(decode_video_clips(model, clips, part, decided))
    return join(parts, views.seconds)


def decode_video_clips(model: Model, clips: Sequence[Clip], views: VideoViews, decided: Decisions) -> DynamicGaussians:
    """Gaussians at every frame of one chunk; ``clips`` begin with the input video's own."""
    placement = decided.placement
    tokenizer = place_tokenizer(model.tokenizer, placement)
    decoder = at_every_frame(model.decoder, tokenizer.spec.temporal)
    origin = views.cameras.camera_to_world[0]
    inputs, source = prepare_moving_inputs(clips, views, tokenizer, decoder.config, decided.config.edges)
    with placement.hosting(decoder):
        dynamic = decode_moments(decoder, inputs, source, tokenizer, views.seconds)
    if not bool((origin == torch.eye(4)).all()):
        dynamic = dynamic.map(lambda part: transform(part, origin[:3, :3], origin[:3, 3]))
    finite = [
        bool(getattr(part, name).isfinite().all()) for part in (dynamic.static, *dynamic.moments) for name in vars(part)
    ]
    if not all(finite):
        raise LyraError("the student made values that are not finite: is the model folder damaged?")
    return dynamic


def describe_video(path: Path, video: Video) -> dict[str, Any]:
    """What ``scene.json`` says of the input."""
    return {
        "name": path.name,
        "sha256": video.sha256,
        "size": video.source_size,
        "crop": video.crop,
        "notes": video.notes,
        "seconds": video.seconds,
        "frames": len(video.frames),
    }
