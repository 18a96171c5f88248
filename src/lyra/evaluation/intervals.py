"""How sure a mean is: bootstrap intervals over scenes, and over frames where there is but one scene."""

from collections.abc import Sequence

import numpy as np

RESAMPLES = 4000
LEVEL = 0.95


def interval(scenes: Sequence[Sequence[float]], seed: int = 0) -> tuple[float, float] | None:
    """The percentile interval of the mean over all frames.

    Whole scenes are drawn again and again, since frames of one scene are alike. Of a single scene frames are drawn,
    which says less: it holds for other frames of this scene, not for other scenes.

    Args:
        scenes: One number a frame, a list a scene; scenes without any are left out.
        seed: Of the draws.

    Returns:
        Low and high of ``LEVEL``; None with fewer than two numbers.

    Source: Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), chapter 13.
    """
    told = [np.asarray(scene, dtype=np.float64) for scene in scenes if len(scene)]
    if len(told) == 1:
        told = [np.array([value]) for value in told[0]]
    if len(told) < 2:
        return None
    sums, counts = np.array([scene.sum() for scene in told]), np.array([len(scene) for scene in told])
    draws = np.random.default_rng(seed).integers(len(told), size=(RESAMPLES, len(told)))
    means = sums[draws].sum(1) / counts[draws].sum(1)
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)


def difference(
    first: Sequence[Sequence[float]], second: Sequence[Sequence[float]]
) -> tuple[float, tuple[float, float] | None]:
    """Mean of the second minus the first, frame by frame, and its interval.

    Raises:
        ValueError: they are not of the same frames.
    """
    if [len(scene) for scene in first] != [len(scene) for scene in second]:
        raise ValueError("the two are not of the same frames")
    paired = [[b - a for a, b in zip(one, other, strict=True)] for one, other in zip(first, second, strict=True)]
    flat = [value for scene in paired for value in scene]
    return (sum(flat) / len(flat) if flat else float("nan")), interval(paired)
