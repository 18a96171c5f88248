"""A model on held-out worlds: one picture in, all six trajectories out, compared with the true pictures."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from lyra.cache.warp import DepthCache
from lyra.engine.engine import Engine
from lyra.engine.paths import preset_paths
from lyra.evaluation.gallery import Gallery
from lyra.evaluation.optimization import Optimization, optimize_clips
from lyra.evaluation.scores import Scores, TrueViews, baselines, find_scores, visible_from
from lyra.evaluation.stages import Stages
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
    optimize: int = 0
    """Steps of Gaussians that are optimized on the teacher's frames of each scene: slow; not done when 0."""


@torch.no_grad()
def evaluate_worlds(
    engine: Engine,
    options: WorldsOptions = WorldsOptions(),
    gallery: Gallery | None = None,
    stages: Stages | None = None,
    scores: Scores | None = None,
) -> dict:
    """Student, teacher and baselines on held-out worlds.

    Args:
        engine: With all parts of a model.
        options: How many worlds and views.
        gallery: Where pictures are kept for a report.
        stages: Where time and memory are noted.
        scores: Where every number is kept.

    Returns:
        ``scenes`` and ``rows``, one a method; ``perceptual`` is None without the extra ``evaluate``. With optimized
        scenes ``seconds``, of one scene, from the teacher's clips to Gaussians.
    """
    stages = stages or Stages()
    scores = scores or find_scores()
    for index in tqdm(range(options.scenes), desc="worlds"):
        seed = FIRST_HELD_OUT_SEED + index
        truth, methods = show_world(engine, seed, options, stages)
        with stages("scores"):
            scores.add(truth, methods)
        if gallery is not None:
            count = len(truth.color) // len(TRAJECTORY_NAMES)
            labels = [f"{name} {i + 1} of {count}" for name in TRAJECTORY_NAMES for i in range(count)]
            gallery.add(f"world {seed}", truth.given, truth.color, methods, labels)
    result: dict[str, Any] = {"scenes": options.scenes, "rows": scores.rows()}
    if options.optimize:
        result["seconds"] = {name: stages.seconds[name] / options.scenes for name in ("student", "optimized")}
    return result


def show_world(
    engine: Engine, seed: int, options: WorldsOptions, stages: Stages
) -> tuple[TrueViews, dict[str, Float[Tensor, "view 3 height width"]]]:
    """One world's true views, and every method's picture of them."""
    teacher = engine.config
    intrinsics = intrinsics_from_fov(INPUT_FOV, teacher.height, teacher.width)
    camera = Cameras(torch.eye(4)[None], intrinsics[None], teacher.height, teacher.width)
    with stages("worlds"):
        world = sample_world(seed)
        color, true_depth = render_world(world, camera)
        image = color[0]
    with stages("depth and teacher"):
        views, _ = engine.views([Photo.of(image)], fov=INPUT_FOV)
        views = to_true_scale(views, true_depth[0])
        paths = preset_paths(options.seed, teacher.frames, teacher.height, teacher.width)
        [clips] = engine.imagine(views, paths, options.seed, quiet=True)
    picks = list(range(options.stride, teacher.frames, options.stride))
    cameras = concatenate_cameras([clip.cameras[picks] for clip in clips])
    with stages("worlds"):
        colors, depths = render_world(world, cameras)
        truth = TrueViews(colors, cameras, visible_from(true_depth[0], camera, depths, cameras), image)
    with stages("student"):
        gaussians = engine.decode([clips], views)
        assert isinstance(gaussians, Gaussians)
    films = [engine.frames(clip) for clip in clips]
    methods = {
        "student": render(gaussians, cameras).color.clamp(0, 1),
        "teacher": torch.cat([film[picks] for film in films]),
        **baselines(image, views.depth[0], camera, cameras),
    }
    if options.optimize:
        cache = views.cache(teacher.edges)
        assert isinstance(cache, DepthCache)
        with stages("optimized"):
            how = Optimization(options.optimize, seed=options.seed)
            fitted = optimize_clips(cache, views.depth[0], camera, [clip.cameras for clip in clips], films, how)
        methods["optimized"] = render(fitted, cameras).color.clamp(0, 1)
    return truth, methods


def to_true_scale(views: Views, true_depth: Float[Tensor, "height width"]) -> Views:
    """Depths by the ratio of the first view's medians, which all methods share."""

    def middle(depth: Tensor) -> Tensor:
        return depth[~is_sky(depth)].median()

    factor = middle(true_depth) / middle(views.depth[0])

    def scaled(depth: Tensor) -> Tensor:
        return torch.where(is_sky(depth), depth, depth * factor)

    motion = views.motion and replace(views.motion, backdrop_depth=scaled(views.motion.backdrop_depth))
    poses = views.cameras.camera_to_world.clone()
    poses[:, :3, 3] *= factor
    cameras = replace(views.cameras, camera_to_world=poses)
    return replace(views, depth=scaled(views.depth), cameras=cameras, motion=motion)
