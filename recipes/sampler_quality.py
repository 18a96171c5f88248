"""Quality of the teacher's samplers against the number of network evaluations.

python recipes/sampler_quality.py photo.jpg ... --out samplers.json

Each clip is decoded and compared by PSNR, without its given first frame, with the same clip (same noise) of the
published sampler in ``--reference`` steps, and with the limit of many small steps. Few-step sampling draws new noise at
every step, and so other clips: its rows only say how far apart clips are.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
import tyro
from torch import Tensor

import lyra
from lyra.cameras import intrinsics_from_fov
from lyra.depth import scene_depth
from lyra.evaluation.metrics import psnr
from lyra.formats import write_atomically
from lyra.inputs import load_photo
from lyra.model import Model
from lyra.synthesis import input_cache
from lyra.teacher import DiffusionTeacher, TeacherRequest
from lyra.teacher.diffusion import Sampler
from lyra.trajectories import TrajectoryName, draw_distance, trajectory_cameras

STEPS = {
    "euler": (4, 6, 8, 12, 16, 24),
    "heun": (3, 4, 6, 8, 12),
    "multistep": (4, 6, 8, 12, 16, 24),
    "few_step": (1, 2, 4),
}


def make_requests(model: Model, photo: Path, seed: int, names: tuple[TrajectoryName, ...]) -> list[TeacherRequest]:
    """Clips of one photo."""
    config = model.config.teacher
    image = load_photo(photo, config.height, config.width).image
    lens = intrinsics_from_fov(55.0, config.height, config.width)
    depth = scene_depth(model.depth.predict(image))
    requests = []
    for name in names:
        path = trajectory_cameras(name, draw_distance(name, seed), config.frames, lens, config.height, config.width)
        cache = input_cache(image, depth, path[:1], config.edges, config.warp)
        requests.append(TeacherRequest(image * 2 - 1, cache, path, seed, name))
    return requests


def sample(model: Model, sampler: Sampler, steps: int, requests: list[TeacherRequest]) -> list[Tensor]:
    """Decoded clips in [0, 1]."""
    teacher: DiffusionTeacher = model.teacher
    teacher.config = replace(model.config.teacher, sampler=sampler, steps=steps)
    clips = []
    with torch.no_grad():
        for request in requests:
            latents = model.tokenizer.denormalize(teacher.imagine(request)[None])
            clips.append((model.tokenizer.decode(latents)[0] / 2 + 0.5).clamp(0, 1))
    return clips


def sampler_quality(
    photos: tuple[Path, ...],
    /,
    out: Path | None = None,
    model: str = "mini",
    reference: int = 35,
    fine: int = 100,
    names: tuple[TrajectoryName, ...] = ("left", "zoom_in"),
    seed: int = 0,
) -> None:
    """Prints a table, and writes it as JSON to ``out``."""
    loaded = lyra.load(model)
    requests = [request for photo in photos for request in make_requests(loaded, photo, seed, names)]
    published = sample(loaded, "euler", reference, requests)
    limit = sample(loaded, "heun", fine, requests)
    rows = [_row("euler", reference, published, published, limit)]
    print(rows[-1], flush=True)
    for sampler, numbers in STEPS.items():
        for steps in numbers:
            rows.append(_row(sampler, steps, sample(loaded, cast(Sampler, sampler), steps, requests), published, limit))
            print(rows[-1], flush=True)
    if out is not None:
        with write_atomically(out) as path:
            path.write_text(json.dumps({"model": model, "reference": reference, "rows": rows}, indent=2) + "\n")


def _row(
    sampler: str, steps: int, clips: list[Tensor], published: list[Tensor], limit: list[Tensor]
) -> dict[str, object]:
    def mean(others: list[Tensor]) -> float | None:
        values = [psnr(clip[:, 1:], other[:, 1:]) for clip, other in zip(clips, others, strict=True)]
        return None if others is clips else round(sum(values) / len(values), 2)

    evaluations = 2 * steps - 1 if sampler == "heun" else steps
    names = {"sampler": sampler, "steps": steps, "evaluations": evaluations}
    return {**names, "psnr_to_published": mean(published), "psnr_to_limit": mean(limit)}


if __name__ == "__main__":
    tyro.cli(sampler_quality)
