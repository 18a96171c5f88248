"""Films in the format that their name says: MP4 and other H.264 files, WebM, AVI, GIF, or numbered pictures."""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from lyra.errors import LyraError, MissingExtraError
from lyra.files.atomic import write_atomically
from lyra.files.images import BT601_WEIGHTS, BT709_WEIGHTS, to_8_bit, to_yuv420

_BT709, _BT601, _LIMITED_RANGE, _FULL_RANGE = 1, 5, 1, 2
"""Numbers of ISO/IEC 23091-2 for matrix, primaries and transfer, and FFmpeg's for the range."""
_NUMBER = re.compile(r"%0?\d*d")
_PICTURES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
"""What numbered pictures may be, by Pillow's names."""

Frames = Iterable[Float[Tensor, "3 height width"] | UInt8[np.ndarray, "3 height width"]]


@dataclass(frozen=True)
class _Coding:
    """A container and what is in it."""

    container: str
    encoder: str
    pixels: str = "yuv420p"
    options: tuple[tuple[str, str], ...] = ()


_H264 = (("crf", "17"), ("preset", "medium"))
_CODINGS = {
    "": _Coding("mp4", "libx264", options=_H264),
    ".mp4": _Coding("mp4", "libx264", options=_H264),
    ".m4v": _Coding("mp4", "libx264", options=_H264),
    ".mov": _Coding("mov", "libx264", options=_H264),
    ".mkv": _Coding("matroska", "libx264", options=_H264),
    ".webm": _Coding(
        "webm", "libvpx-vp9", options=(("crf", "20"), ("b", "0"), ("deadline", "good"), ("cpu-used", "4"))
    ),
    # AVI cannot say which matrix its colors are by; of Motion JPEG everyone knows it.
    ".avi": _Coding("avi", "mjpeg", "yuvj420p", (("qmin", "2"), ("qmax", "3"))),
}
"""By suffix; a name without any is an MP4's."""


def check_film_name(path: Path) -> None:
    """Says before anything is drawn what no film can be called.

    Raises:
        LyraError: the name's suffix is of no format that is written, or numbered pictures have no number.
    """
    suffix = path.suffix.lower()
    if suffix in _PICTURES:
        if len(_NUMBER.findall(path.name)) != 1 or path.name.replace("%", "", 1).count("%"):
            example = f"{path.stem.replace('%', '')}_%04d{suffix}"
            raise LyraError(f"{path} is one picture: number those of a film, as {example}")
    elif "%" in path.name and _NUMBER.search(path.name):
        raise LyraError(f"{path} numbers films: give one name, or numbered pictures (.png)")
    elif suffix != ".gif" and suffix not in _CODINGS:
        known = " ".join([*filter(None, _CODINGS), ".gif"])
        raise LyraError(f"{path} is no film that is written: end its name in one of {known}, or in _%04d.png")


def save_video(frames: Frames, path: Path, fps: float | int) -> None:
    """Writes a film in the format of its name's suffix.

    ``.mp4``, ``.m4v``, ``.mov`` and ``.mkv`` hold H.264 in yuv420p, which every browser and player shows; ``.webm``
    VP9; ``.avi`` Motion JPEG; ``.gif`` loops; and a name with a number, as ``frame_%04d.png``, is one picture a frame,
    from 0 on. Odd sizes are padded to even ones by repeating the last row or column, but for GIF and pictures. The
    same frames give the same bytes: one encoder thread, no dates, no version of the muxer.

    Args:
        frames: sRGB, floats in [0, 1] or bytes, all of one size; a tensor of frames, or one after another.
        path: The file.
        fps: Frames per second, positive.

    Raises:
        LyraError: The file cannot be written, or its name is of no format.
        MissingExtraError: PyAV is not installed.
        ValueError: There are no frames, they hold NaN, or ``fps`` is not positive.
    """
    path = Path(path)
    check_film_name(path)
    suffix = path.suffix.lower()
    rate = Fraction(fps).limit_denominator(1001)
    if rate <= 0:
        raise ValueError(f"a video of {fps} frames per second")
    if suffix not in (".gif", *_PICTURES):
        _require_av()
    pictures = map(to_8_bit, frames)
    first = next(pictures, None)
    if first is None:
        raise ValueError("a video needs at least one frame")
    everything = chain([first], pictures)
    if suffix in _PICTURES:
        _save_pictures(everything, path, _PICTURES[suffix])
    elif suffix == ".gif":
        _save_gif(everything, path, rate)
    else:
        _save_coded(everything, first.shape[1:], path, rate, _CODINGS[suffix])


