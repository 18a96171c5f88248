"""What is known of an input: pictures, depth, cameras and, where things move, what stays.

A still photo is a video of one moment; several posed photos are pictures of one moment; a video has one picture a
moment.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from lyra.cache.warp import DepthCache, EdgeFilter, MovingCache, WarpSettings, build_cache
from lyra.errors import LyraError
from lyra.files import load_tensors, save_tensors
from lyra.geometry.cameras import Cameras, concatenate_cameras


@dataclass(frozen=True)
class Motion:
    """What moves in a video, and what does not."""

    moving: Bool[Tensor, "time height width"]
    """Where a picture differs from the backdrop; everywhere if the camera moves."""
    still: Bool[Tensor, "height width"]
    """Pixels that never change in the whole video."""
    backdrop: Float[Tensor, "3 height width"]
    """What each pixel shows most of the time, in [0, 1]."""
    backdrop_depth: Float[Tensor, "height width"]
    """Its z-depth."""
    seconds: float
    """From the first picture to the last."""


@dataclass(frozen=True)
class Views:
    """What is known of a scene."""

    images: Float[Tensor, "view 3 height width"]
    """In [0, 1]; the input view first. Of a video one a moment."""
    depth: Float[Tensor, "view height width"]
    """Z-depth in scene units; the first picture's median is 1."""
    cameras: Cameras
    """One a picture, the first the identity."""
    motion: Motion | None = None
    """Of a video; None where all pictures show one moment."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def is_still(self) -> bool:
        """Whether all pictures are of one camera that does not move."""
        return bool((self.cameras.camera_to_world == self.cameras.camera_to_world[:1]).all())

    def moves(self) -> Motion:
        """What moves.

        Raises:
            LyraError: these are views of a still scene.
        """
        if self.motion is None:
            raise LyraError("these are views of a still scene, not of a video: generate the scene anew")
        return self.motion

    def part(self, first: int, count: int) -> "Views":
        """Some successive pictures of a video, with the whole video's backdrop."""
        motion, picked = self.moves(), slice(first, first + count)
        share = (count - 1) / max(1, len(self) - 1)
        moved = replace(motion, moving=motion.moving[picked], seconds=motion.seconds * share)
        return Views(self.images[picked], self.depth[picked], self.cameras[picked], moved)

    def reversed(self) -> "Views":
        """The same video run backward; its first camera is then the last."""
        motion, order = self.moves(), list(range(len(self)))[::-1]
        moved = replace(motion, moving=motion.moving.flip(0))
        return Views(self.images.flip(0), self.depth.flip(0), self.cameras[order], moved)

    def cache(self, edges: EdgeFilter | None, warp: WarpSettings | None = None) -> DepthCache | MovingCache:
        """The colored points that clips are conditioned on: of a video each moment's own and the backdrop's."""
        images = self.images * 2 - 1
        if self.motion is None:
            return build_cache(images, self.depth, self.cameras, edges, warp)
        motion = self.motion
        each = (slice(index, index + 1) for index in range(len(self)))
        moments = tuple(build_cache(images[at], self.depth[at], self.cameras[at], edges, warp) for at in each)
        if not self.is_still:
            return MovingCache(moments)
        backdrop, depth = motion.backdrop[None] * 2 - 1, motion.backdrop_depth[None]
        behind = build_cache(backdrop, depth, self.cameras[:1], edges, warp)
        # What moves for most of a chunk has no backdrop in it.
        seen = motion.moving.float().mean(0) < 0.5
        return MovingCache(moments, replace(behind, reliable=behind.reliable & seen))

    def tensors(self) -> dict[str, Shaped[Tensor, "..."]]:
        """What is written of it; the first picture under the same names in every file."""
        first = {"image": self.images[0], "depth": self.depth[0], "intrinsics": self.cameras.intrinsics[0]}
        pictures = {
            "images": self.images,
            "depth": self.depth,
            "camera_to_world": self.cameras.camera_to_world,
            "intrinsics": self.cameras.intrinsics,
        }
        if self.motion is None:
            further = {f"further.{name}": tensor[1:] for name, tensor in pictures.items()}
            return first | (further if len(self) > 1 else {})
        motion = self.motion
        moving = {
            "moving": motion.moving,
            "still": motion.still,
            "backdrop": motion.backdrop,
            "backdrop_depth": motion.backdrop_depth,
            "seconds": torch.tensor(motion.seconds, dtype=torch.float64),
        }
        return first | {f"video.{name}": tensor for name, tensor in (pictures | moving).items()}

    def save(self, path: Path) -> None:
        """Writes one safetensors file."""
        save_tensors(self.tensors(), path)

    @classmethod
    def load(cls, path: Path) -> "Views":
        """Reads what ``save`` wrote.

        Raises:
            LyraError: the file is missing or damaged.
        """
        tensors = load_tensors(path)
        try:
            return cls.from_tensors(tensors)
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise LyraError(f"{path} is damaged ({error!r}): generate the scene anew") from error

    @classmethod
    def from_tensors(cls, tensors: dict[str, Shaped[Tensor, "..."]]) -> "Views":
        """Of what ``tensors`` gave."""
        video = {name.removeprefix("video."): tensor for name, tensor in tensors.items() if name.startswith("video.")}
        if video:
            images, depth = video.pop("images"), video.pop("depth")
            cameras = Cameras(video.pop("camera_to_world"), video.pop("intrinsics"), *images.shape[2:])
            return cls(images, depth, cameras, Motion(seconds=float(video.pop("seconds")), **video))
        image, depth = tensors["image"][None], tensors["depth"][None]
        camera = Cameras(torch.eye(4)[None], tensors["intrinsics"][None], *image.shape[2:])
        if "further.images" not in tensors:
            return cls(image, depth, camera)
        further = replace(
            camera, camera_to_world=tensors["further.camera_to_world"], intrinsics=tensors["further.intrinsics"]
        )
        return cls(
            torch.cat([image, tensors["further.images"]]),
            torch.cat([depth, tensors["further.depth"]]),
            concatenate_cameras([camera, further]),
        )
