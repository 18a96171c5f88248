"""The command line's surface."""

import subprocess
import sys

import pytest

COMMANDS = ("generate", "render", "view", "synthesize", "train", "report", "evaluate", "doctor")


def run_lyra(*arguments: str) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "lyra.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


def test_help_lists_every_command():
    done = run_lyra("--help")
    assert done.returncode == 0
    for command in COMMANDS:
        assert command in done.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself(command: str):
    done = run_lyra(command, "--help")
    assert done.returncode == 0
    assert len(done.stdout) > 200


@pytest.mark.parametrize(
    "arguments",
    [("evaluate", "scene", "/nonexistent"), ("render", "/nonexistent", "-o", "x.mp4"), ("report", "/nonexistent")],
)
def test_what_is_not_there_is_one_line(arguments: tuple[str, ...]):
    done = run_lyra(*arguments)
    assert done.returncode == 2
    assert done.stderr.startswith("lyra: ")
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


def test_a_mistyped_option_is_refused():
    done = run_lyra("generate", "x.jpg", "-o", "out", "--sede", "3")
    assert done.returncode == 2
    assert "--seed" in done.stdout + done.stderr
