"""What the student's stages cost: measured at mini's size, projected for the paper's from counted operations and bytes.

Counted is what the real classes do on tensors without content, at the paper's size, forward, recomputed and
backward: the decoder, the tokenizer's passes over pictures and Plücker maps, and VGG of the perceptual term. Assumed,
and written into the rows: what share of a GPU's peak is reached, and how long a view takes to render.
"""

import time
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from lyra.bench.decoder_cost import Case, make_inputs
from lyra.bench.measure import run_isolated
from lyra.device.memory import peak_memory_mb
from lyra.device.ranks import Ranks
from lyra.files.clips import Clip
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.trajectories import TRAJECTORY_NAMES, noise_generator, trajectory_cameras
from lyra.models.loading import load
from lyra.student.decoder import GaussianDecoder, count_gaussians
from lyra.student.moments import with_times
from lyra.synthesis.imagined import SyntheticScene
from lyra.tokenizer.tokenizer import encode_frames
from lyra.training.batches import SampleOrder
from lyra.training.ladders import GPUS, MINI, PAPER, Stage
from lyra.training.perceptual import choose_distance
from lyra.training.sharing import share_loss
from lyra.training.student_course import ask_of_stage, make_student
from lyra.views.views import Motion, Views

TERAFLOPS = 989.0
"""Of an H100 (SXM) in bfloat16, dense: its data sheet."""
REACHED = 0.3
"""Share of it that the networks reach: assumed."""
VIEW_SECONDS = 0.03
"""To render one view of six trajectories' Gaussians: the paper's 30 ms, unpruned."""
PRUNED_VIEW_SECONDS = 0.018
"""The same pruned: the paper's 18 ms."""
PASSES = 4
"""A view is rendered twice, and gradients cost about as much again twice: assumed."""
BASIS = (1980, 3960)
"""Tokens at which the decoder is counted; longer sequences are drawn out from these."""
TIMED = 3
"""Steps of which the quickest counts, after one to warm up."""
_VGG = ((3, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 2), (128, 256, 4), (256, 256, 4), (256, 256, 4)) + (
    ((256, 512, 8), (512, 512, 8), (512, 512, 8)) + 3 * ((512, 512, 16),)
)
"""VGG16's convolutions of 3 x 3: channels in and out, and how much smaller than the picture."""


def measure() -> list[dict[str, Any]]:
    """The rows of ``lyra bench stages``: mini's stages on this machine, then the paper's, projected."""
    rows = []
    for index, stage in enumerate(tqdm(MINI.stages, desc="bench stages", unit="stage")):
        rows.append({"stage": f"mini {stage.name}", "steps": _steps(MINI.stages, index)} | run_isolated(_time, index))
    for index, stage in enumerate(tqdm(PAPER.stages, desc="counting", unit="stage")):
        rows.append(project(stage, _steps(PAPER.stages, index)))
    return rows


def _steps(stages: tuple[Stage, ...], index: int) -> int:
    stage = stages[index]
    before = [s for s in stages[:index] if s.moving or not stage.moving or not s.prune]
    return stage.until - (before[-1].until if before else 0)


# Measured


def _time(index: int) -> dict[str, Any]:
    """One of mini's stages in this process: processor and wall seconds of a step."""
    stage, model = MINI.stages[index], load("mini")
    student = make_student(MINI)
    scenes = [_make_scene(model.tokenizer, 17, 128, stage.moving)]
    features, weights = choose_distance(stage.weights)
    asked = replace(stage, weights=weights)
    ask = ask_of_stage(model, student, scenes, asked, 0, features)
    loss = share_loss(student, ask, weights, SampleOrder(1, stage.batch), Ranks())
    optimizer = torch.optim.AdamW(student.parameters(), stage.learning_rate)
    best = (float("inf"), float("inf"))
    for step in range(1 + TIMED):
        began, processor = time.perf_counter(), time.process_time()
        optimizer.zero_grad()
        loss(step)[0].backward()
        optimizer.step()
        spent = (time.perf_counter() - began, time.process_time() - processor)
        best = min(best, spent) if step else best
    return {
        "samples_a_step": stage.batch,
        "seconds_a_step": best[0],
        "cpu_seconds_a_step": best[1],
        "threads": torch.get_num_threads(),
        "peak_memory_mb": peak_memory_mb(),
    }


