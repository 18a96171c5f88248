"""The commands that make a model; see ``lyra.cli.main``."""

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from lyra.cli.courses import StudentRun, train_by_stages
from lyra.errors import LyraError
from lyra.synthesis.choices import FORMS, SynthesisOptions, SynthesisRun

_BY_STAGES = StudentRun()


@dataclass(frozen=True)
class TrainingRun:
    """Length of a training leg; what is left out stays at the part's own default."""

    minutes: float | None = None
    """Stop cleanly after this much time."""
    steps: int | None = None
    """Stop at this step, counted over all legs."""
    learning_rate: float | None = None


def train(
    part: Positional[Literal["tokenizer", "depth", "denoiser", "decoder", "moments", "student"]],
    /,
    *,
    run: Path | None = None,
    size: Literal["mini", "smoke"] = "mini",
    leg: Annotated[TrainingRun, arg(name="")] = TrainingRun(),
    worlds: int = 400,
    student: Annotated[StudentRun, arg(name="")] = _BY_STAGES,
    device: str = "auto",
) -> None:
    """Trains one part of a model; continues what the run's folder holds.

    Args:
        part: In the order tokenizer, depth, denoiser, decoder, moments. The last two learn from the data sets RUN/clips
            and RUN/videos: lyra synthesize worlds:200000-200119 -o RUN/clips --model RUN/model --held-out 0, and
            moving_worlds:300000-300039 for RUN/videos.
            "student" is the decoder's whole course by stages on a data set (docs/distillation.md), also under torchrun.
        run: Workspace folder: model, data and one run folder a part; runs/SIZE when left out.
        size: Which recipe.
        leg: Length.
        worlds: How many procedural worlds to learn from.
        student: Of the course by stages.
        device: Where the networks work: auto, cpu, cuda or cuda:N.
    """
    if part == "student":
        if leg.steps is not None or leg.learning_rate is not None:
            raise LyraError("the stages say how long and how fast: leave out --steps and --learning-rate")
        train_by_stages(run or Path("runs/student"), student, leg.minutes, device)
        return
    if student != _BY_STAGES:
        raise LyraError(f"options of the stages are of lyra train student: leave them out for {part}")
    from lyra.models.recipe import MINI, SMOKE
    from lyra.training import parts

    workspace = parts.Workspace(run or Path("runs") / size, MINI if size == "mini" else SMOKE, worlds, device=device)
    given = {name: value for name, value in vars(leg).items() if value is not None}
    if part == "tokenizer" and given:
        raise LyraError("the tokenizer is fitted at once: leave out --minutes, --steps and --learning-rate")
    match part:
        case "tokenizer":
            parts.train_tokenizer(workspace)
        case "depth":
            parts.train_depth(workspace, replace(parts.DEPTH_LOOP, **given))
        case "denoiser":
            parts.train_denoiser(workspace, replace(parts.DENOISER_LOOP, **given))
        case "decoder":
            parts.train_decoder(workspace, replace(parts.DECODER_LOOP, **given))
        case "moments":
            parts.train_moments(workspace, replace(parts.MOMENTS_LOOP, **given))


_SYNTHESIS, _HERE = SynthesisOptions(), SynthesisRun()


def synthesize(
    spec: Positional[str] = "",
    /,
    *,
    out: Annotated[Path | None, arg(aliases=["-o"])] = None,
    model: str = "mini",
    size: tuple[int, int] | None = None,
    options: Annotated[SynthesisOptions, arg(name="")] = _SYNTHESIS,
    how: Annotated[SynthesisRun, arg(name="")] = _HERE,
    allow_pickle: bool = False,
    verify: Path | None = None,
) -> None:
    """Lets the teacher imagine clips of many inputs: a data set for training the decoder (docs/scale.md).

    Args:
        spec: A folder of photos and videos, a .txt of prompts, a .jsonl that names inputs, worlds:FIRST-LAST,
            moving_worlds:FIRST-LAST, or the published data set's folder.
        out: Folder of the data set. A run that was interrupted goes on with the same command.
        model: A bundled model's name, or a model's folder.
        size: Height and width of the clips; the teacher's own when left out.
        options: What is made.
        how: How it is made.
        allow_pickle: Read the published data set's latents, which are pickled.
        verify: Check this finished data set instead, byte by byte.
    """
    from lyra.synthesis.runs import synthesize_data, verify_data

    if verify is not None:
        if spec or out is not None:
            raise LyraError("--verify takes the data set alone: leave out the inputs and --out")
        verify_data(verify)
        return
    if not spec or out is None:
        raise LyraError(f"give inputs and, by -o, a folder for the data set; inputs are {FORMS}")
    synthesize_data(spec, out, model, size, options, how, allow_pickle)


def report(run: Positional[Path], /, *, rows: int = 20) -> None:
    """Prints the course of a training run, and makes one page of it: RUN/report.html.

    Args:
        run: Run folder of one part (the one with log.jsonl), or one that holds several parts.
        rows: Lines of the table.
    """
    from lyra.evaluation.run_page import write_run_page
    from lyra.training.report import find_parts, print_report

    for part in find_parts(run):
        print_report(part, rows)
    print(f"page: {write_run_page(run)}", file=sys.stderr)
