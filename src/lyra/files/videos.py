"""A video that a user hands in: some of its frames, evenly spaced in time, at the model's shape.

Frames are treated as photos are: turned upright, straightened, cropped around the centre, never squashed.
"""

import bisect
import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from lyra.errors import LyraError, MissingExtraError
from lyra.files.atomic import sha256_file
from lyra.files.camera_frames import SeenCamera, Shape
from lyra.files.kinds import is_video
from lyra.files.orientation import Orientation, read_display_matrix
from lyra.files.panoramas import NOTE as PANORAMA
from lyra.files.photos import LARGEST_ASPECT, LARGEST_PIXELS, SMALLEST_SIDE, centre_crop, show_straight
from lyra.files.poses import fit_cameras, load_seen_cameras
from lyra.geometry.cameras import Cameras

__all__ = ["Video", "is_video", "load_video"]

_DAMAGED = "is damaged or no video: export or download it again"
_LEAST_WHOLE = 0.9
"""Share of the length that a file gives itself that its frames must reach."""
_BLACK = 3.0
"""Standard deviation in 8-bit levels, over all frames, below which a video shows nothing."""
_UNTAGGED, _BT709, _BT601 = 2, 1, 5
"""Matrix coefficients of ISO/IEC 23091-2: not told, and the two that untagged videos have."""
_HD_LINES = 720
_FOCAL_TAG = "focal_length.35mm_equivalent"
"""End of the name under which phones write it, in QuickTime's metadata."""
_HDR = {16: "PQ", 18: "HLG"}
"""Transfer characteristics of ISO/IEC 23091-2 that are not shown as sRGB."""


@dataclass(frozen=True)
class Video:
    """Frames at the model's shape, and what was done to them."""

    frames: Float[Tensor, "time 3 height width"]
    """Upright, display-referred sRGB in [0, 1]."""
    seconds: float
    """From the first of these frames to the last."""
    source_size: tuple[int, int]
    """Width and height of an upright source frame in pixels."""
    crop: tuple[int, int, int, int]
    """Left, top, right, bottom of the part used, in pixels of the upright source."""
    sha256: str
    """Hex digest of the file."""
    cameras: Cameras | None
    """One a frame, in any unit, relative to the first; None where nobody told them."""
    notes: tuple[str, ...]
    """What a user may want to know, one sentence each."""
    fov_degrees: float | None = None
    """Field of view of the shorter side of the part used, where the file tells the focal length."""

    @classmethod
    def of(cls, frames: Float[Tensor, "time 3 height width"], seconds: float) -> "Video":
        """Frames in [0, 1] as if they had been read from a file."""
        height, width = frames.shape[2:]
        return cls(frames, seconds, (width, height), (0, 0, width, height), "", None, ())


@dataclass(frozen=True)
class _Look:
    """What all frames of a video have in common."""

    orientation: Orientation
    pixel_shape: float
    """A pixel's width over its height."""
    shape: Shape
    """As stored, with square pixels."""


def load_video(
    path: Path, height: int, width: int, frames: int | Callable[[float], int], cameras: Path | None = None
) -> Video:
    """Reads some frames of a video, evenly spaced from its first to its last.

    Turns and mirrors of its display matrix are applied; times are the file's own, so that a variable frame rate does no
    harm; of a video with fewer frames some come twice. Cameras are read from ``cameras`` or, in ViPE's folders, from
    beside the video; they turn with the frames, and a lens that is distorted is straightened.

    Args:
        path: Any file that FFmpeg decodes.
        height: Of the model's frames in pixels.
        width: Of the model's frames in pixels.
        frames: How many, at least 2; or how many of a length in seconds.
        cameras: A camera file of any kind that ``load_cameras`` reads, with one camera a source frame.

    Raises:
        LyraError: the file is missing, damaged, holds no moving picture, or the cameras do not fit it.
    """
    path = Path(path)
    notes: list[str] = []
    with _guard(path):
        times, look = _read_times(path, notes)
    seconds = max(times[-1] - times[0], 1e-3)
    count = frames if isinstance(frames, int) else frames(seconds)
    picks = [_nearest(times, moment) for moment in np.linspace(times[0], times[-1], count)]
    if len(set(picks)) < count:
        notes.append(f"it has {len(times)} frames where the model takes {count}: some are shown twice")
    file = cameras or _vipe_cameras(path)
    seen = None if file is None else _pick_cameras(file, picks, len(times), look.shape)
    with _guard(path):
        pictures, crop = _read_frames(path, picks, height, width, look, seen)
    if pictures.std() * 255 < _BLACK:
        raise LyraError(f"{path} shows nothing but one color: give a video of a scene")
    poses = None
    if seen is not None:
        fitted = fit_cameras(seen, height, width)
        poses = fitted.relative_to(fitted.camera_to_world[0])
        if any(not camera.lens.distortion.straight for camera in seen):
            notes.append("its lens distortion was undone")
    fov = None if seen is not None else _read_fov(path, look.shape.shown, crop)
    return Video(pictures, seconds, look.shape.shown, crop, sha256_file(path), poses, tuple(notes), fov)


