"""Makes the tables of docs/results.md again: ``make tables``, or some of them by name.

python recipes/tables.py               # all that a CPU can in three hours, the next that is not there first
python recipes/tables.py worlds        # that one, also where it is there
python recipes/tables.py --plan        # what would be run, and what is left out and why

A finished table is ``docs/results/NAME.json``: command, result, code, commit, date, machine. It is not run again as
long as command and code are the same. In the page it stands between ``<!-- table: NAME -->`` and ``<!-- end -->``.
"""

import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tyro

from lyra.bench.measure import describe_machine
from lyra.errors import LyraError
from lyra.evaluation.report_page import find_commit
from lyra.files import write_atomically
from lyra.files.strict_json import to_json

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "docs/results", ROOT / "docs/results.md"
BLOCK = re.compile(r"(<!-- table: (?P<name>\S+) -->\n)(?P<body>.*?)(?=^<!-- end -->$)", re.MULTILINE | re.DOTALL)
MEDIA = "../shared/media"
PHOTOS = tuple(f"{MEDIA}/{n}" for n in ("house_indoor.jpg", "restaurant.jpg", "medieval_village.jpg", "pagoda.png"))
DESK = f"{MEDIA}/mydesk"
SCRIPT = "a script of its time, not a command of the project"
WEIGHTS = "compares weights that are no longer there"
Rows = list[dict[str, Any]]


def rows_of(result: Mapping[str, Any]) -> Rows:
    """A result's rows as they are."""
    return result["rows"]


def rows_of_scenes(result: Mapping[str, Any]) -> Rows:
    """Of the photos without cameras: the scenes."""
    return result["scenes"]


def rows_with_seconds(result: Mapping[str, Any]) -> Rows:
    """Rows, and what one scene took from the teacher's clips on."""
    return [{**row, "seconds": result["seconds"].get(row["method"])} for row in result["rows"]]


def rows_by_distance(result: Mapping[str, Any]) -> Rows:
    """PSNR of every method, a row a distance."""
    return [
        {"distance (frames)": f"{part['from']:g} to {part['to']:g} ({part['frames']})"}
        | {row["method"]: row["psnr"] for row in part["rows"]}
        for part in result["by_baseline"]
    ]


@dataclass(frozen=True)
class Table:
    """A table of docs/results.md."""

    name: str
    command: str = ""
    """As it is typed in the repository; ``lyra`` and ``python`` are those that run this. Prints JSON when given
    ``--json``, or lines."""
    minutes: float = 0.0
    """About, of one busy core."""
    columns: Mapping[str, str] | None = None
    """Keys of the rows that are shown, with their headings; all when None."""
    rows: Callable[[Mapping[str, Any]], Rows] = rows_of
    needs: tuple[str, ...] = ()
    """Files and folders that are not in the repository."""
    of: str = ""
    """Another table whose result it shows."""
    detailed: bool = False
    """Numbers of every scene are kept too (of ``lyra evaluate``'s reports)."""
    left_out: str = ""
    """Why it is not made again."""
    gathered: bool = False
    """Shows what others found, in place of a result of its own."""


CLAIMS = (
    ("several clips read together, not each by itself", "24.77, 17.73", "no-fusion"),
    ("the teacher's clips to learn from, not true views alone", "24.77, 19.08", "multi-view"),
    ("with the depth loss, and without", "better with it", "no-depth-loss"),
    ("with the perceptual loss, and without", "better with it", "no-perceptual-loss"),
    ("pruned, and all Gaussians", "equal; 18, 30 ms a view", "no-pruning"),
    ("Mamba-2 mostly, and attention alone", "1, 6.5 times the time", "transformer"),
    ("six clips, and one", "no table", "fewer"),
)
"""What the paper's ablations say, with its numbers (PSNR where nothing else is said), and the table of ours."""


def gather_claims() -> Rows:
    """The paper's ablations beside ours, first arm and last."""
    rows = []
    for what, paper, name in CLAIMS:
        content = read(BY_NAME[name])
        row: dict[str, Any] = {"what is compared": what, "the paper": paper, "ours, PSNR": "not run"}
        if content is not None:
            first, *_, last = content["result"]["rows"]
            row["ours, PSNR"] = [first["psnr"], last["psnr"]]
            row |= {"ms a view": [first["render_ms"], last["render_ms"]], "seeds": len(content["result"]["seeds"])}
            row |= {"difference": last["difference"], "from": last["low"], "to": last["high"]}
            row["agrees"] = last["agrees"]
        rows.append(row)
    return rows


