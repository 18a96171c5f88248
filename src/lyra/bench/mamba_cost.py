"""Long sequences: our Mamba-2 block, its plain recurrence and attention, at the width of the paper's decoder."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from lyra.bench.measure import run_isolated
from lyra.student.attention import Attention
from lyra.student.mamba2 import MambaBlock, Scan
from lyra.student.selective_scan import has_kernel

Variant = Literal["ours", "recurrence", "attention", "mamba-ssm"]
Pass = Literal["forward", "forward and backward"]
WIDTH, STATE, HEADS = 512, 256, 8
TOKENS = (1_024, 4_096, 16_384, 56_320, 337_920)
"""Up to one and to six trajectories of 121 frames of 704x1280."""
REPEATED = 16_384
"""Tokens up to which the least of three calls is taken."""
LIMITS: dict[tuple[Variant, Pass], int] = {
    ("recurrence", "forward"): 16_384,
    ("recurrence", "forward and backward"): 1_024,
    ("attention", "forward"): 56_320,
    ("attention", "forward and backward"): 16_384,
    ("ours", "forward and backward"): 56_320,
}
"""Tokens up to which a variant is measured on a CPU: beyond, it takes minutes to hours, or too much memory."""


@dataclass(frozen=True)
class Timing:
    """Of the fastest of some calls."""

    seconds: float
    cpu_seconds: float
    """Of all threads together, which other programs on the machine change less."""


def measure(full: bool = False) -> list[dict[str, Any]]:
    """The rows of ``lyra bench mamba``: both directions of one block, or one attention layer of the same width.

    ``speedup`` is how many times as long as ours an attention took for the same tokens, ``cpu_speedup`` the same of
    processor time.

    Args:
        full: Measure every variant at every length, which on a CPU takes hours.
    """
    passes: tuple[Pass, ...] = ("forward", "forward and backward")
    variants: tuple[Variant, ...] = ("ours", "recurrence", "attention")
    if torch.cuda.is_available() and has_kernel():
        variants = (*variants, "mamba-ssm")
    wanted = [
        (variant, tokens, kind)
        for kind in passes
        for tokens in TOKENS
        for variant in variants
        if full
        or tokens <= LIMITS.get((variant, kind), TOKENS[-1])
        or (variant != "recurrence" and torch.cuda.is_available())
    ]
    rows = []
    for variant, tokens, kind in tqdm(wanted, desc="bench mamba", unit="row"):
        rows.append(
            {"variant": variant, "tokens": tokens, "pass": kind, **run_isolated(_measure, variant, tokens, kind)}
        )
    for row in rows:
        for other in rows:
            same = all(row[name] == other[name] for name in ("tokens", "pass"))
            if same and row["variant"] == "attention" and other["variant"] == "ours" and "seconds" in row:
                row["speedup"] = row["seconds"] / other["seconds"]
                row["cpu_speedup"] = row["cpu_seconds"] / other["cpu_seconds"]
    return rows


def _measure(variant: Variant, tokens: int, kind: Pass) -> dict[str, Any]:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(0)
    x = torch.randn(1, tokens, WIDTH, device=device)
    layer = build_layer(variant).to(device)

    def call() -> None:
        if kind == "forward":
            with torch.no_grad():
                layer(x)
        else:
            layer(x.detach().requires_grad_()).square().mean().backward()
        if device == "cuda":
            torch.cuda.synchronize()

    timing = best_of(call, 3 if tokens <= REPEATED and variant != "recurrence" else 1)
    result: dict[str, Any] = {"threads": torch.get_num_threads(), **vars(timing)}
    if device == "cuda":
        result["peak_memory_mb"] = torch.cuda.max_memory_allocated() // 2**20
    return result


def build_layer(variant: Variant) -> nn.Module:
    """A layer that mixes tokens, with random weights."""
    if variant == "attention":
        return Attention(WIDTH, HEADS)
    block = MambaBlock(WIDTH, STATE)
    # "ours" is ours on a GPU as well, where the kernel would otherwise be taken.
    return block if variant == "mamba-ssm" else _Without(block, recurrence=variant == "recurrence")


class _Without(nn.Module):
    """A Mamba-2 block that does not take ``mamba-ssm``'s kernel, or scans token by token."""

    def __init__(self, block: MambaBlock, recurrence: bool):
        super().__init__()
        self.block, self.recurrence = block, recurrence

    def forward(self, x: Tensor) -> Tensor:
        from lyra.student import selective_scan

        selective_scan.has_kernel = lambda: False  # a process of its own
        return recur(self.block, x) if self.recurrence else self.block(x)


def recur(block: MambaBlock, x: Tensor) -> Tensor:
    """A block whose scans go token by token, as the recurrence is written."""
    projected = block.in_proj(block.norm(x))
    mixed = torch.zeros(*x.shape[:2], block.out_proj.in_features, dtype=x.dtype, device=x.device)
    for index, scan in enumerate(scan for scan in block.scans if isinstance(scan, Scan)):
        ordered = projected.flip(1) if index else projected
        gate, inner, dt = ordered.split([scan.inner, scan.inner + 2 * scan.state, scan.heads], dim=-1)
        inner = F.silu(scan.conv1d(inner.mT)[..., : x.shape[1]].mT)
        values, B, C = inner.split([scan.inner, scan.state, scan.state], dim=-1)
        values = values.unflatten(-1, (scan.heads, -1))
        dt = F.softplus(dt + scan.dt_bias)
        fade = torch.exp(dt * -scan.A_log.exp())[..., None, None]
        state = values.new_zeros(len(x), scan.heads, values.shape[-1], scan.state)
        outputs = []
        for token in range(x.shape[1]):
            written = (dt[:, token, :, None] * values[:, token])[..., None] * B[:, token, None, None]
            state = fade[:, token] * state + written
            outputs.append((state @ C[:, token, None, :, None])[..., 0])
        y = torch.stack(outputs, dim=1) + scan.D[:, None] * values
        y = scan.norm(y.flatten(-2) * F.silu(gate))
        mixed = mixed + (y.flip(1) if index else y)
    return x + block.out_proj(mixed)


def best_of(call: Callable[[], None], repeats: int) -> Timing:
    """The call whose wall time is the least, after one to warm up: on a CPU not where the call takes minutes."""
    if repeats > 1 or torch.cuda.is_available():
        call()
    timings = []
    for _ in range(repeats):
        wall, processor = time.perf_counter(), time.process_time()
        call()
        timings.append(Timing(time.perf_counter() - wall, time.process_time() - processor))
    return min(timings, key=lambda timing: timing.seconds)
