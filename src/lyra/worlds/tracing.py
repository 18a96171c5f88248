"""Ray tracing: a world and cameras become colors and exact z-depth (``render_world``).

Textures are filtered by a mip chain, and colors are supersampled only where neighbouring pixels differ.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from lyra.geometry.cameras import Cameras
from lyra.geometry.sky import MAX_DEPTH
from lyra.worlds.intersections import blocks_of, length, object_spans, rays_of, roof_planes, yawed
from lyra.worlds.patterns import TEXTURE_SIZE
from lyra.worlds.terrain import Horizons, find_horizons, ground_at, terrain_hits
from lyra.worlds.textures import sample_atlas
from lyra.worlds.world import CYLINDER, ELLIPSOID, GABLE, GROUND, PYRAMID, Sky, Terrain, World

_CHUNK = 1 << 16  # rays at a time: rows stay in cache, and large images stay bounded in memory
_TILE = 8  # pixels along a side: rays are traced tile by tile, so that neighbours in memory are neighbours in the image
_SORTED = 1024  # rays within which those of a surface are brought together
_CONTACTS_WITHIN = 2.5  # scene units from the origin; farther off outdoors, contact darkening is smaller than a pixel
_SHARPNESS = 0.7  # a mip level blurs more than a pixel does
_REFINE_ABOVE = 0.05  # difference of neighbouring pixels (sRGB units) from which a pixel is supersampled
_SKY = -1  # the surface number of rays that meet nothing


@dataclass(frozen=True)
class Rays:
    """Rays in the room frame, from the eyes of their views; one unit along ``d`` is one unit of z-depth."""

    o: Tensor  # [3, ray]
    d: Tensor  # [3, ray]
    view: Tensor  # [ray]


def camera_rays(world: World, cameras: Cameras, ray: Tensor, shift: tuple[float, float] = (0.0, 0.0)) -> Rays:
    """Rays through flat pixel indices, ``shift`` pixels off their centres."""
    area = cameras.height * cameras.width
    view, pixel = ray // area, ray % area
    pose, k = cameras.camera_to_world[view], cameras.intrinsics[view].T
    x = (pixel % cameras.width + 0.5 + shift[0] - k[2]) / k[0]
    y = (pixel // cameras.width + 0.5 + shift[1] - k[3]) / k[1]
    # Explicit sums: matrix products may run in TF32, which is too coarse for geometry.
    d = pose[:, :3, 0] * x[:, None] + pose[:, :3, 1] * y[:, None] + pose[:, :3, 2]
    d, o = ((v[:, None] * world.rotation).sum(2).T.contiguous() for v in (d, pose[:, :3, 3]))
    return Rays(o, torch.where(d.abs() < 1e-7, 1e-7, d), view)


def first_hits(world: World, rays: Rays, horizons: Horizons | None) -> tuple[Tensor, Tensor]:
    """Distance along each ray in units of ``d``, and the surface met first (see ``World``); -1 is the sky."""
    o, d = rays.o, rays.d
    exits = torch.maximum((world.room[0, :, None] - o) / d, (world.room[1, :, None] - o) / d)
    best, axis = exits.min(0)
    surface = 2 * axis + (d.gather(0, axis[None])[0] > 0)
    if world.sky is not None:
        surface = torch.where(surface == GROUND, GROUND, _SKY)
    if world.terrain is not None and horizons is not None:
        best = terrain_hits(world.terrain, horizons, rays.view, d)
        surface = torch.where(best.isfinite(), GROUND, _SKY)
    if world.sky is not None:
        surface = torch.where(best < MAX_DEPTH, surface, _SKY)
        best = best.clamp(max=MAX_DEPTH)
    for owner, ray, near, far in object_spans(world, o, d):
        valid = (near < far) & (near > 1e-4) & (near < best[ray])
        owner, ray, near = owner[valid], ray[valid], near[valid]
        best = best.scatter_reduce(0, ray, near, "amin")
        winner = near == best[ray]
        surface[ray[winner]] = 6 + owner[winner]
    return best, surface


def _local_normals(kind: Tensor, relative: Tensor, half: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Unit normals [3, ray] in the objects' frames, the axis of the face met, and whether it is round."""
    a, b, c = relative.abs()
    face = torch.where(b > torch.maximum(a, c), 1, torch.where(c > a, 2, 0))
    flat = torch.zeros_like(relative).scatter_(0, face[None], relative.gather(0, face[None]).sign())
    cap = (kind == CYLINDER) & (b > (a * a + c * c).sqrt())
    round_ = ((kind == CYLINDER) | (kind == ELLIPSOID)) & ~cap
    radial = torch.stack([relative[0], torch.where(kind == ELLIPSOID, relative[1], 0), relative[2]]) / half
    upright = torch.zeros_like(relative)
    upright[1] = relative[1].sign()
    normal = torch.where(round_, radial, torch.where(cap, upright, flat))
    face = torch.where(cap, 1, face)
    for roof in (GABLE, PYRAMID):
        ray = (kind == roof).nonzero()[:, 0]
        if not len(ray):
            continue
        planes, offsets = roof_planes(roof, relative)
        p = relative[:, ray]
        slack = (planes[:, 0, None] * p[0] + planes[:, 1, None] * p[1] + planes[:, 2, None] * p[2]) - offsets[:, None]
        best, plane = slack.max(0)
        slope = best > p.abs().amax(0) - 1
        normal[:, ray] = torch.where(slope, planes[plane].T / half[:, ray], normal[:, ray])
        face[ray] = torch.where(slope, torch.where(planes[plane, 0] != 0, 0, 2), face[ray])
    return normal / length(normal).clamp(min=1e-9), face, round_


