"""A camera for a PLY that may come from anywhere: the one stored with it, or one that sees what is in it."""

import json
import math
import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from lyra.errors import LyraError, LyraWarning
from lyra.files.poses import load_cameras
from lyra.files.splats import read_elements
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.gaussians import Gaussians

FOV, SIDE = 55.0, 512
"""Degrees and pixels of a camera that is not stored."""
_IN_SIGHT = 0.5
"""Share of a scene, by opacity, that the camera at the origin has to see: then it is what the scene was made from."""
_NEAR = 0.01
_CORE = 0.9
"""Share of the Gaussians, by opacity, that a scene's bounds go around; some always lie far outside."""


def find_camera(path: Path, gaussians: Gaussians) -> tuple[Cameras, float]:
    """One view of a PLY's scene, and how far ahead of it the scene's middle is.

    Stored cameras are those of a scene's folder of ours, of 3DGS training (``cameras.json`` in the PLY's folder or the
    one that its ``point_cloud/iteration_N`` lies in) and those in the PLY itself (``extrinsic``, ``intrinsic`` and
    ``image_size``, as SHARP writes them). Else the camera is at the origin, looking along z, where it sees most of the
    scene from there, and otherwise before the scene's bounds, looking along z too.
    """
    means = gaussians.means.double().numpy()
    weights = gaussians.opacities.double().numpy()
    stored = _of_our_folder(path) or _of_training(path) or _of_elements(path)
    if stored is not None:
        if _share_in_sight(stored, means, weights) == 0:
            warnings.warn(f"{path}: the camera stored with it sees nothing of the scene", LyraWarning, stacklevel=3)
        return stored, _middle(stored, means)
    origin = Cameras(torch.eye(4)[None], intrinsics_from_fov(FOV, SIDE, SIDE)[None], SIDE, SIDE)
    if _share_in_sight(origin, means, weights) >= _IN_SIGHT:
        return origin, _middle(origin, means)
    return _before(means, weights, origin)


def _of_our_folder(path: Path) -> Cameras | None:
    """The input camera of the scene whose ``scene.ply`` or ``frames/0000.ply`` this is."""
    folder = path.parent.parent if path.parent.name == "frames" else path.parent
    if path.name != "scene.ply" and path.parent.name != "frames":
        return None
    try:
        content = json.loads((folder / "scene.json").read_text())["input_camera"]
        pose, lens = torch.tensor(content["camera_to_world"]), torch.tensor(content["intrinsics"])
        return Cameras(pose[None], lens[None], content["height"], content["width"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _of_training(path: Path) -> Cameras | None:
    """The first camera that a scene of 3DGS training was trained with, at most ``SIDE`` pixels on its longer side."""
    folders = [path.parent]
    if path.parent.parent.name == "point_cloud":
        folders.append(path.parent.parent.parent)
    file = next((folder / "cameras.json" for folder in folders if (folder / "cameras.json").is_file()), None)
    if file is None:
        return None
    try:
        first = json.loads(file.read_text())[0]
        scale = SIDE / max(first["width"], first["height"])
        return load_cameras(file, round(first["height"] * scale), round(first["width"] * scale))[:1]
    except (LyraError, OSError, ValueError, KeyError, TypeError, IndexError):
        warnings.warn(f"{file} is no camera file and was ignored", LyraWarning, stacklevel=4)
        return None


def _of_elements(path: Path) -> Cameras | None:
    """The camera in a PLY's own elements: world_to_camera row by row, a 3x3 matrix or fx fy cx cy, width and height."""
    found = read_elements(path)
    view, lens, size = (found.get(name, np.zeros(0)) for name in ("extrinsic", "intrinsic", "image_size"))
    if len(view) != 16 or len(lens) not in (4, 9) or len(size) != 2 or min(size) < 1:
        return None
    view = view.reshape(4, 4)
    numbers = lens if len(lens) == 4 else lens[[0, 4, 2, 5]]
    rigid = np.allclose(view[:3, :3] @ view[:3, :3].T, np.eye(3), atol=1e-3) and np.allclose(view[3], [0, 0, 0, 1])
    if not rigid or not np.isfinite(view).all() or not np.isfinite(numbers).all() or min(numbers[:2]) <= 0:
        return None
    pose = torch.from_numpy(np.linalg.inv(view)).float()
    width, height = (int(side) for side in size)
    camera = Cameras(pose[None], torch.from_numpy(numbers).float()[None], height, width)
    scale = min(1.0, SIDE / max(width, height))
    return camera.resized(max(1, round(height * scale)), max(1, round(width * scale)))


def _share_in_sight(camera: Cameras, means: Float[np.ndarray, "splat 3"], weights: Float[np.ndarray, "splat"]) -> float:
    """Share of the weights of the centres that a camera sees."""
    local = _to_camera(camera, means)
    fx, fy, cx, cy = camera.intrinsics[0].tolist()
    ahead = local[:, 2] > _NEAR
    depth = np.where(ahead, local[:, 2], 1.0)
    u, v = fx * local[:, 0] / depth + cx, fy * local[:, 1] / depth + cy
    seen = ahead & (u >= 0) & (u <= camera.width) & (v >= 0) & (v <= camera.height)
    return float((weights * seen).sum() / max(weights.sum(), 1e-12))


def _middle(camera: Cameras, means: Float[np.ndarray, "splat 3"]) -> float:
    """Median depth of what is ahead of a camera, 1 where nothing is."""
    depth = _to_camera(camera, means)[:, 2]
    depth = depth[depth > _NEAR]
    return float(np.median(depth)) if len(depth) else 1.0


def _to_camera(camera: Cameras, means: Float[np.ndarray, "splat 3"]) -> Float[np.ndarray, "splat 3"]:
    pose = camera.camera_to_world[0].double().numpy()
    return (means - pose[:3, 3]) @ pose[:3, :3]


def _before(
    means: Float[np.ndarray, "splat 3"], weights: Float[np.ndarray, "splat"], camera: Cameras
) -> tuple[Cameras, float]:
    """The camera moved, not turned, to where the scene's bounds fill its view; and the distance of their middle."""
    center = np.array([_weighted_median(means[:, axis], weights) for axis in range(3)])
    distances = np.linalg.norm(means - center, axis=1)
    order = np.argsort(distances)
    total = np.cumsum(weights[order])
    radius = float(distances[order][np.searchsorted(total, _CORE * total[-1]).clip(max=len(order) - 1)])
    distance = max(radius, 1e-3) / math.sin(math.radians(FOV / 2))
    pose = camera.camera_to_world.clone()
    pose[0, :3, 3] = torch.from_numpy(center - [0, 0, distance]).float()
    return Cameras(pose, camera.intrinsics, camera.height, camera.width), distance


def _weighted_median(values: Float[np.ndarray, "splat"], weights: Float[np.ndarray, "splat"]) -> float:
    order = np.argsort(values)
    total = np.cumsum(weights[order])
    return float(values[order][np.searchsorted(total, 0.5 * total[-1]).clip(max=len(order) - 1)])
