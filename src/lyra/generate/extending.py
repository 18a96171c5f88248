"""``lyra extend``: a scene goes on where it ends.

    scene -> what it shows along a path -> a clip that fills its holes -> Gaussians -> those that are new, merged

Clip by clip: what one adds, the next sees. Each extension has a folder of its own in the scene's:

    extensions/01/run.json       what decides its result
    extensions/01/before.ply     the scene as it was
    extensions/01/cameras.json   the path in the scene, as ``lyra render`` takes it
    extensions/01/01_NAME/       each clip: video, cameras (in the frame and unit of its first picture), latents
"""

import json
import shutil
import sys
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor

from lyra.device.memory import describe, find_memory, peak_memory_mb, plan
from lyra.engine.engine import Engine
from lyra.engine.paths import CameraPath, fill_clips, name_file, preset_path, split_path
from lyra.engine.shots import Shelf
from lyra.errors import LyraError
from lyra.files import load_cameras, load_ply, save_cameras, write_atomically
from lyra.files.atomic import explain_writing, is_leftover, sha256_file
from lyra.files.poses import is_camera_file
from lyra.files.strict_json import to_json
from lyra.generate.decisions import digest_cameras, licences_of, require_extra
from lyra.generate.options import ExtendOptions
from lyra.generate.pipeline import Timings, choose_depth, write_files
from lyra.generate.run_folder import EXTENSIONS, FolderLock, digest_identity
from lyra.geometry.cameras import Cameras
from lyra.geometry.gaussians import Gaussians, merge
from lyra.geometry.trajectories import TRAJECTORY_NAMES, TrajectoryName, draw_distance
from lyra.models.model import Model
from lyra.models.preflight import needs_of_model
from lyra.scene.scene import PLY, Scene
from lyra.teacher import TeacherConfig
from lyra.teacher.guardrail import choose_guardrail
from lyra.views.outlook import expose, find_unit, look_ahead

LEAST_OPEN = 1e-3
"""Share of a clip's pixels that the scene leaves open, below which there is nothing to imagine."""


def extend(model: Model, folder: Path, cameras: str, options: ExtendOptions) -> Scene:
    """Imagines what a scene does not show along a path, and writes it into the scene's folder.

    Args:
        model: All parts.
        folder: Of a still scene, as ``generate`` writes it. Its PLY, film, page and ``scene.json`` are replaced when
            all is done, ``scene.json`` last.
        cameras: One of the six trajectories, from where the last extension ended, at first from the input view; or a
            file of cameras in the scene, as ``lyra render`` takes it.
        options: Seed and so on.

    Raises:
        LyraError: the folder, the path, the model or the machine will not do; the scene is then as it was.
    """
    require_extra("av", "PyAV")
    model.require("vae", "decoder", "transformer", "scheduler", "text")
    scene = _load_still(folder)
    config = _fit_teacher(model, scene.input_camera)
    needs, memory = needs_of_model(model, 1, config=config), find_memory(options.device.device, held=True)
    placement = plan(needs, memory, options.device, 1)
    print(describe(needs, placement, memory), file=sys.stderr)
    guardrail = choose_guardrail(licences_of(model), options.guardrail, placement.device)
    depth = choose_depth(model, options.depth, placement.device)
    engine = Engine(model, placement=placement, config=config, depth=depth, guardrail=guardrail)
    with FolderLock(folder) as lock:
        lock.take()
        scene, extension = _begin(engine, _load_still(folder), folder, cameras, options)
        with engine:
            return _grow(engine, scene, extension, folder)


def _load_still(folder: Path) -> Scene:
    if not folder.is_dir():
        raise LyraError(f"{folder} is no scene's folder: give one that generate wrote")
    scene = Scene.load(folder)
    if scene.dynamic is not None:
        raise LyraError(f"{folder} moves: extend a still scene, such as one moment of it (lyra cut --times 0 0)")
    return scene


