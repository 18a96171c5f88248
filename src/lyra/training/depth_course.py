"""The depth network's course through maps, rooms, worlds and photographs: data once, then training in legs."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from lyra.depth import DepthNet
from lyra.errors import LyraError
from lyra.files import save_tensors
from lyra.geometry.sky import MAX_DEPTH
from lyra.training.depth import render_frame, view_fov
from lyra.training.depth_lessons import LessonConfig, Pool, lesson_loss
from lyra.training.depth_pictures import encode_depth, load_pictures
from lyra.training.loop import LoopConfig, fit

SHARES = {"maps": 1.0, "rooms": 2.0, "worlds": 0.5, "photographs": 0.2}
"""Of the pictures in a step."""
FROZEN_STAGES = 2
"""Of the encoder: the first filters stay ImageNet's, which saw photographs; what is above them learns."""
COURSE_LOOP = LoopConfig(learning_rate=4e-4, warmup=50, cooldown=300, ema=0.995, checkpoint_every=50)
PHOTOGRAPH_SIDE = 288
WINDOWS = 4
"""Cut out of each photograph."""


@dataclass(frozen=True)
class Course:
    """Where the pictures lie: a folder with maps, rooms, worlds and photographs, each with ``training`` in it."""

    folder: Path

    def pools(self) -> list[Pool]:
        """The pools that there are.

        Raises:
            LyraError: there is no picture with exact depth.
        """
        found = []
        for name, share in SHARES.items():
            paths = sorted((self.folder / name / "training").glob("*.safetensors"))
            pictures = load_pictures(paths) if paths else None
            if pictures is not None and len(pictures):
                found.append(Pool(pictures, share, weak=name == "photographs"))
        if all(pool.weak for pool in found):
            raise LyraError(f"no pictures in {self.folder}: render maps or rooms first")
        return found


def render_worlds(folder: Path, seeds: range, size: int) -> None:
    """Views of the procedural worlds, a file each; what is there stays."""
    for seed in tqdm(seeds, desc="worlds", mininterval=10):
        path = folder / "training" / f"{seed:07d}.safetensors"
        if not path.exists():
            image, depth = render_frame(seed, size)
            focal = size / 2 / np.tan(np.radians(view_fov(seed)) / 2)
            save_tensors(
                {
                    "image": image[None].contiguous(),
                    "depth": encode_depth(torch.where(depth < 0.99 * MAX_DEPTH, depth, torch.inf))[None],
                    "focal": torch.tensor([focal], dtype=torch.float32),
                },
                path,
            )


def label_photographs(pictures: Path, teacher: Callable[[Tensor], Tensor], folder: Path, seed: int = 0) -> int:
    """Windows of a folder's photographs with the weak teacher's depth, averaged over mirroring; returns how many.

    Args:
        pictures: JPEG and PNG files, in folders of folders.
        teacher: Depth of images [batch 3 height width] in [0, 1], as ``FastDepth``.
        folder: Where the labels go.
        seed: Of the windows.
    """
    count = 0
    for path in tqdm(list(_photographs(pictures)), desc="photographs", mininterval=10):
        windows = _windows(path, np.random.default_rng([seed, count]))
        depth = (teacher(windows) + teacher(windows.flip(-1)).flip(-1)) / 2
        tensors = {
            "image": (windows * 255).round().to(torch.uint8),
            "depth": encode_depth(depth),
            "focal": torch.zeros(len(windows)),
        }
        save_tensors(tensors, folder / "training" / f"{count:06d}.safetensors")
        count += 1
    return count


def _photographs(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in (".jpg", ".jpeg", ".png"):
            yield path


def _windows(path: Path, random: np.random.Generator) -> Tensor:
    """Squares out of a photograph, from its whole shorter side down to 0.7 of it."""
    with Image.open(path) as file:
        file.thumbnail((1200, 1200))
        image = torch.from_numpy(np.array(file.convert("RGB"))).movedim(-1, 0).float() / 255
    height, width = image.shape[1:]
    found = []
    for _ in range(WINDOWS):
        side = round(min(height, width) * random.uniform(0.7, 1))
        top, left = int(random.integers(height - side + 1)), int(random.integers(width - side + 1))
        window = image[None, :, top : top + side, left : left + side]
        size = (PHOTOGRAPH_SIDE, PHOTOGRAPH_SIDE)
        found.append(F.interpolate(window, size=size, mode="bilinear", antialias=True, align_corners=False)[0])
    return torch.stack(found).clamp(0, 1)


def teach(
    network: DepthNet, course: Course, run: Path, loop: LoopConfig = COURSE_LOOP, lessons: LessonConfig | None = None
) -> None:
    """Trains a network in place, and goes on where the run's folder stopped; leaves it with its averaged weights."""
    lessons = lessons or LessonConfig()
    pools = course.pools()
    network.requires_grad_(True)
    network.encoder.stem.requires_grad_(False)
    network.encoder.stages[:FROZEN_STAGES].requires_grad_(False)
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    fit(network, lambda step: lesson_loss(network, pools, lessons, step), run, loop)
