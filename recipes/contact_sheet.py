"""A row of pictures of a scene folder: the input at the model's size, three new views, depth.

python recipes/contact_sheet.py scenes/room docs/images/room.png
"""

from pathlib import Path

import torch
import tyro

from lyra.formats import load_tensors, save_image
from lyra.scene import Scene
from lyra.trajectories import DISTANCE_RANGES, TrajectoryName, trajectory_cameras

VIEWS: tuple[TrajectoryName, ...] = ("left", "right", "zoom_in")


def contact_sheet(scene_folder: Path, out: Path, /, size: int = 256) -> None:
    """Writes the row; every picture is ``size`` pixels square, the input enlarged by nearest pixels."""
    scene, photo = Scene.load(scene_folder), load_tensors(scene_folder / "clips/input.safetensors")["image"]
    camera = scene.input_camera
    factor = size // camera.height
    cells = [photo.repeat_interleave(factor, 1).repeat_interleave(factor, 2)]
    with torch.no_grad():
        for name in VIEWS:
            path = trajectory_cameras(
                name, DISTANCE_RANGES[name][1], 17, camera.intrinsics[0], camera.height, camera.width
            )
            cells.append(scene.render(path[-1:].resized(size, size)).color[0])
        rendering = scene.render(camera.resized(size, size))
    near = (0.6 / rendering.depth[0].clamp(min=0.3)).clamp(max=1) * rendering.alpha[0]
    save_image(torch.cat([*cells, near.expand(3, -1, -1)], dim=-1).clamp(0, 1), out)


if __name__ == "__main__":
    tyro.cli(contact_sheet)
