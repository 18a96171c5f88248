"""Photo to scene: the one place that sees the whole chain.

    photo -> depth -> cache -> teacher, six trajectories -> latents -> student -> Gaussians -> files

Each finished clip is on disk before the next begins, so an interrupted run goes on from there and ends the same.
"""

import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from lyra.cameras import Cameras, intrinsics_from_fov
from lyra.clips import Clip, load_clip, save_clip
from lyra.depth import scene_depth
from lyra.errors import LyraError, MissingExtraError
from lyra.formats import load_tensors, save_cameras, save_tensors, save_video, write_atomically
from lyra.inputs import Photo, load_photo
from lyra.memory import peak_memory_mb
from lyra.model import Model
from lyra.scene import Scene
from lyra.student import decode_scene, prepare_student_inputs
from lyra.synthesis import imagine_clip, input_cache
from lyra.trajectories import TRAJECTORY_NAMES, TrajectoryName, draw_distance, fly_through
from lyra.viewer import write_viewer

DEFAULT_FOV = 55.0
VIDEO_SIZE = 512
"""The fly-through is enlarged by the largest whole factor that keeps its longer side within this many pixels."""
VIDEO_FRAMES = 72
VIDEO_FPS = 24


@dataclass(frozen=True)
class GenerateOptions:
    """What a user decides about a scene."""

    seed: int = 0
    trajectories: tuple[TrajectoryName, ...] = TRAJECTORY_NAMES
    movement: float = 1.0
    """Factor on the paper's camera movements."""
    fov: float | None = None
    """Field of view of the photo's shorter side in degrees; from EXIF, the depth estimator or 55 when None."""
    resume: bool = False
    """Go on with what the output folder holds of the same run."""

    def __post_init__(self) -> None:
        if not self.trajectories:
            raise LyraError(f"no trajectories: name at least one of {', '.join(TRAJECTORY_NAMES)}")
        if len(set(self.trajectories)) != len(self.trajectories):
            raise LyraError("a trajectory is named twice")
        if self.fov is not None and not 5 < self.fov < 150:
            raise LyraError(f"a field of view of {self.fov} degrees is not possible: give 5 to 150")
        # Beyond 2.5 times its range, zoom_in passes the point that it looks at.
        if not 0 < self.movement <= 2.5:
            raise LyraError(f"a movement factor of {self.movement} is not possible: give more than 0, at most 2.5")


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


def generate(model: Model, photo_path: Path, out: Path, options: GenerateOptions) -> Scene:
    """Turns a photo into a scene and writes all of its files to ``out``.

    Args:
        model: From :func:`lyra.load`.
        photo_path: Any image file that Pillow reads.
        out: Folder of the scene; see the README for what it will hold.
        options: Seed, trajectories and so on.

    Raises:
        LyraError: the photo, the folder, the model or the machine will not do; nothing half-written is left.
    """
    teacher, timings = model.config.teacher, Timings()
    require_extras()
    check_memory(model)
    photo = load_photo(photo_path, teacher.height, teacher.width)
    prepare_folder(out, run_identity(model, photo, options), options.resume)
    needed, free = needed_memory_mb(model) / 1024, psutil.virtual_memory().available / 2**30
    print(f"needs about {needed:.1f} GB of memory; {free:.1f} GB are free", file=sys.stderr)

    with timings.stage("depth"):
        intrinsics, fov = estimate_view(model, photo, options.fov, out / "clips/input.safetensors")
    view = load_tensors(out / "clips/input.safetensors")
    clips = []
    for name in tqdm(options.trajectories, desc="teacher", unit="clip"):
        with timings.stage("teacher"):
            clips.append(finish_clip(model, view, intrinsics, name, options, out / "clips" / name))

    with timings.stage("student"):
        camera = clips[0].cameras[:1]
        cache = input_cache(view["image"], view["depth"], camera, teacher.edges)
        inputs = prepare_student_inputs(clips, model.tokenizer, model.decoder.config, cache)
        scene = Scene(decode_scene(model.decoder, inputs), camera)
    if not all(bool(getattr(scene.gaussians, name).isfinite().all()) for name in ("means", "scales", "colors")):
        raise LyraError("the student made values that are not finite: is the model folder damaged?")
    with timings.stage("files"):
        write_fly_through(scene, out / "scene.mp4")
        write_viewer(scene.gaussians, out / "index.html", scene.input_camera, title=photo_path.stem)
    provenance = {
        **run_identity(model, photo, options),
        "input": {"name": photo_path.name, "sha256": photo.sha256, "size": photo.source_size,
                  "crop": photo.crop, "notes": photo.notes},
        "fov": fov,
        "distances": {n: draw_distance(n, options.seed, options.movement) for n in options.trajectories},
        "gaussians": len(scene.gaussians),
        "timings": timings.seconds,
        "peak_memory_mb": peak_memory_mb(),
        "packages": {name: version(name) for name in ("lyra", "torch", "diffusers", "numpy")},
    }  # fmt: skip
    scene = Scene(scene.gaussians, scene.input_camera, provenance)
    scene.save(out)
    return scene


