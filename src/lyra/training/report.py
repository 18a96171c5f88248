"""The course of a training run: its log, and a table of it."""

import json
from pathlib import Path
from typing import Any

from lyra.errors import LyraError
from lyra.synthesis.planning import NOTE
from lyra.training.loop import LOG


def find_parts(run: Path) -> list[Path]:
    """Folders of the parts of a run, which may be one itself; data that lie beside them have a log of their own.

    Raises:
        LyraError: there is none.
    """
    found = [run] if (run / LOG).is_file() else sorted(path.parent for path in run.glob(f"*/{LOG}"))
    parts = [part for part in found if not (part / NOTE).exists()]
    if not parts:
        raise LyraError(f"{run} has no {LOG}: give the folder of a run")
    return parts


def read_log(part: Path) -> list[dict[str, Any]]:
    """The lines of a part's log; the last of a live or killed run may be cut short, and is left out.

    Raises:
        LyraError: there is none, or the run has not finished a step.
    """
    try:
        lines = (part / LOG).read_text().splitlines(keepends=True)
    except FileNotFoundError:
        raise LyraError(f"{part} has no {LOG}: give the folder of a run") from None
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    if not rows:
        raise LyraError(f"{part / LOG} is empty: the run has not finished a step")
    return rows


def print_report(part: Path, rows: int) -> None:
    """Prints the mean of every logged number over equal stretches of a part's steps.

    Raises:
        LyraError: as of ``read_log``, or no row is asked for.
    """
    if rows < 1:
        raise LyraError(f"a table of {rows} rows is not possible: give at least 1")
    lines = read_log(part)
    # Steps of one run may differ in what they log.
    names = [name for name in dict.fromkeys(name for line in lines for name in line) if name != "step"]
    print(f"{'steps':>15} " + " ".join(f"{name:>13}" for name in names))
    size = max(1, -(-len(lines) // rows))
    for start in range(0, len(lines), size):
        some = lines[start : start + size]
        logged = ([line[name] for line in some if line.get(name) is not None] for name in names)
        cells = (f"{sum(values) / len(values):>13.5g}" if values else f"{'-':>13}" for values in logged)
        print(f"{some[0]['step']}..{some[-1]['step']}".rjust(15), *cells)
    minutes = sum(line["seconds"] for line in lines) / 60
    print(f"{len(lines)} steps, {minutes:.1f} minutes")
