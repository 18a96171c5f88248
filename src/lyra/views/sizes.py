"""The shape at which an input is worked on: its own, as large as a model takes it."""

from dataclasses import dataclass

from lyra.errors import LyraError

LARGEST_ASPECT = 2.4
"""Longer over shorter side; of what is longer the middle is used."""


@dataclass(frozen=True)
class SizeRange:
    """The sizes that a model works at, in pixels of the longer side."""

    photo: int
    """What a photo is given when the user says nothing."""
    video: int
    """The same of a video."""
    least: int
    most: int
    trained: tuple[int, int]
    """From and to which its networks were trained."""
    multiple: int
    """Both sides are multiples of it."""

    def check(self, size: int) -> None:
        """Refuses what the model was not made for.

        Raises:
            LyraError: the size is outside of the range.
        """
        if not self.least <= size <= self.most:
            raise LyraError(f"a size of {size} pixels is not possible: give {self.least} to {self.most} (--size)")


def fit_shape(width: int, height: int, longer: int, multiple: int) -> tuple[int, int]:
    """Height and width for a picture of some shape: the longer side as given, the other by its aspect.

    Args:
        width: Of the picture, in any unit.
        height: The same.
        longer: Pixels of the result's longer side.
        multiple: Both sides become multiples of it.
    """
    aspect = min(max(width, height) / max(1, min(width, height)), LARGEST_ASPECT)
    long_side = max(multiple, round(longer / multiple) * multiple)
    short_side = max(multiple, round(longer / aspect / multiple) * multiple)
    return (short_side, long_side) if width >= height else (long_side, short_side)
