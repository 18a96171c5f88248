"""Intervals by hand, reports, and what two of them say."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from captures import film, write_nerfstudio
from command_line import run_here

from lyra.errors import LyraError
from lyra.evaluation.comparison import compare_reports
from lyra.evaluation.intervals import difference, interval
from lyra.evaluation.quoted import quoted_rows


def test_an_interval_is_as_wide_as_the_mean_is_unsure():
    draws = np.random.default_rng(3).normal(20.0, 2.0, size=200)
    bounds = interval([[value] for value in draws])
    assert bounds is not None
    half = 1.96 * draws.std(ddof=1) / np.sqrt(200)
    assert bounds[0] == pytest.approx(draws.mean() - half, abs=0.05)
    assert bounds[1] == pytest.approx(draws.mean() + half, abs=0.05)


def test_frames_of_one_scene_count_as_one():
    """Ten equal frames of a scene do not make its mean surer."""
    few, many = [[20.0], [22.0], [24.0]], [[20.0] * 10, [22.0] * 10, [24.0] * 10]
    assert interval(few) == interval(many)
    assert interval([[20.0]]) is None
    assert interval([]) is None
    assert interval([[], [1.0, 3.0]]) == (1.0, 3.0)


def test_a_difference_is_told_frame_by_frame():
    noise = np.random.default_rng(0).normal(0, 5, size=(6, 4))
    first = (20 + noise).tolist()
    change, bounds = difference(first, (20.5 + noise).tolist())
    assert change == pytest.approx(0.5)
    assert bounds == pytest.approx((0.5, 0.5))
    with pytest.raises(ValueError, match="same frames"):
        difference(first, first[1:])


def _report(path: Path, shift: float, scenes: int = 5, **provenance: object) -> Path:
    noise = np.random.default_rng(1).normal(0, 1, size=(2, scenes, 3))
    values = {
        "student": {
            "psnr": (20 + noise[0] + shift).tolist(),
            "perceptual": (2 + 0.1 * noise[1] + 0.1 * shift).tolist(),
        }
    }
    path.mkdir()
    content = {"what": "worlds", "scenes": [str(i) for i in range(scenes)], "values": values, "provenance": provenance}
    (path / "report.json").write_text(json.dumps(content))
    return path


def test_what_changed_and_whether_it_is_outside_the_noise(tmp_path: Path):
    one, two = _report(tmp_path / "a", 0.0, commit="1", seed=0), _report(tmp_path / "b", 0.4, commit="2", seed=0)
    found = compare_reports(one, two)
    rows = {row["metric"]: row for row in found["rows"]}
    assert rows["psnr"]["difference"] == pytest.approx(0.4)
    assert rows["psnr"]["verdict"] == "better"
    assert rows["perceptual"]["verdict"] == "worse"
    assert found["changed"] == {"commit": ["1", "2"]}
    assert {row["verdict"] for row in compare_reports(one, one)["rows"]} == {"within noise"}
    with pytest.raises(LyraError, match="not of the same scenes"):
        compare_reports(one, _report(tmp_path / "c", 0.0, scenes=4))
    with pytest.raises(LyraError, match=r"report\.json"):
        compare_reports(one, tmp_path)
    (tmp_path / "d").mkdir()
    (tmp_path / "d/report.json").write_text("{}")
    with pytest.raises(LyraError, match="is no report"):
        compare_reports(one, tmp_path / "d")


def test_a_report_is_one_page_and_its_numbers(tmp_path: Path):
    """Of a capture by the command; compared with itself nothing changed."""
    folder = write_nerfstudio(film(), tmp_path / "<room>")
    out = tmp_path / "report"
    done = run_here("evaluate", "posed", folder, "--model", "smoke", "--report", out, "--json")
    assert done.returncode == 0, done.stderr
    content = json.loads((out / "report.json").read_text())
    assert content["result"]["rows"] == json.loads(done.stdout)["rows"]
    mean = [value for scene in content["values"]["plane"]["psnr"] for value in scene]
    [row] = [row for row in content["result"]["rows"] if row["method"] == "plane"]
    assert row["psnr"] == pytest.approx(sum(mean) / len(mean))
    assert {row["stage"] for row in content["stages"]} >= {"read", "teacher", "student", "render", "scores"}
    assert {"commit", "checksums", "seed", "packages", "machine"} <= content["provenance"].keys()
    page = (out / "index.html").read_text()
    assert not re.findall(r'(?:src|href)="(?!data:)[^"]', page)
    assert "<room>" not in page
    assert page.count("data:image/jpeg") >= 3 * 8
    for text in ("By distance", "Best and worst", "Published by others, not run here", "Provenance"):
        assert text in page
    done = run_here("evaluate", "compare", out, out, "--json")
    assert {row["verdict"] for row in json.loads(done.stdout)["rows"]} <= {"within noise", "unknown"}
    assert run_here("evaluate", "compare", out).returncode == 2


def test_quoted_rows_have_a_source_a_protocol_and_a_date():
    rows = quoted_rows()["rows"]
    assert {"Lyra-1", "Bolt3D"} <= {row["method"] for row in rows}
    for row in rows:
        assert all(isinstance(row[name], str) and row[name] for name in ("method", "set", "protocol", "source", "date"))
        assert 10 < row["psnr"] < 40
