"""Whether a depth network's depth explains a real posed capture better than a plane does.

    recipes/posed_capture.py CAPTURE --models mini runs/depth/model

CAPTURE holds ``transforms.json`` (OpenGL axes, pixels) and its pictures. Every picture is warped to the next one by its
depth at the scale that fits best, holes take the nearest pixel; the mean PSNR is printed beside a plane's.
"""

import json
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor

import lyra
from lyra.depth import scene_depth
from lyra.evaluation import psnr
from lyra.evaluation.scores import fill_with_nearest, warp_input
from lyra.files import load_image
from lyra.geometry.cameras import Cameras

SCALES = torch.logspace(-0.5, 1.6, 24).tolist()
"""Of the median depth, in units of the capture's poses."""


def read_capture(folder: Path, width: int) -> list[tuple[Tensor, Tensor, Cameras]]:
    """Each picture whole and small, and its camera at the small size."""
    content = json.loads((folder / "transforms.json").read_text())
    found = []
    for frame in content["frames"]:
        k = {key: frame.get(key, content.get(key)) for key in ("fl_x", "fl_y", "cx", "cy", "w", "h")}
        pose = torch.tensor(frame["transform_matrix"], dtype=torch.float32)
        pose[:3, 1:3] *= -1
        intrinsics = torch.tensor([k["fl_x"], k["fl_y"], k["cx"], k["cy"]], dtype=torch.float32)
        camera = Cameras(pose[None], intrinsics[None], int(k["h"]), int(k["w"]))
        height = round(width * camera.height / camera.width)
        image = load_image(folder / frame["file_path"])
        small = F.interpolate(image[None], size=(height, width), mode="area")[0]
        found.append((image, small, camera.resized(height, width)))
    return found


def best_warp(image: Tensor, depth: Tensor, camera: Cameras, target: Cameras, truth: Tensor) -> float:
    """PSNR in dB of the picture warped at the scale that fits the covered pixels best."""
    relative, origin = target.relative_to(camera.camera_to_world[0]), camera.relative_to(camera.camera_to_world[0])
    best, shown = -1.0, image
    for scale in SCALES:
        warped, covered = warp_input(image, depth * scale, origin, relative)
        if covered.float().mean() < 0.5:
            continue
        error = (warped[0] - truth).square().mean(0)[covered[0]].mean()
        value = -10 * torch.log10(error).item()
        if value > best:
            best, shown = value, fill_with_nearest(warped, covered)[0]
    return psnr(shown, truth)


def main(capture: Path, models: tuple[str, ...] = ("mini",), pairs: int = 15, width: int = 256) -> None:
    views = read_capture(capture, width)
    networks = {name: lyra.load(name).depth for name in models}
    rows: dict[str, list[float]] = {name: [] for name in ("plane", *networks)}
    for index in torch.linspace(0, len(views) - 2, pairs).long().tolist():
        (whole, image, camera), (_, truth, target) = views[index], views[index + 1]
        maps = {"plane": torch.ones(image.shape[1:])}
        for name, network in networks.items():
            depth = scene_depth(network.predict(whole))
            maps[name] = F.interpolate(depth[None, None], size=image.shape[1:], mode="nearest-exact")[0, 0]
        for name, depth in maps.items():
            rows[name].append(best_warp(image, depth, camera, target, truth))
    for name, values in rows.items():
        print(f"{name:>24} {sum(values) / len(values):.2f} dB over {len(values)} pairs")


if __name__ == "__main__":
    tyro.cli(main)
