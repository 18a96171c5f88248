"""Measured depth in 16-bit pictures, brought to the shape of the photos that it belongs to."""

import warnings
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from lyra.errors import LyraError
from lyra.files.photos import centre_crop
from lyra.files.picture_files import guard, load_pixels, open_picture

_NOTHING = 65535
"""The level that 7-Scenes writes where nothing was measured, beside 0."""


def load_depth_map(path: Path, metres: float, height: int, width: int) -> Float[Tensor, "height width"]:
    """Z-depth in metres, cropped around its centre as its photo is; 0 where nothing was measured.

    A pixel takes the depth of the nearest one of the file: a mean over an edge is no place.

    Args:
        path: One channel of integers.
        metres: Of one level.
        height: Of the result in pixels.
        width: Of the result in pixels.

    Raises:
        LyraError: the file is missing, damaged or no depth.
    """
    opened = open_picture(path)
    with guard(path):
        picture = load_pixels(opened)
        levels = np.asarray(picture)
    if levels.ndim != 2 or levels.dtype.kind not in "iuf":
        raise LyraError(f"{path} is no depth map: give one channel of 16 bits")
    values = np.where((levels > 0) & (levels < _NOTHING) & np.isfinite(levels), levels, 0).astype(np.float32)
    if not values.any():
        warnings.warn(f"{path} holds no depth", stacklevel=2)
    left, top, right, bottom = centre_crop(picture.size, height, width)
    cropped = Image.fromarray(values[top:bottom, left:right] * np.float32(metres))
    return torch.from_numpy(np.asarray(cropped.resize((width, height), Image.Resampling.NEAREST)).copy())
