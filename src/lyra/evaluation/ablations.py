"""The paper's ablations at the small model's size, on held-out worlds: of the model's own student, and of trained ones.

Every arm sees the same worlds, the same picture, depth and noise, and learns as long; only what is named differs. A
world of an arm is one file: a run that was stopped goes on with the next, and students go on from their checkpoints.
"""

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm import tqdm

from lyra.engine.engine import Engine
from lyra.engine.paths import preset_paths
from lyra.errors import LyraError
from lyra.evaluation.intervals import difference, interval
from lyra.evaluation.lessons import Lessons, teach
from lyra.evaluation.metrics import psnr, ssim
from lyra.evaluation.scores import visible_from
from lyra.evaluation.still_worlds import FIRST_HELD_OUT_SEED, to_true_scale
from lyra.files import write_atomically
from lyra.files.clips import Clip
from lyra.files.photos import Photo
from lyra.files.strict_json import to_json
from lyra.geometry.cameras import Cameras, concatenate_cameras, intrinsics_from_fov
from lyra.geometry.gaussians import Gaussians, merge
from lyra.models.model import Model
from lyra.rendering import render
from lyra.teacher import TeacherConfig
from lyra.views.views import Views
from lyra.worlds import render_world, sample_world
from lyra.worlds.world import INPUT_FOV

# fmt: off
AblationName = Literal[
    "trajectories", "steps", "fusion", "pruning",
    "multi-view", "no-fusion", "no-depth-loss", "no-perceptual-loss", "no-pruning", "transformer", "fewer",
]
# fmt: on
PICKS = (8, 16)
"""Frames of every trajectory that are compared: its middle and its end."""


