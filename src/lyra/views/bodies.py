"""What moves has a body: each thing that moves in a picture stands at one depth, upright, and goes on from picture to
picture, in place of the depth of what is behind it.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from lyra.views.own_motion import load_opencv

_LEAST_AREA = 0.0008
"""Share of a picture below which what moves is no thing."""
_FEET = 0.08
"""Share of a thing's height at its lower end by which it stands."""
_RELIEF = 0.3
"""Share of the estimate's own differences of log depth within a thing that are kept ..."""
_MOST_RELIEF = 0.06
"""... and their largest."""
_SHADOW = (0.35, 0.93)
"""Brightness over that of the backdrop of what is a shadow ..."""
_SHADOW_TINT = 0.06
"""... and how much its color may differ otherwise."""
_LYING = 0.04
"""Difference of log depth to what is behind below which something may lie on it."""
_SMOOTH = 2
"""Pictures before and after whose depth counts for a thing's."""


@dataclass(frozen=True)
class _Thing:
    """One connected part of what moves in a picture."""

    frame: int
    where: Bool[Tensor, "height width"]
    log_depth: float
    sure: bool
    """Whether it is seen where it stands."""


def fill_outlines(moving: Bool[Tensor, "time height width"]) -> Bool[Tensor, "time height width"]:
    """What moves with what it encloses: the inside of a thing of one color does not change, only its outline does."""
    closed = _pool(_pool(moving, 2), 2, erode=True) | moving
    outside = F.pad(~closed, (1, 1, 1, 1), value=True)
    reached = torch.zeros_like(outside)
    reached[:, 0], reached[:, -1], reached[:, :, 0], reached[:, :, -1] = True, True, True, True
    while True:
        grown = _pool(reached, 1) & outside
        if torch.equal(grown, reached):
            return ~reached[:, 1:-1, 1:-1]
        reached = grown


def _pool(mask: Tensor, pixels: int, erode: bool = False) -> Bool[Tensor, "time height width"]:
    field = (~mask if erode else mask).float()[:, None]
    grown = F.max_pool2d(field, 2 * pixels + 1, stride=1, padding=pixels)[:, 0] > 0.5
    return ~grown if erode else grown


def find_shadows(
    images: Float[Tensor, "time 3 height width"],
    backdrops: Float[Tensor, "time 3 height width"],
    moving: Bool[Tensor, "time height width"],
    raised: Float[Tensor, "time height width"],
) -> Bool[Tensor, "time height width"]:
    """Which of what moves is but the backdrop, darker.

    Args:
        images: In [0, 1].
        backdrops: What stands still, also behind what moves.
        moving: What moves.
        raised: By how much log depth is estimated to be less than what is behind it.
    """
    own, behind = (F.avg_pool2d(x, 3, stride=1, padding=1, count_include_pad=False) for x in (images, backdrops))
    ratio = (own.mean(1) / behind.mean(1).clamp(min=1e-3))[:, None]
    tint = (own - ratio * behind).abs().mean(1)
    dark = (ratio[:, 0] > _SHADOW[0]) & (ratio[:, 0] < _SHADOW[1]) & (tint < _SHADOW_TINT * own.mean(1).clamp(min=0.05))
    dark = dark & (raised < _LYING)
    # Large parts alone: here and there a thing's color is by chance that of what is behind it.
    return _pool(_pool(dark & moving, 2, erode=True), 2) & moving


def label_parts(mask: Bool[Tensor, "height width"]) -> Int[Tensor, "height width"]:
    """A number above 0 for every connected part of a mask, 0 elsewhere."""
    _, labels = load_opencv().connectedComponents(mask.numpy().astype("uint8"), connectivity=8)
    return torch.from_numpy(labels).long()


def give_bodies(
    depth: Float[Tensor, "time height width"],
    behind: Float[Tensor, "time height width"],
    moving: Bool[Tensor, "time height width"],
    shadows: Bool[Tensor, "time height width"],
) -> Float[Tensor, "time height width"]:
    """Depth in which what moves stands where it touches the ground.

    A thing is as far as what is behind its lowest pixels, or as the estimate has it where that is nearer (on a table,
    in the air); where its lower end is not in the picture, as far as in the pictures around, in proportion to the
    estimate. From picture to picture its depth changes smoothly.

    Args:
        depth: Estimated z-depth, in scene units.
        behind: Z-depth of what stands still, also behind what moves.
        moving: What moves.
        shadows: What of that is a shadow, which stays on the ground.
    """
    result = torch.where(moving, torch.minimum(depth, behind), depth)
    result = torch.where(shadows, behind, result)
    things = [
        thing
        for frame in range(len(depth))
        for thing in _find_things(frame, depth[frame], behind[frame], moving[frame] & ~shadows[frame])
    ]
    for track in _link(things):
        for thing, log_depth in zip(track, _settle(track, depth), strict=True):
            own = depth[thing.frame].log()
            relief = (own - own[thing.where].median()) * _RELIEF
            body = (log_depth + relief.clamp(-_MOST_RELIEF, _MOST_RELIEF)).exp()
            result[thing.frame] = torch.where(thing.where, body, result[thing.frame])
    # Nothing in front of the camera is behind what it hides.
    return torch.where(moving, torch.minimum(result, behind), result)


def _find_things(frame: int, depth: Tensor, behind: Tensor, mask: Tensor) -> list[_Thing]:
    labels = label_parts(mask)
    height = mask.shape[0]
    found = []
    for number in labels.unique().tolist():
        where = labels == number
        if number == 0 or int(where.sum()) < max(12, _LEAST_AREA * mask.numel()):
            continue
        rows = where.any(1).nonzero()[:, 0]
        top, bottom = int(rows[0]), int(rows[-1])
        feet = where.clone()
        feet[: bottom + 1 - max(2, round(_FEET * (bottom + 1 - top)))] = False
        estimate, ground = float(depth[where].log().median()), float(behind[feet].log().median())
        stands = bottom < height - 3
        found.append(_Thing(frame, where, min(estimate, ground) if stands else estimate, stands))
    return found


def _link(things: list[_Thing]) -> list[list[_Thing]]:
    """Things of successive pictures that lie over each other most, one after another."""
    tracks: list[list[_Thing]] = []
    for thing in things:
        best, most = None, 0.2
        for track in tracks:
            last = track[-1]
            if last.frame != thing.frame - 1:
                continue
            share = float((last.where & thing.where).sum()) / float(torch.minimum(last.where.sum(), thing.where.sum()))
            if share > most:
                best, most = track, share
        if best is None:
            tracks.append([thing])
        else:
            best.append(thing)
    return tracks


def _settle(track: list[_Thing], depth: Tensor) -> list[float]:
    """Log depth of a thing at all its pictures."""
    estimates = torch.tensor([float(depth[thing.frame][thing.where].log().median()) for thing in track])
    values = torch.tensor([thing.log_depth for thing in track])
    sure = torch.tensor([thing.sure for thing in track])
    if bool(sure.any()) and not bool(sure.all()):
        # Where it stands is not seen: the estimate, corrected as where it is.
        known = sure.nonzero()[:, 0]
        offsets = (values - estimates)[known]
        for index in (~sure).nonzero()[:, 0].tolist():
            nearest = (known - index).abs().argsort()[:5]
            values[index] = estimates[index] + offsets[nearest].median()
    smooth = []
    for index in range(len(track)):
        window = values[max(0, index - _SMOOTH) : index + _SMOOTH + 1]
        smooth.append(float(window.median()))
    return smooth