def _surface_frames(world: World, point: Tensor, surface: Tensor) -> tuple[Tensor, Tensor]:
    """Normals [3, ray] and texture positions [2, ray], in repeats, at points on the stated surfaces."""
    side = surface.clamp(0, 5)
    axis = side // 2
    normal = torch.zeros_like(point)
    normal.scatter_(0, axis[None], (1 - 2 * (side % 2))[None].to(point))
    place = point.clone()
    ray = (surface >= 6).nonzero()[:, 0]
    owner = surface[ray] - 6
    p = yawed(world, owner, point[:, ray] - world.centers[owner].T)
    half = world.half_sizes[owner].T
    relative = p / half
    local, face, round_ = _local_normals(world.kinds[owner], relative, half)
    normal[:, ray] = yawed(world, owner, local, -1)
    around = torch.atan2(relative[0], relative[2]) * half[0]
    # Shared with the room below: u runs along z on faces across x, else along x; v along z on faces across y.
    place[:, ray] = torch.where(round_, torch.stack([around, p[1], around]), p)
    axis[ray] = torch.where(round_, 2, face)
    uv = torch.stack([torch.where(axis == 0, place[2], place[0]), torch.where(axis == 1, place[2], place[1])])
    mapping = world.mappings[surface.clamp(min=0)].T
    return normal, uv * mapping[:2] + mapping[2:]


def _shadows(world: World, point: Tensor) -> Tensor:
    """How much of the light is blocked, 0 to 1. It grows with the blocked length: soft edges."""
    blocked = torch.zeros_like(point[0])
    if world.sky is None:
        light = world.light[0, :, None]
        toward = point - light
        reach = length(toward)
        for _, ray, near, far in object_spans(world, light, toward):
            # The surface's own object ends at the point (near or far about 1) and must not shade it.
            depth = (far.clamp(max=0.995) - near.clamp(min=0)) * reach[ray]
            softness = 0.02 + 0.15 * (1 - near).clamp(0, 1)
            valid = (near < 0.985) & (depth > 0)
            blocked.scatter_reduce_(0, ray[valid], (depth / softness).clamp(max=1)[valid], "amax")
        return blocked
    toward = world.light[0, :, None].expand(-1, point.shape[1])
    for _, ray, near, far in object_spans(world, point, toward):
        near = near.clamp(min=0)
        depth = far - near
        valid = (depth > 0) & (far > 1e-3)
        blocked.scatter_reduce_(0, ray[valid], (depth / (0.004 + 0.03 * near)).clamp(max=1)[valid], "amax")
    return blocked


def _contacts(world: World, point: Tensor, surface: Tensor, reach: float) -> Tensor:
    """Darkening where objects stand near, 0 to 1."""
    blocks = blocks_of(point)
    middle = blocks.mean(-1)
    spread = length(blocks - middle[..., None]).amax(-1)
    radii = world.half_sizes.norm(dim=1)[:, None] + spread + reach
    c = world.centers[..., None]
    apart = (c[:, 0] - middle[0]) ** 2 + (c[:, 1] - middle[1]) ** 2 + (c[:, 2] - middle[2]) ** 2
    owner, block = (apart < radii**2).nonzero(as_tuple=True)
    p = yawed(world, owner, middle[:, block] - world.centers[owner].T).abs()
    near = length((p - world.half_sizes[owner].T).clamp(min=0)) < spread[block] + reach
    owner, block = owner[near], block[near]
    row, ray = rays_of(block, point.shape[1])
    owner = owner[row]
    other = world.groups[owner] != torch.where(surface < 6, -1, world.groups[(surface - 6).clamp(min=0)])[ray]
    owner, ray = owner[other], ray[other]
    p = yawed(world, owner, point[:, ray] - world.centers[owner].T).abs()
    gap = length((p - world.half_sizes[owner].T).clamp(min=0))
    dark = 1 - 0.6 * (1 - gap / reach).clamp(min=0) ** 2
    return torch.ones_like(point[0]).scatter_reduce(0, ray, dark, "amin")


