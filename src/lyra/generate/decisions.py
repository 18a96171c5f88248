"""What is known of a run before a network works: the input is read, and what will not do is said at once."""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lyra.capture.reconstruction import require_colmap
from lyra.device.memory import LIBRARIES, Placement, describe, find_memory, plan
from lyra.device.ranks import Ranks
from lyra.engine.paths import CameraPath, choose_paths
from lyra.engine.shots import INPUT, check_lengths, check_names
from lyra.errors import LyraError, MissingExtraError
from lyra.files.photos import Photo, is_video, load_photo, load_posed_photos
from lyra.files.picture_files import picture_shape
from lyra.files.poses import load_posed_images
from lyra.files.videos import Video, load_video, video_shape
from lyra.generate.options import MOST_CHUNKS, MOST_PHOTOS, STILL, GenerateOptions, VideoOptions
from lyra.geometry.cameras import Cameras
from lyra.geometry.trajectories import TRAJECTORY_NAMES
from lyra.models.model import Model
from lyra.models.preflight import halve_teacher, needs_of_model, with_teacher
from lyra.models.text import takes_text
from lyra.teacher import TeacherConfig
from lyra.teacher.guardrail import GUARDRAIL_BYTES, Guardrail, choose_guardrail, needs_guardrail
from lyra.views.sizes import fit_shape
from lyra.worlds.briefs import read_brief


@dataclass(frozen=True)
class Decisions:
    """Everything about a run that is known before a network works."""

    config: TeacherConfig
    placement: Placement
    guardrail: Guardrail | None
    paths: list[CameraPath]
    photos: list[Photo]
    """Empty where the first image is still to be made from the prompt, or where there is a video."""
    video: Video | None
    cameras: Cameras | None
    """Of the photos, where they are posed."""
    identity: dict[str, Any]
    unposed: tuple[Path, ...] = ()
    """Files of several photos whose cameras are still to be found."""
    video_file: Path | None = None
    """Of the video."""


def decide(
    model: Model, sources: Sequence[Path], options: GenerateOptions, ranks: Ranks, files: bool = True
) -> Decisions:
    """Reads the input and the options, and says at once what will not do.

    Args:
        model: All parts.
        sources: The input; several photos; nothing to begin with the prompt.
        options: What the user decides.
        ranks: The processes that share the scene.
        files: Whether files will be written.

    Raises:
        LyraError: the input, the options, the model or the machine.
    """
    if files:
        require_extra("av", "PyAV")
    photo_path = sources[0] if sources else None
    check_several(sources)
    model.require("vae", "decoder")
    if options.teacher is None:
        model.require("transformer", "scheduler", "text")
    config = choose_size(model, sampling_config(model, options), photo_path, options.size)
    check_text(model, photo_path, options)
    paths = choose_paths(
        options.trajectories, options.seed, options.movement, options.look, config.frames, config.height, config.width
    )
    video, photos, cameras = None, [], None
    if photo_path is not None and is_video(photo_path):
        check_video(model, options, files)
        video = load_video_input(photo_path, config, options.video)
        check_lengths(paths, video.frames.new_ones(4), config.frames)
        check_names([INPUT, *(path.name for path in paths)])
    else:
        check_photo(photo_path, options)
        photos, cameras = load_input(sources, config)
    guarded = needs_guardrail(licences_of(model), options.guardrail)
    placement = place_model(model, config, options, ranks, moving=video is not None, guarded=guarded)
    guardrail = choose_guardrail(licences_of(model), options.guardrail, placement.device)
    if guardrail is not None and options.text.prompt:
        guardrail.check_text(options.text.prompt)
    known = cameras if video is None else video.cameras
    inputs = [photo.sha256 for photo in photos] if video is None else [video.sha256]
    identity = run_identity(model, config, inputs, known, paths, options)
    unposed = tuple(sources) if len(sources) > 1 else ()
    return Decisions(config, placement, guardrail, paths, photos, video, cameras, identity, unposed, photo_path)


def require_extra(module: str, package: str) -> None:
    """Says at the start, not after minutes of work, that a package for the output's files is missing."""
    try:
        __import__(module)
    except ImportError as error:
        raise MissingExtraError(package, "video", "writing a scene's files") from error


