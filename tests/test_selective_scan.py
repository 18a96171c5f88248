"""Mamba-2: the scan in all its forms against the recurrence, and the bidirectional block."""

import copy

import pytest
import torch
import torch.nn.functional as F

from lyra.student.attention import AttentionBlock
from lyra.student.mamba2 import MambaBlock
from lyra.student.selective_scan import scan_segment, selective_scan


def scan_step_by_step(x, dt, A, B, C):
    """The recurrence h = exp(dt A) h + dt x B^T, y = h C, one token at a time."""
    state = x.new_zeros(x.shape[0], x.shape[2], x.shape[3], B.shape[-1])
    outputs = []
    for t in range(x.shape[1]):
        fade = torch.exp(dt[:, t] * A)[..., None, None]
        state = fade * state + (dt[:, t, :, None] * x[:, t])[..., None] * B[:, t, None, None]
        outputs.append((state * C[:, t, None, None]).sum(-1))
    return torch.stack(outputs, dim=1)


def scan_inputs(tokens: int, seed: int = 0, strength: float = 1.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    dt = strength * F.softplus(draw(2, tokens, 3))
    return [draw(2, tokens, 3, 4), dt, -draw(3).exp(), draw(2, tokens, 5), draw(2, tokens, 5)]


@pytest.mark.parametrize("chunk", [1, 7, 16, 64])
@pytest.mark.parametrize("tokens", [1, 15, 16, 37])
def test_scan_is_the_recurrence_for_any_chunk(tokens: int, chunk: int):
    inputs = scan_inputs(tokens)
    x, dt, A, B, C = inputs
    ours = selective_scan(x, dt, A, B, C, chunk)
    assert torch.allclose(ours, scan_step_by_step(*inputs), atol=1e-10)


@pytest.mark.parametrize("chunk", [5, 32])
def test_scan_has_the_gradients_of_the_recurrence(chunk: int):
    inputs = [tensor.requires_grad_() for tensor in scan_inputs(23)]
    weight = torch.randn(2, 23, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    x, dt, A, B, C = inputs
    ours = torch.autograd.grad((selective_scan(x, dt, A, B, C, chunk) * weight).sum(), inputs)
    truth = torch.autograd.grad((scan_step_by_step(*inputs) * weight).sum(), inputs)
    for mine, expected in zip(ours, truth, strict=True):
        assert torch.allclose(mine, expected, atol=1e-9)


@pytest.mark.parametrize("strength", [1e-4, 1.0, 300.0, 1e5])
def test_scan_stays_finite_in_float32_however_fast_it_decays(strength: float):
    inputs = [tensor.float().requires_grad_() for tensor in scan_inputs(150, strength=strength)]
    x, dt, A, B, C = inputs
    y = selective_scan(x, dt, A, B, C)
    assert y.isfinite().all()
    for gradient in torch.autograd.grad(y.square().mean(), inputs):
        assert gradient.isfinite().all()
    truth = scan_step_by_step(*scan_inputs(150, strength=strength))
    assert (y - truth).abs().max() <= 1e-4 * truth.abs().max()


def test_scan_remembers_over_many_chunks():
    x, dt, A, B, C = scan_inputs(200)
    # Without decay the state is a plain running sum.
    y = selective_scan(x, torch.ones_like(dt), torch.zeros_like(A), B, C, chunk=16)
    state = torch.einsum("bthp,btn->bthpn", x, B).cumsum(1)
    assert torch.allclose(y, torch.einsum("bthpn,btn->bthp", state, C), atol=1e-9)


def state_step_by_step(state, x, dt, A, B, C):
    """As ``scan_step_by_step`` from a given state; also the last state."""
    outputs = []
    for t in range(x.shape[1]):
        fade = torch.exp(dt[:, t] * A)[:, None, :, None]
        state = fade * state + B[:, t, :, None, None] * (dt[:, t, :, None] * x[:, t])[:, None]
        outputs.append((state * C[:, t, :, None, None]).sum(1))
    return torch.stack(outputs, dim=1), state


@pytest.mark.parametrize(("chunk", "group"), [(1, 1), (4, 3), (16, 1), (64, 2)])
def test_segments_are_the_recurrence_with_its_gradients(chunk: int, group: int):
    inputs = [tensor.requires_grad_() for tensor in scan_inputs(37)]
    start = torch.randn(2, 5, 3, 4, dtype=torch.float64, requires_grad=True)
    x, dt, A, B, C = inputs
    ours = scan_segment(x, dt, A, B, C, start, chunk, group)
    truth = state_step_by_step(start, *inputs)
    weights = [torch.randn_like(tensor) for tensor in truth]
    for mine, expected in zip(ours, truth, strict=True):
        assert torch.allclose(mine, expected, atol=1e-10)
    gradients = [
        torch.autograd.grad((result[0] * weights[0]).sum() + (result[1] * weights[1]).sum(), [*inputs, start])
        for result in (ours, truth)
    ]
    for mine, expected in zip(*gradients, strict=True):
        assert torch.allclose(mine, expected, atol=1e-9)


def test_the_state_is_exact_between_segments():
    x, dt, A, B, C = scan_inputs(100)
    state = torch.zeros(2, 5, 3, 4, dtype=torch.float64)
    whole, last = scan_segment(x, dt, A, B, C, state)
    parts = []
    for first, end in ((0, 33), (33, 34), (34, 100)):
        at = slice(first, end)
        y, state = scan_segment(x[:, at], dt[:, at], A, B[:, at], C[:, at], state)
        parts.append(y)
    assert torch.allclose(torch.cat(parts, dim=1), whole, atol=1e-12)
    assert torch.allclose(state, last, atol=1e-12)


@pytest.mark.parametrize("strength", [1e-3, 1.0, 1e3])
def test_segments_in_float32_lose_nothing_to_long_sums(strength: float):
    exact = [tensor.requires_grad_() for tensor in scan_inputs(150, strength=strength)]
    single = [tensor.detach().float().requires_grad_() for tensor in exact]
    results = []
    for x, dt, A, B, C in (exact, single):
        y, _ = scan_segment(x, dt, A, B, C, torch.zeros(2, 5, 3, 4, dtype=x.dtype))
        results.append((y, *torch.autograd.grad(y.square().sum(), [x, dt, A, B, C])))
    for truth, mine in zip(*results, strict=True):
        assert (mine - truth).abs().max() <= 3e-5 * truth.abs().max()


@pytest.mark.parametrize("segment", [50, 333])
def test_a_block_by_segments_is_the_block(segment: int):
    block = make_block()
    x = torch.randn(2, 333, 32, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(2, 333, 32, dtype=torch.float64)
    whole, parts = block(x), block.forward_by_segments(x, segment)
    assert torch.allclose(parts, whole, atol=1e-12)
    wanted = [x, *block.parameters()]
    for mine, truth in zip(
        torch.autograd.grad((parts * weight).sum(), wanted),
        torch.autograd.grad((whole * weight).sum(), wanted),
        strict=True,
    ):
        assert torch.allclose(mine, truth, atol=1e-9)


def test_long_sequences_go_by_segments_to_the_same_result(monkeypatch: pytest.MonkeyPatch):
    block, attention = make_block(), AttentionBlock(32, 2).double()
    x = torch.randn(1, 200, 32, dtype=torch.float64)
    with torch.no_grad():
        expected = block(x), attention(x)
        for module in ("mamba2", "attention"):
            monkeypatch.setattr(f"lyra.student.{module}.SEGMENT", 64)
        assert torch.allclose(block(x), expected[0], atol=1e-12)
        assert torch.allclose(attention(x), expected[1], atol=1e-12)


def make_block() -> MambaBlock:
    return MambaBlock(width=32, state=8).double()


@torch.no_grad()
def test_block_with_swapped_scans_mirrors_the_sequence():
    block = make_block()
    swapped = copy.deepcopy(block)
    swapped.scans = torch.nn.ModuleList(reversed(list(swapped.scans)))
    x = torch.randn(2, 71, 32, dtype=torch.float64)
    assert torch.allclose(swapped(x.flip(1)).flip(1), block(x), atol=1e-12)
    assert not torch.allclose(block(x.flip(1)).flip(1), block(x), atol=1e-3)


@torch.no_grad()
def test_block_looks_both_ways_and_keeps_batch_entries_apart():
    block = make_block()
    x = torch.randn(2, 20, 32, dtype=torch.float64)
    changed = x.clone()
    changed[0, 10] += 1
    difference = (block(changed) - block(x)).abs().amax(-1)
    assert (difference[0] > 1e-9).all()
    assert (difference[1] == 0).all()


@torch.no_grad()
def test_block_without_output_is_the_identity():
    block = make_block()
    torch.nn.init.zeros_(block.out_proj.weight)
    x = torch.randn(1, 9, 32, dtype=torch.float64)
    assert torch.equal(block(x), x)


def test_block_refuses_a_width_that_heads_do_not_divide():
    with pytest.raises(ValueError, match="no multiple"):
        MambaBlock(width=40, state=8)
