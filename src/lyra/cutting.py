"""A part of a scene as a scene of its own."""

from pathlib import Path

from lyra.errors import LyraError
from lyra.formats.dynamic_splats import save_4dgs
from lyra.scene import Scene
from lyra.viewer import write_viewer


def cut_scene(
    source: Path,
    out: Path,
    times: tuple[float, float] | None = None,
    box: tuple[float, float, float, float, float, float] | None = None,
) -> Scene:
    """Writes what is left of a scene to a new folder, with its page.

    Args:
        source: A scene folder or a PLY file.
        out: New folder.
        times: Of a dynamic scene: first and last time that are kept; twice the same gives the still scene of that
            time.
        box: Lowest x, y, z and highest x, y, z that are kept, scene units.

    Raises:
        LyraError: the scene, the folder, the times or the box will not do, or nothing would be left.
    """
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise LyraError(f"{out} is not empty: give another folder")
    scene = Scene.load(source)
    if times is not None:
        scene = scene.at(times[0]) if times[0] == times[1] else scene.between(*times)
    if box is not None:
        scene = scene.crop(box[:3], box[3:])
    if not len(scene.gaussians):
        raise LyraError("nothing of the scene is in the box: it is in scene units, x right, y down, z forward")
    write_viewer(scene.dynamic or scene.gaussians, out / "index.html", scene.input_camera, title=source.stem)
    if scene.dynamic is not None:
        save_4dgs(scene.dynamic, out / "scene.4dgs", scene.input_camera)
    scene.save(out)
    return scene
