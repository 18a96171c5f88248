"""From an input to a scene and its files: the one place that sees the whole chain.

    photo, text or video -> views (depth, cache) -> clips along every path -> Gaussians -> files

Each finished clip is on disk before the next begins, so an interrupted run goes on from there and ends the same.
"""

import json
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from lyra.capture.film_cameras import FILM_SIDE
from lyra.capture.reconstruction import POSING_SIDE
from lyra.depth import DepthEstimator
from lyra.device.memory import DeviceOptions, peak_memory_mb, quantize
from lyra.device.ranks import Ranks, join_ranks
from lyra.engine.engine import Engine
from lyra.engine.shots import Shelf
from lyra.errors import LyraWarning
from lyra.files import save_image, write_atomically
from lyra.files.moving_splats import save_4dgs
from lyra.files.photos import Photo, find_sources, load_photo
from lyra.files.videos import Video, load_video
from lyra.generate.decisions import Decisions, decide, draws_prompt
from lyra.generate.options import STILL, GenerateOptions
from lyra.generate.run_folder import digest_identity, prepare_folder
from lyra.geometry.dynamic import DynamicGaussians
from lyra.geometry.trajectories import TRAJECTORY_NAMES, TrajectoryName, draw_distance
from lyra.models.model import Model
from lyra.models.text import embed_texts
from lyra.scene.film import write_bullet, write_fly_through
from lyra.scene.scene import Scene
from lyra.teacher import VideoTeacher
from lyra.teacher.first_image import DEFAULT_IMAGE_MODEL, ImageModel, draw_first_image
from lyra.viewer.page import write_viewer
from lyra.views.drawn import draw_prompt
from lyra.views.posed_video import PosedVideo, pose_video
from lyra.views.posing import PosedPhotos, pose_photos
from lyra.views.views import Views

VIEWS, LENS = "clips/input.safetensors", "clips/input.json"
"""What depth estimation found, and the lens."""


def generate(model: Model, source: Path | Sequence[Path] | None, out: Path | None, options: GenerateOptions) -> Scene:
    """Turns a photo, several photos, a text or a video into a scene and, where asked to, its files.

    Args:
        model: From :func:`lyra.load`.
        source: Any image file that Pillow reads, several of one place (the input view first) or a folder of them, any
            video that FFmpeg decodes, or a ``transforms.json`` of posed photos; None to begin with the prompt.
        out: Folder of the scene, see the README for what it will hold; None for a scene in memory.
        options: Seed, trajectories and so on.

    Raises:
        LyraError: the input, the folder, the model or the machine will not do; nothing half-written is left.
    """
    ranks, timings = join_ranks() if options.spread else Ranks(), Timings()
    if out is None and ranks.world > 1:
        raise ValueError("processes share a scene through its folder: give one")
    given = [] if source is None else [source] if isinstance(source, Path) else list(source)
    decided = decide(model, find_sources(given), options, ranks, files=out is not None)
    estimator = choose_depth(model, options.depth, decided.placement.device)
    engine = Engine(
        model,
        placement=decided.placement,
        config=decided.config,
        depth=estimator,
        guardrail=decided.guardrail,
        ranks=ranks,
    )
    held = nullcontext() if out is None or not ranks.first else prepare_folder(out, decided.identity, options.resume)
    with held, engine:
        return _run(engine, given[0] if given else None, out, decided, options, timings)


