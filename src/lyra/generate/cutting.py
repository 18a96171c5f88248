"""A part of a scene as a scene of its own."""

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from lyra.errors import LyraError, MissingExtraError
from lyra.files.atomic import explain_writing
from lyra.files.moving_splats import save_4dgs
from lyra.scene.scene import PROVENANCE, Scene
from lyra.viewer.page import write_viewer


def cut_scene(
    source: Path,
    out: Path,
    times: tuple[float, float] | None = None,
    box: tuple[float, float, float, float, float, float] | None = None,
) -> Scene:
    """Writes what is left of a scene to a new folder, with its page; nothing stays there if that fails.

    Args:
        source: A scene folder or a PLY file.
        out: New or empty folder.
        times: Of a dynamic scene: first and last time that are kept; twice the same gives the still scene of that
            time.
        box: Lowest x, y, z and highest x, y, z that are kept, scene units.

    Raises:
        LyraError: the scene, the folder, the times or the box will not do, or nothing would be left.
        MissingExtraError: a dynamic scene is left, and fourdgs is not installed.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise LyraError(f"{out} is not empty: give another folder")
    scene = Scene.load(source)
    if times is not None:
        scene = scene.at(times[0]) if times[0] == times[1] else scene.between(*times)
    if box is not None:
        scene = scene.crop(box[:3], box[3:])
    # Something may enter the box only after the first moment.
    parts = [scene.gaussians] if scene.dynamic is None else [scene.dynamic.static, *scene.dynamic.moments]
    if not any(map(len, parts)):
        raise LyraError("nothing of the scene is in the box: it is in scene units, x right, y down, z forward")
    if scene.dynamic is not None:
        _require_4dgs()
    scene = replace(scene, provenance=_describe(scene))
    with whole_folder(out) as folder:
        write_viewer(scene.dynamic or scene.gaussians, folder / "index.html", scene.input_camera, title=source.stem)
        if scene.dynamic is not None:
            save_4dgs(scene.dynamic, folder / "scene.4dgs", scene.input_camera)
        scene.save(folder)
    return scene


def _require_4dgs() -> None:
    """Says before anything is written that a package is missing."""
    try:
        __import__("fourdgs")
    except ImportError:
        raise MissingExtraError("fourdgs", "video", "a .4dgs file") from None


def _describe(scene: Scene) -> dict[str, Any]:
    """The whole scene's provenance, with the part's own Gaussians and, of a video, its own seconds and frames."""
    provenance, dynamic = dict(scene.provenance), scene.dynamic
    if dynamic is None:
        provenance["gaussians"] = len(scene.gaussians)
    else:
        provenance["gaussians"] = {"static": len(dynamic.static), "moments": [len(part) for part in dynamic.moments]}
    if "seconds" in provenance.get("input", {}):
        seconds, frames = (0.0, 1) if dynamic is None else (dynamic.seconds, len(dynamic))
        provenance["input"] = {**provenance["input"], "seconds": seconds, "frames": frames}
    return provenance


@contextmanager
def whole_folder(out: Path) -> Iterator[Path]:
    """Yields a hidden folder that takes the name ``out`` when the block ends without an error, and goes otherwise."""
    # An empty folder that is there already may be where a disk is mounted: it is filled, not replaced.
    filled = out.is_dir()
    name = f".{out.name[:40]}.{secrets.token_hex(6)}.part"
    hidden = out / name if filled else out.with_name(name)
    try:
        with explain_writing(out):
            hidden.mkdir(parents=True)
            yield hidden
            # Last what makes it a scene.
            files = sorted(hidden.iterdir(), key=lambda path: path.name == PROVENANCE)
            for path in files if filled else []:
                os.replace(path, out / path.name)
            if not filled:
                os.replace(hidden, out)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)