def sampling_config(model: Model, options: GenerateOptions) -> TeacherConfig:
    """The model's sampling with what the user changes of it.

    Raises:
        LyraError: that is no way to sample.
    """
    given = {"sampler": options.sampler, "steps": options.steps}
    return replace(model.config.teacher, **{name: value for name, value in given.items() if value is not None})


PROMPT_ASPECT = (4, 3)
"""Width and height of the picture of a prompt, for models that work at any shape."""


def choose_size(model: Model, config: TeacherConfig, source: Path | None, size: int | None) -> TeacherConfig:
    """The sampling at the input's own shape, as far as the model works at other sizes than the one it was made for.

    Raises:
        LyraError: the model does not work at this size, or the input cannot be read.
    """
    sizes = model.config.sizes
    if sizes is None:
        if size not in (None, max(config.height, config.width)):
            raise LyraError(f"model {model.config.name!r} works at {config.width}x{config.height}: leave out --size")
        return config
    moving = source is not None and is_video(source)
    longer = size or (sizes.video if moving else sizes.photo)
    sizes.check(longer)
    if source is None:
        width, height = PROMPT_ASPECT
    elif moving:
        width, height = video_shape(source).shown
    elif source.suffix.lower() == ".json":
        lens = load_posed_images(source)[0][1].shown_lens()
        width, height = round(lens.width), round(lens.height)
    else:
        width, height = picture_shape(source).shown
    return config.at_size(*fit_shape(width, height, longer, sizes.multiple))


def check_text(model: Model, photo_path: Path | None, options: GenerateOptions) -> None:
    """Says before any work what a prompt needs.

    Raises:
        LyraError: there is neither photo nor prompt, nothing reads the prompt, or no word of it can be drawn.
    """
    text = options.text
    if options.teacher is not None and options.sampler is not None:
        raise LyraError("Wan VACE has a sampler of its own: leave out --sampler")
    reads = options.teacher is not None or takes_text(model.text)
    if photo_path is None and not text.prompt:
        raise LyraError("nothing to begin with: give a photo, or a text by --prompt")
    if text.prompt and not reads and photo_path is not None:
        raise LyraError(
            f"model {model.config.name!r} takes no text: give the photo without a prompt, or a prompt alone"
        )
    if draws_prompt(model, photo_path, options):
        read_brief(text.prompt)
    if text.prompt and reads and text.text_encoder is None and options.teacher is None:
        raise LyraError("a prompt needs T5: name its folder, or owner/name@commit, by --text-encoder")


def draws_prompt(model: Model, photo_path: Path | None, options: GenerateOptions) -> bool:
    """Whether the first picture is drawn from the worlds: of a model that reads no text, without a pipeline for it."""
    reads = options.teacher is not None or takes_text(model.text)
    return photo_path is None and bool(options.text.prompt) and not reads and options.text.text_to_image is None


