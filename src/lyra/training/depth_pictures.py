"""Pictures with exact depth that the depth network learns from: rendered once, kept in files, read into memory.

A file holds ``image`` [n 3 h w] (bytes), ``depth`` [n h w] (16-bit steps of log depth, see ``encode_depth``) and
``focal`` [n] (pixels; the principal point is the middle).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int16, UInt8
from torch import Tensor
from tqdm import tqdm

from lyra.files import load_tensors, save_tensors
from lyra.worlds.furnished import Furnisher
from lyra.worlds.map_views import View, map_views
from lyra.worlds.maps import MapArchive, held_out
from lyra.worlds.room_views import room_views

NEAREST, FARTHEST = 0.02, 1000.0
"""Metres; what is farther is sky."""
SKY = 32767
"""The code of no surface."""
_LOG_NEAREST, _LOG_RANGE = float(np.log(NEAREST)), float(np.log(FARTHEST / NEAREST))
TRIANGLES_PER_VIEW, MOST_VIEWS = 200, 20
"""Larger maps give more views."""


def encode_depth(depth: Float[Tensor, "*frame height width"]) -> Int16[Tensor, "*frame height width"]:
    """Log depth in 65,000 steps of 0.017 %; what is not finite or beyond ``FARTHEST`` is ``SKY``."""
    code = ((depth.clamp(min=NEAREST).double().log() - _LOG_NEAREST) / _LOG_RANGE * 65000 - 32500).round()
    return torch.where(depth < FARTHEST, code, torch.full_like(code, SKY)).to(torch.int16)


def decode_depth(code: Int16[Tensor, "*frame height width"]) -> Float[Tensor, "*frame height width"]:
    """Metres; infinite where there is no surface."""
    depth = ((code.float() + 32500) / 65000 * _LOG_RANGE + _LOG_NEAREST).exp()
    return torch.where(code == SKY, torch.inf, depth)


@dataclass(frozen=True)
class DepthPictures:
    """Pictures of one size in memory."""

    images: UInt8[Tensor, "frame 3 height width"]
    depth: Int16[Tensor, "frame height width"]
    """See ``encode_depth``."""
    focal: Float[Tensor, "frame"]
    """Pixels; 0 where unknown."""

    def __len__(self) -> int:
        return len(self.images)


def save_views(views: Iterable[View], path: Path) -> int:
    """Writes views into one file (an empty one where there is none); returns how many."""
    views = list(views)
    side = views[0].depth.shape if views else (1, 1)
    images = np.stack([view.image for view in views]) if views else np.zeros((0, *side, 3), np.uint8)
    depth = np.stack([view.depth for view in views]) if views else np.zeros((0, *side), np.float32)
    save_tensors(
        {
            "image": torch.from_numpy(images).movedim(-1, 1).contiguous(),
            "depth": encode_depth(torch.from_numpy(depth.astype(np.float32))),
            "focal": torch.tensor([view.focal for view in views], dtype=torch.float32),
        },
        path,
    )
    return len(views)


def load_pictures(paths: Sequence[Path]) -> DepthPictures:
    """All pictures of some files, which must be of one size."""
    parts: dict[str, list[Tensor]] = {"image": [], "depth": [], "focal": []}
    for path in paths:
        tensors = load_tensors(path)
        if len(tensors["focal"]):
            for key, values in parts.items():
                values.append(tensors[key])
    return DepthPictures(*(torch.cat(parts[key]) for key in ("image", "depth", "focal")))


def render_maps(archive: MapArchive, folder: Path, seed: int = 0, only: Callable[[str], bool] | None = None) -> None:
    """Views of every map into one file each, held-out maps into a folder of their own; what is there stays."""
    names = [name for name in archive.names if only is None or only(name)]
    # In a mixed order, so that what an interrupted run leaves is of all kinds.
    order = np.random.default_rng(seed).permutation(len(names))
    for index in tqdm(order, desc="maps", mininterval=10):
        name = names[index]
        part = "held_out" if held_out(name) else "training"
        path = folder / part / f"{name.removeprefix('maps/').removesuffix('.bsp').replace('/', '_')}.safetensors"
        if path.exists():
            continue
        mesh, spawns = archive.load(name, daylight=bool((index + seed) % 4))
        count = int(np.clip(len(mesh) // TRIANGLES_PER_VIEW, 1, MOST_VIEWS))
        save_views(map_views(mesh, spawns, count, seed * 10_000 + int(index)), path)


FIRST_HELD_OUT_ROOM = 900_000
"""Seeds of rooms from here on are for measuring."""
VIEWS_PER_ROOM = 9


def render_rooms(furnisher: Furnisher, folder: Path, seeds: Sequence[int]) -> None:
    """Views of furnished rooms, one file a room; what is there stays."""
    for seed in tqdm(seeds, desc="rooms", mininterval=10):
        part = "held_out" if seed >= FIRST_HELD_OUT_ROOM else "training"
        path = folder / part / f"{seed:06d}.safetensors"
        if not path.exists():
            save_views(room_views(furnisher, seed, VIEWS_PER_ROOM), path)
