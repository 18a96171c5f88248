"""What a run is, before and around its work: options, decisions, the folder, the parts put in their places."""

import hashlib
import json
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lyra.depth import DepthEstimator
from lyra.device.memory import LIBRARIES, MemoryWish, Placement, describe, find_memory, peak_memory_mb, plan, quantize
from lyra.device.ranks import Ranks
from lyra.engine.filming import Film, check_lengths, check_names
from lyra.engine.paths import CameraPath, Look, choose_paths
from lyra.errors import LyraError, MissingExtraError
from lyra.files.photos import Photo, is_video, load_photo, load_posed_photos
from lyra.files.videos import Video, load_video
from lyra.generate.run_folder import digest_identity
from lyra.geometry.cameras import Cameras
from lyra.geometry.trajectories import TRAJECTORY_NAMES, TrajectoryName, draw_distance
from lyra.models.model import Model
from lyra.models.preflight import halve_teacher, needs_of_model, with_teacher
from lyra.models.text import embed_texts, takes_text
from lyra.teacher import TeacherConfig, VideoTeacher
from lyra.teacher.diffusion import Sampler
from lyra.teacher.guardrail import Guardrail, GuardrailChoice, choose_guardrail


@dataclass(frozen=True)
class TextOptions:
    """What a user decides about text."""

    prompt: str = ""
    """What the scene shows. Without a photo the first image is made from it."""
    text_encoder: str | None = None
    """Folder or owner/name@commit with text_encoder/ and tokenizer/ of T5, for models that read text."""
    text_to_image: str | None = None
    """Folder or owner/name@commit of the diffusers pipeline that makes the first image; Z-Image-Turbo when None."""


MOST_CHUNKS = 4
"""Of a long video, unless a user wants more; it is sampled more coarsely then."""


@dataclass(frozen=True)
class VideoOptions:
    """What a user decides about a video input."""

    cameras: str | None = None
    """File with one camera a frame: our JSON, a ``transforms.json`` or an NPZ of poses. Poses in ViPE's folders beside
    the video are found without it; else the camera is taken as still."""
    chunks: int | None = None
    """How many clips of the model's length the video is cut into, each beginning with the frame at which the one
    before it ends; more show more moments. As many as bring it nearest to the model's frame rate, at most
    ``MOST_CHUNKS``, when None."""

    def __post_init__(self) -> None:
        if self.chunks is not None and not 1 <= self.chunks <= 64:
            raise LyraError(f"{self.chunks} chunks of a video: give 1 to 64")


@dataclass(frozen=True)
class GenerateOptions:
    """What a user decides about a scene."""

    seed: int = 0
    trajectories: tuple[str, ...] = TRAJECTORY_NAMES
    """Names of presets, and files of cameras."""
    movement: float = 1.0
    """Factor on the paper's camera movements and on those of files."""
    look: Look = "path"
    """Where the cameras look."""
    fov: float | None = None
    """Field of view of the photo's shorter side in degrees; from EXIF, the depth estimator or 55 when None."""
    depth: str = "auto"
    """The model's own network ("model"), "depth-anything", or the source of another estimator."""
    teacher: str | None = None
    """Folder or owner/name@commit of Wan VACE, in place of the model's own teacher."""
    sampler: Sampler | None = None
    """The model's own when None."""
    steps: int | None = None
    """The model's own number when None."""
    text: TextOptions = field(default_factory=TextOptions)
    video: VideoOptions = field(default_factory=VideoOptions)
    guardrail: GuardrailChoice = "auto"
    memory: MemoryWish = field(default_factory=MemoryWish)
    resume: bool = False
    """Go on with what the output folder holds of the same run."""

    def __post_init__(self) -> None:
        if not self.trajectories:
            raise LyraError(f"no trajectories: name at least one of {', '.join(TRAJECTORY_NAMES)}")
        if self.fov is not None and not 5 <= self.fov <= 150:
            raise LyraError(f"a field of view of {self.fov} degrees is not possible: give 5 to 150")
        if not 0 < self.movement <= 2.5:
            raise LyraError(f"a movement factor of {self.movement} is not possible: give more than 0, at most 2.5")
        if len(set(self.trajectories)) < len(self.trajectories):
            raise LyraError("a trajectory is named twice: name each once")


@dataclass
class Timings:
    """Seconds by stage."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a stage; a stage that is entered again adds to its time."""
        began = time.monotonic()
        yield
        self.seconds[name] = round(self.seconds.get(name, 0.0) + time.monotonic() - began, 3)


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


