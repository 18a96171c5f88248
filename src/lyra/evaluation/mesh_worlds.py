"""Meshes of a model's scenes of held-out worlds against the worlds' true surfaces.

Two questions are kept apart: how good the surface is that one picture gives (the model's own depth), and how good the
way from splats to a mesh is (the same model told the input view's true depth).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from tqdm import tqdm

from lyra.engine.engine import Engine
from lyra.engine.paths import preset_paths
from lyra.errors import LyraError, MissingExtraError
from lyra.evaluation.still_worlds import FIRST_HELD_OUT_SEED, to_true_scale
from lyra.files.photos import Photo
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.gaussians import Gaussians, matrix_from_quaternion
from lyra.geometry.sky import SKY_FROM
from lyra.simulation.ground import surface_points
from lyra.simulation.mesh import Mesh, mesh_scene
from lyra.simulation.surfaces import Shots, own_cameras
from lyra.worlds import render_world, sample_world
from lyra.worlds.tracing import world_depth
from lyra.worlds.world import INPUT_FOV, World

TOLERANCE = 0.02
"""Distance that counts as right: 2 % of the input view's median depth, which is the scene unit."""
REACH = 3.0
"""Surfaces within so many scene units of the input camera are compared."""
SAMPLES = 40_000

Surface = tuple[Float[np.ndarray, "point 3"], Float[np.ndarray, "point 3"]]
"""Points and their unit normals."""


@dataclass(frozen=True)
class MeshWorldsOptions:
    """What is evaluated."""

    scenes: int = 8
    seed: int = 0
    """Of the teacher's noise, and of the samples."""


@torch.no_grad()
def evaluate_meshes(engine: Engine, options: MeshWorldsOptions = MeshWorldsOptions()) -> dict:
    """Meshes by fusion, and by Poisson reconstruction from the Gaussians' centres (where Open3D is installed).

    Returns:
        ``scenes`` and ``rows``, one a method: mean ``accuracy`` (distance from the mesh to the truth, scene units),
        ``completeness`` (from the truth to the mesh), ``f_score`` at ``TOLERANCE`` and ``normals`` (mean cosine).
    """
    found: dict[str, list[dict[str, float]]] = {}
    for index in tqdm(range(options.scenes), desc="worlds"):
        for name, numbers in compare_world(engine, FIRST_HELD_OUT_SEED + index, options).items():
            found.setdefault(name, []).append(numbers)
    rows = [
        {"method": name, **{key: float(np.mean([row[key] for row in rows])) for key in rows[0]}}
        for name, rows in found.items()
    ]
    return {"scenes": options.scenes, "rows": rows}


def compare_world(engine: Engine, seed: int, options: MeshWorldsOptions) -> Mapping[str, dict[str, float]]:
    """One world's numbers by method."""
    world = sample_world(seed)
    config = engine.config
    intrinsics = intrinsics_from_fov(INPUT_FOV, config.height, config.width)
    camera = Cameras(torch.eye(4)[None], intrinsics[None], config.height, config.width)
    color, depth = render_world(world, camera)
    views, _ = engine.views([Photo.of(color[0])], fov=INPUT_FOV)
    truth = true_surface(world, camera)
    result = {}
    for told, guess in (("", to_true_scale(views, depth[0])), (", true depth", replace(views, depth=depth))):
        paths = preset_paths(options.seed, config.frames, config.height, config.width)
        [clips] = engine.imagine(guess, paths, options.seed, quiet=True)
        gaussians = engine.decode([clips], guess)
        assert isinstance(gaussians, Gaussians)
        result["fusion" + told] = score(sampled(mesh_scene(gaussians, camera), options.seed), truth)
        try:
            result["poisson" + told] = score(sampled(poisson(gaussians), options.seed), truth)
        except MissingExtraError:
            continue
    return result


