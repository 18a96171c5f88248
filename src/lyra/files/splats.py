"""Standard 3D Gaussian splatting PLY files, which every splat viewer shows."""

import re
import warnings
from dataclasses import dataclass
from io import BufferedIOBase
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from lyra.errors import LyraError, LyraWarning
from lyra.files.atomic import explain_reading, write_atomically
from lyra.geometry.gaussians import Gaussians

SH_DEGREE_0 = 0.28209479177387814
"""Value of the constant spherical harmonic, 1 / (2 sqrt(pi))."""
COLUMNS = (
    *("x", "y", "z", "f_dc_0", "f_dc_1", "f_dc_2", "opacity"),
    *("scale_0", "scale_1", "scale_2", "rot_0", "rot_1", "rot_2", "rot_3"),
)
_OPACITY_MARGIN = 1e-6
_SCALE_MARGIN = 1e-8
_MOST_UNFIT = 0.05
"""Share of Gaussians with NaN or infinity that are left out with a note; more is a damaged file."""
_FLAT = 1e-3
"""Third scale of a flat splat, as a share of its smaller one."""
_LARGEST_HEADER = 1 << 16
_ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">", "ascii": "="}
_TYPES = {
    **{"char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2"},
    **{"ushort": "u2", "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4"},
    **{"float": "f4", "float32": "f4", "double": "f8", "float64": "f8"},
}


def save_ply(gaussians: Gaussians, path: Path, zeros: bool = False) -> None:
    """Writes an unbatched set as binary little-endian float32 PLY without normals.

    Colors are stored as ``(rgb - 0.5) / SH_DEGREE_0``, opacities as logits of [1e-6, 1 - 1e-6], scales as
    ``ln(s + 1e-8)``, rotations as w x y z, harmonics where there are any as ``f_rest``. The same Gaussians give the
    same bytes.

    Args:
        gaussians: What to write.
        path: The file.
        zeros: Write 45 columns ``f_rest`` also where there are no harmonics, for importers that ask for them.

    Raises:
        LyraError: The file cannot be written.
        ValueError: The set is batched or holds NaN or infinity.

    Source: ``save_ply_orig(compatible=True)`` of Lyra.
    """
    header, table = encode_ply(gaussians, zeros)
    with write_atomically(path) as temporary, temporary.open("wb") as file:
        file.write(header)
        file.write(table.data)


def encode_ply(gaussians: Gaussians, zeros: bool = False) -> tuple[bytes, np.ndarray]:
    """The header and the rows of :func:`save_ply`."""
    if gaussians.means.ndim != 2:
        raise ValueError(f"a PLY holds one set of Gaussians, not means of shape {tuple(gaussians.means.shape)}")
    # In float64, whose rounding to float32 does not depend on how the work was split between threads.
    fields = {name: tensor.detach().to("cpu", torch.float64).numpy() for name, tensor in gaussians.tensors().items()}
    opacities = np.clip(fields["opacities"], _OPACITY_MARGIN, 1 - _OPACITY_MARGIN)[:, None]
    rest = np.zeros((len(gaussians), 45 if zeros else 0))
    if gaussians.harmonics is not None:  # all of red, then all of green, then all of blue
        rest = fields["harmonics"].transpose(0, 2, 1).reshape(len(gaussians), -1)
    columns = [
        fields["means"],
        (fields["colors"] - 0.5) / SH_DEGREE_0,
        rest,
        np.log(opacities) - np.log1p(-opacities),
        np.log(np.maximum(fields["scales"], 0) + _SCALE_MARGIN),
        fields["quaternions"],
    ]
    table = np.concatenate(columns, axis=1).astype("<f4")
    if not np.isfinite(table).all():
        raise ValueError("Gaussians to be saved hold NaN or infinity")
    names = [*COLUMNS[:6], *(f"f_rest_{i}" for i in range(rest.shape[1])), *COLUMNS[6:]]
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(table)}"]
    header += [*(f"property float {name}" for name in names), "end_header\n"]
    return "\n".join(header).encode("ascii"), table


def load_ply(path: Path) -> Gaussians:
    """Reads a 3DGS PLY of any column order, binary or ASCII, in float32; of two scales (2DGS) the third is next to
    nothing.

    Normals and unknown columns are skipped, rotations normalised. Colors are clamped to [0, 1] where there are no
    harmonics. Rows of zeros, and a few with NaN or infinity, are left out with a warning that counts them.

    Raises:
        LyraError: The file is missing, no 3DGS PLY, truncated, or no Gaussian of it is whole.
    """
    path = Path(path)
    with explain_reading(path), path.open("rb") as file:
        return read_ply(path, file)


