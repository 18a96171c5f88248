"""The selective scan of Mamba-2: a linear recurrence over tokens, done as matrix products by chunks.

Within a chunk the recurrence is one masked product; between chunks the state is carried exactly. Three ways to the same
result: all chunks at once (short sequences), chunk after chunk with a hand-written gradient (long sequences, whose
intermediates would not fit a cache or a memory), and ``mamba-ssm``'s kernel on a GPU where it is installed.

Source: Dao & Gu 2024 (Mamba-2), listing 1 and section 6.
"""

import importlib.util
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

CHUNK = 64
"""Tokens a chunk of a long scan: measured fastest at the paper's size, where its products stay in a core's cache."""
GPU_GROUP = 32
"""Chunks that a GPU does at once; a CPU does one, which stays in its cache."""
_KERNEL_CHUNK = 256


def selective_scan(
    x: Float[Tensor, "batch token head channel"],
    dt: Float[Tensor, "batch token head"],
    A: Float[Tensor, "head"],
    B: Float[Tensor, "batch token state"],
    C: Float[Tensor, "batch token state"],
    chunk: int = 64,
) -> Float[Tensor, "batch token head channel"]:
    """y_t = C_t h_t with h_t = exp(dt_t A) h_{t-1} + dt_t x_t B_t^T, all chunks at once.

    Args:
        x: Input.
        dt: Positive step sizes.
        A: Negative.
        B: Shared by all heads.
        C: Shared by all heads.
        chunk: Tokens a chunk; the result does not depend on it, the speed does.
    """
    tokens = x.shape[1]
    pad = -tokens % chunk
    # A padded token has dt = 0: it neither decays nor writes the state.
    x, dt, B, C = (F.pad(t, (0, 0) * (t.ndim - 2) + (0, pad)) for t in (x, dt, B, C))
    x = rearrange(x * dt[..., None], "b (c q) h p -> b c h q p", q=chunk)
    B, C = (rearrange(t, "b (c q) n -> b c q n", q=chunk) for t in (B, C))
    log_decay = rearrange(dt * A, "b (c q) h -> b c h q", q=chunk).cumsum(-1)

    causal = torch.ones(chunk, chunk, dtype=torch.bool, device=x.device).tril()
    spans = (log_decay[..., :, None] - log_decay[..., None, :]).masked_fill(~causal, -torch.inf)
    within = (spans.exp() * (C @ B.mT)[:, :, None]) @ x

    to_end = (log_decay[..., -1:] - log_decay).exp()
    written = (x * to_end[..., None]).mT @ B[:, :, None]
    carry = log_decay[..., -1].exp()[..., None, None]
    state = torch.zeros_like(written[:, 0])
    before = []
    for index in range(written.shape[1]):
        before.append(state)
        state = carry[:, index] * state + written[:, index]
    carried = C[:, :, None] @ torch.stack(before, dim=1).mT * log_decay.exp()[..., None]
    return rearrange(within + carried, "b c h q p -> b (c q) h p")[:, :tokens]


def scan_segment(
    x: Float[Tensor, "batch token head channel"],
    dt: Float[Tensor, "batch token head"],
    A: Float[Tensor, "head"],
    B: Float[Tensor, "batch token state"],
    C: Float[Tensor, "batch token state"],
    state: Float[Tensor, "batch state head channel"],
    chunk: int = CHUNK,
    group: int | None = None,
) -> tuple[Float[Tensor, "batch token head channel"], Float[Tensor, "batch state head channel"]]:
    """The same scan of one segment of a longer sequence, chunk after chunk.

    Args:
        x: Input.
        dt: Positive step sizes.
        A: Negative.
        B: Shared by all heads.
        C: Shared by all heads.
        state: What the segments before it have left; zeros for the first.
        chunk: Tokens a chunk; the result does not depend on it.
        group: Chunks done at once; by device when None. The result does not depend on it.

    Returns:
        The output, and the state for the next segment.
    """
    if x.is_cuda and x.dtype != torch.float64 and has_kernel():
        return _scan_by_kernel(x, dt, A, B, C, state)
    pad = -x.shape[1] % chunk
    padded = [F.pad(t, (0, 0) * (t.ndim - 2) + (0, pad)) if pad else t for t in (x, dt, B, C)]
    group = group or (GPU_GROUP if x.is_cuda else 1)
    y, left = _ChunkedScan.apply(padded[0], padded[1], A, padded[2], padded[3], state, chunk, group)  # type: ignore[misc]
    return y[:, : x.shape[1]], left