METHODS = {
    **{"method": "method", "psnr": "PSNR", "ssim": "SSIM", "perceptual": "perceptual"},
    **{"psnr_visible": "PSNR visible", "psnr_holes": "PSNR holes"},
}
PICTURES = {"picture": "picture", "input_psnr": "input PSNR, dB", "coverage": "coverage"}
ARMS = {
    **{"arm": "arm", "psnr": "PSNR", "psnr_visible": "visible", "psnr_holes": "holes", "ssim": "SSIM"},
    **{"gaussians": "Gaussians", "difference": "difference", "low": "from", "high": "to", "agrees": "agrees"},
}
TAUGHT = {
    **{
        "arm": "arm",
        "psnr": "PSNR",
        "psnr_by_seed": "by seed",
        "psnr_teacher": "to the teacher's frames",
        "ssim": "SSIM",
    },
    **{"gaussians": "Gaussians", "render_ms": "ms a view", "difference": "difference", "low": "from", "high": "to"},
    "agrees": "agrees",
}
TABLES = (
    Table("quoted", "src/lyra/evaluation/quoted_rows.json", left_out="quoted, not run"),
    Table("beside", "make tables", gathered=True),
    Table("posed", f"lyra evaluate posed {DESK} --most 48", 8, METHODS, needs=(DESK,), detailed=True),
    Table("posed-distance", f"lyra evaluate posed {DESK} --most 48", of="posed", rows=rows_by_distance),
    Table("fusion", "lyra evaluate ablation fusion --scenes 3", 5, ARMS),
    Table("trajectories", "lyra evaluate ablation trajectories --scenes 2", 6, ARMS),
    *(Table(name, f"lyra evaluate ablation {name}", 10, ARMS) for name in ("steps", "pruning")),
    Table("multi-view", "lyra evaluate ablation multi-view", 10, TAUGHT),
    *(Table(name, f"lyra evaluate ablation {name}", 2, TAUGHT) for name in ("no-fusion", "fewer")),
    *(
        Table(name, f"lyra evaluate ablation {name}", 6, TAUGHT)
        for name in ("no-pruning", "no-depth-loss", "transformer", "no-perceptual-loss")
    ),
    Table("worlds", "lyra evaluate worlds", 14, METHODS, detailed=True),
    Table(
        "optimized",
        "lyra evaluate worlds --scenes 1 --optimize 300",
        *(4, METHODS | {"seconds": "seconds a scene"}, rows_with_seconds),
    ),
    Table("worlds-four", "lyra evaluate worlds --scenes 4", 4, METHODS, detailed=True),
    Table(
        "photographs",
        " ".join(("python recipes/gallery.py --pictures examples/room.png", *PHOTOS)),
        *(10, PICTURES | {"visible_psnr": "visible PSNR, dB"}),
        needs=PHOTOS,
    ),
    Table("two-steps", left_out=WEIGHTS),
    Table("gallery", "python recipes/gallery.py docs/images/gallery.jpg", 18, PICTURES),
    Table("motorcycle", "python recipes/motorcycle.py", 2),
    Table("motorcycle-parts", left_out=WEIGHTS),
    Table("seeds", "python recipes/fusion_and_seeds.py --scenes 4", 4),
    Table("tokenizers", left_out="tokenizers that are not bundled"),
    Table("tokenizer", " ".join(("python recipes/tokenizer_round_trip.py", *PHOTOS)), 1, needs=PHOTOS),
    Table("render", "lyra bench render", 15),
    Table("render-memory", left_out=SCRIPT),
    Table("verify", "lyra verify OUT", left_out="needs Chromium; tests/test_verification.py does it"),
    Table("scan-precision", left_out=SCRIPT),
    Table("one-trajectory", left_out="an hour on two cores; `lyra bench decoder` measures blocks and adds them up"),
    Table("teacher-memory", left_out="reckoned from sizes, not measured"),
    Table("worlds-seconds", left_out=SCRIPT),
    Table("worlds-statistics", left_out=SCRIPT),
    Table(
        "mesh",
        "lyra evaluate mesh --scenes 3",
        *(8, {"method": "method"} | {key: key.replace("_", "-") for key in ("accuracy", "completeness", "f_score")}),
    ),
    Table("unposed", f"python recipes/unposed_capture.py {DESK} --size 256", 12, needs=(DESK,)),
    Table("unposed-scenes", f"python recipes/unposed_capture.py {DESK} --size 256", of="unposed", rows=rows_of_scenes),
    Table("video-cameras", left_out=SCRIPT),
    Table("prompts-first", "python recipes/prompt_scores.py recipes/prompts/first.json", 4),
    Table("prompts-second", "python recipes/prompt_scores.py recipes/prompts/second.json", 4),
    Table("prompts", left_out="the figures at first sight of a set cannot be had twice"),
    Table("layer-behind", left_out=WEIGHTS),
    Table("film-cameras", left_out=SCRIPT),
    Table("extensions", left_out="`python recipes/explore_room.py room -o explored` prints it, of a scene made before"),
    Table("mover-depth", left_out=SCRIPT),
)
"""In the order of the page."""
BY_NAME = {table.name: table for table in TABLES}


def why_not(table: Table) -> str:
    """Why a table is not made here; empty where it is."""
    missing = [name for name in table.needs if not (ROOT / name).exists()]
    return table.left_out or (f"{', '.join(missing)} is not there" if missing else "")


