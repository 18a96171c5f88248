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
    names = [name for name in lines[0] if name != "step"]
    print(f"{'steps':>15} " + " ".join(f"{name:>13}" for name in names))
    size = max(1, -(-len(lines) // rows))
    for start in range(0, len(lines), size):
        part = lines[start : start + size]
        means = (sum(line[name] for line in part) / len(part) for name in names)
        steps = f"{part[0]['step']}..{part[-1]['step']}"
        print(f"{steps:>15} " + " ".join(f"{mean:>13.5g}" for mean in means))
    minutes = sum(line["seconds"] for line in lines) / 60
    print(f"{len(lines)} steps, {minutes:.1f} minutes")
