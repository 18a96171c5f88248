"""Scenes of a fixed list of pictures, none left out: a row each of the input, three new views, and depth.

python recipes/gallery.py docs/images/gallery.jpg --model mini
python recipes/gallery.py --pictures photo.jpg other.jpg

Worlds are held out from training; the photographs (scikit-image's, in the public domain or CC0) never enter it.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
import tyro
from PIL import Image
from skimage import data
from torch import Tensor

import lyra
from lyra.evaluation import evaluate_scene
from lyra.files import load_image, load_tensors, save_image
from lyra.files.tables import print_rows
from lyra.generate.generator import Generator
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.trajectories import DISTANCE_RANGES, TrajectoryName, trajectory_cameras
from lyra.scene.scene import Scene
from lyra.worlds import render_world, sample_world

WORLDS = (2, 8, 9, 14, 17, 22)
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
VIEWS: tuple[TrajectoryName, ...] = ("left", "zoom_out", "zoom_in")


def fixed_pictures(size: int = 512) -> dict[str, Tensor]:
    """The list: [3 height width] in [0, 1] by name."""
    camera = Cameras(torch.eye(4)[None], intrinsics_from_fov(55.0, size, size)[None], size, size)
    worlds = {f"world {seed}": render_world(sample_world(seed), camera)[0][0].clamp(0, 1) for seed in WORLDS}
    photographs = {
        name: torch.from_numpy(np.array(getattr(data, name)())).movedim(-1, 0).float() / 255 for name in PHOTOGRAPHS
    }
    return worlds | photographs


def row(scene: Scene, photo: Tensor, size: int) -> Tensor:
    """Input at the model's size, new views at the far ends of movements, depth."""
    camera = scene.input_camera
    cells = [photo.repeat_interleave(size // camera.height, 1).repeat_interleave(size // camera.height, 2)]
    with torch.no_grad():
        for name in VIEWS:
            path = trajectory_cameras(
                name, DISTANCE_RANGES[name][0], 17, camera.intrinsics[0], camera.height, camera.width
            )
            cells.append(scene.render(path[-1:].resized(size, size)).color[0])
        rendering = scene.render(camera.resized(size, size))
    near = (0.6 / rendering.depth[0].clamp(min=0.3)).clamp(max=1) * rendering.alpha[0]
    return torch.cat([*cells, near.expand(3, -1, -1)], dim=-1).clamp(0, 1)


def show(model: Generator, picture: Tensor, size: int) -> tuple[Tensor, dict[str, float | None]]:
    """One picture's row and numbers."""
    with tempfile.TemporaryDirectory() as folder:
        save_image(picture, Path(folder) / "picture.png")
        out = Path(folder) / "scene"
        scene = model.generate(Path(folder) / "picture.png", out)
        return row(scene, load_tensors(out / "clips/input.safetensors")["image"], size), evaluate_scene(out)


def gallery(
    out: tyro.conf.Positional[Path | None] = None,
    /,
    model: str = "mini",
    size: int = 256,
    columns: int = 2,
    pictures: tuple[Path, ...] = (),
    json: bool = False,
) -> None:
    """Writes the sheet (PNG or JPEG by its name) where one is asked for, and prints each picture's numbers.

    Args:
        out: The sheet.
        model: What makes the scenes.
        size: Pixels of a cell.
        columns: Of the sheet.
        pictures: In place of the fixed list.
        json: One JSON object on stdout.
    """
    loaded, rows, told = lyra.load(model), [], []
    chosen = {path.name: load_image(path) for path in pictures} or fixed_pictures()
    for name, picture in chosen.items():
        cells, numbers = show(loaded, picture, size)
        rows.append(cells)
        told.append({"picture": name, **numbers})
    print_rows(told, json)
    if out is None:
        return
    stacks = [torch.cat(rows[start::columns], dim=-2) for start in range(columns)]
    sheet = (torch.cat(stacks, dim=-1) * 255).round().byte().movedim(0, -1).numpy()
    Image.fromarray(sheet).save(out, quality=88)


if __name__ == "__main__":
    tyro.cli(gallery)
