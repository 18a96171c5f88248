"""Scenes of a fixed list of pictures and prompts, none left out: a row each of the input, three new views, and depth.

python recipes/gallery.py docs/images/gallery.jpg --model mini
python recipes/gallery.py --pictures photo.jpg other.jpg

Worlds are held out from training; the photographs (scikit-image's, in the public domain or CC0) never enter it.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
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
PROMPTS = (
    "a red sofa and a floor lamp in a living room, evening",
    "a blue house in a meadow with trees, morning",
    "a wooden table with a green vase and two apples",
    "a narrow street of brick houses in the rain",
    "a yellow car in front of a white house",
)
"""Written before any of them was drawn."""
VIEWS: tuple[TrajectoryName, ...] = ("left", "zoom_out", "zoom_in")


def fixed_pictures(size: int = 512) -> dict[str, Tensor]:
    """The list: [3 height width] in [0, 1] by name."""
    camera = Cameras(torch.eye(4)[None], intrinsics_from_fov(55.0, size, size)[None], size, size)
    worlds = {f"world {seed}": render_world(sample_world(seed), camera)[0][0].clamp(0, 1) for seed in WORLDS}
    photographs = {
        name: torch.from_numpy(np.array(getattr(data, name)())).movedim(-1, 0).float() / 255 for name in PHOTOGRAPHS
    }
    return worlds | photographs


def row(scene: Scene, photo: Tensor, width: int) -> Tensor:
    """Whole input, new views at the far ends of movements, depth: each so wide, and as high as its shape says."""
    camera = scene.input_camera
    height = round(width * camera.height / camera.width)
    resized = F.interpolate(photo[None], size=(height, width), mode="bicubic", antialias=True)[0].clamp(0, 1)
    cells = [resized]
    with torch.no_grad():
        for name in VIEWS:
            path = trajectory_cameras(
                name, DISTANCE_RANGES[name][0], 17, camera.intrinsics[0], camera.height, camera.width
            )
            cells.append(scene.render(path[-1:].resized(height, width)).color[0])
        rendering = scene.render(camera.resized(height, width))
    near = (0.6 / rendering.depth[0].clamp(min=0.3)).clamp(max=1) * rendering.alpha[0]
    return torch.cat([*cells, near.expand(3, -1, -1)], dim=-1).clamp(0, 1)


def show(model: Generator, source: Tensor | str, width: int) -> tuple[Tensor, dict[str, float | None]]:
    """The row and numbers of a picture, or of a prompt."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "scene"
        if isinstance(source, str):
            scene = model.generate(None, out, prompt=source)
        else:
            save_image(source, Path(folder) / "picture.png")
            scene = model.generate(Path(folder) / "picture.png", out)
        return row(scene, load_tensors(out / "clips/input.safetensors")["image"], width), evaluate_scene(out)


def stack(rows: list[Tensor], columns: int) -> Tensor:
    """Rows of one width below each other in columns of about one height; white where one ends before another."""
    stacks: list[list[Tensor]] = [[] for _ in range(columns)]
    for one in rows:
        min(stacks, key=lambda column: sum(r.shape[1] for r in column)).append(one)
    joined = [torch.cat(column, dim=1) for column in stacks if column]
    tallest = max(column.shape[1] for column in joined)
    return torch.cat([F.pad(column, (0, 0, 0, tallest - column.shape[1]), value=1.0) for column in joined], dim=2)


def gallery(
    out: tyro.conf.Positional[Path | None] = None,
    /,
    model: str = "mini",
    size: int = 240,
    columns: int = 2,
    pictures: tuple[Path, ...] = (),
    json: bool = False,
) -> None:
    """Writes the sheet (PNG or JPEG by its name) where one is asked for, and prints each picture's numbers.

    Args:
        out: The sheet.
        model: What makes the scenes.
        size: Pixels of a cell from left to right.
        columns: Of the sheet.
        pictures: In place of the fixed list, which ends with prompts.
        json: One JSON object on stdout.
    """
    loaded, rows, told = lyra.load(model), [], []
    chosen: dict[str, Tensor | str] = {path.name: load_image(path) for path in pictures}
    chosen = chosen or {**fixed_pictures(), **{text: text for text in PROMPTS}}
    for name, picture in chosen.items():
        cells, numbers = show(loaded, picture, size)
        rows.append(cells)
        told.append({"picture": name, **numbers})
    print_rows(told, json)
    if out is None:
        return
    sheet = (stack(rows, columns) * 255).round().byte().movedim(0, -1).numpy()
    Image.fromarray(sheet).save(out, quality=88)


if __name__ == "__main__":
    tyro.cli(gallery)
