"""`lyra bench render` measures what it says; no test asserts a time."""

import json
import sys

import pytest
import torch

from lyra.bench import render_cost as bench
from lyra.cli.main import main
from lyra.rendering import render


def test_the_rows(monkeypatch, capsys):
    rows = (("cpu", 300, 24, 32, 1, 1), ("deferred", 300, 24, 32, 2, 1), ("oracle", 300, 24, 32, 1, 1))
    monkeypatch.setattr(bench, "ROWS", rows)
    monkeypatch.setattr(bench, "run_isolated", lambda function, *arguments: function(*arguments))
    monkeypatch.setattr(torch, "set_num_threads", lambda _: None)
    monkeypatch.setattr(sys, "argv", ["lyra", "bench", "render", "--json"])
    main()
    out = json.loads(capsys.readouterr().out)
    assert {"cores", "memory_gb", "instructions"} <= set(out["machine"])
    for row, expected in zip(out["rows"], rows, strict=True):
        named = ("backend", "gaussians", "height", "width", "views", "threads")
        assert tuple(row[name] for name in named) == expected
        assert row["forward_ms"] > 0
        assert row["forward_backward_ms"] == pytest.approx(row["forward_ms"] + row["backward_ms"])
        assert row["peak_memory_mb"] > 50
    assert out["rows"][0]["oracle_ratio"] == pytest.approx(out["rows"][2]["forward_ms"] / out["rows"][0]["forward_ms"])


def test_a_row_that_fails_says_why(monkeypatch):
    monkeypatch.setattr(bench, "ROWS", (("cpu", 10, 0, 32, 1, 1),))
    assert "error" in bench.measure()[0]


def test_the_sizes_of_the_issue_are_measured():
    measured = {row[1:4] for row in bench.ROWS if row[0] == "cpu"}
    assert {(50_000, 176, 320), (100_000, 352, 640), (500_000, 352, 640), (1_000_000, 704, 1280)} <= measured


def test_the_scene_is_about_a_pixel_large_and_fills_the_picture():
    gaussians, cameras = bench.random_scene(3000, 48, 64, views=2)
    pixels = gaussians.scales / gaussians.means[:, 2:] * cameras.intrinsics[0, 0]
    assert pixels.min() >= 0.5
    assert pixels.max() <= 1.5
    with torch.no_grad():
        assert (render(gaussians, cameras[:1]).alpha > 0.1).float().mean() > 0.95
