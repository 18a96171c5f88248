"""The command line: parses, calls, and turns problems into one line and exit code 2."""

import sys
import traceback
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import OmitArgPrefixes, Positional, arg
from tyro.extras import SubcommandApp

from lyra.cli.evaluate import evaluate
from lyra.cli.export import export
from lyra.cli.learn import report, synthesize, train
from lyra.cli.notes import show_notes
from lyra.device.memory import DeviceOptions
from lyra.errors import LyraError
from lyra.files.strict_json import to_json
from lyra.generate.options import ExtendOptions, GenerateOptions
from lyra.scene.times import TimeOptions

Out = Annotated[Path, arg(aliases=["-o"], help="Where the result goes.")]

_AS_FITS = DeviceOptions()
_PLAIN = GenerateOptions()
_AS_IT_IS = ExtendOptions()
_WHOLE_TIME = TimeOptions()

app = SubcommandApp()


@app.command
def generate(
    input: Positional[tuple[Path, ...]] = (),
    /,
    *,
    out: Out,
    model: str = "mini",
    options: Annotated[GenerateOptions, arg(name=""), OmitArgPrefixes] = _PLAIN,
) -> None:
    """Turns a photo, several photos, a text or a video into a scene.

    Args:
        input: A photo; several of one place, or their folder, the first of them the input view, whose cameras are
            found; a transforms.json that names posed photos; or a video.
        out: Folder for scene.ply, scene.mp4, index.html, scene.json and clips/; of a video also for frames/,
            scene.4dgs, dynamic.safetensors and bullet.mp4.
        model: A bundled model's name, or a model's folder.
        options: Everything else.
    """
    from lyra.device.ranks import Ranks, join_ranks
    from lyra.generate.pipeline import generate as generate_scene
    from lyra.models.preflight import load_checked

    ranks = join_ranks() if options.spread else Ranks()
    loaded = load_checked(model, options.device, len(options.trajectories), options.text.text_encoder, ranks)
    scene = generate_scene(loaded, input, out, options)
    for note in scene.provenance["input"]["notes"]:
        print(f"note: {note}", file=sys.stderr)
    fov_used = scene.provenance["fov"]
    print(f"note: field of view {fov_used['degrees']:.1f} degrees ({fov_used['source']})", file=sys.stderr)
    moments = "" if scene.dynamic is None else f" at the first of {len(scene.dynamic)} moments"
    print(f"{len(scene.gaussians)} Gaussians{moments} in {out}: open {out / 'index.html'}", file=sys.stderr)


@app.command
def extend(
    scene: Positional[Path],
    /,
    *,
    cameras: str,
    model: str = "mini",
    options: Annotated[ExtendOptions, arg(name=""), OmitArgPrefixes] = _AS_IT_IS,
) -> None:
    """Lets a still scene go on where it ends: what a path sees and the scene does not show is imagined and added.

    Args:
        scene: A folder that generate wrote; it grows in place, and extensions/NN/before.ply is the scene as it was.
        cameras: One of the six trajectories, from where the last extension ended, at first from the input view; or a
            file of cameras in the scene, as render takes it.
        model: A bundled model's name, or a model's folder.
        options: Everything else.
    """
    from lyra.generate.extending import extend as extend_scene
    from lyra.generate.run_folder import EXTENSIONS
    from lyra.models.preflight import load_checked

    grown = extend_scene(load_checked(model, options.device, 1), scene, cameras, options)
    told = grown.provenance[EXTENSIONS][-1]
    added = sum(clip["added"] for clip in told["clips"])
    print(f"{added} Gaussians added, {len(grown.gaussians)} in {scene}: {told['folder']}", file=sys.stderr)


@app.command
def render(
    scene: Positional[Path],
    /,
    out: Out,
    *,
    cameras: str = "fly",
    frames: int = 96,
    size: int = 512,
    fps: int = 24,
    time: Annotated[TimeOptions, arg(name="")] = _WHOLE_TIME,
    freeze: float | None = None,
    device: str = "auto",
) -> None:
    """Renders a scene along a camera path to a video; a dynamic one while its time runs.

    Args:
        scene: A scene folder or a PLY file.
        out: Film (.mp4, .mov, .mkv, .webm, .avi, .gif), or numbered pictures (film_%04d.png).
        cameras: "fly", "still" (the input view), one of the six trajectories, or a file of cameras
            (docs/inputs.md).
        frames: Frames of a preset path; more of them are slow motion.
        size: Shorter side of the video in pixels.
        fps: Frames a second.
        time: Which part of a dynamic scene's time is shown, and how often.
        freeze: Time at which a dynamic scene stands still, in [0, 1].
        device: Where it is rendered: auto, cpu, cuda or cuda:N; a GPU needs gsplat.
    """
    from lyra.scene.film import render_video

    if freeze is not None:
        if time != _WHOLE_TIME:
            raise LyraError("a frozen scene's time does not run: give --freeze, or --start, --end and --loops")
        time = TimeOptions(freeze, freeze)
    render_video(scene, out, cameras, frames, size, fps, time, device)


