"""Photo to scene: the one place that sees the whole chain.

    photo or text -> depth -> cache -> teacher, along every path -> latents -> student -> Gaussians -> files

Each finished clip is on disk before the next begins, so an interrupted run goes on from there and ends the same.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from lyra.depth import DepthEstimator
from lyra.device.memory import Placement
from lyra.device.ranks import Ranks, join_ranks
from lyra.engine.filming import film_paths
from lyra.engine.synthesis import input_cache
from lyra.errors import LyraError
from lyra.files import save_image
from lyra.files.clips import Clip
from lyra.files.photos import Photo, load_photo
from lyra.generate.run_folder import prepare_folder
from lyra.generate.runs import (
    Decisions,
    GenerateOptions,
    Timings,
    choose_depth,
    decide,
    describe_photos,
    describe_run,
    make_film,
)
from lyra.generate.video_pipeline import generate_from_video
from lyra.geometry.gaussians import Gaussians
from lyra.models.model import Model
from lyra.scene.film import write_fly_through
from lyra.scene.scene import Scene
from lyra.student import decode_scene, prepare_student_inputs
from lyra.teacher.first_image import DEFAULT_IMAGE_MODEL, ImageModel, draw_first_image
from lyra.tokenizer.tiling import place_tokenizer
from lyra.viewer.page import write_viewer
from lyra.views.photos_views import InputViews, estimate_views


def generate(model: Model, photo_path: Path | None, out: Path, options: GenerateOptions) -> Scene:
    """Turns a photo, several posed photos, a text or a video into a scene and writes all of its files to ``out``.

    Under ``torchrun`` the processes share the trajectories; all return the scene.

    Args:
        model: From :func:`lyra.load`.
        photo_path: Any image file that Pillow reads, any video that FFmpeg decodes, or a ``transforms.json`` of posed
            photos; None to begin with the prompt.
        out: Folder of the scene; see the README for what it will hold.
        options: Seed, trajectories and so on.

    Raises:
        LyraError: the input, the folder, the model or the machine will not do; nothing half-written is left.
    """
    ranks, timings = join_ranks(), Timings()
    decided = decide(model, photo_path, options, ranks)
    estimator = choose_depth(model, options.depth, decided.placement.device)
    with prepare_folder(out, decided.identity, options.resume) if ranks.first else nullcontext():
        return _run(model, photo_path, out, decided, estimator, options, ranks, timings)


def _run(
    model: Model,
    photo_path: Path | None,
    out: Path,
    decided: Decisions,
    estimator: DepthEstimator,
    options: GenerateOptions,
    ranks: Ranks,
    timings: Timings,
) -> Scene:
    """The run itself, in a folder that is held for it."""
    if decided.video is not None and photo_path is not None:
        return generate_from_video(model, photo_path, out, decided, estimator, options, ranks)
    photos, fov = decided.photos, {}
    if ranks.first:
        if not photos:
            with timings.stage("first image"):
                photos = [make_photo(out / "clips/photo.png", decided, options)]
        with timings.stage("depth"):
            views, fov = estimate_views(estimator, photos, decided.cameras, options.fov)
            views.save(out / "clips/input.safetensors")
    ranks.wait()
    views = InputViews.load(out / "clips/input.safetensors")
    with timings.stage("teacher"):
        film = make_film(model, estimator, decided, options, out / "clips")
        clips = film_paths(film, views, decided.paths, ranks)
    if not ranks.first:
        ranks.wait()
        return Scene.load(out)
    with timings.stage("student"):
        scene = Scene(decode_clips(model, clips, views, decided.placement), clips[0].cameras[:1])
    with timings.stage("files"):
        title = photo_path.stem if photo_path is not None else options.text.prompt[:60]
        write_fly_through(scene, out / "scene.mp4")
        write_viewer(scene.gaussians, out / "index.html", scene.input_camera, title=title)
    provenance = {
        **describe_run(decided, options, timings),
        "input": describe_photos(photo_path, photos),
        "fov": fov,
        "gaussians": len(scene.gaussians),
    }
    scene = Scene(scene.gaussians, scene.input_camera, provenance)
    scene.save(out)
    ranks.wait()
    return scene


def make_photo(path: Path, decided: Decisions, options: GenerateOptions) -> Photo:
    """The first image from the prompt, from disk where an interrupted run has left it."""
    config, device = decided.config, decided.placement.device
    if not path.exists():
        source = options.text.text_to_image
        image_model = DEFAULT_IMAGE_MODEL if source is None else ImageModel(source)
        image = draw_first_image(options.text.prompt, image_model, config.height, config.width, options.seed, device)
        save_image(image, path)
    return load_photo(path, config.height, config.width)


def decode_clips(model: Model, clips: Sequence[Clip], views: InputViews, placement: Placement) -> Gaussians:
    """The student's one pass over all clips.

    Raises:
        LyraError: its values are not finite.
    """
    tokenizer = place_tokenizer(model.tokenizer, placement)
    edges = model.config.teacher.edges
    cache = input_cache(views.images[0], views.depth[0], clips[0].cameras[:1], edges)
    inputs = prepare_student_inputs(clips, tokenizer, model.decoder.config, cache)
    with placement.hosting(model.decoder):
        gaussians = decode_scene(model.decoder, inputs.to(placement.device)).to("cpu")
    if not all(bool(getattr(gaussians, name).isfinite().all()) for name in ("means", "scales", "colors")):
        raise LyraError("the student made values that are not finite: is the model folder damaged?")
    return gaussians