def _fit_teacher(model: Model, camera: Cameras) -> TeacherConfig:
    """The sampling at the scene's size.

    Raises:
        LyraError: the model does not work at it.
    """
    config, sizes = model.config.teacher, model.config.sizes
    height, width = camera.height, camera.width
    if sizes is not None and not (height % sizes.multiple or width % sizes.multiple):
        sizes.check(max(height, width))
        return config.at_size(height, width)
    if (height, width) != (config.height, config.width):
        raise LyraError(f"the scene is of {width}x{height} pixels, at which model {model.config.name!r} does not work")
    return config


@dataclass(frozen=True)
class Extension:
    """One extension as it is made."""

    number: int
    folder: Path
    path: CameraPath
    """In the scene, as long as whole clips."""
    identity: dict[str, Any]
    timings: Timings = field(default_factory=Timings)

    @property
    def shots(self) -> dict[str, Cameras]:
        """Its clips by name, in order; the name is also that of the noise."""
        frames = self.identity["model"]["teacher"]["frames"]
        named = replace(self.path, name=f"{self.number:02d}_{self.path.name}")
        return split_path(named, self.path.cameras.intrinsics[0], frames)


def _begin(engine: Engine, scene: Scene, folder: Path, cameras: str, options: ExtendOptions) -> tuple[Scene, Extension]:
    """The scene as it was before, and the extension, whose folder is there then."""
    earlier = scene.provenance.get(EXTENSIONS, [])
    number = len(earlier) + 1
    own = folder / EXTENSIONS / f"{number:02d}"
    begun = (own / "run.json").is_file()
    if begun and not options.resume:
        raise LyraError(f"{own} is an unfinished extension: go on with --resume, or remove that folder")
    if options.resume and not begun:
        raise LyraError(f"{folder} has no unfinished extension: leave out --resume")
    before = own / "before.ply"
    source = before if begun else folder / PLY
    scene = replace(scene, gaussians=load_ply(source))
    base = torch.tensor(earlier[-1]["path"][-1]) if earlier else scene.input_camera.camera_to_world[0]
    path = choose_path(cameras, scene, base, engine.config, options.seed)
    model = engine.model.config
    identity = {
        "format": 1,
        "model": {
            "name": model.name,
            "licence": model.licence,
            "checksums": model.checksums,
            "teacher": asdict(engine.config),
        },
        "before_sha256": sha256_file(source),
        "cameras": path.name,
        "cameras_sha256": digest_cameras(path.cameras),
        "seed": options.seed,
        "depth": options.depth,
    }
    identity = json.loads(to_json(identity))
    if not begun:
        look_ahead(scene.gaussians, path.cameras[:1], scene.input_camera)  # says what will not do
        shutil.rmtree(own, ignore_errors=True)
        with explain_writing(own):
            own.mkdir(parents=True)
        with write_atomically(before) as temporary:
            shutil.copyfile(folder / PLY, temporary)
        save_cameras(path.cameras, own / "cameras.json")
        with write_atomically(own / "run.json") as temporary:
            temporary.write_text(to_json(identity, indent=2) + "\n")
    elif json.loads((own / "run.json").read_text()) != identity:
        raise LyraError(f"{own} was begun with another path, model or seed: give those, or remove that folder")
    for leftover in [file for file in own.rglob("*") if is_leftover(file)]:
        leftover.unlink(missing_ok=True)
    return scene, Extension(number, own, path, identity)


