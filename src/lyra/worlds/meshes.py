"""Textured triangles, and textures with their mip levels: what maps and furniture become before they are drawn.

Axes are those of cameras (x right, y down, z forward), lengths in metres.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8

UNLIT = -1
"""The light offset of a triangle that has no stored light."""


@dataclass(frozen=True)
class Textures:
    """Pictures, each halved again and again down to one texel, in one flat array."""

    texels: UInt8[np.ndarray, "texel 4"]
    """sRGB and opacity."""
    offsets: Int[np.ndarray, "texture level"]
    """Where a level begins; levels beyond the last repeat it."""
    sizes: Int[np.ndarray, "texture level 2"]
    """Width and height."""
    holes: UInt8[np.ndarray, "texture"]
    """1 where texels that are more than half transparent are not there."""


@dataclass(frozen=True)
class Mesh:
    """Triangles with textures and, where a map brings it, stored light."""

    vertices: Float[np.ndarray, "triangle 3 3"]
    uv: Float[np.ndarray, "triangle 3 2"]
    """In repeats of the texture; v runs down its rows."""
    texture: Int[np.ndarray, "triangle"]
    tint: Float[np.ndarray, "triangle 3"]
    """What the texture's color is multiplied by."""
    surface: Int[np.ndarray, "triangle"]
    """Triangles of one face share its number."""
    light: UInt8[np.ndarray, "luxel 3"]
    light_offset: Int[np.ndarray, "triangle"]
    light_size: Int[np.ndarray, "triangle 2"]
    """Luxels across and down."""
    light_uv: Float[np.ndarray, "triangle 3 2"]
    """In luxels, the first one's centre at 0."""
    textures: Textures

    def __len__(self) -> int:
        return len(self.vertices)


def mip_chain(image: UInt8[np.ndarray, "height width 4"], largest: int = 512) -> list[np.ndarray]:
    """A picture halved again and again by averaging 2 x 2 texels, from at most ``largest`` texels a side."""
    chain = [image]
    while max(chain[-1].shape[:2]) > 1:
        chain.append(_halve(chain[-1]))
    while max(chain[0].shape[:2]) > largest:
        chain.pop(0)
    return [np.ascontiguousarray(level) for level in chain]


def _halve(image: np.ndarray) -> np.ndarray:
    rows, columns = image.shape[0] // 2, image.shape[1] // 2
    whole = image.astype(np.uint16)
    if rows:
        whole = whole[: 2 * rows].reshape(rows, 2, -1, 4).sum(1) // 2
    if columns:
        whole = whole[:, : 2 * columns].reshape(len(whole), columns, 2, 4).sum(2) // 2
    return whole.astype(np.uint8)


def build_textures(chains: Sequence[list[np.ndarray]]) -> Textures:
    """Textures of pictures with their mip levels (see ``mip_chain``)."""
    levels = max(len(chain) for chain in chains)
    offsets = np.zeros((len(chains), levels), np.int64)
    sizes = np.zeros((len(chains), levels, 2), np.int32)
    texels, end = [], 0
    for index, chain in enumerate(chains):
        for level in range(levels):
            if level < len(chain):
                flat = chain[level].reshape(-1, 4)
                offsets[index, level], end = end, end + len(flat)
                texels.append(flat)
            else:
                offsets[index, level] = offsets[index, level - 1]
            sizes[index, level] = chain[min(level, len(chain) - 1)].shape[1::-1]
    holes = np.array([(chain[0][..., 3] < 128).mean() > 0.01 for chain in chains], np.uint8)
    return Textures(np.concatenate(texels), offsets, sizes, holes)


def unlit_mesh(
    vertices: Float[np.ndarray, "triangle 3 3"],
    uv: Float[np.ndarray, "triangle 3 2"],
    texture: Int[np.ndarray, "triangle"],
    tint: Float[np.ndarray, "triangle 3"],
    surface: Int[np.ndarray, "triangle"],
    textures: Textures,
) -> Mesh:
    """Triangles without stored light."""
    count = len(vertices)
    return Mesh(
        vertices.astype(np.float32),
        uv.astype(np.float32),
        texture.astype(np.int32),
        tint.astype(np.float32),
        surface.astype(np.int32),
        np.zeros((0, 3), np.uint8),
        np.full(count, UNLIT, np.int64),
        np.ones((count, 2), np.int32),
        np.zeros((count, 3, 2), np.float32),
        textures,
    )
