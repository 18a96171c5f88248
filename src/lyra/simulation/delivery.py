"""``lyra export`` for simulators: the scene level and in metres, with what things bump into."""

from pathlib import Path
from typing import Any

import torch

from lyra.errors import LyraError
from lyra.export.splat_files import UPRIGHT, SplatFormat, Written, save_splats
from lyra.export.usd import add_collider, add_splats, write_stage
from lyra.geometry.gaussians import Gaussians, transform
from lyra.scene.scene import Scene
from lyra.simulation.collider import Collider, to_world
from lyra.simulation.mesh import Mesh, MeshOptions, mesh_shots, save_mesh
from lyra.simulation.mujoco_model import save_mjcf
from lyra.simulation.surfaces import Shots, own_cameras, shoot
from lyra.simulation.survey import KEY, ScaleOptions, Survey, by_camera_height, by_estimate, by_known_length, survey

COLLIDER_TRIANGLES = 12_000
_PLAIN = MeshOptions()


def measure(scene: Scene, shots: Shots, scale: ScaleOptions) -> Survey:
    """The survey that the options ask for.

    Raises:
        LyraError: more than one way is given, or the one that is does not work for the scene.
    """
    if sum(way is not None for way in (scale.known, scale.camera_height, scale.metric_depth)) > 1:
        raise LyraError("metres by one way at a time: --known, --camera-height or --metric-depth")
    stored = scene.provenance.get(KEY)
    if not scale.given() and stored:
        return Survey.from_json(stored)
    found = survey(shots)
    if scale.known is not None:
        return by_known_length(found, shots, scale.known)
    if scale.camera_height is not None:
        if found.ground is None:
            raise LyraError("--camera-height: no ground is in sight, give --known instead")
        return by_camera_height(found.ground, scale.camera_height)
    if scale.metric_depth is not None:
        from lyra.depth.pretrained import load_depth_estimator

        predicted = load_depth_estimator(scale.metric_depth).predict(shots.color[0])
        if not predicted.metric:
            raise LyraError(f"{scale.metric_depth} estimates no metres: give a metric one")
        depth = torch.where(predicted.valid, predicted.depth, 0)
        return by_estimate(found, shots, depth, Path(scale.metric_depth).name)
    return found


def still_part(scene: Scene) -> Gaussians:
    """What a collider is made of: of a dynamic scene what stays, or the first moment where nothing does."""
    if scene.dynamic is None:
        return scene.gaussians
    return scene.dynamic.static if len(scene.dynamic.static) else scene.gaussians


def look_around(scene: Scene, options: MeshOptions = _PLAIN) -> Shots:
    """The still part along the scene's own trajectories."""
    return shoot(still_part(scene), own_cameras(scene.input_camera, options.size))


def deliver_splats(gaussians: Gaussians, found: Survey, path: Path, kind: SplatFormat, written: Written) -> None:
    """Writes splats in metres; level, too, in formats that say which axis is up."""
    if kind in UPRIGHT:
        gaussians = found.level(gaussians)
    else:
        gaussians = transform(gaussians, torch.eye(3), torch.zeros(3), found.metres_per_unit)
    save_splats(gaussians, path, kind, written)


def deliver_mesh(shots: Shots, found: Survey, path: Path, options: MeshOptions) -> Mesh:
    """Writes the surface, level and in metres."""
    mesh = mesh_shots(shots, options, found.ground)
    rotation, shift, scale = found.similarity()
    vertices = scale * mesh.vertices @ rotation.double().numpy().T + shift.double().numpy()
    mesh = Mesh(vertices, mesh.faces, mesh.colors)
    save_mesh(mesh, path)
    return mesh


def deliver_physics(gaussians: Gaussians, shots: Shots, found: Survey, path: Path, kind: str) -> None:
    """Writes USD with splats, collider and ground."""
    collider = to_world(mesh_shots(shots, MeshOptions(triangles=COLLIDER_TRIANGLES), found.ground), found)

    def fill(stage: Any) -> None:
        add_splats(stage, found.level(gaussians))
        add_collider(stage, collider.vertices, collider.faces)

    write_stage(path, "usdz" if kind == "usdz" else "usda" if kind == "usda" else "usdc", fill)


def deliver_mjcf(shots: Shots, found: Survey, folder: Path) -> int:
    """Writes a MuJoCo model into a folder; returns how many convex parts it has."""
    mesh = to_world(mesh_shots(shots, MeshOptions(triangles=COLLIDER_TRIANGLES), found.ground), found)
    parts = Collider(mesh).parts()
    save_mjcf(parts, folder)
    return len(parts)
