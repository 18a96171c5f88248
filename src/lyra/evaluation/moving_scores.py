"""What every method is asked of a scene that moves: new views at given times, compared with the true ones.

Nothing here knows a model: methods are named rows of frames.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lyra.evaluation.judge import PerceptualDistance
from lyra.evaluation.metrics import psnr, ssim
from lyra.evaluation.scores import fill_with_mean, fill_with_nearest, warp_input
from lyra.geometry.cameras import Cameras
from lyra.worlds import MovingWorld, moving_pixels, render_moving_world

STILL_TOLERANCE = 1.0 / 255
"""Largest change over time, in any channel, of a true pixel that counts as still."""
FLICKER_LEVELS = 255.0
"""Flicker is told in levels of 8 bits."""


@dataclass(frozen=True)
class MovingTruth:
    """True views of a scene that moves, view i at time i."""

    color: Float[Tensor, "view 3 height width"]
    moving: Bool[Tensor, "view height width"]
    """What a frozen scene gets wrong: a mover is seen here at the view's time or at the time of freezing."""
    cameras: Cameras
    times: Float[Tensor, "view"]
    """In [0, 1]."""


def film_truth(
    world: MovingWorld, cameras: Cameras, times: Float[Tensor, "view"], frozen_at: float = 0.0
) -> MovingTruth:
    """Renders the truth.

    Args:
        world: A held-out one.
        cameras: In world coordinates.
        times: Of the views, in [0, 1].
        frozen_at: The time at which the scene is frozen that the methods are compared with.
    """
    color, _, moving = render_moving_world(world, cameras, times)
    frozen = moving_pixels(world, cameras, torch.full_like(times, frozen_at))
    return MovingTruth(color, moving | frozen, cameras, times)


def still_runs(cameras: Cameras, times: Float[Tensor, "view"]) -> list[list[int]]:
    """Views of one and the same camera in the order of their times: runs of at least two, each view in one at most."""
    poses = torch.cat([cameras.camera_to_world.flatten(1), cameras.intrinsics], 1)
    runs: dict[tuple[float, ...], list[int]] = {}
    for view in times.argsort(stable=True).tolist():
        runs.setdefault(tuple(poses[view].tolist()), []).append(view)
    return [run for run in runs.values() if len(run) > 1]


def flicker(
    frames: Float[Tensor, "view 3 height width"],
    truth: Float[Tensor, "view 3 height width"],
    cameras: Cameras,
    times: Float[Tensor, "view"],
) -> float | None:
    """How much frames change where the truth does not.

    Views of one camera at different times form a run. A pixel of a run is still where the largest minus the smallest
    true value over the whole run is at most ``STILL_TOLERANCE`` in each channel: no mover and no shadow ever touched
    it. Flicker is the mean, over the steps from one frame of a run to the next, its still pixels and the channels, of
    the absolute change of the value; nothing is subtracted, so that a video with sensor noise has a flicker of its own.

    Args:
        frames: A method's, in [0, 1]; values outside are clamped.
        truth: The true frames.
        cameras: Of the views.
        times: Of the views.

    Returns:
        Mean over all runs' steps and still pixels together, in 8-bit levels; None without a run or a still pixel.
    """
    total, count = 0.0, 0
    frames = frames.clamp(0, 1)
    for run in still_runs(cameras, times):
        change = truth[run].amax(0) - truth[run].amin(0)
        # Rounding aside: a change of just one level of 8 bits counts as still.
        still = (change <= STILL_TOLERANCE + 1e-6).all(0)
        steps = frames[run].diff(dim=0).abs()[..., still]
        total, count = total + steps.double().sum().item(), count + steps.numel()
    return FLICKER_LEVELS * total / count if count else None


class MovingScores:
    """Sums of every method's errors over scenes, views and times.

    Rows have ``psnr``, ``ssim`` and ``perceptual`` as means over views; ``psnr_moving`` and ``psnr_still`` as means
    over scenes, whose squared errors are summed over all of a scene's moving or still pixels before the logarithm,
    since their number differs much from view to view; and ``flicker`` (see there) as the mean over scenes. What cannot
    be measured is None.
    """

    def __init__(self, judge: PerceptualDistance | None):
        self.judge = judge
        self.values: dict[str, dict[str, list[float]]] = {}

    def add(self, truth: MovingTruth, methods: Mapping[str, Float[Tensor, "view 3 height width"]]) -> None:
        """Measures every method on one scene's views, and the truth's own flicker as the row ``truth``."""
        if "truth" in methods:
            raise ValueError("the row 'truth' is the truth's own: name the method otherwise")
        self._extend("truth", {"flicker": flicker(truth.color, truth.color, truth.cameras, truth.times)})
        moving = truth.moving[:, None]
        for method, frames in methods.items():
            color = frames.clamp(0, 1)
            pairs = list(zip(color, truth.color, strict=True))
            self._extend(
                method,
                {
                    "psnr": [psnr(a, b) for a, b in pairs],
                    "ssim": [ssim(a, b) for a, b in pairs],
                    "perceptual": self.judge(color, truth.color).tolist() if self.judge else [],
                    "psnr_moving": psnr(color, truth.color, moving) if bool(moving.any()) else None,
                    "psnr_still": psnr(color, truth.color, ~moving) if not bool(moving.all()) else None,
                    "flicker": flicker(color, truth.color, truth.cameras, truth.times),
                },
            )

    def _extend(self, method: str, measured: Mapping[str, list[float] | float | None]) -> None:
        row = self.values.setdefault(
            method,
            {name: [] for name in ("psnr", "ssim", "perceptual", "psnr_moving", "psnr_still", "flicker")},
        )
        for name, numbers in measured.items():
            row[name] += numbers if isinstance(numbers, list) else [] if numbers is None else [numbers]

    def rows(self) -> list[dict[str, str | float | None]]:
        """One row a method: its name and the means."""
        return [
            {"method": method} | {name: sum(v) / len(v) if v else None for name, v in row.items()}
            for method, row in self.values.items()
        ]


def dynamic_baselines(
    source_images: Float[Tensor, "time 3 height width"],
    source_depth: Float[Tensor, "time height width"],
    source_cameras: Cameras,
    cameras: Cameras,
    times: Float[Tensor, "view"],
) -> dict[str, Float[Tensor, "view 3 height width"]]:
    """What needs no generative model: each view's source frame, warped by its depth or as it is.

    Args:
        source_images: The source video in [0, 1]; frame i of n is at time i / (n - 1).
        source_depth: Its z-depth, scene units.
        source_cameras: Of its frames.
        cameras: Of the views.
        times: Of the views, in [0, 1]; the nearest frame is taken.

    Returns:
        ``cache`` (holes take the mean color of their view), ``cache-nearest`` (that of the nearest covered pixel),
        ``repeat`` (the frame as it is).
    """
    picks = (times * (len(source_images) - 1)).round().long().clamp(0, len(source_images) - 1)
    warped = source_images.new_empty(len(cameras), *source_images.shape[1:])
    covered = torch.empty(len(cameras), *source_depth.shape[1:], dtype=torch.bool, device=warped.device)
    for frame in picks.unique().tolist():
        views = (picks == frame).nonzero()[:, 0]
        warped[views], covered[views] = warp_input(
            source_images[frame], source_depth[frame], source_cameras[frame : frame + 1], cameras[views]
        )
    return {
        "cache": fill_with_mean(warped, covered),
        "cache-nearest": fill_with_nearest(warped, covered),
        "repeat": source_images[picks],
    }
