"""Students on the held-out scenes of a data set, against the frames that the teacher imagined of them.

That is what distillation teaches, and no more: the teacher is no truth. Beside the students stands what needs none.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lyra.engine.engine import Engine
from lyra.evaluation.metrics import psnr, ssim
from lyra.evaluation.scores import baselines
from lyra.geometry.cameras import concatenate_cameras
from lyra.geometry.gaussians import Gaussians
from lyra.models.model import Model
from lyra.rendering import render
from lyra.synthesis.imagined import SyntheticScene
from lyra.synthesis.streaming import DataSet

STRIDE = 4
"""Every how many frames of a clip are compared."""


@torch.no_grad()
def score_students(students: Mapping[str, Model], data: DataSet) -> list[dict[str, Any]]:
    """Mean PSNR (dB) and SSIM of every method over frames of all clips of a data set's still scenes.

    Args:
        students: Models of one tokenizer by the names of their rows; each reads all clips of a scene.
        data: Usually the split "held-out".
    """
    engines = {name: Engine(model, "cpu") for name, model in students.items()}
    found: dict[str, list[tuple[float, float]]] = {}
    for index in range(len(data)):
        scene = data[index].scene
        truth, shown = show_methods(engines, scene)
        for name, pictures in shown.items():
            pairs = zip(pictures.clamp(0, 1), truth, strict=True)
            found.setdefault(name, []).extend((psnr(ours, true), ssim(ours, true)) for ours, true in pairs)
    return [
        {"method": name, "psnr": sum(p for p, _ in rows) / len(rows), "ssim": sum(s for _, s in rows) / len(rows)}
        for name, rows in found.items()
    ]


def show_methods(
    engines: Mapping[str, Engine], scene: SyntheticScene
) -> tuple[Float[Tensor, "view 3 height width"], dict[str, Float[Tensor, "view 3 height width"]]]:
    """Frames of the teacher's, and what each method shows there."""
    engine = next(iter(engines.values()))
    picks = list(range(STRIDE, len(scene.clips[0].cameras), STRIDE))
    cameras = concatenate_cameras([clip.cameras[picks] for clip in scene.clips])
    truth = torch.cat([engine.frames(clip)[picks] for clip in scene.clips])
    shown = {}
    for name, one in engines.items():
        gaussians = one.decode([list(scene.clips)], scene.views)
        assert isinstance(gaussians, Gaussians)
        shown[name] = render(gaussians, cameras).color
    simple = baselines(scene.views.images[0], scene.views.depth[0], scene.views.cameras[:1], cameras)
    return truth, shown | simple
