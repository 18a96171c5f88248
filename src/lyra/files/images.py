"""PNG images and H.264 videos."""

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from lyra.errors import LyraError, MissingExtraError
from lyra.files.atomic import explain_reading, write_atomically

# ITU-R BT.709: weights of red and blue in luma. With limited range, luma spans 16..235 and chroma 16..240.
_RED_WEIGHT, _BLUE_WEIGHT = 0.2126, 0.0722
_BT709, _LIMITED_RANGE = 1, 1
"""Numbers of ISO/IEC 23091-2 for matrix, primaries and transfer, and FFmpeg's for the range."""


def save_image(image: Float[Tensor, "3 height width"], path: Path) -> None:
    """Writes sRGB in [0, 1] as 8-bit PNG; values outside are clamped.

    Raises:
        LyraError: The file cannot be written.
        ValueError: The image holds NaN.
    """
    pixels = _to_8_bit(image).transpose(1, 2, 0)
    with write_atomically(path) as temporary, temporary.open("wb") as file:
        Image.fromarray(np.ascontiguousarray(pixels)).save(file, format="PNG")


def load_image(path: Path) -> Float[Tensor, "3 height width"]:
    """Reads a PNG or JPEG written by this project as sRGB in [0, 1]; a user's photo goes to ``load_photo``.

    Raises:
        LyraError: The file is missing, no image or damaged.
    """
    path = Path(path)
    with explain_reading(path), path.open("rb") as file:
        try:
            with Image.open(file, formats=("PNG", "JPEG")) as image:
                pixels = np.asarray(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError) as error:
            if isinstance(error, OSError) and error.errno is not None:
                raise
            raise LyraError(f"{path} is no image or damaged: make it again") from None
    return torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1).contiguous()


def save_video(
    frames: Iterable[Float[Tensor, "3 height width"] | UInt8[np.ndarray, "3 height width"]],
    path: Path,
    fps: float | int,
) -> None:
    """Writes an MP4 with H.264 in yuv420p, which every browser and player shows.

    Odd sizes are padded to even ones by repeating the last row or column. The same frames give the same
    bytes: one encoder thread, no dates, no version of the muxer.

    Args:
        frames: sRGB, floats in [0, 1] or bytes, all of one size; a tensor of frames, or one after another.
        path: The file, by convention ``*.mp4``.
        fps: Frames per second, positive.

    Raises:
        LyraError: The file cannot be written.
        MissingExtraError: PyAV is not installed.
        ValueError: There are no frames, they hold NaN, or ``fps`` is not positive.
    """
    try:
        import av
    except ImportError:
        raise MissingExtraError("PyAV", "video", "writing a video") from None

    rate = Fraction(fps).limit_denominator(1001)
    if rate <= 0:
        raise ValueError(f"a video of {fps} frames per second")
    pictures = map(_to_8_bit, frames)
    first = next(pictures, None)
    if first is None:
        raise ValueError("a video needs at least one frame")
    height, width = (size + size % 2 for size in first.shape[-2:])
    with write_atomically(path) as temporary:
        options = {"movflags": "+faststart", "fflags": "+bitexact"}
        # FFmpeg takes what is before a colon in a relative path for a protocol.
        with av.open(str(temporary.absolute()), "w", format="mp4", options=options) as container:
            stream: Any = container.add_stream("libx264", rate=rate)
            _configure(stream, height, width, rate)
            for index, frame in enumerate(chain([first], pictures)):
                picture = av.VideoFrame.from_ndarray(_to_yuv420(frame), format="yuv420p")
                picture.pts = index
                picture.colorspace, picture.color_range = _BT709, _LIMITED_RANGE
                container.mux(stream.encode(picture))
            container.mux(stream.encode(None))


def _configure(stream: Any, height: int, width: int, rate: Fraction) -> None:
    stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
    context = stream.codec_context
    context.time_base = 1 / rate
    context.thread_count = 1
    context.colorspace = context.color_primaries = context.color_trc = _BT709
    context.color_range = _LIMITED_RANGE
    # A key frame every second keeps scrubbing smooth. Chroma location 1: samples are averages of 2x2 pixels.
    # Without mbtree=0, x264 reads memory that it never wrote when frames are smaller than 128 pixels, and the bytes
    # of a video change from run to run.
    parameters = f"keyint={max(1, round(rate))}:chromaloc=1:sliced-threads=0:mbtree=0"
    stream.options = {"crf": "17", "preset": "medium", "x264-params": parameters}


def _to_8_bit(image: Tensor | np.ndarray) -> np.ndarray:
    if isinstance(image, np.ndarray):
        return image
    values = image.detach().to("cpu", torch.float32)
    if values.isnan().any():
        raise ValueError("an image to be saved holds NaN")
    return (values.clamp(0, 1) * 255).round().to(torch.uint8).numpy()


def _to_yuv420(rgb: np.ndarray) -> np.ndarray:
    """Bytes [3, h, w] as limited-range BT.709 planes Y, U, V, stacked to [3 h / 2, w] with even sizes.

    Done here because swscale's quick paths are off by several levels for saturated colors.
    """
    rgb = np.pad(rgb, [(0, 0), (0, rgb.shape[1] % 2), (0, rgb.shape[2] % 2)], mode="edge")
    red, green, blue = rgb.astype(np.float32)
    luma = _RED_WEIGHT * red + (1 - _RED_WEIGHT - _BLUE_WEIGHT) * green + _BLUE_WEIGHT * blue
    planes = [16 + luma * (219 / 255)]
    for channel, weight in ((blue, _BLUE_WEIGHT), (red, _RED_WEIGHT)):
        chroma = 128 + (channel - luma) * (112 / 255 / (1 - weight))
        planes.append(chroma.reshape(chroma.shape[0] // 2, 2, chroma.shape[1] // 2, 2).mean(axis=(1, 3)))
    packed = np.concatenate([plane.ravel() for plane in planes])
    return np.rint(packed).astype(np.uint8).reshape(-1, rgb.shape[2])
