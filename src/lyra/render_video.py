"""A scene along a camera path, as a video."""

from pathlib import Path

import torch
from tqdm import tqdm

from lyra.cameras import Cameras
from lyra.errors import LyraError
from lyra.formats import load_cameras, save_video
from lyra.scene import Scene
from lyra.trajectories import DISTANCE_RANGES, TRAJECTORY_NAMES, fly_through, trajectory_cameras


def choose_cameras(scene: Scene, cameras: str, frames: int, size: int) -> Cameras:
    """Cameras of a preset ("fly" or a trajectory at the largest distance of its range), or of a JSON file.

    Raises:
        LyraError: neither a preset nor a readable file.
    """
    view = scene.input_camera
    factor = size / min(view.height, view.width)
    height, width = round(view.height * factor), round(view.width * factor)
    if cameras == "fly":
        return fly_through(0.3, frames, view.intrinsics[0], view.height, view.width).resized(height, width)
    for name in TRAJECTORY_NAMES:
        if cameras == name:
            path = trajectory_cameras(
                name, DISTANCE_RANGES[name][1], frames, view.intrinsics[0], view.height, view.width
            )
            return path.resized(height, width)
    if not Path(cameras).is_file():
        raise LyraError(f"{cameras} is neither a file nor one of: fly, {', '.join(TRAJECTORY_NAMES)}")
    return load_cameras(Path(cameras), height, width)


@torch.no_grad()
def render_video(scene_path: Path, out: Path, cameras: str, frames: int, size: int, fps: int = 24) -> None:
    """Renders a scene folder or PLY along ``cameras`` to an mp4 file whose shorter side is ``size`` pixels.

    Raises:
        LyraError: the scene, the cameras or the output will not do.
    """
    if frames < 2 or not 16 <= size <= 4096:
        raise LyraError("a video needs at least 2 frames and a size of 16 to 4096 pixels")
    scene = Scene.load(scene_path)
    path = choose_cameras(scene, cameras, frames, size)
    images = [
        scene.render(path[i : i + 1]).color[0]
        for i in tqdm(range(len(path)), desc="render", unit="frame", mininterval=0.5)
    ]
    save_video(torch.stack(images).clamp(0, 1), out, fps=fps)
