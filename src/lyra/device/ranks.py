"""Several processes on one scene: how ``torchrun`` spreads the trajectories over GPUs."""

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

Value = TypeVar("Value")
_PATIENCE = timedelta(hours=6)
"""How long a process waits for the others; the library's ten minutes are less than a decoder may take."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of the run."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that reads the input and writes the scene."""
        return self.rank == 0

    def wait(self) -> None:
        """Returns when all processes have come here."""
        if self.world > 1:
            dist.barrier()

    def agree(self, value: Value) -> Value:
        """The first process's value, in all of them; what can be pickled."""
        if self.world == 1:
            return value
        values: list[Value] = [value]
        dist.broadcast_object_list(values, src=0)
        return values[0]


def join_ranks() -> Ranks:
    """Joins the processes that ``torchrun`` started, each on a GPU of its own where there are GPUs."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return Ranks()
    cuda = torch.cuda.is_available()
    if cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    if not dist.is_initialized():
        # The first rank reads, estimates and decodes alone for long; the others wait.
        dist.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
    return Ranks(dist.get_rank(), world)


def leave_ranks(ranks: Ranks) -> None:
    """Ends what ``join_ranks`` has begun; the library complains of processes that leave it to their end."""
    if ranks.world > 1:
        ranks.wait()
        dist.destroy_process_group()
