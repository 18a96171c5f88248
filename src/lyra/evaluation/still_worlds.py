"""A model on held-out worlds: one picture in, all six trajectories out, compared with the true pictures."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from lyra.cache.warp import MAX_DEPTH
from lyra.depth import scene_depth
from lyra.engine.synthesis import imagine_clip, input_cache
from lyra.errors import MissingExtraError
from lyra.evaluation.perceptual import PerceptualDistance
from lyra.evaluation.scores import Scores, TrueViews, baselines, visible_from
from lyra.files import save_image
from lyra.files.clips import Clip
from lyra.geometry.cameras import Cameras, concatenate_cameras, intrinsics_from_fov
from lyra.geometry.trajectories import TRAJECTORY_NAMES
from lyra.models.model import Model
from lyra.rendering import render
from lyra.student import decode_scene, prepare_student_inputs
from lyra.worlds import render_world, sample_world
from lyra.worlds.world import INPUT_FOV

FIRST_HELD_OUT_SEED = 50_000
"""Of the worlds that are evaluated on; training seeds begin at 100,000."""


@dataclass(frozen=True)
class WorldsOptions:
    """What is evaluated."""

    scenes: int = 16
    stride: int = 5
    """Every how many frames of a trajectory are compared; with 4, "clockwise" would be met back at the input."""
    seed: int = 0
    """Of the teacher's noise."""


@torch.no_grad()
def evaluate_worlds(model: Model, options: WorldsOptions = WorldsOptions(), report: Path | None = None) -> dict:
    """Student, teacher and baselines on held-out worlds.

    Args:
        model: All parts.
        options: How many worlds and views.
        report: Folder for one picture a world: truth, student, teacher and cache at the trajectories' ends.

    Returns:
        ``scenes`` and ``rows``, one a method; ``perceptual`` is None without the extra ``evaluate``.
    """
    try:
        judge = PerceptualDistance()
    except MissingExtraError:
        judge = None
    scores = Scores(judge)
    for index in tqdm(range(options.scenes), desc="worlds"):
        truth, methods = show_world(model, FIRST_HELD_OUT_SEED + index, options)
        scores.add(truth, methods)
        if report is not None:
            last = len(truth.color) // len(TRAJECTORY_NAMES)
            ends = range(last - 1, len(truth.color), last)
            order = [truth.color, *(methods[name] for name in ("student", "teacher", "cache"))]
            rows = [torch.cat([colors[i] for i in ends], dim=-1) for colors in order]
            save_image(torch.cat(rows, dim=-2).clamp(0, 1), report / f"{index:03d}.png")
    return {"scenes": options.scenes, "rows": scores.rows()}


def show_world(
    model: Model, seed: int, options: WorldsOptions
) -> tuple[TrueViews, dict[str, Float[Tensor, "view 3 height width"]]]:
    """One world's true views, and every method's picture of them."""
    teacher = model.config.teacher
    world = sample_world(seed)
    intrinsics = intrinsics_from_fov(INPUT_FOV, teacher.height, teacher.width)
    camera = Cameras(torch.eye(4)[None], intrinsics[None], teacher.height, teacher.width)
    color, true_depth = render_world(world, camera)
    image = color[0]
    solid = true_depth[0] < 0.99 * MAX_DEPTH
    predicted = scene_depth(model.depth.predict(image))
    known = predicted < 0.99 * MAX_DEPTH
    ratio = true_depth[0][solid].median() / predicted[known].median()
    depth = torch.where(known, predicted * ratio, predicted)

    clips = [imagine_clip(model, image, depth, intrinsics, name, options.seed) for name in TRAJECTORY_NAMES]
    picks = list(range(options.stride, teacher.frames, options.stride))
    cameras = concatenate_cameras([clip.cameras[picks] for clip in clips])
    views, depths = render_world(world, cameras)
    truth = TrueViews(views, cameras, visible_from(true_depth[0], camera, depths, cameras))
    methods = {
        "student": show_student(model, image, depth, clips, cameras),
        "teacher": torch.cat([decode_clip(model, clip)[picks] for clip in clips]),
        **baselines(image, depth, camera, cameras),
    }
    return truth, methods


def show_student(
    model: Model,
    image: Float[Tensor, "3 height width"],
    depth: Float[Tensor, "height width"],
    clips: list[Clip],
    cameras: Cameras,
) -> Float[Tensor, "view 3 height width"]:
    """Renders the student's Gaussians of some clips."""
    cache = input_cache(image, depth, clips[0].cameras[:1], model.config.teacher.edges)
    inputs = prepare_student_inputs(clips, model.tokenizer, model.decoder.config, cache)
    return render(decode_scene(model.decoder, inputs), cameras).color.clamp(0, 1)


def decode_clip(model: Model, clip: Clip) -> Float[Tensor, "time 3 height width"]:
    """A clip's frames in [0, 1]."""
    video = model.tokenizer.decode(model.tokenizer.denormalize(clip.latents[None]))[0]
    return (video.movedim(1, 0) / 2 + 0.5).clamp(0, 1)