def _openness(world: World, point: Tensor, surface: Tensor) -> Tensor:
    """Ambient occlusion in corners of the room and where objects stand, 0 to 1."""
    if world.sky is not None:
        near = ((point * point).sum(0) < _CONTACTS_WITHIN**2).nonzero()[:, 0]
        result = torch.ones_like(point[0])
        if len(near):
            result[near] = _contacts(world, point[:, near], surface[near], 0.04)
        return result
    reach = 0.1
    low, high = point - world.room[0, :, None], world.room[1, :, None] - point
    gaps = torch.cat([low, high]).clamp(min=0)
    # A wall does not darken itself: the constant it contributes is divided out.
    own = torch.where(surface < 6, 1 / 0.55, 1.0)
    corners = (1 - 0.45 * torch.exp(gaps * (-1 / (2 * reach)))).prod(0) * own
    return corners * _contacts(world, point, surface, reach)


def _sky_radiance(world: World, sky: Sky, d: Tensor) -> Tensor:
    """Radiance [ray, 3] of the sky in directions [3, ray]."""
    unit = d / length(d)
    rise = -unit[1]
    share = (1 - rise.clamp(0, 1)) ** 4
    color = sky.zenith + share[:, None] * (sky.horizon - sky.zenith)
    near_sun = (unit * world.light[0, :, None]).sum(0).clamp(min=0)
    halo = 0.25 * near_sun**6 + 0.9 * near_sun**60 + 8.0 * (near_sun > 0.9994)
    height = rise.clamp(min=0) + 0.08
    uv = 0.3 * torch.stack([unit[0], unit[2]]) / height
    texture = sky.texture.expand(len(rise))
    thickness = sample_atlas(world.atlas, texture, uv, 0.8 / height)[:, 0].pow(1 / 2.2)
    cloud = ((thickness - sky.cover) / 0.25).clamp(0, 1) * (rise / 0.08).clamp(0, 1)
    # Thick parts are darker below; thin rims are bright against the sun.
    lit = sky.cloud * (1.1 - 0.5 * (thickness - sky.cover).clamp(0, 0.6) + 0.3 * near_sun**8)[:, None]
    color = color + halo[:, None] * sky.glow
    return color + cloud[:, None] * (lit - color)


@dataclass(frozen=True)
class _Ground:
    """What the terrain adds at rays that met it."""

    ray: Tensor
    normal: Tensor
    albedo: Tensor
    sunlit: Tensor
    water: Tensor


def _terrain_ground(world: World, terrain: Terrain, point: Tensor, surface: Tensor, footprint: Tensor) -> _Ground:
    """Normals, mixed textures and baked sunlight of the terrain."""
    ray = (surface == GROUND).nonzero()[:, 0]
    x, z = point[0, ray], point[2, ray]
    ground = ground_at(terrain, x, z)
    normal = torch.stack([ground[:, 0], -torch.ones_like(x), ground[:, 1]])
    mapping = world.mappings[GROUND]
    uv = torch.stack([x, z]) * mapping[:2, None] + mapping[2:, None]
    albedo = sample_atlas(world.atlas, terrain.textures[:1].expand(len(ray)), uv, footprint[ray])
    for index, scale in ((1, 0.6), (2, 1.3)):
        share = ground[:, 3 + index]
        some = (share > 0.01).nonzero()[:, 0]
        other = sample_atlas(
            world.atlas, terrain.textures[index].expand(len(some)), uv[:, some] * scale, footprint[ray[some]] * scale
        )
        albedo[some] += share[some, None] * (other - albedo[some])
    albedo = albedo * (1 + ground[:, 3:4])
    return _Ground(ray, normal / length(normal), albedo, ground[:, 2], ground[:, 6])


