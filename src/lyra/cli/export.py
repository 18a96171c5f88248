"""``lyra export``: a scene in the formats of other programs."""

import sys
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from lyra.errors import LyraError

Out = Annotated[Path, arg(aliases=["-o"], help="The file; its suffix says the format.")]


def export(
    scene: Positional[Path],
    /,
    out: Out,
    *,
    format: str | None = None,
    time: float | None = None,
    sh_rest: Literal["none", "zeros"] = "none",
) -> None:
    """Writes a scene for another program: .ply .compressed.ply .splat .ksplat .spz .sog .glb .gltf .usdz .usda.

    Args:
        scene: A scene folder or a file of splats.
        out: The file; its suffix says the format.
        format: The format where the suffix does not say it, as in "spz".
        time: Of a dynamic scene: which moment, in [0, 1].
        sh_rest: "zeros" writes a plain PLY with 45 zero columns f_rest, for importers that ask for them.
    """
    from lyra.export.splat_files import SPLAT_FORMATS, Written, find_format, save_splats
    from lyra.scene.scene import Scene

    kind = find_format(Path(f"scene.{format}") if format else out)
    if sh_rest == "zeros" and kind != "ply":
        raise LyraError(f"--sh-rest is for a plain PLY, not for .{kind}")
    loaded = Scene.load(scene)
    if loaded.dynamic is not None and time is None:
        raise LyraError(f"{scene} moves: say which moment, --time 0 to 1")
    still = loaded.at(time or 0.0)
    if not len(still.gaussians):
        raise LyraError(f"{scene} holds no Gaussians at that time: choose another --time")
    assert kind in SPLAT_FORMATS
    save_splats(still.gaussians, out, kind, Written(zeros=sh_rest == "zeros"))
    print(f"{len(still.gaussians)} Gaussians in {out} ({out.stat().st_size / 1e6:.2f} MB)", file=sys.stderr)
