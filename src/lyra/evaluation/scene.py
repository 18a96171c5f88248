"""Numbers about a finished scene, from its folder alone."""

import math
from pathlib import Path

import torch

from lyra.cache import render_cache
from lyra.cameras import Cameras
from lyra.clips import load_clip
from lyra.errors import LyraError
from lyra.evaluation.metrics import psnr
from lyra.formats import load_tensors
from lyra.scene import Scene
from lyra.synthesis import input_cache
from lyra.teacher import TeacherConfig


@torch.no_grad()
def evaluate_scene(folder: Path) -> dict[str, float | None]:
    """How a scene shows its photo.

    Returns:
        ``input_psnr``: rendered at the input camera against the photo at the model's size, dB.
        ``coverage``: share of pixels with alpha above 0.5 over all frames of the trajectories.
        ``visible_psnr``: over all frames, against the photo's own pixels warped by the predicted depth, where
        those land, dB; None where none do.
        ``seconds``, ``peak_memory_mb``: of the generation, as recorded; of its last leg after a resume.

    Raises:
        LyraError: the folder holds no finished scene.
    """
    scene = Scene.load(folder)
    if not {"model", "timings", "peak_memory_mb"} <= scene.provenance.keys():
        raise LyraError(f"{folder}/scene.json is not of generate: generate the scene again")
    paths = sorted((folder / "clips").glob("*/clip.safetensors"))
    if not paths or not (folder / "clips/input.safetensors").is_file():
        raise LyraError(f"{folder} has no clips to evaluate against: give a folder that generate wrote")
    view = load_tensors(folder / "clips/input.safetensors")
    camera = scene.input_camera
    teacher = TeacherConfig.from_json(scene.provenance["model"]["teacher"])
    cache = input_cache(view["image"], view["depth"], camera, teacher.edges)
    alphas, error, count = [], 0.0, 0.0
    for path in paths:
        cameras: Cameras = load_clip(path).cameras
        rendering = scene.render(cameras)
        warped = render_cache(cache, cameras)
        mask = warped.masks[:, 0, None]
        difference = rendering.color.clamp(0, 1) - (warped.images[:, 0] / 2 + 0.5)
        error += (difference.square() * mask).sum().item()
        count += 3 * mask.sum().item()
        alphas.append((rendering.alpha > 0.5).float().mean())
    timings = scene.provenance["timings"]
    return {
        "input_psnr": psnr(scene.render(camera).color[0], view["image"]),
        "coverage": torch.stack(alphas).mean().item(),
        "visible_psnr": -10 * math.log10(max(error / count, 1e-10)) if count else None,
        "seconds": round(sum(timings.values()), 3),
        "peak_memory_mb": scene.provenance["peak_memory_mb"],
    }
