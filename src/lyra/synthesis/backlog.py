"""What is left to make of a data set: kept on disk, so that a run killed at any moment goes on where it was.

Each finished sample is a file of its own until all of its shard are there; then they are joined, in the order of the
plan, and removed. Whatever is killed in between, a sample is in a shard or a file or yet to be made, and its bytes are
the same each time.
"""

import contextlib
import json
import os
import shutil
import socket
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lyra.errors import LyraError
from lyra.files import write_atomically
from lyra.files.atomic import explain_writing, is_leftover
from lyra.files.strict_json import to_json
from lyra.synthesis.making import WORK, piece_of
from lyra.synthesis.manifest import MANIFEST
from lyra.synthesis.planning import Planned
from lyra.synthesis.shards import DamagedSampleError, read_index, read_piece, write_shard

QUARANTINE, LOG = "quarantine.jsonl", "log.jsonl"
TRIES = 3
"""Errors after which a sample is set aside."""
DEATHS = 12
"""Ends of its worker after which a sample is set aside: more than preemption gives one that is not at fault."""


@dataclass
class Attempts:
    """What happened to a sample that is not finished."""

    errors: list[str] = field(default_factory=list)
    begun: int = 0
    """How often it was begun and neither finished nor failed: its worker, or the run, ended in between."""


@dataclass(frozen=True)
class Quarantined:
    """A sample that was set aside."""

    id: str
    content: str
    kind: str
    place: str
    """Where its input is."""
    error: str


class Backlog:
    """The samples of a plan that are not made yet, in the order in which they are begun."""

    def __init__(self, folder: Path, planned: Sequence[Planned], minutes: float = float("inf")):
        """Looks at what a folder holds, and joins and removes what an earlier run had no time to.

        Args:
            folder: Of the data set, held by a lock.
            planned: All its samples.
            minutes: None is begun after this time.

        Raises:
            LyraError: the folder cannot be written to, or is damaged.
        """
        self.folder, self.planned = folder, {item.id: item for item in planned}
        self._shards: dict[str, list[str]] = {}
        for item in planned:
            self._shards.setdefault(item.shard, []).append(item.id)
        self._deadline = time.monotonic() + 60 * minutes
        self.quarantined = _read_quarantine(folder)
        self.done = {item for item in self.planned if piece_of(folder, item).exists()} | set(self.quarantined)
        for shard in self._shards:
            self._tidy(shard)
        attempts = {item: _read_attempts(folder, item) for item in self.planned if item not in self.done}
        # Those that were begun come last: one that ends its worker each time is not to hold up the others.
        left = sorted(attempts, key=lambda item: attempts[item].begun + len(attempts[item].errors) > 0)
        self._todo = deque(left)
        self._attempts = attempts

    def _tidy(self, shard: str) -> None:
        """Counts a finished shard's samples as done and removes what is left of them; joins one that is complete."""
        index = (self.folder / "shards" / shard).with_suffix(".json")
        if not index.exists():
            self._join_if_complete(shard)
            return
        there = {entry.id for entry in read_index(index).samples}
        if there.issuperset(set(self._shards[shard]) - set(self.quarantined)):
            self.done |= there
            for item in self._shards[shard]:
                self._forget(item)
        else:  # somebody removed the list of those that were set aside
            self.done |= reopen_shard(self.folder, shard)

    def take(self) -> Planned | None:
        """The next sample to make, noted as begun; None where there is none, or no time."""
        while self.waiting:
            item = self._todo.popleft()
            if self._attempts[item].begun >= DEATHS:
                self.die(self.planned[item])
                continue
            self._attempts[item].begun += 1
            self._note(item)
            return self.planned[item]
        return None

    @property
    def waiting(self) -> bool:
        """Whether there is a sample to take."""
        return bool(self._todo) and time.monotonic() < self._deadline

    def finish(self, planned: Planned, seconds: float, worker: str = "") -> None:
        """Notes that a sample's piece is written; joins its shard where it was the last."""
        line = {
            "id": planned.id,
            "seconds": round(seconds, 3),
            "worker": worker or f"{socket.gethostname()}/{os.getpid()}",
        }
        with explain_writing(self.folder / LOG), (self.folder / LOG).open("a") as log:
            log.write(to_json(line) + "\n")
        self.done.add(planned.id)
        self._join_if_complete(planned.shard)

    def fail(self, planned: Planned, error: str) -> None:
        """Notes that a sample raised an error: it is tried again after the others, or set aside."""
        attempts = self._attempts[planned.id]
        attempts.begun -= 1
        attempts.errors.append(error)
        self._again(planned, len(attempts.errors) >= TRIES, error)

    def die(self, planned: Planned) -> None:
        """Notes that a sample's worker ended while it was made."""
        begun = self._attempts[planned.id].begun
        self._again(planned, begun >= DEATHS, f"its worker ended {begun} times while it was made")

    def _again(self, planned: Planned, enough: bool, error: str) -> None:
        self._note(planned.id)
        if not enough:
            self._todo.append(planned.id)
            return
        source = planned.source
        self.quarantined[planned.id] = Quarantined(planned.id, source.content, source.kind, source.place, error)
        with write_atomically(self.folder / QUARANTINE) as path:
            lines = [to_json(asdict(self.quarantined[item])) for item in sorted(self.quarantined)]
            path.write_text("\n".join(lines) + "\n")
        self.done.add(planned.id)
        self._join_if_complete(planned.shard)

    def _join_if_complete(self, shard: str) -> None:
        items = self._shards[shard]
        if not self.done.issuperset(items):
            return
        pieces = {item: piece_of(self.folder, item) for item in items if item not in self.quarantined}
        if pieces:
            write_shard(self.folder / "shards" / shard, pieces)
        for item in items:
            self._forget(item)

    def _forget(self, item: str) -> None:
        piece_of(self.folder, item).unlink(missing_ok=True)
        _attempts_of(self.folder, item).unlink(missing_ok=True)
        shutil.rmtree(self.folder / WORK / item, ignore_errors=True)

    def _note(self, item: str) -> None:
        with write_atomically(_attempts_of(self.folder, item)) as path:
            path.write_text(to_json(asdict(self._attempts[item])))

    @property
    def complete(self) -> bool:
        """Whether all shards are joined."""
        return self.done.issuperset(self.planned)


