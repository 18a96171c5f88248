"""Numbers about a finished scene, from its folder alone."""

import math
import re
from pathlib import Path

import torch
from torch import Tensor

from lyra.cache.warp import DepthCache, render_cache
from lyra.errors import LyraError
from lyra.evaluation.metrics import psnr
from lyra.files.clips import load_clip
from lyra.geometry.cameras import Cameras
from lyra.scene.scene import Scene
from lyra.teacher import TeacherConfig
from lyra.views.views import Views

_INPUT_CLIP = re.compile(r"input(\.\d+)?")
"""Names of the clips of a video itself: of the whole, or of a chunk."""


@torch.no_grad()
def evaluate_scene(folder: Path) -> dict[str, float | None]:
    """How a scene shows its photo.

    Returns:
        ``input_psnr``: rendered at the input camera against the photo at the model's size, dB.
        ``coverage``: share of pixels with alpha above 0.5 over all frames of the trajectories; a video's own clips, at
        the input view, are none.
        ``visible_psnr``: over the same frames, against the photo's own pixels warped by the predicted depth, where
        those land, dB; None where none do.
        ``seconds``, ``peak_memory_mb``: of the generation, as recorded; of its last leg after a resume.
        Of a dynamic scene these are its first moment's, and there is more; see ``follow_input``.

    Raises:
        LyraError: the folder holds no finished scene.
    """
    scene = Scene.load(folder)
    if not {"model", "timings", "peak_memory_mb"} <= scene.provenance.keys():
        raise LyraError(f"{folder}/scene.json is not of generate: generate the scene again")
    paths = sorted((folder / "clips").glob("*/clip.safetensors"))
    if scene.dynamic is not None:
        paths = [path for path in paths if not _INPUT_CLIP.fullmatch(path.parent.name)]
    if not paths or not (folder / "clips/input.safetensors").is_file():
        raise LyraError(f"{folder} has no clips to evaluate against: give a folder that generate wrote")
    views = Views.load(folder / "clips/input.safetensors")
    camera = scene.input_camera
    teacher = TeacherConfig.from_json(scene.provenance["model"]["teacher"])
    first = Views(views.images[:1], views.depth[:1], camera)
    cache = first.cache(teacher.edges)
    assert isinstance(cache, DepthCache)
    alphas, error, count = [], 0.0, 0.0
    still = scene.at(0.0)
    for path in paths:
        cameras: Cameras = load_clip(path).cameras
        rendering = still.render(cameras)
        warped = render_cache(cache, cameras)
        mask = warped.masks[:, 0, None]
        difference = rendering.color.clamp(0, 1) - (warped.images[:, 0] / 2 + 0.5)
        error += (difference.square() * mask).sum().item()
        count += 3 * mask.sum().item()
        alphas.append((rendering.alpha > 0.5).float().mean())
    timings = scene.provenance["timings"]
    numbers = {
        "input_psnr": psnr(still.render(camera).color[0], views.images[0]),
        "coverage": torch.stack(alphas).mean().item(),
        "visible_psnr": -10 * math.log10(max(error / count, 1e-10)) if count else None,
        "seconds": round(sum(timings.values()), 3),
        "peak_memory_mb": scene.provenance["peak_memory_mb"],
    }
    if scene.dynamic is None:
        return numbers
    return numbers | follow_input(scene, views)


def follow_input(scene: Scene, views: Views) -> dict[str, float | None]:
    """How a dynamic scene shows its video, at the input camera.

    Returns:
        ``video_psnr``, ``least_psnr``: mean and least over all times, dB.
        ``moving_psnr``, ``frozen_psnr``: the scene's, and that of the scene frozen at its first moment, on pixels that
        move at the time or did at the first, mean over all times but the first.
        ``flicker``, ``input_flicker``: mean absolute change from frame to frame on pixels that the input never
        changes, of the scene and of the video itself, in 8-bit levels; None where there are none.
    """
    assert scene.dynamic is not None
    count = len(views)
    frames = torch.stack(
        [scene.at(i / (count - 1)).render(views.cameras[i : i + 1]).color[0] for i in range(count)]
    ).clamp(0, 1)
    frozen = torch.stack([scene.at(0.0).render(views.cameras[i : i + 1]).color[0] for i in range(count)]).clamp(0, 1)
    motion = views.moves()
    moved = motion.moving | motion.moving[:1]
    later = [i for i in range(1, count) if bool(moved[i].any())]

    def moving(shown: Tensor) -> float | None:
        if not later:
            return None
        return sum(psnr(shown[i], views.images[i], moved[i][None]) for i in later) / len(later)

    def flicker(shown: Tensor) -> float | None:
        still = shown.diff(dim=0).abs()[..., motion.still]
        return 255 * still.mean().item() if still.numel() else None

    each = [psnr(frames[i], views.images[i]) for i in range(count)]
    return {
        "video_psnr": sum(each) / count,
        "least_psnr": min(each),
        "moving_psnr": moving(frames),
        "frozen_psnr": moving(frozen),
        "flicker": flicker(frames),
        "input_flicker": flicker(views.images),
    }