def read_ply(path: Path, file: BufferedIOBase) -> Gaussians:
    """Reads an open 3DGS PLY as :func:`load_ply` does; ``path`` is for messages."""
    header = _read_header(path, file.read(_LARGEST_HEADER))
    file.seek(0, 2)
    size = file.tell() - header.length
    file.seek(header.length)
    if header.ascii:
        rows = _read_lines(path, header, file)
    else:
        # Compared before reading: a damaged count must not ask for all memory.
        _require_count(path, size // header.row.itemsize, header.count)
        rows = np.frombuffer(file.read(header.count * header.row.itemsize), dtype=header.row)
    wanted = [name for name in header.names if name in COLUMNS or name.startswith("f_rest_")]
    # What a program has made room for and never written.
    void = np.all([rows[name] == 0 for name in header.names if name in COLUMNS], axis=0)
    if void.all():
        raise LyraError(f"{path} holds nothing but zeros: make or download it again")
    if void.any():
        warnings.warn(f"{path}: {void.sum()} rows of zeros were left out", LyraWarning, stacklevel=3)
        rows = rows[~void]
    gaussians, unfit = _activate(path, {name: rows[name].astype(np.float64) for name in wanted})
    if unfit:
        warnings.warn(f"{path}: {unfit} Gaussians with NaN or infinity were left out", LyraWarning, stacklevel=3)
    return gaussians


def _require_count(path: Path, there: int, count: int) -> None:
    if there < count:
        raise LyraError(f"{path} is truncated: {there} of {count} Gaussians are there, make or download it again")


def _read_lines(path: Path, header: "_Header", file: BufferedIOBase) -> np.ndarray:
    """Rows of an ASCII PLY, in float64."""
    try:
        table = np.loadtxt(islice(file, header.count), dtype=np.float64, ndmin=2, encoding="latin-1")
    except ValueError as error:
        raise LyraError(f"{path} has rows that are no numbers ({error}): make or download it again") from None
    _require_count(path, len(table), header.count)
    if table.shape[1] != len(header.names):
        raise LyraError(f"{path} has rows of {table.shape[1]} numbers for {len(header.names)} columns: make it again")
    return np.rec.fromarrays(table.T, dtype=[(name, np.float64) for name in header.names])


def read_elements(path: Path) -> dict[str, np.ndarray]:
    """The numbers of what stands behind the Gaussians of a PLY, by element, flattened; lists end the reading.

    Raises:
        LyraError: as :func:`load_ply`.
    """
    with explain_reading(path), path.open("rb") as file:
        start = file.read(_LARGEST_HEADER)
        # Other formats, and PLYs of another kind, have none that are known.
        if not start.startswith(b"ply") or is_packed(start) or b"format ascii" in start[:64]:
            return {}
        header = _read_header(path, start)
        file.seek(header.length + header.count * header.row.itemsize)
        data = file.read(_LARGEST_HEADER)
    found, at = {}, 0
    for name, count, kinds in _later_elements(start[: header.length].decode("latin-1"), header.row):
        row = np.dtype([(f"_{i}", kind) for i, kind in enumerate(kinds)])
        values = np.frombuffer(data[at : at + count * row.itemsize], dtype=row)
        if len(values) < count:
            break
        at += count * row.itemsize
        found[name] = np.array([list(value) for value in values.tolist()], dtype=np.float64).ravel()
    return found


def _later_elements(header: str, first: np.dtype) -> list[tuple[str, int, list[str]]]:
    """Name, count and types of the elements after the first, up to one that holds lists or is large."""
    order = ">" if first[0].byteorder == ">" else "<"
    elements: list[tuple[str, int, list[str]]] = []
    for line in map(str.split, header.splitlines()):
        if line[:1] == ["element"]:
            elements.append((line[1], int(line[2]) if line[2].isdecimal() else 0, []))
        elif line[:1] == ["property"] and elements:
            kind = _TYPES.get(line[1]) if len(line) == 3 else None
            elements[-1][2].append("?" if kind is None else order + kind)
    later = []
    for name, count, kinds in elements[1:]:
        if "?" in kinds or not kinds or not 0 < count <= 4096:
            break
        later.append((name, count, kinds))
    return later


@dataclass(frozen=True)
class _Header:
    length: int
    """Bytes before the first row."""
    count: int
    row: np.dtype
    ascii: bool

    @property
    def names(self) -> tuple[str, ...]:
        return self.row.names or ()


def _read_header(path: Path, start: bytes) -> _Header:
    """Understands the part of the PLY grammar that splat files use: scalar rows of one leading element."""
    if not re.match(rb"ply\r?\n", start):
        raise LyraError(f"{path} is no PLY file: give a scene.ply or another 3DGS PLY")
    end = re.search(rb"\nend_header\r?\n", start)
    if end is None:
        raise LyraError(f"{path} is truncated in its header: make or download it again")
    lines = [line.split() for line in start[: end.start()].decode("latin-1").splitlines()[1:]]
    lines = [line for line in lines if line and line[0] not in ("comment", "obj_info")]
    order = _ORDERS.get(" ".join(lines[0][1:2]) if lines else "")
    elements = [index for index, line in enumerate(lines) if line[0] == "element"]
    if order is None or not elements:
        raise LyraError(f"{path} is no PLY of a known kind: convert it to a binary 3DGS PLY first")
    element = lines[elements[0]]
    block = lines[elements[0] + 1 : elements[1] if len(elements) > 1 else None]
    names = [line[-1] for line in block]
    # Surfels (2DGS) have two scales.
    missing = [name for name in COLUMNS if name not in names and name != "scale_2"]
    if element[1] != "vertex" or missing:
        kind = "a compressed splat PLY" if is_packed(start) else "no 3DGS PLY"
        raise LyraError(f"{path} is {kind} (it lacks {' '.join(missing[:3])}): convert it to a standard 3DGS PLY")
    valid = all(len(line) == 3 and line[1] in _TYPES for line in block) and len(set(names)) == len(names)
    if not valid or len(element) != 3 or not element[2].isdecimal():
        raise LyraError(f"{path} has a PLY header that cannot be understood: convert it to a standard 3DGS PLY")
    if int(element[2]) == 0:
        raise LyraError(f"{path} holds no Gaussians: make or download it again")
    row = np.dtype([(name, order + _TYPES[line[1]]) for name, line in zip(names, block, strict=True)])
    return _Header(end.end(), int(element[2]), row, order == "=")


def is_packed(start: bytes) -> bool:
    """Whether a PLY that begins so is of PlayCanvas's compressed kind."""
    return b"packed_position" in start


def _activate(path: Path, columns: dict[str, np.ndarray]) -> tuple[Gaussians, int]:
    """The Gaussians of some columns, and how many rows were left out since they hold NaN or infinity."""

    def stack(prefix: str, count: int) -> np.ndarray:
        return np.stack([columns[f"{prefix}_{i}"] for i in range(count)], axis=1)

    with np.errstate(over="ignore", invalid="ignore"):  # what overflows is found below
        opacities = 1 / (1 + np.exp(-columns["opacity"]))
        scales = np.exp(stack("scale", 3 if "scale_2" in columns else 2))
        if scales.shape[1] == 2:
            scales = np.concatenate([scales, _FLAT * scales.min(axis=1, keepdims=True)], axis=1)
    harmonics = _harmonics(path, columns)
    colors = stack("f_dc", 3) * SH_DEGREE_0 + 0.5
    with np.errstate(invalid="ignore"):
        rotations = stack("rot", 4)
        norms = np.linalg.norm(rotations, axis=1, keepdims=True)
        identity = np.array([1.0, 0.0, 0.0, 0.0])
        values = {
            "means": np.stack([columns[axis] for axis in "xyz"], axis=1),
            "scales": scales,
            "quaternions": np.where(norms > 0, rotations / np.where(norms > 0, norms, 1), identity),
            "opacities": opacities,
            "colors": np.clip(colors, 0, 1) if harmonics is None else colors,
        }
    if harmonics is not None:
        values["harmonics"] = harmonics
    with np.errstate(over="ignore"):
        single = {name: value.astype(np.float32) for name, value in values.items()}
    fit = {name: np.isfinite(value.reshape(len(value), -1)).all(axis=1) for name, value in single.items()}
    kept = np.logical_and.reduce(list(fit.values()))
    unfit = int((~kept).sum())
    if unfit > _MOST_UNFIT * len(kept):
        name = next(name for name, rows in fit.items() if not rows.all())
        raise LyraError(f"{path} holds NaN or infinite {name}: make or download it again")
    return Gaussians(**{name: torch.from_numpy(value[kept]) for name, value in single.items()}), unfit


def _harmonics(path: Path, columns: dict[str, np.ndarray]) -> np.ndarray | None:
    """Spherical harmonics [splat, coefficient, channel]; None where there are none, or all are zero."""
    there = sum(f"f_rest_{i}" in columns for i in range(len(columns)))
    if there == 0:
        return None
    if there not in (9, 24, 45):
        warnings.warn(f"{path}: {there} columns f_rest are no whole degree: ignored", LyraWarning, stacklevel=5)
        return None
    rest = np.stack([columns[f"f_rest_{i}"] for i in range(there)], axis=1)
    return rest.reshape(len(rest), 3, there // 3).transpose(0, 2, 1) if rest.any() else None