@app.command
def cut(
    scene: Positional[Path],
    /,
    out: Out,
    *,
    times: tuple[float, float] | None = None,
    box: tuple[float, float, float, float, float, float] | None = None,
) -> None:
    """Writes a part of a scene as a scene of its own.

    Args:
        scene: A scene folder or a PLY file.
        out: Folder of the new scene.
        times: Of a dynamic scene: first and last time that are kept, in [0, 1]; twice the same gives a still scene.
        box: Lowest x y z and highest x y z that are kept, scene units (x right, y down, z forward).
    """
    from lyra.generate.cutting import cut_scene

    cut_scene(scene, out, times, box)


@app.command
def view(
    scene: Positional[Path],
    /,
    *,
    port: int = 8080,
    send: Literal["splats", "frames"] = "splats",
    time: float = 0.0,
) -> None:
    """Shows a scene in the browser, served on this machine only; of a dynamic one a moment (its index.html plays all).

    Args:
        scene: A scene folder or a PLY file.
        port: Local port.
        send: The splats, which the browser draws; or frames that our renderer draws on this machine's processor.
        time: Of a dynamic scene, in [0, 1].
    """
    from lyra.scene.scene import Scene
    from lyra.viewer.live import serve_viewer

    loaded = Scene.load(scene).at(time)
    serve_viewer(loaded.gaussians, loaded.input_camera, port, send)


@app.command
def verify(
    scene: Positional[Path],
    /,
    *,
    json_: Annotated[bool, arg(name="json", help="One JSON object on stdout.")] = False,
    views: int = 4,
    size: int = 640,
    save: Path | None = None,
) -> None:
    """Compares a scene's page in a real browser with our renderer; exit code 2 where they differ.

    Args:
        scene: A scene folder or a PLY file.
        json_: One JSON object on stdout.
        views: How many cameras.
        size: Shorter side of the pictures in pixels.
        save: Folder for the pictures.
    """
    from lyra.viewer.verification import verify_scene

    found = verify_scene(scene, views, size, save)
    numbers = found.as_json()
    if json_:
        print(to_json(numbers))
    else:
        for row in numbers.pop("rows"):
            print(f"view {row['view']} by {row['backend']}: {row['psnr']:.1f} dB")
        for name, value in numbers.items():
            print(f"{name:>17} {value:.4g}" if isinstance(value, float) else f"{name:>17} {value}")
    if found.problem is not None:
        raise LyraError(found.problem)


@app.command
def bench(
    name: Positional[Literal["render", "mamba", "decoder", "training", "stages", "teacher", "sensor"]],
    /,
    *,
    json_: Annotated[bool, arg(name="json", help="One JSON object on stdout.")] = False,
    full: bool = False,
) -> None:
    """Measures speed and memory on this machine, every row in a process of its own.

    Args:
        name: What is measured.
        json_: One JSON object on stdout.
        full: Every size, not a choice that takes minutes (mamba and decoder).
    """
    from lyra.bench.measure import print_rows

    match name:
        case "render":
            from lyra.bench.render_cost import measure as measure_render

            rows = measure_render()
        case "mamba":
            from lyra.bench.mamba_cost import measure as measure_mamba

            rows = measure_mamba(full)
        case "decoder":
            from lyra.bench.decoder_cost import measure as measure_decoder

            rows = measure_decoder(full)
        case "training":
            from lyra.bench.training_cost import measure as measure_training

            rows = measure_training()
        case "stages":
            from lyra.bench.stage_cost import measure as measure_stages

            rows = measure_stages()
        case "teacher":
            from lyra.bench.teacher_cost import measure as measure_teacher

            rows = measure_teacher()
        case "sensor":
            from lyra.bench.sensor_cost import measure as measure_sensor

            rows = measure_sensor()
    print_rows(rows, json_)


@app.command
def doctor() -> None:
    """Says what this installation and this machine can do."""
    from lyra.cli.doctor import examine

    findings = examine()
    for finding in findings:
        print(f"{'ok  ' if finding.ok else 'PROBLEM'} {finding.text}")
    if not all(finding.ok for finding in findings):
        raise LyraError("doctor found problems: see the lines marked PROBLEM")


