"""PNG images, and pictures as the bytes and planes that files hold."""

from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from lyra.errors import LyraError
from lyra.files.atomic import explain_reading, write_atomically

BT709_WEIGHTS, BT601_WEIGHTS = (0.2126, 0.0722), (0.299, 0.114)
"""Weights of red and blue in luma, ITU-R BT.709 and BT.601."""


def save_image(image: Float[Tensor, "3 height width"], path: Path) -> None:
    """Writes sRGB in [0, 1] as 8-bit PNG; values outside are clamped.

    Raises:
        LyraError: The file cannot be written.
        ValueError: The image holds NaN.
    """
    pixels = to_8_bit(image).transpose(1, 2, 0)
    with write_atomically(path) as temporary, temporary.open("wb") as file:
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, format="PNG")


def load_image(path: Path) -> Float[Tensor, "3 height width"]:
    """Reads a PNG or JPEG written by this project as sRGB in [0, 1]; a user's photo goes to ``load_photo``.

    Raises:
        LyraError: The file is missing, no image or damaged.
    """
    path = Path(path)
    with explain_reading(path), path.open("rb") as file:
        try:
            with Image.open(file, formats=("PNG", "JPEG")) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise LyraError(f"{path} is no image or damaged: make it again") from None
    return torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1).contiguous()


def to_8_bit(image: Tensor | np.ndarray) -> np.ndarray:
    """Values of sRGB in [0, 1] as bytes, clamped; bytes stay.

    Raises:
        ValueError: The image holds NaN.
    """
    if isinstance(image, np.ndarray):
        return image
    values = image.detach().to("cpu", torch.float32)
    if values.isnan().any():
        raise ValueError("an image to be saved holds NaN")
    return (values.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def to_yuv420(rgb: np.ndarray, weights: tuple[float, float] = BT709_WEIGHTS, full_range: bool = False) -> np.ndarray:
    """Bytes [3, h, w] as planes Y, U, V, stacked to [3 h / 2, w] with even sizes.

    With limited range, luma spans 16..235 and chroma 16..240. Done here because swscale's quick paths are off by
    several levels for saturated colors.
    """
    rgb = np.pad(rgb, [(0, 0), (0, rgb.shape[1] % 2), (0, rgb.shape[2] % 2)], mode="edge")
    red, green, blue = rgb.astype(np.float32)
    red_weight, blue_weight = weights
    luma = red_weight * red + (1 - red_weight - blue_weight) * green + blue_weight * blue
    planes = [luma if full_range else 16 + luma * (219 / 255)]
    span = 127.5 if full_range else 112
    for channel, weight in ((blue, blue_weight), (red, red_weight)):
        chroma = 128 + (channel - luma) * (span / 255 / (1 - weight))
        planes.append(chroma.reshape(chroma.shape[0] // 2, 2, chroma.shape[1] // 2, 2).mean(axis=(1, 3)))
    packed = np.concatenate([plane.ravel() for plane in planes])
    return np.rint(packed.clip(0, 255)).astype(np.uint8).reshape(-1, rgb.shape[2])
