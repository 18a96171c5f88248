"""What a user can do something about.

Anything raised as :class:`LyraError` is printed by the command line as one line and ends with exit code 2;
every other exception is a defect of ours and shows its traceback.
"""


class LyraError(Exception):
    """A problem with the input, the machine or the request; the message says what is wrong and what to do."""


class LyraWarning(UserWarning):
    """Something that a user may want to know; the command line prints it as a note of one line."""


class MissingExtraError(LyraError):
    """An optional package is not installed; the message names the extra that brings it."""

    def __init__(self, package: str, extra: str, purpose: str):
        super().__init__(f"{purpose} needs {package}, which is not installed: pip install 'lyra[{extra}]'")