@app.command
def decode(
    clips: Positional[Path],
    /,
    out: Out,
    *,
    model: str = "mini",
    sample: str | None = None,
    allow_pickle: bool = False,
    time: float | None = None,
    device: str = "auto",
) -> None:
    """Turns stored clips into a scene (scene.ply and scene.json), by the model's decoder alone.

    Args:
        clips: A scene's folder or its clips/, or a folder of the published data set.
        out: Folder for scene.ply and scene.json.
        model: A bundled model's name, or a model's folder; it needs no more than vae/ and decoder/.
        sample: Of a published data set: which sample; the first when left out.
        allow_pickle: Of a published data set: its latents are pickles; read them, by a restricted reader.
        time: Of a dynamic decoder: the moment to show, from 0 to 1.
        device: Where the networks run: auto, cpu, cuda or cuda:N.
    """
    from lyra.engine.engine import Engine
    from lyra.generate.stored_clips import FURTHER, PARTS, DecodeOptions, decode_folder
    from lyra.models.loading import load_parts

    options = DecodeOptions(sample, allow_pickle, time)
    with Engine(load_parts(model, PARTS, FURTHER), device) as engine:
        scene = decode_folder(engine, clips, out, options)
    print(f"{len(scene.gaussians)} Gaussians in {out / 'scene.ply'}", file=sys.stderr)


@app.command
def convert(
    what: Positional[Literal["lyra-decoder", "gen3c", "cosmos-tokenizer", "lpips", "re10k-chunk"]],
    file: Positional[Path],
    /,
    out: Out,
    *,
    tokenizer: Path | None = None,
    sha256: str | None = None,
    scene: Literal["auto", "static", "dynamic"] = "auto",
    heads: int | None = None,
    precision: Literal["bfloat16", "float16", "float32"] = "bfloat16",
) -> None:
    """Turns published weights into a model's folder; parts that are there already stay. Pickles are read here alone.

    Args:
        what: Which published network.
        file: lyra_static.pt, lyra_dynamic.pt or GEN3C's model.pt; for cosmos-tokenizer its folder; for lpips
            torchvision's vgg16-397923af.pth; for re10k-chunk a .torch file of pixelSplat's.
        out: Folder of the model; for lpips the file that LYRA_LPIPS names, for re10k-chunk the data set's folder.
        tokenizer: For gen3c: folder of the Cosmos tokenizer, converted along.
        sha256: What the file's SHA-256 must be.
        scene: For lyra-decoder: kind of scenes; "auto" goes by the file's name, else by its weights.
        heads: For lyra-decoder: attention heads; 64 channels a head when left out.
        precision: For gen3c: type that the network is stored and held in.
    """
    match what:
        case "lyra-decoder":
            from lyra.models.convert.lyra_decoder import convert_decoder

            convert_decoder(file, out, sha256, scene, heads)
        case "gen3c":
            from lyra.models.convert.gen3c import convert_teacher

            convert_teacher(file, out, tokenizer, sha256, precision)
        case "cosmos-tokenizer":
            from lyra.models.convert.cosmos_tokenizer import convert_tokenizer

            convert_tokenizer(file, out, sha256)
        case "lpips":
            from lyra.models.convert.lpips_weights import convert_lpips

            convert_lpips(file, out, sha256)
        case "re10k-chunk":
            from lyra.models.convert.real_estate_chunks import convert_chunk

            print(f"{len(convert_chunk(file, out))} scenes in {out}", file=sys.stderr)


for command in (evaluate, train, synthesize, report, export):
    app.command(command)


def main() -> None:
    """Entry point of the ``lyra`` command."""
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    show_notes()
    try:
        app.cli(prog="lyra", args=arguments, description=DESCRIPTION)
    except (LyraError, OSError, MemoryError, RuntimeError) as error:
        memory = _is_lack_of_memory(error)
        if isinstance(error, RuntimeError) and not memory:
            raise
        if debug:
            traceback.print_exc()
        text = " ".join(str(error).split()) or type(error).__name__
        if memory:
            text = f"not enough memory ({text[:200]}): ask for less at once, or use a larger machine"
        print(f"lyra: {text}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("lyra: interrupted; what was finished is kept", file=sys.stderr)
        sys.exit(130)


def _is_lack_of_memory(error: BaseException) -> bool:
    import torch

    # For a failed allocation on the CPU, and for some on a GPU, torch has no class of its own.
    told = isinstance(error, RuntimeError) and any(
        words in str(error) for words in ("allocate memory", "out of memory")
    )
    return told or isinstance(error, (MemoryError, torch.OutOfMemoryError))


DESCRIPTION = "A photo becomes a 3D Gaussian-splat scene, a video a 4D one. --debug shows the traceback of a problem."

if __name__ == "__main__":
    main()