@dataclass(frozen=True)
class Arm:
    """One way to make a scene of a picture."""

    name: str
    clips: int = 6
    """How many trajectories the student is given, in their order."""
    steps: int | None = None
    """Of the teacher's sampler; the model's own when None."""
    keep: float | None = None
    """Share of Gaussians that pruning keeps; the model's own when None."""
    fused: bool = True
    """All clips in one pass; else each by itself, and the Gaussians put together."""
    lessons: Lessons | None = None
    """Of a student that is trained for it; the model's own when None."""

    @property
    def key(self) -> str:
        """What it is, whatever it is called: arms of two ablations may be the same."""
        lessons = None if self.lessons is None else self.lessons.name
        what = [self.clips, self.steps, self.keep, self.fused, lessons]
        return hashlib.sha256(to_json(what).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Ablation:
    """Arms, the first of which the others are compared with, and what the paper says."""

    arms: tuple[Arm, ...]
    paper: str
    expected: Mapping[str, int] | None = None
    """By arm, the sign of its PSNR's difference from the first arm's by the paper."""

    @property
    def trained(self) -> bool:
        """Whether its students are trained for it."""
        return any(arm.lessons is not None for arm in self.arms)


TAUGHT = Arm("base", lessons=Lessons())
"""The student in the paper's form that the others differ from in one field."""


def _taught(name: str, **changes: Any) -> Arm:
    return replace(TAUGHT, name=name, lessons=replace(Lessons(), **changes))


_LADDER = Lessons().ladder

ABLATIONS: dict[AblationName, Ablation] = {
    "trajectories": Ablation(
        (Arm("6"), *(Arm(str(count), clips=count) for count in (5, 4, 3, 2, 1))),
        "the decoder is trained on one to six trajectories; more cover more (no table)",
        {str(count): -1 for count in (5, 4, 3, 2, 1)},
    ),
    "steps": Ablation(
        (Arm("own"), *(Arm(str(steps), steps=steps) for steps in (1, 2, 5, 10, 35))),
        "35 steps throughout (no table)",
    ),
    "fusion": Ablation(
        (Arm("fused"), Arm("each clip by itself", fused=False)),
        "24.77 with fusion of several views, 17.73 without",
        {"each clip by itself": -1},
    ),
    "pruning": Ablation(
        (Arm("own"), Arm("none", keep=1.0), Arm("half", keep=0.5), Arm("a tenth", keep=0.1)),
        "18 ms a frame with pruning to a fifth, 30 without; about equal quality",
    ),
    "multi-view": Ablation(
        (TAUGHT, _taught("true views alone", clips="rendered")),
        "24.77 by the teacher's clips, 19.08 by real multi-view data alone",
        {"true views alone": -1},
    ),
    "no-fusion": Ablation(
        (TAUGHT, replace(TAUGHT, name="each clip by itself", fused=False)),
        "24.77 with fusion of several views, 17.73 without",
        {"each clip by itself": -1},
    ),
    "no-depth-loss": Ablation(
        (TAUGHT, _taught("no depth loss", ladder=_LADDER.weighed(depth=0.0))),
        "better with the depth loss (the figure is not at hand)",
        {"no depth loss": -1},
    ),
    "no-perceptual-loss": Ablation(
        (TAUGHT, _taught("no perceptual loss", ladder=_LADDER.weighed(perceptual=0.0))),
        "better with LPIPS (the figure is not at hand)",
        {"no perceptual loss": -1},
    ),
    "no-pruning": Ablation(
        (TAUGHT, _taught("no pruning", ladder=_LADDER.unpruned())),
        "18 ms a frame with pruning to a fifth, 30 without; about equal quality",
    ),
    "transformer": Ablation(
        (
            TAUGHT,
            _taught("attention alone", ladder=replace(_LADDER, decoder=replace(_LADDER.decoder, attention_every=1))),
        ),
        "6.5 times as long at six trajectories without Mamba-2 (seconds by tokens: lyra bench decoder)",
    ),
    "fewer": Ablation(
        (TAUGHT, *(replace(TAUGHT, name=f"{count} clips", clips=count) for count in (5, 4, 3, 2, 1))),
        "the decoder is trained on one to six trajectories; more cover more (no table)",
        {f"{count} clips": -1 for count in (5, 4, 3, 2, 1)},
    ),
}


@dataclass(frozen=True)
class Place:
    """A held-out world, and the teacher's clips of its input picture."""

    views: Views
    clips: Sequence[Clip]
    seconds: float
    """That the teacher took."""
    cameras: Cameras
    """At which arms are compared with what follows."""
    colors: Float[Tensor, "view 3 height width"]
    taught: Float[Tensor, "view 3 height width"]
    """The teacher's frames."""
    visible: Bool[Tensor, "view height width"]


@dataclass
class Ground:
    """What arms share: students that were taught, and places; each is made once."""

    model: Model
    lessons: Path
    """Folder of data sets and students."""
    device: str = "auto"
    students: dict[tuple[str, int], Model] = field(default_factory=dict)
    places: dict[tuple[int, int, TeacherConfig], Place] = field(default_factory=dict)

    def student(self, arm: Arm, seed: int) -> Model:
        """The model with the student that an arm asks for, trained where that is left."""
        if arm.lessons is None:
            return self.model
        key = arm.lessons.name, seed
        if key not in self.students:
            taught = teach(self.model, arm.lessons, seed, self.lessons)
            self.students[key] = replace(self.model, decoder=taught.eval())
        return self.students[key]

    def place(self, config: TeacherConfig, world: int, seed: int) -> Place:
        """A world at a teacher's size and steps."""
        key = world, seed, config
        if key not in self.places:
            with Engine(self.model, self.device, config=config) as engine:
                self.places[key] = _visit(engine, world, seed)
        return self.places[key]


def run_ablation(
    model: Model,
    name: str,
    folder: Path,
    scenes: int | None = None,
    seeds: Sequence[int] = (0, 1),
    device: str = "auto",
    ground: Ground | None = None,
) -> dict[str, Any]:
    """Runs what is left of an ablation, and tells what came out.

    Args:
        model: All parts.
        name: Of ``ABLATIONS``.
        folder: Where finished worlds lie, ``ARM/WORLD-SEED.json``, and of students ``lessons``.
        scenes: How many worlds; 4, or 8 with students that are trained for it.
        seeds: Of the teacher's noise, and of the students' first weights and draws.
        device: Where the networks run.
        ground: What arms share, also between ablations.

    Returns:
        ``rows``, one an arm: means over worlds, seeds and views, the difference of PSNR from the first arm with its
        interval over worlds, and whether its sign agrees with the paper's; ``paper``, in words.

    Raises:
        LyraError: there is no such ablation, or what lies in the folder is of another model.
    """
    if name not in ABLATIONS:
        raise LyraError(f"there is no ablation {name!r}: give one of {', '.join(ABLATIONS)}")
    ablation: Ablation = ABLATIONS[name]
    scenes = scenes or (8 if ablation.trained else 4)
    found: dict[str, list[dict[str, Any]]] = {}
    of_model = {"model": model.config.name, "checksums": dict(model.config.checksums or {})}
    shared = ground or Ground(model, folder / "lessons", device)
    for arm in tqdm(ablation.arms, desc=name):
        for index in range(scenes):
            for seed in seeds:
                file = folder / arm.key / f"{FIRST_HELD_OUT_SEED + index}-{seed}.json"
                make = partial(_run_arm, shared, arm, FIRST_HELD_OUT_SEED + index, seed)
                found.setdefault(arm.name, []).append(_kept(file, of_model, make))
    return {"scenes": scenes, "seeds": list(seeds), "rows": _rows(ablation, found, len(seeds)), "paper": ablation.paper}


def _kept(file: Path, mark: Mapping[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """A finished world's numbers, made where they are not there."""
    if file.is_file():
        content = json.loads(file.read_text(encoding="utf-8"))
        if content.get("of") != mark:
            raise LyraError(f"{file} is of another model: give another --run folder")
        return content["numbers"]
    numbers = make()
    with write_atomically(file) as temporary:
        temporary.write_text(to_json({"of": mark, "numbers": numbers}) + "\n", encoding="utf-8")
    return numbers


def _run_arm(ground: Ground, arm: Arm, world_seed: int, seed: int) -> dict[str, Any]:
    model = ground.student(arm, seed)
    config = model.config.teacher if arm.steps is None else replace(model.config.teacher, steps=arm.steps)
    if arm.lessons is not None:
        config = replace(config, height=arm.lessons.size, width=arm.lessons.size)
    place = ground.place(config, world_seed, seed)
    own = model.decoder.config
    model.decoder.config = own if arm.keep is None else replace(own, keep=arm.keep)
    try:
        with Engine(model, ground.device, config=config) as engine:
            began = time.monotonic()
            gaussians = _decode(engine, arm, place.clips, place.views)
            seconds = time.monotonic() - began + place.seconds
    finally:
        model.decoder.config = own
    colors, visible = place.colors, place.visible[:, None]
    shown = render(gaussians, place.cameras).color.clamp(0, 1)
    drawing = 1000 * best_time(lambda: render(gaussians, place.cameras)) / len(colors)
    return {
        "psnr": [psnr(a, b) for a, b in zip(shown, colors, strict=True)],
        "ssim": [ssim(a, b) for a, b in zip(shown, colors, strict=True)],
        "psnr_teacher": [psnr(a, b) for a, b in zip(shown, place.taught, strict=True)],
        "psnr_visible": [psnr(shown, colors, visible)],
        "psnr_holes": [psnr(shown, colors, ~visible)],
        **{"gaussians": [len(gaussians)], "render_ms": [drawing], "seconds": [seconds]},
    }


def best_time(call: Callable[[], Any], repeats: int = 3) -> float:
    """Seconds of the quickest of some calls."""
    times = []
    for _ in range(repeats):
        began = time.monotonic()
        call()
        times.append(time.monotonic() - began)
    return min(times)


@torch.no_grad()
def _visit(engine: Engine, world_seed: int, seed: int) -> Place:
    """A held-out world: what is known of its input picture at the true scale, the teacher's clips, and the truth."""
    config, world = engine.config, sample_world(world_seed)
    intrinsics = intrinsics_from_fov(INPUT_FOV, config.height, config.width)
    camera = Cameras(torch.eye(4)[None], intrinsics[None], config.height, config.width)
    color, depth = render_world(world, camera)
    views = to_true_scale(engine.views([Photo.of(color[0])], fov=INPUT_FOV)[0], depth[0])
    began = time.monotonic()
    [clips] = engine.imagine(views, preset_paths(seed, config.frames, config.height, config.width), seed, quiet=True)
    seconds = time.monotonic() - began
    picks = sorted({min(pick, config.frames - 1) for pick in PICKS})
    taught = torch.cat([engine.frames(clip)[picks] for clip in clips])
    cameras = concatenate_cameras([clip.cameras[picks] for clip in clips])
    colors, depths = render_world(world, cameras)
    return Place(views, clips, seconds, cameras, colors, taught, visible_from(depth[0], camera, depths, cameras))


def _decode(engine: Engine, arm: Arm, clips: Sequence[Clip], views: Views) -> Gaussians:
    """The scene of the arm's clips."""
    groups = [clips[: arm.clips]] if arm.fused else [[clip] for clip in clips[: arm.clips]]
    parts = [engine.decode([group], views) for group in groups]
    assert all(isinstance(part, Gaussians) for part in parts)
    return merge([part for part in parts if isinstance(part, Gaussians)])


def _rows(ablation: Ablation, found: Mapping[str, list[dict[str, Any]]], seeds: int) -> list[dict[str, Any]]:
    rows = []
    first = _by_world(found[ablation.arms[0].name], seeds)
    for arm in ablation.arms:
        numbers = found[arm.name]
        row: dict[str, Any] = {"arm": arm.name}
        for name in numbers[0]:
            flat = [value for one in numbers for value in one[name] if value is not None]
            row[name] = sum(flat) / len(flat) if flat else None
        row["psnr_low"], row["psnr_high"] = interval(_by_world(numbers, seeds)) or (None, None)
        row["psnr_by_seed"] = [_mean(numbers[seed::seeds]) for seed in range(seeds)]
        if arm is not ablation.arms[0]:
            row["difference"], bounds = difference(first, _by_world(numbers, seeds))
            row["low"], row["high"] = bounds or (None, None)
            changes = [b - a for a, b in zip(rows[0]["psnr_by_seed"], row["psnr_by_seed"], strict=True)]
            row["agrees"] = _agrees((ablation.expected or {}).get(arm.name), bounds, changes)
        rows.append(row)
    return rows


def _mean(numbers: Sequence[Mapping[str, list[float]]]) -> float:
    flat = [value for one in numbers for value in one["psnr"]]
    return sum(flat) / len(flat)


def _by_world(numbers: Sequence[Mapping[str, list[float]]], seeds: int) -> list[list[float]]:
    """PSNR of all views and seeds, a list a world."""
    return [[v for one in numbers[i : i + seeds] for v in one["psnr"]] for i in range(0, len(numbers), seeds)]


def _agrees(expected: int | None, bounds: tuple[float, float] | None, by_seed: Sequence[float]) -> str:
    """Whether a difference has the paper's sign, outside the noise of worlds and with every seed."""
    if expected is None:
        return "paper has no figure"
    if bounds is None or bounds[0] <= 0 <= bounds[1] or min(by_seed) * max(by_seed) <= 0:
        return "within noise"
    return "yes" if (bounds[0] > 0) == (expected > 0) else "no"
