"""Which samples a step is of: shuffled by seed and epoch, and told by the step's number alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch

from lyra.errors import LyraError
from lyra.geometry.trajectories import noise_generator


@dataclass(frozen=True)
class SampleOrder:
    """Every sample once an epoch.

    Nothing is to be kept of where a run was: it goes on in the middle of an epoch, also in another number of
    processes, since a batch is the same whoever shares it.
    """

    count: int
    """Samples of the data set."""
    batch: int
    """Samples of one step, of all processes together."""
    seed: int = 0
    shuffle: Callable[[int, int], Sequence[int]] | None = None
    """Of seed and epoch: an order of its own, as that of a data set's shards."""

    def __post_init__(self) -> None:
        if self.count < 1 or self.batch < 1:
            raise LyraError(f"{self.batch} samples a step of {self.count}: give at least one of each")

    def at(self, step: int) -> list[int]:
        """The samples of a step."""
        places = range(step * self.batch, (step + 1) * self.batch)
        return [self._epoch(place // self.count)[place % self.count] for place in places]

    def _epoch(self, epoch: int) -> Sequence[int]:
        if self.shuffle is None:
            return _shuffle(self.count, self.seed, epoch)
        return _call(self.shuffle, self.seed, epoch)

    def share(self, step: int, rank: int, world: int) -> list[int]:
        """Those of one process.

        Raises:
            LyraError: the batch does not divide among so many processes.
        """
        if self.batch % world:
            raise LyraError(
                f"{self.batch} samples a step do not divide among {world} processes: start as many as divide it"
            )
        return self.at(step)[rank::world]


@lru_cache(maxsize=4)
def _shuffle(count: int, seed: int, epoch: int) -> tuple[int, ...]:
    return tuple(torch.randperm(count, generator=noise_generator(seed, f"epoch/{epoch}")).tolist())


@lru_cache(maxsize=4)
def _call(shuffle: Callable[[int, int], Sequence[int]], seed: int, epoch: int) -> Sequence[int]:
    return shuffle(seed, epoch)
