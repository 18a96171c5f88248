"""Warnings as a user wants them: one line each, without the source line that they come from."""

import sys
import warnings
from typing import TextIO

from lyra.errors import LyraWarning


def show_notes() -> None:
    """Prints every note of ours from now on, and other packages' warnings as they would be, but without their code."""
    warnings.simplefilter("always", LyraWarning)
    warnings.showwarning = _show


def _show(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    text = " ".join(str(message).split())
    kind = "note" if issubclass(category, LyraWarning) else "warning"
    print(f"{kind}: {text}", file=file or sys.stderr)
