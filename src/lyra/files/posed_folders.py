"""Captures on disk: folders of pictures whose cameras are known, in the layouts that data sets come in.

Each layout is one reader. What a reader finds goes through the same door as a user's photos: cameras are checked
against their pictures, lenses straightened, pictures turned upright and cropped.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lyra.errors import LyraError
from lyra.files.camera_frames import Frame, SeenCamera, fit, see
from lyra.files.colmap import is_model, read_model
from lyra.files.depth_maps import load_depth_map
from lyra.files.depth_sequences import is_7_scenes, is_tum, read_7_scenes, read_tum
from lyra.files.foreign_cameras import read_real_estate
from lyra.files.photos import Photo, load_photo
from lyra.files.picture_files import picture_shape
from lyra.files.transforms import PICTURE_SUFFIXES, find_picture, read_transforms
from lyra.geometry.cameras import Cameras

Layout = Literal["nerfstudio", "colmap", "realestate10k", "7-scenes", "tum"]

_MODELS = ("", "sparse/0", "sparse", "colmap/sparse/0", "dense/sparse")
"""Where COLMAP's model may lie in a capture."""
_PICTURES = ("images", "dense/images", "input", "color", "rgb", "")
"""Where its pictures may lie."""
_SMALLER = (2, 4, 8)
"""Of data sets that come smaller than their cameras say: ``images_4`` in place of ``images``."""
_NERFSTUDIO_METRES = 1e-3
"""Of one level of nerfstudio's depth, where the file says nothing else."""


@dataclass(frozen=True)
class Capture:
    """A folder of pictures with cameras, none of them opened yet."""

    folder: Path
    layout: Layout
    frames: tuple[Frame, ...]
    """In the order of the film, or of the file; each names its picture."""
    depths: Mapping[int, Path] = field(default_factory=dict)
    """Files of measured depth by number of the frame."""
    metres: float = _NERFSTUDIO_METRES
    """Of one level of the depth."""

    @property
    def name(self) -> str:
        """Of the folder."""
        return self.folder.resolve().name

    def __len__(self) -> int:
        return len(self.frames)

    def camera(self, index: int) -> tuple[Path, SeenCamera]:
        """A frame's picture, and its camera checked against it.

        Raises:
            LyraError: the picture is missing, or the camera impossible or another picture's.
        """
        frame = self.frames[index]
        picture = frame.picture
        assert picture is not None
        if not picture.is_file():
            raise LyraError(f"{self.folder}: {frame.name} has no picture ({picture}): restore the missing file")
        shape = picture_shape(picture)
        if self.layout == "realestate10k":
            frame = _of_size(frame, *shape.shown)
        seen = see(self.folder, frame, shape)
        try:
            seen.shown_lens()
        except LyraError as problem:
            raise LyraError(f"{self.folder}: {frame.name} {problem}") from None
        return picture, seen


@dataclass(frozen=True)
class CapturedViews:
    """Some frames of a capture at one shape."""

    photos: tuple[Photo, ...]
    cameras: Cameras
    """In the frame of the first, which is the identity; in the capture's unit."""
    depth: Float[Tensor, "view height width"] | None
    """Z-depth in the capture's unit, 0 where unknown; None unless every frame has some."""

    @property
    def images(self) -> Float[Tensor, "view 3 height width"]:
        """In [0, 1]."""
        return torch.stack([photo.image for photo in self.photos])


def open_capture(folder: Path) -> Capture:
    """Finds out what a folder holds.

    Raises:
        LyraError: it is in none of the layouts, or damaged.
    """
    folder = Path(folder)
    if not folder.exists():
        raise LyraError(f"{folder} does not exist: give the folder of a capture")
    for is_so, read in _LAYOUTS:
        if is_so(folder):
            capture = read(folder)
            if len(capture) < 2:
                raise LyraError(f"{folder} holds {len(capture)} posed pictures: at least 2 are needed")
            return capture
    raise LyraError(
        f"{folder} is no capture that is known: give one with transforms.json (nerfstudio), a COLMAP model, "
        "RealEstate10K's text, frame-000000.pose.txt (7-Scenes) or groundtruth.txt (TUM)"
    )


def find_captures(folder: Path) -> list[Capture]:
    """The capture that a folder is, or all that lie in it, in the order of their names.

    Raises:
        LyraError: there is none, or one is damaged.
    """
    folder = Path(folder)
    if any(is_so(folder) for is_so, _ in _LAYOUTS) or not folder.is_dir():
        return [open_capture(folder)]
    inside = sorted(path for path in folder.iterdir() if path.is_dir() or path.suffix == ".txt")
    found = [open_capture(path) for path in inside if any(is_so(path) for is_so, _ in _LAYOUTS)]
    return found or [open_capture(folder)]


