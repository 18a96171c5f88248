"""Speed and memory of one sampling step of the teacher: guided as its model says, everything but the network aside."""

from dataclasses import dataclass, replace
from typing import Any

import torch
from diffusers import CosmosTransformer3DModel
from tqdm import tqdm

from lyra.bench.measure import median_seconds, run_isolated
from lyra.device.memory import peak_memory_mb, quantize
from lyra.models.loading import load
from lyra.teacher import TeacherConfig
from lyra.teacher.conditioning import Condition, condition_network
from lyra.teacher.sampling import guide, precondition
from lyra.tokenizer.tokenizer import LatentSpec


@dataclass(frozen=True)
class Variant:
    """One row."""

    variant: str
    device: str
    batch: int = 1
    eight_bit: bool = False


ON_CPU = (Variant("mini", "cpu"), Variant("mini", "cpu", batch=2))
ON_GPU = (
    Variant("mini", "cuda"),
    Variant("gen3c, random weights", "cuda"),
    Variant("gen3c, random weights", "cuda", eight_bit=True),
)


def measure() -> list[dict[str, Any]]:
    """The rows of ``lyra bench teacher``: seconds of a step (all guidance passes) of ``batch`` clips, by the median.

    Tokens are those of one clip. Peak memory is the process's on the CPU, the allocator's on a GPU. Rows that need a
    GPU are there where there is one; a row that did not finish says why.
    """
    variants = (*ON_CPU, *ON_GPU) if torch.cuda.is_available() else ON_CPU
    return [
        {"variant": v.variant, "device": v.device, "batch": v.batch, "eight_bit": v.eight_bit}
        | run_isolated(measure_step, v)
        for v in tqdm(variants, desc="bench teacher", unit="row")
    ]


def measure_step(variant: Variant) -> dict[str, Any]:
    """One row: tokens, seconds, peak_memory_mb."""
    torch.manual_seed(0)
    transformer, config, spec = _published() if variant.variant.startswith("gen3c") else _bundled(variant.variant)
    if variant.eight_bit:
        quantize(transformer)
    transformer.to(variant.device)
    settings = transformer.config
    grid = (spec.latent_frames(config.frames), config.height // spec.spatial, config.width // spec.spatial)
    shape = (variant.batch, spec.channels, *grid)
    buffers = torch.randn(variant.batch, 2 * config.max_buffers * spec.channels, *grid, device=variant.device)
    text = torch.zeros(variant.batch, 512 if "gen3c" in variant.variant else 1, settings.text_embed_dim)
    first = torch.randn(shape, device=variant.device)
    condition = Condition(first, buffers, text.to(variant.device))
    denoise = precondition(
        guide(
            condition_network(transformer, condition, config.fps),
            condition_network(transformer, condition.without_camera(condition.text), config.fps),
            config.guidance,
        )
    )
    sigma = torch.full((variant.batch,), 2.0, device=variant.device)

    @torch.no_grad()
    def step() -> None:
        denoise(first, sigma)
        if variant.device == "cuda":
            torch.cuda.synchronize()

    seconds = median_seconds(step, repeats=5)
    patch = settings.patch_size
    peak = torch.cuda.max_memory_allocated() >> 20 if variant.device == "cuda" else peak_memory_mb()
    return {
        "tokens": grid[0] * grid[1] * grid[2] // (patch[0] * patch[1] * patch[2]),
        "seconds": seconds,
        "peak_memory_mb": peak,
    }


# The network is Any: diffusers' decorators hide the signature of ``to`` from type checkers.
def _bundled(name: str) -> tuple[Any, TeacherConfig, LatentSpec]:
    model = load(name)
    return model.transformer, model.config.teacher, model.tokenizer.spec


def _published() -> tuple[Any, TeacherConfig, LatentSpec]:
    """GEN3C-Cosmos-7B's shape with random weights in bfloat16, made on the GPU."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("cuda"):
            transformer = CosmosTransformer3DModel(
                in_channels=82,
                out_channels=16,
                num_attention_heads=32,
                attention_head_dim=128,
                num_layers=28,
                mlp_ratio=4.0,
                text_embed_dim=1024,
                adaln_lora_dim=256,
                max_size=(128, 240, 240),
                patch_size=(1, 2, 2),
                rope_scale=(2.0, 1.0, 1.0),
                concat_padding_mask=False,
                extra_pos_embed_type="learnable",
            )
    finally:
        torch.set_default_dtype(before)
    return transformer.eval(), replace(TeacherConfig(), guidance=1.0), LatentSpec(16, 8, 8)