def digest_code() -> str:
    """SHA-256 of the package's files: code, weights and data."""
    whole = hashlib.sha256()
    for path in sorted((ROOT / "src").rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            whole.update(f"{path.relative_to(ROOT)}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    return whole.hexdigest()


def read(table: Table) -> dict[str, Any] | None:
    """What a table's file holds, where there is one."""
    file = RESULTS / f"{table.of or table.name}.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else None


def run(table: Table) -> dict[str, Any]:
    """Runs a table's command.

    Raises:
        LyraError: it fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        words = shlex.split(table.command)
        mark = {"commit": find_commit(), "code": digest_code()}
        report = ("--report", folder) if table.detailed else ()
        # An ablation goes on where it was, but never with another code's numbers.
        started = ("--run", f"runs/tables/{mark['code'][:12]}") if "ablation" in words else ()
        places = {"lyra": (sys.executable, "-m", "lyra.cli"), "python": (sys.executable,)}
        asked = (*places[words[0]], *words[1:], *report, *started, "--json")
        environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
        began = time.monotonic()
        done = subprocess.run(asked, cwd=ROOT, stdout=subprocess.PIPE, text=True, env=environment)
        if done.returncode:
            raise LyraError(f"{table.command} failed ({done.returncode}): see above")
        content = {"command": table.command, "result": json.loads(done.stdout.strip().splitlines()[-1])}
        if table.detailed:
            content["scenes"] = condense(json.loads((Path(folder) / "report.json").read_text(encoding="utf-8")))
    machine = describe_machine()
    told = f"{machine.cores} cores, {machine.instructions}, {machine.memory_gb:.0f} GB, torch {machine.torch}"
    return content | {
        **{"seconds": round(time.monotonic() - began), "date": time.strftime("%Y-%m-%d", time.gmtime())},
        **mark,
        "machine": told,
        **{"threads": os.environ.get("OMP_NUM_THREADS"), "load": round(os.getloadavg()[1], 1)},
    }


def condense(report: Mapping[str, Any]) -> Rows:
    """Of every scene the PSNR of each method's views, in the report's order."""
    return [
        {"scene": name}
        | {method: [round(v, 3) for v in row["psnr"][index]] for method, row in report["values"].items()}
        for index, name in enumerate(report["scenes"])
    ]


def show(table: Table, content: Mapping[str, Any]) -> str:
    """A table in Markdown, under what it is of."""
    lines = _lines(table.rows(content["result"]), table.columns)
    told = f"*`{content['command']}`, {content['date']}, {content['machine']}, load {content['load']}, "
    told += f"commit {content['commit']}, {content['seconds']} s.*"
    if "paper" in content["result"]:
        told += f" *The paper: {content['result']['paper']}.*"
    return "\n".join((told, "", *lines, ""))


def _lines(rows: Rows, columns: Mapping[str, str] | None = None) -> list[str]:
    shown = columns or {key: key.replace("_", " ") for row in rows for key in row}
    body = [[_cell(row.get(key)) for key in shown] for row in rows]
    return [f"| {' | '.join(cells)} |" for cells in (list(shown.values()), ["---"] * len(shown), *body)]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        return ", ".join(_cell(part) for part in value)
    if isinstance(value, int) or (isinstance(value, float) and abs(value) >= 1000):
        return f"{value:,.0f}"
    return f"{value:.{2 if abs(value) >= 10 else 3}f}" if isinstance(value, float) else str(value)


def fill(page: str) -> str:
    """The page with every table whose result is there."""

    def block(found: re.Match) -> str:
        table = BY_NAME.get(found["name"])
        if table is None:
            raise LyraError(f"docs/results.md has a table {found['name']!r} that recipes/tables.py does not know")
        if table.gathered:
            return found[1] + "\n".join((*_lines(gather_claims()), ""))
        content = None if table.left_out else read(table)
        return found[0] if content is None else found[1] + show(table, content)

    return BLOCK.sub(block, page)


def make_tables(names: tyro.conf.Positional[tuple[str, ...]] = (), /, plan: bool = False) -> None:
    """Makes what is not there, one table after another.

    Args:
        names: Make these alone, also where they are there.
        plan: Only say what would be done.
    """
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise LyraError(f"there is no table {unknown[0]!r}: give some of {', '.join(BY_NAME)}")
    code = digest_code()
    chosen: Sequence[Table] = [BY_NAME[name] for name in names] or TABLES
    for table in chosen:
        reason = why_not(table)
        if table.of or table.gathered:
            print(f"{table.name}: with {table.of or 'the others'}")
            continue
        if reason:
            print(f"{table.name}: left out: {reason}")
            continue
        stored = read(table)
        if not names and stored and (stored["command"], stored["code"]) == (table.command, code):
            print(f"{table.name}: there, of {stored['date']}")
            continue
        print(f"{table.name}: {table.command} (about {table.minutes:g} minutes)", flush=True)
        if not plan:
            content = run(table)
            with write_atomically(RESULTS / f"{table.name}.json") as path:
                path.write_text(to_json(content, indent=1) + "\n", encoding="utf-8")
            _write_page()
    if not plan:
        _write_page()


def _write_page() -> None:
    page = fill(PAGE.read_text(encoding="utf-8"))
    with write_atomically(PAGE) as path:
        path.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    try:
        tyro.cli(make_tables)
    except LyraError as error:
        sys.exit(f"error: {error}")
