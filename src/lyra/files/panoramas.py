"""Pictures that show all around: they are told, since no pinhole camera saw them."""

import numpy as np
from PIL import Image

NOTE = "it looks like a 360-degree panorama and is taken as a plain photo: crop a part of at most 90 degrees"
_TOLD = (b"equirectangular", b"cylindrical")
"""Projections of Google's photo sphere metadata (GPano:ProjectionType) that are no plain photo's."""
_ACROSS = 512


def describe_panorama(image: Image.Image, rgb: Image.Image) -> list[str]:
    """A note where a picture's metadata say so, or where one twice as wide as high closes around and at its poles.

    Args:
        image: As opened, with its metadata.
        rgb: The same, upright and in color.
    """
    told = image.info.get("xmp", b"")
    told = told.encode() if isinstance(told, str) else bytes(told)
    if b"ProjectionType" in told and any(kind in told.lower() for kind in _TOLD):
        return [NOTE]
    return [NOTE] if abs(rgb.width / rgb.height - 2) < 0.01 and _closes(rgb) else []


def _closes(rgb: Image.Image) -> bool:
    """Whether the right edge goes on at the left one, and the top and bottom rows are each nearly one color."""
    small = np.asarray(rgb.resize((_ACROSS, _ACROSS // 2), Image.Resampling.BOX), dtype=np.float32)
    seam = np.abs(small[:, 0] - small[:, -1]).mean()
    steps = np.abs(np.diff(small, axis=1)).mean()
    poles = max(row.std(axis=0).mean() for row in (small[0], small[-1]))
    # A plain picture that is this even at its edges has nothing in it.
    return bool(steps > 0.1 and seam < 2 * steps and poles < min(12.0, 0.4 * small.std()))
