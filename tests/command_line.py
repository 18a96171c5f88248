"""The command line, in a process of its own and in this one, which has the libraries loaded already."""

import contextlib
import io
import subprocess
import sys
import warnings
from unittest import mock

from lyra.cli.main import main


def run_process(*arguments: object) -> subprocess.CompletedProcess[str]:
    """What a user sees."""
    command = [sys.executable, "-m", "lyra.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def run_here(*arguments: object) -> subprocess.CompletedProcess[str]:
    """The same but for the start of Python: what Python prints, and the exit code."""
    command, code = ["lyra", *map(str, arguments)], 0
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", command),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        warnings.catch_warnings(action="default"),
    ):
        try:
            main()
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    return subprocess.CompletedProcess(command, code, out.getvalue(), err.getvalue())
