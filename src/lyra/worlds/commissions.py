"""Commissions: the world that a brief describes, and what of it is in sight (``draw_commission``).

Whatever the words leave open the seed decides. A world in which something that was asked for cannot be seen is drawn
anew, a few times; the best one is taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float
from numpy.random import Generator
from torch import Tensor

from lyra.errors import LyraError
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.worlds.asked_places import draw_place
from lyra.worlds.asked_things import Placed
from lyra.worlds.briefs import Brief, read_brief
from lyra.worlds.draws import exposed, settled
from lyra.worlds.painter import Colors
from lyra.worlds.textures import make_atlas
from lyra.worlds.tracing import render_world, world_hits
from lyra.worlds.world import World

_DRAWS = 14
FOV = 52.0
"""Degrees of the shorter side."""
_LEAST = 0.0012
"""Share of the picture in which a thing is taken to be in sight."""


@dataclass(frozen=True)
class Shown:
    """A thing that was asked for, as the world has it."""

    name: str
    said: str
    color: str | None
    material: str | None
    group: int
    """Of its parts in the world; -1 if it found no place."""
    share: float
    """Of the input view's pixels."""

    @property
    def in_sight(self) -> bool:
        """Whether enough of it is."""
        return self.share >= _LEAST


@dataclass(frozen=True)
class Commission:
    """A world made for a brief."""

    brief: Brief
    world: World
    camera: Cameras
    """Of the picture; the identity."""
    shown: tuple[Shown, ...]

    def render(self) -> tuple[Float[Tensor, "3 height width"], Float[Tensor, "height width"]]:
        """The picture in [0, 1] and its exact z-depth; the sky's is ``MAX_DEPTH``."""
        image, depth = render_world(self.world, self.camera, 3)
        return image[0].clamp(0, 1), depth[0]

    def notes(self) -> list[str]:
        """What a user should know of it: words that were not understood, things that cannot be seen."""
        notes = []
        if self.brief.unread:
            notes.append(f"no word list knows {', '.join(self.brief.unread)}: drawn without")
        hidden = [thing.said for thing in self.shown if not thing.in_sight]
        if hidden:
            notes.append(f"no place in sight was found for: {', '.join(hidden)}; try another --seed")
        return notes


def draw_commission(prompt: str, seed: int, height: int, width: int) -> Commission:
    """The world of a prompt.

    Args:
        prompt: English, see ``read_brief``.
        seed: Decides what the words leave open; the same seed and words give the same world.
        height: Of the picture, in pixels.
        width: Of the picture, in pixels.

    Raises:
        LyraError: no word of the prompt is known, or no draw gave a view worth showing.
    """
    brief = read_brief(prompt)
    camera = Cameras(torch.eye(4)[None], intrinsics_from_fov(FOV, height, width)[None], height, width)
    best: tuple[float, World, list[Placed], Colors, Generator] | None = None
    for attempt in range(_DRAWS):
        rng = np.random.default_rng([seed, attempt])
        colors = Colors()
        world, placed = draw_place(brief, rng, colors, width / height)
        found = _settle(world, colors)
        if found is None:
            continue
        world, colors = found
        shares = _shares(world, placed, camera)
        score = sum(min(share, 4 * _LEAST) >= _LEAST for share in shares) + 0.1 * sum(min(s, 0.01) for s in shares)
        if best is None or score > best[0]:
            best = (score, world, placed, colors, rng)
        if all(share >= 1.5 * _LEAST for share in shares):
            break
    if best is None:
        raise LyraError(f"no view worth showing was found for {prompt[:60]!r}: try another --seed or other words")
    _, world, placed, colors, rng = best
    world = replace(world, atlas=make_atlas(rng, world.texture_names))
    world = replace(world, tints=colors.settle(world.tints, world.textures, world.atlas))
    world = exposed(rng, world)
    if brief.hour in ("evening", "night"):
        world = replace(world, exposure=world.exposure * (0.8 if brief.hour == "evening" else 0.4))
    shares = _shares(world, placed, camera)
    shown = [
        Shown(thing.wish.name, thing.wish.said, thing.wish.look.color, thing.wish.look.material, thing.group, share)
        for thing, share in zip(placed, shares, strict=True)
    ]
    return Commission(brief, replace(world, things=tuple(thing.describe() for thing in placed)), camera, tuple(shown))


def _settle(world: World, colors: Colors) -> tuple[World, Colors] | None:
    """The world at median depth 1; what was in the cameras' way is gone, and surfaces are numbered anew."""
    number = torch.arange(len(world.textures), dtype=torch.float32)
    # The tints say, for as long, which surface is which.
    found = settled(replace(world, tints=torch.stack([number] * 3, 1)))
    if found is None:
        return None
    old = found.tints[:, 0].round().long()
    kept = {int(surface): index for index, surface in enumerate(old.tolist())}
    wanted = {kept[surface]: rgb for surface, rgb in colors.wanted.items() if surface in kept}
    return replace(found, tints=world.tints[old]), Colors(wanted)


def _shares(world: World, placed: Sequence[Placed], camera: Cameras) -> list[float]:
    """Of the input view's pixels, those of each thing."""
    scale = 128 / max(camera.height, camera.width)
    small = camera.resized(round(camera.height * scale), round(camera.width * scale))
    surface = world_hits(world, small)[1][0]
    groups = torch.where(surface >= 6, world.groups[(surface - 6).clamp(min=0)], -1)
    return [float((groups == thing.group).float().mean()) if thing.group >= 0 else 0.0 for thing in placed]
