"""Ray tracing: a world and cameras become colors and exact z-depth (``render_world``).

Rays are rows ``[3, ray]`` in the room frame. They are culled against bounding spheres and only the surviving (object,
ray) pairs are intersected, so the cost follows the picture rather than the number of objects. Textures are filtered by
a mip chain, and colors are supersampled only where neighbouring pixels differ.
"""

import math
from collections.abc import Iterator

import torch
from jaxtyping import Float
from torch import Tensor

from lyra.cameras import Cameras
from lyra.worlds.textures import TEXTURE_SIZE, sample_atlas
from lyra.worlds.world import BOX, CYLINDER, SPHERE, World

_CHUNK = 1 << 16  # rays at a time: rows stay in cache, and large images stay bounded in memory
_REFINE_ABOVE = 0.05  # difference of neighbouring pixels (sRGB units) from which a pixel is supersampled
_CONTACT = 0.1  # reach of contact darkening, scene units


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


def first_hits(world: World, o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
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
    distance, surface = first_hits(world, o, d)
    point = o + distance * d
    normal, uv = _surface_frames(world, point, surface)
    slant = (normal * d).sum(0).abs() / _length(d)
    repeats = world.mappings[surface, :2].amax(1)
    footprint = TEXTURE_SIZE * repeats * distance * pixel * slant.clamp(min=0.05).rsqrt()
    albedo = sample_atlas(world, world.textures[surface], uv, footprint) * world.tints[surface]
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
