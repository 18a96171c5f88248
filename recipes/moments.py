"""What a dynamic scene costs: batched target times, and what stays stored once.

python recipes/moments.py SCENE_FOLDER... [--model mini]

Each folder is of ``lyra generate VIDEO``; its first chunk is decoded anew.
"""

import statistics
import time
from pathlib import Path
from typing import Annotated

import tyro

import lyra
from lyra.engine.engine import Engine
from lyra.evaluation import psnr
from lyra.files.clips import load_clip
from lyra.files.tables import format_table
from lyra.geometry.dynamic import DynamicGaussians, separate
from lyra.geometry.trajectories import DISTANCE_RANGES, TRAJECTORY_NAMES, trajectory_cameras
from lyra.models.model import Model
from lyra.rendering import render
from lyra.student import GaussianDecoder, StudentInputs
from lyra.student.inputs import frame_times
from lyra.student.moments import Source, at_every_frame, decode_series
from lyra.views.views import Views

BATCHES = (1, 2, 4)
REPEATS = 2


def load_inputs(model: Model, folder: Path) -> tuple[GaussianDecoder, StudentInputs, Source, Views]:
    """The student's inputs of a scene's first chunk."""
    views = Views.load(folder / "clips/input.safetensors").part(0, model.config.teacher.frames)
    found = [sorted(folder.glob(f"clips/{name}*/clip.safetensors"))[0] for name in ("input", *TRAJECTORY_NAMES)]
    decoder = at_every_frame(model.decoder, model.tokenizer.spec.temporal)
    inputs, source = Engine(model).moving_inputs([load_clip(path) for path in found], views, decoder)
    return decoder, inputs, source, views


def main(scenes: Annotated[list[Path], tyro.conf.Positional], model: str = "mini") -> None:
    """Prints a table of both."""
    loaded = lyra.load(model)
    rows = []
    for folder in scenes:
        decoder, inputs, source, views = load_inputs(loaded, folder)
        series = decode_series(decoder, inputs, source, loaded.tokenizer)
        seconds: dict[int, list[float]] = {batch: [] for batch in BATCHES}
        for _ in range(REPEATS):
            for batch in BATCHES:
                began = time.monotonic()
                decode_series(decoder, inputs, source, loaded.tokenizer, batch)
                seconds[batch].append(time.monotonic() - began)
        frames = frame_times(len(views))
        kept = separate(series, frames, views.moves().seconds)
        rows.append(
            {
                "scene": folder.name,
                **{f"batch {batch}, s": round(statistics.median(seconds[batch]), 2) for batch in BATCHES},
                **compare_storage(series, kept, views),
            }
        )
    print(format_table(rows))


def compare_storage(series: lyra.Gaussians, kept: DynamicGaussians, views: Views) -> dict[str, float]:
    """Rendered difference of stored once and not, the least at three times from three cameras; Gaussians of both."""
    lens, (height, width) = views.cameras.intrinsics[0], views.images.shape[2:]
    left, up = (
        trajectory_cameras(name, DISTANCE_RANGES[name][0], 17, lens, height, width)[16:] for name in ("left", "up")
    )
    shown = [
        (render(kept.moment(i), camera).color, render(series.map(lambda t, i=i: t[i]), camera).color)
        for i in (0, len(kept) // 2, len(kept) - 1)
        for camera in (views.cameras[:1], left, up)
    ]
    one = max(int((opacities > 2 / 255).sum()) for opacities in series.opacities)
    return {
        "stored once, dB": round(min(psnr(a, b) for a, b in shown), 1),
        "Gaussians": len(kept.static) + sum(len(moment) for moment in kept.moments),
        "of one time": one,
        "of all times": int((series.opacities > 2 / 255).sum()),
    }


if __name__ == "__main__":
    tyro.cli(main)
