"""Many workers on Ray: one actor a GPU, or a core where the cluster has no GPUs.

Workers read inputs and write finished samples in the folders of the run, which all machines see under the same path.
This process alone keeps the books. A worker that ends, with its machine or without, is replaced and its sample made
again; when this process ends, so do its workers, and the next run goes on with what they had finished.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from lyra.errors import LyraError, MissingExtraError
from lyra.files.atomic import WritingError
from lyra.models.loading import load
from lyra.synthesis.backlog import Backlog
from lyra.synthesis.choices import SynthesisOptions
from lyra.synthesis.making import make_sample
from lyra.synthesis.planning import Maker, Planned
from lyra.synthesis.production import build_engine, describe, update
from lyra.teacher import TeacherConfig

LOCAL = "local"
"""In place of an address: a Ray of the run's own, on this machine."""
_PATIENCE = 5.0
"""Seconds after which it is looked for machines that have joined."""
_STARTS = 3
"""Workers that end before they are ready, one after another, after which the run gives up."""
_STORE = 100 << 20
"""Bytes of Ray's shared memory on this machine; nothing large goes through it."""

Outcome = tuple[Literal["made", "failed", "disk"], float, str]
"""What became of a sample, the seconds that it took, and the error or the worker's name."""


@dataclass(frozen=True)
class Crew:
    """What every worker is given."""

    model: str
    """Name or folder."""
    teacher: TeacherConfig
    maker: Maker
    options: SynthesisOptions
    folder: Path
    device: str = "auto"
    estimator: str = "auto"
    """Of depth, as of ``choose_depth``."""


class Worker:
    """One process with a model; an actor of Ray."""

    def __init__(self, crew: Crew):
        self.crew = crew
        self.engine = build_engine(load(crew.model), crew.teacher, crew.device, crew.estimator)
        if Maker.of(self.engine.model, crew.teacher, crew.estimator) != crew.maker:
            raise LyraError(
                f"model {crew.model!r} is another one on {os.uname().nodename}: put the same on all machines"
            )

    def ready(self) -> Outcome:
        """Returns when the model is loaded."""
        return "made", 0.0, ""

    def make(self, planned: Planned) -> Outcome:
        """Makes one sample."""
        crew = self.crew
        try:
            seconds = make_sample(self.engine, planned, crew.maker, crew.options, crew.folder)
            return "made", seconds, f"{os.uname().nodename}/{os.getpid()}"
        except WritingError as error:
            return "disk", 0.0, str(error)
        except Exception as error:  # whatever an input does, the worker goes on with the next
            return "failed", 0.0, describe(error)


@contextmanager
def connected(address: str, workers: int | None) -> Iterator[Any]:
    """Has Ray inside the block: the cluster at an address, or one of the run's own.

    Raises:
        LyraError: it is not installed, or there is no cluster.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise MissingExtraError("Ray", "ray", "--ray") from error
    local: dict[str, Any] = {"num_cpus": workers, "object_store_memory": _STORE, "include_dashboard": False}
    try:
        ray.init(
            address=address,
            log_to_driver=False,
            logging_level=logging.ERROR,
            **(local if address == LOCAL else {}),
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise LyraError(
            f"there is no Ray at {address} ({describe(error)}): ray start --head, or --ray alone"
        ) from error
    try:
        # Ray prints every worker's end there, whatever it is told of logs; who is made again the bar shows.
        with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
            yield ray
    finally:
        ray.shutdown()


class Team:
    """The workers of a run, and what each is at."""

    def __init__(self, ray: Any, crew: Crew, backlog: Backlog, workers: int | None):
        self._ray, self._crew, self._backlog, self._workers = ray, crew, backlog, workers
        self._busy: dict[Any, tuple[Any, Planned | None]] = {}
        self._idle: list[Any] = []
        self._lost = 0

    def run(self, bar: tqdm) -> None:
        """Returns when nothing is left to make.

        Raises:
            LyraError: the disk is full, or workers do not start.
        """
        try:
            while self._assign() or any(item is not None for _, item in self._busy.values()):
                finished, _ = self._ray.wait(list(self._busy), num_returns=1, timeout=_PATIENCE)
                for reference in finished:
                    actor, item = self._busy.pop(reference)
                    self._settle(reference, actor, item)
                update(bar, self._backlog)
        finally:
            # At once, also those that are still loading a model.
            for actor in (*self._idle, *(actor for actor, _ in self._busy.values())):
                self._ray.kill(actor)

    def _assign(self) -> bool:
        """Gives samples to those who have none, and hires as many as there is room for; whether anything is left."""
        while self._backlog.waiting and self._idle:
            item = self._backlog.take()
            if item is None:
                break
            actor = self._idle.pop()
            self._busy[actor.make.remote(item)] = (actor, item)
        while self._backlog.waiting and len(self._busy) + len(self._idle) < self._size():
            actor = self._hire()
            self._busy[actor.ready.remote()] = (actor, None)
        return self._backlog.waiting

    def _resources(self) -> tuple[int, int]:
        there = self._ray.cluster_resources()
        return int(there.get("GPU", 0)), int(there.get("CPU", 1))

    def _size(self) -> int:
        gpus, cores = self._resources()
        return self._workers or gpus or cores

    def _hire(self) -> Any:
        gpus, cores = self._resources()
        needs = {"num_gpus": 1, "num_cpus": max(1, cores // (2 * gpus))} if gpus else {"num_cpus": 1}
        return self._ray.remote(Worker).options(**needs, max_restarts=0).remote(self._crew)

    def _settle(self, reference: Any, actor: Any, item: Planned | None) -> None:
        try:
            what, seconds, text = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            self._replace(item, error)
            return
        self._idle.append(actor)
        self._lost = 0
        if item is None:
            return
        if what == "disk":
            raise WritingError(text)
        if what == "made":
            self._backlog.finish(item, seconds, text)
        else:
            self._backlog.fail(item, text)

    def _replace(self, item: Planned | None, error: Exception) -> None:
        """Of a worker that is gone: its sample is made by another."""
        if item is not None:
            self._backlog.die(item)
            return
        self._lost += 1
        if self._lost >= _STARTS:
            cause = getattr(error, "cause", None) or error
            raise LyraError(f"workers do not start: {describe(cause)}") from error
