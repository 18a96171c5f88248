"""What a world is: tensors that the drawing modules fill in and ``tracing`` reads. Nothing is computed here.

A world is a set of convex things in a box-shaped room or, with a ``Sky``, on ground under it. Its geometry is stored in
the *room frame*, whose axes follow the walls or the horizon (x right, y down, z forward). Room and world share their
origin, the centre of the input camera; ``World.rotation`` turns world vectors into room vectors. The median z-depth of
the input view's pixels, sky apart, is 1.
"""

from dataclasses import dataclass, fields, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

BOX, ELLIPSOID, CYLINDER, GABLE, PYRAMID = range(5)
"""Kinds of objects: a box, an ellipsoid, an upright cylinder, a gable roof with its ridge along x, a pyramid."""
GROUND = 3
"""The surface number of the floor or the ground."""
INPUT_FOV = 55.0
"""Field of view in degrees of the input view that fixes a world's scale."""

WorldKind = Literal["room", "table", "street", "landscape", "building"]


@dataclass(frozen=True)
class Sky:
    """What is behind everything outdoors, and the haze before it; radiances, linear."""

    zenith: Float[Tensor, "3"]
    horizon: Float[Tensor, "3"]
    """Also the color of the haze."""
    glow: Float[Tensor, "3"]
    """Added around the sun."""
    cloud: Float[Tensor, "3"]
    cover: Float[Tensor, ""]
    """Threshold of the cloud texture's brightness, 0 (overcast) to 1 (clear)."""
    haze: Float[Tensor, ""]
    """Extinction per scene unit."""
    texture: Int[Tensor, ""]
    """Index of the cloud texture in the atlas."""


@dataclass(frozen=True)
class Terrain:
    """A height field; node (row, column) lies at z, x = stretch * sinh((index - (size - 1) / 2) / density).

    Between nodes the height is bilinear in the indices. Nodes are dense around the camera and sparse at the horizon.
    """

    corners: Float[Tensor, "node 4"]
    """Height (y, down) at a node and at its neighbours along column, row and both."""
    ground: Float[Tensor, "node 8"]
    """dy/dx, dy/dz, share of sunlight, tone, and the weights of the second and third texture and of water; empty."""
    stretch: Float[Tensor, ""]
    """Scene units."""
    density: Float[Tensor, ""]
    textures: Int[Tensor, "3"]
    """Indices into the atlas."""


@dataclass(frozen=True)
class World:
    """A room or an outdoor place with things, textures and one light; lengths in scene units, room frame.

    Surfaces are numbered: 0 to 5 are the room's left wall, right wall, ceiling, floor, back wall and front wall, 6
    and onward the objects in their order. Outdoors the floor is the ground and all other sides are the sky.
    """

    kind: WorldKind
    rotation: Float[Tensor, "3 3"]
    """World to room."""
    room: Float[Tensor, "2 3"]
    """Low and high corner of the room."""
    kinds: Int[Tensor, "object"]
    """``BOX``, ``ELLIPSOID``, ``CYLINDER``, ``GABLE`` or ``PYRAMID``."""
    centers: Float[Tensor, "object 3"]
    half_sizes: Float[Tensor, "object 3"]
    """Half extents before the yaw."""
    yaws: Float[Tensor, "object"]
    """Rotation about the vertical, radians."""
    groups: Int[Tensor, "object"]
    """Objects with the same number are parts of one thing."""
    textures: Int[Tensor, "surface"]
    """Index into the atlas."""
    mappings: Float[Tensor, "surface 4"]
    """Texture repeats per scene unit (u, v) and offset in repeats (u, v)."""
    tints: Float[Tensor, "surface 3"]
    """Linear factor on the texture."""
    emissions: Float[Tensor, "surface"]
    """Radiance a surface gives off by itself, as a factor on its color (windows)."""
    texture_names: tuple[str, ...]
    """What each texture of the atlas shows."""
    atlas: Float[Tensor, "texel 4"]
    """Linear colors of all textures, mip level by mip level; the fourth channel is empty and aligns the rows."""
    light: Float[Tensor, "2 3"]
    """Position of the lamp, or outdoors the unit vector to the sun, and color of the light."""
    ambient: Float[Tensor, "2 3"]
    """Color of the ambient light and the direction it mostly comes from."""
    exposure: Float[Tensor, ""]
    things: tuple[str, ...] = ()
    """Words for what was put into the world, for its caption."""
    sky: Sky | None = None
    terrain: Terrain | None = None

    def to(self, device: torch.device | str) -> "World":
        """Moves the tensors to a device."""
        return _moved(self, device)


def _moved(part: Any, device: torch.device | str) -> Any:
    moved = {}
    for field in fields(part):
        value = getattr(part, field.name)
        if isinstance(value, Tensor):
            moved[field.name] = value.to(device)
        elif isinstance(value, Sky | Terrain):
            moved[field.name] = _moved(value, device)
    return replace(part, **moved)
