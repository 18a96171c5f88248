"""Splat files by the suffix of their name: what ``lyra export`` writes and every command reads."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from lyra.errors import LyraError
from lyra.export.gltf import load_gltf, save_gltf
from lyra.export.packed import PACKED, Packed, load_packed, save_packed
from lyra.export.usd import load_usd, save_usd
from lyra.files.atomic import explain_reading
from lyra.files.splats import is_packed, load_ply, save_ply
from lyra.geometry.gaussians import Gaussians

SplatFormat = Literal["ply", "compressed.ply", "splat", "ksplat", "spz", "sog", "glb", "gltf", "usdz", "usda", "usdc"]
SPLAT_FORMATS: tuple[SplatFormat, ...] = get_args(SplatFormat)
UPRIGHT: frozenset[str] = frozenset({"glb", "gltf", "usdz", "usda", "usdc"})
"""Formats that say which axis is up; the others are in the scene's own axes (x right, y down, z forward)."""


@dataclass(frozen=True)
class Written:
    """How a file is written."""

    zeros: bool = False
    """Of a plain PLY: 45 zero columns ``f_rest`` for importers that ask for them."""


def find_format(path: Path) -> SplatFormat:
    """The format that a file's name ends with.

    Raises:
        LyraError: with none that is known.
    """
    name = Path(path).name.lower()
    # The longest suffix first: .compressed.ply is no plain PLY.
    for kind in sorted(SPLAT_FORMATS, key=len, reverse=True):
        if name.endswith(f".{kind}"):
            return kind
    raise LyraError(f"{path} names no format of splats: end it with one of .{' .'.join(SPLAT_FORMATS)}")


def save_splats(
    gaussians: Gaussians, path: Path, kind: SplatFormat | None = None, written: Written | None = None
) -> None:
    """Writes an unbatched set in the format of the name's suffix, or in ``kind``.

    Raises:
        LyraError: The suffix is unknown or the file cannot be written.
        MissingExtraError: The format's library is not installed.
        ValueError: The set is batched or holds NaN or infinity.
    """
    kind = kind or find_format(path)
    match kind:
        case "ply":
            save_ply(gaussians, path, zeros=bool(written and written.zeros))
        case "glb" | "gltf":
            save_gltf(gaussians, path, binary=kind == "glb")
        case "usdz" | "usda" | "usdc":
            save_usd(gaussians, path, kind)
        case _:
            save_packed(gaussians, path, kind)


def load_splats(path: Path) -> Gaussians:
    """Reads a file of splats in any of ``SPLAT_FORMATS``, by its suffix; a PLY is looked into, and so is a file
    without one.

    Raises:
        LyraError: The file is missing or damaged, holds no splats, or is of an unknown format.
        MissingExtraError: The format's library is not installed.
    """
    path = Path(path)
    with explain_reading(path), path.open("rb") as file:
        start = file.read(1 << 16)
    if start.startswith(b"ply"):
        return load_packed(path, "compressed.ply") if is_packed(start) else load_ply(path)
    if path.suffix.lower() in ("", ".ply", ".part"):
        return load_ply(path)  # which says what is wrong with it
    kind = find_format(path)
    if kind in PACKED:
        return load_packed(path, _packed(kind))
    return load_gltf(path) if kind in ("glb", "gltf") else load_usd(path)


def _packed(kind: str) -> Packed:
    return next(known for known in PACKED if known == kind)
