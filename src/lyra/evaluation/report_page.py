"""A report: one HTML page that needs nothing else, and the same numbers as JSON."""

import html
import math
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import torch

from lyra.evaluation.gallery import Exhibit, Gallery
from lyra.evaluation.intervals import LEVEL, interval
from lyra.evaluation.quoted import quoted_rows
from lyra.evaluation.scores import Values
from lyra.evaluation.stages import Stages
from lyra.files import write_atomically
from lyra.files.strict_json import to_json
from lyra.models.model import Model

COLORS = ("#2f6fde", "#d9692b", "#3c9a5f", "#8f56c9", "#b98a1f", "#777777", "#c23b5b")
SHOWN_SCENES = 2
"""Best and worst scenes of which pictures are shown, each."""


def write_report(
    folder: Path,
    what: str,
    result: Mapping[str, Any],
    values: Values,
    scenes: Sequence[str],
    gallery: Gallery,
    stages: Stages,
    provenance: Mapping[str, Any],
) -> None:
    """Writes ``report.json`` and ``index.html``.

    Args:
        folder: Made where it is missing.
        what: Which evaluation.
        result: What it prints.
        values: Every number that went into it.
        scenes: Names, in the order of the numbers.
        gallery: Pictures.
        stages: Time and memory.
        provenance: See ``describe_provenance``.

    Raises:
        LyraError: a file cannot be written.
    """
    content = {
        **{"what": what, "scenes": list(scenes), "result": dict(result)},
        **{"values": values, "stages": stages.rows(), "provenance": dict(provenance)},
    }
    with write_atomically(folder / "report.json") as temporary:
        temporary.write_text(to_json(content, indent=1) + "\n", encoding="utf-8")
    with write_atomically(folder / "index.html") as temporary:
        temporary.write_text(make_page(content, gallery), encoding="utf-8")


def describe_provenance(model: Model, seed: int, options: Any) -> dict[str, Any]:
    """Commit, model with its checksums, seed, options, versions and machine."""
    return {
        "commit": find_commit(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "command": " ".join(sys.argv[1:]),
        "seed": seed,
        "options": str(options),
        "model": model.config.name,
        "checksums": dict(getattr(model.config, "checksums", None) or {}),
        "packages": {name: version(name) for name in ("lyra", "torch", "diffusers", "numpy")},
        "machine": f"{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}",
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
    }


def find_commit() -> str | None:
    """Of the source tree; None where there is none. A tree with changes says so."""
    here = Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", "-C", str(here), "describe", "--always", "--dirty", "--abbrev=12"],
            **{"capture_output": True, "text": True, "timeout": 10, "check": True},
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def make_page(content: Mapping[str, Any], gallery: Gallery) -> str:
    """The whole page."""
    result, provenance = content["result"], content["provenance"]
    parts = [
        make_section("Methods", _methods_table(result["rows"], content["values"])),
        make_section("By distance", _by_distance(result)) if result.get("by_baseline") else "",
        make_section("Depth", make_table([result["depth"]])) if result.get("depth") else "",
        make_section("Scenes", _scene_bars(content["values"], content["scenes"])) if len(content["scenes"]) > 1 else "",
        make_section("Best and worst", _pictures(gallery)) if gallery.exhibits else "",
        make_section("Time and memory", make_table(content["stages"])),
        make_section("Published by others, not run here", _quoted()),
        make_section("Provenance", make_table([{"": key, "value": value} for key, value in provenance.items()])),
    ]
    if result.get("captures"):
        parts.insert(-1, make_section("Captures", make_table(result["captures"])))
    return fill_page(f"lyra evaluate {content['what']}: {provenance.get('model', '')}", parts)


def fill_page(title: str, parts: Sequence[str]) -> str:
    """A whole page of sections; empty ones are left out."""
    template = Template(files("lyra.evaluation").joinpath("report.html").read_text(encoding="utf-8"))
    return template.substitute(title=html.escape(title), body="\n".join(part for part in parts if part))


def make_section(title: str, body: str) -> str:
    """A part of a page with its heading."""
    return f"<section><h2>{html.escape(title)}</h2>{body}</section>"


def make_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows by the names of their columns."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    body = "".join("<tr>" + "".join(f"<td>{_cell(row.get(n))}</td>" for n in names) + "</tr>" for row in rows)
    return f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else html.escape(str(value))


def _methods_table(rows: Sequence[Mapping[str, Any]], values: Values) -> str:
    """Means with their intervals below."""
    told = []
    for row in rows:
        cells: dict[str, Any] = {}
        for name, value in row.items():
            bounds = interval(values.get(str(row["method"]), {}).get(name, []))
            cells[name] = value if bounds is None else f"{value:.4g} [{bounds[0]:.4g}, {bounds[1]:.4g}]"
        told.append(cells)
    scenes = len(next(iter(next(iter(values.values())).values()))) if values else 0
    over = "scenes" if scenes > 1 else "frames of one scene: they hold for it alone"
    note = (
        f"<p>In brackets {100 * LEVEL:.0f} % intervals by bootstrap over {over}. Higher is better but for perceptual."
    )
    return make_table(told) + note + "</p>"


def _by_distance(result: Mapping[str, Any]) -> str:
    """A line a method over the bins, and the table."""
    bins = result["by_baseline"]
    methods = [row["method"] for row in bins[0]["rows"]]
    series = {m: [next(r["psnr"] for r in part["rows"] if r["method"] == m) for part in bins] for m in methods}
    labels = [f"{b['from']:g}–{b['to']:g} ({b['frames']})" for b in bins]
    rows = [{"distance": label} | {m: series[m][i] for m in methods} for i, label in enumerate(labels)]
    note = "<p>PSNR in dB by the camera's distance over the input view's median depth (number of frames).</p>"
    return note + draw_lines(series, labels) + make_table(rows)


def draw_lines(
    series: Mapping[str, Sequence[float]], labels: Sequence[str], what: str = "PSNR by distance", margin: float = 0.5
) -> str:
    """An SVG of lines over equally spaced labels."""
    low = min(min(line) for line in series.values()) - margin
    high = max(max(line) for line in series.values()) + margin
    wide, tall, left, top = 640, 280, 44, 10
    step = (wide - left - 60) / max(1, len(labels) - 1)

    def place(index: int, value: float) -> tuple[float, float]:
        return left + 30 + index * step, top + (high - value) / (high - low) * (tall - 50)

    parts = []
    for tick in _ticks(low, high):
        y = place(0, tick)[1]
        parts.append(f'<line x1="{left}" x2="{wide}" y1="{y:.1f}" y2="{y:.1f}" class="grid"/>')
        parts.append(f'<text x="{left - 6}" y="{y + 4:.1f}" class="tick" text-anchor="end">{tick:g}</text>')
    for index, label in enumerate(labels):
        x = place(index, low)[0]
        parts.append(f'<text x="{x:.1f}" y="{tall - 22}" class="tick" text-anchor="middle">{html.escape(label)}</text>')
    for color, line in zip(COLORS, series.values(), strict=False):
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(i, v) for i, v in enumerate(line)))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{color}" stroke-width="2"/>')
        dots = (place(i, v) for i, v in enumerate(line))
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{color}"/>' for x, y in dots]
    svg = f'<svg viewBox="0 0 {wide} {tall}" role="img" aria-label="{html.escape(what)}">{"".join(parts)}</svg>'
    return svg + make_legend(list(series))


