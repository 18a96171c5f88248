"""The paper's decoder with random weights: seconds and memory by trajectories, frames and resolution.

Variants: the paper's mix of seven Mamba-2 blocks to one of attention; attention alone; the mix on pixels instead of
latents, which makes the same Gaussians of the same views; and rendering, whole and pruned.
"""

import resource
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from tqdm import tqdm

from lyra.bench.mamba_cost import best_of
from lyra.bench.measure import run_isolated
from lyra.bench.render_cost import random_scene
from lyra.device.memory import peak_memory_mb
from lyra.geometry.gaussians import prune
from lyra.rendering import render
from lyra.student.decoder import DecoderConfig, GaussianDecoder, StudentInputs, count_gaussians, decode_scene

Variant = Literal["mix", "transformer", "pixels"]
LATENTS = DecoderConfig()
CONFIGS: dict[Variant, DecoderConfig] = {
    "mix": LATENTS,
    "transformer": replace(LATENTS, attention_every=1),
    # One token a block of 8x8 pixels of every frame, which is one Gaussian.
    "pixels": replace(LATENTS, latent_channels=3, token_patch=8, splats_per_token=1, splat_frames=1),
}
BASIS_TOKENS = 21_120
SIX = 337_920
"""Tokens of six trajectories of 121 frames of 704x1280."""


