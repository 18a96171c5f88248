"""One small world as captures in every layout, written here from the layouts' own documentation."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from scipy.spatial.transform import Rotation

from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.trajectories import trajectory_cameras
from lyra.worlds import render_world, sample_world

HEIGHT, WIDTH, COUNT = 48, 64, 6
ADDRESS = "https://www.youtube.com/watch?v=none"


@dataclass(frozen=True)
class Film:
    """What a camera saw, in its own unit, anywhere in the world."""

    color: torch.Tensor
    depth: torch.Tensor
    """Metres; 0 for the sky."""
    cameras: Cameras

    @property
    def pictures(self) -> list[Image.Image]:
        levels = (self.color * 255).round().byte().permute(0, 2, 3, 1).numpy()
        return [Image.fromarray(level) for level in levels]

    @property
    def levels(self) -> list[Image.Image]:
        return [Image.fromarray((depth * 1000).round().numpy().astype(np.uint16)) for depth in self.depth]


def film(unit: float = 2.0) -> Film:
    """A world seen from a camera that goes left, turned and moved away from the origin."""
    lens = intrinsics_from_fov(55.0, HEIGHT, WIDTH) + torch.tensor([0.0, 1.5, -1.0, 0.5])
    path = trajectory_cameras("left", 0.3, COUNT, lens, HEIGHT, WIDTH)
    color, depth = render_world(sample_world(7), path)
    depth = torch.where(depth < 30, depth * unit, 0.0)
    place = torch.eye(4)
    place[:3, :3] = torch.from_numpy(Rotation.from_rotvec([0.3, -1.2, 0.5]).as_matrix()).float()
    place[:3, 3] = torch.tensor([1.0, -2.0, 0.5])
    poses = path.camera_to_world.clone()
    poses[:, :3, 3] *= unit
    return Film(color, depth, Cameras(place @ poses, path.intrinsics, HEIGHT, WIDTH))


def write_nerfstudio(taken: Film, folder: Path, depth: bool = False, smaller: int = 1) -> Path:
    images = folder / ("images" if smaller == 1 else f"images_{smaller}")
    images.mkdir(parents=True)
    frames = []
    for i, (picture, pose) in enumerate(zip(taken.pictures, taken.cameras.camera_to_world, strict=True)):
        picture.resize((WIDTH // smaller, HEIGHT // smaller)).save(images / f"{i}.png")
        flipped = pose.clone()
        flipped[:3, 1:3] *= -1
        frames.append({"file_path": f"images/{i}.png", "transform_matrix": flipped.tolist()})
        if depth:
            (folder / "depths").mkdir(exist_ok=True)
            taken.levels[i].save(folder / f"depths/{i}.png")
            frames[-1]["depth_file_path"] = f"depths/{i}.png"
    names = ("fl_x", "fl_y", "cx", "cy")
    lens = dict(zip(names, taken.cameras.intrinsics[0].tolist(), strict=True))
    (folder / "transforms.json").write_text(json.dumps({"w": WIDTH, "h": HEIGHT, **lens, "frames": frames}))
    return folder


def _views(taken: Film) -> list[tuple[list[float], list[float]]]:
    """Quaternions w x y z and translations of world to camera."""
    views = taken.cameras.world_to_camera.double().numpy()
    turns = [Rotation.from_matrix(view[:3, :3]).as_quat()[[3, 0, 1, 2]].tolist() for view in views]
    return [(turn, view[:3, 3].tolist()) for turn, view in zip(turns, views, strict=True)]


def write_colmap(taken: Film, folder: Path, binary: bool) -> Path:
    model, images = folder / "sparse/0", folder / "images"
    model.mkdir(parents=True)
    images.mkdir()
    for i, picture in enumerate(taken.pictures):
        picture.save(images / f"{i:03d}.png")
    lens = taken.cameras.intrinsics[0].tolist()
    if not binary:
        (model / "cameras.txt").write_text(f"# cameras\n1 PINHOLE {WIDTH} {HEIGHT} {' '.join(map(str, lens))}\n")
        lines = [
            f"{i + 1} {' '.join(map(str, [*turn, *move]))} 1 {i:03d}.png\n\n"
            for i, (turn, move) in enumerate(_views(taken))
        ]
        (model / "images.txt").write_text("# images\n" + "".join(lines))
        return folder
    (model / "cameras.bin").write_bytes(struct.pack("<QiiQQ4d", 1, 1, 1, WIDTH, HEIGHT, *lens))
    data = struct.pack("<Q", COUNT)
    for i, (turn, move) in enumerate(_views(taken)):
        data += struct.pack("<i7di", i + 1, *turn, *move, 1) + f"{i:03d}.png".encode() + b"\0" + struct.pack("<Q", 0)
    (model / "images.bin").write_bytes(data)
    return folder


def write_real_estate(taken: Film, folder: Path, name: str = "0a1b2c") -> Path:
    """``folder/name.txt`` and ``folder/name/TIME.png``; pixels are square there."""
    (folder / name).mkdir(parents=True)
    lines = [ADDRESS]
    fx, fy, cx, cy = taken.cameras.intrinsics[0].tolist()
    for i, (picture, view) in enumerate(zip(taken.pictures, taken.cameras.world_to_camera, strict=True)):
        time = str(1000 * i + 7)
        picture.save(folder / name / f"{time}.png")
        numbers = [fx / WIDTH, fy / HEIGHT, cx / WIDTH, cy / HEIGHT, 0, 0, *view[:3].flatten().tolist()]
        lines.append(" ".join([time, *map(str, numbers)]))
    (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    return folder / f"{name}.txt"


def write_7_scenes(taken: Film, folder: Path) -> Path:
    folder.mkdir(parents=True)
    fx, fy, cx, cy = taken.cameras.intrinsics[0].tolist()
    (folder / "camera-intrinsics.txt").write_text(f"{fx}\t0\t{cx}\n0\t{fy}\t{cy}\n0\t0\t1\n")
    rows = zip(taken.pictures, taken.levels, taken.cameras.camera_to_world, strict=True)
    for i, (picture, level, pose) in enumerate(rows):
        picture.save(folder / f"frame-{i:06d}.color.jpg", quality=95)
        level.save(folder / f"frame-{i:06d}.depth.png")
        text = "\n".join("\t".join(f"{value:.8e}" for value in row) for row in pose.tolist())
        (folder / f"frame-{i:06d}.pose.txt").write_text(text + "\n")
    return folder


def write_tum(taken: Film, folder: Path) -> Path:
    (folder / "rgb").mkdir(parents=True)
    (folder / "depth").mkdir()
    lists: dict[str, list[str]] = {"rgb": ["# color images"], "depth": ["# depth maps"], "groundtruth": ["# truth"]}
    for i, (picture, depth) in enumerate(zip(taken.pictures, taken.depth, strict=True)):
        time = 1305031102.175304 + i / 30
        picture.save(folder / f"rgb/{time:.6f}.png")
        levels = (depth * 5000).round().numpy().astype(np.uint16)
        Image.fromarray(levels).save(folder / f"depth/{time + 0.009:.6f}.png")
        pose = taken.cameras.camera_to_world[i].double().numpy()
        numbers = [*pose[:3, 3], *Rotation.from_matrix(pose[:3, :3]).as_quat()]
        lists["rgb"].append(f"{time:.6f} rgb/{time:.6f}.png")
        lists["depth"].append(f"{time + 0.009:.6f} depth/{time + 0.009:.6f}.png")
        # Poses come a hundred times a second: others lie between.
        lists["groundtruth"].append(f"{time - 0.004:.4f} " + " ".join(f"{value:.7f}" for value in numbers))
        lists["groundtruth"].append(f"{time + 0.015:.4f} 9 9 9 0 0 0 1")
    for name, lines in lists.items():
        (folder / f"{name}.txt").write_text("\n".join(lines) + "\n")
    fx, fy, cx, cy = taken.cameras.intrinsics[0].tolist()
    (folder / "camera-intrinsics.txt").write_text(f"{fx} 0 {cx} 0 {fy} {cy} 0 0 1")
    return folder
