"""Every step from nothing to the weights of ``mini``, in legs.

python recipes/mini.py --minutes 9          # one leg: goes on with the first part that is not finished
python recipes/mini.py --minutes 600        # all of it

Each leg leaves the model as far as it is trained in ``RUN/model`` (half precision, files of at most 15 MB), a line in
``RUN/legs.jsonl``, and optimizer states in ``RUN/PART/checkpoints``. Where a checkpoint did not come along
to another machine, the part starts warm from the model's weights, and the line says so.
"""

import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import tyro

from lyra.bench.measure import describe_machine
from lyra.synthesis.shards import read_index
from lyra.training import parts
from lyra.training.loop import LOG, LoopConfig
from lyra.training.run_checkpoints import has_checkpoint


@dataclass(frozen=True)
class Recipe:
    """Lengths of the parts of ``mini``, in steps over all legs."""

    run: Path = Path("runs/mini")
    minutes: float = 9.0
    """Of one leg."""
    worlds: int = 1000
    """Of two clips each, for tokenizer and teacher."""
    views: int = 4000
    """Single pictures, for depth."""
    moving_views: int = 600
    """The same of moving worlds."""
    close_ups: int = 2000
    """The same of one large thing."""
    scenes: int = 250
    """Single pictures that the teacher imagines six clips of, for the student."""
    depth_steps: int = 8000
    denoiser_steps: int = 12000
    videos: int = 60
    """Videos of moving worlds that the teacher imagines twelve clips of, for the student's moments."""
    decoder_steps: int = 2000
    moments_steps: int = 3000


def run_legs(recipe: Recipe) -> None:
    """Runs parts in their order until the leg's minutes are over."""
    workspace = parts.Workspace(
        recipe.run,
        worlds=recipe.worlds,
        scenes=recipe.scenes,
        views=recipe.views,
        moving_views=recipe.moving_views,
        close_ups=recipe.close_ups,
        videos=recipe.videos,
    )
    deadline = time.monotonic() + 60 * recipe.minutes
    legs = [
        ("tokenizer", None, lambda _: parts.train_tokenizer(workspace)),
        ("depth", recipe.depth_steps, lambda loop: parts.train_depth(workspace, loop)),
        ("denoiser", recipe.denoiser_steps, lambda loop: parts.train_denoiser(workspace, loop)),
        ("clips", recipe.scenes, lambda loop: parts.synthesize_clips(workspace, loop.minutes)),
        ("decoder", recipe.decoder_steps, lambda loop: parts.train_decoder(workspace, loop)),
        ("videos", recipe.videos, lambda loop: parts.synthesize_moving(workspace, loop.minutes)),
        ("moments", recipe.moments_steps, lambda loop: parts.train_moments(workspace, loop)),
    ]
    loops = {
        **{"depth": parts.DEPTH_LOOP, "denoiser": parts.DENOISER_LOOP, "decoder": parts.DECODER_LOOP},
        "moments": parts.MOMENTS_LOOP,
    }
    for name, steps, train in legs:
        minutes = (deadline - time.monotonic()) / 60
        done = finished_steps(recipe.run / name)
        if minutes <= 0:
            break
        if (steps is None and is_logged(recipe.run, name)) or (steps is not None and done >= steps):
            continue
        warm = name in loops and is_logged(recipe.run, name) and not has_checkpoint(recipe.run / name)
        began = time.monotonic()
        train(replace(loops.get(name, LoopConfig()), steps=steps or LoopConfig.steps, minutes=minutes))
        row = {
            "part": name,
            "steps": [done, finished_steps(recipe.run / name)] if steps is not None else None,
            "minutes": round((time.monotonic() - began) / 60, 2),
            "warm_restart": warm,
            "machine": asdict(describe_machine()),
        }
        with (recipe.run / "legs.jsonl").open("a") as log:
            log.write(json.dumps(row) + "\n")
        print(json.dumps(row))


def finished_steps(folder: Path) -> int:
    """Steps that a part's log holds, or scenes that were synthesized."""
    log = folder / LOG
    if log.exists():
        return len(log.read_text().splitlines())
    finished = sum(len(read_index(path).samples) for path in (folder / "shards").glob("*.json"))
    return finished + len(list(folder.glob("work/*.piece")))


def is_logged(run: Path, part: str) -> bool:
    """Whether a leg of this part has ended."""
    log = run / "legs.jsonl"
    return log.exists() and any(json.loads(line)["part"] == part for line in log.read_text().splitlines())


if __name__ == "__main__":
    run_legs(tyro.cli(Recipe))
