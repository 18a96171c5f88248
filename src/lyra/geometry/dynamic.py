"""Gaussians of a scene that moves: what stays is kept once, what changes once a moment."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from lyra.errors import LyraError
from lyra.geometry.gaussians import Gaussians, covariances, merge


@dataclass(frozen=True)
class DynamicGaussians:
    """Gaussians at each of a scene's moments.

    At a moment the scene is ``static`` and that moment's own Gaussians together; every moment is a whole scene.
    """

    static: Gaussians
    """There at every moment."""
    moments: tuple[Gaussians, ...]
    """What is there at one moment only, or changes; at least one."""
    times: Float[Tensor, "moment"]
    """When each moment is, in [0, 1] of the source video, ascending."""
    seconds: float = 2.0
    """How long time 0 to 1 lasts."""

    def __post_init__(self) -> None:
        if not self.moments or len(self.moments) != len(self.times):
            raise ValueError(f"{len(self.moments)} moments at {len(self.times)} times")
        if len(self.times) > 1 and not bool((self.times.diff() > 0).all()):
            raise ValueError("times must ascend")

    def __len__(self) -> int:
        return len(self.moments)

    def nearest(self, time: float) -> int:
        """Number of the moment nearest to a time."""
        return int((self.times - time).abs().argmin())

    def moment(self, index: int) -> Gaussians:
        """The whole scene at a moment by its number."""
        return merge([self.static, self.moments[index]])

    def at(self, time: float) -> Gaussians:
        """The whole scene at the moment nearest to a time in [0, 1].

        Raises:
            LyraError: the time is outside.
        """
        if not 0 <= time <= 1:
            raise LyraError(f"time {time} is outside of the scene: give 0 (its beginning) to 1 (its end)")
        return self.moment(self.nearest(time))

    def between(self, start: float, end: float) -> "DynamicGaussians":
        """The moments from one time to another; they then last from 0 to 1.

        Raises:
            LyraError: no moment is between them.
        """
        inside = (self.times >= start - 1e-6) & (self.times <= end + 1e-6)
        if not bool(inside.any()):
            raise LyraError(f"no moment of the scene is between times {start} and {end}")
        times = self.times[inside]
        span = float(times[-1] - times[0])
        kept = tuple(moment for moment, keep in zip(self.moments, inside.tolist(), strict=True) if keep)
        if span == 0:
            return DynamicGaussians(self.static, kept, torch.zeros(1), self.seconds)
        return DynamicGaussians(self.static, kept, (times - times[0]) / span, self.seconds * span)

    def to(self, target: torch.device | str) -> "DynamicGaussians":
        """The same on another device."""
        moved = self.map(lambda part: part.to(target))
        return replace(moved, times=self.times.to(target))

    def map(self, function: Callable[[Gaussians], Gaussians]) -> "DynamicGaussians":
        """Applies a function to what stays and to every moment."""
        return replace(self, static=function(self.static), moments=tuple(function(part) for part in self.moments))

    def crop(self, low: Sequence[float], high: Sequence[float]) -> "DynamicGaussians":
        """The Gaussians whose centres lie in a box of the world; lowest and highest x, y, z in scene units."""
        return self.map(lambda part: crop(part, low, high))


def crop(gaussians: Gaussians, low: Sequence[float], high: Sequence[float]) -> Gaussians:
    """The Gaussians whose centres lie in a box; lowest and highest x, y, z.

    Raises:
        LyraError: the box is empty.
    """
    lowest, highest = gaussians.means.new_tensor(low), gaussians.means.new_tensor(high)
    if bool((lowest >= highest).any()):
        raise LyraError(f"the box from {tuple(low)} to {tuple(high)} is empty: give lowest, then highest x y z")
    return gaussians.select(((gaussians.means >= lowest) & (gaussians.means <= highest)).all(-1))


STILL_OPACITY = 0.05
"""Largest change of opacity over all moments of a Gaussian that counts as still."""
STILL_COLOR = 0.04
"""Largest change of color."""
STILL_STEP = 0.015
"""Largest way of its centre across the view from the origin, where the input camera is, as a share of its distance."""
STILL_DEPTH = 0.1
"""The same along the view: what a student makes of a still place's depth differs a little from time to time. Ways
within its own largest standard deviation count as still, too."""
STILL_SHAPE = 0.3
"""Largest change of an entry of its covariance in its own largest variance: a tenth of its size either way."""


def still(series: Gaussians) -> Bool[Tensor, "splat"]:
    """Which Gaussians of a series (leading axis: moments) hardly change."""

    def change(values: Tensor) -> Tensor:
        return values.amax(0) - values.amin(0)

    distance, own = series.means.norm(dim=-1), series.scales.amax((0, -1))
    near = distance.amin(0)
    across = near * change(series.means / distance[..., None].clamp(min=1e-6)).norm(dim=-1)
    shape = change(covariances(series)).amax((-2, -1)) / series.scales.amax((0, -1)).square()
    return (
        (change(series.opacities) < STILL_OPACITY)
        & (change(series.colors).amax(-1) < STILL_COLOR)
        & (across < torch.maximum(own, STILL_STEP * near))
        & (change(distance) < torch.maximum(own, STILL_DEPTH * near))
        & (shape < STILL_SHAPE)
    )


def separate(
    series: Gaussians, times: Float[Tensor, "moment"], seconds: float, faintest: float = 2 / 255
) -> DynamicGaussians:
    """Stores what hardly changes over a series once, by its mean, and drops what a moment does not show.

    Args:
        series: The same Gaussians at every moment, with a leading axis of moments.
        times: Of the moments.
        seconds: How long time 0 to 1 lasts.
        faintest: Opacity below which a Gaussian is not there.
    """
    steady = still(series)
    mean = series.map(lambda tensor: tensor[:, steady].mean(0))
    # A quaternion and its opposite are one rotation.
    turns = series.quaternions[:, steady]
    turns = F.normalize((turns * (turns * turns[:1]).sum(-1, keepdim=True).sign()).mean(0), dim=-1)
    static = replace(mean, quaternions=turns)
    static = static.select(static.opacities >= faintest)
    moments = []
    for index in range(len(times)):
        here = series.map(lambda tensor, index=index: tensor[index])
        moments.append(here.select(~steady & (here.opacities >= faintest)))
    return DynamicGaussians(static, tuple(moments), times, seconds)


def join(parts: Sequence[DynamicGaussians], seconds: float) -> DynamicGaussians:
    """Successive parts of one scene, each beginning with the moment at which the one before it ends.

    What stays is the first part's throughout. What stays in another where the first has nothing, since it shows other
    places or something was in front of them, is there during that part.

    Args:
        parts: With moments that are evenly spaced in time.
        seconds: How long the whole lasts.
    """
    static, moments = parts[0].static, list(parts[0].moments)
    for part in parts[1:]:
        more = part.static.select(~_near(part.static.means, static.means))
        moments += [merge([more, moment]) for moment in part.moments[1:]]
    return DynamicGaussians(static, tuple(moments), torch.linspace(0, 1, len(moments)), seconds)


_CELL = 0.02
"""Side of a cell in which Gaussians are neighbours: radians, seen from the origin, and share of the distance."""


def _near(points: Float[Tensor, "point 3"], known: Float[Tensor, "other 3"]) -> Bool[Tensor, "point"]:
    """Which points have a known one in their cell or beside it."""

    def cells(places: Tensor) -> Tensor:
        distance = places.norm(dim=-1, keepdim=True).clamp(min=1e-3)
        return (torch.cat([places / distance, distance.log()], dim=-1) / _CELL).floor().long()

    def keys(places: Tensor) -> Tensor:
        return ((places + (1 << 14)) << torch.tensor([45, 30, 15, 0])).sum(-1)

    around = torch.cartesian_prod(*[torch.arange(-1, 2)] * 4)
    taken = (cells(known).unique(dim=0)[:, None] + around).flatten(0, 1)
    return torch.isin(keys(cells(points)), keys(taken).unique())
