"""One training in several processes: the same losses and gradients as in one, up to rounding.

Each process takes its part of a step's samples; sums and counts of the loss's terms are added over all before they are
divided, so that a sample with few valid pixels weighs the same wherever it is.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from lyra.device.ranks import Ranks
from lyra.training.batches import SampleOrder
from lyra.training.losses import LossWeights, Terms, add_terms

Sharing = Literal["ddp", "fsdp"]
"""How processes share a network: each has all of it (DDP), or each a part of every weight (FSDP2)."""
Ask = Callable[[int, int], Terms]
"""Of a sample and a step: the terms of the loss."""


class Lesson(nn.Module):
    """A network and what is asked of it, as one module: the wrappers see whatever of the network a loss calls."""

    def __init__(self, network: nn.Module, ask: Ask):
        super().__init__()
        self.network, self.ask = network, ask

    def forward(self, step: int, samples: Sequence[int]) -> tuple[dict[str, Tensor], dict[str, float]]:
        """Sums and counts over some samples."""
        terms = add_terms(self.ask(sample, step) for sample in samples)
        # A sample may leave a part of the network out, as the embedding of times in a still scene. The processes bring
        # gradients together weight by weight, and each has to have one of the same weights.
        parts = [part for name, part in self.network.named_parameters() if not name.startswith("blocks.")]
        touched = torch.stack([part.flatten()[0] for part in parts]).sum() * 0
        return {name: total + touched for name, total in terms.totals.items()}, terms.counts


def divide_weights(lesson: Lesson, ranks: Ranks) -> None:
    """FSDP2, in place: the weights of every block, then the rest, become DTensors of which each process has a part."""
    mesh = init_device_mesh("cuda" if torch.cuda.is_available() else "cpu", (ranks.world,))
    for block in getattr(lesson.network, "blocks", ()):
        fully_shard(block, mesh=mesh)
    # Not the network itself: a loss may call a method of it, and only modules that are called gather their weights.
    fully_shard(lesson, mesh=mesh)


def gather_weights(network: nn.Module, whole: nn.Module) -> None:
    """Copies a network's weights, divided or not, into one that has all; every process has to call it."""
    named = dict(network.named_parameters())
    with torch.no_grad():
        for name, parameter in whole.named_parameters():
            there = named[name].detach()
            parameter.copy_(there.full_tensor() if isinstance(there, DTensor) else there)


def share_loss(
    network: nn.Module, ask: Ask, weights: LossWeights, order: SampleOrder, ranks: Ranks, sharing: Sharing = "ddp"
) -> Callable[[int], tuple[Tensor, dict[str, float]]]:
    """The loss of a step, for ``lyra.training.loop.fit`` in each process.

    Its value is scaled so that the mean of the processes' gradients, which the wrappers take, is the gradient of the
    whole batch's loss. The numbers beside it are of the whole batch.

    Args:
        network: What learns; "fsdp" divides its weights in place.
        ask: What a sample asks of it, drawn by sample and step alone.
        weights: Of the terms.
        order: The samples of each step.
        ranks: The processes.
        sharing: How they share the network.

    Raises:
        LyraError: a step's samples do not divide among the processes.
    """
    order.share(0, ranks.rank, ranks.world)
    lesson = Lesson(network, ask)
    shared: nn.Module = lesson
    if ranks.world > 1 and sharing == "ddp":
        shared = DistributedDataParallel(lesson)
    elif ranks.world > 1:
        divide_weights(lesson, ranks)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        totals, counts = shared(step, order.share(step, ranks.rank, ranks.world))
        sums, whole = _add_up(totals, counts, ranks)
        value = Terms(totals, whole).weigh(weights) * ranks.world
        means = Terms(sums, whole)
        details = {"loss": means.weigh(weights).item(), **{name: means.mean(name).item() for name in sums}}
        return value, details

    return loss


def _add_up(
    totals: dict[str, Tensor], counts: dict[str, float], ranks: Ranks
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Sums and counts over all processes, without gradients; in float64, since counts are of pixels."""
    names = list(totals)
    table = torch.stack([torch.stack([totals[n].detach().double() for n in names]), _row(counts, names, totals)])
    if ranks.world > 1:
        dist.all_reduce(table)
    return dict(zip(names, table[0], strict=True)), dict(zip(names, table[1].tolist(), strict=True))


def _row(counts: dict[str, float], names: list[str], totals: dict[str, Tensor]) -> Tensor:
    return torch.tensor([counts[name] for name in names], dtype=torch.float64, device=totals[names[0]].device)
