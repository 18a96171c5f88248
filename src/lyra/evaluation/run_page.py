"""``lyra report RUN``: a training run as one page that needs nothing else."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lyra.evaluation.gallery import data_url
from lyra.evaluation.report_page import draw_lines, fill_page, make_section, make_table
from lyra.files import write_atomically
from lyra.files.images import load_image
from lyra.training.report import find_parts, read_log
from lyra.training.validation import BINS, read_validation

POINTS = 40
"""Of a curve: means over as many equal stretches of the steps."""
PAGE = "report.html"
CURVES = (
    ("Loss", ("loss",)),
    ("Terms of the loss", ("color", "perceptual", "depth", "opacity")),
    ("Norm of the gradient", ("gradient_norm",)),
    ("Gaussians that are drawn", ("gaussians",)),
    ("Steps a second", ("steps a second",)),
)
"""Sections of the page, and what the log calls their curves."""


def write_run_page(run: Path) -> Path:
    """Writes the page of a run into its folder.

    Args:
        run: Folder of a part's run (with log.jsonl), or one that holds several.

    Raises:
        LyraError: there is no log, or the page cannot be written.
    """
    parts = find_parts(run)
    sections = [section for part in parts for section in _describe_part(part, len(parts) > 1)]
    result = run / "result.json"
    if result.is_file():
        scores = json.loads(result.read_text())
        table = make_table(scores["rows"]) + f"<p>{scores.get('note', '')}</p>"
        sections.insert(0, make_section("Held-out scenes", table))
    with write_atomically(run / PAGE) as temporary:
        temporary.write_text(fill_page(f"lyra report {run.name}", sections), encoding="utf-8")
    return run / PAGE


def _describe_part(part: Path, named: bool) -> list[str]:
    rows = [row | {"steps a second": 1 / max(row["seconds"], 1e-9)} for row in read_log(part)]
    before = f"{part.name}: " if named else ""
    sections = []
    for title, names in CURVES:
        drawn = {name: values for name in names if (values := _means(rows, name))}
        if drawn:
            sections.append(make_section(before + title, _plot(drawn, rows, title)))
    seen = read_validation(part)
    if seen:
        sections.append(make_section(f"{before}Validation", _show_validation(seen)))
    pictures = sorted((part / "samples").glob("*.png"))
    if pictures:
        sections.append(make_section(f"{before}Pictures", _show_pictures(pictures)))
    return [*sections, make_section(f"{before}Summary", make_table([_sum_up(rows)]))]


def _means(rows: Sequence[dict[str, Any]], name: str) -> list[float]:
    size = -(-len(rows) // POINTS)
    means: list[float] = []
    for start in range(0, len(rows), size):
        part = [row[name] for row in rows[start : start + size] if row.get(name) is not None]
        if part:
            means.append(sum(part) / len(part))
        elif means:
            means.append(means[-1])
    return means


def _plot(drawn: dict[str, list[float]], rows: Sequence[dict[str, Any]], title: str) -> str:
    longest = max(map(len, drawn.values()))
    # A term that begins in a later stage begins at its own first value.
    padded = {name: [values[0]] * (longest - len(values)) + values for name, values in drawn.items()}
    size = -(-len(rows) // POINTS)
    every = max(1, longest // 6)
    labels = [str(rows[i * size]["step"]) if i % every == 0 else "" for i in range(longest)]
    spread = [value for values in padded.values() for value in values]
    return draw_lines(padded, labels, f"{title} by step", 0.05 * (max(spread) - min(spread)) or 0.5)


def _show_validation(seen: Sequence[dict[str, Any]]) -> str:
    shown = [{name: value for name, value in row.items() if name != "opacities"} for row in seen]
    counts = [float(count) for count in seen[-1]["opacities"]]
    labels = [f"{index / BINS:g}" if index % 4 == 0 else "" for index in range(BINS)]
    plot = draw_lines({"Gaussians": counts}, labels, "Gaussians by opacity", 0.05 * max(counts) or 0.5)
    few = shown if len(shown) <= 12 else [*shown[:: -(-len(shown) // 11)], shown[-1]]
    return make_table(few) + f"<p>Gaussians by their opacity after step {seen[-1]['step']}.</p>" + plot


def _show_pictures(pictures: Sequence[Path]) -> str:
    chosen = dict.fromkeys([pictures[0], pictures[len(pictures) // 2], pictures[-1]])
    note = "<p>A row a scene that training never reads: pairs of the teacher's frame and the student's.</p>"
    images = (
        f'<figure style="flex:1"><img src="{data_url(load_image(path), longer=1200)}" alt="step {int(path.stem)}">'
        f"<figcaption>step {int(path.stem)}</figcaption></figure>"
        for path in chosen
    )
    return note + "".join(images)


def _sum_up(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    seconds = sum(row["seconds"] for row in rows)
    return {"steps": len(rows), "minutes": round(seconds / 60, 2), "steps a second": len(rows) / max(seconds, 1e-9)}
