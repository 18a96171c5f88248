"""How far pictures of a film are shifted against each other, patch by patch, and whether its camera stands."""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

SHIFT_SIDE = 256
"""Pixels of the longer side at which shifts are measured; they are told in these pixels."""
STANDING = 0.4
"""Largest shift of a patch that stands; less is not seen in a scene of this size."""
_PATCH, _STEP = 32, 16
_TEXTURE = 0.012
"""Least standard deviation of a patch that can be found again."""
_BAND = 0.12
"""Frequencies that count, in cycles a pixel."""
_PEAK = 0.5
"""Least share of a patch's spectrum that agrees on one shift."""
_LEAST = 6
"""Patches by which anything can be said."""


def to_gray(images: Sequence[Float[Tensor, "3 _ _"]]) -> Float[Tensor, "time height width"]:
    """Brightness of pictures, the longer side at ``SHIFT_SIDE``."""
    scale = min(1.0, SHIFT_SIDE / max(images[0].shape[1:]))
    size = [max(_PATCH, round(side * scale)) for side in images[0].shape[1:]]
    return torch.stack([F.interpolate(image.mean(0)[None, None], size=size, mode="area")[0, 0] for image in images])


def find_shifts(
    first: Float[Tensor, "height width"], second: Float[Tensor, "height width"]
) -> tuple[Float[Tensor, "patch 2"], Bool[Tensor, "patch"]]:
    """Shift in pixels (right, down) of each patch from one picture to another, and whether it could be found.

    Found is what has texture and whose frequencies agree; shifts of more than a third of a patch are not.

    Source: Kuglin and Hines 1975, phase correlation, on patches.
    """
    window = torch.hann_window(_PATCH, periodic=False)
    window = window[:, None] * window

    def cut(picture: Tensor) -> Tensor:
        patches = picture.unfold(0, _PATCH, _STEP).unfold(1, _PATCH, _STEP).flatten(0, 1)
        return (patches - patches.mean((1, 2), keepdim=True)) * window

    a, b = cut(first), cut(second)
    cross = torch.fft.rfft2(b) * torch.fft.rfft2(a).conj()
    # Peaks as wide as two pixels: what is between pixels is found as well, and noise counts less.
    across, down = torch.fft.rfftfreq(_PATCH), torch.fft.fftfreq(_PATCH)[:, None]
    low = torch.exp(-(across.square() + down.square()) / (2 * _BAND**2))
    peak_map = torch.fft.irfft2(low * cross / cross.abs().clamp(min=1e-9), s=(_PATCH, _PATCH))
    peak_map = peak_map / torch.fft.irfft2(low, s=(_PATCH, _PATCH))[0, 0]
    best, place = peak_map.flatten(1).max(1)
    row, column = place // _PATCH, place % _PATCH
    shift = torch.stack([_between(peak_map, row, column, axis) for axis in (2, 1)], -1)
    known = (a.std((1, 2)) > _TEXTURE) & (b.std((1, 2)) > _TEXTURE) & (best > _PEAK)
    return shift, known & (shift.abs().amax(-1) < _PATCH / 3)


def _between(peaks: Tensor, row: Tensor, column: Tensor, axis: int) -> Float[Tensor, "patch"]:
    """Place of a peak along an axis by the parabola through it and its neighbours, signed."""
    index = torch.arange(len(peaks))
    around = []
    for step in (-1, 0, 1):
        at = [row, column]
        at[axis - 1] = (at[axis - 1] + step) % _PATCH
        around.append(peaks[index, at[0], at[1]])
    before, here, after = around
    bend = (before - 2 * here + after).clamp(max=-1e-9)
    place = (row if axis == 1 else column) + 0.5 * (before - after) / bend
    return torch.where(place > _PATCH / 2, place - _PATCH, place)


def common_shift(first: Float[Tensor, "height width"], second: Float[Tensor, "height width"]) -> float:
    """Length in pixels of the shift that half of the patches are below; infinity where too few are found again."""
    shift, known = find_shifts(first, second)
    if int(known.sum()) < _LEAST:
        return math.inf
    return float(shift[known].norm(dim=-1).median())


def stands(images: Float[Tensor, "time height width"]) -> bool:
    """Whether the camera of a film stands: in each picture most of what can be found again is where it was at first.

    Pictures without texture count as standing where most of their pixels keep their brightness.

    Args:
        images: From ``to_gray``.
    """
    for image in images[1:]:
        shift = common_shift(images[0], image)
        if math.isinf(shift):
            if float((image - images[0]).abs().median()) > 2 * _TEXTURE:
                return False
        elif shift > STANDING:
            return False
    return True
