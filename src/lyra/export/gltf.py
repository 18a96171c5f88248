"""glTF and GLB with ``KHR_gaussian_splatting``: y up, z backward, metres where the scene's are known.

Source: the extension's release candidate of July 2026: primitives of mode POINTS, ``kernel`` "ellipse", linear
scales, opacities in [0, 1], rotations x y z w, spherical harmonics of degree 0 to 3 for display-referred colors.
"""

import base64
from pathlib import Path
from typing import Any

import numpy as np
import torch

from lyra.errors import LyraError, MissingExtraError
from lyra.export.packed import HALF_TURN
from lyra.files.atomic import explain_reading, write_atomically
from lyra.files.splats import SH_DEGREE_0
from lyra.geometry.gaussians import Gaussians, transform

NAME = "KHR_gaussian_splatting"
_FLOAT, _BYTE = 5126, 5121
_WIDTHS = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}


def save_gltf(gaussians: Gaussians, path: Path, binary: bool = True) -> None:
    """Writes an unbatched set, its y axis turned up; a ``.gltf`` holds its data within itself.

    Raises:
        LyraError: The file cannot be written.
        MissingExtraError: pygltflib is not installed.
        ValueError: The set is batched or holds NaN or infinity.
    """
    gltf = _library()
    content = _attributes(gaussians)
    blob = b"".join(column.tobytes() for column in content.values())
    document = gltf.GLTF2(
        asset=gltf.Asset(generator="lyra"),
        extensionsUsed=[NAME],
        scene=0,
        scenes=[gltf.Scene(nodes=[0])],
        nodes=[gltf.Node(mesh=0, name="splats")],
        buffers=[gltf.Buffer(byteLength=len(blob))],
    )
    attributes = gltf.Attributes()
    start = 0
    for index, (name, column) in enumerate(content.items()):
        document.bufferViews.append(
            gltf.BufferView(buffer=0, byteOffset=start, byteLength=column.nbytes, target=gltf.ARRAY_BUFFER)
        )
        document.accessors.append(_accessor(gltf, index, name, column))
        setattr(attributes, name, index)
        start += column.nbytes
    primitive = gltf.Primitive(attributes=attributes, mode=0, extensions={NAME: _EXTENSION})
    document.meshes = [gltf.Mesh(primitives=[primitive])]
    if not binary:
        document.buffers[0].uri = "data:application/octet-stream;base64," + base64.b64encode(blob).decode("ascii")
    else:
        document.set_binary_blob(blob)
    with write_atomically(path) as temporary:
        written = b"".join(document.save_to_bytes()) if binary else document.to_json().encode()
        temporary.write_bytes(written)


_EXTENSION = {
    "kernel": "ellipse",
    "colorSpace": "srgb_rec709_display",
    "sortingMethod": "cameraDistance",
    "projection": "perspective",
}


def _accessor(gltf: Any, index: int, name: str, column: np.ndarray) -> Any:
    limits = {"min": column.min(0).tolist(), "max": column.max(0).tolist()} if name == "POSITION" else {}
    return gltf.Accessor(
        bufferView=index,
        componentType=_BYTE if column.dtype == np.uint8 else _FLOAT,
        normalized=column.dtype == np.uint8,
        count=len(column),
        type=_WIDTHS[1 if column.ndim == 1 else column.shape[1]],
        **limits,
    )


def _attributes(gaussians: Gaussians) -> dict[str, np.ndarray]:
    """Columns of the file by attribute, in the file's axes."""
    if gaussians.means.ndim != 2 or len(gaussians) == 0:
        raise ValueError("a glTF holds one set of at least one Gaussian")
    turned = transform(gaussians.map(lambda tensor: tensor.detach().cpu().float()), HALF_TURN, torch.zeros(3))
    fields = {name: tensor.numpy() for name, tensor in turned.tensors().items()}
    if not all(np.isfinite(values).all() for values in fields.values()):
        raise ValueError("Gaussians to be saved hold NaN or infinity")
    # What a viewer without the extension shows: points of the base color.
    points = np.concatenate([fields["colors"], fields["opacities"][:, None]], axis=1)
    columns = {
        "POSITION": fields["means"],
        "COLOR_0": np.round(np.clip(points, 0, 1) * 255).astype(np.uint8),
        f"{NAME}:ROTATION": np.roll(fields["quaternions"], -1, axis=1),
        f"{NAME}:SCALE": np.maximum(fields["scales"], 1e-9),
        f"{NAME}:OPACITY": np.clip(fields["opacities"], 0, 1),
        f"{NAME}:SH_DEGREE_0_COEF_0": (fields["colors"] - 0.5) / SH_DEGREE_0,
    }
    harmonics = fields.get("harmonics", np.zeros((len(gaussians), 0, 3), np.float32))
    for index, (degree, order) in enumerate(_ORDERS[: harmonics.shape[1]]):
        columns[f"{NAME}:SH_DEGREE_{degree}_COEF_{order}"] = harmonics[:, index]
    return {
        name: np.ascontiguousarray(column, dtype=column.dtype if column.dtype == np.uint8 else "<f4")
        for name, column in columns.items()
    }


