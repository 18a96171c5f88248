"""Seeded, endless textured rooms, ray traced in plain torch with exact depth.

A world is a box-shaped room with furniture-like boxes, spheres and cylinders. Its geometry is stored in the *room
frame*, whose axes follow the walls (x right, y down, z forward). Room and world share their origin, the centre of
the input camera; ``World.rotation`` turns world vectors into room vectors. The median z-depth of the input view is 1.

Rays are rows ``[3, ray]``. They are culled against bounding spheres and only the surviving (object, ray) pairs are
intersected, so the cost follows the picture rather than the number of objects. Textures are filtered by a mip
chain, and colors are supersampled only where neighbouring pixels differ.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.random import Generator
from torch import Tensor

from lyra.cameras import Cameras, intrinsics_from_fov

BOX, SPHERE, CYLINDER = range(3)
INPUT_FOV = 55.0
"""Field of view in degrees of the input view that fixes a world's scale."""
_SIZE, _LEVELS = 256, 7  # texels along a texture's side; mip levels
_CHUNK = 1 << 16  # rays at a time: rows stay in cache, and large images stay bounded in memory
_REFINE_ABOVE = 0.05  # difference of neighbouring pixels (sRGB units) from which a pixel is supersampled
_CONTACT = 0.1  # reach of contact darkening, scene units
_TEXTURES = ("plaster", "plaster", "plaster", "wood", "wood", "tiles", "brick", "marble", "stone", "carpet")
_TEXTURES += ("checks", "stripes", "books", "poster", "poster", "poster")


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


# ------------------------------------------------------------------------------------------------ textures


def _noise(rng: Generator, power: float, stretch: tuple[int, int] = (1, 1)) -> np.ndarray:
    """Tileable noise with amplitude 1/f^power and unit deviation; ``stretch`` smooths along (v, u)."""
    fy = np.fft.fftfreq(_SIZE, 1 / _SIZE)[:, None] * stretch[0]
    fx = np.fft.rfftfreq(_SIZE, 1 / _SIZE)[None] * stretch[1]
    amplitude = (fx**2 + fy**2 + 1) ** (-power / 2)
    amplitude[0, 0] = 0
    white = rng.standard_normal((2, *amplitude.shape), dtype=np.float32)
    field = torch.fft.irfft2(torch.from_numpy((white[0] + 1j * white[1]) * amplitude), s=(_SIZE, _SIZE))
    return (field / field.std()).numpy().astype(np.float32)


def _hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """One sRGB color from hue (turns), saturation and value."""
    ramp = np.abs((hue + np.array([0, 2 / 3, 1 / 3])) % 1 * 6 - 3) - 1
    return (value * (1 - saturation * (1 - ramp.clip(0, 1)))).astype(np.float32)


def _natural(rng: Generator, low: float = 0.15, high: float = 0.85) -> np.ndarray:
    """A muted color: mostly the warm hues of wood, clay and cloth, at times blue, green or any other."""
    family = rng.choice(4, p=(0.6, 0.2, 0.12, 0.08))
    hue = (rng.normal(0.08, 0.04), rng.normal(0.58, 0.05), rng.normal(0.3, 0.06), rng.random())[family]
    # Cloth and paint of cold hues are rarely as saturated as wood and leather.
    saturation = rng.beta(1.6, 2.2) * (0.85, 0.6, 0.45, 0.45)[family]
    return _hsv(hue % 1, saturation, rng.uniform(low, high))


def _ramp(value: np.ndarray, colors: Sequence[np.ndarray]) -> np.ndarray:
    """Maps values around 0 (unit deviation) through a row of colors."""
    position = (0.5 + 0.28 * value).clip(0, 1) * (len(colors) - 1)
    stops = np.arange(len(colors))
    return np.stack([np.interp(position, stops, [c[i] for c in colors]) for i in range(3)], -1)


def _cells(rng: Generator, rows: int, columns: int, joint: float, offset: bool) -> tuple[np.ndarray, ...]:
    """Brick-like cells: a random number of unit deviation for each, and how much of a texel is joint."""
    v, u = np.meshgrid(np.arange(_SIZE) / _SIZE, np.arange(_SIZE) / _SIZE, indexing="ij")
    row = (v * rows).astype(int)
    shift = rng.random(rows) if rng.random() < 0.3 else np.arange(rows) % 2 / 2
    along = (u * columns + (shift[row] if offset else 0)) % columns
    tone = rng.standard_normal((rows, columns))[row, along.astype(int)]
    edge = np.minimum(0.5 - np.abs(v * rows % 1 - 0.5), (0.5 - np.abs(along % 1 - 0.5)) * rows / columns)
    return tone, (1 - edge / joint).clip(0, 1) ** 0.5


def _books(rng: Generator, rows: int, columns: int) -> np.ndarray:
    """Books on shelves: rows of upright blocks of random width, height and color."""
    colors = [_natural(rng) for _ in range(7)]
    image = np.full((_SIZE, _SIZE, 3), 0.07, np.float32) + 0.05 * colors[0]
    edges = np.linspace(0, _SIZE, rows + 1).astype(int)
    for top, bottom in pairwise(edges.tolist()):
        cuts = np.sort(rng.integers(0, _SIZE, columns))
        for left, right in pairwise(cuts.tolist()):
            if rng.random() < 0.12:
                continue
            start = top + int((bottom - top) * rng.uniform(0.1, 0.4))
            shade = rng.uniform(0.6, 1.1) * (0.75 + 0.25 * np.sin(np.linspace(0.3, 2.8, right - left)))
            image[start:bottom, left:right] = colors[rng.integers(len(colors))] * shade[:, None]
        image[bottom - 6 : bottom] = colors[0] * 0.8
    return image