@cache
def has_kernel() -> bool:
    """Whether ``mamba-ssm`` is installed."""
    return importlib.util.find_spec("mamba_ssm") is not None


def _scan_by_kernel(x: Tensor, dt: Tensor, A: Tensor, B: Tensor, C: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
    from mamba_ssm.ops.triton.ssd_combined import mamba_chunk_scan_combined

    scan: Any = mamba_chunk_scan_combined
    y, left = scan(
        x.contiguous(),
        dt.contiguous(),
        A,
        B[:, :, None].contiguous(),
        C[:, :, None].contiguous(),
        chunk_size=_KERNEL_CHUNK,
        initial_states=rearrange(state, "b n h p -> b h p n").contiguous(),
        return_final_states=True,
    )
    return y, rearrange(left, "b h p n -> b n h p")


class _Chunks:
    """What both directions of the gradient need of a group of chunks, in token-major layout."""

    def __init__(self, x: Tensor, dt: Tensor, log_decay: Tensor, B: Tensor, C: Tensor, upper: Tensor):
        self.x = x * dt[..., None]
        self.B, self.C = B, C
        by_head = log_decay.mT
        large = by_head.to(x.dtype)
        spans = large[..., :, None] - large[..., None, :]
        if x.dtype != log_decay.dtype:
            # Sums reach thousands where differences count to the last digit: what rounding took from them comes back.
            small = (by_head - large).to(x.dtype)
            spans = spans.add_(small[..., :, None]).sub_(small[..., None, :])
        # Masked before the exponential, whose argument is positive and unbounded above the diagonal.
        self.spans = spans.add_(upper).exp_()
        self.scores = C @ B.mT
        self.from_start = log_decay.exp().to(x.dtype)
        self.to_end = (log_decay[..., -1:, :] - log_decay).exp().to(x.dtype)
        self.carry = self.from_start[..., -1, :]

    def mixing(self) -> Tensor:
        """[batch chunk head token token]."""
        return self.spans * self.scores[:, :, None]

    def over_heads(self, tensor: Tensor) -> Tensor:
        """[batch chunk token head channel] to [batch chunk head token channel]."""
        return tensor.transpose(2, 3)

    def weighted(self, tensor: Tensor, weight: Tensor) -> Tensor:
        """Scaled by token and head, heads and channels in one axis."""
        return (tensor * weight[..., None]).flatten(-2)


class _ChunkedScan(torch.autograd.Function):
    """The scan with its gradient by hand: only the states between chunks are kept, the rest is computed again."""

    @staticmethod
    def forward(ctx: Any, x, dt, A, B, C, state, chunk: int, group: int):
        tokens, heads, channels = x.shape[1:]
        upper = _upper(chunk, x)
        log_decay = _sum_log_decay(dt, A, chunk)
        split = [t.unflatten(1, (-1, chunk)) for t in (x, dt, B, C)]
        y = torch.empty_like(x.contiguous()).unflatten(1, (-1, chunk))
        state = state.flatten(-2)
        starts = []
        for first in range(0, tokens // chunk, group):
            at = slice(first, first + group)
            part = _Chunks(split[0][:, at], split[1][:, at], log_decay[:, at], split[2][:, at], split[3][:, at], upper)
            local = part.B.mT @ part.weighted(part.x, part.to_end)
            before = []
            for index in range(local.shape[1]):
                before.append(state)
                carry = part.carry[:, index].repeat_interleave(channels, -1)
                state = torch.addcmul(local[:, index], carry[:, None], state)
            stacked = before[0][:, None] if len(before) == 1 else torch.stack(before, dim=1)
            starts.append(stacked)
            carried = (part.C @ stacked).unflatten(-1, (heads, channels))
            within = part.over_heads(part.mixing() @ part.over_heads(part.x))
            torch.addcmul(within, carried, part.from_start[..., None], out=y[:, at])
        y = y.flatten(1, 2)
        if any(ctx.needs_input_grad):
            ctx.save_for_backward(x, dt, A, B, C, *starts)
            ctx.chunk, ctx.group = chunk, group
        return y, state.unflatten(-1, (heads, channels))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads_out: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        grad_y, grad_state = grads_out
        x, dt, A, B, C, *starts = ctx.saved_tensors
        chunk, group = ctx.chunk, ctx.group
        heads, channels = x.shape[2:]
        upper = _upper(chunk, x)
        log_decay = _sum_log_decay(dt, A, chunk)
        split = [t.unflatten(1, (-1, chunk)) for t in (x, dt, B, C, grad_y.contiguous())]
        grads = [torch.empty_like(t) for t in (*split[:4], split[1])]
        grad_state = grad_state.flatten(-2)
        for start, first in reversed(list(zip(starts, range(0, split[0].shape[1], group), strict=True))):
            at = slice(first, first + group)
            part = _Chunks(split[0][:, at], split[1][:, at], log_decay[:, at], split[2][:, at], split[3][:, at], upper)
            grad = split[4][:, at]
            after, grad_state = _states_backward(part, start, grad, grad_state)
            grad_x, grad_write, grad_read, grad_log = _inputs_backward(part, start, after, grad)
            grads[0][:, at] = grad_x * split[1][:, at][..., None]
            grads[1][:, at] = (grad_x * split[0][:, at]).sum(-1)
            grads[2][:, at], grads[3][:, at] = grad_write, grad_read
            grads[4][:, at] = grad_log.flip(2).cumsum(2).flip(2)
        grad_x, grad_step, grad_write, grad_read, grad_log = (grad.flatten(1, 2) for grad in grads)
        grad_decay = (grad_log * dt).sum((0, 1))
        grad_step = grad_step + grad_log * A
        return (
            *(grad_x, grad_step, grad_decay, grad_write, grad_read),
            *(grad_state.unflatten(-1, (heads, channels)), None, None),
        )


def _states_backward(part: _Chunks, start: Tensor, grad: Tensor, grad_state: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of the state after each chunk of a group, and of the state before the group."""
    channels = grad.shape[-1]
    local = part.C.mT @ part.weighted(grad, part.from_start)
    after = []
    for index in reversed(range(start.shape[1])):
        after.append(grad_state)
        carry = part.carry[:, index].repeat_interleave(channels, -1)
        grad_state = torch.addcmul(local[:, index], carry[:, None], grad_state)
    return torch.stack(after[::-1], dim=1), grad_state


def _inputs_backward(
    part: _Chunks, start: Tensor, after: Tensor, grad: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of dt x, B, C and the summed log decay a of every token.

    Outputs and states are sums of terms exp(a_t - a_s): a term's gradient goes to a of the token that ends it and,
    negative, of the one that begins it.
    """
    heads, channels = grad.shape[-2:]
    by_head, x_by_head = part.over_heads(grad), part.over_heads(part.x)
    mixing = part.mixing()
    from_state = (part.B @ after).unflatten(-1, (heads, channels)) * part.to_end[..., None]
    grad_x = part.over_heads(mixing.mT @ by_head) + from_state
    grad_mixing = by_head @ x_by_head.mT
    grad_scores = (grad_mixing * part.spans).sum(2)
    grad_write = grad_scores.mT @ part.C + part.weighted(part.x, part.to_end) @ after.mT
    reading = part.weighted(grad, part.from_start)
    grad_read = grad_scores @ part.B + reading @ start.mT

    terms = grad_mixing.mul_(mixing)
    # A token's own term begins and ends in it; it can be all there is, and must not drown the others by rounding.
    terms.diagonal(dim1=-2, dim2=-1).zero_()
    into_state = (part.x * from_state).sum(-1)
    grad_log = (terms.sum(-1) - terms.sum(-2)).mT - into_state
    grad_log += (reading * (part.C @ start)).unflatten(-1, (heads, channels)).sum(-1)
    through = (start * after).sum(-2).unflatten(-1, (heads, channels)).sum(-1)
    grad_log[:, :, -1] += into_state.sum(2) + part.carry * through
    return grad_x, grad_write, grad_read, grad_log


def _sum_log_decay(dt: Tensor, A: Tensor, chunk: int) -> Tensor:
    """[batch chunk token head], summed from each chunk's start, in float64."""
    return (dt.double() * A.double()).unflatten(1, (-1, chunk)).cumsum(2)


def _upper(chunk: int, like: Tensor) -> Tensor:
    return torch.full((chunk, chunk), -torch.inf, dtype=like.dtype, device=like.device).triu(1)
