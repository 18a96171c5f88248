"""What a world is: tensors that ``sampling`` fills in and ``tracing`` reads. Nothing is computed here.

A world is a box-shaped room with furniture-like boxes, spheres and cylinders. Its geometry is stored in the *room
frame*, whose axes follow the walls (x right, y down, z forward). Room and world share their origin, the centre of
the input camera; ``World.rotation`` turns world vectors into room vectors. The median z-depth of the input view is 1.
"""

from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

BOX, SPHERE, CYLINDER = range(3)
INPUT_FOV = 55.0
"""Field of view in degrees of the input view that fixes a world's scale."""


@dataclass(frozen=True)
class World:
    """A room with objects, textures and one light; lengths in scene units, room frame.

    Surfaces are numbered: 0 to 5 are the room's left wall, right wall, ceiling, floor, back wall and front wall, 6
    and onward the objects in their order.
    """

    rotation: Float[Tensor, "3 3"]
    """World to room."""
    room: Float[Tensor, "2 3"]
    """Low and high corner of the room."""
    kinds: Int[Tensor, "object"]
    """``BOX``, ``SPHERE`` or ``CYLINDER`` (upright)."""
    centers: Float[Tensor, "object 3"]
    half_sizes: Float[Tensor, "object 3"]
    """Half extents before the yaw; a sphere's radius, thrice; a cylinder's (radius, half height, radius)."""
    yaws: Float[Tensor, "object"]
    """Rotation about the vertical, radians."""
    textures: Int[Tensor, "surface"]
    """Index into the atlas."""
    mappings: Float[Tensor, "surface 4"]
    """Texture repeats per scene unit (u, v) and offset in repeats (u, v)."""
    tints: Float[Tensor, "surface 3"]
    """Linear factor on the texture."""
    emissions: Float[Tensor, "surface"]
    """Radiance a surface gives off by itself, as a factor on its color (windows)."""
    atlas: Float[Tensor, "texel 4"]
    """Linear colors of all textures, mip level by mip level; the fourth channel is empty and aligns the rows."""
    light: Float[Tensor, "2 3"]
    """Position and color of the light."""
    ambient: Float[Tensor, "2 3"]
    """Color of the ambient light and the direction it mostly comes from."""
    exposure: Float[Tensor, ""]

    def to(self, device: torch.device | str) -> "World":
        """Moves the tensors to a device."""
        return replace(self, **{f.name: getattr(self, f.name).to(device) for f in fields(self)})
