"""Published depth estimators behind the ``DepthEstimator`` protocol.

Metric or relative, their depth enters a scene by ratios alone: ``scene_depth`` makes the median of the valid pixels 1,
which keeps the meaning of the movement ranges. Sky is invalid, and goes to the far clamp as published.

Sources: Depth Anything V2 and Depth Pro through transformers; MoGe through its own package.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lyra.depth.prediction import DepthEstimator, DepthPrediction
from lyra.errors import LyraError
from lyra.files.hub import fetch_folder
from lyra.geometry.sky import MAX_DEPTH

DEPTH_ANYTHING = "depth-anything/Depth-Anything-V2-Small-hf@5426e4f0f36572d16453bbda7a8389317b1bef99"
"""Apache-2.0, as only the small one is; relative depth."""
_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_HALF = (0.5, 0.5, 0.5)


class DepthAnything:
    """transformers' ``DepthAnythingForDepthEstimation``, relative (inverse depth) or metric by its config."""

    def __init__(self, network: Any, side: int = 518, device: str = "cpu"):
        self.network = network.eval().to(device)
        self.side = side
        self.device = device

    @torch.no_grad()
    def predict(self, image: Float[Tensor, "3 height width"]) -> DepthPrediction:
        """Depth of an image in [0, 1]."""
        patch = self.network.config.patch_size
        scale = self.side / min(image.shape[1:])
        rows, columns = (max(patch, round(length * scale / patch) * patch) for length in image.shape[1:])
        pixels = _prepare(image, rows, columns, _IMAGENET_MEAN, _IMAGENET_STD).to(self.device)
        output = _resize(self.network(pixel_values=pixels).predicted_depth[None].float().cpu(), *image.shape[1:])
        if self.network.config.depth_estimation_type == "metric":
            valid = (output > 0) & (output < 0.999 * self.network.config.max_depth)
            return DepthPrediction(output.clamp(min=1e-6), valid, None, metric=True)
        # Inverse depth up to an unknown shift: what is beyond the far clamp, seen from the median, is sky.
        farthest = output.clamp(min=0).median() / MAX_DEPTH
        valid = output > farthest.clamp(min=1e-6)
        return DepthPrediction(1 / output.clamp(min=1e-6), valid, None, metric=False)


class DepthPro:
    """transformers' ``DepthProForDepthEstimation``: metric depth and the field of view."""

    def __init__(self, network: Any, device: str = "cpu"):
        self.network = network.eval().to(device)
        self.device = device

    @torch.no_grad()
    def predict(self, image: Float[Tensor, "3 height width"]) -> DepthPrediction:
        """Depth of an image in [0, 1]."""
        height, width = image.shape[1:]
        side = self.network.config.patch_size * 4
        output = self.network(pixel_values=_prepare(image, side, side, _HALF, _HALF).to(self.device))
        inverse = _resize(output.predicted_depth[None].float().cpu(), height, width)
        fov = None
        if output.field_of_view is not None:
            # Of the width, in degrees; the network saw a square, so its angle is that of the whole width.
            horizontal = float(output.field_of_view.flatten()[0])
            focal = 0.5 * width / math.tan(math.radians(horizontal) / 2)
            inverse = inverse * width / focal
            fov = math.degrees(2 * math.atan(0.5 * min(height, width) / focal))
        depth = 1 / inverse.clamp(min=1e-4, max=1e4)
        return DepthPrediction(depth, inverse > 1e-4, fov, metric=True)


class MoGe:
    """Microsoft's MoGe: relative (1) or metric (2) depth, valid pixels and intrinsics."""

    def __init__(self, network: Any, metric: bool, device: str = "cpu"):
        self.network = network.eval().to(device)
        self.metric = metric
        self.device = device

    @torch.no_grad()
    def predict(self, image: Float[Tensor, "3 height width"]) -> DepthPrediction:
        """Depth of an image in [0, 1]."""
        height, width = image.shape[1:]
        output = self.network.infer(image.to(self.device))
        depth, valid = output["depth"].float().cpu(), output["mask"].cpu().bool()
        # Intrinsics in units of the picture's width and height.
        focal = float(output["intrinsics"][0, 0]) * width
        fov = math.degrees(2 * math.atan(0.5 * min(height, width) / focal))
        return DepthPrediction(depth, valid & depth.isfinite() & (depth > 0), fov, self.metric)


def load_depth_estimator(source: str, device: str = "cpu") -> DepthEstimator:
    """An estimator by its source.

    Args:
        source: "depth-anything", or a folder or pinned hub name (``owner/name@commit``) of Depth Anything, Depth Pro
            or MoGe.
        device: Where it works.

    Raises:
        LyraError: there is no such estimator, or its package is missing.
    """
    folder = fetch_folder(DEPTH_ANYTHING if source == "depth-anything" else source)
    kind = _kind(folder)
    try:
        if kind == "moge":
            return _load_moge(folder, device)
        from transformers import DepthAnythingForDepthEstimation, DepthProForDepthEstimation

        classes = {"depth_anything": DepthAnythingForDepthEstimation, "depth_pro": DepthProForDepthEstimation}
        if kind not in classes:
            raise LyraError(f"{source} holds a {kind!r}: give Depth Anything, Depth Pro or MoGe")
        network = classes[kind].from_pretrained(
            folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
        )
    except (OSError, ValueError, KeyError) as error:
        raise LyraError(f"{source} cannot be loaded: {' '.join(str(error).split())[:160]}") from error
    return DepthAnything(network, device=device) if kind == "depth_anything" else DepthPro(network, device)


def _kind(folder: Path) -> str:
    path = folder / "config.json"
    if not path.is_file():
        raise LyraError(f"{folder} has no config.json: give a folder of Depth Anything, Depth Pro or MoGe")
    try:
        content = json.loads(path.read_text())
        return "moge" if "model_type" not in content and "encoder" in content else str(content.get("model_type"))
    except (ValueError, AttributeError, TypeError):
        raise LyraError(f"{path} is damaged: download it again") from None


def _load_moge(folder: Path, device: str) -> MoGe:
    """MoGe from a folder with its ``config.json`` and ``model.safetensors`` (its releases are pickles)."""
    try:
        from moge.model import import_model_class_by_version
    except ImportError as error:
        raise LyraError("MoGe is not installed: pip install dlr-moge, or take --depth depth-anything") from error
    from lyra.files import load_tensors

    content = json.loads((folder / "config.json").read_text())
    version = str(content.pop("version", "v1"))
    network = import_model_class_by_version(version)(**content)
    network.load_state_dict(load_tensors(folder / "model.safetensors"))
    return MoGe(network, metric=version != "v1", device=device)


def _prepare(
    image: Tensor, rows: int, columns: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> Float[Tensor, "1 3 rows columns"]:
    resized = F.interpolate(image[None], size=(rows, columns), mode="bicubic", antialias=True, align_corners=False)
    return (resized.clamp(0, 1) - image.new_tensor(mean)[:, None, None]) / image.new_tensor(std)[:, None, None]


def _resize(field: Tensor, height: int, width: int) -> Float[Tensor, "height width"]:
    return F.interpolate(field, size=(height, width), mode="bilinear", align_corners=False)[0, 0]
