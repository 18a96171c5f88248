"""Self-distillation from beginning to end in minutes: ``make distill``.

The bundled teacher imagines clips of procedural worlds that nothing else is trained on; a student in the paper's form
learns from them alone, from random weights in three stages and two processes; then it is measured on scenes that the
data set holds out by their hash, and ``RUN/report.html`` shows it all. An interrupted run goes on.

python recipes/distill.py --run runs/distill
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from lyra.bench.measure import describe_machine
from lyra.engine.engine import Engine
from lyra.errors import LyraError
from lyra.evaluation.held_out_scenes import score_students
from lyra.evaluation.report_page import describe_provenance
from lyra.evaluation.run_page import write_run_page
from lyra.files import write_atomically
from lyra.files.strict_json import to_json
from lyra.files.tables import format_table
from lyra.models.loading import load
from lyra.synthesis.choices import SynthesisOptions
from lyra.synthesis.production import produce
from lyra.synthesis.sources import find_inputs
from lyra.synthesis.streaming import DataSet
from lyra.training.ladders import LADDERS
from lyra.training.student_course import make_student
from lyra.training.world_clips import FIRST_IMAGE_SEED


@dataclass(frozen=True)
class Distillation:
    """What is distilled, and where."""

    run: Path = Path("runs/distill")
    scenes: int = 36
    """Worlds that the teacher imagines six clips each of."""
    held_out: float = 0.15
    """Share of them that no training reads, by their hash."""
    first: int = FIRST_IMAGE_SEED + 50_000
    """Seed of the first world."""
    size: int = 64
    """Pixels of a side."""
    processes: int = 2
    """That train together; as many as divide the stages' four samples a step."""
    stages: str = "distill"
    """The ladder."""
    model: str = "mini"
    """Whose teacher, depth and tokenizer."""


@contextmanager
def timed(name: str, stages: list[dict[str, float | str]]) -> Iterator[None]:
    """Adds what a stage cost, its child processes too."""
    before, began = os.times(), time.monotonic()
    yield
    spent = sum(os.times()[:4]) - sum(before[:4])
    stages.append({"stage": name, "seconds": round(time.monotonic() - began, 1), "cpu_seconds": round(spent, 1)})


def distill(asked: Distillation) -> None:
    """Synthesizes, trains, evaluates and reports."""
    run, data = asked.run, asked.run / "data"
    stages: list[dict[str, float | str]] = []
    with timed("synthesize", stages):
        synthesize(asked)
    of_student = ("--data", data, "--run", run, "--stages", asked.stages, "--model", asked.model, "--device", "cpu")
    with timed("train", stages):
        together = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", asked.processes)
        # After "--" torchrun reads no options of its own.
        command = (sys.executable, *together, "-m", "--", "lyra.cli", "train", "student", *of_student)
        subprocess.run([str(part) for part in command], check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
    with timed("evaluate", stages):
        result = evaluate(asked)
    result["stages"] = stages
    with write_atomically(run / "result.json") as path:
        path.write_text(to_json(result, indent=1) + "\n")
    print(format_table(result["rows"]))
    print(format_table(result["stages"]))
    print(f"open {write_run_page(run)}")


def synthesize(asked: Distillation) -> None:
    """As ``lyra synthesize`` does, at a size that is too small for anything else."""
    model = load(asked.model)
    engine = Engine(model, "cpu", config=replace(model.config.teacher, height=asked.size, width=asked.size))
    worlds = find_inputs(f"worlds:{asked.first}-{asked.first + asked.scenes - 1}")
    made = produce(engine, worlds, asked.run / "data", SynthesisOptions(depth=False, held_out=asked.held_out))
    if not made.complete:
        raise LyraError(f"{made.quarantined} worlds failed: see {asked.run / 'data/quarantine.jsonl'}")


def evaluate(asked: Distillation) -> dict:
    """The student as it began and as it is, the bundled one, and what needs none, on the held-out scenes."""
    teacher, held_out = load(asked.model), DataSet(asked.run / "data", "held-out")
    ladder = LADDERS[asked.stages]
    students = {
        "student": load(asked.run / "model"),
        "student before training": replace(teacher, decoder=make_student(ladder).eval()),
        f"bundled student of {asked.model}": teacher,
    }
    rows = score_students(students, held_out)
    gain = rows[0]["psnr"] - rows[1]["psnr"]
    note = (
        f"{len(held_out)} scenes held out by their hash, six clips each, against the teacher's frames (dB). "
        f"{gain:.1f} dB over the same network with random weights. The teacher follows the cache, which the bundled "
        "student begins at; this one is given neither its depth nor its colors."
    )
    return {"rows": rows, "gain": gain, "note": note, "machine": vars(describe_machine())} | {
        "provenance": describe_provenance(teacher, 0, asked)
    }


if __name__ == "__main__":
    distill(tyro.cli(Distillation))