def decide(model: Model, photo_path: Path | None, options: GenerateOptions, ranks: Ranks) -> Decisions:
    """Reads the input and the options, and says at once what will not do.

    Raises:
        LyraError: the input, the options, the model or the machine.
    """
    require_extra("av", "PyAV")
    model.require("vae", "decoder")
    if options.teacher is None:
        model.require("transformer", "scheduler", "text")
    config = sampling_config(model, options)
    check_text(model, photo_path, options)
    paths = choose_paths(
        options.trajectories, options.seed, options.movement, options.look, config.frames, config.height, config.width
    )
    video, photos, cameras = None, [], None
    if photo_path is not None and is_video(photo_path):
        check_video(model, options)
        video = load_video_input(photo_path, config, options.video)
        check_lengths(paths, video.frames.new_ones(4), config.frames)
        check_names(["input", *(path.name for path in paths)])
    else:
        check_photo(photo_path, options)
        photos, cameras = load_input(photo_path, config)
    placement = place_model(model, options, ranks, moving=video is not None)
    guardrail = choose_guardrail(_licences(model), options.guardrail, placement.device)
    if guardrail is not None and options.text.prompt:
        guardrail.check_text(options.text.prompt)
    known = cameras if video is None else video.cameras
    inputs = [photo.sha256 for photo in photos] if video is None else [video.sha256]
    identity = run_identity(model, config, inputs, known, paths, placement, options)
    return Decisions(config, placement, guardrail, paths, photos, video, cameras, identity)


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


def check_text(model: Model, photo_path: Path | None, options: GenerateOptions) -> None:
    """Says before any work what a prompt needs.

    Raises:
        LyraError: there is neither photo nor prompt, or nothing reads the prompt.
    """
    text = options.text
    if options.teacher is not None and options.sampler is not None:
        raise LyraError("Wan VACE has a sampler of its own: leave out --sampler")
    reads = options.teacher is not None or takes_text(model.text)
    if photo_path is None and not text.prompt:
        raise LyraError("nothing to begin with: give a photo, or a text by --prompt")
    if text.prompt and not reads and (photo_path is not None or text.text_to_image is None):
        raise LyraError(
            f"model {model.config.name!r} takes no text: give a photo without a prompt, or name the pipeline that "
            "makes the first image by --text-to-image"
        )
    if text.prompt and reads and text.text_encoder is None and options.teacher is None:
        raise LyraError("a prompt needs T5: name its folder, or owner/name@commit, by --text-encoder")


def place_model(model: Model, options: GenerateOptions, ranks: Ranks, moving: bool = False) -> Placement:
    """Where the model runs; says what it needs and what there is.

    Raises:
        LyraError: it does not fit.
    """
    clips = len(options.trajectories)
    needs, available = needs_of_model(model, clips, moving), find_memory(options.memory.device)
    if options.teacher is not None:
        needs = with_teacher(needs, Path(options.teacher), 4 if available.device == "cpu" else 2)
    if options.memory.eight_bit:
        needs = halve_teacher(needs)
    placement = plan(needs, available, options.memory, clips)
    if ranks.first:
        print(describe(needs, placement, available), file=sys.stderr)
    return placement


def needed_memory_mb(model: Model) -> int:
    """Main memory that a run on the CPU takes, estimated."""
    return (needs_of_model(model, len(TRAJECTORY_NAMES)).on_device(Placement()) + LIBRARIES) >> 20


def _licences(model: Model) -> str:
    """All licences of a model's parts, for who asks what they demand."""
    parts = (entry.get("licence", "") for entry in model.config.provenance.values())
    return "; ".join([model.config.licence, *parts])


def load_input(path: Path | None, config: TeacherConfig) -> tuple[list[Photo], Cameras | None]:
    """The photos of an input and, if they are posed, their cameras; no photo where a prompt stands for it."""
    if path is None:
        return [], None
    if path.suffix.lower() == ".json":
        return load_posed_photos(path, config.height, config.width)
    return [load_photo(path, config.height, config.width)], None


def load_video_input(path: Path, config: TeacherConfig, options: VideoOptions) -> Video:
    """The frames of a video: as many as its chunks have, each with the last frame of the one before it."""
    steps = config.frames - 1

    def count(seconds: float) -> int:
        natural = min(max(1, round(seconds * config.fps / steps)), MOST_CHUNKS)
        return 1 + steps * (natural if options.chunks is None else options.chunks)

    cameras = None if options.cameras is None else Path(options.cameras)
    return load_video(path, config.height, config.width, count, cameras)


def check_video(model: Model, options: GenerateOptions) -> None:
    """Says before any work what a video cannot be used with.

    Raises:
        LyraError: a prompt that nothing reads, this model, or a package is missing.
    """
    if options.text.prompt and options.text.text_encoder is None and options.teacher is None:
        raise LyraError("a video needs no prompt: leave out --prompt")
    if options.text.text_to_image is not None:
        raise LyraError("--text-to-image draws the first image, which the video has: leave one of them out")
    require_extra("fourdgs", "fourdgs")
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


