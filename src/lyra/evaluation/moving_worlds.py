"""A model on held-out worlds that move: one video from a still camera in, other cameras at all times out."""

import statistics
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from lyra.capture.film_cameras import FILM_SIDE
from lyra.engine.engine import Engine
from lyra.engine.paths import preset_paths
from lyra.engine.shots import follow
from lyra.errors import LyraError
from lyra.evaluation.camera_scores import score_cameras
from lyra.evaluation.judge import find_judge
from lyra.evaluation.moving_scores import MovingScores, MovingTruth, dynamic_baselines, film_truth
from lyra.evaluation.still_worlds import to_true_scale
from lyra.files import save_image
from lyra.files.videos import Video
from lyra.geometry.cameras import Cameras, concatenate_cameras, intrinsics_from_fov
from lyra.geometry.dynamic import DynamicGaussians
from lyra.geometry.trajectories import TRAJECTORY_NAMES, TrajectoryName, draw_distance, trajectory_cameras
from lyra.rendering import render
from lyra.teacher import TeacherConfig
from lyra.views.posed_video import PosedVideo, pose_video
from lyra.views.views import Views
from lyra.worlds import INPUT_FOV, MovingWorld, render_moving_world, sample_moving_world

FIRST_HELD_OUT_SEED = 60_000
"""Of the moving worlds that are evaluated on; training seeds begin at 100,000."""


WALK = 0.15
"""Distance of the trajectory, in scene units, along which the input's camera walks."""


@dataclass(frozen=True)
class DynamicOptions:
    """What is evaluated."""

    scenes: int = 8
    on_path: tuple[int, ...] = (4, 8, 12)
    """Frames of each trajectory at whose own times its cameras look."""
    at_end: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Times at which each trajectory's last camera looks."""
    walking: bool = False
    """Whether the input's camera moves as well, along one of the six trajectories, and has to be found."""
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
        ``scenes`` and ``rows``, one a method; ``truth`` has its own flicker alone. Of a camera that walks also
        ``camera``: medians over worlds of how far it was found off, as a share of its path and in degrees.

    Raises:
        LyraError: the student's geometry is another.
    """
    if engine.model.decoder.config.geometry != "cache":
        raise LyraError(
            f"the student of model {engine.model.config.name!r} makes one moment at a time and no scene that moves: "
            "give a model with a student of cache geometry, like mini"
        )
    scores = MovingScores(find_judge())
    found = []
    for index in tqdm(range(options.scenes), desc="moving worlds"):
        path = walk(TRAJECTORY_NAMES[index % 6], engine.config) if options.walking else stand(engine.config)
        truth, methods, views = show_moving_world(engine, FIRST_HELD_OUT_SEED + index, path, options)
        scores.add(truth, methods)
        if options.walking:
            found.append(score_cameras(views.cameras, path))
        if report is not None:
            _report(truth, methods, options, report / f"{index:03d}.png")
    numbers = {"scenes": options.scenes, "rows": scores.rows()}
    if found:
        numbers["camera"] = {
            "position": statistics.median(one.position for one in found),
            "rotation": statistics.median(one.rotation for one in found),
        }
    return numbers


def stand(config: TeacherConfig) -> Cameras:
    """A camera that stands for as long as a clip."""
    lens = intrinsics_from_fov(INPUT_FOV, config.height, config.width)
    poses = torch.eye(4).repeat(config.frames, 1, 1)
    return Cameras(poses, lens.expand(config.frames, 4), config.height, config.width)


def walk(name: TrajectoryName, config: TeacherConfig) -> Cameras:
    """A camera that goes half as far as one of the six trajectories; half-way round where it comes back."""
    lens = intrinsics_from_fov(INPUT_FOV, config.height, config.width)
    count = 2 * config.frames - 1 if name == "clockwise" else config.frames
    return trajectory_cameras(name, WALK, count, lens, config.height, config.width)[: config.frames]


def film(
    world: MovingWorld, path: Cameras, seconds: float
) -> tuple[PosedVideo, Float[Tensor, "time 3 height width"], Float[Tensor, "time height width"]]:
    """A world as a file would give it, with its frames and their true depth; a camera that moves is found."""
    times = torch.linspace(0, 1, len(path))
    color, depth, _ = render_moving_world(world, path, times)
    frames = (color * 255).round() / 255
    video = Video.of(frames, seconds)
    if bool((path.camera_to_world == path.camera_to_world[0]).all()):
        return PosedVideo.standing(video), frames, depth
    # Files are larger than what the model looks at.
    scale = FILM_SIDE // max(path.height, path.width)
    large, _, _ = render_moving_world(world, path.resized(scale * path.height, scale * path.width), times)
    return pose_video(video, INPUT_FOV, (large * 255).round() / 255), frames, depth


def show_moving_world(
    engine: Engine, seed: int, path: Cameras, options: DynamicOptions
) -> tuple[MovingTruth, dict[str, Float[Tensor, "view 3 height width"]], Views]:
    """One world's true views, every method's picture of them, and what was seen of its input.

    Args:
        engine: With all parts of a model.
        seed: Of the world.
        path: The input's camera, the first the identity.
        options: Views and times.
    """
    teacher = engine.config
    world = sample_moving_world(seed)
    video, frames, true_depth = film(world, path, (teacher.frames - 1) / teacher.fps)
    views, _ = engine.views(video, fov=INPUT_FOV)
    views = to_true_scale(views, true_depth[0])
    paths = preset_paths(options.seed, teacher.frames, teacher.height, teacher.width)
    dynamic = engine.decode(engine.imagine(views, paths, options.seed, quiet=True), views)
    assert isinstance(dynamic, DynamicGaussians)
    cameras, seen = choose_views(options, path)
    truth = film_truth(world, cameras, seen)
    first = dynamic.moment(0)
    methods = {
        "student": torch.cat(
            [render(dynamic.at(float(t)), cameras[i : i + 1]).color for i, t in enumerate(seen)]
        ).clamp(0, 1),
        "frozen": torch.cat([render(first, cameras[i : i + 1]).color for i in range(len(cameras))]).clamp(0, 1),
        **dynamic_baselines(frames, views.depth, views.cameras, cameras, seen),
    }
    return truth, methods, views


def choose_views(options: DynamicOptions, source: Cameras) -> tuple[Cameras, Float[Tensor, "view"]]:
    """Cameras of the six trajectories, carried along with the input's, and when each looks."""
    cameras, times = [], []
    frames, (height, width) = len(source), (source.height, source.width)
    for name in TRAJECTORY_NAMES:
        distance = draw_distance(name, options.seed)
        path = trajectory_cameras(name, distance, frames, source.intrinsics[0], height, width)
        # The last camera of "clockwise" is the first again: the farthest stands for it.
        end = frames // 4 if name == "clockwise" else frames - 1
        places = [*options.on_path, *(end for _ in options.at_end)]
        looks = [*(i / (frames - 1) for i in options.on_path), *options.at_end]
        own = source[[round(time * (frames - 1)) for time in looks]]
        cameras.append(follow(own, path[places]))
        times += looks
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
