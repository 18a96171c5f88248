"""Small splat files (compressed PLY, .splat, .ksplat, .spz, .sog), by gaussforge and gsply.

What each keeps is in ``docs/formats.md``. A ``.spz`` file has y up and z backward by its own definition: Gaussians are
turned on their way. The others have the axes of the PLY that they are made of.
"""

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, get_args

import torch

from lyra.errors import LyraError, MissingExtraError
from lyra.files.atomic import explain_reading, write_atomically
from lyra.files.splats import encode_ply, read_ply
from lyra.geometry.gaussians import Gaussians, transform

Packed = Literal["compressed.ply", "splat", "ksplat", "spz", "sog"]
PACKED: tuple[Packed, ...] = get_args(Packed)
HALF_TURN = torch.diag(torch.tensor([1.0, -1.0, -1.0]))
"""Around x: from y down and z forward to y up and z backward, and back."""


def save_packed(gaussians: Gaussians, path: Path, kind: Packed) -> None:
    """Writes an unbatched set; see ``docs/formats.md`` for what the format keeps.

    Raises:
        LyraError: The file cannot be written.
        MissingExtraError: gaussforge is not installed.
        ValueError: The set is batched or holds NaN or infinity.
    """
    if kind == "spz":
        gaussians = _turned(gaussians)
    header, table = encode_ply(gaussians)
    content = header + table.tobytes()
    # gaussforge 0.6 writes a compressed PLY's harmonics in an order that no reader expects, itself among them.
    content = _compress(content) if kind == "compressed.ply" else _convert(content, "ply", kind, path)
    with write_atomically(path) as temporary:
        temporary.write_bytes(content)


def load_packed(path: Path, kind: Packed) -> Gaussians:
    """Reads a file as :func:`lyra.files.load_ply` reads a PLY.

    Raises:
        LyraError: The file is missing or damaged.
        MissingExtraError: gaussforge is not installed.
    """
    with explain_reading(path):
        content = Path(path).read_bytes()
    gaussians = read_ply(path, io.BytesIO(_convert(content, kind, "ply", path)))
    return _turned(gaussians) if kind == "spz" else gaussians


def _compress(content: bytes) -> bytes:
    try:
        import gsply
    except ImportError:
        raise MissingExtraError("gsply", "export", "a compressed PLY") from None
    with tempfile.TemporaryDirectory() as folder:
        plain, small = Path(folder) / "plain.ply", Path(folder) / "small.compressed.ply"
        plain.write_bytes(content)
        gsply.plywrite(small, gsply.plyread(plain), compressed=True)
        return small.read_bytes()


def _turned(gaussians: Gaussians) -> Gaussians:
    return transform(gaussians, HALF_TURN.to(gaussians.means), gaussians.means.new_zeros(3))


def _convert(content: bytes, source: str, target: str, path: Path) -> bytes:
    try:
        from gaussforge import GaussForge
    except ImportError:
        raise MissingExtraError("gaussforge", "export", f"a .{target if source == 'ply' else source} file") from None
    with _quiet():
        result = GaussForge().convert(content, source, target)
    if result.get("error") or "data" not in result:
        raise LyraError(f"{path} is damaged or no .{source} file ({result.get('error')}): make or download it again")
    return bytes(result["data"])


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps what the library's C++ prints off stdout, where JSON may be expected."""
    sys.stdout.flush()
    kept = os.dup(1)
    nothing = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nothing, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(nothing)
        os.close(kept)
