"""Quality of the teacher's samplers against the number of network evaluations, on held-out worlds.

python recipes/sampler_quality.py --worlds 8 --out samplers.json

Each clip is compared without its given first frame: with the world's own pictures along the path (whole, where the
input view sees too, and in holes; the perceptual distance needs the extra ``evaluate``), and by PSNR with the same clip
of the published sampler in the published 35 steps, which begins with the same noise. Few-step sampling draws new noise
between its steps, and so other clips: its distance to the published sampler only says how far apart clips are.

``detail`` is the mean absolute difference of neighbouring pixels in holes over that of the true pictures: the mean of
all possible clips, which few evaluations come near, has the best PSNR and little detail.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
import tyro
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

import lyra
from lyra.engine.engine import Engine
from lyra.errors import MissingExtraError
from lyra.evaluation.judge import PerceptualDistance
from lyra.evaluation.metrics import psnr
from lyra.evaluation.scores import Scores, TrueViews, visible_from
from lyra.evaluation.still_worlds import FIRST_HELD_OUT_SEED, to_true_scale
from lyra.files import write_atomically
from lyra.files.photos import Photo
from lyra.files.tables import format_table
from lyra.geometry.cameras import intrinsics_from_fov
from lyra.geometry.trajectories import TrajectoryName, draw_distance, trajectory_cameras
from lyra.models.model import Model
from lyra.teacher import DiffusionTeacher, TeacherRequest
from lyra.teacher.diffusion import Sampler
from lyra.tokenizer.tokenizer import decode_frames
from lyra.worlds import INPUT_FOV, render_world, sample_world

PUBLISHED: tuple[Sampler, int] = ("euler", 35)
STEPS: dict[Sampler, tuple[int, ...]] = {
    "euler": (1, 2, 3, 4, 8, 35),
    "heun": (1, 2, 3, 4, 8, 35),
    "multistep": (1, 2, 3, 4, 8, 24, 35),
    "few_step": (1, 2, 3, 4, 8, 35),
}


@dataclass
class Row:
    """What is gathered of one sampler at one number of steps, beside its scores."""

    sampler: Sampler
    steps: int
    to_published: list[float] = field(default_factory=list)
    detail: list[float] = field(default_factory=list)

    @property
    def name(self) -> str:
        """Of its scores."""
        return f"{self.sampler} {self.steps}"

    @property
    def evaluations(self) -> int:
        """Passes through the network."""
        return 2 * self.steps - 1 if self.sampler == "heun" else self.steps


@torch.no_grad()
def show_path(model: Model, seed: int, name: TrajectoryName) -> tuple[TeacherRequest, TrueViews]:
    """A request for one path through a held-out world, from one picture, and the true pictures after the first."""
    config = model.config.teacher
    world = sample_world(FIRST_HELD_OUT_SEED + seed)
    lens = intrinsics_from_fov(INPUT_FOV, config.height, config.width)
    path = trajectory_cameras(name, draw_distance(name, seed), config.frames, lens, config.height, config.width)
    color, depths = render_world(world, path)
    views, _ = Engine(model).views([Photo.of(color[0])], fov=INPUT_FOV)
    cache = to_true_scale(views, depths[0]).cache(config.edges, config.warp)
    visible = visible_from(depths[0], path[:1], depths[1:], path[1:])
    return TeacherRequest(color[0] * 2 - 1, cache, path, seed, name), TrueViews(color[1:], path[1:], visible)


def sample(model: Model, row: Row, request: TeacherRequest) -> Float[Tensor, "time 3 height width"]:
    """The clip's pictures in [0, 1] without the first."""
    teacher: DiffusionTeacher = model.teacher
    teacher.config = replace(model.config.teacher, sampler=row.sampler, steps=row.steps)
    latents = teacher.imagine(request)
    return decode_frames(model.tokenizer, latents)[1:]


def detail(color: Float[Tensor, "time 3 height width"], truth: TrueViews) -> float | None:
    """Differences of neighbouring pixels in holes, relative to the truth's."""

    def differences(pictures: Tensor) -> Tensor:
        across, down = pictures.diff(dim=-1)[..., 1:, :].abs(), pictures.diff(dim=-2)[..., 1:].abs()
        return (across + down).mean(1)[holes].mean()

    holes = ~truth.visible[:, 1:, 1:]
    return float(differences(color) / differences(truth.color)) if bool(holes.any()) else None


def sampler_quality(
    out: Path | None = None,
    model: str = "mini",
    worlds: int = 8,
    names: tuple[TrajectoryName, ...] = ("left", "zoom_out"),
    stride: int = 4,
) -> None:
    """Prints a table, and writes it as JSON to ``out``; every ``stride``-th frame is scored."""
    loaded = lyra.load(model)
    try:
        scores = Scores(PerceptualDistance())
    except MissingExtraError:
        scores = Scores(None)
    rows = [Row(sampler, steps) for sampler, numbers in STEPS.items() for steps in numbers]
    for seed in tqdm(range(worlds), desc="worlds"):
        for name in names:
            request, truth = show_path(loaded, seed, name)
            picks = slice(stride - 1, None, stride)
            few = TrueViews(truth.color[picks], truth.cameras[picks], truth.visible[picks])
            published = sample(loaded, Row(*PUBLISHED), request)
            for row in rows:
                clip = sample(loaded, row, request)
                scores.add(few, {row.name: clip[picks]})
                if (row.sampler, row.steps) != PUBLISHED:
                    row.to_published.append(psnr(clip, published))
                found = detail(clip, truth)
                if found is not None:
                    row.detail.append(found)
    table = [_summary(row, scores) for row in rows]
    print(format_table(table))
    if out is not None:
        with write_atomically(out) as path:
            path.write_text(json.dumps({"model": model, "worlds": worlds, "names": names, "rows": table}, indent=2))


def _summary(row: Row, scores: Scores) -> dict[str, object]:
    def mean(values: list[float]) -> float | None:
        return sum(values) / len(values) if values else None

    scored = next(found for found in scores.rows() if found["method"] == row.name)
    return {
        **{"sampler": row.sampler, "steps": row.steps, "evaluations": row.evaluations},
        **{name: value for name, value in scored.items() if name != "method"},
        **{"detail": mean(row.detail), "to_published": mean(row.to_published)},
    }


if __name__ == "__main__":
    tyro.cli(sampler_quality)
