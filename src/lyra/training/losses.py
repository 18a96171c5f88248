"""Losses of the student.

Source: ``src/models/utils/loss.py`` of Lyra; golden ``losses``. Where upstream counts invalid pixels in the median
and the mean, and takes the sigmoid of an opacity twice, these do not.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class LossWeights:
    """Weights of the terms; the defaults are the paper's, the perceptual term apart."""

    color: float = 1.0
    perceptual: float = 0.0
    """0.5 in the paper, by LPIPS; another network and so another scale here."""
    depth: float = 0.05
    opacity: float = 0.0
    """0.1 in the paper's pruning stages."""


@dataclass(frozen=True)
class Terms:
    """What a loss is made of, as sums and counts: those of the parts of a batch add up to the whole batch's means."""

    totals: dict[str, Float[Tensor, ""]] = field(default_factory=dict)
    """With gradients."""
    counts: dict[str, float] = field(default_factory=dict)
    """Over how many pixels, Gaussians or pictures each sum runs."""

    @staticmethod
    def of(parts: Mapping[str, tuple[Float[Tensor, ""], float | int]]) -> "Terms":
        """Terms of (sum, count) by name."""
        return Terms(
            {name: total for name, (total, _) in parts.items()}, {name: float(n) for name, (_, n) in parts.items()}
        )

    def mean(self, name: str) -> Float[Tensor, ""]:
        """A term's mean."""
        return self.totals[name] / max(self.counts[name], 1.0)

    def weigh(self, weights: LossWeights) -> Float[Tensor, ""]:
        """The loss: terms without a weight, which are logged alone, are not in it."""
        given = vars(weights)
        return torch.stack([given[name] * self.mean(name) for name in self.totals if given.get(name)]).sum()


def add_terms(parts: Iterable[Terms]) -> Terms:
    """Of several samples together; a term that a sample lacks counts nothing there."""
    totals: dict[str, Tensor] = {}
    counts: dict[str, float] = {}
    for part in parts:
        for name, total in part.totals.items():
            totals[name] = totals[name] + total if name in totals else total
            counts[name] = counts.get(name, 0.0) + part.counts[name]
    return Terms(totals, counts)


def depth_loss(
    prediction: Float[Tensor, "view height width"],
    truth: Float[Tensor, "view height width"],
    valid: Bool[Tensor, "view height width"],
) -> Float[Tensor, ""]:
    """Scale-and-shift-invariant depth error, smooth L1 over the valid pixels.

    Each frame is shifted by its median and divided by its mean absolute deviation over the valid pixels.
    """
    total, count = sum_depth_errors(prediction, truth, valid)
    return total / max(count, 1)


def sum_depth_errors(
    prediction: Float[Tensor, "view height width"],
    truth: Float[Tensor, "view height width"],
    valid: Bool[Tensor, "view height width"],
) -> tuple[Float[Tensor, ""], int]:
    """The same as a sum, and over how many pixels."""
    total, count = prediction.new_zeros(()), 0
    for predicted, true, mask in zip(prediction, truth, valid, strict=True):
        if not bool(mask.any()):
            continue
        pair = _standardize(predicted[mask]), _standardize(true[mask])
        total = total + F.smooth_l1_loss(pair[0], pair[1], reduction="sum")
        count += int(mask.sum())
    return total, count


def _standardize(values: Float[Tensor, "pixel"]) -> Float[Tensor, "pixel"]:
    shifted = values - values.median()
    return shifted / shifted.abs().mean().clamp(1e-3, 1e3)
