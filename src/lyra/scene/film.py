"""A scene along a camera path, as a video."""

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from lyra.device.memory import find_device
from lyra.errors import LyraError, LyraWarning
from lyra.files import load_cameras, save_video
from lyra.files.films import check_film_name
from lyra.files.poses import is_camera_file
from lyra.geometry.cameras import Cameras
from lyra.geometry.trajectories import DISTANCE_RANGES, TRAJECTORY_NAMES, fly_through, trajectory_cameras
from lyra.scene.scene import Scene
from lyra.scene.times import TimeOptions

FILM_SIZE = 512
"""A scene's own films are enlarged by the largest whole factor that keeps their longer side within this many pixels."""
FILM_FPS = 24
_SHARE_OF_NEAREST = 0.5
"""Of the distance to the nearest thing that a film's path moves by: it goes forward by 1.2 times that."""
_LEAST_ALPHA = 1e-4
"""Mean alpha of a picture below which nothing of a scene is in sight."""
_FILM_SECONDS = (3.0, 10.0)
"""Shortest and longest film; the first is a still scene's."""


def choose_cameras(scene: Scene, cameras: str, frames: int, size: int) -> Cameras:
    """Cameras of a preset ("fly", "still" at the input view, or a trajectory at the largest distance of its range), or
    of a file of cameras. A preset moves around what the scene's own camera sees.

    Raises:
        LyraError: neither a preset nor a readable file.
    """
    view = scene.input_camera
    factor = size / min(view.height, view.width)
    height, width = round(view.height * factor), round(view.width * factor)
    if cameras == "fly":
        path = fly_through(0.3, frames, view.intrinsics[0], view.height, view.width)
        return carry(scene, path).resized(height, width)
    if cameras == "still":
        return view[[0] * frames].resized(height, width)
    for name in TRAJECTORY_NAMES:
        if cameras == name:
            path = trajectory_cameras(
                name, DISTANCE_RANGES[name][1], frames, view.intrinsics[0], view.height, view.width
            )
            return carry(scene, path).resized(height, width)
    if not Path(cameras).is_file() and not is_camera_file(Path(cameras)):
        raise LyraError(f"{cameras} is neither a file nor one of: fly, still, {', '.join(TRAJECTORY_NAMES)}")
    return load_cameras(Path(cameras), height, width)


def carry(scene: Scene, path: Cameras) -> Cameras:
    """A path around the point one unit ahead of the origin, around the middle of a scene that lies elsewhere."""
    base = scene.input_camera.camera_to_world[0]
    if scene.unit == 1 and bool((base == torch.eye(4, device=base.device)).all()):
        return path
    poses = path.camera_to_world.clone()
    poses[:, :3, 3] *= scene.unit
    return replace(path, camera_to_world=base.to(poses) @ poses)


_WHOLE = TimeOptions()


def render_video(
    scene_path: Path,
    out: Path,
    cameras: str,
    frames: int,
    size: int,
    fps: int = 24,
    times: TimeOptions = _WHOLE,
    device: str = "auto",
) -> None:
    """Renders a scene folder or PLY along ``cameras`` to a film whose shorter side is ``size`` pixels.

    What the film is, its name's suffix says; see :func:`lyra.files.films.save_video`.

    Raises:
        LyraError: the scene, the cameras, the times or the output will not do.
    """
    if frames < 2 or not 16 <= size <= 4096:
        raise LyraError("a video needs at least 2 frames and a size of 16 to 4096 pixels")
    if fps < 1:
        raise LyraError(f"{fps} frames a second: give at least 1")
    check_film_name(out)
    scene = Scene.load(scene_path).to(find_device(device))
    path = choose_cameras(scene, cameras, frames, size)
    save_video(film_scene(scene, path, times.over(len(path))), out, fps=fps)


def write_fly_through(scene: Scene, path: Path, movement: float = 0.3) -> None:
    """A film of a smooth closed path through a scene; in a dynamic scene time runs once meanwhile."""
    shortest, longest = _FILM_SECONDS
    seconds = shortest if scene.dynamic is None else min(max(shortest, scene.dynamic.seconds), longest)
    cameras = film_path(scene, round(FILM_FPS * seconds), movement)
    times = torch.linspace(0, 1, len(cameras))
    save_video(film_scene(scene, cameras, times), path, fps=FILM_FPS)


def write_bullet(scene: Scene, path: Path, time: float = 0.5, movement: float = 0.3) -> None:
    """A film of the same path through a dynamic scene in which time stands still."""
    cameras = film_path(scene, round(FILM_FPS * _FILM_SECONDS[0]), movement)
    save_video(film_scene(scene, cameras, torch.full((len(cameras),), time)), path, fps=FILM_FPS)


def film_path(scene: Scene, frames: int, movement: float) -> Cameras:
    """Cameras of a scene's own films; where things move it goes less far than to the nearest of them.

    Args:
        scene: Still or moving.
        frames: Of the film.
        movement: Distance that it goes, in scene units.
    """
    camera = scene.input_camera
    factor = max(1, FILM_SIZE // max(camera.height, camera.width))
    if scene.dynamic is not None:
        movement = min(movement, _SHARE_OF_NEAREST * _find_nearest(scene))
    path = carry(scene, fly_through(movement, frames, camera.intrinsics[0], camera.height, camera.width))
    return path.resized(camera.height * factor, camera.width * factor)


@torch.no_grad()
def _find_nearest(scene: Scene) -> float:
    """How far the nearest of a scene that moves is from its first camera, in its unit: nobody is walked through."""
    camera = scene.input_camera
    small = camera.resized(max(1, camera.height // 4), max(1, camera.width // 4))
    depths = []
    for time in (0.0, 0.5, 1.0):
        rendering = scene.at(time).render(small)
        depths.append(rendering.depth[rendering.alpha > 0.5])
    depth = torch.cat(depths)
    return float(depth.quantile(0.02)) / scene.unit if len(depth) else float("inf")


@torch.no_grad()
def film_scene(
    scene: Scene, cameras: Cameras, times: Float[Tensor, "time"]
) -> Iterator[Float[Tensor, "3 height width"]]:
    """Pictures of a scene, one a camera; a dynamic one as it is at that camera's time.

    Each is drawn when it is asked for, since memory may not hold a large film.
    """
    cameras = cameras.to(scene.gaussians.means.device)
    empty = 0
    for i in tqdm(range(len(cameras)), desc="film", unit="frame", mininterval=0.5):
        rendering = scene.at(float(times[i])).render(cameras[i : i + 1])
        empty += int(float(rendering.alpha.mean()) < _LEAST_ALPHA)
        yield rendering.color[0].clamp(0, 1).cpu()
    if empty:
        count = "no frame" if empty == len(cameras) else f"{len(cameras) - empty} of {len(cameras)} frames"
        warnings.warn(f"the scene is in sight in {count}: look elsewhere (--cameras)", LyraWarning, stacklevel=2)
