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
from dataclasses import dataclass, replace
from pathlib import Path

import tyro

from lyra.bench.measure import describe_machine
from lyra.evaluation.held_out_scenes import score_students
from lyra.evaluation.report_page import describe_provenance
from lyra.evaluation.run_page import write_run_page
from lyra.files import write_atomically
from lyra.files.strict_json import to_json
from lyra.files.tables import format_table
from lyra.models.loading import load
from lyra.synthesis.streaming import DataSet
from lyra.training.stages import LADDERS
from lyra.training.student_course import make_student
from lyra.training.world_clips import FIRST_IMAGE_SEED


@dataclass(frozen=True)
class Distillation:
    """What is distilled, and where."""

    run: Path = Path("runs/distill")
    scenes: int = 40
    """Worlds that the teacher imagines six clips each of; about an eighth is held out."""
    first: int = FIRST_IMAGE_SEED + 50_000
    """Seed of the first world."""
    size: int = 96
    """Pixels of a side."""
    processes: int = 2
    """That train together; as many as divide the stages' four samples a step."""
    stages: str = "distill"
    """The ladder."""
    model: str = "mini"
    """Whose teacher, depth and tokenizer."""


def run_stage(name: str, *command: str | Path) -> dict[str, float | str]:
    """Runs one command with a thread a process, and says what it cost."""
    before, began = os.times(), time.monotonic()
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *map(str, command)], check=True, env=environment)
    after = os.times()
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return {"stage": name, "seconds": round(time.monotonic() - began, 1), "cpu_seconds": round(spent, 1)}


def distill(asked: Distillation) -> None:
    """Synthesizes, trains, evaluates and reports."""
    run, data = asked.run, asked.run / "data"
    worlds = f"worlds:{asked.first}-{asked.first + asked.scenes - 1}"
    lyra_command = ("-m", "lyra.cli")
    size = (str(asked.size), str(asked.size))
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(asked.processes))
    stages = [
        run_stage(
            "synthesize", *lyra_command, "synthesize", worlds, "-o", data, "--size", *size, "--model", asked.model
        ),
        run_stage(
            "train",
            *(*torchrun, *lyra_command, "train", "student", "--data", data, "--run", run),
            *("--stages", asked.stages, "--model", asked.model, "--device", "cpu"),
        ),
    ]
    began, processor = time.monotonic(), time.process_time()
    result = evaluate(asked)
    spent = {"seconds": round(time.monotonic() - began, 1), "cpu_seconds": round(time.process_time() - processor, 1)}
    result["stages"] = [*stages, {"stage": "evaluate", **spent}]
    with write_atomically(run / "result.json") as path:
        path.write_text(to_json(result, indent=1) + "\n")
    print(format_table(result["rows"]))
    print(format_table(result["stages"]))
    print(f"open {write_run_page(run)}")


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