def reopen_shard(folder: Path, shard: str) -> set[str]:
    """Takes a shard apart, so that what it lacks can be made; its damaged samples are left out.

    Returns:
        Ids of those that are whole.

    Raises:
        LyraError: the disk is full, or the shard's index is damaged.
    """
    path, whole = folder / "shards" / shard, set()
    for entry in read_index(path.with_suffix(".json")).samples:
        with contextlib.suppress(DamagedSampleError):
            content = read_piece(path, entry)
            with write_atomically(piece_of(folder, entry.id)) as temporary:
                temporary.write_bytes(content)
            whole.add(entry.id)
    for old in (folder / MANIFEST, path.with_suffix(".json"), path):
        old.unlink(missing_ok=True)
    return whole


def remove_leftovers(folder: Path) -> None:
    """Removes what processes that are gone have half written."""
    for path in folder.rglob("*.part"):
        if is_leftover(path):
            path.unlink(missing_ok=True)


def _attempts_of(folder: Path, item: str) -> Path:
    return folder / WORK / f"{item}.attempts.json"


def _read_attempts(folder: Path, item: str) -> Attempts:
    try:
        return Attempts(**json.loads(_attempts_of(folder, item).read_text()))
    except (OSError, ValueError, TypeError):
        return Attempts()


def _read_quarantine(folder: Path) -> dict[str, Quarantined]:
    path = folder / QUARANTINE
    if not path.exists():
        return {}
    try:
        rows: list[dict[str, Any]] = [json.loads(line) for line in path.read_text().splitlines()]
        return {row["id"]: Quarantined(**row) for row in rows}
    except (ValueError, KeyError, TypeError) as error:
        raise LyraError(f"{path} is damaged ({error}): remove it, and its inputs are tried again") from error
