"""Numbers about a finished scene, and about a model on held-out worlds and captures."""

from lyra.evaluation.finished_scene import evaluate_scene
from lyra.evaluation.metrics import psnr, ssim

__all__ = ["evaluate_scene", "psnr", "ssim"]
