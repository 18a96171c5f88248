"""A model on held-out worlds: one picture in, all six trajectories out, compared with the true pictures."""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from lyra.engine.engine import Engine
from lyra.engine.paths import preset_paths
from lyra.errors import MissingExtraError
from lyra.evaluation.judge import PerceptualDistance
from lyra.evaluation.lpips_distance import LpipsDistance
from lyra.evaluation.scores import Scores, TrueViews, baselines, visible_from
from lyra.files import save_image
from lyra.files.photos import Photo
from lyra.geometry.cameras import Cameras, concatenate_cameras, intrinsics_from_fov
from lyra.geometry.gaussians import Gaussians
from lyra.geometry.sky import is_sky
from lyra.geometry.trajectories import TRAJECTORY_NAMES
from lyra.rendering import render
from lyra.views.views import Views
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
def evaluate_worlds(engine: Engine, options: WorldsOptions = WorldsOptions(), report: Path | None = None) -> dict:
    """Student, teacher and baselines on held-out worlds.

    Args:
        engine: With all parts of a model.
        options: How many worlds and views.
        report: Folder for one picture a world: truth, student, teacher and cache at the trajectories' ends.

    Returns:
        ``scenes`` and ``rows``, one a method; ``perceptual`` is None without the extra ``evaluate``.
    """
    try:
        judge = PerceptualDistance()
    except MissingExtraError:
        judge = None
    scores = Scores(judge, LpipsDistance.find())
    for index in tqdm(range(options.scenes), desc="worlds"):
        truth, methods = show_world(engine, FIRST_HELD_OUT_SEED + index, options)
        scores.add(truth, methods)
        if report is not None:
            last = len(truth.color) // len(TRAJECTORY_NAMES)
            ends = range(last - 1, len(truth.color), last)
            order = [truth.color, *(methods[name] for name in ("student", "teacher", "cache"))]
            rows = [torch.cat([colors[i] for i in ends], dim=-1) for colors in order]
            save_image(torch.cat(rows, dim=-2).clamp(0, 1), report / f"{index:03d}.png")
    return {"scenes": options.scenes, "rows": scores.rows()}


def show_world(
    engine: Engine, seed: int, options: WorldsOptions
) -> tuple[TrueViews, dict[str, Float[Tensor, "view 3 height width"]]]:
    """One world's true views, and every method's picture of them."""
    teacher = engine.config
    world = sample_world(seed)
    intrinsics = intrinsics_from_fov(INPUT_FOV, teacher.height, teacher.width)
    camera = Cameras(torch.eye(4)[None], intrinsics[None], teacher.height, teacher.width)
    color, true_depth = render_world(world, camera)
    image = color[0]
    views, _ = engine.views([Photo.of(image)], fov=INPUT_FOV)
    views = to_true_scale(views, true_depth[0])
    paths = preset_paths(options.seed, teacher.frames, teacher.height, teacher.width)
    [clips] = engine.imagine(views, paths, options.seed, quiet=True)
    picks = list(range(options.stride, teacher.frames, options.stride))
    cameras = concatenate_cameras([clip.cameras[picks] for clip in clips])
    colors, depths = render_world(world, cameras)
    truth = TrueViews(colors, cameras, visible_from(true_depth[0], camera, depths, cameras))
    gaussians = engine.decode([clips], views)
    assert isinstance(gaussians, Gaussians)
    methods = {
        "student": render(gaussians, cameras).color.clamp(0, 1),
        "teacher": torch.cat([engine.frames(clip)[picks] for clip in clips]),
        **baselines(image, views.depth[0], camera, cameras),
    }
    return truth, methods


def to_true_scale(views: Views, true_depth: Float[Tensor, "height width"]) -> Views:
    """Depths by the ratio of the first view's medians, which all methods share."""

    def middle(depth: Tensor) -> Tensor:
        return depth[~is_sky(depth)].median()

    factor = middle(true_depth) / middle(views.depth[0])

    def scaled(depth: Tensor) -> Tensor:
        return torch.where(is_sky(depth), depth, depth * factor)

    motion = views.motion and replace(views.motion, backdrop_depth=scaled(views.motion.backdrop_depth))
    return replace(views, depth=scaled(views.depth), motion=motion)