def place_model(
    model: Model,
    config: TeacherConfig,
    options: GenerateOptions,
    ranks: Ranks,
    moving: bool = False,
    guarded: bool = False,
) -> Placement:
    """Where the model runs; says what it needs and what there is.

    Raises:
        LyraError: it does not fit.
    """
    clips = len(options.trajectories)
    needs, available = needs_of_model(model, clips, moving, config), find_memory(options.device.device, held=True)
    if options.teacher is not None:
        needs = with_teacher(needs, Path(options.teacher), 4 if available.device == "cpu" else 2)
    if options.device.eight_bit:
        needs = halve_teacher(needs)
    if guarded:
        needs = replace(needs, weights={**needs.weights, "guardrail": GUARDRAIL_BYTES})
    # Each process has its share of the clips to fill a batch with.
    placement = plan(needs, available, options.device, -(-clips // ranks.world))
    if ranks.first:
        print(describe(needs, placement, available), file=sys.stderr)
    return placement


def needed_memory_mb(model: Model) -> int:
    """Main memory that a run on the CPU takes, estimated."""
    return (needs_of_model(model, len(TRAJECTORY_NAMES)).on_device(Placement()) + LIBRARIES) >> 20


def licences_of(model: Model) -> str:
    """All licences of a model's parts, for who asks what they demand."""
    parts = (entry.get("licence", "") for entry in model.config.provenance.values())
    return "; ".join([model.config.licence, *parts])


def load_input(paths: Sequence[Path], config: TeacherConfig) -> tuple[list[Photo], Cameras | None]:
    """The photos of an input and, if they are posed, their cameras; no photo where a prompt stands for it."""
    if len(paths) == 1 and paths[0].suffix.lower() == ".json":
        return load_posed_photos(paths[0], config.height, config.width)
    return [load_photo(path, config.height, config.width) for path in paths], None


def check_several(paths: Sequence[Path]) -> None:
    """Says before any work which files do not go together.

    Raises:
        LyraError: a video or a camera file among photos, a photo twice, or nothing that poses photos is installed.
    """
    if len(paths) < 2:
        return
    if len(paths) > MOST_PHOTOS:
        raise LyraError(f"{len(paths)} photos: give at most {MOST_PHOTOS}")
    for path in paths:
        if is_video(path):
            raise LyraError(f"{path} is a video among several files: give it alone, or photos alone")
        if path.suffix.lower() == ".json":
            raise LyraError(f"{path} among several files: a transforms.json names its photos, give it alone")
    if len({path.resolve() for path in paths}) < len(paths):
        raise LyraError("a photo is named twice: give each once")
    require_colmap()


def load_video_input(path: Path, config: TeacherConfig, options: VideoOptions) -> Video:
    """The frames of a video: as many as its chunks have, each with the last frame of the one before it."""
    steps = config.frames - 1

    def count(seconds: float) -> int:
        natural = min(max(1, round(seconds * config.fps / steps)), MOST_CHUNKS)
        return 1 + steps * (natural if options.chunks is None else options.chunks)

    cameras = None if options.cameras in (None, STILL) else Path(options.cameras)
    return load_video(path, config.height, config.width, count, cameras)


def check_video(model: Model, options: GenerateOptions, files: bool) -> None:
    """Says before any work what a video cannot be used with.

    Raises:
        LyraError: a prompt that nothing reads, this model, or a package is missing.
    """
    if options.text.prompt and options.text.text_encoder is None and options.teacher is None:
        raise LyraError("a video needs no prompt: leave out --prompt")
    if options.text.text_to_image is not None:
        raise LyraError("--text-to-image draws the first image, which the video has: leave one of them out")
    if files:
        require_extra("fourdgs", "fourdgs")
    require_extra("cv2", "opencv-python-headless")
    if model.decoder.config.geometry != "cache":
        raise LyraError(
            f"the student of model {model.config.name!r} makes one moment at a time: generate the clips with a photo's "
            "command, then lyra decode --time"
        )


def check_photo(path: Path | None, options: GenerateOptions) -> None:
    """Says before any work which options are not for a photo.

    Raises:
        LyraError: an option of videos, or two sources of the first image.
    """
    if options.video.cameras is not None or options.video.chunks is not None:
        raise LyraError("--cameras and --chunks are for videos: give a photo's cameras in a transforms.json")
    if path is not None and options.text.text_to_image is not None:
        raise LyraError("--text-to-image draws the first image: leave out the photo, or it")


def run_identity(
    model: Model,
    config: TeacherConfig,
    inputs: Sequence[str],
    cameras: Cameras | None,
    paths: Sequence[CameraPath],
    options: GenerateOptions,
) -> dict[str, Any]:
    """What decides a run's result; a run is only resumed with the same."""
    content = asdict(options)
    # Where and how it runs is no part of what it is, but for weights that are rounded.
    for name in ("resume", "device", "guardrail", "spread"):
        content.pop(name)
    content["trajectories"] = [path.name for path in paths]
    # A video's cameras count by their content, below, wherever the file lies.
    if content["video"].pop("cameras") == STILL:
        content["video"]["cameras"] = STILL
    read = {path.name: digest_cameras(path.cameras) for path in paths if path.name not in TRAJECTORY_NAMES}
    # The first image of a prompt is made later; the prompt, its pipeline and the seed stand for it.
    identity = {
        "format": 1,
        "model": {
            "name": model.config.name,
            "licence": model.config.licence,
            "checksums": model.config.checksums,
            "teacher": asdict(config),
        },
        "input_sha256": inputs[0] if inputs else None,
        "further_sha256": list(inputs[1:]),
        "camera_files": read if cameras is None else {**read, "photos": digest_cameras(cameras)},
        "options": content,
        "eight_bit": options.device.eight_bit,
    }
    return json.loads(json.dumps(identity))


def digest_cameras(cameras: Cameras) -> str:
    """Hex SHA-256 of poses and lenses."""
    tensors = (cameras.camera_to_world, cameras.intrinsics)
    return hashlib.sha256(b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors)).hexdigest()
