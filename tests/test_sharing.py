"""A training in several processes is the training in one."""

import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import two_processes
from two_processes import LOOP, ORDER, read_losses, train

from lyra.device.ranks import Ranks
from lyra.errors import LyraError
from lyra.training.batches import SampleOrder

SCRIPT = Path(two_processes.__file__)


def torchrun(processes: int, *arguments: str | Path, restarts: int = 0) -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command += ["--max-restarts", str(restarts), "--monitor-interval", "0.05"]
    # A store of its own for every start: one that is shared still has the addresses of processes that are gone.
    fresh = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"}
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", **fresh}
    done = subprocess.run(
        [*command, str(SCRIPT), *map(str, arguments)], capture_output=True, text=True, timeout=500, env=environment
    )
    assert done.returncode == 0, done.stderr[-4000:]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[float], dict[str, torch.Tensor]]:
    folder = tmp_path_factory.mktemp("alone")
    network = train(folder, Ranks(), "ddp", LOOP.steps)
    return read_losses(folder), network.state_dict()


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two real processes under torchrun, with whole and then with divided weights; one is killed in the first run."""
    folder = tmp_path_factory.mktemp("together")
    torchrun(2, folder, "--sharing", "ddp", "fsdp", "--kill", "1", "10", restarts=1)
    return folder


@pytest.mark.parametrize("sharing", ["ddp", "fsdp"])
def test_two_processes_equal_one_over_twenty_steps(alone, together: Path, sharing: str):
    losses, weights = alone
    assert len(losses) == 20
    assert read_losses(together / sharing) == pytest.approx(losses, abs=1e-8, rel=0)
    theirs = torch.load(together / sharing / "weights.pt", weights_only=True)
    for name, value in weights.items():
        assert (theirs[name] - value).abs().max() < 1e-8, name
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("sharing", ["ddp", "fsdp"])
def test_what_two_processes_left_goes_on_in_one(alone, together: Path, sharing: str, tmp_path: Path):
    """In the middle of an epoch: seven samples, four a step."""
    steps = 30
    train(together / sharing, Ranks(), "ddp", steps)
    train(tmp_path, Ranks(), "ddp", steps)
    losses = read_losses(together / sharing)
    assert losses[:20] == pytest.approx(alone[0], abs=1e-8, rel=0)
    assert losses == pytest.approx(read_losses(tmp_path), abs=1e-8, rel=0)


@pytest.mark.slow
@pytest.mark.parametrize("attempt", range(6))
def test_a_process_killed_at_any_time_changes_nothing(together: Path, tmp_path: Path, attempt: int):
    """At a random step, the first process or the second; the same numbers, bit for bit, as of a run left alone."""
    draw = random.Random(attempt)
    torchrun(2, tmp_path / "alone")
    torchrun(2, tmp_path / "killed", "--kill", str(draw.randrange(2)), str(draw.randrange(20)), restarts=1)
    assert read_losses(tmp_path / "killed/ddp") == read_losses(tmp_path / "alone/ddp")


def test_every_sample_comes_once_an_epoch_in_an_order_of_its_own():
    drawn = [sample for step in range(14) for sample in ORDER.at(step)]
    epochs = [drawn[start : start + 7] for start in range(0, 56, 7)]
    assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 4
    assert SampleOrder(7, 4, seed=1).at(0) != ORDER.at(0)
    for world in (1, 2, 4):
        shares = [ORDER.share(5, rank, world) for rank in range(world)]
        assert sorted(sample for share in shares for sample in share) == sorted(ORDER.at(5))


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(LyraError, match="do not divide among 3 processes"):
        ORDER.share(0, 0, 3)


@pytest.mark.slow
@pytest.mark.parametrize("sharing", ["ddp", "fsdp"])
def test_two_processes_train_the_student_as_one_does(sharing: str, tmp_path: Path):
    """The smoke student in float64, drawn by the oracle, 20 steps."""
    torchrun(1, tmp_path / "one", "--sharing", sharing, "--student")
    torchrun(2, tmp_path / "two", "--sharing", sharing, "--student")
    assert read_losses(tmp_path / "two" / sharing) == pytest.approx(
        read_losses(tmp_path / "one" / sharing), abs=1e-8, rel=0
    )


@pytest.mark.slow
@pytest.mark.parametrize("sharing", ["ddp", "fsdp"])
def test_four_processes_resumed_as_two_go_on_with_the_curve(alone, sharing: str, tmp_path: Path):
    torchrun(4, tmp_path, "--sharing", sharing, "--steps", "9")
    torchrun(2, tmp_path, "--sharing", sharing)
    assert read_losses(tmp_path / sharing) == pytest.approx(alone[0], abs=1e-8, rel=0)