def _read_fov(path: Path, size: tuple[int, int], crop: tuple[int, int, int, int]) -> float | None:
    """Degrees of the shorter side of the part used, by the focal length for 35 mm film that phones write."""
    with _open(path) as container:
        told = {**container.metadata, **container.streams.video[0].metadata}
    text = next((value for key, value in told.items() if key.lower().endswith(_FOCAL_TAG)), "")
    try:
        focal = float(text)
    except ValueError:
        return None
    if not 5 <= focal <= 500:
        return None
    # Told for the diagonal of 36 x 24 mm.
    side = min(crop[2] - crop[0], crop[3] - crop[1]) / math.hypot(*size) * math.hypot(36, 24)
    return math.degrees(2 * math.atan(0.5 * side / focal))


def video_shape(path: Path) -> Shape:
    """A video's size with square pixels and how it is turned, by its first frame.

    Raises:
        LyraError: the file is missing, damaged or holds no moving picture.
    """
    path = Path(path)
    with _guard(path):
        for frame in _decode(path, count=1):
            _check_size(path, frame.width, frame.height)
            return _look_of(path, frame, []).shape
    raise LyraError(f"{path} has no frame that can be decoded: export or download it again")


@contextlib.contextmanager
def _guard(path: Path) -> Iterator[None]:
    """Ends what a decoder complains of anywhere as one line."""
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("PyAV", "video", "reading a video") from error
    try:
        yield
    except (av.FFmpegError, ValueError, MemoryError):
        raise LyraError(f"{path} {_DAMAGED}") from None


def _open(path: Path) -> Any:
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("PyAV", "video", "reading a video") from error
    try:
        if path.stat().st_size == 0:
            raise LyraError(f"{path} is empty: export or download the video again")
        # FFmpeg takes what is before a colon in a relative path for a protocol.
        container = av.open(str(path.absolute()))
    except (av.FFmpegError, ValueError):
        raise LyraError(f"{path} {_DAMAGED}") from None
    except OSError as error:
        raise LyraError(f"{path} cannot be read: {error.strerror or error}") from error
    if not container.streams.video:
        found = "has sound but no picture: give a video" if container.streams.audio else _DAMAGED
        container.close()
        raise LyraError(f"{path} {found}")
    stream = container.streams.video[0]
    if stream.codec_context is None:  # a codec that FFmpeg does not know, or a damaged name of one
        container.close()
        raise LyraError(f"{path} {_DAMAGED}")
    # Not by frames: of a damaged file different ones would be lost from one time to the next.
    stream.thread_type = "SLICE"
    return container


def _decode(
    path: Path, notes: list[str] | None = None, title: str = "reading", count: int | None = None
) -> Iterator[Any]:
    """All whole frames that can be decoded; a file that ends early gives those before its end.

    What takes longer than a second is seen to go on.
    """
    with _open(path) as container:
        import av

        stream = container.streams.video[0]
        size = (stream.codec_context.width, stream.codec_context.height)
        if size[0] * size[1] > LARGEST_PIXELS:
            raise LyraError(f"{path} is {size[0]}x{size[1]} pixels, too many: scale it down first")
        end, whole = 0.0, True
        total = count or stream.frames or round(_declared_end(container) * float(stream.average_rate or 25)) or None
        bar = tqdm(total=total, desc=title, unit="frame", delay=1.0, mininterval=0.5, leave=False)
        try:
            for frame in container.decode(stream):
                bar.update()
                if not frame.is_corrupt:
                    end = max(end, _end(frame, stream))
                    yield frame
        except (av.FFmpegError, ValueError):
            whole = False
        finally:
            bar.close()
        if notes is not None and not (whole and end >= _LEAST_WHOLE * _declared_end(container)):
            notes.append("its end is damaged or missing: only what comes before was used")


def _end(frame: Any, stream: Any) -> float:
    """Second until which a frame is shown."""
    steps = [frame.duration * frame.time_base if frame.duration else 0, 1 / (stream.average_rate or 25)]
    return (frame.time or 0.0) + float(max(steps))


def _declared_end(container: Any) -> float:
    """Second at which the file says that its picture ends; 0 where it does not say so."""
    stream = container.streams.video[0]
    if stream.duration is not None:
        return float(((stream.start_time or 0) + stream.duration) * stream.time_base)
    # A whole file's length may be its sound's.
    if container.duration is None or len(container.streams) > 1:
        return 0.0
    return ((container.start_time or 0) + container.duration) / 1e6


