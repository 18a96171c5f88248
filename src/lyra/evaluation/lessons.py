"""Students that are trained from nothing for an ablation: what they learn from, for how long, and the data sets.

All learn by the training's own course, on the same worlds in the same order; lessons differ in one field.
"""

import hashlib
import shutil
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from tqdm import tqdm

from lyra.engine.engine import Engine
from lyra.errors import LyraError
from lyra.files.clips import Clip
from lyra.files.strict_json import to_json
from lyra.models.loading import load
from lyra.models.model import Model
from lyra.student import GaussianDecoder
from lyra.synthesis.choices import SynthesisOptions
from lyra.synthesis.imagined import SyntheticScene
from lyra.synthesis.production import produce
from lyra.synthesis.samples import Sample, encode_sample
from lyra.synthesis.shards import pack_files, write_shard
from lyra.synthesis.sources import Source, find_inputs
from lyra.synthesis.streaming import DataSet
from lyra.tokenizer.tokenizer import encode_frames
from lyra.training.ladders import SHORT, Ladder
from lyra.training.loop import LoopConfig
from lyra.training.student_course import Course, train_student
from lyra.training.world_clips import FIRST_IMAGE_SEED
from lyra.worlds import render_world, sample_world

FIRST_LESSON_SEED = FIRST_IMAGE_SEED + 60_000
"""Of the worlds that students of ablations learn from."""
Clips = Literal["imagined", "rendered"]


@dataclass(frozen=True)
class Lessons:
    """How a student is trained."""

    ladder: Ladder = SHORT
    clips: Clips = "imagined"
    """The teacher's clips of one picture each; or true pictures and depth of the same worlds at the same cameras."""
    worlds: int = 24
    size: int = 64
    """Pixels of a side."""

    @property
    def name(self) -> str:
        """A digest of all of it."""
        return hashlib.sha256(to_json(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


def teach(model: Model, lessons: Lessons, seed: int, folder: Path) -> GaussianDecoder:
    """A student that learned, or goes on to learn what an interrupted run left.

    Args:
        model: Whose teacher imagines the clips, and whose tokenizer they are in.
        lessons: What it learns.
        seed: Of its first weights and of what is drawn.
        folder: Of data sets and students.

    Raises:
        LyraError: the folder is of another model.
    """
    data = imagine_data(model, lessons, folder / f"imagined-{lessons.worlds}-{lessons.size}")
    if lessons.clips == "rendered":
        data = render_data(model, lessons, data, folder / f"rendered-{lessons.worlds}-{lessons.size}")
    run, last = folder / f"student-{lessons.name}-{seed}", lessons.ladder.stages[-1].until
    if not (run / "model" / "lyra.json").is_file():
        loop = LoopConfig(checkpoint_every=50, sample_every=last)
        train_student(model, Course(run, data, lessons.ladder, device="cpu", seed=seed, loop=loop))
    # From its file also the first time, where weights may be stored with fewer bits.
    return load(run / "model").decoder


def imagine_data(model: Model, lessons: Lessons, folder: Path) -> Path:
    """The teacher's clips of the lessons' worlds, as ``lyra synthesize`` makes them."""
    engine = Engine(model, "cpu", config=replace(model.config.teacher, height=lessons.size, width=lessons.size))
    made = produce(
        engine, _worlds(lessons), folder, SynthesisOptions(depth=False, held_out=0.0, per_shard=lessons.worlds)
    )
    if not made.complete:
        raise LyraError(f"{made.quarantined} worlds failed: see {folder / 'quarantine.jsonl'}")
    return folder


def render_data(model: Model, lessons: Lessons, imagined: Path, folder: Path) -> Path:
    """True pictures and depth in place of the teacher's frames: what a multi-view capture of the same places gives."""
    data = DataSet(imagined)
    if (folder / "shards" / "train-00000.json").exists():
        return folder
    seeds = {source.content: int(source.place) for source in _worlds(lessons)}
    pieces = {}
    for index in tqdm(range(len(data)), desc="true views"):
        sample: Sample = data[index]
        scene = show_truth(sample.scene, seeds[sample.content], model)
        pieces[sample.id] = folder / "work" / f"{sample.id}.piece"
        pieces[sample.id].parent.mkdir(parents=True, exist_ok=True)
        pieces[sample.id].write_bytes(pack_files(sample.id, encode_sample(replace(sample, scene=scene))))
    write_shard(folder / "shards" / "train-00000.tar", pieces)
    shutil.rmtree(folder / "work")
    return folder


def show_truth(scene: SyntheticScene, seed: int, model: Model) -> SyntheticScene:
    """A scene's clips as the world shows itself at their cameras; the median depth of an input view is 1 in both."""
    world = sample_world(seed)
    clips, depths = [], []
    for clip in scene.clips:
        color, depth = render_world(world, clip.cameras)
        clips.append(Clip(encode_frames(model.tokenizer, color.clamp(0, 1)).float().cpu(), clip.cameras))
        depths.append(depth)
    return replace(scene, clips=tuple(clips), depth=tuple(depths))


def _worlds(lessons: Lessons) -> list[Source]:
    return find_inputs(f"worlds:{FIRST_LESSON_SEED}-{FIRST_LESSON_SEED + lessons.worlds - 1}")
