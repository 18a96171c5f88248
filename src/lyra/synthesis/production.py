"""Making a data set: one run on one folder, by this process or by many workers."""

import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from lyra.device.memory import find_device
from lyra.engine.engine import Engine
from lyra.errors import LyraError
from lyra.files.atomic import WritingError, explain_writing
from lyra.generate.pipeline import choose_depth
from lyra.generate.run_folder import LOCK, FolderLock
from lyra.models.model import Model
from lyra.synthesis.backlog import QUARANTINE, Backlog, remove_leftovers, reopen_shard
from lyra.synthesis.choices import SynthesisOptions
from lyra.synthesis.making import WORK, make_sample
from lyra.synthesis.manifest import MANIFEST, write_manifest
from lyra.synthesis.planning import NOTE, Maker, Planned, claim_folder, plan_samples
from lyra.synthesis.samples import SPLITS
from lyra.synthesis.shards import check_shard, find_indices, read_index
from lyra.synthesis.sources import Source
from lyra.teacher import TeacherConfig


@dataclass(frozen=True)
class Produced:
    """What a run left."""

    samples: int
    """In shards or ready for one."""
    planned: int
    quarantined: int
    complete: bool
    """Whether the manifest is written."""


def build_engine(model: Model, teacher: TeacherConfig, device: str, estimator: str = "auto") -> Engine:
    """A model that imagines, where it works.

    Args:
        model: With tokenizer, teacher and texts; without depth another estimator is taken.
        teacher: How it is sampled.
        device: Where it works: auto, cpu, cuda or cuda:N.
        estimator: Of depth, as of ``choose_depth``.

    Raises:
        LyraError: a part is missing, or there is no such estimator or device.
    """
    model.require("vae", "transformer", "scheduler", "text")
    return Engine(model, device, config=teacher, depth=choose_depth(model, estimator, find_device(device)))


def produce(
    engine: Engine,
    sources: Sequence[Source],
    folder: Path,
    options: SynthesisOptions | None = None,
    minutes: float = float("inf"),
    repair: bool = False,
    maker: Maker | None = None,
) -> Produced:
    """Makes every sample that a folder lacks, in this process.

    Args:
        engine: Whose teacher and depth.
        sources: From ``find_inputs``.
        folder: Of the data set; one that an earlier run of the same inputs, model and options left is gone on with.
        options: Everything else that decides the data.
        minutes: None is begun after this time.
        repair: Look through finished shards first and make what is damaged or was set aside.
        maker: What the samples are named after; the engine's model and its own depth when None.

    Raises:
        LyraError: another run is in the folder, it holds another data set, or the disk is full; nothing is lost.
    """
    options, maker = options or SynthesisOptions(), maker or Maker.of(engine.model, engine.config)
    planned = plan_samples(sources, maker, options)
    with holding(folder, planned, maker, options, minutes, repair) as backlog, showing(backlog) as bar:
        while (item := backlog.take()) is not None:
            try:
                seconds = make_sample(engine, item, maker, options, folder)
            except WritingError:
                raise
            except Exception as error:  # whatever an input does, the others are made
                backlog.fail(item, describe(error))
            else:
                backlog.finish(item, seconds)
            update(bar, backlog)
    return count(folder, backlog)


@contextmanager
def holding(
    folder: Path,
    planned: Sequence[Planned],
    maker: Maker,
    options: SynthesisOptions,
    minutes: float = float("inf"),
    repair: bool = False,
) -> Iterator[Backlog]:
    """Holds a folder for one run inside the block, and writes the manifest when nothing is left to make.

    Raises:
        LyraError: as of ``produce``.
    """
    with explain_writing(folder):
        folder.mkdir(parents=True, exist_ok=True)
    with FolderLock(folder) as lock:
        lock.take()
        if not (folder / NOTE).exists() and any(path.name != LOCK for path in folder.iterdir()):
            raise LyraError(f"{folder} holds something else than a data set: give another folder")
        note = claim_folder(folder, planned, maker, options)
        remove_leftovers(folder)
        if repair:
            reopen_damaged(folder)
        backlog = Backlog(folder, planned, minutes)
        yield backlog
        if backlog.complete:
            write_manifest(folder, note, backlog.quarantined)
            shutil.rmtree(folder / WORK, ignore_errors=True)


def reopen_damaged(folder: Path) -> None:
    """Takes shards apart whose bytes are not what they were, and forgets who was set aside."""
    for split in SPLITS:
        for index in map(read_index, find_indices(folder, split)):
            if check_shard(folder, index):
                reopen_shard(folder, index.name)
    (folder / QUARANTINE).unlink(missing_ok=True)
    for attempts in (folder / WORK).glob("*.attempts.json"):
        attempts.unlink()


@contextmanager
def showing(backlog: Backlog) -> Iterator[tqdm]:
    """A bar over all samples of the data set."""
    with tqdm(total=len(backlog.planned), initial=len(backlog.done), desc="synthesize", unit="scene") as bar:
        yield bar


def update(bar: tqdm, backlog: Backlog) -> None:
    """Shows how far it is, and how many were set aside."""
    bar.set_postfix(quarantined=len(backlog.quarantined), refresh=False)
    bar.update(len(backlog.done) - bar.n)


def describe(error: BaseException) -> str:
    """An error in one line."""
    text = " ".join(str(error).split())[:300]
    return text if isinstance(error, LyraError) else f"{type(error).__name__}: {text}"


def count(folder: Path, backlog: Backlog) -> Produced:
    """What a folder holds after a run."""
    quarantined = len(backlog.quarantined)
    complete = backlog.complete and (folder / MANIFEST).exists()
    return Produced(len(backlog.done) - quarantined, len(backlog.planned), quarantined, complete)
