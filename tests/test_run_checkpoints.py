"""What can go wrong with a run's folder: damaged checkpoints, a full disk, a second run in it."""

import json
import resource
import signal
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn
from two_processes import LOOP, ORDER, Toy, ask_toy, read_losses, train

from lyra.device.ranks import Ranks
from lyra.errors import LyraError
from lyra.generate.run_folder import FolderLock
from lyra.training.loop import fit
from lyra.training.losses import LossWeights
from lyra.training.run_checkpoints import FOLDER, find_checkpoint, load_checkpoint, write_checkpoint
from lyra.training.sharing import share_loss


def train_to(folder: Path, steps: int) -> nn.Module:
    return train(folder, Ranks(), "ddp", steps)


def shards(folder: Path) -> list[Path]:
    return sorted((folder / FOLDER).glob("*/*.safetensors"))


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif how == "gone":
        path.unlink()
    elif how == "note":
        (path.parent / "whole.json").unlink()
    else:
        content[-5] ^= 1
        path.write_bytes(content)


@pytest.mark.parametrize("how", ["bit", "cut", "gone", "note"])
def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(
    how: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    train_to(tmp_path / "whole", 12)
    train_to(tmp_path / "hurt", 10)
    assert [path.parent.name for path in shards(tmp_path / "hurt")] == ["0000008", "0000010"]
    damage(shards(tmp_path / "hurt")[-1], how)
    capsys.readouterr()
    train_to(tmp_path / "hurt", 12)
    told = [line for line in capsys.readouterr().err.splitlines() if line.startswith("lyra: ")]
    assert len(told) == 1 and "0000010 is damaged" in told[0] and told[0].endswith("going on from step 8")
    assert read_losses(tmp_path / "hurt") == read_losses(tmp_path / "whole")


def test_without_a_whole_checkpoint_the_run_is_refused_in_one_line(tmp_path: Path):
    train_to(tmp_path, 8)
    for path in shards(tmp_path):
        damage(path, "bit")
    with pytest.raises(LyraError, match=r"0000008 is damaged .*no whole one: remove .*checkpoints to begin") as caught:
        train_to(tmp_path, 12)
    assert "\n" not in str(caught.value) and len(read_losses(tmp_path)) == 8


def test_a_second_run_in_a_folder_is_refused(tmp_path: Path):
    train_to(tmp_path, 4)
    before = sorted(path.read_bytes() for path in shards(tmp_path))
    lock = FolderLock(tmp_path)
    lock.take()
    with lock, pytest.raises(LyraError, match="in use by another run"):
        train_to(tmp_path, 8)
    assert sorted(path.read_bytes() for path in shards(tmp_path)) == before
    train_to(tmp_path, 8)
    assert len(read_losses(tmp_path)) == 8


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path):
    train_to(tmp_path, 6)
    stored = find_checkpoint(tmp_path)
    assert stored is not None
    before, limits = load_checkpoint(stored), resource.getrlimit(resource.RLIMIT_FSIZE)
    heeded = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        with pytest.raises(LyraError, match="cannot write") as caught:
            write_checkpoint(tmp_path, 9, before, Ranks())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, heeded)
    assert "\n" not in str(caught.value)
    again = find_checkpoint(tmp_path)
    assert again is not None and again == stored and not list((tmp_path / FOLDER).glob(".*"))
    assert all(torch.equal(value, before[name]) for name, value in load_checkpoint(again).items())


def test_the_newest_two_and_those_that_end_a_stage_stay(tmp_path: Path):
    toy = Toy().double()
    for steps in (5, 30):
        loss = share_loss(toy, lambda *drawn: ask_toy(toy, *drawn), LossWeights(), ORDER, Ranks())
        fit(toy, loss, tmp_path, replace(LOOP, steps=steps))
    assert [path.parent.name for path in shards(tmp_path)] == ["0000005", "0000028", "0000030"]
    lasting = [json.loads(path.with_name("whole.json").read_text())["lasting"] for path in shards(tmp_path)]
    assert lasting == [True, False, True]
    ended = find_checkpoint(tmp_path, step=5)
    assert ended is not None and int(load_checkpoint(ended)["step"]) == 5