def _require_av() -> None:
    try:
        import av  # noqa: F401
    except ImportError:
        raise MissingExtraError("PyAV", "video", "writing a video") from None


def _save_pictures(pictures: Iterator[np.ndarray], path: Path, kind: str) -> None:
    for number, picture in enumerate(pictures):
        name = _NUMBER.sub(lambda found, number=number: found.group() % number, path.name)
        with write_atomically(path.with_name(name)) as temporary, temporary.open("wb") as file:
            _as_image(picture).save(file, format=kind, quality=95)


def _save_gif(pictures: Iterator[np.ndarray], path: Path, rate: Fraction) -> None:
    """Colors of its own for each frame; times are in hundredths of a second, rounded so that the length is right."""
    images = [_as_image(picture).quantize(256, dither=Image.Dither.FLOYDSTEINBERG) for picture in pictures]
    # Players take less than two hundredths for a mistake.
    ends = [max(2 * (number + 1), round(100 * (number + 1) / rate)) for number in range(len(images))]
    durations = [10 * (end - start) for start, end in zip([0, *ends], ends, strict=False)]
    with write_atomically(path) as temporary, temporary.open("wb") as file:
        images[0].save(
            file, format="GIF", save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=False
        )


def _as_image(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(picture.transpose(1, 2, 0)))


def _save_coded(
    pictures: Iterator[np.ndarray], size: tuple[int, int], path: Path, rate: Fraction, coding: _Coding
) -> None:
    import av

    height, width = (side + side % 2 for side in size)
    jpeg = coding.encoder == "mjpeg"
    weights, matrix = (BT601_WEIGHTS, _BT601) if jpeg else (BT709_WEIGHTS, _BT709)
    options = {"fflags": "+bitexact"}
    if coding.container in ("mp4", "mov"):
        options["movflags"] = "+faststart"
    with (
        write_atomically(path) as temporary,
        # FFmpeg takes what is before a colon in a relative path for a protocol.
        av.open(str(temporary.absolute()), "w", format=coding.container, options=options) as container,
    ):
        stream: Any = container.add_stream(coding.encoder, rate=rate)
        _configure(stream, height, width, rate, coding)
        for index, picture in enumerate(pictures):
            planes = to_yuv420(picture, weights, full_range=jpeg)
            frame = av.VideoFrame.from_ndarray(planes, format=coding.pixels)
            frame.pts, frame.time_base = index, 1 / rate
            frame.colorspace, frame.color_range = matrix, _FULL_RANGE if jpeg else _LIMITED_RANGE
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def _configure(stream: Any, height: int, width: int, rate: Fraction, coding: _Coding) -> None:
    stream.width, stream.height, stream.pix_fmt = width, height, coding.pixels
    context = stream.codec_context
    context.time_base = 1 / rate
    context.thread_count = 1
    jpeg = coding.encoder == "mjpeg"
    context.colorspace = _BT601 if jpeg else _BT709
    context.color_range = _FULL_RANGE if jpeg else _LIMITED_RANGE
    if not jpeg:
        context.color_primaries = context.color_trc = _BT709
    settings = dict(coding.options)
    if coding.encoder == "libx264":
        # A key frame every second keeps scrubbing smooth. Chroma location 1: samples are averages of 2x2 pixels.
        # Without mbtree=0, x264 reads memory that it never wrote when frames are smaller than 128 pixels, and the
        # bytes of a video change from run to run.
        settings["x264-params"] = f"keyint={max(1, round(rate))}:chromaloc=1:sliced-threads=0:mbtree=0"
    stream.options = settings