def _poster(rng: Generator) -> np.ndarray:
    """A framed picture: a landscape, a blot painting or a composition of rectangles and discs."""
    colors = [_natural(rng, 0.2, 1.0) for _ in range(5)]
    y, x = np.meshgrid(np.linspace(0, 1, _SIZE), np.linspace(0, 1, _SIZE), indexing="ij")
    style = rng.integers(3)
    if style == 0:
        image = _ramp(y * 3 - 2 + 0.4 * _noise(rng, 2.2, (2, 1)), [_hsv(0.58, 0.5, 0.8), _hsv(0.1, 0.15, 0.95)])
        for depth, color in enumerate(colors[:3]):
            ridge = 0.45 + 0.17 * depth + 0.07 * _noise(rng, 1.7)[depth]
            hill = color * (0.9 - 0.15 * depth) * (1 + 0.12 * _noise(rng, 1.0)[..., None])
            image = np.where((y > ridge)[..., None], hill, image)
    elif style == 1:
        image = _ramp(np.round(_noise(rng, 1.9) * 2) / 2 + 0.1 * _noise(rng, 1.0), colors)
    else:
        image = colors[0] * np.ones((_SIZE, _SIZE, 1), np.float32)
        for _ in range(rng.integers(4, 12)):
            cx, cy, w, h = *rng.random(2), *rng.uniform(0.04, 0.3, 2)
            disc = ((x - cx) / w) ** 2 + ((y - cy) / h) ** 2 < 1
            rectangle = (np.abs(x - cx) < w) & (np.abs(y - cy) < h)
            inside = (disc if rng.random() < 0.4 else rectangle)[..., None]
            image = np.where(inside, colors[int(rng.integers(1, 5))] * rng.uniform(0.6, 1.1), image)
    border = np.minimum(np.minimum(x, 1 - x), np.minimum(y, 1 - y))
    mat, width = rng.uniform(0, 0.12), rng.uniform(0.02, 0.05)
    image = np.where((border < mat + width)[..., None], 0.88, image * (1 + 0.05 * _noise(rng, 1.2)[..., None]))
    return np.where((border < width)[..., None], _natural(rng, 0.1, 0.5), image)


def _woven(rng: Generator, kind: str) -> np.ndarray:
    """Checks or stripes with the unevenness of cloth or print."""
    v, u = np.meshgrid(np.arange(_SIZE) / _SIZE, np.arange(_SIZE) / _SIZE, indexing="ij")
    count = int(rng.integers(2, 7))
    wave = np.sin(2 * np.pi * count * u) + (0.5 * np.sin(4 * np.pi * count * u) if rng.random() < 0.5 else 0)
    if kind == "checks":
        wave = wave * np.sin(2 * np.pi * count * v) if rng.random() < 0.5 else wave + np.sin(2 * np.pi * count * v)
    return _ramp(np.tanh(wave * 5) * 1.2 + 0.25 * _noise(rng, 0.9), [_natural(rng) for _ in range(3)])


