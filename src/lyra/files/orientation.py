"""How a stored picture is turned and mirrored before it is shown: the same eight ways for photos, videos and cameras.

An orientation takes a stored pixel to its shown place. About the picture's centre, y down,
``x' = a x + c y`` and ``y' = b x + d y``; four of the eight only turn, the others mirror too.
"""

import struct
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image


@dataclass(frozen=True)
class Orientation:
    """One of the eight ways, as the numbers of a video's display matrix."""

    a: int = 1
    b: int = 0
    c: int = 0
    d: int = 1

    @property
    def mirrors(self) -> bool:
        """Whether left and right change places, which no turn of a camera does."""
        return self.a * self.d - self.b * self.c < 0

    @property
    def swaps(self) -> bool:
        """Whether width and height change places."""
        return self.a == 0

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the shown picture, of the stored one's."""
        return (height, width) if self.swaps else (width, height)

    def show(self, picture: Image.Image) -> Image.Image:
        """The stored picture as it is shown."""
        method = _METHODS[self]
        return picture if method is None else picture.transpose(method)

    def store(self, picture: Image.Image) -> Image.Image:
        """The opposite: a shown picture as it is stored."""
        return Orientation(self.a, self.c, self.b, self.d).show(picture)

    def turn_pose(self, pose: Float[np.ndarray, "4 4"]) -> Float[np.ndarray, "4 4"]:
        """``camera_to_world`` (OpenCV axes) of the shown picture, of the stored one's; mirrored it is left-handed."""
        axes = np.eye(4)
        axes[:2, :2] = [[self.a, self.b], [self.c, self.d]]
        return pose @ axes

    def turn_intrinsics(
        self, intrinsics: Float[np.ndarray, "4"], width: float | int, height: float | int
    ) -> Float[np.ndarray, "4"]:
        """fx, fy, cx, cy in pixels of the shown picture, of those of a stored one of ``width`` x ``height``."""
        fx, fy, cx, cy = intrinsics
        x, y = cx - width / 2, cy - height / 2
        if self.swaps:
            fx, fy, width, height = fy, fx, height, width
        return np.array([fx, fy, self.a * x + self.c * y + width / 2, self.b * x + self.d * y + height / 2])


UPRIGHT = Orientation()
BY_EXIF = {
    1: UPRIGHT,
    2: Orientation(-1, 0, 0, 1),
    3: Orientation(-1, 0, 0, -1),
    4: Orientation(1, 0, 0, -1),
    5: Orientation(0, 1, 1, 0),
    6: Orientation(0, 1, -1, 0),
    7: Orientation(0, -1, -1, 0),
    8: Orientation(0, -1, 1, 0),
}
"""By the number of the EXIF tag Orientation."""
_METHODS = {
    BY_EXIF[1]: None,
    BY_EXIF[2]: Image.Transpose.FLIP_LEFT_RIGHT,
    BY_EXIF[3]: Image.Transpose.ROTATE_180,
    BY_EXIF[4]: Image.Transpose.FLIP_TOP_BOTTOM,
    BY_EXIF[5]: Image.Transpose.TRANSPOSE,
    BY_EXIF[6]: Image.Transpose.ROTATE_270,
    BY_EXIF[7]: Image.Transpose.TRANSVERSE,
    BY_EXIF[8]: Image.Transpose.ROTATE_90,
}


def read_display_matrix(matrix: bytes | None) -> tuple[Orientation, bool]:
    """The orientation nearest to a display matrix as FFmpeg hands it out (nine native int32, 16.16 fixed point).

    Returns:
        The orientation, and whether it is the matrix itself: one may turn by odd angles, or hold nothing.
    """
    if matrix is None or len(matrix) < 36:
        return UPRIGHT, matrix is None
    a, b, _, c, d = (value / 65536 for value in struct.unpack("=9i", matrix[:36])[:5])
    size = max(abs(a), abs(b), abs(c), abs(d))
    if size == 0:
        return UPRIGHT, False
    if abs(a) + abs(d) >= abs(b) + abs(c):
        found = Orientation(_sign(a), 0, 0, _sign(d))
        rest = max(abs(b), abs(c))
    else:
        found = Orientation(0, _sign(b), _sign(c), 0)
        rest = max(abs(a), abs(d))
    return found, rest < 0.02 * size


def _sign(value: float) -> int:
    return -1 if value < 0 else 1
