"""A scene that grows three times to a side: what is added, what the first view keeps, and pictures of the seams.

lyra generate examples/room.png -o scenes/room
python recipes/explore_room.py scenes/room -o explored    # a copy grows
"""

import argparse
import math
import shutil
from pathlib import Path

import torch

import lyra
from lyra.evaluation.metrics import psnr
from lyra.files import save_cameras, save_image
from lyra.generate.extending import extend
from lyra.generate.generator import Generator
from lyra.generate.options import ExtendOptions
from lyra.geometry.cameras import Cameras
from lyra.views.views import Views

TURN = -20.0
"""Degrees of each extension; negative to the left."""
STEP = 0.08
"""Scene units that the camera moves ahead meanwhile, where it looks."""
FRAMES = 17


def walk(camera: Cameras, number: int) -> Cameras:
    """The path of one extension: each begins where the one before it ends."""
    pose, poses = torch.eye(4, dtype=torch.float64), []
    for frame in range((number + 1) * (FRAMES - 1) + 1):
        if frame >= number * (FRAMES - 1):
            poses.append(pose.float())
        angle = math.radians(TURN / (FRAMES - 1))
        move = torch.eye(4, dtype=torch.float64)
        move[0, 0] = move[2, 2] = math.cos(angle)
        move[0, 2], move[2, 0] = math.sin(angle), -math.sin(angle)
        move[2, 3] = STEP / (FRAMES - 1)
        pose = pose @ move
    lens = camera.intrinsics.expand(FRAMES, 4).clone()
    return Cameras(camera.camera_to_world @ torch.stack(poses), lens, camera.height, camera.width)


def main(source: Path, out: Path) -> None:
    """Lets a copy of a scene grow, and prints a row an extension."""
    shutil.copytree(source, out)
    model = Generator.load("mini")
    camera = lyra.Scene.load(out).input_camera
    first = Views.load(out / "clips/input.safetensors").images[0]

    def keep(scene: lyra.Scene) -> float:
        return psnr(scene.render(camera).color[0].clamp(0, 1), first)

    scene = lyra.Scene.load(out)
    print("extension  added  Gaussians  open before  after  first view  seconds")
    print(f"{'none':>9} {'':6} {len(scene.gaussians):10} {'':12} {'':6} {keep(scene):11.2f}", flush=True)
    rows = []
    for number in range(3):
        path = walk(camera, number)
        file = out / f"walk_{number + 1}.json"
        save_cameras(path, file)
        before = lyra.Scene.load(out)
        scene = extend(model, out, str(file), ExtendOptions())
        told = scene.provenance["extensions"][-1]
        pink = torch.tensor([1.0, 0.0, 1.0])
        middle = path[[FRAMES // 2, FRAMES - 1]]
        old, new = before.render(middle, pink), scene.render(middle, pink)
        rows.append(torch.cat([*old.color, *new.color], dim=-1))
        added = sum(clip["added"] for clip in told["clips"])
        seconds = sum(told["timings"].values())
        opened = [float((picture.alpha < 0.5).float().mean()) for picture in (old, new)]
        print(
            f"{number + 1:9} {added:6} {len(scene.gaussians):10} {opened[0]:12.3f} {opened[1]:6.3f} "
            f"{keep(scene):11.2f} {seconds:8.1f}",
            flush=True,
        )
    save_image(torch.cat(rows, dim=-2).clamp(0, 1), out / "seams.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scene", type=Path)
    parser.add_argument("-o", "--out", type=Path, required=True)
    arguments = parser.parse_args()
    main(arguments.scene, arguments.out)