def _texture(rng: Generator, kind: str) -> np.ndarray:
    """One tileable sRGB texture [v, u, 3] of a kind named in ``_TEXTURES``."""
    base, fine = _natural(rng), _noise(rng, rng.uniform(0.7, 1.1))
    dark, light = base * rng.uniform(0.4, 0.75), (base * rng.uniform(1.1, 1.4)).clip(0, 1)
    if kind == "plaster":
        pale = 1 - (1 - _natural(rng, 0.55, 0.95)) * rng.uniform(0.25, 1.0)
        relief = rng.uniform(0.01, 0.04) * fine + rng.uniform(0, 0.03) * _noise(rng, 1.8)
        return pale * (1 + relief[..., None])
    if kind == "wood":
        wood = _hsv(rng.uniform(0.05, 0.1), rng.uniform(0.3, 0.65), rng.uniform(0.3, 0.8))
        rows = int(rng.integers(3, 8))
        tone, joint = _cells(rng, rows, int(rng.integers(1, 3)), 0.02 * rows / 4, True)
        rings = np.sin(14 * _noise(rng, 1.9, (1, 9)) + 6 * tone) * 0.5 + 0.6 * _noise(rng, 0.8, (1, 14))
        image = _ramp(0.8 * rings + 0.7 * tone, [wood * 0.6, wood * 0.85, wood, wood * 1.15])
        return image * (1 - 0.6 * joint[..., None])
    if kind in ("tiles", "brick"):
        rows = int(rng.integers(2, 5)) * 2
        base = _hsv(rng.normal(0.04, 0.02) % 1, 0.5, rng.uniform(0.4, 0.75)) if kind == "brick" else base
        spread = rng.uniform(0.1, 0.3) if kind == "brick" else rng.uniform(0, 0.12)
        tone, joint = _cells(rng, rows, rows // 2 if kind == "brick" else rows, 0.06, kind == "brick")
        body = base * (1 + spread * tone + rng.uniform(0.03, 0.12) * fine)[..., None]
        return body + (rng.uniform(0.2, 0.9) - body) * joint[..., None]
    if kind == "marble":
        vein = np.abs(_noise(rng, 1.7) + 0.3 * fine)
        veined = 2.5 * np.exp(-5 * vein) - 1.2 + 0.4 * _noise(rng, 1.6)
        return _ramp(veined, [0.4 + 0.55 * light, 0.3 + 0.5 * base, dark])
    if kind == "stone":
        return _ramp(_noise(rng, rng.uniform(1.1, 1.6)), [dark, base, 0.8 * base + 0.2 * _natural(rng), light])
    if kind == "carpet":
        pattern = np.tanh(3 * _noise(rng, 2.0)) * rng.uniform(0, 1)
        return _ramp(pattern + 0.6 * _noise(rng, 0.4), [dark, base, light])
    if kind == "books":
        return _books(rng, int(rng.integers(2, 5)), int(rng.integers(9, 20)))
    return _poster(rng) if kind == "poster" else _woven(rng, kind)


def _make_atlas(rng: Generator) -> Float[Tensor, "texel 4"]:
    """All textures in linear color with their mip chains, level-major."""
    images = np.stack([_texture(rng, kind) for kind in _TEXTURES]).clip(0.01, 0.97).astype(np.float32)
    level = torch.from_numpy(images).pow(2.2).permute(0, 3, 1, 2)
    levels = []
    for _ in range(_LEVELS):
        levels.append(level.permute(0, 2, 3, 1).reshape(-1, 3))
        level = torch.nn.functional.avg_pool2d(level, 2)
    return torch.nn.functional.pad(torch.cat(levels), (0, 1))


def _sample_atlas(world: World, texture: Tensor, uv: Tensor, footprint: Tensor) -> Float[Tensor, "ray 3"]:
    """Trilinear lookup; ``uv`` [2, ray] in repeats, ``footprint`` in texels per pixel."""
    count = len(_TEXTURES)
    level = footprint.clamp(min=1).log2().clamp(max=_LEVELS - 1.001)
    lower = level.long()
    texels, weights = [], []
    for step in (0, 1):
        size = _SIZE >> (lower + step)
        # Texels before level k: count * SIZE^2 * (1 + 1/4 + ... ) = 4/3 count (SIZE^2 - size^2).
        start = count * 4 * (_SIZE * _SIZE - size * size) // 3 + texture * (size * size)
        position = uv * size - 0.5
        corner = position.floor()
        u, v = position - corner
        u0, v0 = corner.long()
        blend = (level - lower) if step else 1 - (level - lower)
        columns = (u0 & (size - 1), (u0 + 1) & (size - 1))
        for row, share in ((v0, blend * (1 - v)), (v0 + 1, blend * v)):
            first = start + (row & (size - 1)) * size
            texels += [first + columns[0], first + columns[1]]
            weights += [share * (1 - u), share * u]
    # One fused gather and weighted sum: several times faster than indexing corner by corner.
    taps = torch.stack(texels, 1), torch.stack(weights, 1)
    bag = torch.nn.functional.embedding_bag(taps[0], world.atlas, per_sample_weights=taps[1], mode="sum")
    return bag[:, :3]


# ------------------------------------------------------------------------------------------------ tracing


def _length(vectors: Tensor) -> Tensor:
    """Euclidean length along the first axis; ``Tensor.norm`` is an order of magnitude slower there."""
    return (vectors * vectors).sum(0).sqrt()


def _yawed(world: World, owner: Tensor, vectors: Tensor, sign: int = 1) -> Tensor:
    """Turns room vectors [3, ray] into the frame of each ray's object (``sign`` -1: back)."""
    yaw = world.yaws.index_select(0, owner)
    cos, sin = yaw.cos(), sign * yaw.sin()
    x, y, z = vectors
    return torch.stack([cos * x - sin * z, y, sin * x + cos * z])


def _slab_span(half: Tensor, o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave the slabs |p| <= half of all rows at once."""
    inverse = 1 / torch.where(d == 0, 1e-9, d)
    a, b = (-half - o) * inverse, (half - o) * inverse
    return torch.minimum(a, b).amax(0), torch.maximum(a, b).amin(0)


def _ball_span(radius: Tensor, o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave a ball (a disc, with two rows) about the origin; near is infinite where they miss."""
    squared = (d * d).sum(0).clamp(min=1e-12)
    closest = -(o * d).sum(0) / squared
    gap = o + closest * d  # the difference of squares, rather than a discriminant: float32 is enough for it
    reach = (radius**2 - (gap * gap).sum(0)) / squared
    root = reach.clamp(min=0).sqrt()
    return torch.where(reach > 0, closest - root, torch.inf), closest + root


def _spans(kind: int, half: Tensor, o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave primitives in their own frame; near > far where they miss."""
    if kind == BOX:
        return _slab_span(half, o, d)
    if kind == SPHERE:
        return _ball_span(half[0], o, d)
    near, far = _slab_span(half[1:2], o[1:2], d[1:2])
    low, high = _ball_span(half[0], o[::2], d[::2])
    return torch.maximum(low, near), torch.minimum(high, far)


def _object_spans(world: World, o: Tensor, d: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Yields, per kind, (object, ray, near, far) of the pairs whose ray meets the object's bounding sphere."""
    squared, along = (d * d).sum(0), (o * d).sum(0)
    radii = world.half_sizes.norm(dim=1)
    for kind in (BOX, SPHERE, CYLINDER):
        owners = (world.kinds == kind).nonzero()[:, 0]
        c = world.centers[owners, :, None]
        toward = c[:, 0] * d[0] + c[:, 1] * d[1] + c[:, 2] * d[2] - along
        # |c - o|^2 - r^2: the ray meets the sphere where toward^2 >= |d|^2 times this, without a square root.
        excess = (c[:, 0] - o[0]) ** 2 + (c[:, 1] - o[1]) ** 2 + (c[:, 2] - o[2]) ** 2
        excess = excess - (1.01 * radii[owners, None]) ** 2
        row, ray = ((toward * toward >= squared * excess) & ((toward > 0) | (excess < 0))).nonzero(as_tuple=True)
        owner = owners[row]
        source = o[:, ray] if o.shape[1] > 1 else o
        local_o = _yawed(world, owner, source - world.centers[owner].T)
        local_d = _yawed(world, owner, d.index_select(1, ray))
        near, far = _spans(kind, world.half_sizes[owner].T, local_o, local_d)
        yield owner, ray, near, far


def _first_hits(world: World, o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Distance along each ray in units of ``d``, and the surface met first (see ``World``)."""
    exits = torch.maximum((world.room[0, :, None] - o) / d, (world.room[1, :, None] - o) / d)
    best, axis = exits.min(0)
    surface = 2 * axis + (d.gather(0, axis[None])[0] > 0)
    for owner, ray, near, far in _object_spans(world, o, d):
        valid = (near < far) & (near > 1e-4) & (near < best[ray])
        owner, ray, near = owner[valid], ray[valid], near[valid]
        best = best.scatter_reduce(0, ray, near, "amin")
        winner = near == best[ray]
        surface[ray[winner]] = 6 + owner[winner]
    return best, surface


def _surface_frames(world: World, point: Tensor, surface: Tensor) -> tuple[Tensor, Tensor]:
    """Normals [3, ray] and texture positions [2, ray], in repeats, at points on the stated surfaces."""
    axis = surface.clamp(max=5) // 2
    normal = torch.zeros_like(point)
    normal.scatter_(0, axis[None], (1 - 2 * (surface.clamp(max=5) % 2))[None].to(point))
    place = point.clone()
    ray = (surface >= 6).nonzero()[:, 0]
    owner = surface[ray] - 6
    p = _yawed(world, owner, point[:, ray] - world.centers[owner].T)
    kind, half = world.kinds[owner], world.half_sizes[owner].T
    relative = p / half
    a, b, c = relative.abs()
    face = torch.where(b > torch.maximum(a, c), 1, torch.where(c > a, 2, 0))
    flat = torch.zeros_like(p).scatter_(0, face[None], relative.gather(0, face[None]).sign())
    radial = torch.stack([relative[0], torch.where(kind == SPHERE, relative[1], 0), relative[2]])
    cap = (kind == CYLINDER) & (b > (a * a + c * c).sqrt())
    round_ = (kind != BOX) & ~cap
    face = torch.where(cap, 1, face)
    upright = torch.zeros_like(p)
    upright[1] = relative[1].sign()
    local = torch.where(round_, radial, torch.where(cap, upright, flat))
    normal[:, ray] = _yawed(world, owner, local, -1)
    around = torch.atan2(relative[0], relative[2]) * half[0]
    # Shared with the room below: u runs along z on faces across x, else along x; v along z on faces across y.
    place[:, ray] = torch.where(round_, torch.stack([around, p[1], around]), p)
    axis[ray] = torch.where(round_, 2, face)
    uv = torch.stack([torch.where(axis == 0, place[2], place[0]), torch.where(axis == 1, place[2], place[1])])
    mapping = world.mappings[surface].T
    return normal, uv * mapping[:2] + mapping[2:]


def _shadows(world: World, point: Tensor) -> Tensor:
    """How much of the light is blocked, 0 to 1. It grows with the blocked length: soft edges."""
    light = world.light[0, :, None]
    toward = point - light
    blocked = torch.zeros_like(point[0])
    for _, ray, near, far in _object_spans(world, light, toward):
        # The surface's own object ends at the point (near or far about 1) and must not shade it.
        depth = (far.clamp(max=0.995) - near.clamp(min=0)) * _length(toward)[ray]
        softness = 0.02 + 0.15 * (1 - near).clamp(0, 1)
        valid = (near < 0.985) & (depth > 0)
        blocked.scatter_reduce_(0, ray[valid], (depth / softness).clamp(max=1)[valid], "amax")
    return blocked


def _openness(world: World, point: Tensor, surface: Tensor) -> Tensor:
    """Ambient occlusion in corners of the room and where objects stand, 0 to 1."""
    low, high = point - world.room[0, :, None], world.room[1, :, None] - point
    gaps = torch.cat([low, high]).clamp(min=0)
    # A wall does not darken itself: the constant it contributes is divided out.
    own = torch.where(surface < 6, 1 / 0.55, 1.0)
    result = (1 - 0.45 * torch.exp(gaps * (-1 / (2 * _CONTACT)))).prod(0) * own
    radii = world.half_sizes.norm(dim=1) + _CONTACT
    c = world.centers[..., None]
    apart = (c[:, 0] - point[0]) ** 2 + (c[:, 1] - point[1]) ** 2 + (c[:, 2] - point[2]) ** 2
    owner, ray = ((apart < radii[:, None] ** 2) & (surface - 6 != torch.arange(len(c)).to(surface)[:, None])).nonzero(
        as_tuple=True
    )
    p = _yawed(world, owner, point[:, ray] - world.centers[owner].T).abs()
    gap = _length((p - world.half_sizes[owner].T).clamp(min=0))
    dark = 1 - 0.6 * (1 - gap / _CONTACT).clamp(min=0) ** 2
    return result * torch.ones_like(result).scatter_reduce(0, ray, dark, "amin")


def _trace(world: World, o: Tensor, d: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
    """Radiance [ray, 3] and distance of room rays; ``pixel`` is a pixel's size at distance 1."""
    distance, surface = _first_hits(world, o, d)
    point = o + distance * d
    normal, uv = _surface_frames(world, point, surface)
    slant = (normal * d).sum(0).abs() / _length(d)
    repeats = world.mappings[surface, :2].amax(1)
    footprint = _SIZE * repeats * distance * pixel * slant.clamp(min=0.05).rsqrt()
    albedo = _sample_atlas(world, world.textures[surface], uv, footprint) * world.tints[surface]
    toward = world.light[0, :, None] - point
    range_ = _length(toward)
    lambert = (normal * toward).sum(0).clamp(min=0) / range_
    direct = lambert * (1 - _shadows(world, point)) / (0.35 + range_**2)
    fill = 0.55 + 0.45 * (normal * world.ambient[1, :, None]).sum(0)
    soft = fill * _openness(world, point, surface)
    light = direct[:, None] * world.light[1] + soft[:, None] * world.ambient[0]
    return albedo * (light + world.emissions[surface][:, None]), distance


def _develop(world: World, radiance: Tensor) -> Tensor:
    """Display-referred sRGB: exposure, a film-like shoulder, and the display's power."""
    return (1 - torch.exp(-world.exposure * radiance)).pow(1 / 2.2)


def _pixel_colors(
    world: World, cameras: Cameras, ray: Tensor, shift: tuple[float, float], size: float
) -> tuple[Tensor, Tensor]:
    """Colors (sRGB, [ray, 3]) and z-depth [ray] at flat pixel indices, sampled ``shift`` pixels off their centres."""
    area = cameras.height * cameras.width
    colors, depths = [], []
    for part in ray.split(_CHUNK):
        view, pixel = part // area, part % area
        pose, k = cameras.camera_to_world[view], cameras.intrinsics[view].T
        x = (pixel % cameras.width + 0.5 + shift[0] - k[2]) / k[0]
        y = (pixel // cameras.width + 0.5 + shift[1] - k[3]) / k[1]
        # Explicit sums: matrix products may run in TF32, which is too coarse for geometry.
        d = pose[:, :3, 0] * x[:, None] + pose[:, :3, 1] * y[:, None] + pose[:, :3, 2]
        d, o = ((v[:, None] * world.rotation).sum(2).T.contiguous() for v in (d, pose[:, :3, 3]))
        d = torch.where(d.abs() < 1e-7, 1e-7, d)
        radiance, depth = _trace(world, o, d, size / k[0])
        colors.append(_develop(world, radiance))
        depths.append(depth)
    return torch.cat(colors), torch.cat(depths)


def _rough_pixels(image: Tensor) -> Tensor:
    """Flat indices of the pixels of [view, height, width, 3] that differ from a neighbour by too much."""
    rough = torch.zeros(image.shape[:3], dtype=torch.bool, device=image.device)
    for axis in (1, 2):
        count = image.shape[axis] - 1
        step = (image.narrow(axis, 1, count) - image.narrow(axis, 0, count)).abs().amax(-1) > _REFINE_ABOVE
        rough.narrow(axis, 1, count).logical_or_(step)
        rough.narrow(axis, 0, count).logical_or_(step)
    return rough.flatten().nonzero()[:, 0]


@torch.no_grad()
def render_world(
    world: World, cameras: Cameras, supersample: int = 2
) -> tuple[Float[Tensor, "view 3 height width"], Float[Tensor, "view height width"]]:
    """Renders a world.

    Args:
        world: On the device of the cameras.
        cameras: In world coordinates (the input camera is the identity), float32.
        supersample: Samples per pixel along each side where neighbouring pixels differ; 1 turns refinement off.

    Returns:
        Display-referred sRGB colors in [0, 1], anti-aliased, and the exact z-depth in scene units through each
        pixel's centre (never averaged).
    """
    shape = (len(cameras), cameras.height, cameras.width)
    everything = torch.arange(math.prod(shape), device=cameras.intrinsics.device)
    colors, depth = _pixel_colors(world, cameras, everything, (0.0, 0.0), 1.0)
    if supersample > 1:
        ray = _rough_pixels(colors.view(*shape, 3))
        shifts = [(i + 0.5) / supersample - 0.5 for i in range(supersample)]
        total = torch.zeros_like(colors[ray])
        for shift in [(x, y) for y in shifts for x in shifts] if len(ray) else []:
            total += _pixel_colors(world, cameras, ray, shift, 1 / supersample)[0]
        colors[ray] = total / supersample**2
    return colors.view(*shape, 3).movedim(-1, 1).contiguous(), depth.view(shape)


# ------------------------------------------------------------------------------------------------ sampling


class _Builder:
    """Collects surfaces and objects while a world is drawn; lengths in units of the empty room's median depth."""

    def __init__(self, rng: Generator):
        self.rng = rng
        self.surfaces: list[tuple[int, list[float], np.ndarray, float]] = []
        self.objects: list[tuple[int, np.ndarray, np.ndarray, float]] = []

    def paint(self, names: str, repeats: tuple[float, float] | None = None, glow: float = 0.0):
        """Adds a surface with a texture of one of the named kinds; a pair of repeats centres it once on a face."""
        rng, wanted = self.rng, names.split()
        name = wanted[rng.integers(len(wanted))]
        index = rng.choice([i for i, kind in enumerate(_TEXTURES) if kind == name])
        if repeats:
            mapping = [*repeats, 0.5, 0.5]
        else:
            scale = math.exp(rng.uniform(math.log(0.7), math.log(2.2)))
            # Bricks, tiles and books have a size of their own.
            scale *= 1.7 if name in ("brick", "tiles", "books") else 1.0
            mapping = [scale, scale, *rng.random(2)]
        tint = rng.uniform(0.55, 1.0) * (1 + 0.1 * rng.standard_normal(3)).clip(0.7, 1.2)
        self.surfaces.append((int(index), mapping, tint, glow))

    def add(
        self, kind: int, center: Sequence[float] | np.ndarray, half: Sequence[float] | np.ndarray, yaw: float, *paint
    ) -> None:
        """Adds an object and its surface."""
        self.objects.append((kind, np.array(center), np.array(half), yaw))
        self.paint(*paint)
        if kind != BOX:  # a whole number of repeats around, so that no seam shows
            mapping, around = self.surfaces[-1][1], 2 * math.pi * float(np.array(half)[0])
            mapping[0] = max(1, round(around * mapping[0])) / around


def _distance(place: np.ndarray, center: np.ndarray, half: np.ndarray, yaw: float) -> float:
    """Distance of a point from an object's yawed bounding box."""
    x, y, z = place - center
    local = np.array([math.cos(yaw) * x - math.sin(yaw) * z, y, math.sin(yaw) * x + math.cos(yaw) * z])
    return float(np.linalg.norm((np.abs(local) - half).clip(0)))


def _furnish(build: _Builder, kind: int, center: np.ndarray, half: np.ndarray, turn: float) -> None:
    """One piece of furniture that fills the given box on the floor: a table, a seat or a plain body, with things on."""
    rng = build.rng
    (x, y, z), (width, height, depth) = center, half
    floor, top = y + height, y - height
    low_box = kind == BOX and 0.07 < height < 0.22
    style = rng.choice(["table", "seat", "body"], p=(0.45, 0.25, 0.3)) if low_box else "body"
    if style == "table":
        build.add(BOX, (x, top + 0.012, z), (width, 0.012, depth), turn, "wood marble plaster")
        leg = min(width, depth) * rng.uniform(0.15, 0.6)
        build.add(CYLINDER, (x, y + 0.012, z), (leg, height - 0.012, leg), turn, "wood plaster")
    elif style == "seat":
        # The back stands at the far long side; the cushion's top is halfway up.
        cloth = rng.choice(["carpet", "plaster", "checks", "stripes"])
        shift = np.array([math.sin(turn), math.cos(turn)]) * 0.8 * depth * np.array([-1, 1])
        build.add(BOX, (x, floor - 0.5 * height, z), (width, 0.5 * height, depth), turn, cloth)
        build.objects.append(
            (BOX, np.array([x + shift[0], y, z + shift[1]]), np.array([width, height, 0.2 * depth]), turn)
        )
        build.surfaces.append(build.surfaces[-1])
        top = floor - height
    else:
        build.add(kind, center, half, turn, "wood wood plaster plaster stone carpet checks stripes marble books")
    if kind != SPHERE and top > -0.2 and rng.random() < 0.6:
        small = min(width, depth) * rng.uniform(0.3, 0.6)
        other = int(rng.choice([BOX, SPHERE, CYLINDER]))
        tall = small if other == SPHERE else small * rng.uniform(0.6, 1.8)
        paints = "plaster wood marble stripes stone checks"
        build.add(other, (x, top - tall, z), (small, tall, small), turn, paints)


def _stand_objects(build: _Builder, room: np.ndarray, yaw: float, light: np.ndarray, count: int) -> None:
    """Furniture on the floor, clear of the cameras, the light and each other."""
    rng, floor = build.rng, room[1, 1]
    taken: list[tuple[float, float, float]] = []
    for _ in range(60):
        angle, far = yaw + rng.uniform(-0.62, 0.62), rng.uniform(0.85, 2.6)
        x, z = far * math.sin(angle), far * math.cos(angle)
        kind = int(rng.choice([BOX, BOX, BOX, BOX, CYLINDER, SPHERE]))
        width, depth = rng.uniform(0.07, 0.3), rng.uniform(0.06, 0.2)
        # Most things end below the eye; a few are tall and narrow.
        height = rng.uniform(0.04, 0.22)
        if rng.random() < 0.15:
            width, depth, height = 0.6 * width, 0.6 * depth, rng.uniform(0.25, 0.42 * (floor - room[0, 1]))
        if kind != BOX:
            width = depth = rng.uniform(0.04, 0.14)
        if kind == SPHERE:
            height = width
        spread = math.hypot(width, depth)
        x, z = np.clip([x, z], room[0, ::2] + width, room[1, ::2] - depth)
        center, half = np.array([x, floor - height, z]), np.array([width, height, depth])
        turn = rng.choice([0.0, math.pi / 2]) if rng.random() < 0.4 else rng.uniform(-0.8, 0.8)
        # The things on top may reach above the body: keep the whole column clear.
        column = np.array([x, 0.4 * floor, z]), np.array([width, 0.6 * floor, depth])
        clear = min(_distance(np.zeros(3), *part, turn) for part in ((center, half), column)) > 0.78
        clear &= _distance(light, center, half, turn) > 0.15
        if not clear or any(math.hypot(x - a, z - b) < 0.8 * (spread + r) for a, b, r in taken):
            continue
        taken.append((x, z, spread))
        _furnish(build, kind, center, half, float(turn))
        if len(build.objects) >= count:
            return


def _hang_pictures(build: _Builder, room: np.ndarray, yaw: float, count: int) -> None:
    """Pictures, book shelves and windows on the walls in view: thin boxes whose face shows one texture once."""
    rng = build.rng
    used: list[np.ndarray] = []
    for _ in range(20):
        angle = yaw + rng.uniform(-0.55, 0.55)
        ahead = np.array([math.sin(angle), 0.0, math.cos(angle)])
        with np.errstate(divide="ignore"):
            reach = np.where(ahead > 0, room[1], room[0])[::2] / ahead[::2]
        side = int(reach.argmin()) == 0
        center = ahead * reach.min()
        width, height = rng.uniform(0.1, 0.32), rng.uniform(0.1, 0.26)
        center[1] = rng.uniform(0.6 * room[0, 1], 0.1 * room[1, 1])
        height = min(height, 0.9 * (center[1] - room[0, 1]))
        apart = all(np.linalg.norm(center - other) > 0.6 for other in used)
        if not apart or np.linalg.norm(center) < 0.85 + width:
            continue
        used.append(center)
        half = (width, height, rng.uniform(0.008, 0.05))
        window = rng.random() < 0.2
        paint = ("poster plaster" if window else "poster poster poster books", (0.5 / width, 0.5 / height))
        build.add(BOX, center, half, math.pi / 2 if side else 0.0, *paint, rng.uniform(1, 3) if window else 0.0)
        if len(used) >= count:
            return


def _draw_room(rng: Generator) -> tuple[np.ndarray, np.ndarray, float]:
    """A room whose bare walls have a median depth of 1 and which the cameras cannot leave.

    Returns:
        World-to-room rotation, low and high corner, and the yaw of the view in radians. Objects only bring the median
        depth down, so that the clearances of the bare room grow when the furnished one is rescaled.
    """
    pixels = (np.arange(24) + 0.5) / 12 - 1
    y, x = np.meshgrid(pixels, pixels, indexing="ij")
    slope = math.tan(math.radians(INPUT_FOV) / 2)
    rays = np.stack([slope * x, slope * y, np.ones_like(x)], -1).reshape(-1, 3)
    reach = np.stack(np.meshgrid([-0.3, 0.3], [-0.3, 0.3], [-0.4, 0.4]), -1).reshape(-1, 3)
    while True:
        yaw, pitch, roll = rng.uniform(-0.7, 0.7), rng.normal(0.12, 0.1), rng.normal(0, 0.015)
        (cy, sy), (cp, sp), (cr, sr) = ((math.cos(a), math.sin(a)) for a in (yaw, pitch, roll))
        rotation = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]]) @ [[1, 0, 0], [0, cp, sp], [0, -sp, cp]]
        rotation = rotation @ [[cr, -sr, 0], [sr, cr, 0], [0, 0, 1]]
        low = np.array([-rng.uniform(0.7, 2.4), -rng.uniform(0.5, 1.0), -rng.uniform(1.0, 2.5)])
        high = np.array([rng.uniform(0.7, 2.4), rng.uniform(0.48, 0.8), rng.uniform(1.0, 3.0)])
        inward = rays @ rotation.T
        room = np.stack([low, high]) / np.median(np.maximum(low / inward, high / inward).min(1))
        corners = reach @ rotation.T
        sides = np.abs(room[:, 0]).min() > 0.66 and np.abs(room[:, 1]).min() > 0.41
        inside = (corners > room[0] + 0.07).all() and (corners < room[1] - 0.07).all()
        if sides and inside and room[0, 2] < -0.86 and room[1, 2] > 0.76:
            return rotation, room, yaw


def _draw(rng: Generator) -> World:
    """One random world without its textures; its scale and exposure are not settled yet."""
    build = _Builder(rng)
    rotation, room, yaw = _draw_room(rng)
    walls = "plaster plaster plaster plaster plaster plaster brick stone stripes tiles wood"
    build.paint(walls)
    first = build.surfaces[0]
    build.surfaces.append(first)
    build.paint("plaster")
    build.paint("wood wood tiles carpet marble stone checks")
    build.surfaces += [first, first]
    if rng.random() < 0.4:  # an accent wall
        build.paint(walls)
        build.surfaces[5] = build.surfaces.pop()
    light = np.array([rng.uniform(*(0.8 * room[:, 0])), 0.85 * room[0, 1], rng.uniform(0.2, 0.8 * room[1, 2])])
    _hang_pictures(build, room, yaw, int(rng.integers(1, 4)))
    _stand_objects(build, room, yaw, light, int(rng.integers(6, 15)))
    warm = _hsv(rng.uniform(0.06, 0.13), rng.uniform(0.0, 0.35), 1.0)
    cool = _hsv(rng.uniform(0.0, 1.0), rng.uniform(0.0, 0.12), 1.0) * rng.uniform(0.15, 0.6)
    fill = np.array([rng.normal(), -abs(rng.normal()) - 0.3, rng.normal() - 0.5])
    kinds, centers, halves, yaws = zip(*build.objects, strict=True)
    textures, mappings, tints, glows = zip(*build.surfaces, strict=True)

    def tensor(values: object) -> Tensor:
        return torch.from_numpy(np.array(values, np.float32))

    return World(
        rotation=tensor(rotation),
        room=tensor(room),
        kinds=torch.tensor(kinds),
        centers=tensor(centers),
        half_sizes=tensor(halves),
        yaws=tensor(yaws),
        textures=torch.tensor(textures),
        mappings=tensor(mappings),
        tints=tensor(tints),
        emissions=tensor(glows),
        atlas=torch.zeros(0, 4),
        light=tensor([light, warm * rng.uniform(0.6, 1.6)]),
        ambient=tensor([cool, fill / np.linalg.norm(fill)]),
        exposure=torch.tensor(1.0),
    )


def _input_camera(size: int) -> Cameras:
    """The camera that fixes a world's scale: the identity with ``INPUT_FOV``."""
    return Cameras(torch.eye(4)[None], intrinsics_from_fov(INPUT_FOV, size, size)[None], size, size)


def _scaled(world: World, factor: float) -> World:
    """The same world with all lengths multiplied."""
    light = torch.stack([world.light[0] * factor, world.light[1]])
    mappings = world.mappings.clone()
    mappings[:, :2] /= factor
    lengths = {name: getattr(world, name) * factor for name in ("room", "centers", "half_sizes")}
    return replace(world, **lengths, light=light, mappings=mappings)


def _input_depth(world: World, size: int = 128) -> Tensor:
    """The z-depth map of the input view, without colors."""
    camera = _input_camera(size)
    k = camera.intrinsics[0]
    v, u = torch.meshgrid(torch.arange(size) + 0.5, torch.arange(size) + 0.5, indexing="ij")
    d = torch.stack([(u - k[2]) / k[0], (v - k[3]) / k[1], torch.ones_like(u)]).flatten(1)
    d = (world.rotation[:, :, None] * d).sum(1)
    return _first_hits(world, torch.zeros(3, 1), torch.where(d.abs() < 1e-7, 1e-7, d))[0]


def sample_world(seed: int) -> World:
    """Draws the world of a seed.

    The input camera is at the origin of the world, looks along +z and sees the scene at a median z-depth of 1.
    Every object is at least 0.75 away from it, side walls 0.65, floor and ceiling 0.4, the wall behind 0.85.

    Args:
        seed: Any non-negative integer; the same seed gives the same bytes.

    Returns:
        The world, on the CPU, in float32.
    """
    rng = np.random.default_rng(seed)
    while True:
        world = _draw(rng)
        near, middle, far = torch.quantile(_input_depth(world), torch.tensor([0.05, 0.5, 0.95])).tolist()
        world = _scaled(world, 1 / middle)
        # A view of little more than one wall teaches nothing about depth.
        if far > 1.7 * near and len(world.kinds) >= 6:
            break
    world = replace(world, atlas=_make_atlas(rng))
    colors, _ = render_world(world, _input_camera(32), supersample=1)
    # An automatic exposure: the view's mean radiance is brought to a random brightness.
    radiance = -torch.log1p(-colors.clamp(max=0.9999).pow(2.2)).mean()
    return replace(world, exposure=torch.tensor(math.exp(rng.normal(-1.0, 0.3))) / radiance)


def describe_world(world: World) -> str:
    """A short caption: what stands in the room and what its surfaces are made of."""
    kinds = world.kinds.tolist()
    counts = [(kinds.count(kind), name) for kind, name in enumerate(("box", "sphere", "cylinder"))]
    things = [f"{n} {'boxes' if name == 'box' and n > 1 else name + 's' * (n > 1)}" for n, name in counts if n]
    made_of = {"tiles": "tiled", "checks": "checked", "stripes": "striped", "carpet": "carpeted"}
    wall, floor = (_TEXTURES[int(world.textures[surface])] for surface in (5, 3))
    wall, floor = made_of.get(wall, wall), made_of.get(floor, floor)
    return f"a room with {wall} walls, a {floor} floor, {', '.join(things)}"
