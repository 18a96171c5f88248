"""A data set read as a stream: sharded over processes, shuffled by seed and epoch, taken up in the middle.

All processes walk one endless order of samples, of which process ``rank`` of ``world`` takes every ``world``-th. The
order depends on the seed and the epoch alone: a run that goes on with another number of processes reads the same
samples in the same steps. A position in it is a plain number, that of samples that all processes together have read.
"""

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from lyra.errors import LyraError, LyraWarning
from lyra.geometry.trajectories import noise_generator
from lyra.synthesis.samples import Sample, Split, decode_sample
from lyra.synthesis.shards import Entry, find_indices, read_index, read_piece, unpack_files

MIXED = 8
"""Shards whose samples are mixed with each other: as many files are read at a time."""


@dataclass(frozen=True)
class Drawn:
    """A sample of a stream."""

    position: int
    """Its number in the order of all processes. When each of ``world`` processes has taken n samples from the beginning
    on, the stream goes on at position n x world, with any other number of processes."""
    epoch: int
    sample: Sample


class DataSet:
    """The finished shards of one split of a data set; a sample is read, and checked, when it is asked for."""

    def __init__(self, folder: Path, split: Split = "train"):
        """Reads the indices.

        Args:
            folder: From ``lyra synthesize``, also an unfinished one.
            split: Training reads "train" alone.

        Raises:
            LyraError: it has no shard of this split, or an index is damaged.
        """
        self.folder, self.split = folder, split
        shards = [read_index(path) for path in find_indices(folder, split)]
        self._places: list[tuple[str, Entry]] = [(shard.name, entry) for shard in shards for entry in shard.samples]
        self._sizes = [len(shard.samples) for shard in shards]
        if not self._places:
            raise LyraError(f"{folder} has no samples of the split {split!r}: run lyra synthesize first")
        self.damaged: Counter[str] = Counter()
        """Samples that could not be read, by the name of their shard; each is counted as often as it is met."""

    def __len__(self) -> int:
        return len(self._places)

    @property
    def ids(self) -> list[str]:
        """Of all samples, in the order of the shards."""
        return [entry.id for _, entry in self._places]

    def __getitem__(self, index: int) -> Sample:
        """Reads a sample.

        Raises:
            DamagedSampleError: its bytes are not those that were written.
        """
        shard, entry = self._places[index]
        _, files = unpack_files(read_piece(self.folder / "shards" / shard, entry))
        return decode_sample(files)

    def order(self, seed: int, epoch: int) -> list[int]:
        """The samples of an epoch: shards in a drawn order, the samples of ``MIXED`` of them drawn together."""
        generator = noise_generator(seed, f"epoch/{epoch}")
        ends = torch.tensor(self._sizes).cumsum(0).tolist()
        shards = [list(range(end - size, end)) for size, end in zip(self._sizes, ends, strict=True)]
        drawn = [shards[i] for i in torch.randperm(len(shards), generator=generator).tolist()]
        order: list[int] = []
        for first in range(0, len(drawn), MIXED):
            mixed = [index for shard in drawn[first : first + MIXED] for index in shard]
            order += [mixed[i] for i in torch.randperm(len(mixed), generator=generator).tolist()]
        return order

    def stream(self, seed: int = 0, rank: int = 0, world: int = 1, position: int = 0) -> Iterator[Drawn]:
        """Samples without end, those of this process.

        A damaged sample is skipped, counted and its shard named in a warning; the next whole one takes its place, so
        that processes stay in step.

        Args:
            seed: Of the order.
            rank: This process.
            world: How many processes read.
            position: How many samples all processes together have read.

        Raises:
            LyraError: no sample is whole.
        """
        epoch, order = -1, list[int]()
        for place in range(position + rank, 2**62, world):
            if place // len(self) != epoch:
                epoch = place // len(self)
                order = self.order(seed, epoch)
            yield Drawn(place, epoch, self.first_whole(order, place % len(self)))

    def first_whole(self, order: Sequence[int], start: int) -> Sample:
        """The first sample from a place of an order on that is whole; those before it are counted and warned of.

        Raises:
            LyraError: no sample is whole.
        """
        for index in (*order[start:], *order[:start]):
            try:
                return self[index]
            except LyraError as error:
                shard = self._places[index][0]
                if not self.damaged[shard]:
                    warnings.warn(f"{error}: skipped, as all others of {shard} will be", LyraWarning, stacklevel=3)
                self.damaged[shard] += 1
        raise LyraError(f"no sample of {self.folder} is whole: lyra synthesize --verify {self.folder} says more")
