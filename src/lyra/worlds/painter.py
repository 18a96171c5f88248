"""Painting things that were asked for: parts in metres, and paints that may be a wish's color and material."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from lyra.worlds.briefs import Look
from lyra.worlds.drawing import Draft, turned
from lyra.worlds.patterns import TEXTURE_SIZE
from lyra.worlds.textures import LEVELS
from lyra.worlds.vocabulary import Rgb, color_of
from lyra.worlds.world import BOX, CYLINDER, ELLIPSOID, GABLE, PYRAMID

Number = float | int
Three = Sequence[Number] | np.ndarray


@dataclass(frozen=True)
class Paint:
    """Textures of which one is drawn, and the color that they are brought to."""

    names: str
    rgb: Rgb | None = None
    """sRGB, in [0, 1]; the texture's own when None."""
    period: float = 0.6
    """Metres of one repeat."""


WOOD, LEAF, BARK = Paint("wood", None, 1.6), Paint("leaves", (0.24, 0.42, 0.18), 0.4), Paint("bark")
DARK, WHITE = Paint("paint", (0.08, 0.08, 0.09)), Paint("paint", (0.9, 0.9, 0.88))
METAL, BRASS = Paint("paint", (0.55, 0.56, 0.58)), Paint("paint", (0.72, 0.55, 0.25))
GLASS, SKIN = Paint("paint", (0.7, 0.82, 0.86)), Paint("paint", (0.72, 0.52, 0.42))
PAGES = Paint("paint", (0.88, 0.85, 0.76))

_TEXTURES = {
    "leather": "paint", "metal": "paint", "brass": "paint", "glass": "paint", "plastic": "paint", "checks": "checks",
}  # fmt: skip
_OWN = {"leather": "saddlebrown", "metal": "gray", "brass": "darkgoldenrod", "glass": "powderblue"}


def paint_of(look: Look, usual: Paint) -> Paint:
    """The paint that a look asks for; what it leaves open is as usual."""
    if look == Look():
        return usual
    names = usual.names if look.material is None else _TEXTURES.get(look.material, look.material)
    rgb = look.rgb()
    if rgb is None and look.material in _OWN:
        rgb = color_of(_OWN[look.material], look.tone)
    if rgb is None and look.material is None:
        rgb = usual.rgb
    if rgb is None and look.tone != 1:
        rgb = (0.2, 0.13, 0.09) if look.tone < 1 else (0.85, 0.75, 0.6)
    if look.color is not None and names in ("checks", "stripes", "poster", "books") and look.material is None:
        names = "paint"
    return Paint(names, rgb, max(usual.period, 1.6) if names == "wood" else usual.period)


@dataclass
class Colors:
    """Colors that surfaces shall have, by their number in the draft."""

    wanted: dict[int, Rgb] = field(default_factory=dict)

    def settle(self, tints: Tensor, textures: Tensor, atlas: Float[Tensor, "texel 4"]) -> Tensor:
        """Tints that bring each surface's texture to the color wanted of it."""
        tints, means = tints.clone(), mean_colors(atlas)
        for surface, rgb in self.wanted.items():
            # No cloth and no paint is as pure as a color's name.
            linear = (0.05 + 0.85 * torch.tensor(rgb)) ** 2.2
            tints[surface] = linear / means[textures[surface]].clamp(min=0.02)
        return tints


def mean_colors(atlas: Float[Tensor, "texel 4"]) -> Float[Tensor, "texture 3"]:
    """Linear mean of each texture, from its coarsest level."""
    sizes = [(TEXTURE_SIZE >> level) ** 2 for level in range(LEVELS)]
    count = len(atlas) // sum(sizes)
    return atlas[-count * sizes[-1] :, :3].reshape(count, -1, 3).mean(1)


class Painter:
    """Adds the parts of one thing, in its own frame: x right, y up from its base, z away from its front; metres."""

    def __init__(
        self, draft: Draft, colors: Colors, base: np.ndarray, yaw: Number, unit: Number, main: Paint, look: Look
    ):
        self.draft, self.colors, self.base, self.yaw, self.unit = draft, colors, base, yaw, unit
        self.main, self.look = main, look
        self.used: dict[Paint, int] = {}
        draft.group += 1

    def _place(self, center: Three) -> np.ndarray:
        dx, dz = turned(self.yaw, center[0] * self.unit, center[2] * self.unit)
        return self.base + np.array([dx, -center[1] * self.unit, dz])

    def part(self, kind: int, center: Three, half: Three, paint: Paint | None = None, yaw: Number = 0.0) -> None:
        """One part; in the thing's main paint when no other is given."""
        paint = paint or self.main
        place, size, draft = self._place(center), np.array(half) * self.unit, self.draft
        if paint in self.used:
            draft.objects.append((kind, place, size, self.yaw + yaw, draft.group))
            draft.surfaces.append(draft.surfaces[self.used[paint]])
        else:
            tint = 1.0 if paint.rgb is None else None
            draft.add(kind, place, size, self.yaw + yaw, paint.names, period=paint.period * self.unit, tint=tint)
            self.used[paint] = len(draft.surfaces) - 1
        if paint.rgb is not None:
            self.colors.wanted[len(draft.surfaces) - 1] = paint.rgb

    def face(self, center: Three, half: Three, paint: Paint) -> None:
        """A box whose face shows one texture once: a picture, a screen."""
        self.draft.add(
            BOX,
            self._place(center),
            np.array(half) * self.unit,
            self.yaw,
            paint.names,
            (0.5 / (half[0] * self.unit), 0.5 / (half[1] * self.unit)),
        )
        if paint.rgb is not None:
            self.colors.wanted[len(self.draft.surfaces) - 1] = paint.rgb

    def box(self, center: Three, half: Three, paint: Paint | None = None, yaw: Number = 0.0) -> None:
        """A box."""
        self.part(BOX, center, half, paint, yaw)

    def ball(self, center: Three, half: Three, paint: Paint | None = None) -> None:
        """An ellipsoid."""
        self.part(ELLIPSOID, center, half, paint)

    def tube(self, x: Number, z: Number, low: Number, high: Number, radius: Number, paint: Paint | None = None) -> None:
        """An upright cylinder between two heights."""
        self.part(CYLINDER, (x, (low + high) / 2, z), (radius, (high - low) / 2, radius), paint)

    def roof(self, center: Three, half: Three, paint: Paint | None = None, pyramid: bool = False) -> None:
        """A gable or a pyramid."""
        self.part(PYRAMID if pyramid else GABLE, center, half, paint)

    def legs(self, x: Number, z: Number, high: Number, radius: Number, paint: Paint | None = None) -> None:
        """Four of them."""
        for a in (-x, x):
            for b in (-z, z):
                self.tube(a, b, 0, high, radius, paint)