_ORDERS = [(degree, order) for degree in (1, 2, 3) for order in range(2 * degree + 1)]


def load_gltf(path: Path) -> Gaussians:
    """Reads the splats of a glTF or GLB, all its primitives that have the extension, through their nodes' transforms
    where these are similarities.

    Raises:
        LyraError: The file is missing or damaged, or holds no splats.
        MissingExtraError: pygltflib is not installed.
    """
    gltf = _library()
    with explain_reading(path), Path(path).open("rb"):
        pass
    try:
        document = gltf.GLTF2().load(str(path))
        parts = [
            _read(document, primitive)
            for mesh in document.meshes
            for primitive in mesh.primitives
            if NAME in (primitive.extensions or {})
        ]
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, OSError) as error:
        raise LyraError(f"{path} is no glTF that can be understood ({error}): make or download it again") from None
    if any(_moves(node) for node in document.nodes):
        raise LyraError(f"{path} moves its splats by its nodes: apply the transforms to the points first")
    if not parts:
        raise LyraError(f"{path} holds no {NAME}: give a glTF of splats")
    from lyra.geometry.gaussians import merge

    return transform(merge(parts), HALF_TURN, torch.zeros(3))


def _moves(node: Any) -> bool:
    identities = {"matrix": np.eye(4).ravel().tolist(), "translation": [0, 0, 0], "rotation": [0, 0, 0, 1]}
    given = {name: getattr(node, name) for name in (*identities, "scale")}
    return any(value is not None and value != identities.get(name, [1, 1, 1]) for name, value in given.items())


def _read(document: Any, primitive: Any) -> Gaussians:
    attributes = vars(primitive.attributes)

    def column(name: str) -> torch.Tensor:
        return torch.from_numpy(_column(document, attributes[name]))

    harmonics = [name for degree, order in _ORDERS if (name := f"{NAME}:SH_DEGREE_{degree}_COEF_{order}") in attributes]
    colors = column(f"{NAME}:SH_DEGREE_0_COEF_0") * SH_DEGREE_0 + 0.5
    quaternions = column(f"{NAME}:ROTATION").roll(1, dims=1)
    return Gaussians(
        means=column("POSITION"),
        scales=column(f"{NAME}:SCALE"),
        quaternions=torch.nn.functional.normalize(quaternions, dim=-1),
        opacities=column(f"{NAME}:OPACITY").flatten(),
        colors=colors if harmonics else colors.clamp(0, 1),
        harmonics=torch.stack([column(name) for name in harmonics], dim=1) if harmonics else None,
    )


_TYPES = {5120: "i1", 5121: "u1", 5122: "<i2", 5123: "<u2", 5126: "<f4"}


def _column(document: Any, index: int) -> np.ndarray:
    """One accessor's numbers as float32, normalised integers in their range."""
    accessor = document.accessors[index]
    view = document.bufferViews[accessor.bufferView]
    data = (
        document.get_data_from_buffer_uri(document.buffers[view.buffer].uri)
        if document.buffers[view.buffer].uri
        else document.binary_blob()
    )
    kind = np.dtype(_TYPES[accessor.componentType])
    width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}[accessor.type]
    start = (view.byteOffset or 0) + (accessor.byteOffset or 0)
    stride = view.byteStride or width * kind.itemsize
    rows = np.ndarray((accessor.count, width), kind, data, start, (stride, kind.itemsize)).astype(np.float32)
    if accessor.normalized:
        rows /= np.iinfo(kind).max
    return rows


def _library() -> Any:
    try:
        import pygltflib
    except ImportError:
        raise MissingExtraError("pygltflib", "export", "glTF") from None
    return pygltflib
