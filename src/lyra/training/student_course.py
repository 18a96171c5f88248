"""The student's whole course: stage after stage from nothing, in one process or many, on a data set of shards.

RUN/student/         the stages of photos: checkpoints, log.jsonl, samples, validation.jsonl, tensorboard
RUN/moving/          those of videos
RUN/model/           the model with the student as far as it is trained
RUN/course.json      what the run is of
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from lyra.device.memory import find_device
from lyra.device.ranks import Ranks
from lyra.engine.engine import Engine
from lyra.errors import LyraError
from lyra.files import write_atomically
from lyra.files.strict_json import to_json
from lyra.geometry.trajectories import noise_generator
from lyra.models.loading import save
from lyra.models.model import Model
from lyra.rendering import render
from lyra.rendering.deferred import render_deferred
from lyra.student import GaussianDecoder
from lyra.student.moments import with_times
from lyra.synthesis.imagined import SyntheticScene
from lyra.synthesis.streaming import DataSet
from lyra.training.batches import SampleOrder
from lyra.training.curves import Curves
from lyra.training.ladders import Ladder, Stage
from lyra.training.loop import LoopConfig, fit
from lyra.training.losses import Terms
from lyra.training.moving_student import MovingSet, ask_moment, ask_paper_moment
from lyra.training.perceptual import choose_distance
from lyra.training.run_checkpoints import find_checkpoint, load_checkpoint
from lyra.training.sharing import Ask, Sharing, gather_weights, share_loss
from lyra.training.staged_scenes import DataSetScenes, cut_scene
from lyra.training.still_student import Distance, SceneSet, ask_decoder
from lyra.training.validation import Validation

NOTE = "course.json"


@dataclass(frozen=True)
class Course:
    """A run, and how it is run."""

    run: Path
    """Folder."""
    data: Path
    """Data set of photos' clips, from ``lyra synthesize``."""
    ladder: Ladder
    videos: Path | None = None
    """Data set of videos' clips; without it the stages of videos are left out."""
    sharing: Sharing = "ddp"
    device: str = "auto"
    minutes: float = float("inf")
    """Stop cleanly after so much time."""
    seed: int = 0
    tensorboard: bool = False
    loop: LoopConfig = LoopConfig(checkpoint_every=100, sample_every=100)  # noqa: RUF009  (frozen)
    """Checkpoints and samples; lengths and rates are the stages'."""


