"""``lyra export``: a scene in the formats of other programs."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from lyra.errors import LyraError
from lyra.simulation.survey import ScaleOptions

Out = Annotated[
    Path, arg(aliases=["-o"], help="The file; its suffix says the format. A folder for mjcf, colmap and nerfstudio.")
]
What = Literal["splats", "mesh", "physics", "mjcf", "colmap", "nerfstudio"]
_NO_SCALE = ScaleOptions()


def export(
    scene: Positional[Path],
    /,
    out: Out,
    *,
    what: What = "splats",
    format: str | None = None,
    time: float | None = None,
    scale: Annotated[ScaleOptions, arg(name="")] = _NO_SCALE,
    triangles: int = 60_000,
    views: int = 8,
    sh_rest: Literal["none", "zeros"] = "none",
) -> None:
    """Writes a scene for another program.

    Args:
        scene: A scene folder or a file of splats.
        out: The file; its suffix says the format. A folder for mjcf, colmap and nerfstudio.
        what: "splats" (.ply .compressed.ply .splat .ksplat .spz .sog .glb .gltf .usdz .usda), their "mesh" (.glb .obj
            .ply), USD with splats and "physics" (.usdz .usda), a MuJoCo model, "mjcf", or rendered pictures with their
            cameras and points, as "colmap" or "nerfstudio" takes them.
        format: The format of splats where the suffix does not say it, as in "spz".
        time: Of a dynamic scene: which moment's splats, in [0, 1].
        scale: Where metres come from; once given, scene.json keeps them.
        triangles: Of a mesh, at most.
        views: Of colmap and nerfstudio: pictures along each of the six trajectories.
        sh_rest: "zeros" writes a plain PLY with 45 zero columns f_rest, for importers that ask for them.
    """
    from lyra.scene.scene import Scene

    loaded = Scene.load(scene)
    if loaded.dynamic is not None and time is None and what not in ("mesh", "mjcf"):
        raise LyraError(f"{scene} moves: say which moment, --time 0 to 1")
    if what == "splats":
        _export_splats(loaded, scene, out, format, time or 0.0, scale, sh_rest == "zeros")
    elif what in ("colmap", "nerfstudio"):
        _export_pictures(loaded.at(time or 0.0), scene, out, what, scale, views)
    else:
        _export_solid(loaded, scene, out, what, time or 0.0, scale, triangles)


def _export_splats(loaded, scene: Path, out: Path, format: str | None, time: float, scale: ScaleOptions, zeros: bool):
    from lyra.export.splat_files import Written, find_format, save_splats
    from lyra.simulation.delivery import deliver_splats, look_around, measure
    from lyra.simulation.survey import KEY

    kind = find_format(Path(f"scene.{format}") if format else out)
    if zeros and kind != "ply":
        raise LyraError(f"--sh-rest is for a plain PLY, not for .{kind}")
    gaussians = loaded.at(time).gaussians
    if not len(gaussians):
        raise LyraError(f"{scene} holds no Gaussians at that time: choose another --time")
    if scale.given() or KEY in loaded.provenance:
        shots = look_around(loaded)
        found = measure(loaded, shots, scale)
        deliver_splats(gaussians, found, out, kind, Written(zeros))
        _tell(scene, found, scale)
    else:
        save_splats(gaussians, out, kind, Written(zeros))
    print(f"{len(gaussians)} Gaussians in {out} ({out.stat().st_size / 1e6:.2f} MB)", file=sys.stderr)


def _export_pictures(still, scene: Path, out: Path, what, scale: ScaleOptions, views: int) -> None:
    from lyra.simulation.delivery import deliver_pictures, look_around, measure
    from lyra.simulation.survey import KEY

    found = None
    if scale.given() or KEY in still.provenance:
        found = measure(still, look_around(still), scale)
    pictures, points = deliver_pictures(still, found, out, what, views)
    if found is not None:
        _tell(scene, found, scale)
    print(f"{pictures} pictures and {points} points in {out}", file=sys.stderr)


def _export_solid(loaded, scene: Path, out: Path, what: What, time: float, scale: ScaleOptions, triangles: int) -> None:
    from lyra.export.splat_files import find_format
    from lyra.simulation.delivery import deliver_mesh, deliver_mjcf, deliver_physics, look_around, measure
    from lyra.simulation.mesh import MeshOptions

    kind = find_format(out) if what == "physics" else ""
    if what == "physics" and not kind.startswith("usd"):
        raise LyraError(f"{out}: splats with physics are USD, end it with .usdz or .usda")
    shots = look_around(loaded)
    found = measure(loaded, shots, scale)
    if what == "mesh":
        mesh = deliver_mesh(shots, found, out, MeshOptions(triangles=triangles))
        print(f"{len(mesh.faces)} triangles in {out}", file=sys.stderr)
    elif what == "physics":
        deliver_physics(loaded.at(time).gaussians, shots, found, out, kind)
    else:
        print(f"{deliver_mjcf(shots, found, out)} convex parts in {out / 'scene.xml'}", file=sys.stderr)
    _tell(scene, found, scale)


def _tell(scene: Path, found, scale: ScaleOptions) -> None:
    from lyra.simulation.survey import record

    ground = "no ground in sight" if found.ground is None else f"ground by {100 * found.ground.confidence:.0f} %"
    text = f"1 scene unit is {found.metres_per_unit:.3g} m within {100 * found.uncertainty:.0f} % ({found.source})"
    print(f"note: {text}; {ground}", file=sys.stderr)
    if scale.given() and (Path(scene) / "scene.json").is_file():
        record(scene, found)
