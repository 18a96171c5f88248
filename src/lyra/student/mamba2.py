"""The bidirectional Mamba-2 block of the paper's decoder.

Source: Dao & Gu 2024 (Mamba-2); block layout as in Lyra's decoder. Golden ``lyra_decoder_static``.
"""

import math
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from lyra.student.selective_scan import scan_segment, selective_scan

SEGMENT = 1024
"""Longer sequences are scanned a segment at a time: in bounded memory, and with gradients six times as fast at 2,240
tokens of width 512 on two cores."""
CPU_SEGMENT = 1024
"""Tokens of a segment on a CPU: its tensors stay in the cache."""
GPU_SEGMENT = 1 << 16


@dataclass
class ScanMemory:
    """What one direction of a scan hands from a segment to the next."""

    inputs: Float[Tensor, "batch halo mixed"]
    """Last inputs of the causal convolution."""
    state: Float[Tensor, "batch state head channel"]


class Scan(nn.Module):
    """One direction: causal convolution, selective scan, gated norm."""

    def __init__(self, inner: int, state: int, head_channels: int, conv: int = 4):
        super().__init__()
        heads = inner // head_channels
        self.inner, self.state, self.heads = inner, state, heads
        self.conv1d = nn.Conv1d(inner + 2 * state, inner + 2 * state, conv, groups=inner + 2 * state, padding=conv - 1)
        # Steps start log-uniform in [1e-3, 0.1] and decays uniform in [1, 16], as in Mamba-2.
        start = torch.exp(torch.empty(heads).uniform_(math.log(1e-3), math.log(0.1)))
        self.dt_bias = nn.Parameter(start + torch.log(-torch.expm1(-start)))
        self.A_log = nn.Parameter(torch.empty(heads).uniform_(1, 16).log())
        self.D = nn.Parameter(torch.ones(heads))
        self.norm = nn.RMSNorm(inner, eps=1e-5)

    def forward(self, projected: Float[Tensor, "batch token projected"]) -> Float[Tensor, "batch token inner"]:
        """Scans a sequence that ``in_proj`` has made: gate, convolved part, step sizes."""
        tokens = projected.shape[1]
        gate, mixed, dt = projected.split([self.inner, self.inner + 2 * self.state, self.heads], dim=-1)
        mixed = F.silu(self.conv1d(mixed.mT)[..., :tokens].mT)
        x, B, C = mixed.split([self.inner, self.state, self.state], dim=-1)
        x = x.unflatten(-1, (self.heads, -1))
        # Step sizes and decays are exponentiated: float32 also under autocast.
        with torch.autocast(projected.device.type, enabled=False):
            precise = torch.float64 if projected.dtype == torch.float64 else torch.float32
            x, B, C, dt = (t.to(precise) for t in (x, B, C, dt))
            y = selective_scan(x, F.softplus(dt + self.dt_bias), -self.A_log.exp(), B, C)
            y = (y + self.D[:, None] * x).flatten(-2)
        return self.norm(y * F.silu(gate.to(precise)))

    def start(self, projected: Float[Tensor, "batch token projected"]) -> ScanMemory:
        """Memory before the first segment of a sequence."""
        precise = torch.float64 if projected.dtype == torch.float64 else torch.float32
        halo = self.conv1d.kernel_size[0] - 1
        inputs = projected.new_zeros(len(projected), halo, self.inner + 2 * self.state)
        shape = (len(projected), self.state, self.heads, self.inner // self.heads)
        return ScanMemory(inputs, torch.zeros(shape, dtype=precise, device=projected.device))

    def scan(
        self, projected: Float[Tensor, "batch token projected"], memory: ScanMemory
    ) -> tuple[Float[Tensor, "batch token inner"], ScanMemory]:
        """Scans the next segment of a sequence; all segments together are ``forward`` of the whole."""
        gate, mixed, dt = projected.split([self.inner, self.inner + 2 * self.state, self.heads], dim=-1)
        extended = torch.cat([memory.inputs, mixed], dim=1)
        mixed = F.silu(_causal_convolution(extended, self.conv1d.weight, self.conv1d.bias))
        with torch.autocast(projected.device.type, enabled=False):
            precise = memory.state.dtype
            x, B, C = mixed.to(precise).split([self.inner, self.state, self.state], dim=-1)
            x = x.unflatten(-1, (self.heads, -1))
            dt = F.softplus(dt.to(precise) + self.dt_bias)
            y, state = scan_segment(x, dt, -self.A_log.exp(), B, C, memory.state)
            y = torch.addcmul(y, self.D[:, None].to(precise), x).flatten(-2)
        return self.norm(y * F.silu(gate.to(precise))), ScanMemory(extended[:, mixed.shape[1] :], state)


def _causal_convolution(
    extended: Float[Tensor, "batch token_and_halo channel"],
    weight: Float[Tensor, "channel 1 tap"],
    bias: Float[Tensor, "channel"] | None,
) -> Float[Tensor, "batch token channel"]:
    """A depthwise convolution along tokens that are rows, without turning them to columns."""
    taps = weight.shape[-1]
    tokens = extended.shape[1] - taps + 1
    weight = weight.to(extended.dtype)
    total = extended[:, :tokens] * weight[:, 0, 0]
    if bias is not None:
        total = total + bias.to(extended.dtype)
    for tap in range(1, taps):
        total = torch.addcmul(total, extended[:, tap : tap + tokens], weight[:, 0, tap])
    return total


class MambaBlock(nn.Module):
    """Residual bidirectional Mamba-2: shared projections, one scan a direction, summed."""

    def __init__(self, width: int, state: int, expand: int = 2, head_channels: int = 64, conv: int = 4):
        super().__init__()
        inner = expand * width
        if inner % head_channels:
            raise ValueError(f"inner width {inner} is no multiple of {head_channels} channels a head")
        self.norm = nn.RMSNorm(width, eps=1e-5)
        self.in_proj = nn.Linear(width, 2 * inner + 2 * state + inner // head_channels, bias=False)
        self.scans = nn.ModuleList([Scan(inner, state, head_channels, conv) for _ in range(2)])
        self.out_proj = nn.Linear(inner, width, bias=False)

    def forward(self, x: Float[Tensor, "batch token width"]) -> Float[Tensor, "batch token width"]:
        """Mixes all tokens of the sequence in both directions."""
        if x.shape[1] > SEGMENT:
            return self.forward_by_segments(x)
        projected = self.in_proj(self.norm(x))
        forward, backward = self.scans
        mixed = forward(projected) + backward(projected.flip(1)).flip(1)
        return x + self.out_proj(mixed)

    def forward_by_segments(
        self, x: Float[Tensor, "batch token width"], segment: int | None = None
    ) -> Float[Tensor, "batch token width"]:
        """The same for long sequences: exact, since both directions hand their state from segment to segment."""
        segment = segment or (GPU_SEGMENT if x.is_cuda else CPU_SEGMENT)
        parts = x.split(segment, dim=1)
        projected = [self.in_proj(self.norm(part)) for part in parts]
        # Autocast is a setting of each thread.
        plain = not torch.is_grad_enabled() and not torch.is_autocast_enabled(x.device.type)
        if plain and not x.is_cuda and torch.get_num_threads() > 1:
            return self._scan_on_two_threads(parts, projected)
        forward, backward = (scan for scan in self.scans if isinstance(scan, Scan))
        memory = forward.start(projected[0])
        mixed = []
        for part in projected:
            y, memory = forward.scan(part, memory)
            mixed.append(y)
        memory = backward.start(projected[0])
        outputs = []
        for index in reversed(range(len(parts))):
            y, memory = backward.scan(projected[index].flip(1), memory)
            outputs.append(parts[index] + self.out_proj(mixed[index] + y.flip(1)))
            # Outside a graph nothing else holds them: a long sequence's are gigabytes.
            projected.pop()
            mixed.pop()
        return torch.cat(outputs[::-1], dim=1)

    def _scan_on_two_threads(self, parts: tuple[Tensor, ...], projected: list[Tensor]) -> Tensor:
        """Each direction on its own thread: one chunk's products are too small for two cores.

        The directions meet in the middle. In the second half each finds the other's result and makes the output.
        """
        results = list(projected)  # the projection, then one direction's result, then the output
        middle = len(parts) // 2

        def walk(scan: Scan, memory: ScanMemory, indices: range, sums: bool) -> ScanMemory:
            with torch.no_grad():  # of a thread
                for index in indices:
                    part = projected[index].flip(1) if indices.step < 0 else projected[index]
                    y, memory = scan.scan(part, memory)
                    y = y.flip(1) if indices.step < 0 else y
                    if sums:
                        projected[index] = y.new_empty(0)  # a long sequence's are gigabytes
                        y = parts[index] + self.out_proj(results[index] + y)
                    results[index] = y
            return memory

        scans = [scan for scan in self.scans if isinstance(scan, Scan)]
        memories = [scan.start(projected[0]) for scan in scans]
        firsts, lasts = range(middle), range(middle, len(parts))
        with _shared_threads(2), ThreadPoolExecutor(2) as pool:
            memories = list(pool.map(walk, scans, memories, (firsts, lasts[::-1]), (False, False)))
            list(pool.map(walk, scans, memories, (lasts, firsts[::-1]), (True, True)))
        return torch.cat(results, dim=1)


@contextmanager
def _shared_threads(count: int) -> Iterator[None]:
    """Divides torch's threads, a setting of the whole process, among some threads of Python."""
    before = torch.get_num_threads()
    torch.set_num_threads(max(1, before // count))
    try:
        yield
    finally:
        torch.set_num_threads(before)