def _make_scene(tokenizer: Any, frames: int, side: int, moving: bool) -> SyntheticScene:
    """Six clips of noise that is smooth: what they show does not change the work much."""
    generator = noise_generator(0, "bench stages")

    def noise(count: int) -> Tensor:
        coarse = torch.rand(count, 3, 6, 6, generator=generator)
        return F.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1)

    lens = intrinsics_from_fov(55.0, side, side)
    clips = []
    for name in TRAJECTORY_NAMES:
        cameras = trajectory_cameras(name, 0.3, frames, lens, side, side)
        clips.append(Clip(encode_frames(tokenizer, noise(1).expand(frames, -1, -1, -1)).float(), cameras))
    count = frames if moving else 1
    cameras = Cameras(torch.eye(4).expand(count, 4, 4), lens.expand(count, 4), side, side)
    images, depth = noise(1).expand(count, -1, -1, -1).clone(), 1 + noise(1)[:, 0].expand(count, -1, -1)
    if not moving:
        return SyntheticScene(Views(images, depth, cameras), tuple(clips))
    moves = torch.zeros(count, side, side, dtype=torch.bool)
    moves[:, : side // 4] = True
    motion = Motion(moves, ~moves.any(0), images[0], depth[0], 2.0)
    own = Clip(encode_frames(tokenizer, images).float(), cameras)
    return SyntheticScene(Views(images, depth, cameras, motion), (own, *clips), tuple(clips))


# Projected


@dataclass(frozen=True)
class Counted:
    """Of one sample of a stage, with the mean number of trajectories."""

    decoder: float
    """Floating-point operations, forward, recomputed and backward."""
    tokenizer: float
    """Pictures where they are encoded anew, both Plücker halves, and times."""
    perceptual: float
    memory: float
    """Bytes at the fullest moment."""


def project(stage: Stage, steps: int) -> dict[str, Any]:
    """A stage of the paper on its node of eight GPUs."""
    counted = count_stage(stage)
    views = _views(stage)
    a_view = PRUNED_VIEW_SECONDS if stage.prune else VIEW_SECONDS
    rendering = views * PASSES * a_view * (stage.size[0] * stage.size[1]) / (704 * 1280)
    operations = counted.decoder + counted.tokenizer + counted.perceptual
    seconds = operations / (REACHED * TERAFLOPS * 1e12) + rendering
    own = stage.batch // GPUS
    return {
        "stage": f"paper {stage.name}",
        "steps": steps,
        "samples_a_step": stage.batch,
        "decoder_tflop": counted.decoder / 1e12,
        "tokenizer_tflop": counted.tokenizer / 1e12,
        "perceptual_tflop": counted.perceptual / 1e12,
        "rendering_seconds": rendering,
        "seconds_a_step": own * seconds,
        "gpu_hours": own * seconds * steps * GPUS / 3600,
        "memory_gb": counted.memory / 2**30,
    }


def _views(stage: Stage) -> float:
    mean = sum(stage.trajectories) / len(stage.trajectories)
    return stage.targets if stage.moving else mean * stage.targets


def count_stage(stage: Stage) -> Counted:
    """Counts one sample's work with the published sizes.

    The number of trajectories is drawn; operations are means over it, memory is that of the most.
    """
    operations = [_count_decoder(stage, count) for count in sorted({1, *stage.trajectories})]
    by_count = dict(zip(sorted({1, *stage.trajectories}), operations, strict=True))
    mean = sum(by_count[count] for count in stage.trajectories) / len(stage.trajectories)
    clips = sum(stage.trajectories) / len(stage.trajectories)
    passes = (2 + (stage.gap is not None)) * clips + 2 * stage.moving
    pixels = stage.size[0] * stage.size[1]
    # Of prediction and truth, of the prediction again where it is recomputed, and twice as much for its gradient.
    vgg = 5 * sum(2 * 9 * a * b * pixels / shrink**2 for a, b, shrink in _VGG)
    return Counted(
        decoder=mean,
        tokenizer=passes * count_encoder(stage.frames, *stage.size),
        perceptual=vgg * _views(stage),
        memory=_count_memory(stage, max(stage.trajectories)),
    )


def _make_decoder(stage: Stage) -> GaussianDecoder:
    decoder = GaussianDecoder(PAPER.decoder)
    return with_times(decoder) if stage.moving else decoder


def _count_decoder(stage: Stage, trajectories: int) -> float:
    """Linear in the tokens but for attention's products, counted where the sequence is short and drawn out."""
    tokens = Case("mix", trajectories, stage.frames, *stage.size).tokens
    if tokens <= BASIS[-1]:
        return count_at(trajectories, stage.frames, *stage.size)
    (a, at_a), (b, at_b) = ((Case("mix", n, 17, 176, 320).tokens, count_at(n, 17, 176, 320)) for n in (3, 6))
    square = (at_b / b - at_a / a) / (b - a)
    return tokens * (at_a / a + square * (tokens - a))


@cache
def count_at(trajectories: int, frames: int, height: int, width: int) -> float:
    """Operations of the published decoder on clips, forward, forward again and backward."""
    with FakeTensorMode(), FlopCounterMode(display=False) as counter:
        gaussians = GaussianDecoder(PAPER.decoder)(make_inputs(Case("mix", trajectories, frames, height, width)), True)
        (gaussians.means.sum() + gaussians.colors.sum() + gaussians.opacities.sum()).backward()
    return float(counter.get_total_flops())


@cache
def count_encoder(frames: int, height: int, width: int) -> float:
    """Operations of the published tokenizer's encoder over one clip."""
    from diffusers import AutoencoderKLCosmos

    # Its wavelet filters are made before there can be a mode.
    fake = FakeTensorMode(allow_non_fake_inputs=True)
    with fake, FlopCounterMode(display=False) as counter, torch.no_grad():
        AutoencoderKLCosmos().encode(torch.zeros(1, 3, frames, height, width))
    return float(counter.get_total_flops())


def _count_memory(stage: Stage, trajectories: int) -> float:
    """Weights, gradients, average and AdamW's moments in float32; tokens between blocks; the fullest block; Gaussians.

    Pictures are kept twice a view, and VGG works on one view at a time.
    """
    tokens, width = Case("mix", trajectories, stage.frames, *stage.size).tokens, PAPER.decoder.width
    with FakeTensorMode():
        decoder, inputs = _make_decoder(stage), make_inputs(Case("mix", trajectories, stage.frames, *stage.size))
        block = max(_count_saved(kind, tokens, width) for kind in {type(b): b for b in decoder.blocks}.values())
    weights = 5 * 4 * sum(parameter.numel() for parameter in decoder.parameters())
    between = 2 * tokens * width * PAPER.decoder.depth
    # Fourteen numbers, their gradients, and what the renderer keeps of each.
    splats = 3 * 14 * 4 * count_gaussians(PAPER.decoder, inputs)
    pixels = stage.size[0] * stage.size[1]
    pictures = 2 * 5 * 4 * pixels * _views(stage)
    vgg = 2 * 2 * sum(b * pixels / shrink**2 for _, b, shrink in _VGG)
    return (weights + (stage.batch // GPUS) * (between + splats + pictures) + block + vgg) * 1.0


def _count_saved(block: nn.Module, tokens: int, width: int) -> float:
    """Bytes that a block keeps for its gradient, by what autograd is given to keep at an eighth of the tokens, in
    bfloat16.
    """
    share = max(1, tokens // BASIS[-1])
    seen: dict[int, int] = {}
    held = []

    def keep(tensor: Tensor) -> Tensor:
        seen[id(tensor)] = tensor.numel() * 2
        held.append(tensor)
        return tensor

    x = torch.zeros(1, max(1, tokens // share), width, requires_grad=True)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        block(x)
    return share * sum(seen.values())
