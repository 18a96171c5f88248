"""Lenses that bend straight lines, and pictures straightened as a pinhole camera would have taken them.

Two families, as OpenCV defines them and nerfstudio and COLMAP store them: a radial polynomial with tangential terms
(``OPENCV`` and what is simpler; with a divisor ``FULL_OPENCV``), and the equidistant fisheye (``OPENCV_FISHEYE``).
Source: OpenCV's calib3d (projectPoints, fisheye); nerfstudio's ``camera_utils`` for its k4.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image

from lyra.errors import LyraError

_STRIP = 256
"""Rows that are straightened at once, which bounds the memory."""
_ZOOMS = np.geomspace(1.0, 6.0, 181)
"""Factors on the focal length among which the least is taken that leaves no part of a picture empty."""
_MODELS = {
    **{"PINHOLE": 8, "SIMPLE_PINHOLE": 8, "PERSPECTIVE": 8},
    **{"SIMPLE_RADIAL": 8, "RADIAL": 8, "OPENCV": 8, "FULL_OPENCV": 8},
    **{"OPENCV_FISHEYE": 4, "FISHEYE": 4, "SIMPLE_RADIAL_FISHEYE": 4, "RADIAL_FISHEYE": 4},
}
"""Models that are undone: 8 for the radial and tangential ones, 4 for fisheyes."""


@dataclass(frozen=True)
class Distortion:
    """How a lens bends the ray through (x, y, 1); all zeros for a pinhole."""

    radial: tuple[float, ...] = ()
    """k1, k2 and so on of ``1 + k1 r^2 + k2 r^4 + ...``, for a fisheye of the angle instead of the radius."""
    tangential: tuple[float, float] = (0.0, 0.0)
    """p1, p2."""
    divisor: tuple[float, ...] = ()
    """Of a rational model: the polynomial that divides, k4, k5, k6 of OpenCV."""
    fisheye: bool = False

    @property
    def straight(self) -> bool:
        """Whether it is a pinhole's."""
        return not self.fisheye and not any((*self.radial, *self.tangential, *self.divisor))

    def bend(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where the ray through (x, y, 1) falls, in focal lengths from the principal point."""
        squared = x**2 + y**2
        if self.fisheye:
            radius = np.sqrt(squared)
            angle = np.arctan(radius)
            scale = angle * _polynomial(self.radial, angle**2) / np.maximum(radius, 1e-12)
            scale = np.where(radius > 1e-12, scale, 1.0)
            return x * scale, y * scale
        scale = _polynomial(self.radial, squared) / _polynomial(self.divisor, squared)
        first, second = self.tangential
        return (
            x * scale + 2 * first * x * y + second * (squared + 2 * x**2),
            y * scale + first * (squared + 2 * y**2) + 2 * second * x * y,
        )

    def turns_back(self, radius: float) -> bool:
        """Whether the polynomial shows the same place twice within a radius: there it is no lens any more."""
        steps = np.linspace(0, radius, 200)
        bent = Distortion(self.radial, (0.0, 0.0), self.divisor, self.fisheye).bend(steps, np.zeros_like(steps))[0]
        return bool((np.diff(bent) <= 0).any() or not np.isfinite(bent).all())


@dataclass(frozen=True)
class Lens:
    """Intrinsics and distortion for a picture of a given size."""

    width: float | int
    """Pixels."""
    height: float | int
    """Pixels."""
    intrinsics: Float[np.ndarray, "4"]
    """fx, fy, cx, cy in pixels, pixel centres at +0.5."""
    distortion: Distortion = field(default_factory=Distortion)

    def scaled(self, width: float | int, height: float | int) -> "Lens":
        """The same lens for the picture at another size."""
        factors = np.array([width / self.width, height / self.height] * 2)
        return replace(self, width=width, height=height, intrinsics=self.intrinsics * factors)


def read_distortion(entry: Mapping[str, Any]) -> Distortion:
    """The distortion of a camera as nerfstudio and instant-ngp write it.

    Raises:
        LyraError: the camera has no such lens, or the numbers are none; the text is to follow a frame's name.
    """
    model = str(entry.get("camera_model") or "OPENCV").upper().replace("-", "_")
    if entry.get("is_fisheye"):
        model = "OPENCV_FISHEYE"
    if "ftheta_p0" in entry:
        model = "FTHETA"
    if model not in _MODELS:
        raise LyraError(
            f"has a lens of the model {model}, which cannot be undone: give pictures of a pinhole camera "
            "(colmap image_undistorter makes them)"
        )
    return distortion_of(model, _coefficients(entry))


def _coefficients(entry: Mapping[str, Any]) -> dict[str, float]:
    listed = entry.get("distortion_params")
    named = dict(zip(("k1", "k2", "k3", "k4", "p1", "p2"), listed, strict=False)) if isinstance(listed, list) else {}
    named |= {name: entry[name] for name in (*(f"k{i}" for i in range(1, 7)), "p1", "p2") if entry.get(name)}
    try:
        values = {name: float(value) for name, value in named.items()}
    except (TypeError, ValueError):
        values = {"k1": float("nan")}
    if not np.isfinite(list(values.values())).all():
        raise LyraError("has lens coefficients that are no numbers: make the file again")
    return values


def distortion_of(model: str, values: Mapping[str, float]) -> Distortion:
    """The distortion of one of the models that are undone, by the names of its coefficients (k1 to k6, p1, p2)."""
    count = _MODELS[model]
    radial = [values.get(f"k{i}", 0.0) for i in range(1, 7)]
    if count == 4:
        return Distortion(tuple(radial[:4]), fisheye=True)
    tangential = (values.get("p1", 0.0), values.get("p2", 0.0))
    # COLMAP's FULL_OPENCV divides by the second three; nerfstudio's k4 is a fourth power of r^2.
    if model == "FULL_OPENCV" or any(radial[4:]):
        return Distortion(tuple(radial[:3]), tangential, tuple(radial[3:]))
    return Distortion(tuple(radial[:4]), tangential)


def straighten(lens: Lens) -> Lens:
    """The pinhole lens that the picture has once it is straightened: zoomed in until no part of it is empty.

    Raises:
        LyraError: no zoom does; the text is to follow a frame's name.
    """
    if lens.distortion.straight:
        return lens
    fx, fy, cx, cy = lens.intrinsics
    across, down = np.linspace(0, lens.width, 33), np.linspace(0, lens.height, 33)
    x = np.concatenate([across, across, np.zeros(33), np.full(33, lens.width)]) - cx
    y = np.concatenate([np.zeros(33), np.full(33, lens.height), down, down]) - cy
    for zoom in _ZOOMS:
        straight_x, straight_y = x / (fx * zoom), y / (fy * zoom)
        if lens.distortion.turns_back(float(np.hypot(straight_x, straight_y).max())):
            continue
        bent_x, bent_y = lens.distortion.bend(straight_x, straight_y)
        u, v = bent_x * fx + cx, bent_y * fy + cy
        # Half a pixel at the edge is filled with the edge's own color.
        if u.min() >= -0.5 and v.min() >= -0.5 and u.max() <= lens.width + 0.5 and v.max() <= lens.height + 0.5:
            return replace(lens, intrinsics=np.array([fx * zoom, fy * zoom, cx, cy]), distortion=Distortion())
    raise LyraError("has a lens distortion that cannot be undone within its picture: undistort the pictures first")


def straighten_picture(picture: Image.Image, lens: Lens) -> Image.Image:
    """A picture as the pinhole lens of :func:`straighten` shows it, of the same size; ``lens`` is for its size."""
    straight = straighten(lens)
    fx, fy, cx, cy = straight.intrinsics
    own_fx, own_fy = lens.intrinsics[:2]
    pixels = torch.from_numpy(np.array(picture.convert("RGB"), dtype=np.float32)).permute(2, 0, 1)[None]
    result = np.empty((picture.height, picture.width, 3), np.uint8)
    u = (np.arange(picture.width) + 0.5 - cx) / fx
    for top in range(0, picture.height, _STRIP):
        rows = np.arange(top, min(top + _STRIP, picture.height))
        x, y = np.meshgrid(u, (rows + 0.5 - cy) / fy)
        x, y = lens.distortion.bend(x, y)
        grid = np.stack([2 * (x * own_fx + cx) / lens.width - 1, 2 * (y * own_fy + cy) / lens.height - 1], axis=-1)
        seen = F.grid_sample(
            pixels, torch.from_numpy(grid.astype(np.float32))[None], padding_mode="border", align_corners=False
        )
        result[rows] = seen[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).numpy()
    return Image.fromarray(result)


def _polynomial(coefficients: tuple[float, ...], squared: np.ndarray) -> np.ndarray:
    """``1 + c1 s + c2 s^2 + ...``."""
    value = np.zeros_like(squared)
    for coefficient in reversed(coefficients):
        value = (value + coefficient) * squared
    return value + 1
