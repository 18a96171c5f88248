"""Mamba-2 in plain torch: state-space duality by chunks, and the bidirectional block of the paper's decoder.

Within a chunk the recurrence is one masked matrix product; between chunks the state is carried exactly.

Source: Dao & Gu 2024 (Mamba-2), listing 1 and section 6; block layout as in Lyra's decoder. Golden
``lyra_decoder_static``.
"""

import math

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn


def selective_scan(
    x: Float[Tensor, "batch token head channel"],
    step: Float[Tensor, "batch token head"],
    decay: Float[Tensor, "head"],
    write: Float[Tensor, "batch token state"],
    read: Float[Tensor, "batch token state"],
    chunk: int = 64,
) -> Float[Tensor, "batch token head channel"]:
    """y_t = C_t h_t with h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T, by chunks.

    Args:
        x: Input.
        step: Positive step sizes dt.
        decay: A, negative.
        write: B, shared by all heads.
        read: C, shared by all heads.
        chunk: Tokens a chunk; the result does not depend on it, the speed does.
    """
    tokens = x.shape[1]
    pad = -tokens % chunk
    # A padded token has dt = 0: it neither decays nor writes the state.
    x, step, write, read = (F.pad(t, (0, 0) * (t.ndim - 2) + (0, pad)) for t in (x, step, write, read))
    x = rearrange(x * step[..., None], "b (c q) h p -> b c h q p", q=chunk)
    write, read = (rearrange(t, "b (c q) n -> b c q n", q=chunk) for t in (write, read))
    log_decay = rearrange(step * decay, "b (c q) h -> b c h q", q=chunk).cumsum(-1)

    causal = torch.ones(chunk, chunk, dtype=torch.bool, device=x.device).tril()
    spans = (log_decay[..., :, None] - log_decay[..., None, :]).masked_fill(~causal, -torch.inf)
    within = (spans.exp() * (read @ write.mT)[:, :, None]) @ x

    to_end = (log_decay[..., -1:] - log_decay).exp()
    written = (x * to_end[..., None]).mT @ write[:, :, None]
    carry = log_decay[..., -1].exp()[..., None, None]
    state = torch.zeros_like(written[:, 0])
    before = []
    for index in range(written.shape[1]):
        before.append(state)
        state = carry[:, index] * state + written[:, index]
    carried = read[:, :, None] @ torch.stack(before, dim=1).mT * log_decay.exp()[..., None]
    return rearrange(within + carried, "b c h q p -> b (c q) h p")[:, :tokens]


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
        gate, mixed, step = projected.split([self.inner, self.inner + 2 * self.state, self.heads], dim=-1)
        mixed = F.silu(self.conv1d(mixed.mT)[..., :tokens].mT)
        x, write, read = mixed.split([self.inner, self.state, self.state], dim=-1)
        x = x.unflatten(-1, (self.heads, -1))
        # Step sizes and decays are exponentiated: float32 also under autocast.
        with torch.autocast(projected.device.type, enabled=False):
            precise = torch.float64 if projected.dtype == torch.float64 else torch.float32
            x, write, read, step = (t.to(precise) for t in (x, write, read, step))
            y = selective_scan(x, F.softplus(step + self.dt_bias), -self.A_log.exp(), write, read)
            y = (y + self.D[:, None] * x).flatten(-2)
        return self.norm(y * F.silu(gate.to(precise)))


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
        projected = self.in_proj(self.norm(x))
        forward, backward = self.scans
        mixed = forward(projected) + backward(projected.flip(1)).flip(1)
        return x + self.out_proj(mixed)
