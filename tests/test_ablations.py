"""Ablations: arms differ in what they say, finished worlds are not run again, and verdicts are by hand."""

import json
from pathlib import Path

import pytest
from command_line import run_here

from lyra.errors import LyraError
from lyra.evaluation import ablations
from lyra.evaluation.ablations import ABLATIONS, Ablation, Arm, run_ablation
from lyra.models.loading import load


def test_a_stopped_ablation_goes_on_and_ends_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Of random weights: after the first run one world is lost, and only that one is run again."""
    arms = (Arm("6"), Arm("1", clips=1), Arm("each clip by itself", fused=False), Arm("half", keep=0.5))
    monkeypatch.setitem(ABLATIONS, "fusion", Ablation(arms, "in words", {"1": -1}))
    model = load("smoke")
    first = run_ablation(model, "fusion", tmp_path, scenes=2, seeds=(0,))
    (tmp_path / "fusion/1/50001-0.json").unlink()
    ran = []
    make = ablations._run_arm
    monkeypatch.setattr(ablations, "_run_arm", lambda *a: ran.append(a[1:4]) or make(*a))
    again = run_ablation(model, "fusion", tmp_path, scenes=2, seeds=(0,))
    assert ran == [(arms[1], 50001, 0)]
    for row, other in zip(first["rows"], again["rows"], strict=True):
        assert row["psnr"] == other["psnr"]
    counts = {row["arm"]: row["gaussians"] for row in again["rows"]}
    assert counts["1"] < counts["6"]
    assert counts["half"] < counts["6"] or model.decoder.config.keep < 0.5
    assert again["rows"][0]["psnr_low"] <= again["rows"][0]["psnr"] <= again["rows"][0]["psnr_high"]
    assert model.decoder.config == load("smoke").decoder.config
    file = tmp_path / "fusion/6/50000-0.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps(content | {"of": {"model": "another"}}))
    with pytest.raises(LyraError, match="of another model"):
        run_ablation(model, "fusion", tmp_path, scenes=2, seeds=(0,))


def test_a_verdict_has_the_paper_s_sign_or_none():
    assert ablations._agrees(-1, (-0.5, -0.1)) == "yes"
    assert ablations._agrees(-1, (0.1, 0.5)) == "no"
    assert ablations._agrees(-1, (-0.1, 0.5)) == "within noise"
    assert ablations._agrees(-1, None) == "within noise"
    assert ablations._agrees(None, (0.1, 0.5)) == "paper has no figure"


def test_unknown_ablations_are_refused(tmp_path: Path):
    done = run_here("evaluate", "ablation", "colors", "--model", "smoke", "--run", tmp_path)
    assert done.returncode == 2
    assert "no ablation 'colors'" in done.stderr
    assert run_here("evaluate", "ablation", "--model", "smoke").returncode == 2
    assert run_here("evaluate", "worlds", "--run", tmp_path).returncode == 2
