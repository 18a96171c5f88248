"""What the teacher films: paths cut into clips, clips in batches, and the shelf that finished clips lie on."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lyra.engine.paths import CameraPath, resample_cameras, split_path
from lyra.errors import LyraError
from lyra.files import save_cameras, save_video
from lyra.files.clips import Clip, load_clip, save_clip
from lyra.geometry.cameras import Cameras
from lyra.views.views import Views

INPUT = "input"
"""Name of the clip that is a video itself."""
MOST_PICTURES = 12
"""Further photos of a still scene that a clip begins with; of more, those whose cameras differ most."""


@dataclass(frozen=True)
class Chunk:
    """A stretch of the input, one clip long, and all paths through it; of a still scene there is one."""

    views: Views
    source: str | None
    """Name of the clip that is the input video itself."""
    shots: tuple[dict[str, Cameras], ...]
    """One a path: its clips by name, in order; more than one where the path is longer than a clip."""

    @property
    def names(self) -> list[str]:
        """Of all clips, in the order in which the student is given them."""
        return [*([self.source] if self.source else []), *(name for shot in self.shots for name in shot)]


def plan_chunks(views: Views, paths: Sequence[CameraPath], frames: int) -> list[Chunk]:
    """Everything that is filmed of an input.

    Paths start at the input camera; where that moves they go on with it. Of several photos each further one begins a
    clip of its own, to the nearest photo that is filmed before it.

    Args:
        views: Of photos, or of a video of 1 + n (frames - 1) pictures.
        paths: From the input camera; of photos as long as whole clips, of a video one clip long.
        frames: Of one clip.

    Raises:
        LyraError: two clips have one name, or a video's path is longer than a clip.
    """
    lens = views.cameras.intrinsics[0]
    if views.motion is None:
        shots = (*(split_path(path, lens, frames) for path in paths), *walk_between(views.cameras, frames))
        chunks = [Chunk(views, None, shots)]
    else:
        check_lengths(paths, lens, frames)
        starts = range(0, len(views) - 1, frames - 1)
        chunks = []
        for number, start in enumerate(starts):
            part = views.part(start, frames)
            end = f".{number}" if len(starts) > 1 else ""
            cameras = part.cameras
            shots = ({path.name + end: follow(cameras, path.through(cameras.intrinsics[0]))} for path in paths)
            chunks.append(Chunk(part, INPUT + end, tuple(shots)))
    check_names([name for chunk in chunks for name in chunk.names])
    return chunks


def walk_between(cameras: Cameras, frames: int) -> list[dict[str, Cameras]]:
    """Clips that begin with the further photos of a still scene, each going to the nearest photo before it.

    Before it is what was reached earlier from the first photo, so that all of them hang together.

    Args:
        cameras: Of the photos.
        frames: Of a clip.
    """
    apart = _distances(cameras)
    picked = [0, *_most_different(apart)]
    reached, shots = [0], []
    while len(reached) < len(picked):
        ways = [(float(apart[a, b]), b, a) for a in reached for b in picked if b not in reached]
        _, picture, goal = min(ways)
        reached.append(picture)
        shots.append({f"photo_{picture + 1:02d}": resample_cameras(cameras[[picture, goal]], frames)})
    return sorted(shots, key=lambda shot: next(iter(shot)))


def _distances(cameras: Cameras) -> Float[Tensor, "view view"]:
    """How far cameras are apart: scene units and, of their turns, radians together."""
    poses = cameras.camera_to_world.double()
    places = torch.cdist(poses[:, :3, 3], poses[:, :3, 3])
    traces = torch.einsum("aij,bij->ab", poses[:, :3, :3], poses[:, :3, :3])
    return places + ((traces - 1) / 2).clamp(-1, 1).acos()


def _most_different(apart: Float[Tensor, "view view"]) -> list[int]:
    """All but the first or, of many, one after another the one that is farthest from those before it."""
    picked = [0]
    while len(picked) < min(len(apart), MOST_PICTURES + 1):
        gap = apart[:, picked].amin(1)
        gap[picked] = -1
        picked.append(int(gap.argmax()))
    return sorted(picked[1:])


def check_names(names: Sequence[str]) -> None:
    """Every clip has a folder of its own.

    Raises:
        LyraError: two clips have one name.
    """
    if len(set(names)) < len(names):
        raise LyraError(f"two clips have one name among {', '.join(names)}: rename a camera file")


def check_lengths(paths: Sequence[CameraPath], lens: Float[Tensor, "4"], length: int) -> None:
    """A video's paths are of its chunks' length.

    Raises:
        LyraError: one is longer or shorter.
    """
    for path in paths:
        if len(path.through(lens)) != length:
            raise LyraError(f"a video takes camera paths of {length} frames: shorten {path.name!r}")


def follow(source: Cameras, path: Cameras) -> Cameras:
    """A path that begins at the input camera, carried along with it."""
    return replace(path, camera_to_world=source.camera_to_world @ path.camera_to_world)


def batch_shots(shots: Sequence[dict[str, Cameras]], batch: int) -> list[list[dict[str, Cameras]]]:
    """Shots that are imagined together: single clips by the batch, in order; a long path alone."""
    groups: list[list[dict[str, Cameras]]] = []
    for shot in shots:
        last = groups[-1] if groups else None
        if len(shot) == 1 and last is not None and len(last[0]) == 1 and len(last) < batch:
            last.append(shot)
        else:
            groups.append([shot])
    return groups


@dataclass
class Shelf:
    """Finished clips by name: in memory, or in a folder, where they outlast the process."""

    folder: Path | None = None
    """Holds one folder a clip: ``clip.safetensors``, ``cameras.json`` and ``video.mp4``."""
    fps: float = 24.0
    """Of the videos."""
    made_of: str = ""
    """Digest of the run, which its clips on disk carry."""
    clips: dict[str, Clip] = field(default_factory=dict)
    """Those that are kept in memory."""

    def __contains__(self, name: str) -> bool:
        return name in self.clips or (self.folder is not None and self._path(name).exists())

    def __getitem__(self, name: str) -> Clip:
        return self.clips[name] if name in self.clips else load_clip(self._path(name))

    def put(self, name: str, clip: Clip, frames: Float[Tensor, "time 3 height width"]) -> None:
        """Keeps a clip; ``clip.safetensors`` is written last: where it exists the clip is whole.

        Args:
            name: Of the clip.
            clip: Latents and cameras.
            frames: Its pictures in [0, 1].

        Raises:
            LyraError: a disk is full.
        """
        if self.folder is None:
            self.clips[name] = clip
            return
        save_video(_each(frames), self.folder / name / "video.mp4", fps=self.fps)
        save_cameras(clip.cameras, self.folder / name / "cameras.json")
        save_clip(clip, self._path(name), self.made_of)

    def _path(self, name: str) -> Path:
        assert self.folder is not None
        return self.folder / name / "clip.safetensors"


def _each(frames: Float[Tensor, "time 3 height width"]) -> Iterator[Tensor]:
    return iter(torch.unbind(frames))
