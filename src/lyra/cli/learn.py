"""The commands that make a model; see ``lyra.cli.main``."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from lyra.errors import LyraError


@dataclass(frozen=True)
class TrainingRun:
    """Length of a training leg; what is left out stays at the part's own default."""

    minutes: float | None = None
    """Stop cleanly after this much time."""
    steps: int | None = None
    """Stop at this step, counted over all legs."""
    learning_rate: float | None = None


def train(
    part: Positional[Literal["tokenizer", "depth", "denoiser", "decoder", "moments"]],
    /,
    *,
    run: Path | None = None,
    size: Literal["mini", "smoke"] = "mini",
    leg: Annotated[TrainingRun, arg(name="")] = TrainingRun(),
    worlds: int = 400,
    device: str = "auto",
) -> None:
    """Trains one part of a model; continues what the run's folder holds.

    Args:
        part: In the order tokenizer, depth, denoiser, (lyra synthesize), decoder, (lyra synthesize --videos), moments.
        run: Workspace folder: model, data and one run folder a part; runs/SIZE when left out.
        size: Which recipe.
        leg: Length.
        worlds: How many procedural worlds to learn from.
        device: Where the networks work: auto, cpu, cuda or cuda:N.
    """
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


def synthesize(
    *,
    run: Path | None = None,
    size: Literal["mini", "smoke"] = "mini",
    worlds: int = 400,
    scenes: int = 120,
    videos: int = 0,
    device: str = "auto",
) -> None:
    """Lets the teacher imagine clips of single images, or of videos, for training the decoder.

    Args:
        run: Workspace folder; runs/SIZE when left out.
        size: Which recipe.
        worlds: How many procedural worlds the workspace has.
        scenes: How many images.
        videos: How many videos, in place of images; each gives twelve clips.
        device: Where the networks work: auto, cpu, cuda or cuda:N.
    """
    from lyra.models.recipe import MINI, SMOKE
    from lyra.training import parts

    recipe, folder = MINI if size == "mini" else SMOKE, run or Path("runs") / size
    if videos:
        parts.synthesize_moving(parts.Workspace(folder, recipe, worlds, scenes, videos=videos, device=device))
    else:
        parts.synthesize_clips(parts.Workspace(folder, recipe, worlds, scenes, device=device))


def report(run: Positional[Path], /, *, rows: int = 20) -> None:
    """Prints the course of a training run.

    Args:
        run: Run folder of one part (the one with log.jsonl).
        rows: Lines of the table.
    """
    from lyra.training.report import print_report

    print_report(run, rows)
