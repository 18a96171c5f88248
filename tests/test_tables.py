"""The tables of docs/results.md: each names its command, shows what was run, and a slice of it comes out again."""

import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from lyra.engine.engine import Engine
from lyra.engine.paths import preset_paths
from lyra.errors import LyraError
from lyra.evaluation.metrics import psnr
from lyra.evaluation.quoted import quoted_rows
from lyra.evaluation.scores import baselines
from lyra.evaluation.still_worlds import FIRST_HELD_OUT_SEED, WorldsOptions, to_true_scale
from lyra.files.photos import Photo
from lyra.geometry.cameras import Cameras, concatenate_cameras, intrinsics_from_fov
from lyra.models.loading import load
from lyra.worlds import render_world, sample_world
from lyra.worlds.world import INPUT_FOV

ROOT = Path(__file__).parents[1]
_spec = importlib.util.spec_from_file_location("tables", ROOT / "recipes/tables.py")
assert _spec is not None and _spec.loader is not None
tables = importlib.util.module_from_spec(_spec)
sys.modules["tables"] = tables  # dataclasses look their module up
_spec.loader.exec_module(tables)
PAGE = (ROOT / "docs/results.md").read_text(encoding="utf-8")


def test_every_table_of_the_page_is_known():
    outside = tables.BLOCK.sub("", PAGE)
    bare = [line for line in outside.splitlines() if line.startswith(("|", "```text"))]
    assert bare == [], "put the table between <!-- table: NAME --> and <!-- end -->, and name it in recipes/tables.py"
    names = [found["name"] for found in tables.BLOCK.finditer(PAGE)]
    assert len(names) == len(set(names)) and set(names) <= set(tables.BY_NAME)
    assert {table.name for table in tables.TABLES if table.left_out and table.name not in names} == set()


def test_every_table_names_its_command():
    """In its section; what is not a command says why it is not made again."""
    for found in tables.BLOCK.finditer(PAGE):
        table = tables.BY_NAME[found["name"]]
        section = PAGE[PAGE.rfind("\n#", 0, found.start()) : found.end()]
        told = " ".join(section.split())
        assert f"`{table.command}" in told if table.command else table.left_out, table.name


def test_quoted_figures_are_those_of_the_data_file():
    """The paper's and Bolt3D's, of single pictures."""
    [block] = [found["body"] for found in tables.BLOCK.finditer(PAGE) if found["name"] == "quoted"]
    sets = {"RealEstate10K", "DL3DV", "Tanks and Temples", "Lyra's own clips"}
    rows = [row for row in quoted_rows()["rows"] if row["method"] in ("Lyra-1", "Bolt3D") and row["set"] in sets]
    assert len(rows) == 5
    for row in rows:
        cells = f"{row['psnr']} / {row['ssim']:.3f} / {row['lpips']:.3f}".replace(" 0.", " .")
        assert cells in next(line for line in block.splitlines() if line.startswith(f"| {row['method']}"))


def test_claims_are_gathered_from_what_was_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """First and last arm, beside what the paper says; a table that is not there is said to be missing."""
    monkeypatch.setattr(tables, "RESULTS", tmp_path)
    told = {"psnr": 18.0, "render_ms": 2.0}
    last = {"psnr": 17.0, "render_ms": 3.0, "difference": -1.0, "low": -2.0, "high": -0.5, "agrees": "yes"}
    content = {"result": {"rows": [told, {"psnr": 0.0}, last], "seeds": [0, 1]}}
    (tmp_path / "no-fusion.json").write_text(json.dumps(content))
    rows = {row["what is compared"]: row for row in tables.gather_claims()}
    first, *others = rows.values()
    assert first["the paper"] == "24.77, 17.73" and first["ours, PSNR"] == [18.0, 17.0] and first["agrees"] == "yes"
    assert {row["ours, PSNR"] for row in others} == {"not run"} and len(others) == len(tables.CLAIMS) - 1


def test_all_that_is_made_takes_less_than_three_hours():
    assert sum(table.minutes for table in tables.TABLES) < 180
    assert all(table.minutes or table.left_out or table.of or table.gathered for table in tables.TABLES)


