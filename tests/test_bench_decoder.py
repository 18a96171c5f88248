"""What `lyra bench mamba` and `lyra bench decoder` compare is what they say; no time is asserted."""

from dataclasses import replace

import pytest
import torch

from lyra.bench import mamba_cost as mamba
from lyra.bench import training_cost as training
from lyra.bench.decoder_cost import CONFIGS, DEFAULT, SIX, Case, compose, make_inputs
from lyra.student.decoder import GaussianDecoder, count_gaussians
from lyra.student.mamba2 import MambaBlock


@torch.no_grad()
def test_the_recurrence_that_is_measured_is_the_block():
    block = MambaBlock(32, 8).double()
    x = torch.randn(1, 40, 32, dtype=torch.float64)
    assert torch.allclose(mamba.recur(block, x), block(x), atol=1e-10)


def test_every_variant_mixes_tokens_of_one_width():
    for variant in ("ours", "recurrence", "attention"):
        layer = mamba.build_layer(variant)
        assert sum(parameter.numel() for parameter in layer.parameters()) > 4 * mamba.WIDTH**2 - 1


@pytest.mark.parametrize(
    "case", [Case("mix", 2, 17, 32, 48), Case("transformer", 1, 9, 32, 32), Case("pixels", 2, 9, 32, 48)]
)
@torch.no_grad()
def test_cases_have_the_tokens_and_gaussians_that_they_say(case: Case):
    config = replace(CONFIGS[case.variant], width=32, depth=1, heads=1, state=4)
    decoder, inputs = GaussianDecoder(config), make_inputs(case)
    assert decoder.embed(inputs).shape[1] == case.tokens
    expected = case.trajectories * case.frames * case.height * case.width // 64
    assert len(decoder(inputs)) == count_gaussians(config, inputs) == expected


def test_the_full_size_is_the_papers():
    assert Case("mix", 1, 121, 704, 1280).tokens == 56_320
    assert Case("mix", 6, 121, 704, 1280).tokens == SIX
    assert {case.variant for case in DEFAULT} == set(CONFIGS)


def test_composed_rows_follow_from_the_blocks():
    layers = {"tokens": 10, "threads": 1}
    for end in ("", "_cpu"):
        layers |= {f"mamba{end}": 2.0, f"attention{end}": 3.0, f"quadratic{end}": 1.0}
    mix, transformer = compose(layers, tokens=100)
    # Ten times the tokens: a Mamba block 20, the product of an attention block 100 and its rest 20.
    assert mix["seconds"] == pytest.approx(14 * 20 + 2 * 120)
    assert transformer["seconds"] == pytest.approx(16 * 120)
    assert transformer["speedup_of_mix"] == pytest.approx(16 * 120 / (14 * 20 + 2 * 120))
    assert "composed" in mix["variant"]
    assert compose({"error": "out of memory"})[0]["error"] == "out of memory"


def test_rows_have_the_keys_that_others_read(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(mamba, "TOKENS", (64,))
    monkeypatch.setattr(
        mamba, "run_isolated", lambda function, *arguments: {**function(*arguments), "peak_memory_mb": 1}
    )
    rows = mamba.measure()
    assert all({"variant", "tokens", "seconds", "peak_memory_mb"} <= row.keys() for row in rows)
    assert any("speedup" in row for row in rows)


def test_a_training_step_learns_from_all_losses():
    """Its gradient is one of the real decoder through the real renderer: with a step of AdamW the loss changes."""
    config = replace(CONFIGS["mix"], width=32, depth=2, attention_every=2, heads=1, state=4)
    result = training.run_step(training.Step(9, 32, 32), config)
    assert result["gaussians"] == 9 * 16 and 0 < result["loss"] < 1
    again = training.run_step(training.Step(9, 32, 32, recompute=False), config)
    assert again["loss"] == pytest.approx(result["loss"], rel=1e-2)


def test_extrapolation_follows_the_line_of_its_size_and_checks_it_at_others():
    def row(step: training.Step) -> dict:
        size, tokens = step.height * step.width, step.case.tokens
        bent = 0.9 if step.frames == 121 else 1.0
        return {
            **training.describe(step),
            "peak_memory_mb": bent * (500 + 0.5 * tokens + 1e-3 * size),
            "seconds": 1e-3 * tokens + 1e-5 * size + 0.1,
        }

    rows = [row(step) for step in training.DEFAULT]
    found = training.extrapolate(rows)
    assert found["peak_memory_mb"] == pytest.approx(500 + 0.5 * 56_320 + 1e-3 * 704 * 1280, rel=1e-3)
    assert found["peak_memory_mb_over"] == [1.11, 1.11] and found["seconds_over"] == [1, 1]
    assert found["variant"] == "extrapolated"
    assert "error" in training.extrapolate([r for r in rows if r["width"] < 1280])
