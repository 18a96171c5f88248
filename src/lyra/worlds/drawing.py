"""Drawing: ``Draft`` collects the surfaces and objects of a world while it is drawn."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from lyra.worlds.patterns import hsv
from lyra.worlds.world import CYLINDER, ELLIPSOID, Sky, Terrain, World, WorldKind

_VARIANTS = 2  # textures of one name in a world


def tensor(values: object) -> Tensor:
    """float32 from anything that numpy understands."""
    return torch.from_numpy(np.array(values, np.float32))


def camera_rotation(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """World to room of a camera turned right by ``yaw`` and down by ``pitch``, in radians."""
    (cy, sy), (cp, sp), (cr, sr) = ((math.cos(a), math.sin(a)) for a in (yaw, pitch, roll))
    rotation = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]) @ [[1, 0, 0], [0, cp, sp], [0, -sp, cp]]
    return rotation @ [[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]]


def turned(yaw: float, x: float, z: float) -> tuple[float, float]:
    """Room offset of a point (x, z) in the frame of an object with this yaw."""
    return math.cos(yaw) * x + math.sin(yaw) * z, -math.sin(yaw) * x + math.cos(yaw) * z


class Draft:
    """A world in the making; lengths in whatever unit its maker uses."""

    def __init__(self, rng: Generator):
        self.rng = rng
        self.surfaces: list[tuple[int, list[float], np.ndarray, float]] = []
        self.objects: list[tuple[int, np.ndarray, np.ndarray, float, int]] = []
        self.textures: list[tuple[str, int]] = []
        self.things: list[str] = []
        self.group = 0

    def texture(self, names: str) -> int:
        """Index of a texture of one of the named kinds, old or new."""
        wanted = names.split()
        slot = wanted[self.rng.integers(len(wanted))], int(self.rng.integers(_VARIANTS))
        if slot not in self.textures:
            self.textures.append(slot)
        return self.textures.index(slot)

    def paint(
        self,
        names: str,
        repeats: tuple[float, float] | None = None,
        glow: float = 0.0,
        period: float | None = None,
        tint: float | None = None,
    ) -> None:
        """Adds a surface with a texture of one of the named kinds.

        Args:
            names: Words of ``outdoor_textures`` and ``textures``; one is drawn.
            repeats: Repeats per unit across a face in whose middle the texture is centred, instead of a random scale.
            glow: Emission.
            period: Length of one repeat, roughly; drawn for indoor surfaces when None.
            tint: Brightness of the tint; drawn when None.
        """
        rng, index = self.rng, self.texture(names)
        name = self.textures[index][0]
        if repeats:
            mapping = [*repeats, 0.5, 0.5]
        else:
            scale = math.exp(rng.uniform(math.log(0.7), math.log(2.2)))
            # Bricks, tiles and books have a size of their own.
            scale *= 1.7 if name in ("brick", "tiles", "books") else 1.0
            if period:
                scale = math.exp(rng.uniform(-0.3, 0.3)) / period
            mapping = [scale, scale, *rng.random(2)]
        color = (tint or rng.uniform(0.55, 1.0)) * (1 + 0.1 * rng.standard_normal(3)).clip(0.7, 1.2)
        self.surfaces.append((index, mapping, color, glow))

    def add(
        self,
        kind: int,
        center: Sequence[float | int] | np.ndarray,
        half: Sequence[float | int] | np.ndarray,
        yaw: float | int,
        names: str | None,
        repeats: tuple[float, float] | None = None,
        glow: float = 0.0,
        period: float | None = None,
        tint: float | None = None,
    ) -> None:
        """Adds an object and its surface, the last one again when ``names`` is None."""
        self.objects.append((kind, np.array(center), np.array(half), yaw, self.group))
        if names is None:
            self.surfaces.append(self.surfaces[-1])
            return
        self.paint(names, repeats, glow, period, tint)
        if kind in (ELLIPSOID, CYLINDER):  # a whole number of repeats around, so that no seam shows
            mapping, around = self.surfaces[-1][1], 2 * math.pi * float(np.array(half)[0])
            mapping[0] = max(1, round(around * mapping[0])) / around

    def finish(
        self,
        kind: WorldKind,
        rotation: np.ndarray,
        room: np.ndarray,
        light: tuple[np.ndarray, np.ndarray],
        ambient: tuple[np.ndarray, np.ndarray],
        sky: Sky | None = None,
        terrain: Terrain | None = None,
    ) -> World:
        """The world without its atlas; its scale and exposure are not settled yet."""
        kinds, centers, halves, yaws, groups = zip(*self.objects, strict=True)
        textures, mappings, tints, glows = zip(*self.surfaces, strict=True)
        return World(
            kind=kind,
            rotation=tensor(rotation),
            room=tensor(room),
            kinds=torch.tensor(kinds),
            centers=tensor(centers),
            half_sizes=tensor(halves),
            yaws=tensor(yaws),
            groups=torch.tensor(groups),
            textures=torch.tensor(textures),
            mappings=tensor(mappings),
            tints=tensor(tints),
            emissions=tensor(glows),
            texture_names=tuple(name for name, _ in self.textures),
            atlas=torch.zeros(0, 4),
            light=tensor(light),
            ambient=tensor(ambient),
            exposure=torch.tensor(1.0),
            things=tuple(self.things),
            sky=sky,
            terrain=terrain,
        )


def indoor_light(rng: Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colors of lamp and fill light, and where the fill mostly comes from."""
    warm = hsv(rng.uniform(0.06, 0.13), rng.uniform(0.0, 0.35), 1.0)
    cool = hsv(rng.uniform(0.0, 1.0), rng.uniform(0.0, 0.12), 1.0) * rng.uniform(0.15, 0.6)
    fill = np.array([rng.normal(), -abs(rng.normal()) - 0.3, rng.normal() - 0.5])
    return warm * rng.uniform(0.6, 1.6), cool, fill / np.linalg.norm(fill)
