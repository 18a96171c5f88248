"""Self-distillation: the teacher imagines clips of single photos and of videos.

Nothing but the input enters: depth is predicted, and no other view of the scene is ever seen. A video enters forward
and backward. Turned forward again, the clips of the second kind are far from the input camera while time is early: the
paper's augmentation. Their poses are turned as well, which its published code forgets.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Shaped
from torch import Tensor

from lyra.engine.engine import Engine
from lyra.engine.paths import preset_path
from lyra.engine.shots import Shelf
from lyra.files.clips import Clip, save_clip
from lyra.geometry.trajectories import TRAJECTORY_NAMES, TrajectoryName, draw_distance
from lyra.views.views import Views


@dataclass(frozen=True)
class SyntheticScene:
    """One input and the clips that the teacher imagined around it."""

    views: Views
    clips: tuple[Clip, ...]
    """One a trajectory; of a video its own clip before them."""
    backward: tuple[Clip, ...] = ()
    """Of a video: one a trajectory, of the video run backward, as imagined: their first frame is the video's last."""
    depth: tuple[Float[Tensor, "time height width"], ...] = ()
    """Of each of ``clips``: z-depth in scene units, consistent over the clip and with its cameras; sky is at
    ``MAX_DEPTH``. On every so many-th pixel of the frames where those are large. Empty where there is none."""
    backward_depth: tuple[Float[Tensor, "time height width"], ...] = ()
    """The same of ``backward``."""


class ClipShelf(Shelf):
    """Finished clips in a folder, without films of them."""

    def put(self, name: str, clip: Clip, frames: Float[Tensor, "time 3 height width"]) -> None:
        """Keeps a clip.

        Raises:
            LyraError: a disk is full.
        """
        save_clip(clip, self._path(name), self.made_of)


def imagine_scene(
    engine: Engine,
    views: Views,
    seed: int,
    names: tuple[TrajectoryName, ...] = TRAJECTORY_NAMES,
    movement: float = 1.0,
    folder: Path | None = None,
) -> SyntheticScene:
    """The clips of one photo or video, without their depth.

    Args:
        engine: Whose teacher.
        views: Of the input.
        seed: Of noise and of the trajectories' distances.
        names: Trajectories.
        movement: Factor on their distances.
        folder: Of the clips that are finished, so that an interrupted scene goes on with the next; in memory when None.
    """
    frames, (height, width) = engine.config.frames, views.images.shape[2:]
    paths = [preset_path(name, draw_distance(name, seed, movement), frames, height, width) for name in names]

    def shelf(name: str) -> Shelf | None:
        return None if folder is None else ClipShelf(folder / name, engine.config.fps)

    [clips] = engine.imagine(views, paths, seed, shelf("forward"), quiet=True)
    if views.motion is None:
        return SyntheticScene(views, tuple(clips))
    [[_, *backward]] = engine.imagine(views.reversed(), paths, seed + 1, shelf("backward"), quiet=True)
    return SyntheticScene(views, tuple(clips), tuple(backward))


def pack_views(views: Views) -> dict[str, Shaped[Tensor, "..."]]:
    """An input as it is stored: pictures in 8 bits, depth in 16."""
    tensors = views.tensors()
    for name, tensor in tensors.items():
        last = name.rpartition(".")[2]
        if last in ("image", "images", "backdrop"):
            tensors[name] = (tensor * 255).round().to(torch.uint8)
        elif last in ("depth", "backdrop_depth"):
            tensors[name] = tensor.half()
    return tensors


def unpack_views(tensors: dict[str, Shaped[Tensor, "..."]]) -> Views:
    """Reads what ``pack_views`` made."""
    steps = {torch.uint8: 255.0, torch.float16: 1.0}
    wide = {name: t.float() / steps[t.dtype] if t.dtype in steps else t for name, t in tensors.items()}
    return Views.from_tensors(wide)
