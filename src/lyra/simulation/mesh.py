"""A still scene's surface as a colored triangle mesh."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

from lyra.errors import LyraError, MissingExtraError
from lyra.files.atomic import write_atomically
from lyra.geometry.cameras import Cameras, look_up, project
from lyra.geometry.gaussians import Gaussians
from lyra.simulation.fusion import choose_grid, close_ground, extract, fuse
from lyra.simulation.ground import Ground, find_ground
from lyra.simulation.surfaces import Shots, own_cameras, shoot


@dataclass(frozen=True)
class Mesh:
    """Triangles in the scene's axes (x right, y down, z forward) and units, fronts by the right-hand rule."""

    vertices: Float[np.ndarray, "vertex 3"]
    faces: Int[np.ndarray, "face 3"]
    colors: Float[np.ndarray, "vertex 3"]
    """Display-referred sRGB in [0, 1]."""


@dataclass(frozen=True)
class MeshOptions:
    """How a mesh is made."""

    triangles: int = 60_000
    """At most."""
    size: int = 192
    """Longer side in pixels of the views that are fused."""
    floaters: float = 0.01
    """Pieces of less than this share of all triangles are removed."""
    ground: bool = True
    """Lay the ground where no view has seen it."""


def mesh_scene(
    gaussians: Gaussians, camera: Cameras, options: MeshOptions = MeshOptions(), ground: Ground | None = None
) -> Mesh:
    """Fuses the depth of the scene's own trajectories.

    Args:
        gaussians: Unbatched.
        camera: The input camera, one view.
        options: How.
        ground: Where it is; looked for when None, and left open where there is none.

    Raises:
        LyraError: the scene shows no surface.
        MissingExtraError: scikit-image, trimesh or fast-simplification is not installed.
    """
    shots = shoot(gaussians, own_cameras(camera, options.size))
    if ground is None and options.ground:
        try:
            ground = find_ground(shots)
        except LyraError:
            ground = None
    return mesh_shots(shots, options, ground)


def mesh_shots(shots: Shots, options: MeshOptions, ground: Ground | None) -> Mesh:
    """As :func:`mesh_scene`, of pictures that are there."""
    grid = choose_grid(shots, _samples(options.triangles))
    field, weight = fuse(shots, grid)
    if ground is not None and options.ground:
        close_ground(grid, field, weight, np.array(ground.up), ground.height)
    vertices, faces = extract(grid, field, weight)
    vertices, faces = _without_floaters(vertices, faces, options.floaters)
    vertices, faces = _decimate(vertices, faces, options.triangles)
    return Mesh(vertices, faces, _paint(vertices, shots))


def _samples(triangles: int) -> int:
    """Samples of a grid whose surface has about twice so many triangles: with many more, decimation spends what is
    left on the ragged border, which it may not move.
    """
    return int(min(6e6, max(2e5, 6e6 * (2 * triangles / 228_000) ** 1.5)))


def tools(name: str) -> Any:
    """A package of the extra ``mesh``.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return __import__(name)
    except ImportError:
        raise MissingExtraError(name.replace("_", "-"), "mesh", "a mesh") from None


def _without_floaters(vertices: np.ndarray, faces: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Leaves out connected pieces that are small."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = np.concatenate([faces[:, :2], faces[:, 1:]])
    links = coo_matrix((np.ones(len(edges), bool), edges.T), shape=(len(vertices),) * 2)
    _, piece = connected_components(links, directed=False)
    sizes = np.bincount(piece[faces[:, 0]])
    kept = faces[sizes[piece[faces[:, 0]]] >= share * len(faces)]
    used, renumbered = np.unique(kept, return_inverse=True)
    return vertices[used], renumbered.reshape(-1, 3)


def _decimate(vertices: np.ndarray, faces: np.ndarray, triangles: int) -> tuple[np.ndarray, np.ndarray]:
    if len(faces) <= triangles:
        return vertices, faces
    simplify = tools("fast_simplification").simplify
    points, kept = vertices.astype(np.float32), faces.astype(np.int32)
    for _ in range(4):  # it stops where no edge can go without folding, short of a large step
        points, kept = simplify(points, kept, 1 - triangles / len(kept))
        if len(kept) <= triangles:
            break
    return points.astype(np.float64), kept.astype(np.int64)


def _paint(vertices: np.ndarray, shots: Shots) -> np.ndarray:
    """Mean color of the views that see a vertex; gray where none does."""
    points = torch.from_numpy(vertices).float()
    total, count = torch.zeros(len(points), 3), torch.zeros(len(points))
    for view in range(len(shots.cameras)):
        u, v, z = (values[0] for values in project(points, shots.cameras[view : view + 1]))
        inside, pixel = look_up(u, v, z, shots.cameras.height, shots.cameras.width)
        seen = inside & shots.valid[view][pixel] & ((shots.depth[view][pixel] - z).abs() < 0.05 * z)
        total += torch.where(seen[:, None], shots.color[view].movedim(0, -1)[pixel], 0)
        count += seen
    plain = torch.full((len(points), 3), 0.5)
    return torch.where(count[:, None] > 0, total / count.clamp(min=1)[:, None], plain).double().numpy()


def save_mesh(mesh: Mesh, path: Path) -> None:
    """Writes ``.obj``, ``.ply`` or ``.glb`` (y up), with colors at the vertices.

    Raises:
        LyraError: the suffix is another, or the file cannot be written.
        MissingExtraError: trimesh is not installed.
    """
    kind = Path(path).suffix.lower().lstrip(".")
    if kind not in ("obj", "ply", "glb"):
        raise LyraError(f"{path} names no format of meshes: end it with .glb, .obj or .ply")
    trimesh = tools("trimesh")
    vertices = mesh.vertices * [1, -1, -1] if kind == "glb" else mesh.vertices
    colors = np.concatenate([mesh.colors, np.ones((len(vertices), 1))], axis=1)
    if kind == "glb":  # whose vertex colors are linear light
        colors[:, :3] = np.where(
            colors[:, :3] <= 0.04045, colors[:, :3] / 12.92, ((colors[:, :3] + 0.055) / 1.055) ** 2.4
        )
    shape = trimesh.Trimesh(vertices, mesh.faces, vertex_colors=np.round(colors * 255).astype(np.uint8), process=False)
    with write_atomically(path) as temporary:
        content = shape.export(file_type=kind)
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
