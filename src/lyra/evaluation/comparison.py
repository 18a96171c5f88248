"""Two reports of one evaluation side by side: what changed, and whether it is outside the noise."""

import json
from pathlib import Path
from typing import Any

from lyra.errors import LyraError
from lyra.evaluation.intervals import difference
from lyra.files.atomic import explain_reading

HIGHER_IS_BETTER = ("psnr", "ssim", "psnr_visible", "psnr_holes", "psnr_moving", "psnr_still")


def read_report(path: Path) -> dict[str, Any]:
    """``report.json`` of a report's folder, or the file itself.

    Raises:
        LyraError: there is none.
    """
    file = path / "report.json" if path.is_dir() else path
    with explain_reading(file):
        data = file.read_bytes()
    try:
        content = json.loads(data)
        assert isinstance(content["values"], dict)
        assert isinstance(content["scenes"], list)
    except (ValueError, KeyError, TypeError, AssertionError, RecursionError):
        raise LyraError(f"{file} is no report: make one with lyra evaluate ... --report DIR") from None
    return content


def compare_reports(first: Path, second: Path) -> dict[str, Any]:
    """What the second report has more of than the first, frame by frame.

    Returns:
        ``rows`` with method, metric, first, second, difference, its low and high, and a verdict: "better", "worse" or
        "within noise"; ``changed``, what else differs of the two (models, commits, options).

    Raises:
        LyraError: one is no report, or they are not of the same frames.
    """
    one, other = read_report(first), read_report(second)
    if one["scenes"] != other["scenes"] or one.get("what") != other.get("what"):
        raise LyraError(f"{first} and {second} are not of the same scenes: run both with the same options")
    rows = []
    for method, metrics in one["values"].items():
        for metric, scenes in metrics.items():
            later = other["values"].get(method, {}).get(metric)
            if later is None or not any(scenes) or not any(later):
                continue
            try:
                rows.append(_row(method, metric, scenes, later))
            except ValueError:
                raise LyraError(f"{first} and {second} are not of the same frames: run both alike") from None
    return {"rows": rows, "changed": _changed(one["provenance"], other["provenance"])}


def _row(method: str, metric: str, scenes: list[list[float]], later: list[list[float]]) -> dict[str, Any]:
    change, bounds = difference(scenes, later)
    verdict = "unknown"
    if bounds is not None:
        low, high = bounds
        up = metric in HIGHER_IS_BETTER
        verdict = "within noise" if low <= 0 <= high else ("better" if (low > 0) == up else "worse")
    flat = [[value for scene in part for value in scene] for part in (scenes, later)]
    before, after = (sum(part) / len(part) for part in flat)
    low, high = bounds or (None, None)
    return {
        **{"method": method, "metric": metric, "first": before, "second": after},
        **{"difference": change, "low": low, "high": high, "verdict": verdict},
    }


def _changed(one: dict[str, Any], other: dict[str, Any]) -> dict[str, list[Any]]:
    names = dict.fromkeys([*one, *other])
    return {name: [one.get(name), other.get(name)] for name in names if one.get(name) != other.get(name)}
