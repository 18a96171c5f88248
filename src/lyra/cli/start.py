"""The first thing that the command runs: from here on Ctrl-C ends it in one line, also while packages are loaded."""

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130
"""Exit code of a process that Ctrl-C ends."""


def main() -> None:
    """Entry point of the ``lyra`` command."""
    # Loading takes seconds and leaves nothing behind. An exception there would come out of the middle of a library.
    before = signal.signal(signal.SIGINT, _leave)
    from lyra.cli.main import main as run

    signal.signal(signal.SIGINT, before)
    try:
        run()
    except KeyboardInterrupt:
        _leave(signal.SIGINT, None)


def _leave(_number: int, _frame: FrameType | None) -> None:
    os.write(sys.stderr.fileno(), b"lyra: interrupted; nothing was begun\n")
    os._exit(INTERRUPTED)
