"""A model on held-out worlds that move: one video from a still camera in, other cameras at all times out."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from lyra.engine.engine import Engine
from lyra.engine.paths import preset_paths
from lyra.errors import LyraError
from lyra.evaluation.judge import find_judge
from lyra.evaluation.moving_scores import MovingScores, MovingTruth, dynamic_baselines, film_truth
from lyra.evaluation.still_worlds import to_true_scale
from lyra.files import save_image
from lyra.files.videos import Video
from lyra.geometry.cameras import Cameras, concatenate_cameras, intrinsics_from_fov
from lyra.geometry.dynamic import DynamicGaussians
from lyra.geometry.trajectories import TRAJECTORY_NAMES, draw_distance, trajectory_cameras
from lyra.rendering import render
from lyra.worlds import INPUT_FOV, render_moving_world, sample_moving_world

FIRST_HELD_OUT_SEED = 60_000
"""Of the moving worlds that are evaluated on; training seeds begin at 100,000."""


@dataclass(frozen=True)
class DynamicOptions:
    """What is evaluated."""

    scenes: int = 8
    on_path: tuple[int, ...] = (4, 8, 12)
    """Frames of each trajectory at whose own times its cameras look."""
    at_end: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Times at which each trajectory's last camera looks."""
    seed: int = 0
    """Of the teacher's noise."""


@torch.no_grad()
def evaluate_dynamic(engine: Engine, options: DynamicOptions = DynamicOptions(), report: Path | None = None) -> dict:
    """Student, frozen scene and baselines on held-out moving worlds with true cameras at every time.

    Args:
        engine: With all parts of a model; a student of "cache" geometry.
        options: How many worlds, which views and times.
        report: Folder for one picture a world: truth, student, frozen scene and cache, at the beginning, the middle
            and the end from the ends of two trajectories.

    Returns:
        ``scenes`` and ``rows``, one a method; ``truth`` has its own flicker alone.

    Raises:
        LyraError: the student's geometry is another.
    """
    if engine.model.decoder.config.geometry != "cache":
        raise LyraError(
            f"the student of model {engine.model.config.name!r} makes one moment at a time and no scene that moves: "
            "give a model with a student of cache geometry, like mini"
        )
    scores = MovingScores(find_judge())
    for index in tqdm(range(options.scenes), desc="moving worlds"):
        truth, methods = show_moving_world(engine, FIRST_HELD_OUT_SEED + index, options)
        scores.add(truth, methods)
        if report is not None:
            _report(truth, methods, options, report / f"{index:03d}.png")
    return {"scenes": options.scenes, "rows": scores.rows()}


def show_moving_world(
    engine: Engine, seed: int, options: DynamicOptions
) -> tuple[MovingTruth, dict[str, Float[Tensor, "view 3 height width"]]]:
    """One world's true views, and every method's picture of them."""
    teacher = engine.config
    world = sample_moving_world(seed)
    lens = intrinsics_from_fov(INPUT_FOV, teacher.height, teacher.width)
    count = teacher.frames
    still = Cameras(torch.eye(4).repeat(count, 1, 1), lens.expand(count, 4), teacher.height, teacher.width)
    times = torch.linspace(0, 1, count)
    color, true_depth, _ = render_moving_world(world, still, times)
    # As a file would give it.
    frames = (color * 255).round() / 255
    views, _ = engine.views(Video.of(frames, (count - 1) / teacher.fps), fov=INPUT_FOV)
    views = to_true_scale(views, true_depth[0])
    paths = preset_paths(options.seed, count, teacher.height, teacher.width)
    dynamic = engine.decode(engine.imagine(views, paths, options.seed, quiet=True), views)
    assert isinstance(dynamic, DynamicGaussians)
    cameras, seen = choose_views(options, lens, teacher.frames, teacher.height, teacher.width)
    truth = film_truth(world, cameras, seen)
    first = dynamic.moment(0)
    methods = {
        "student": torch.cat(
            [render(dynamic.at(float(t)), cameras[i : i + 1]).color for i, t in enumerate(seen)]
        ).clamp(0, 1),
        "frozen": torch.cat([render(first, cameras[i : i + 1]).color for i in range(len(cameras))]).clamp(0, 1),
        **dynamic_baselines(frames, views.depth, still[:1], cameras, seen),
    }
    return truth, methods


def choose_views(
    options: DynamicOptions, lens: Float[Tensor, "4"], frames: int, height: int, width: int
) -> tuple[Cameras, Float[Tensor, "view"]]:
    """Cameras of the six trajectories and when each looks."""
    cameras, times = [], []
    for name in TRAJECTORY_NAMES:
        path = trajectory_cameras(name, draw_distance(name, options.seed), frames, lens, height, width)
        # The last camera of "clockwise" is the first again: the farthest stands for it.
        end = frames // 4 if name == "clockwise" else frames - 1
        cameras += [path[i : i + 1] for i in options.on_path] + [path[end : end + 1]] * len(options.at_end)
        times += [i / (frames - 1) for i in options.on_path] + list(options.at_end)
    return concatenate_cameras(cameras), torch.tensor(times)


def _report(
    truth: MovingTruth, methods: dict[str, Float[Tensor, "view 3 height width"]], options: DynamicOptions, path: Path
) -> None:
    per_path = len(options.on_path) + len(options.at_end)
    ends = [len(options.on_path) + i for i in range(0, len(options.at_end), 2)]
    picks = [base * per_path + end for base in (0, 3) for end in ends]
    order = [truth.color, *(methods[name] for name in ("student", "frozen", "cache"))]
    rows = [torch.cat([colors[i] for i in picks], dim=-1) for colors in order]
    save_image(torch.cat(rows, dim=-2).clamp(0, 1), path)
