"""What `test_sharing.py` runs under torchrun: a training in several processes, of a toy or of the smoke student.

python two_processes.py FOLDER [--sharing ddp|fsdp] [--steps N] [--student] [--kill RANK STEP] [--check]
"""

import argparse
import copy
import json
import os
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from lyra.device.ranks import Ranks, join_ranks
from lyra.geometry.trajectories import noise_generator
from lyra.student.decoder import BaseSurface, StudentInputs
from lyra.training.batches import SampleOrder
from lyra.training.loop import LOG, LoopConfig, fit
from lyra.training.losses import LossWeights, Terms
from lyra.training.sharing import gather_weights, share_loss

LOOP = LoopConfig(steps=20, learning_rate=1e-2, warmup=4, ema=0.9, checkpoint_every=4)
ORDER = SampleOrder(count=7, batch=4)
"""Epochs end within a step."""


class Toy(nn.Module):
    """Blocks as the student has them, and a part that only some samples use."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(1)
            self.embed = nn.Linear(3, 6)
            self.blocks = nn.ModuleList(nn.Linear(6, 6) for _ in range(2))
            self.seldom = nn.Linear(3, 6)
            self.never = nn.Linear(1, 1)
            self.head = nn.Linear(6, 1)

    def answer(self, x: Tensor, also: bool) -> Tensor:
        y = self.embed(x) + (self.seldom(x) if also else 0)
        for block in self.blocks:
            y = y + block(y).tanh()
        return self.head(y)


def ask_toy(network: Toy, sample: int, step: int) -> Terms:
    """Terms over numbers of points that differ much from sample to sample."""
    x = torch.randn(1 + 5 * sample, 3, generator=noise_generator(0, f"{sample}/{step}"), dtype=torch.float64)
    error = (network.answer(x, sample % 3 == 0) - x.sum(-1, keepdim=True).tanh()).square()
    few = error[::4]
    return Terms({"color": error.sum(), "depth": few.sum()}, {"color": float(len(error)), "depth": float(len(few))})


def make_task(student: bool):
    """A network in float64, and what is asked of it."""
    if not student:
        toy = Toy().double()
        return toy, partial(ask_toy, toy)
    import overfit

    from lyra.rendering.oracle import render_oracle
    from lyra.training.still_student import DecoderObjective, ask_decoder

    model, data = overfit.still_set()
    # A copy: the set is kept, and weights are divided in place.
    decoder = copy.deepcopy(model.decoder).double()
    goal = DecoderObjective(views=(1, 2), targets=1, sizes=(1,), novel=False, weights=LossWeights(opacity=0.1))
    prepared = to_double(data.inputs(0))
    data.inputs = lambda index: prepared

    def ask(sample: int, step: int) -> Terms:
        return ask_decoder(decoder, data, goal, 0, noise_generator(sample, f"{step}"), draw=render_oracle)

    return decoder, ask


def to_double(inputs: StudentInputs) -> StudentInputs:
    """All tensors of the student's inputs in float64."""
    return StudentInputs(**{name: _double(part) for name, part in vars(inputs).items()})


def _double(part: Any) -> Any:
    if part is None:
        return None
    return part.map(Tensor.double) if isinstance(part, BaseSurface) else part.double()


def train(folder: Path, ranks: Ranks, sharing: str, steps: int, student: bool = False, kill=None) -> nn.Module:
    """One run; ``kill`` is a rank and a step at which it dies, unless it was started again."""
    network, ask = make_task(student)

    def ask_or_die(sample: int, step: int) -> Terms:
        again = int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))
        if kill is not None and (ranks.rank, step) == tuple(kill) and not again:
            os.kill(os.getpid(), signal.SIGKILL)
        return ask(sample, step)

    weights = LossWeights(depth=0.3, opacity=0.1)
    loss = share_loss(network, ask_or_die, weights, ORDER, ranks, sharing)  # pyright: ignore[reportArgumentType]
    if ranks.world > 1 and sharing == "fsdp":
        assert all(isinstance(parameter, DTensor) for parameter in network.parameters())
        assert any(p.to_local().numel() < p.numel() for p in network.parameters())  # pyright: ignore
    fit(network, loss, folder, replace(LOOP, steps=steps), ranks=ranks)
    return network


def read_losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / LOG).read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sharing", nargs="+", default=["ddp"])
    parser.add_argument("--steps", type=int, default=LOOP.steps)
    parser.add_argument("--student", action="store_true")
    parser.add_argument("--kill", type=int, nargs=2)
    given = parser.parse_args()
    ranks = join_ranks()
    for sharing in given.sharing:
        folder = given.folder / sharing
        network = train(folder, ranks, sharing, given.steps, given.student, given.kill)
        whole, _ = make_task(given.student)
        gather_weights(network, whole)
        if ranks.first:
            torch.save(whole.state_dict(), folder / "weights.pt")
    if ranks.world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