def true_surface(world: World, camera: Cameras) -> Surface:
    """Points of the true surfaces that the trajectories see, evenly spread."""
    cameras = own_cameras(camera, 192, 2)
    depth = world_depth(world, cameras)
    shots = Shots(cameras, torch.zeros(len(depth), 3, *depth.shape[1:]), depth, depth < SKY_FROM)
    points, normals = (values.double().numpy() for values in surface_points(shots))
    near = np.linalg.norm(points, axis=1) < REACH
    points, normals = points[near], normals[near]
    # One a cell of half the tolerance: near surfaces are seen by more pixels, but count no more.
    _, first = np.unique(np.floor(points / (TOLERANCE / 2)).astype(np.int64), axis=0, return_index=True)
    chosen = np.random.default_rng(0).permutation(first)[:SAMPLES]
    return points[chosen], normals[chosen]


def sampled(mesh: Mesh, seed: int) -> Surface:
    """Points on a mesh, evenly by area, within reach.

    Raises:
        LyraError: none of it is.
    """
    corners = mesh.vertices[mesh.faces]
    crosses = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    areas = np.linalg.norm(crosses, axis=1)
    kept = (areas > 1e-12) & (np.linalg.norm(corners.mean(1), axis=1) < REACH)
    if not kept.any():
        raise LyraError("the mesh is nowhere near the camera")
    corners, crosses, areas = corners[kept], crosses[kept], areas[kept]
    rng = np.random.default_rng(seed)
    face = rng.choice(len(areas), SAMPLES, p=areas / areas.sum())
    a, b = rng.random((2, SAMPLES, 1))
    over = a + b > 1
    a, b = np.where(over, 1 - a, a), np.where(over, 1 - b, b)
    points = corners[face, 0] + a * (corners[face, 1] - corners[face, 0]) + b * (corners[face, 2] - corners[face, 0])
    return points, (crosses / areas[:, None])[face]


def score(found: Surface, truth: Surface) -> dict[str, float]:
    """How far two surfaces are from each other.

    Source: Knapitsch et al., "Tanks and Temples" (2017), section 5, for the F-score.
    """
    from scipy.spatial import KDTree

    there, nearest = KDTree(truth[0]).query(found[0])
    back, _ = KDTree(found[0]).query(truth[0])
    precision, recall = float((there < TOLERANCE).mean()), float((back < TOLERANCE).mean())
    normals = np.abs((found[1] * truth[1][nearest]).sum(1))
    return {
        "accuracy": float(there.mean()),
        "completeness": float(back.mean()),
        "f_score": 2 * precision * recall / max(precision + recall, 1e-9),
        "normals": float(normals.mean()),
    }


def poisson(gaussians: Gaussians) -> Mesh:
    """The baseline: Poisson reconstruction from the centres of solid Gaussians, thin axes as normals.

    Source: Kazhdan and Hoppe, "Screened Poisson Surface Reconstruction" (2013), by Open3D.

    Raises:
        MissingExtraError: open3d-cpu is not installed.
    """
    try:
        import open3d  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise MissingExtraError("open3d-cpu", "baseline", "the Poisson baseline") from None
    solid = gaussians.select((gaussians.opacities > 0.3) & (gaussians.means.norm(dim=-1) < 2 * REACH))
    axes = matrix_from_quaternion(solid.quaternions)
    thin = solid.scales.argmin(-1)[:, None, None].expand(-1, 3, 1)
    normals = axes.gather(-1, thin)[..., 0]
    normals = torch.where((normals * solid.means).sum(-1, keepdim=True) > 0, -normals, normals)
    cloud: Any = open3d.geometry.PointCloud(open3d.utility.Vector3dVector(solid.means.double().numpy()))
    cloud.normals = open3d.utility.Vector3dVector(normals.double().numpy())
    mesh, density = open3d.geometry.TriangleMesh.create_from_point_cloud_poisson(cloud, depth=8)
    density = np.asarray(density)
    mesh.remove_vertices_by_mask(density < np.quantile(density, 0.05))
    vertices = np.asarray(mesh.vertices)
    return Mesh(vertices, np.asarray(mesh.triangles).astype(np.int64), np.full_like(vertices, 0.5))
