"""PSNR of a tokenizer's round trip, first frame and later ones: windows moving over photographs, and maps.

python recipes/tokenizer_round_trip.py photo.jpg ... --model mini

Photographs that nothing was fitted to: pans of 2 pixels a frame, a slow diagonal, a zoom. Maps of held-out worlds,
which teacher and student send through the tokenizer too: Plücker halves, masks, times, a constant.
"""

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
import tyro

import lyra
from lyra.evaluation import psnr
from lyra.evaluation.still_worlds import FIRST_HELD_OUT_SEED
from lyra.files import load_image
from lyra.files.tables import print_rows
from lyra.teacher import TeacherConfig
from lyra.training.signals import Signal, mask_signal, moving_window, plucker_signals, time_signal
from lyra.training.world_clips import render_world_clip

VELOCITIES = {"pan": (2.0, 0.0), "vertical pan": (0.0, 2.0), "diagonal": (1.0, 1.0)}


def photo_signals(photo: Path, teacher: TeacherConfig) -> Iterator[tuple[str, Signal]]:
    """Windows moving over a photograph whose shorter side is 1.5 times theirs."""
    size, frames = teacher.height, teacher.frames
    image = load_image(photo)[None]
    image = F.interpolate(image, scale_factor=1.5 * size / min(image.shape[2:]), mode="bilinear", antialias=True)[0]
    for name, velocity in VELOCITIES.items():
        yield name, moving_window(image * 2 - 1, size, frames, velocity)
    yield "zoom", moving_window(image * 2 - 1, size, frames, zoom=0.78)


def map_signals(teacher: TeacherConfig, worlds: int = 6) -> Iterator[tuple[str, Signal]]:
    """Maps of held-out worlds' clips."""
    size, frames = teacher.height, teacher.frames
    for seed in range(FIRST_HELD_OUT_SEED, FIRST_HELD_OUT_SEED + worlds):
        clip = render_world_clip(seed, 0, frames, size, size, 55.0)
        directions, moments = plucker_signals(clip)
        yield "Plücker directions", directions
        yield "Plücker moments", moments
        yield "masks", mask_signal(clip, teacher)
    yield "running time", time_signal(torch.linspace(0, 1, frames), size, size)
    yield "one time", time_signal(torch.full((frames,), 0.4), size, size)


def round_trip(photos: tuple[Path, ...], /, model: str = "mini", json: bool = False) -> None:
    """Prints the mean of each kind of signal, in dB."""
    loaded = lyra.load(model)
    teacher, found = loaded.config.teacher, {}
    signals = [pair for photo in photos for pair in photo_signals(photo, teacher)] + list(map_signals(teacher))
    for name, signal in signals:
        decoded, true = loaded.tokenizer.decode(loaded.tokenizer.encode(signal)) / 2 + 0.5, signal / 2 + 0.5
        pair = psnr(decoded[:, :, :1], true[:, :, :1]), psnr(decoded[:, :, 1:], true[:, :, 1:])
        found.setdefault(name, []).append(pair)
    rows = []
    for name, pairs in found.items():
        first, later = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
        rows.append({"signal": name, "first frame": first, "later frames": later})
    print_rows(rows, json)


if __name__ == "__main__":
    tyro.cli(round_trip)
