"""PSNR of a tokenizer's round trip on pans over photographs: first frame and later ones.

python recipes/tokenizer_round_trip.py photo.jpg ...
"""

from pathlib import Path

import torch
import torch.nn.functional as F
import tyro

import lyra
from lyra.evaluation import psnr
from lyra.formats import load_image

FRAMES, SIZE = 17, 128


def pan(photo: Path) -> torch.Tensor:
    """A window that moves 2 pixels right a frame and 1 down every second, in [-1, 1]: [1 3 time height width]."""
    image = load_image(photo)
    image = F.interpolate(image[None], scale_factor=180 / min(image.shape[1:]), mode="area")[0]
    windows = [image[:, 20 + i // 2 : 20 + i // 2 + SIZE, 10 + 2 * i : 10 + 2 * i + SIZE] for i in range(FRAMES)]
    return torch.stack(windows, dim=1)[None] * 2 - 1


def round_trip(photos: tuple[Path, ...], /, model: str = "mini") -> None:
    """Prints two numbers in dB a photo."""
    tokenizer = lyra.load(model).tokenizer
    for photo in photos:
        video = pan(photo)
        decoded, true = tokenizer.decode(tokenizer.encode(video)) / 2 + 0.5, video / 2 + 0.5
        print(
            f"{photo.name}: {psnr(decoded[:, :, :1], true[:, :, :1]):.1f} {psnr(decoded[:, :, 1:], true[:, :, 1:]):.1f}"
        )


if __name__ == "__main__":
    tyro.cli(round_trip)
