"""The command line's surface."""

import sys

import pytest
import torch
from command_line import run_here, run_process

from lyra.cli import main as cli

COMMANDS = ("generate", "render", "view", "synthesize", "train", "report", "evaluate", "doctor")


def test_help_lists_every_command():
    done = run_process("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert command in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str):
    done = run_here(command, "--help")
    assert done.returncode == 0
    assert len(done.stdout) > 200


@pytest.mark.parametrize(
    "arguments",
    [("evaluate", "scene", "/nonexistent"), ("render", "/nonexistent", "-o", "x.mp4"), ("report", "/nonexistent")],
)
def test_what_is_not_there_is_one_line(arguments: tuple[str, ...]):
    done = run_here(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("lyra: ")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_a_mistyped_option_is_refused():
    done = run_here("generate", "x.jpg", "-o", "out", "--sede", "3")
    assert done.returncode == 2
    assert "--seed" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("render scene -o x.mp4 --freeze 0.5 --start 0.2", "--freeze"),
        ("render scene -o x.mp4 --freeze 0.5 --loops 2", "--freeze"),
        ("train tokenizer --minutes 3", "--minutes"),
        ("train tokenizer --learning-rate 1e-3", "--learning-rate"),
        ("evaluate worlds scene", "leave out scene"),
        ("evaluate dynamic scene", "leave out scene"),
        ("evaluate worlds --scenes 0", "at least 1"),
        ("evaluate scene scene --scenes 3", "--scenes"),
        ("evaluate scene scene --model mini", "--model"),
        ("evaluate scene scene --report pictures", "--report"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(arguments: str, words: str, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lyra", *arguments.split()])
    with pytest.raises(SystemExit) as left:
        cli.main()
    (line,) = capsys.readouterr().err.splitlines()
    assert left.value.code == 2 and line.startswith("lyra: ") and words in line


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nGPU 0 has ..."), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), True),
        (MemoryError(), True),
        (RuntimeError("shapes differ"), False),
    ],
)
def test_a_lack_of_memory_is_one_line_and_a_defect_is_not(error: Exception, short: bool, monkeypatch, capsys):
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(sys, "argv", ["lyra", "doctor"])
    monkeypatch.setattr(cli.app, "cli", fail)
    with pytest.raises(SystemExit if short else RuntimeError) as left:
        cli.main()
    if short:
        assert getattr(left.value, "code", None) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith("lyra: not enough memory")
