"""A training step of the paper's decoder with random weights and the paper's losses: seconds and peak memory.

The step: the mix in bfloat16 with its blocks recomputed, Gaussians in float32, nine views rendered with deferred
gradients, squared error, perceptual term and invariant depth, AdamW. The paper's largest step is extrapolated, and says
so.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from tqdm import tqdm

from lyra.bench.decoder_cost import LARGE, MIDDLE, SMALL, Case, make_inputs
from lyra.bench.mamba_cost import best_of
from lyra.bench.measure import run_isolated
from lyra.device.memory import peak_memory_mb
from lyra.geometry.cameras import Cameras, intrinsics_from_fov, pixel_rays
from lyra.geometry.trajectories import trajectory_cameras
from lyra.rendering.deferred import render_deferred
from lyra.student import DecoderConfig, GaussianDecoder, StudentInputs
from lyra.training.losses import LossWeights, depth_loss
from lyra.training.perceptual import FeatureDistance

VIEWS = 9
"""Rendered a step, as in the paper's last static stage."""
WEIGHTS = LossWeights(perceptual=0.02)


@dataclass(frozen=True)
class Step:
    """One row: one trajectory."""

    frames: int
    height: int
    width: int
    recompute: bool = True

    @property
    def case(self) -> Case:
        """The decoder's work in it."""
        return Case("mix", 1, self.frames, self.height, self.width)


DEFAULT = (
    *(Step(frames, *SMALL, recompute=False) for frames in (17, 49)),
    *(Step(frames, *size) for size in (SMALL, MIDDLE) for frames in (17, 49, 121)),
    *(Step(frames, *LARGE) for frames in (17, 49)),
)
TARGET = Step(121, *LARGE)


def measure() -> list[dict[str, Any]]:
    """The rows of ``lyra bench training``, the last one extrapolated; a row that did not finish says why."""
    rows = [
        {**describe(step), **run_isolated(run_step, step)} for step in tqdm(DEFAULT, desc="bench training", unit="row")
    ]
    return [*rows, extrapolate(rows)]


def describe(step: Step) -> dict[str, Any]:
    """What a row is of."""
    return {**vars(step), "tokens": step.case.tokens}


def run_step(step: Step, config: DecoderConfig | None = None) -> dict[str, Any]:
    """One step, timed, in this process.

    Args:
        step: Its size.
        config: The published decoder's when None.
    """
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    decoder = GaussianDecoder(config or DecoderConfig()).to(device)
    inputs, cameras = _make_scene(step)
    inputs = inputs.to(device)
    cameras = cameras[torch.linspace(0, step.frames - 1, VIEWS).long()].to(device)
    truth = torch.rand(VIEWS, 3, step.height, step.width, device=device)
    depth = 0.5 + torch.rand(VIEWS, step.height, step.width, device=device)
    # The work is that of the picture brought to multiples of 32.
    features = FeatureDistance()
    features.encoder.to(device)
    optimizer = torch.optim.AdamW(decoder.parameters())
    found: dict[str, Any] = {}

    def call() -> None:
        with torch.autocast(device, torch.bfloat16):
            gaussians = decoder(inputs, recompute=step.recompute)
        gaussians = gaussians.map(lambda tensor: tensor[0].float())
        rendering = render_deferred(gaussians, cameras)
        loss = WEIGHTS.color * (rendering.color - truth).square().mean()
        loss = loss + WEIGHTS.depth * depth_loss(rendering.depth, depth, rendering.alpha.detach() > 0.01)
        loss = loss + WEIGHTS.perceptual * features(_whole_cells(rendering.color), _whole_cells(truth))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.update(gaussians=len(gaussians), loss=loss.item())

    timing = best_of(call, 2 if step.case.tokens < 2_000 else 1)
    peak = torch.cuda.max_memory_allocated() >> 20 if device == "cuda" else peak_memory_mb()
    return {**found, "threads": torch.get_num_threads(), **vars(timing), "peak_memory_mb": peak}


def _make_scene(step: Step) -> tuple[StudentInputs, Cameras]:
    """Random latents along the rays of a trajectory, so that the Gaussians lie in view, and its cameras."""
    lens = intrinsics_from_fov(55.0, step.height, step.width)
    cameras = trajectory_cameras("left", 0.3, step.frames, lens, step.height, step.width)
    origins, directions = pixel_rays(cameras.resized(step.height // 8, step.width // 8))
    inputs = make_inputs(step.case)
    return replace(inputs, ray_origins=origins[None, None], ray_directions=directions[None, None]), cameras


def _whole_cells(images: torch.Tensor) -> torch.Tensor:
    height, width = (side // 32 * 32 for side in images.shape[-2:])
    return images[..., :height, :width]


def extrapolate(rows: Sequence[dict[str, Any]], target: Step = TARGET) -> dict[str, Any]:
    """Memory and time of a step by the line through the two longest measured ones of its size.

    ``over`` says how many times what was measured the same line gives for as many frames at smaller sizes.
    """
    row = {**describe(target), "variant": "extrapolated"}
    names = ("peak_memory_mb", "seconds")
    sizes = {(r["height"], r["width"]) for r in rows}
    found = {size: _line([r for r in rows if (r["height"], r["width"]) == size], target.frames) for size in sizes}
    line = found.get((target.height, target.width))
    if line is None:
        return {**row, "error": "too few steps were measured"}
    row |= {name: round(line(target.case.tokens, name)) for name in names}
    known = [r for r in rows if r["frames"] == target.frames and "error" not in r]
    for name in names:
        ratios = [at(r["tokens"], name) / r[name] for r in known if (at := found[r["height"], r["width"]])]
        row[f"{name}_over"] = [round(ratio, 2) for ratio in ratios]
    return row


def _line(rows: Sequence[dict[str, Any]], below: int) -> Callable[[int, str], float] | None:
    """A quantity by the number of tokens, through two recomputed steps of fewer frames."""
    known = [row for row in rows if row["recompute"] and "error" not in row and row["frames"] < below]
    if len(known) < 2:
        return None
    first, second = sorted(known, key=lambda row: row["tokens"])[-2:]

    def at(tokens: int, name: str) -> float:
        slope = (second[name] - first[name]) / (second["tokens"] - first["tokens"])
        return second[name] + slope * (tokens - second["tokens"])

    return at
