"""scikit-image's motorcycle pair (Middlebury 2014): depth of the left picture, and the right view from it alone.

python recipes/motorcycle.py --model mini

Depth: AbsRel after the best scale and shift in disparity, beside a vertical ramp and a constant. View: PSNR of the
scene, made from the left picture, at the right camera, against the real right picture, beside the left picture
repeated and a plane; each method's scale of the scene is the one that suits it best.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import tyro
from skimage import data
from torch import Tensor

import lyra
from lyra.evaluation import psnr
from lyra.evaluation.scores import fill_with_nearest, warp_input
from lyra.files import save_image
from lyra.files.tables import print_rows
from lyra.generate.generator import Generator
from lyra.geometry.cameras import Cameras

FOCAL_PX, OFFSET_PX = 994.978, 31.086
"""Of the pictures as scikit-image ships them, a quarter of the originals' size."""
CROP = 480


def absolute_relative_error(prediction: Tensor, disparity: Tensor) -> float:
    """AbsRel of depth after a least-squares scale and shift of a predicted disparity."""
    valid = disparity.isfinite() & (disparity > 0)
    p, d = prediction[valid].double(), disparity[valid].double()
    matrix = torch.stack([p, torch.ones_like(p)], dim=1)
    fitted = matrix @ torch.linalg.lstsq(matrix, d[:, None]).solution
    fitted = fitted[:, 0].clamp(min=1e-3 * d.median())
    return ((1 / fitted - 1 / d).abs() * d).mean().item()


def right_camera(camera: Cameras, baseline: float) -> Cameras:
    """The right camera in scene units; its principal point lies elsewhere on the sensor."""
    pose, intrinsics = camera.camera_to_world.clone(), camera.intrinsics.clone()
    pose[:, 0, 3] += baseline
    intrinsics[:, 2] += OFFSET_PX * camera.width / CROP
    return Cameras(pose, intrinsics, camera.height, camera.width)


def show_right_view(model: Generator, left: Tensor, right: Tensor, report: Path | None) -> dict[str, float]:
    """PSNR of every method at the right camera, in dB."""
    size = model.config.teacher.height
    truth = F.interpolate(right[None], size=(size, size), mode="area")[0]
    image = F.interpolate(left[None], size=(size, size), mode="area")[0]
    fov = 2 * np.degrees(np.arctan(CROP / 2 / FOCAL_PX))
    with tempfile.TemporaryDirectory() as folder:
        save_image(left, Path(folder) / "left.png")
        scene = model.generate(Path(folder) / "left.png", Path(folder) / "scene", fov=fov)
    camera = scene.input_camera
    plane = torch.ones(size, size)
    found = {"repeat": (psnr(image, truth), image)}
    for baseline in np.linspace(0.03, 0.16, 27):
        at = right_camera(camera, float(baseline))
        shown = {
            "student": scene.render(at).color[0],
            "plane": fill_with_nearest(*warp_input(image, plane, camera, at))[0],
        }
        for name, color in shown.items():
            found[name] = max(found.get(name, (0.0, color)), (psnr(color, truth), color), key=lambda pair: pair[0])
    if report is not None:
        pictures = [truth, *(found[name][1].clamp(0, 1) for name in ("student", "plane", "repeat"))]
        save_image(torch.cat(pictures, dim=-1), report / "motorcycle.png")
    return {name: value for name, (value, _) in found.items()}


def main(model: str = "mini", report: Path | None = None, json: bool = False) -> None:
    """Prints both comparisons."""
    loaded, rows = lyra.load(model), []
    left, right, disparity = data.stereo_motorcycle()
    left, right = (torch.from_numpy(x.copy()).movedim(-1, 0).float() / 255 for x in (left, right))
    disparity = torch.from_numpy(disparity.copy()).float() + OFFSET_PX
    prediction = loaded.depth.predict(left)
    height, width = disparity.shape
    ramp = torch.linspace(0, 1, height)[:, None].expand(height, width)
    for name, values in {
        "model": prediction.valid / prediction.depth,
        "ramp": ramp,
        "constant": torch.ones(height, width),
    }.items():
        rows.append({"of": "depth", "method": name, "absrel": absolute_relative_error(values, disparity)})
    top, side = (height - CROP) // 2, (width - CROP) // 2
    window = (slice(top, top + CROP), slice(side, side + CROP))
    for name, value in show_right_view(loaded, left[:, *window], right[:, *window], report).items():
        rows.append({"of": "right view", "method": name, "psnr": value})
    print_rows(rows, json)


if __name__ == "__main__":
    tyro.cli(main)