def choose_path(cameras: str, scene: Scene, base: Float[Tensor, "4 4"], config: TeacherConfig, seed: int) -> CameraPath:
    """A path in the scene, through its lens.

    Args:
        cameras: A preset, then ``base`` is where it begins and what it moves around is as far as that view's median
            depth; or a file of cameras in the scene.
        scene: Still.
        base: A camera to world.
        config: Of the teacher.
        seed: Of a preset's distance.

    Raises:
        LyraError: neither a preset nor a file, or a damaged file.
    """
    view = scene.input_camera
    if cameras in TRAJECTORY_NAMES:
        name = cast(TrajectoryName, cameras)
        preset = preset_path(name, draw_distance(name, seed), config.frames, view.height, view.width).cameras
        poses = preset.camera_to_world.clone()
        poses[:, :3, 3] *= find_unit(expose(scene.gaussians, replace(view, camera_to_world=base[None])))
        path = CameraPath(name, replace(preset, camera_to_world=base @ poses))
    elif is_camera_file(Path(cameras)):
        placed = load_cameras(Path(cameras), view.height, view.width)
        if len(placed) < 2:
            raise LyraError(f"{cameras} holds one camera: a path needs at least 2")
        path = CameraPath(name_file(Path(cameras)), fill_clips(placed, config.frames))
    else:
        raise LyraError(
            f"unknown path {cameras!r}: give {', '.join(TRAJECTORY_NAMES)}, or a file of cameras (.json .npz .txt "
            ".bin, or COLMAP's folder)"
        )
    return replace(path, cameras=path.through(view.intrinsics[0]))


def _grow(engine: Engine, scene: Scene, extension: Extension, folder: Path) -> Scene:
    """The extension itself, in a folder that is held for it."""
    shelf = Shelf(extension.folder, engine.config.fps, digest_identity(extension.identity))
    gaussians, clips = scene.gaussians, []
    for name, cameras in extension.shots.items():
        gaussians, told = grow(engine, gaussians, name, cameras, scene.input_camera, extension, shelf)
        clips.append(told)
    added = len(gaussians) - len(scene.gaussians)
    if not added:
        shutil.rmtree(extension.folder)
        raise LyraError("the scene already shows all that this path sees: nothing is added, give a path that goes on")
    before = scene.provenance.get(EXTENSIONS, [])
    scene = replace(scene, gaussians=gaussians)
    source = scene.provenance.get("input", {}).get("name")
    with extension.timings.stage("files"):
        write_files(scene, folder, Path(source or folder.name).stem)
    scene = scene.told(
        {
            **scene.provenance,
            "gaussians": len(gaussians),
            EXTENSIONS: [*before, _describe(extension, clips)],
        }
    )
    scene.save(folder)
    return scene


def grow(
    engine: Engine,
    gaussians: Gaussians,
    name: str,
    cameras: Cameras,
    kept: Cameras,
    extension: Extension,
    shelf: Shelf,
) -> tuple[Gaussians, dict[str, Any]]:
    """A scene with what one clip adds to it, and what ``scene.json`` says of that."""
    with extension.timings.stage("look"):
        outlook = look_ahead(gaussians, cameras, kept)
    told: dict[str, Any] = {"name": name, "open": round(outlook.openness, 4), "added": 0}
    if outlook.openness < LEAST_OPEN:
        return gaussians, told
    with extension.timings.stage("teacher"):
        chunks = engine.imagine(outlook, [CameraPath(name, outlook.path.cameras)], extension.identity["seed"], shelf)
    with extension.timings.stage("student"):
        new = engine.decode(chunks, outlook)
        assert isinstance(new, Gaussians)
        new = new.select(outlook.find_new(new))
    return merge([gaussians, outlook.place(new)]), {**told, "added": len(new)}


def _describe(extension: Extension, clips: list[dict[str, Any]]) -> dict[str, Any]:
    """What ``scene.json`` says of an extension."""
    ends = [cameras.camera_to_world[-1].tolist() for cameras in extension.shots.values()]
    return {
        **extension.identity,
        "folder": f"{EXTENSIONS}/{extension.folder.name}",
        "clips": clips,
        # Where it began, and where each clip ended: the last is where the next one goes on.
        "path": [extension.path.cameras.camera_to_world[0].tolist(), *ends],
        "timings": extension.timings.seconds,
        "peak_memory_mb": peak_memory_mb(),
        "packages": {package: version(package) for package in ("lyra", "torch", "diffusers", "numpy")},
    }
