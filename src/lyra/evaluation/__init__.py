"""Numbers about a finished scene, and about a model on held-out worlds and captures."""

from lyra.evaluation.metrics import psnr, ssim
from lyra.evaluation.scene import evaluate_scene

__all__ = ["evaluate_scene", "psnr", "ssim"]
