"""A clip: what the teacher imagined along one path, kept as latents and cameras."""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lyra.files.tensors import load_notes, load_tensors, save_tensors
from lyra.geometry.cameras import Cameras

MADE_OF = "made_of"
"""Name of the note that holds the digest."""


@dataclass(frozen=True)
class Clip:
    """Normalized latents of a video and the camera of each of its frames."""

    latents: Float[Tensor, "channel latent_time latent_height latent_width"]
    """In the teacher's normalized space (standard deviation 0.5), which is how published data sets store them."""
    cameras: Cameras
    """One view a frame, at the video's size in pixels."""


def save_clip(clip: Clip, path: Path, made_of: str = "") -> None:
    """Writes a clip to one safetensors file, in float32, with a digest of the run that made it where there is one."""
    tensors = {
        "latents": clip.latents.float(),
        "camera_to_world": clip.cameras.camera_to_world,
        "intrinsics": clip.cameras.intrinsics,
        "size": torch.tensor([clip.cameras.height, clip.cameras.width]),
    }
    save_tensors(tensors, path, {MADE_OF: made_of} if made_of else None)


def clip_is_of(path: Path, made_of: str) -> bool:
    """Whether a clip on disk was made by the run with this digest; one that carries none, of before, is believed.

    Raises:
        LyraError: the file is missing or damaged.
    """
    return load_notes(path).get(MADE_OF, made_of) == made_of


def load_clip(path: Path) -> Clip:
    """Reads what ``save_clip`` wrote.

    Raises:
        LyraError: the file is missing or damaged.
    """
    tensors = load_tensors(path)
    height, width = tensors["size"].tolist()
    cameras = Cameras(tensors["camera_to_world"], tensors["intrinsics"], height, width)
    return Clip(tensors["latents"], cameras)
