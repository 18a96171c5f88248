"""Videos that do not say which matrix their colors are by: as players take them, by their lines."""

from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from lyra.files.videos import load_video

# Luma and chroma of one color in limited range, and what it is by each matrix (ITU-R BT.601, BT.709, BT.2020).
PLANES = (120, 90, 200)
WEIGHTS = {"601": (0.299, 0.114), "709": (0.2126, 0.0722), "2020": (0.2627, 0.0593)}
TAGS = {None: None, "601": 6, "709": 1, "2020": 9}


def rgb(name: str) -> list[float]:
    red, blue = WEIGHTS[name]
    y, u, v = (PLANES[0] - 16) / 219, (PLANES[1] - 128) / 224, (PLANES[2] - 128) / 224
    r, b = y + 2 * (1 - red) * v, y + 2 * (1 - blue) * u
    g = (y - red * r - blue * b) / (1 - red - blue)
    return [255 * min(1.0, max(0.0, value)) for value in (r, g, b)]


def write(path: Path, width: int, height: int, tag: str | None) -> Path:
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv444p"
        if TAGS[tag] is not None:
            stream.codec_context.colorspace = TAGS[tag]
        planes = np.empty((3, height, width), np.uint8)
        planes[:] = np.array(PLANES)[:, None, None]
        planes[0, :, : width // 4] = 30
        for _ in range(2):
            frame = av.VideoFrame.from_ndarray(planes, format="yuv444p")
            if TAGS[tag] is not None:
                frame.colorspace = TAGS[tag]
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


@pytest.mark.parametrize(
    ("width", "height", "tag", "expected"),
    [
        (320, 240, None, "601"),
        (720, 576, None, "601"),
        (1270, 718, None, "601"),
        (1280, 720, None, "709"),
        (720, 1280, None, "709"),
        (1920, 1080, None, "709"),
        (320, 240, "709", "709"),
        (1280, 720, "601", "601"),
        (320, 240, "2020", "2020"),
    ],
)
def test_colors_are_by_the_tag_or_else_by_the_lines(tmp_path: Path, width: int, height: int, tag, expected: str):
    video = load_video(write(tmp_path / "clip.mkv", width, height, tag), 32, 32, 2)
    assert video.frames[0, :, 16, 28].mul(255).tolist() == pytest.approx(rgb(expected), abs=2)