def _run(
    engine: Engine,
    source: Path | None,
    out: Path | None,
    decided: Decisions,
    options: GenerateOptions,
    timings: "Timings",
) -> Scene:
    """The run itself, in a folder that is held for it."""
    model, ranks = engine.model, engine.ranks
    found = see(engine, decided, out, options, timings)
    with timings.stage("teacher"):
        engine.teacher = place_teacher(model, decided, options)
        folder = None if out is None else out / "clips"
        shelf = Shelf(folder, decided.config.fps, digest_identity(decided.identity))
        chunks = engine.imagine(found.views, decided.paths, options.seed, shelf)
    if out is not None and not ranks.first:
        ranks.wait()
        return Scene.load(out)
    with timings.stage("student"):
        gaussians = engine.decode(chunks, found.views)
    scene = Scene.of(gaussians, found.views.cameras[:1])
    if out is not None:
        with timings.stage("files"):
            write_files(scene, out, source.stem if source is not None else options.text.prompt[:60])
    scene = scene.told({**describe_run(decided, options, timings), **describe_input(source, decided, found, scene)})
    if out is not None:
        scene.save(out)
        ranks.wait()
    return scene


@dataclass(frozen=True)
class Seen:
    """What a run found in its input."""

    views: Views
    fov: dict[str, Any]
    """Degrees, and the source they came from."""
    photos: Sequence[Photo]
    """Empty of a video."""
    notes: Sequence[str] = ()
    """Of what was found, one sentence each."""


def see(engine: Engine, decided: Decisions, out: Path | None, options: GenerateOptions, timings: "Timings") -> Seen:
    """The input's views: estimated once, and read again by a run that goes on and by other processes."""
    photos = decided.photos
    if not photos and decided.video is None and engine.ranks.first:
        with timings.stage("first image"):
            photos = [first_photo(engine, decided, options, out)]
    ready = out is not None and options.resume and (out / VIEWS).is_file() and (out / LENS).is_file()
    if engine.ranks.first and not ready:
        source, notes = decided.video or photos, ()
        if decided.unposed:
            with timings.stage("cameras"):
                source = find_photo_cameras(photos, decided, options)
            notes = source.notes
        elif isinstance(source, Video) and source.cameras is None:
            with timings.stage("cameras"):
                source = find_video_cameras(source, decided, options)
            notes = source.notes
        with timings.stage("depth"):
            views, fov = engine.views(source, decided.cameras, options.fov)
        if out is None:
            return Seen(views, fov, photos, notes)
        with write_atomically(out / LENS) as path:
            path.write_text(json.dumps({**fov, "notes": notes}) + "\n")
        views.save(out / VIEWS)
    engine.ranks.wait()
    assert out is not None
    fov = json.loads((out / LENS).read_text())
    return Seen(Views.load(out / VIEWS), fov, photos, fov.pop("notes", ()))


def find_photo_cameras(photos: Sequence[Photo], decided: Decisions, options: GenerateOptions) -> PosedPhotos:
    """Poses several photos, which are looked at larger than the model does.

    Raises:
        LyraError: they have too little in common.
    """
    largest = max(max(photo.source_size) for photo in photos)
    scale = min(POSING_SIDE, largest) / max(decided.config.height, decided.config.width)
    size = (round(decided.config.height * scale), round(decided.config.width * scale))
    print(f"finding the cameras of {len(photos)} photos", file=sys.stderr)
    return pose_photos(photos, options.fov, [load_photo(path, *size).image for path in decided.unposed])


def find_video_cameras(video: Video, decided: Decisions, options: GenerateOptions) -> PosedVideo:
    """Finds the cameras of a video, which is looked at larger than the model does; none where it shall stand.

    Raises:
        LyraError: the camera moves, and where it was cannot be found.
    """
    if options.video.cameras == STILL:
        return PosedVideo.standing(video)
    height, width = video.frames.shape[2:]
    scale = min(FILM_SIDE, max(video.source_size)) / max(height, width)
    print("finding the cameras of the video", file=sys.stderr)
    larger = None
    if scale > 1 and decided.video_file is not None:
        larger = load_video(decided.video_file, round(height * scale), round(width * scale), len(video.frames)).frames
    return pose_video(video, options.fov, larger)


