"""Standard 3D Gaussian splatting PLY files, which every splat viewer shows."""

import re
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lyra.errors import LyraError
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
_LARGEST_HEADER = 1 << 16
_TYPES = {
    **{"char": "i1", "int8": "i1", "uchar": "u1", "uint8": "u1", "short": "i2", "int16": "i2"},
    **{"ushort": "u2", "uint16": "u2", "int": "i4", "int32": "i4", "uint": "u4", "uint32": "u4"},
    **{"float": "f4", "float32": "f4", "double": "f8", "float64": "f8"},
}


def save_ply(gaussians: Gaussians, path: Path) -> None:
    """Writes an unbatched set as binary little-endian float32 PLY without normals and higher harmonics.

    Colors are stored as ``(rgb - 0.5) / SH_DEGREE_0``, opacities as logits of [1e-6, 1 - 1e-6], scales as
    ``ln(s + 1e-8)``, rotations as w x y z. The same Gaussians give the same bytes.

    Raises:
        LyraError: The file cannot be written.
        ValueError: The set is batched or holds NaN or infinity.

    Source: ``save_ply_orig(compatible=True)`` of Lyra.
    """
    if gaussians.means.ndim != 2:
        raise ValueError(f"a PLY holds one set of Gaussians, not means of shape {tuple(gaussians.means.shape)}")
    # In float64, whose rounding to float32 does not depend on how the work was split between threads.
    means, colors, opacities, scales, quaternions = (
        tensor.detach().to("cpu", torch.float64).numpy()
        for tensor in (
            *(gaussians.means, gaussians.colors, gaussians.opacities),
            *(gaussians.scales, gaussians.quaternions),
        )
    )
    opacities = np.clip(opacities, _OPACITY_MARGIN, 1 - _OPACITY_MARGIN)[:, None]
    columns = [
        means,
        (colors - 0.5) / SH_DEGREE_0,
        np.log(opacities) - np.log1p(-opacities),
        np.log(np.maximum(scales, 0) + _SCALE_MARGIN),
        quaternions,
    ]
    table = np.concatenate(columns, axis=1).astype("<f4")
    if not np.isfinite(table).all():
        raise ValueError("Gaussians to be saved hold NaN or infinity")
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(table)}"]
    header += [*(f"property float {name}" for name in COLUMNS), "end_header\n"]
    with write_atomically(path) as temporary, temporary.open("wb") as file:
        file.write("\n".join(header).encode("ascii"))
        file.write(table.data)


def load_ply(path: Path) -> Gaussians:
    """Reads a 3DGS PLY of any column order, in float32.

    Normals and unknown columns are skipped. Of spherical harmonics only degree 0 is used (with a
    warning), and colors are clamped to [0, 1]; rotations are normalised.

    Raises:
        LyraError: The file is missing, no 3DGS PLY, truncated, or holds NaN.
    """
    path = Path(path)
    with explain_reading(path), path.open("rb") as file:
        header = _read_header(path, file.read(_LARGEST_HEADER))
        # Compared before reading: a damaged count must not ask for all memory.
        there = (file.seek(0, 2) - header.length) // header.row.itemsize
        if there < header.count:
            raise LyraError(
                f"{path} is truncated: {there} of {header.count} Gaussians are there, make or download it again"
            )
        file.seek(header.length)
        data = file.read(header.count * header.row.itemsize)
    rows = np.frombuffer(data, dtype=header.row)
    if "f_rest_0" in header.names:
        warnings.warn(f"{path}: view-dependent color (f_rest) is ignored", stacklevel=2)
    return _activate(path, {name: rows[name].astype(np.float64) for name in COLUMNS})


@dataclass(frozen=True)
class _Header:
    length: int
    """Bytes before the first row."""
    count: int
    row: np.dtype

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
    order = {"binary_little_endian": "<", "binary_big_endian": ">"}.get(" ".join(lines[0][1:2]) if lines else "")
    elements = [index for index, line in enumerate(lines) if line[0] == "element"]
    if order is None or not elements:
        raise LyraError(f"{path} is no binary PLY: convert it to a binary 3DGS PLY first")
    element = lines[elements[0]]
    block = lines[elements[0] + 1 : elements[1] if len(elements) > 1 else None]
    names = [line[-1] for line in block]
    missing = [name for name in COLUMNS if name not in names]
    if element[1] != "vertex" or missing:
        kind = "a compressed splat PLY" if "packed_position" in start.decode("latin-1") else "no 3DGS PLY"
        raise LyraError(f"{path} is {kind} (it lacks {' '.join(missing[:3])}): convert it to a standard 3DGS PLY")
    valid = all(len(line) == 3 and line[1] in _TYPES for line in block) and len(set(names)) == len(names)
    if not valid or len(element) != 3 or not element[2].isdecimal():
        raise LyraError(f"{path} has a PLY header that cannot be understood: convert it to a standard 3DGS PLY")
    if int(element[2]) == 0:
        raise LyraError(f"{path} holds no Gaussians: make or download it again")
    row = np.dtype([(name, order + _TYPES[line[1]]) for name, line in zip(names, block, strict=True)])
    return _Header(end.end(), int(element[2]), row)


def _activate(path: Path, columns: dict[str, np.ndarray]) -> Gaussians:
    def stack(prefix: str, count: int) -> np.ndarray:
        return np.stack([columns[f"{prefix}_{i}"] for i in range(count)], axis=1)

    with np.errstate(over="ignore"):  # what overflows is found below
        opacities = 1 / (1 + np.exp(-columns["opacity"]))
        scales = np.exp(stack("scale", 3))
    rotations = stack("rot", 4)
    norms = np.linalg.norm(rotations, axis=1, keepdims=True)
    identity = np.array([1.0, 0.0, 0.0, 0.0])
    values = {
        "means": np.stack([columns[axis] for axis in "xyz"], axis=1),
        "scales": scales,
        "quaternions": np.where(norms > 0, rotations / np.where(norms > 0, norms, 1), identity),
        "opacities": opacities,
        "colors": np.clip(stack("f_dc", 3) * SH_DEGREE_0 + 0.5, 0, 1),
    }
    tensors: dict[str, Tensor] = {}
    for name, value in values.items():
        single = value.astype(np.float32)
        if not np.isfinite(single).all():
            raise LyraError(f"{path} holds NaN or infinite {name}: make or download it again")
        tensors[name] = torch.from_numpy(single)
    return Gaussians(**tensors)
