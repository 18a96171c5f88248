"""The command line: parses, calls, and turns problems into one line and exit code 2."""

import json
import sys
import traceback
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg
from tyro.extras import SubcommandApp

from lyra.errors import LyraError
from lyra.trajectories import TRAJECTORY_NAMES, TrajectoryName

Out = Annotated[Path, arg(aliases=["-o"], help="Where the result goes.")]

app = SubcommandApp()


@app.command
def generate(
    input: Positional[Path],
    /,
    out: Out,
    *,
    model: str = "mini",
    seed: int = 0,
    trajectories: tuple[TrajectoryName, ...] = TRAJECTORY_NAMES,
    movement: float = 1.0,
    fov: float | None = None,
    resume: bool = False,
) -> None:
    """Turns a photo into a scene.

    Args:
        input: The photo.
        out: Folder for scene.ply, scene.mp4, index.html, scene.json and clips/.
        model: A bundled model's name, or a model's folder.
        seed: The same seed gives the same scene on the same machine.
        trajectories: Camera movements that the teacher imagines.
        movement: Factor on how far the cameras move.
        fov: Field of view of the photo's shorter side in degrees; else from EXIF, else 55.
        resume: Go on with an interrupted run in the same folder.
    """
    from lyra.model import load
    from lyra.pipeline import GenerateOptions
    from lyra.pipeline import generate as generate_scene

    options = GenerateOptions(seed, trajectories, movement, fov, resume)
    scene = generate_scene(load(model), input, out, options)
    for note in scene.provenance["input"]["notes"]:
        print(f"note: {note}", file=sys.stderr)
    fov_used = scene.provenance["fov"]
    print(f"note: field of view {fov_used['degrees']:.1f} degrees ({fov_used['source']})", file=sys.stderr)
    print(f"{len(scene.gaussians)} Gaussians in {out}: open {out / 'index.html'}", file=sys.stderr)


@app.command
def render(scene: Positional[Path], /, out: Out, *, cameras: str = "fly", frames: int = 96, size: int = 512) -> None:
    """Renders a scene along a camera path to a video.

    Args:
        scene: A scene folder or a PLY file.
        out: Video file (.mp4).
        cameras: "fly", one of the six trajectories, or a JSON file of cameras.
        frames: Frames of a preset path.
        size: Shorter side of the video in pixels.
    """
    from lyra.render_video import render_video

    render_video(scene, out, cameras, frames, size)


@app.command
def view(scene: Positional[Path], /, *, port: int = 8080) -> None:
    """Shows a scene in the browser, served on this machine only.

    Args:
        scene: A scene folder or a PLY file.
        port: Local port.
    """
    from lyra.scene import Scene
    from lyra.viewer import serve_viewer

    loaded = Scene.load(scene)
    serve_viewer(loaded.gaussians, loaded.input_camera, port)


@app.command
def evaluate(what: Positional[Literal["scene"]], folder: Positional[Path], /, *, json_: Annotated[
    bool, arg(name="json", help="One JSON object on stdout.")] = False) -> None:  # fmt: skip
    """Measures a result.

    Args:
        what: What is measured.
        folder: A scene folder.
        json_: One JSON object on stdout.
    """
    from lyra.evaluation import evaluate_scene

    numbers = evaluate_scene(folder)
    if json_:
        print(json.dumps(numbers))
    else:
        for name, value in numbers.items():
            print(f"{name:>16} {'-' if value is None else format(value, '.4g')}")


@app.command
def doctor() -> None:
    """Says what this installation and this machine can do."""
    from lyra.doctor import examine

    findings = examine()
    for finding in findings:
        print(f"{'ok  ' if finding.ok else 'PROBLEM'} {finding.text}")
    if not all(finding.ok for finding in findings):
        raise LyraError("doctor found problems: see the lines marked PROBLEM")


@dataclass(frozen=True)
class TrainingRun:
    """Length of a training leg; what is left out stays at the part's own default."""

    minutes: float | None = None
    """Stop cleanly after this much time."""
    steps: int | None = None
    """Stop at this step, counted over all legs."""
    learning_rate: float | None = None


@app.command
def train(
    part: Positional[Literal["tokenizer", "depth", "denoiser", "decoder"]],
    /,
    *,
    run: Path | None = None,
    size: Literal["mini", "smoke"] = "mini",
    leg: Annotated[TrainingRun, arg(name="")] = TrainingRun(),
    worlds: int = 400,
) -> None:
    """Trains one part of a model; continues what the run's folder holds.

    Args:
        part: In the order tokenizer, depth, denoiser, (lyra synthesize), decoder.
        run: Workspace folder: model, data and one run folder a part; runs/SIZE when left out.
        size: Which recipe.
        leg: Length.
        worlds: How many procedural worlds to learn from.
    """
    from lyra.recipe import MINI, SMOKE
    from lyra.training import parts

    workspace = parts.Workspace(run or Path("runs") / size, MINI if size == "mini" else SMOKE, worlds)
    given = {name: value for name, value in vars(leg).items() if value is not None}
    match part:
        case "tokenizer":
            parts.train_tokenizer(workspace)
        case "depth":
            parts.train_depth(workspace, replace(parts.DEPTH_LOOP, **given))
        case "denoiser":
            parts.train_denoiser(workspace, replace(parts.DENOISER_LOOP, **given))
        case "decoder":
            parts.train_decoder(workspace, replace(parts.DECODER_LOOP, **given))


@app.command
def synthesize(
    *,
    run: Path | None = None,
    size: Literal["mini", "smoke"] = "mini",
    worlds: int = 400,
    scenes: int = 120,
) -> None:
    """Lets the teacher imagine clips of single images, for training the decoder.

    Args:
        run: Workspace folder; runs/SIZE when left out.
        size: Which recipe.
        worlds: How many procedural worlds the workspace has.
        scenes: How many images.
    """
    from lyra.recipe import MINI, SMOKE
    from lyra.training import parts

    parts.synthesize_clips(
        parts.Workspace(run or Path("runs") / size, MINI if size == "mini" else SMOKE, worlds, scenes)
    )


@app.command
def report(run: Positional[Path], /, *, rows: int = 20) -> None:
    """Prints the course of a training run.

    Args:
        run: Run folder of one part (the one with log.jsonl).
        rows: Lines of the table.
    """
    from lyra.training.report import print_report

    print_report(run, rows)


def main() -> None:
    """Entry point of the ``lyra`` command."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app.cli(prog="lyra", args=arguments, description=DESCRIPTION)
    except (LyraError, OSError, MemoryError, RuntimeError) as error:
        # torch has no class of its own for a failed allocation on the CPU.
        if isinstance(error, RuntimeError) and "allocate memory" not in str(error):
            raise
        if debug:
            traceback.print_exc()
        text = " ".join(str(error).split()) or type(error).__name__
        print(f"lyra: {text}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("lyra: interrupted; what was finished is kept", file=sys.stderr)
        sys.exit(130)


DESCRIPTION = "A photo becomes a 3D Gaussian-splat scene. --debug shows the traceback of a problem."

if __name__ == "__main__":
    main()
