"""The course of a training run, as a table."""

import json
from pathlib import Path

from lyra.errors import LyraError
from lyra.training.loop import LOG


def print_report(run: Path, rows: int) -> None:
    """Prints the mean of every logged number over equal stretches of a run.

    Raises:
        LyraError: the folder has no log.
    """
    log = run / LOG
    if rows < 1:
        raise LyraError(f"a table of {rows} rows is not possible: give at least 1")
    if not log.is_file():
        raise LyraError(f"{run} has no {LOG}: give the folder of one part's run")
    # The last line of a live or killed run may be cut short.
    lines = [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    if not lines:
        raise LyraError(f"{log} is empty: the run has not finished a step")
    # Steps of one run may differ in what they log.
    names = [name for name in dict.fromkeys(name for line in lines for name in line) if name != "step"]
    print(f"{'steps':>15} " + " ".join(f"{name:>13}" for name in names))
    size = max(1, -(-len(lines) // rows))
    for start in range(0, len(lines), size):
        part = lines[start : start + size]
        logged = ([line[name] for line in part if line.get(name) is not None] for name in names)
        cells = (f"{sum(values) / len(values):>13.5g}" if values else f"{'-':>13}" for values in logged)
        print(f"{part[0]['step']}..{part[-1]['step']}".rjust(15), *cells)
    minutes = sum(line["seconds"] for line in lines) / 60
    print(f"{len(lines)} steps, {minutes:.1f} minutes")