def load_views(capture: Capture, indices: Sequence[int], height: int, width: int) -> CapturedViews:
    """Reads some frames at ``height`` x ``width`` pixels.

    Raises:
        LyraError: a picture or a depth map is missing or damaged, or a camera is another picture's.
    """
    seen = [capture.camera(index) for index in indices]
    photos = tuple(load_photo(picture, height, width, camera) for picture, camera in seen)
    first = np.linalg.inv(seen[0][1].pose)
    # In float64 until the first camera is the origin: data sets lie anywhere in the world.
    poses = torch.from_numpy(np.stack([first @ camera.pose for _, camera in seen])).float()
    poses[0] = torch.eye(4)
    lenses = torch.from_numpy(np.stack([fit(camera.shown_lens(), height, width) for _, camera in seen])).float()
    straight = all(camera.lens.distortion.straight for _, camera in seen)
    depth = None
    if straight and all(index in capture.depths for index in indices):
        depth = torch.stack([load_depth_map(capture.depths[index], capture.metres, height, width) for index in indices])
    return CapturedViews(photos, Cameras(poses, lenses, height, width), depth)


def _is_nerfstudio(folder: Path) -> bool:
    return (folder / "transforms.json").is_file() or (folder.suffix == ".json" and folder.is_file())


def _read_nerfstudio(folder: Path) -> Capture:
    path = folder / "transforms.json" if folder.is_dir() else folder
    root = path.parent
    try:
        content = json.loads(path.read_bytes())
        entries = content["frames"]
    except (OSError, ValueError, RecursionError, KeyError, TypeError):
        raise LyraError(f"{path} is no transforms.json: make or download it again") from None
    frames = read_transforms(path, content)
    depths = {}
    for index, entry in enumerate(entries):
        if frames[index].picture is None:
            raise LyraError(f"{path}: frame {index} names no picture (file_path)")
        if isinstance(entry.get("depth_file_path"), str):
            depths[index] = find_picture(root, entry["depth_file_path"])
    unit = content.get("depth_unit_scale_factor", _NERFSTUDIO_METRES)
    metres = float(unit) if isinstance(unit, int | float) else _NERFSTUDIO_METRES
    found = tuple(replace(frame, picture=_or_smaller(root, frame.picture)) for frame in frames)
    return Capture(root, "nerfstudio", found, depths, metres)


def _or_smaller(root: Path, picture: Path | None) -> Path | None:
    """The picture, or where it is missing the same in a folder of smaller ones."""
    if picture is None or picture.is_file() or root not in picture.parents:
        return picture
    first, *rest = picture.relative_to(root).parts
    smaller = [root.joinpath(f"{first}_{times}", *rest) for times in _SMALLER]
    return next((path for path in smaller if path.is_file()), picture)


def _find_model(folder: Path) -> Path | None:
    return next((folder / name for name in _MODELS if is_model(folder / name)), None)


def _read_colmap(folder: Path) -> Capture:
    model = _find_model(folder)
    assert model is not None
    root = folder if folder.is_dir() else folder.parent
    frames = read_model(model)
    places = [root / name for name in _PICTURES] + [root / f"images_{times}" for times in _SMALLER]

    def picture(frame: Frame) -> Path:
        name = frame.name.removeprefix("picture ")
        return next((place / name for place in places if (place / name).is_file()), places[0] / name)

    return Capture(root, "colmap", tuple(replace(frame, picture=picture(frame)) for frame in frames))


def _find_text(folder: Path) -> Path | None:
    """RealEstate10K's text: the file itself, or the only one in a folder; its first line is an address."""
    texts = [folder] if folder.is_file() and folder.suffix == ".txt" else []
    if folder.is_dir():
        texts = sorted(folder.glob("*.txt"))
    if len(texts) != 1:
        return None
    with texts[0].open(encoding="utf-8", errors="replace") as file:
        return texts[0] if file.readline().startswith(("http", "url", "#http")) else None


def _read_real_estate(folder: Path) -> Capture:
    text = _find_text(folder)
    assert text is not None
    places = [text.with_suffix(""), *(text.parent / name for name in ("frames", "images", text.stem)), text.parent]

    def picture(time: str) -> Path:
        names = [time + suffix for suffix in PICTURE_SUFFIXES]
        there = (place / name for place in places for name in names if (place / name).is_file())
        return next(there, places[0] / names[0])

    times = [line.split()[0] for line in text.read_text(encoding="utf-8", errors="replace").splitlines()[1:] if line]
    frames = read_real_estate(text)
    pairs = zip(frames, times, strict=True)
    # The text says the picture's proportions, not its size.
    found = tuple(replace(frame, name=f"frame {time}", picture=picture(time)) for frame, time in pairs)
    return Capture(text.with_suffix("") if folder.is_file() else folder, "realestate10k", found)


def _of_size(frame: Frame, width: int, height: int) -> Frame:
    """That text's lenses are in widths and heights of the picture, whatever those are."""
    factors = np.array([width / frame.width, height / frame.height] * 2)
    return replace(frame, width=width, height=height, intrinsics=np.array(frame.intrinsics) * factors)


def _read_7_scenes(folder: Path) -> Capture:
    frames, depths = read_7_scenes(folder)
    return Capture(folder, "7-scenes", frames, depths, 1e-3)


def _read_tum(folder: Path) -> Capture:
    frames, depths = read_tum(folder)
    return Capture(folder, "tum", frames, depths, 1 / 5000)


_LAYOUTS: tuple[tuple[Callable[[Path], bool], Callable[[Path], Capture]], ...] = (
    (_is_nerfstudio, _read_nerfstudio),
    (is_7_scenes, _read_7_scenes),
    (is_tum, _read_tum),
    (lambda folder: _find_model(folder) is not None, _read_colmap),
    (lambda folder: _find_text(folder) is not None, _read_real_estate),
)