def choose_depth(model: Model, choice: str, device: str) -> DepthEstimator:
    """The depth estimator of a run: the model's own where it has one, else Depth Anything.

    Raises:
        LyraError: there is no such estimator.
    """
    if choice == "model" or (choice == "auto" and "depth" in model.parts):
        model.require("depth")
        return model.depth
    from lyra.depth.pretrained import load_depth_estimator

    return load_depth_estimator("depth-anything" if choice == "auto" else choice, device)


def place_teacher(model: Model, decided: Decisions, options: GenerateOptions) -> VideoTeacher:
    """The teacher, ready to imagine: with the prompt read and the network in its final form."""
    if options.teacher is not None:
        return _place_wan(model, options.teacher, decided, options)
    teacher = model.teacher
    teacher.config, teacher.placement = decided.config, decided.placement
    if options.text.prompt and options.text.text_encoder is not None:
        teacher.text = embed_texts(options.text.text_encoder, [options.text.prompt], decided.placement.device)[0]
    _finish_network(teacher.transformer, options.memory)
    return teacher


def _place_wan(model: Model, source: str, decided: Decisions, options: GenerateOptions) -> VideoTeacher:
    from lyra.teacher.wan import WanSampling, load_wan_teacher

    sampling = WanSampling() if options.steps is None else WanSampling(steps=options.steps)
    config, placement = decided.config, decided.placement
    teacher = load_wan_teacher(source, model.tokenizer, config, placement, options.text.prompt, sampling)
    _finish_network(teacher.pipeline.transformer, options.memory)
    return teacher


def _finish_network(transformer: Any, wish: MemoryWish) -> None:
    if wish.eight_bit:
        quantize(transformer)
    if wish.compile:
        transformer.compile()


def run_identity(
    model: Model,
    config: TeacherConfig,
    inputs: Sequence[str],
    cameras: Cameras | None,
    paths: Sequence[CameraPath],
    placement: Placement,
    options: GenerateOptions,
) -> dict[str, Any]:
    """What decides a run's result; a run is only resumed with the same."""
    content = asdict(options)
    for name in ("resume", "memory", "guardrail"):
        content.pop(name)
    content["trajectories"] = [path.name for path in paths]
    # A video's cameras count by their content, below, wherever the file lies.
    content["video"].pop("cameras")
    read = {path.name: _digest(path.cameras) for path in paths if path.name not in TRAJECTORY_NAMES}
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
        "camera_files": read if cameras is None else {**read, "photos": _digest(cameras)},
        "options": content,
        "placement": {
            "device": placement.device.partition(":")[0],
            "tile": placement.tile,
            "batch": placement.batch,
            "eight_bit": options.memory.eight_bit,
            "compile": options.memory.compile,
        },
    }
    return json.loads(json.dumps(identity))


def _digest(cameras: Cameras) -> str:
    tensors = (cameras.camera_to_world, cameras.intrinsics)
    return hashlib.sha256(b"".join(tensor.contiguous().numpy().tobytes() for tensor in tensors)).hexdigest()


def make_film(
    model: Model, estimator: DepthEstimator, decided: Decisions, options: GenerateOptions, folder: Path
) -> Film:
    """What a run's clips are made with; they go to ``folder``."""
    teacher = place_teacher(model, decided, options)
    return Film(
        teacher,
        model.tokenizer,
        estimator,
        decided.config,
        options.seed,
        folder,
        decided.placement,
        decided.guardrail,
        digest_identity(decided.identity),
    )


def describe_run(decided: Decisions, options: GenerateOptions, timings: Timings) -> dict[str, Any]:
    """What ``scene.json`` says of a run, its input and its result apart."""
    names = [path.name for path in decided.paths]
    presets: list[TrajectoryName] = [name for name in TRAJECTORY_NAMES if names.count(name)]
    return {
        **decided.identity,
        "distances": {name: draw_distance(name, options.seed, options.movement) for name in presets},
        "timings": timings.seconds,
        "peak_memory_mb": peak_memory_mb(),
        "packages": {name: version(name) for name in ("lyra", "torch", "diffusers", "numpy")},
    }


def describe_photos(path: Path | None, photos: Sequence[Photo]) -> dict[str, Any]:
    """What ``scene.json`` says of the input view."""
    photo = photos[0]
    return {
        "name": None if path is None else path.name,
        "sha256": photo.sha256,
        "size": photo.source_size,
        "crop": photo.crop,
        "notes": photo.notes,
        "photos": len(photos),
    }
