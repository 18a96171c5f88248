"""``lyra evaluate``: what is measured, and how it is told."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from tyro.conf import Positional, arg

from lyra.errors import LyraError
from lyra.files.strict_json import to_json

if TYPE_CHECKING:
    from lyra.engine.engine import Engine
    from lyra.evaluation.still_worlds import WorldsOptions

What = Literal["scene", "worlds", "dynamic", "mesh", "posed", "compare", "ablation"]


@dataclass(frozen=True)
class CaptureOptions:
    """Of posed captures: what a model is given, and what it is asked for."""

    input_frame: tuple[int, ...] | None = None
    """Numbers of the frames that are given, the input view first; 0 when left out."""
    stride: int | None = None
    """Every how many frames are asked for; as many as leave no more than --most when left out."""
    most: int | None = None
    """Frames that are asked for at most; 24 when left out."""
    index: Path | None = None
    """Evaluation index of pixelSplat: the given and asked frames by scene."""
    size: int | None = None
    """Pixels of the longer side; 256 when left out."""


def evaluate(
    what: Positional[What],
    folder: Positional[Path | None] = None,
    other: Positional[Path | None] = None,
    /,
    *,
    json_: Annotated[bool, arg(name="json", help="One JSON object on stdout.")] = False,
    model: str | None = None,
    scenes: int | None = None,
    seed: int | None = None,
    walking: bool = False,
    capture: Annotated[CaptureOptions, arg(name="")] = CaptureOptions(),
    report: Path | None = None,
    run: Path | None = None,
    optimize: int | None = None,
    device: str = "auto",
) -> None:
    """Measures a scene, or a model.

    Args:
        what: "scene": a finished scene against its photo. "worlds": a model on procedural worlds that it never saw,
            from one picture each, beside simpler methods. "dynamic": the same on worlds that move, from one video each.
            "mesh": the surfaces of such scenes against the true ones. "posed": a model on real captures: one picture
            of each in, the others compared with what it shows at their cameras. "compare": two reports.
            "ablation": one of the paper's on held-out worlds, by name (docs/evaluation.md).
        folder: The scene's folder; the capture's, or one that holds several (docs/evaluation.md); a report's;
            an ablation's name.
        other: The report that is compared with it.
        json_: One JSON object on stdout.
        model: Which model is measured; mini when left out.
        scenes: How many worlds; 16, or 8 that move or are meshed, or 4 or 8 of an ablation, when left out.
        seed: Of the teacher's noise; 0 when left out.
        walking: Of worlds that move: the input's camera moves as well, and has to be found.
        capture: Of posed captures.
        report: Folder for a page and its numbers (worlds, posed), or for pictures of worlds that move.
        run: Of an ablation: folder of what is finished, from which it goes on; runs/ablations when left out.
        optimize: Of worlds: also Gaussians optimized on each scene's clips, in so many steps (slow; 300 are some).
        device: Where the networks run: auto, cpu, cuda or cuda:N.
    """
    asked = _Asked(what, folder, other, model, scenes, seed, walking, capture, report, run, optimize, device)
    _check_places(asked)
    _check_options(asked)
    numbers = _measure(asked)
    if json_:
        print(to_json(numbers))
        return
    from lyra.files.tables import format_table

    print(format_table(numbers.get("rows", [numbers])))
    if "depth" in numbers:
        print(format_table([{"depth": "", **numbers["depth"]}]))
    for name, (before, after) in numbers.get("changed", {}).items():
        print(f"{name}: {before} -> {after}")


@dataclass(frozen=True)
class _Asked:
    what: What
    folder: Path | None
    other: Path | None
    model: str | None
    scenes: int | None
    seed: int | None
    walking: bool
    capture: CaptureOptions
    report: Path | None
    run: Path | None
    optimize: int | None
    device: str


def _check_places(asked: _Asked) -> None:
    what, of_folder = asked.what, asked.what in ("scene", "posed", "compare", "ablation")
    if what == "compare" and (asked.folder is None or asked.other is None):
        raise LyraError("give two reports: lyra evaluate compare A B")
    if what == "ablation" and asked.folder is None:
        raise LyraError("name the ablation: lyra evaluate ablation fusion (or another of docs/evaluation.md)")
    if of_folder and asked.folder is None:
        raise LyraError(f"give the folder: lyra evaluate {what} FOLDER")
    surplus = asked.other if of_folder else asked.folder
    if what != "compare" and surplus is not None:
        raise LyraError(f"evaluate {what} takes {'one folder' if of_folder else 'no folder'}: leave out {surplus}")
    if asked.run is not None and what != "ablation":
        raise LyraError("--run is an ablation's folder: leave it out")
    if what == "ablation" and (asked.seed, asked.report) != (None, None):
        raise LyraError("an ablation has two seeds and a folder of its own: leave out --seed and --report")
    if what in ("scene", "compare") and (asked.model, asked.seed, asked.report) != (None, None, None):
        raise LyraError(f"evaluate {what} takes what is there as it is: leave out --model, --seed and --report")


def _check_options(asked: _Asked) -> None:
    what, scenes, capture = asked.what, asked.scenes, asked.capture
    if what in ("scene", "posed", "compare") and scenes is not None:
        raise LyraError(f"evaluate {what} measures what is in the folder: leave out --scenes")
    if scenes is not None and scenes < 1:
        raise LyraError(f"{scenes} worlds: give at least 1")
    if asked.walking and what != "dynamic":
        raise LyraError("--walking: of worlds that move alone; leave it out, or evaluate dynamic")
    if what != "posed" and capture != CaptureOptions():
        given = ", ".join(f"--{name.replace('_', '-')}" for name, value in vars(capture).items() if value is not None)
        raise LyraError(f"{given}: of captures alone; leave it out, or evaluate posed FOLDER")
    if capture.index is not None and (capture.input_frame, capture.stride, capture.most) != (None, None, None):
        raise LyraError("an index says which frames: leave out --input-frame, --stride and --most")
    if asked.optimize is not None and (what != "worlds" or asked.optimize < 1):
        raise LyraError("--optimize is of evaluate worlds, and counts steps: give at least 1, or leave it out")
    if any(value is not None and value < 1 for value in (capture.stride, capture.most)):
        raise LyraError("--stride and --most count frames: give at least 1")


def _measure(asked: _Asked) -> dict[str, Any]:
    folder, model = asked.folder, asked.model
    if folder is None:
        return _evaluate_worlds(asked)
    if asked.what == "scene":
        from lyra.evaluation import evaluate_scene

        return evaluate_scene(folder)
    if asked.what == "compare":
        from lyra.evaluation.comparison import compare_reports

        assert asked.other is not None
        return compare_reports(folder, asked.other)
    if asked.what == "ablation":
        from lyra.evaluation.ablations import run_ablation
        from lyra.models.loading import load

        place = asked.run or Path("runs/ablations")
        return run_ablation(load(model or "mini"), str(folder), place, asked.scenes, device=asked.device)
    return _evaluate_posed(folder, model, asked.seed, asked.capture, asked.report, asked.device)


def _evaluate_posed(
    folder: Path, model: str | None, seed: int | None, capture: CaptureOptions, report: Path | None, device: str
) -> dict:
    from lyra.evaluation.gallery import Gallery
    from lyra.evaluation.posed_sets import PosedOptions, evaluate_posed
    from lyra.evaluation.report_page import describe_provenance, write_report
    from lyra.evaluation.stages import Stages
    from lyra.models.loading import load

    given: dict[str, Any] = {name: value for name, value in vars(capture).items() if value is not None}
    options, loaded = PosedOptions(**given, seed=seed or 0), load(model or "mini")
    gallery, stages = None if report is None else Gallery(), Stages()
    numbers, values, _ = evaluate_posed(loaded, folder, options, device, gallery, stages)
    if report is not None and gallery is not None:
        names = [one["name"] for one in numbers["captures"]]
        told = describe_provenance(loaded, options.seed, options)
        write_report(report, "posed", numbers, values, names, gallery, stages, told)
    return numbers


def _evaluate_worlds(asked: _Asked) -> dict:
    from lyra.engine.engine import Engine
    from lyra.models.loading import load

    engine, what, report = Engine(load(asked.model or "mini"), asked.device), asked.what, asked.report
    given = {"scenes": asked.scenes, "seed": asked.seed, "optimize": asked.optimize}
    chosen: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    if what == "worlds":
        from lyra.evaluation.still_worlds import WorldsOptions

        return _report_worlds(engine, WorldsOptions(**chosen), report)
    if what == "mesh":
        from lyra.evaluation.mesh_worlds import MeshWorldsOptions, evaluate_meshes

        return evaluate_meshes(engine, MeshWorldsOptions(**chosen))
    from lyra.evaluation.moving_worlds import DynamicOptions, evaluate_dynamic

    return evaluate_dynamic(engine, DynamicOptions(walking=asked.walking, **chosen), asked.report)


def _report_worlds(engine: "Engine", options: "WorldsOptions", report: Path | None) -> dict:
    from lyra.evaluation.gallery import Gallery
    from lyra.evaluation.report_page import describe_provenance, write_report
    from lyra.evaluation.scores import find_scores
    from lyra.evaluation.stages import Stages
    from lyra.evaluation.still_worlds import FIRST_HELD_OUT_SEED, evaluate_worlds

    gallery, stages, scores = None if report is None else Gallery(), Stages(), find_scores()
    numbers = evaluate_worlds(engine, options, gallery, stages, scores)
    if report is not None and gallery is not None:
        names = [f"world {FIRST_HELD_OUT_SEED + index}" for index in range(options.scenes)]
        told = describe_provenance(engine.model, options.seed, options)
        write_report(report, "worlds", numbers, scores.values, names, gallery, stages, told)
    return numbers