def _read_times(path: Path, notes: list[str]) -> tuple[list[float], _Look]:
    """Seconds of every frame, ascending, and what the first shows of them all."""
    times: list[float] = []
    look = None
    for frame in _decode(path, notes, "reading"):
        if look is None:
            _check_size(path, frame.width, frame.height)
            look = _look_of(path, frame, notes)
        # Some containers have no times, or the same twice.
        stamp = frame.time if frame.time is not None else (times[-1] + 1 / 25 if times else 0.0)
        times.append(max(float(stamp), times[-1] + 1e-4) if times else float(stamp))
    if look is None:
        raise LyraError(f"{path} has no frame that can be decoded: export or download it again")
    if len(times) == 1:
        raise LyraError(f"{path} has a single frame: give it as a photo (PNG or JPEG)")
    return times, look


def _look_of(path: Path, frame: Any, notes: list[str]) -> _Look:
    """How a video's frames are shown, by its first."""
    if frame.color_trc in _HDR:
        name = _HDR[frame.color_trc]
        notes.append(f"its colors are HDR ({name}) and taken as sRGB: they come out pale, export it as SDR")
    if frame.side_data.get("SPHERICAL") is not None:
        notes.append(PANORAMA)
    matrix = frame.side_data.get("DISPLAYMATRIX")
    orientation, exact = read_display_matrix(None if matrix is None else bytes(matrix))
    if not exact:
        notes.append("it is to be shown turned by an odd angle, which was rounded to quarter turns")
    with _open(path) as container:
        pixel_shape = float(container.streams.video[0].sample_aspect_ratio or 1)
    size = _square_size(frame.width, frame.height, pixel_shape)
    return _Look(orientation, pixel_shape, Shape(*size, orientation))


def _check_size(path: Path, width: int, height: int) -> None:
    if min(width, height) < SMALLEST_SIDE:
        raise LyraError(f"{path} is {width}x{height} pixels: give at least {SMALLEST_SIDE} on the shorter side")
    if max(width, height) > LARGEST_ASPECT * min(width, height):
        raise LyraError(f"{path} is {width}x{height} pixels, more than {LARGEST_ASPECT:.0f}:1: crop it first")


def _nearest(times: Sequence[float], moment: float) -> int:
    after = bisect.bisect_left(times, moment)
    around = [index for index in (after - 1, after) if 0 <= index < len(times)]
    return min(around, key=lambda index: abs(times[index] - moment))


def _read_frames(
    path: Path, picks: Sequence[int], height: int, width: int, look: _Look, seen: Sequence[SeenCamera] | None
) -> tuple[Float[Tensor, "time 3 height width"], tuple[int, int, int, int]]:
    """The frames of these numbers, ascending, and the part of them that is used."""
    wanted, last = set(picks), picks[-1]
    lenses = {} if seen is None else dict(zip(picks, seen, strict=True))
    pictures: dict[int, np.ndarray] = {}
    crop = centre_crop(look.shape.shown, height, width)
    for number, frame in enumerate(_decode(path, title="frames", count=last + 1)):
        if number in wanted:
            picture = _to_rgb(frame).resize((look.shape.width, look.shape.height), Image.Resampling.BICUBIC)
            picture = show_straight(picture, look.orientation, lenses.get(number))
            small = picture.resize((width, height), Image.Resampling.LANCZOS, box=crop, reducing_gap=3.0)
            pictures[number] = np.asarray(small, dtype=np.float32) / 255
        if number >= last:
            break
    stacked = torch.from_numpy(np.stack([pictures[number] for number in picks]))
    return stacked.permute(0, 3, 1, 2).contiguous(), crop


def _to_rgb(frame: Any) -> Image.Image:
    """A frame in RGB; one that does not tell its colors as players take it: BT.709 from 720 lines on, else BT.601."""
    matrix = frame.colorspace
    if matrix == _UNTAGGED:
        matrix = _BT709 if frame.height >= _HD_LINES else _BT601
    return Image.fromarray(frame.reformat(format="rgb24", src_colorspace=matrix, dst_colorspace=matrix).to_ndarray())


def _square_size(width: int, height: int, shape: float) -> tuple[int, int]:
    """Old cameras and discs store frames squashed; ``shape`` is a pixel's width over its height."""
    if shape == 1 or not 1 / LARGEST_ASPECT < shape < LARGEST_ASPECT:
        return width, height
    return round(width * max(shape, 1)), round(height / min(shape, 1))


def _vipe_cameras(path: Path) -> Path | None:
    """Poses in ViPE's layout: ``pose/NAME.npz`` beside ``rgb/NAME.mp4``."""
    poses = path.parent.parent / "pose" / f"{path.stem}.npz"
    return poses if path.parent.name == "rgb" and poses.is_file() else None


def _pick_cameras(file: Path, picks: Sequence[int], count: int, shape: Shape) -> list[SeenCamera]:
    seen = load_seen_cameras(file, shape)
    if len(seen) != count:
        raise LyraError(f"{file} has {len(seen)} cameras, but the video has {count} frames: give one a frame")
    return [seen[number] for number in picks]
