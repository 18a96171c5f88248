"""Folders of pictures with cameras and points, as reconstruction programs take them: COLMAP's and nerfstudio's layout.

Source: COLMAP's documentation of its text format; nerfstudio's ``transforms.json``.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lyra.files.atomic import explain_writing
from lyra.files.images import save_image
from lyra.files.strict_json import to_json
from lyra.files.transforms import OPENGL_TO_OPENCV
from lyra.geometry.cameras import Cameras
from lyra.geometry.gaussians import quaternion_from_matrix

APPLIED = np.array([[1.0, 0.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, -1.0, 0.0, 0.0]])
"""From a world with y down to nerfstudio's with z up, as its own converter of COLMAP's models applies it."""
POINTS = "points3D.ply"


@dataclass(frozen=True)
class PictureSet:
    """Pictures with one camera each, and colored points of what they show."""

    cameras: Cameras
    """In a world with y down."""
    pictures: Iterable[Float[Tensor, "3 height width"]]
    """In [0, 1], one a camera; each is asked for when it is written."""
    points: Float[Tensor, "point 3"]
    colors: Float[Tensor, "point 3"]
    """In [0, 1]."""

    def rows(self) -> Iterator[tuple[list[float], list[int]]]:
        """Places and colors from 0 to 255."""
        levels = (self.colors.clamp(0, 1) * 255).round().to(torch.uint8)
        yield from zip(self.points.double().tolist(), levels.tolist(), strict=True)


def save_colmap(content: PictureSet, folder: Path) -> None:
    """Writes ``images/0000.png`` and so on, and a sparse model in text: ``sparse/0/``.

    The points have no tracks: no picture's own points were matched.

    Raises:
        LyraError: the disk is full, or the folder cannot be written to.
    """
    names = _save_pictures(content, folder)
    model = folder / "sparse/0"
    cameras, images = ["# CAMERA_ID MODEL WIDTH HEIGHT PARAMS"], ["# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME"]
    views = content.cameras
    to_camera = views.to(torch.float64).world_to_camera
    quaternions = quaternion_from_matrix(to_camera[:, :3, :3])
    for index, name in enumerate(names):
        cameras.append(f"{index + 1} PINHOLE {views.width} {views.height} {_words(views.intrinsics[index])}")
        pose = _words(torch.cat([quaternions[index], to_camera[index, :3, 3]]))
        images += [f"{index + 1} {pose} {index + 1} {name}", ""]
    points = ["# POINT3D_ID X Y Z R G B ERROR TRACK"]
    for index, (place, color) in enumerate(content.rows()):
        points.append(f"{index + 1} {' '.join(f'{value:.7g}' for value in place)} {' '.join(map(str, color))} 0")
    with explain_writing(folder):
        model.mkdir(parents=True, exist_ok=True)
        for name, lines in (("cameras", cameras), ("images", images), ("points3D", points)):
            (model / f"{name}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def save_nerfstudio(content: PictureSet, folder: Path) -> None:
    """Writes ``images/``, ``transforms.json`` and the points as a PLY; the world has z up, cameras look along -z.

    Raises:
        LyraError: the disk is full, or the folder cannot be written to.
    """
    names = _save_pictures(content, folder)
    views = content.cameras
    square = np.vstack([APPLIED, [0, 0, 0, 1]])
    poses = square @ views.camera_to_world.double().numpy() @ OPENGL_TO_OPENCV
    lenses = views.intrinsics.double().tolist()
    frames = [
        {
            "file_path": f"images/{name}",
            "transform_matrix": pose.tolist(),
            **dict(zip(("fl_x", "fl_y", "cx", "cy"), lens, strict=True)),
        }
        for name, pose, lens in zip(names, poses, lenses, strict=True)
    ]
    told = {
        "camera_model": "OPENCV",
        "w": views.width,
        "h": views.height,
        "applied_transform": APPLIED.tolist(),
        "ply_file_path": POINTS,
        "frames": frames,
    }
    with explain_writing(folder):
        (folder / "transforms.json").write_text(to_json(told, indent=2) + "\n", encoding="utf-8")
        (folder / POINTS).write_bytes(_ply(content))


def _ply(content: PictureSet) -> bytes:
    """Points in nerfstudio's world as a binary PLY, plain enough to need no library."""
    types = [(axis, "<f4") for axis in "xyz"] + [(channel, "u1") for channel in ("red", "green", "blue")]
    table = np.zeros(len(content.points), dtype=types)
    places = content.points.double().numpy() @ APPLIED[:, :3].T
    levels = (content.colors.clamp(0, 1) * 255).round().numpy()
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(table)}"]
    for column, (name, kind) in enumerate(types):
        table[name] = places[:, column] if column < 3 else levels[:, column - 3]
        header.append(f"property {'float' if kind == '<f4' else 'uchar'} {name}")
    return "\n".join([*header, "end_header\n"]).encode() + table.tobytes()


def _save_pictures(content: PictureSet, folder: Path) -> list[str]:
    with explain_writing(folder):
        (folder / "images").mkdir(parents=True, exist_ok=True)
    names = [f"{index:04d}.png" for index in range(len(content.cameras))]
    for name, picture in zip(names, content.pictures, strict=True):
        save_image(picture, folder / "images" / name)
    return names


def _words(values: Tensor) -> str:
    return " ".join(repr(value) for value in values.double().tolist())