@dataclass(frozen=True)
class Case:
    """One row."""

    variant: Variant
    trajectories: int
    frames: int
    height: int
    width: int
    memory_gb: float | None = None
    """Address space that the process is held to."""

    @property
    def tokens(self) -> int:
        """Length of the sequence."""
        config = CONFIGS[self.variant]
        if self.variant == "pixels":
            side = config.token_patch
            return self.trajectories * self.frames * (self.height // side) * (self.width // side)
        side = 8 * config.token_patch
        return self.trajectories * (1 + (self.frames - 1) // 8) * (self.height // side) * (self.width // side)


SMALL, MIDDLE, LARGE = (176, 320), (352, 640), (704, 1280)
DEFAULT = (
    *(Case("mix", views, 17, *SMALL) for views in range(1, 7)),
    *(Case("mix", 1, frames, *SMALL) for frames in (49, 121)),
    Case("mix", 6, 121, *SMALL),
    *(Case("mix", 1, frames, *MIDDLE) for frames in (17, 49)),
    Case("mix", 1, 17, *LARGE),
    *(Case("transformer", views, 17, *SMALL) for views in (1, 6)),
    Case("transformer", 1, 17, *LARGE),
    *(Case("pixels", 1, frames, *SMALL) for frames in (17, 49)),
    Case("pixels", 1, 121, *LARGE, memory_gb=12.0),
)
FULL = tuple(
    Case(variant, views, frames, *size)
    for variant in ("mix", "transformer")
    for size in (SMALL, MIDDLE, LARGE)
    for frames in (17, 49, 121)
    for views in range(1, 7)
)


def measure(full: bool = False) -> list[dict[str, Any]]:
    """The rows of ``lyra bench decoder``; a row that did not finish says why.

    Args:
        full: Every number of trajectories, frames and resolution instead of a choice that takes minutes; hours on a
            CPU.
    """
    cases = list(dict.fromkeys((*DEFAULT, *FULL))) if full else DEFAULT
    rows = [
        {**vars(case), "tokens": case.tokens, **run_isolated(_measure, case)}
        for case in tqdm(cases, desc="bench decoder", unit="row")
    ]
    rows += compose(run_isolated(_measure_layers, BASIS_TOKENS))
    rows += [run_isolated(_measure_rendering, 1_703_680, *LARGE)]
    return rows


def make_inputs(case: Case) -> StudentInputs:
    """Random latents and rays of a case; what they hold does not change the work."""
    config = CONFIGS[case.variant]
    pixels = case.variant == "pixels"
    frames = case.frames if pixels else 1 + (case.frames - 1) // 8
    height, width = (case.height, case.width) if pixels else (case.height // 8, case.width // 8)
    grid = (case.frames, case.height // 8, case.width // 8)
    directions = F.normalize(torch.randn(1, case.trajectories, *grid, 3), dim=-1)
    return StudentInputs(
        latents=torch.randn(1, case.trajectories, config.latent_channels, frames, height, width),
        plucker=torch.randn(1, case.trajectories, 2 * config.latent_channels, frames, height, width),
        ray_origins=torch.zeros(1, 1, 1, 1, 1, 1).expand(directions.shape),
        ray_directions=directions,
        pixel_angle=torch.ones(directions.shape[:3]),
    )


def _measure(case: Case) -> dict[str, Any]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if case.memory_gb is not None and device == "cpu":  # CUDA reserves addresses for all of the machine's memory
        limit = round(case.memory_gb * 2**30)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    torch.manual_seed(0)
    decoder = GaussianDecoder(CONFIGS[case.variant]).to(device)
    inputs = make_inputs(case).to(device)

    def call() -> None:
        decode_scene(decoder, inputs)
        if device == "cuda":
            torch.cuda.synchronize()

    timing = best_of(call, 2 if case.tokens < 2_000 else 1)
    result: dict[str, Any] = {
        "gaussians": count_gaussians(decoder.config, inputs),
        "threads": torch.get_num_threads(),
        **vars(timing),
    }
    if device == "cuda":
        result["peak_memory_mb"] = torch.cuda.max_memory_allocated() // 2**20
    return result


def _measure_layers(tokens: int) -> dict[str, Any]:
    """One block of each kind at the paper's width."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    decoder = GaussianDecoder(replace(LATENTS, depth=2, attention_every=2)).to(device)
    x = torch.randn(1, tokens, LATENTS.width, device=device)
    result: dict[str, Any] = {"tokens": tokens, "threads": torch.get_num_threads()}
    for name, block in zip(("mamba", "attention"), decoder.blocks, strict=True):

        def call(block: torch.nn.Module = block) -> None:
            with torch.no_grad():
                block(x)
            if device == "cuda":
                torch.cuda.synchronize()

        timing = best_of(call, 2)
        result[name], result[f"{name}_cpu"] = timing.seconds, timing.cpu_seconds
    heads = torch.randn(3, 1, LATENTS.heads, tokens, LATENTS.width // LATENTS.heads, device=device)

    def attend() -> None:
        with torch.no_grad():
            F.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        if device == "cuda":
            torch.cuda.synchronize()

    timing = best_of(attend, 2)
    result["quadratic"], result["quadratic_cpu"] = timing.seconds, timing.cpu_seconds
    return result


def compose(layers: dict[str, Any], tokens: int = SIX) -> list[dict[str, Any]]:
    """The mix and attention alone at six trajectories, composed of blocks that were measured at fewer tokens.

    Time grows with the tokens, but for the product of queries, keys and values, which grows with their square; nothing
    of the decoder but its blocks is in it. These rows are no measurements, and say so.
    """
    if "error" in layers:
        return [{"variant": "composed", **layers}]
    growth = tokens / layers["tokens"]
    rows = []
    attention_blocks = {"mix": LATENTS.depth // LATENTS.attention_every, "transformer": LATENTS.depth}
    for variant, count in attention_blocks.items():
        seconds, processor = (
            growth * (LATENTS.depth - count) * layers[f"mamba{end}"]
            + growth * count * (layers[f"attention{end}"] + (growth - 1) * layers[f"quadratic{end}"])
            for end in ("", "_cpu")
        )
        rows.append(
            {
                "variant": f"{variant}, composed of blocks at {layers['tokens']} tokens",
                **{"trajectories": 6, "frames": 121, "height": 704, "width": 1280, "tokens": tokens},
                **{"seconds": seconds, "cpu_seconds": processor, "threads": layers["threads"]},
            }
        )
    rows[1]["speedup_of_mix"] = rows[1]["seconds"] / rows[0]["seconds"]
    rows[1]["cpu_speedup_of_mix"] = rows[1]["cpu_seconds"] / rows[0]["cpu_seconds"]
    return rows


def _measure_rendering(count: int, height: int, width: int) -> dict[str, Any]:
    """One trajectory's Gaussians rendered, all and the most opaque fifth."""
    gaussians, cameras = random_scene(count, height, width)
    kept = prune(gaussians, round(LATENTS.keep * count))

    def call(scene=gaussians) -> None:
        with torch.no_grad():
            render(scene, cameras)

    whole, pruned = best_of(call, 3), best_of(lambda: call(kept), 3)
    return {
        **{"variant": "rendering, pruned to a fifth", "gaussians": len(kept), "height": height, "width": width},
        **{"threads": torch.get_num_threads(), "seconds": pruned.seconds, "cpu_seconds": pruned.cpu_seconds},
        "speedup_of_pruning": whole.seconds / pruned.seconds,
        "peak_memory_mb": peak_memory_mb(),
    }