def test_the_page_shows_what_was_run():
    assert tables.fill(PAGE) == PAGE
    stored = [table for table in tables.TABLES if not table.of and tables.read(table)]
    assert stored
    for table in stored:
        content = tables.read(table)
        assert content["command"] == table.command
        assert re.match(r"[0-9a-f]{64}$", content["code"]) and content["date"] and content["machine"]
        assert f"<!-- table: {table.name} -->" in PAGE


@torch.no_grad()
def test_a_slice_of_the_worlds_comes_out_again():
    """One world of four: what needs no student, and the teacher on one path of six, within 0.1 dB a view."""
    stored = next(table for table in tables.TABLES if table.name == "worlds-four")
    expected = tables.read(stored)["scenes"][0]
    engine = Engine(load("mini"), "cpu")
    height, width, frames = engine.config.height, engine.config.width, engine.config.frames
    camera = Cameras(torch.eye(4)[None], intrinsics_from_fov(INPUT_FOV, height, width)[None], height, width)
    world = sample_world(FIRST_HELD_OUT_SEED)
    color, depth = render_world(world, camera)
    views = to_true_scale(engine.views([Photo.of(color[0])], fov=INPUT_FOV)[0], depth[0])
    path = preset_paths(WorldsOptions.seed, frames, height, width)[0]
    [[clip]] = engine.imagine(views, [path], WorldsOptions.seed, quiet=True)
    picks = list(range(WorldsOptions.stride, frames, WorldsOptions.stride))
    cameras = concatenate_cameras([clip.cameras[picks]])
    truth = render_world(world, cameras)[0]
    shown = {"teacher": engine.frames(clip)[picks], **baselines(color[0], views.depth[0], camera, cameras)}
    assert set(shown) | {"student"} == set(expected) - {"scene"}
    for method, pictures in shown.items():
        found = [psnr(a.clamp(0, 1), b) for a, b in zip(pictures, truth, strict=True)]
        assert found == pytest.approx(expected[method][: len(picks)], abs=0.1), method


def test_what_is_there_is_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    """Until the code is another; a file that is missing and a failure are told."""
    asked: list[str] = []
    code = ["a" * 64]

    def run(table: Any) -> dict[str, Any]:
        asked.append(table.name)
        if table.name == "third":
            raise LyraError("it failed")
        told = {"command": table.command, "code": code[0], "date": "today", "commit": "c", "seconds": 1}
        return told | {"machine": "m", "load": 0.0, "result": {"rows": [{"method": "x", "psnr": 1234.5, "n": None}]}}

    kinds = [tables.Table(name, f"lyra {name}", 1) for name in ("first", "second", "third")]
    kinds[1:1] = [tables.Table("far", "lyra far", 1, needs=("nowhere",)), tables.Table("old", left_out="too old")]
    page = tmp_path / "results.md"
    page.write_text("# Results\n\n<!-- table: first -->\n| by hand |\n<!-- end -->\n\nmore\n")
    for name, value in {"TABLES": tuple(kinds), "BY_NAME": {k.name: k for k in kinds}, "RESULTS": tmp_path}.items():
        monkeypatch.setattr(tables, name, value)
    monkeypatch.setattr(tables, "PAGE", page)
    monkeypatch.setattr(tables, "run", run)
    monkeypatch.setattr(tables, "digest_code", lambda: code[0])
    for _ in range(2):
        with pytest.raises(LyraError, match="it failed"):
            tables.make_tables()
    assert asked == ["first", "second", "third", "third"]
    told = capsys.readouterr().out
    assert "far: left out: nowhere is not there" in told and "old: left out: too old" in told
    assert "| x | 1,234 |  |" in page.read_text() and "`lyra first`, today" in page.read_text()
    assert page.read_text().endswith("<!-- end -->\n\nmore\n")
    code[0] = "b" * 64
    tables.make_tables(("first",))
    assert json.loads((tmp_path / "first.json").read_text())["code"] == code[0]
    with pytest.raises(LyraError, match="no table 'fourth'"):
        tables.make_tables(("fourth",))
