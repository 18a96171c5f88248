"""Distances between pictures."""

import torch
from jaxtyping import Float
from torch import Tensor


def psnr(prediction: Float[Tensor, "*image"], truth: Float[Tensor, "*image"], mask: Tensor | None = None) -> float:
    """Peak signal-to-noise ratio in dB of values in [0, 1], over the pixels of a broadcastable boolean mask."""
    error = (prediction.clamp(0, 1) - truth).square()
    if mask is not None:
        error = error[mask.expand_as(error)]
    if error.numel() == 0:
        return float("nan")
    return -10 * error.mean().clamp(min=1e-10).log10().item()


def ssim(first: Float[Tensor, "3 height width"], second: Float[Tensor, "3 height width"]) -> float:
    """The same as ``structural_similarity``, as a number."""
    return structural_similarity(first, second).item()


def structural_similarity(
    first: Float[Tensor, "3 height width"], second: Float[Tensor, "3 height width"]
) -> Float[Tensor, ""]:
    """Structural similarity of two images in [0, 1]: Gaussian window of 11 pixels, sigma 1.5; gradients flow.

    Source: Wang et al. 2004, with the settings of Lyra's evaluation.
    """
    offsets = torch.arange(11, dtype=first.dtype) - 5
    line = torch.exp(-(offsets**2) / (2 * 1.5**2))
    window = (line[:, None] * line[None]) / line.sum() ** 2

    def blur(image: Tensor) -> Tensor:
        return torch.nn.functional.conv2d(image[:, None], window[None, None])[:, 0]

    mean_a, mean_b = blur(first), blur(second)
    variance_a, variance_b = blur(first**2) - mean_a**2, blur(second**2) - mean_b**2
    covariance = blur(first * second) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    ratio = (2 * mean_a * mean_b + c1) * (2 * covariance + c2)
    ratio = ratio / ((mean_a**2 + mean_b**2 + c1) * (variance_a + variance_b + c2))
    return ratio.mean()