def _lit(world: World, point: Tensor, surface: Tensor, normal: Tensor, sunlit: Tensor | None) -> Tensor:
    """Light [ray, 3] that falls on surfaces."""
    if world.sky is None:
        toward = world.light[0, :, None] - point
        reach = length(toward)
        direct = (normal * toward).sum(0).clamp(min=0) / reach / (0.35 + reach**2)
    else:
        direct = (normal * world.light[0, :, None]).sum(0).clamp(min=0)
        direct = direct if sunlit is None else direct * sunlit
    facing = (direct * world.light[1].amax() > 0.01).nonzero()[:, 0]
    if len(facing):
        direct[facing] *= 1 - _shadows(world, point[:, facing])
    fill = 0.55 + 0.45 * (normal * world.ambient[1, :, None]).sum(0)
    soft = fill * _openness(world, point, surface)
    return direct[:, None] * world.light[1] + soft[:, None] * world.ambient[0]


def _shade(world: World, rays: Rays, distance: Tensor, surface: Tensor, pixel: Tensor) -> tuple[Tensor, Tensor]:
    """Radiance [ray, 3] that comes from the given surfaces, none of them the sky, and the light on them [ray]."""
    # Rays that met the same surface side by side: their blocks are tight, so that less is tested against them.
    order = (torch.arange(len(surface), device=surface.device) // _SORTED * 4096 + surface).argsort()
    rays, distance, surface, pixel = (
        Rays(rays.o[:, order], rays.d[:, order], rays.view[order]),
        distance[order],
        surface[order],
        pixel[order],
    )
    d = rays.d
    point = rays.o + distance * d
    normal, uv = _surface_frames(world, point, surface)
    mapped = world.mappings[surface, :2].amax(1)
    slant = (normal * d).sum(0).abs() / length(d)
    footprint = _SHARPNESS * TEXTURE_SIZE * mapped * distance * pixel * slant.clamp(min=0.05).rsqrt()
    albedo = sample_atlas(world.atlas, world.textures[surface], uv, footprint)
    sunlit = water = None
    if world.terrain is not None:
        ground = _terrain_ground(world, world.terrain, point, surface, footprint)
        normal[:, ground.ray], albedo[ground.ray] = ground.normal, ground.albedo
        # Things stand in the shadow that falls on the ground below them.
        sunlit = ground_at(world.terrain, point[0], point[2])[:, 2]
        water = ground.ray[ground.water > 0.5]
    light = _lit(world, point, surface, normal, sunlit)
    radiance = albedo * world.tints[surface] * (light + world.emissions[surface][:, None])
    if world.sky is not None:
        if water is not None and len(water):
            mirrored = d[:, water] * torch.tensor([[1.0], [-1.0], [1.0]], device=d.device)
            facing = (d[1, water] / length(d[:, water])).clamp(0, 1)
            fresnel = (0.05 + 0.95 * (1 - facing) ** 4)[:, None]
            radiance[water] += fresnel * (_sky_radiance(world, world.sky, mirrored) - radiance[water])
        clear = torch.exp(-world.sky.haze * distance * length(d))[:, None]
        radiance = world.sky.horizon + clear * (radiance - world.sky.horizon)
    result = torch.empty(len(order), 4, device=order.device)
    result[order] = torch.cat([radiance, light[:, 1:2]], 1)
    return result[:, :3], result[:, 3]


def _trace(world: World, rays: Rays, horizons: Horizons | None, pixel: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Radiance [ray, 3] and distance of rays, and their marks; ``pixel`` is a pixel's size at distance 1.

    Marks [ray, 2], the surface and the light on it, tell edges of things and shadows from the contrast of textures,
    which the mip chain has filtered already.
    """
    distance, surface = first_hits(world, rays, horizons)
    if world.sky is None:
        radiance, light = _shade(world, rays, distance, surface, pixel)
        return radiance, distance, torch.stack([surface.to(light), light], 1)
    radiance, light = torch.empty_like(rays.d.T), torch.zeros_like(distance)
    above, below = (part.nonzero()[:, 0] for part in (surface == _SKY, surface != _SKY))
    radiance[above] = _sky_radiance(world, world.sky, rays.d[:, above])
    seen = Rays(rays.o[:, below], rays.d[:, below], rays.view[below])
    if len(below):
        radiance[below], light[below] = _shade(world, seen, distance[below], surface[below], pixel[below])
    return radiance, distance, torch.stack([surface.to(light), light], 1)


def _develop(world: World, radiance: Tensor) -> Tensor:
    """Display-referred sRGB: exposure, a film-like shoulder, and the display's power."""
    return (1 - torch.exp(-world.exposure * radiance)).pow(1 / 2.2)


def _pixels(
    world: World, cameras: Cameras, horizons: Horizons | None, ray: Tensor, shift: tuple[float, float], size: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Colors (sRGB, [ray, 3]), z-depth [ray] and marks of flat pixels, sampled ``shift`` pixels off their centres."""
    results = []
    for part in ray.split(_CHUNK):
        rays = camera_rays(world, cameras, part, shift)
        radiance, depth, marks = _trace(world, rays, horizons, size / cameras.intrinsics[rays.view, 0])
        results.append((_develop(world, radiance), depth, marks))
    colors, depths, marks = zip(*results, strict=True)
    return torch.cat(colors), torch.cat(depths), torch.cat(marks)


def _tiled_order(cameras: Cameras) -> Tensor:
    """All flat pixel indices, tile by tile."""
    device = cameras.intrinsics.device
    rows, columns = (-(-side // _TILE) * _TILE for side in (cameras.height, cameras.width))
    v, u = torch.arange(rows, device=device)[:, None], torch.arange(columns, device=device)
    pixel = torch.where((v < cameras.height) & (u < cameras.width), v * cameras.width + u, -1)
    pixel = pixel.view(rows // _TILE, _TILE, columns // _TILE, _TILE).transpose(1, 2).flatten()
    pixel = pixel[pixel >= 0]
    views = torch.arange(len(cameras), device=device)[:, None] * (cameras.height * cameras.width)
    return (views + pixel).flatten()


def world_depth(world: World, cameras: Cameras) -> Float[Tensor, "view height width"]:
    """The z-depth of ``render_world`` without the colors."""
    return world_hits(world, cameras)[0]


def world_hits(
    world: World, cameras: Cameras
) -> tuple[Float[Tensor, "view height width"], Int[Tensor, "view height width"]]:
    """The z-depth of ``render_world``, and the surface met first (see ``World``); -1 is the sky."""
    horizons = find_horizons(world, world.terrain, cameras) if world.terrain is not None else None
    order = _tiled_order(cameras)
    depth = torch.empty(len(order), device=order.device)
    surface = torch.empty(len(order), dtype=torch.long, device=order.device)
    for part in order.split(_CHUNK):
        depth[part], surface[part] = first_hits(world, camera_rays(world, cameras, part), horizons)
    shape = (len(cameras), cameras.height, cameras.width)
    return depth.view(shape), surface.view(shape)


def _rough_pixels(image: Tensor, marks: Tensor) -> Tensor:
    """Which pixels (flat) of [view, height, width, ...] are at the edge of a thing or a shadow that shows."""
    rough = torch.zeros(image.shape[:3], dtype=torch.bool, device=image.device)
    for axis in (1, 2):
        count = image.shape[axis] - 1
        one, other = ((part.narrow(axis, 0, count), part.narrow(axis, 1, count)) for part in (image, marks))
        step = (one[1] - one[0]).abs().amax(-1) > _REFINE_ABOVE
        surface, light = (other[1] - other[0]).abs().unbind(-1)
        step &= (surface > 0) | (light > 0.12 * (other[0][..., 1] + other[1][..., 1]))
        rough.narrow(axis, 1, count).logical_or_(step)
        rough.narrow(axis, 0, count).logical_or_(step)
    return rough.flatten()


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
        pixel's centre (never averaged), at most ``MAX_DEPTH``, which is the sky's.
    """
    shape = (len(cameras), cameras.height, cameras.width)
    horizons = find_horizons(world, world.terrain, cameras) if world.terrain is not None else None
    order = _tiled_order(cameras)
    colors, depth, marks = (torch.empty(math.prod(shape), *rest, device=order.device) for rest in ((3,), (), (2,)))
    colors[order], depth[order], marks[order] = _pixels(world, cameras, horizons, order, (0.0, 0.0), 1.0)
    if supersample > 1:
        ray = order[_rough_pixels(colors.view(*shape, 3), marks.view(*shape, 2))[order]]
        shifts = [(i + 0.5) / supersample - 0.5 for i in range(supersample)]
        total = torch.zeros_like(colors[ray])
        for shift in [(x, y) for y in shifts for x in shifts] if len(ray) else []:
            total += _pixels(world, cameras, horizons, ray, shift, 1 / supersample)[0]
        colors[ray] = total / supersample**2
    return colors.view(*shape, 3).movedim(-1, 1).contiguous(), depth.view(shape)
