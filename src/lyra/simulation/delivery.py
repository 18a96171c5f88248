"""``lyra export`` for simulators: the scene level and in metres, with what things bump into."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch

from lyra.errors import LyraError
from lyra.export.splat_files import UPRIGHT, SplatFormat, Written, save_splats
from lyra.export.usd import add_collider, add_splats, write_stage
from lyra.files.picture_sets import PictureSet, save_colmap, save_nerfstudio
from lyra.generate.cutting import whole_folder
from lyra.geometry.gaussians import Gaussians, transform
from lyra.geometry.sky import is_sky
from lyra.rendering.appearance import seen_from
from lyra.scene.scene import Scene
from lyra.simulation.collider import Collider, to_world
from lyra.simulation.mesh import Mesh, MeshOptions, mesh_shots, save_mesh
from lyra.simulation.mujoco_model import save_mjcf
from lyra.simulation.surfaces import Shots, scene_cameras, shoot
from lyra.simulation.survey import KEY, ScaleOptions, Survey, by_camera_height, by_estimate, by_known_length, survey

COLLIDER_TRIANGLES = 12_000
MOST_POINTS = 100_000
_OPAQUE = 0.5
"""Least opacity of a Gaussian that is a point."""
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
    """The still part along the scene's own trajectories, and where it was extended."""
    return shoot(still_part(scene), scene_cameras(scene, options.size))


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


def deliver_pictures(
    scene: Scene, found: Survey | None, folder: Path, kind: Literal["colmap", "nerfstudio"], each: int
) -> tuple[int, int]:
    """Writes pictures of a still scene with their cameras and points, as programs take them that make splats anew.

    Args:
        scene: Of one moment.
        found: Metres for the cameras; scene units when None.
        folder: New or empty.
        kind: Whose layout.
        each: Pictures along each of the six trajectories, and of each clip of an extension; the first of all is the
            input view.

    Returns:
        How many pictures and points were written.

    Raises:
        LyraError: the folder is not empty, or cannot be written to.
    """
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise LyraError(f"{folder} is not empty: give another folder")
    if not 1 <= each <= 500:
        raise LyraError(f"--views {each}: give 1 to 500 pictures along each trajectory")
    scale = 1.0 if found is None else found.metres_per_unit
    camera, gaussians = scene.input_camera, scene.gaussians
    cameras = scene_cameras(scene, max(camera.height, camera.width), each)
    pictures = (scene.render(cameras[index : index + 1]).color[0].clamp(0, 1) for index in range(len(cameras)))
    # What is seen: neither the faint ones nor the sky, which is no place.
    seen = (gaussians.opacities > _OPAQUE) & ~is_sky(gaussians.means.norm(dim=-1))
    picked = seen.nonzero()[:, 0]
    picked = picked[:: -(-len(picked) // MOST_POINTS) or 1]
    poses = cameras.camera_to_world.clone()
    poses[:, :3, 3] *= scale
    content = PictureSet(
        replace(cameras, camera_to_world=poses),
        pictures,
        scale * gaussians.means[picked],
        seen_from(gaussians.select(picked), camera.centers[0]).colors,
    )
    with whole_folder(folder) as hidden:
        (save_colmap if kind == "colmap" else save_nerfstudio)(content, hidden)
    return len(cameras), len(picked)


def deliver_mjcf(shots: Shots, found: Survey, folder: Path) -> int:
    """Writes a MuJoCo model into a folder; returns how many convex parts it has."""
    mesh = to_world(mesh_shots(shots, MeshOptions(triangles=COLLIDER_TRIANGLES), found.ground), found)
    parts = Collider(mesh).parts()
    save_mjcf(parts, folder)
    return len(parts)