def first_photo(engine: Engine, decided: Decisions, options: GenerateOptions, out: Path | None) -> Photo:
    """The first image from the prompt, from disk where an interrupted run has left it.

    A picture that is drawn from the worlds brings its depth with it.
    """
    config, device = decided.config, decided.placement.device
    drawing = None
    if draws_prompt(engine.model, None, options):
        drawing = draw_prompt(options.text.prompt, options.seed, config.height, config.width, engine.estimator)
        for note in drawing.notes:
            warnings.warn(note, LyraWarning, stacklevel=2)
        if options.depth == "auto":
            engine.depth = drawing
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary) / "photo.png" if out is None else out / "clips/photo.png"
        if drawing is not None:
            save_image(drawing.image, path)
        elif not path.exists():
            source, prompt = options.text.text_to_image, options.text.prompt
            image_model = DEFAULT_IMAGE_MODEL if source is None else ImageModel(source)
            image = draw_first_image(prompt, image_model, config.height, config.width, options.seed, device)
            save_image(image, path)
        photo = load_photo(path, config.height, config.width)
    return photo if drawing is None else replace(photo, notes=(*photo.notes, *drawing.notes))


def write_files(scene: Scene, out: Path, title: str) -> None:
    """Films, the page and, of a dynamic scene, all moments in one file for other players.

    Raises:
        LyraError: a disk is full.
    """
    write_fly_through(scene, out / "scene.mp4")
    if scene.dynamic is not None:
        write_bullet(scene, out / "bullet.mp4")
        save_4dgs(scene.dynamic, out / "scene.4dgs", scene.input_camera)
    write_viewer(scene.dynamic or scene.gaussians, out / "index.html", scene.input_camera, title=title)


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
    _finish_network(teacher.transformer, options.device)
    return teacher


def _place_wan(model: Model, source: str, decided: Decisions, options: GenerateOptions) -> VideoTeacher:
    from lyra.teacher.wan import WanSampling, load_wan_teacher

    sampling = WanSampling() if options.steps is None else WanSampling(steps=options.steps)
    config, placement = decided.config, decided.placement
    teacher = load_wan_teacher(source, model.tokenizer, config, placement, options.text.prompt, sampling)
    _finish_network(teacher.pipeline.transformer, options.device)
    return teacher


def _finish_network(transformer: Any, wish: DeviceOptions) -> None:
    if wish.eight_bit and not getattr(transformer, "is_eight_bit", False):
        quantize(transformer)
        transformer.is_eight_bit = True
    if wish.compile:
        transformer.compile()


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


def describe_run(decided: Decisions, options: GenerateOptions, timings: Timings) -> dict[str, Any]:
    """What ``scene.json`` says of a run, its input and its result apart."""
    names = [path.name for path in decided.paths]
    presets: list[TrajectoryName] = [name for name in TRAJECTORY_NAMES if names.count(name)]
    return {
        **decided.identity,
        "distances": {name: draw_distance(name, options.seed, options.movement) for name in presets},
        "placement": asdict(decided.placement),
        "timings": timings.seconds,
        "peak_memory_mb": peak_memory_mb(),
        "packages": {name: version(name) for name in ("lyra", "torch", "diffusers", "numpy")},
    }


def describe_input(source: Path | None, decided: Decisions, found: Seen, scene: Scene) -> dict[str, Any]:
    """What ``scene.json`` says of the input, and of how much was made of it."""
    count: Any = len(scene.gaussians)
    if scene.dynamic is not None:
        dynamic: DynamicGaussians = scene.dynamic
        count = {"static": len(dynamic.static), "moments": [len(moment) for moment in dynamic.moments]}
    picture: Video | Photo = decided.video or found.photos[0]
    told = {
        "name": None if source is None else source.name,
        "sha256": picture.sha256,
        "size": picture.source_size,
        "crop": picture.crop,
        "notes": [*picture.notes, *found.notes],
    }
    if isinstance(picture, Video):
        told |= {"seconds": picture.seconds, "frames": len(picture.frames)}
    else:
        told |= {"photos": len(found.views)}
    return {"input": told, "fov": found.fov, "gaussians": count}