def make_student(ladder: Ladder, seed: int = 0) -> GaussianDecoder:
    """A student with random weights, always the same ones of a seed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return GaussianDecoder(ladder.decoder)


def train_student(model: Model, course: Course, ranks: Ranks | None = None) -> GaussianDecoder:
    """Trains a student from nothing, or goes on where the run's folder is.

    Args:
        model: Whose tokenizer made the clips; its own student is not looked at.
        course: The run.
        ranks: The processes that share it.

    Returns:
        The student, whole in every process.

    Raises:
        LyraError: the data do not fit the model or the stages, the folder is another run's or in use, or a checkpoint
            is damaged and none before it is whole.
    """
    ranks = ranks or Ranks()
    _claim(course, model, ranks)
    student = make_student(course.ladder, course.seed)
    deadline = time.monotonic() + 60 * course.minutes
    climb = _Climb(model, course, ranks, deadline)
    student, done = climb(student, course.ladder.still(), course.data, course.run / "student")
    if done and course.videos is not None and course.ladder.moving():
        student, _ = climb(_branch(course, student), course.ladder.moving(), course.videos, course.run / "moving")
    if ranks.first:
        save(replace(model, decoder=student.eval()), course.run / "model")
    ranks.wait()
    return student


def _claim(course: Course, model: Model, ranks: Ranks) -> None:
    """Notes what a run is of, or compares with the note."""
    problem = None
    if ranks.first:
        identity = {"seed": course.seed, "checksums": _used(model), "ladder": asdict(course.ladder)}
        text = to_json(identity, indent=1) + "\n"
        note = course.run / NOTE
        if not note.exists():
            with write_atomically(note) as path:
                path.write_text(text)
        elif json.loads(note.read_text()) != json.loads(text):
            problem = f"{course.run} holds a run of other stages, seed or tokenizer: give another folder"
    problem = ranks.agree(problem)
    if problem is not None:
        raise LyraError(problem)


def _used(model: Model) -> dict[str, str]:
    return {name: value for name, value in model.config.checksums.items() if name.startswith("vae/")}


def _branch(course: Course, student: GaussianDecoder) -> GaussianDecoder:
    """The student at the end of the stage that those of videos go on from."""
    stored = find_checkpoint(course.run / "student", step=course.ladder.branch().until)
    if stored is None:
        raise LyraError(f"{course.run / 'student'} is not trained to the stages of videos: leave out --minutes")
    average = {key.removeprefix("ema/"): t for key, t in load_checkpoint(stored).items() if key.startswith("ema/")}
    branched = GaussianDecoder(student.config)
    branched.load_state_dict(average)
    return branched if student.config.time_conditioning else with_times(branched)


@dataclass(frozen=True)
class _Climb:
    """Some stages one after another in one folder: the steps, the optimizer and the curve go on."""

    model: Model
    course: Course
    ranks: Ranks
    deadline: float

    def __call__(
        self, student: GaussianDecoder, stages: Sequence[Stage], folder: Path, run: Path
    ) -> tuple[GaussianDecoder, bool]:
        """The student after the last stage that there was time for, and whether that is the last."""
        course, ranks = self.course, self.ranks
        data = DataSet(folder)
        moving = stages[0].moving
        before = course.ladder.branch().until if moving else 0
        whole = _copy(student)
        curves = Curves(run / "tensorboard") if course.tensorboard and ranks.first else None
        validation = Validation(self.model, whole, data, run, moving, curves) if ranks.first else None
        for stage in stages:
            reached = find_checkpoint(run, ranks)
            if reached is not None and reached.step >= stage.until - before and stage is not stages[-1]:
                continue
            network = _copy(student).to(find_device(course.device))
            features, weights = choose_distance(stage.weights, str(find_device(course.device)))
            asked = replace(stage, weights=weights, until=stage.until - before)
            order = SampleOrder(len(data), stage.batch, course.seed, data.order)
            ask = ask_of_stage(self.model, network, DataSetScenes(data), asked, course.seed, features)
            loss = share_loss(network, ask, weights, order, ranks, course.sharing)
            look = partial(_look, network, whole, validation)
            minutes = max(0.0, (self.deadline - time.monotonic()) / 60)
            loop = replace(asked.loop(course.loop), minutes=minutes)
            fit(network, loss, run, loop, look, ranks=ranks, listen=curves and curves.listen)
            gather_weights(network, whole)
            reached = find_checkpoint(run, ranks)
            if reached is None or reached.step < asked.until:
                return whole, False
        return whole, True


def _copy(student: GaussianDecoder) -> GaussianDecoder:
    twin = GaussianDecoder(student.config)
    twin.load_state_dict(student.state_dict())
    return twin


def _look(network: nn.Module, whole: nn.Module, validation: Validation | None) -> Tensor:
    """A picture of what the weights do; all processes bring them together, the first one looks."""
    gather_weights(network, whole)
    return torch.zeros(3, 1, 1) if validation is None else validation.show()


def ask_of_stage(
    model: Model,
    network: GaussianDecoder,
    scenes: Sequence[SyntheticScene],
    stage: Stage,
    seed: int,
    features: Distance | None,
) -> Ask:
    """What a sample is asked in a stage; what is drawn depends on sample, stage and step alone."""
    engine = Engine(replace(model, decoder=network), "cpu")
    draw = render_deferred if stage.sparing else render
    if stage.moving:
        moving, goal = MovingSet(scenes, engine), stage.moving_objective()
        decoder = moving.decoder if network.config.geometry == "cache" else network
        asked = ask_moment if network.config.geometry == "cache" else ask_paper_moment

        def ask_moving(sample: int, step: int) -> Terms:
            return asked(decoder, moving, goal, sample, _drawn(stage, seed, sample, step), features, draw)

        return ask_moving
    still, objective = SceneSet(scenes, engine), stage.still_objective()

    def ask_still(sample: int, step: int) -> Terms:
        generator = _drawn(stage, seed, sample, step)
        if stage.gap is None:
            return ask_decoder(network, still, objective, sample, generator, features, draw)
        cut = cut_scene(still, sample, stage, generator)
        all_of_it = replace(objective, views=(len(cut.scenes[0].clips),))
        return ask_decoder(network, cut, all_of_it, 0, generator, features, draw)

    return ask_still


def _drawn(stage: Stage, seed: int, sample: int, step: int) -> torch.Generator:
    return noise_generator(seed, f"{stage.name}/{sample}/{step}")