def require_extras() -> None:
    """Says at the start, not after minutes of work, that a package for the output files is missing."""
    for package, name, extra in (("av", "PyAV", "video"), ("viser", "viser", "viewer")):
        try:
            __import__(package)
        except ImportError as error:
            raise MissingExtraError(name, extra, "writing a scene's files") from error


def needed_memory_mb(model: Model) -> int:
    """Memory that a run takes, as measured: weights, activations and libraries."""
    modules = (model.transformer, model.decoder, model.depth)
    weights = sum(p.numel() * p.element_size() for module in modules for p in module.parameters())
    return round(1500 + 2 * weights / 2**20)


def check_memory(model: Model) -> None:
    """Compares what a run needs with what there is.

    Raises:
        LyraError: there is less than needed.
    """
    needed, free = needed_memory_mb(model), psutil.virtual_memory().available // 2**20
    if free < needed:
        raise LyraError(
            f"not enough memory: about {needed} MB needed, {free} MB free; close other programs or use a smaller model"
        )


def run_identity(model: Model, photo: Photo, options: GenerateOptions) -> dict[str, Any]:
    """What decides a run's result; a run is only resumed with the same."""
    content = asdict(options)
    content.pop("resume")
    return {
        "format": 1,
        "model": {
            "name": model.config.name,
            "licence": model.config.licence,
            "checksums": model.config.checksums,
            "teacher": asdict(model.config.teacher),
        },
        "input_sha256": photo.sha256,
        "options": json.loads(json.dumps(content)),
    }


def prepare_folder(out: Path, identity: dict[str, Any], resume: bool) -> None:
    """Claims the output folder for a run.

    Raises:
        LyraError: it is a file, cannot be written to, holds something else, or another run's clips.
    """
    marker = out / "clips/run.json"
    if out.exists() and not out.is_dir():
        raise LyraError(f"{out} is a file: give a folder for the scene")
    for leftover in out.rglob(".*.part"):  # of a process that was killed while it wrote
        leftover.unlink(missing_ok=True)
    if any(path.is_file() for path in out.rglob("*")):
        if not resume:
            raise LyraError(f"{out} is not empty: give another folder, or --resume to go on with the run in it")
        if not marker.is_file():
            raise LyraError(f"{out} holds no run to resume: give another folder")
        if _read_json(marker) != identity:
            raise LyraError(f"{out} holds a run with another input, model, seed or options: give another folder")
        return
    with write_atomically(marker) as path:
        path.write_text(json.dumps(identity, indent=2) + "\n")


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise LyraError(f"{path} is damaged: give another folder") from error


def estimate_view(
    model: Model, photo: Photo, fov: float | None, path: Path
) -> tuple[Float[Tensor, "4"], dict[str, Any]]:
    """Depth and focal length of the input view; image and depth go to ``path``.

    Returns:
        Intrinsics in pixels, and the field of view with the source it came from.
    """
    prediction = model.depth.predict(photo.image)
    choices = (
        ("option", fov),
        ("exif", photo.fov_degrees),
        ("depth estimator", prediction.fov_degrees),
        ("default", DEFAULT_FOV),
    )
    source, degrees = next((source, value) for source, value in choices if value is not None)
    intrinsics = intrinsics_from_fov(degrees, *photo.image.shape[1:])
    save_tensors({"image": photo.image, "depth": scene_depth(prediction), "intrinsics": intrinsics}, path)
    return intrinsics, {"degrees": degrees, "source": source}


def finish_clip(
    model: Model,
    view: dict[str, Tensor],
    intrinsics: Float[Tensor, "4"],
    name: TrajectoryName,
    options: GenerateOptions,
    folder: Path,
) -> Clip:
    """One clip, from disk when it is finished there, else imagined and written.

    ``clip.safetensors`` is written last: where it exists the clip is whole.
    """
    path, teacher = folder / "clip.safetensors", model.config.teacher
    if not path.exists():
        clip = imagine_clip(model, view["image"], view["depth"], intrinsics, name, options.seed, options.movement)
        with torch.no_grad():
            video = model.tokenizer.decode(model.tokenizer.denormalize(clip.latents[None]))[0]
        save_video((video.movedim(1, 0) / 2 + 0.5).clamp(0, 1), folder / "video.mp4", fps=teacher.fps)
        save_cameras(clip.cameras, folder / "cameras.json")
        save_clip(clip, path)
    return load_clip(path)


def write_fly_through(scene: Scene, path: Path, movement: float = 0.3) -> None:
    """A video of a smooth closed path through the scene."""
    camera = scene.input_camera
    factor = max(1, VIDEO_SIZE // max(camera.height, camera.width))
    path_cameras = fly_through(movement, VIDEO_FRAMES, camera.intrinsics[0], camera.height, camera.width)
    cameras: Cameras = path_cameras.resized(camera.height * factor, camera.width * factor)
    with torch.no_grad():
        frames = [
            scene.render(cameras[i : i + 1]).color[0]
            for i in tqdm(range(len(cameras)), desc="fly-through", unit="frame", mininterval=0.5)
        ]
    save_video(torch.stack(frames).clamp(0, 1), path, fps=VIDEO_FPS)
