"""``lyra train student``: a student's whole course on a data set, in one process or under torchrun."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lyra.errors import LyraError


@dataclass(frozen=True)
class StudentRun:
    """Of ``student`` alone."""

    data: Path | None = None
    """Data set of photos' clips, from lyra synthesize."""
    videos: Path | None = None
    """Data set of videos' clips, for the stages of things that move; those are left out without it."""
    stages: Literal["mini", "paper", "distill", "smoke"] = "mini"
    """Which ladder: the paper's nine stages, the same at mini's size, three for make distill, or tests' own."""
    model: str = "mini"
    """Whose tokenizer made the clips: a bundled model's name, or a folder."""
    sharing: Literal["ddp", "fsdp"] = "ddp"
    """Under torchrun: each process has the whole network, or a part of every weight."""
    tensorboard: bool = False
    """Also write the curves for TensorBoard, into RUN/student/tensorboard."""
    seed: int = 0
    """Of the first weights, the order of the samples and all that is drawn."""


def train_by_stages(run: Path, asked: StudentRun, minutes: float | None, device: str) -> None:
    """Runs or continues the course; under torchrun as one of its processes.

    Raises:
        LyraError: no data set was given, or see ``lyra.training.student_course.train_student``.
    """
    if asked.data is None:
        raise LyraError("give the data set that lyra synthesize has made: --data FOLDER")
    from lyra.device.ranks import join_ranks, leave_ranks
    from lyra.models.loading import load
    from lyra.training.ladders import LADDERS
    from lyra.training.student_course import Course, train_student

    ranks = join_ranks()
    course = Course(
        run=run,
        data=asked.data,
        ladder=LADDERS[asked.stages],
        videos=asked.videos,
        sharing=asked.sharing,
        device=device,
        minutes=float("inf") if minutes is None else minutes,
        seed=asked.seed,
        tensorboard=asked.tensorboard,
    )
    train_student(load(asked.model), course, ranks)
    leave_ranks(ranks)