def _ticks(low: float, high: float) -> list[float]:
    """Round numbers between two, about six."""
    rough = (high - low) / 6
    unit = 10.0 ** math.floor(math.log10(max(rough, 1e-12)))
    step = next(unit * factor for factor in (1, 2, 5, 10) if unit * factor >= rough)
    return [round(step * number, 10) for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def make_legend(names: Sequence[str]) -> str:
    """Colors and names of lines."""
    pairs = zip(COLORS, names, strict=False)
    return "<p>" + " ".join(f'<span class="key" style="--c:{c}">{html.escape(n)}</span>' for c, n in pairs) + "</p>"


def _scene_bars(values: Values, scenes: Sequence[str]) -> str:
    """Mean PSNR of each scene by method."""
    rows = []
    for index, name in enumerate(scenes):
        means = {m: row["psnr"][index] for m, row in values.items() if row.get("psnr")}
        rows.append({"scene": name} | {m: sum(v) / len(v) if v else None for m, v in means.items()})
    rows.sort(key=lambda row: -(row.get("student") or 0.0))
    return "<p>PSNR in dB, the scene that the student shows best first.</p>" + make_table(rows)


def _pictures(gallery: Gallery) -> str:
    scenes = gallery.scenes()
    if len(scenes) > 2 * SHOWN_SCENES:
        scenes = scenes[:SHOWN_SCENES] + scenes[-SHOWN_SCENES:]
    blocks = []
    for name, exhibits in scenes:
        blocks.append(f"<h3>{html.escape(name)}</h3>" + "".join(_exhibit(exhibit) for exhibit in exhibits))
    return "<p>Drag over the large picture: truth on the left, the method chosen on the right.</p>" + "".join(blocks)


def _exhibit(exhibit: Exhibit) -> str:
    shown = [name for name in exhibit.pictures if name not in ("truth", "input")]
    options = "".join(f'<option value="{html.escape(n)}">{html.escape(n)}</option>' for n in shown)
    strip = "".join(
        f'<figure><img data-name="{html.escape(n)}" src="{url}" alt="{html.escape(n)}"><figcaption>{html.escape(n)}'
        + (f" {exhibit.numbers[n]:.1f} dB" if n in exhibit.numbers else "")
        + "</figcaption></figure>"
        for n, url in exhibit.pictures.items()
    )
    return (
        f'<div class="exhibit"><p>{html.escape(exhibit.label)} <select>{options}</select></p>'
        '<div class="pair"><img class="truth" alt="truth"><img class="method" alt="method">'
        '<input type="range" min="0" max="100" value="50" aria-label="truth or method"></div>'
        f'<div class="strip">{strip}</div></div>'
    )


def _quoted() -> str:
    quoted = quoted_rows()
    return f"<p>{html.escape(quoted['note'])} Read {quoted['read']}.</p>" + make_table(quoted["rows"])
