"""Height fields: heights and ground properties at points (``heights_at``), and where rays meet them (``terrain_hits``).

All rays of one view that share an azimuth see the same profile of the terrain. ``Horizons`` holds, per view and
azimuth, the steepest descent at which the ground is still seen up to each radius of a ladder; a search in it tells each
ray where to begin, and the ray then walks the ladder with its own heights until it is below the ground.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from lyra.geometry.cameras import Cameras
from lyra.worlds.world import Terrain, World

_NEAREST, _FARTHEST, _RUNGS = 0.02, 160.0, 256
_REFINEMENTS = 30  # at most; most crossings need five


@dataclass(frozen=True)
class Horizons:
    """Per view and azimuth, the running minimum over the ladder of (ground - eye) / radius."""

    slopes: Tensor  # [view * azimuth * rung], not increasing along rungs
    origins: Tensor  # [view, 3], room frame
    forward: Tensor  # [view, 2]: unit x and z of the middle azimuth
    spans: Tensor  # [view]: largest azimuth off the middle, radians
    columns: int
    ladder: Tensor  # [rung]


def _nodes(terrain: Terrain, x: Tensor, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Node index and fractions along column and row."""
    size = math.isqrt(len(terrain.corners))
    u, v = (
        (torch.asinh(a / terrain.stretch) * terrain.density + (size - 1) / 2).clamp(0, size - 1.001) for a in (x, z)
    )
    column, row = u.long(), v.long()
    return row * size + column, u - column, v - row


def heights_at(terrain: Terrain, x: Tensor, z: Tensor) -> Tensor:
    """Y of the ground at room positions."""
    node, u, v = _nodes(terrain, x, z)
    a, b, c, d = terrain.corners.index_select(0, node).unbind(1)
    upper, lower = a + u * (b - a), c + u * (d - c)
    return upper + v * (lower - upper)


def ground_at(terrain: Terrain, x: Tensor, z: Tensor) -> Tensor:
    """Interpolated ``Terrain.ground`` [point, 8]."""
    size = math.isqrt(len(terrain.corners))
    node, u, v = _nodes(terrain, x, z)
    taps = torch.stack([node, node + 1, node + size, node + size + 1], 1)
    weights = torch.stack([(1 - u) * (1 - v), u * (1 - v), (1 - u) * v, u * v], 1)
    return torch.nn.functional.embedding_bag(taps, terrain.ground, per_sample_weights=weights, mode="sum")


def find_horizons(world: World, terrain: Terrain, cameras: Cameras) -> Horizons:
    """Profiles of the terrain around each camera."""
    rotation = world.rotation
    device = rotation.device
    origins = (cameras.camera_to_world[:, None, :3, 3] * rotation).sum(-1)
    steps = torch.linspace(0, 1, 17, device=device)
    k = cameras.intrinsics
    x = (steps * cameras.width - k[:, 2:3]) / k[:, :1]
    y = (steps * cameras.height - k[:, 3:]) / k[:, 1:2]
    local = torch.stack([x[:, None].expand(-1, 17, -1), y[..., None].expand(-1, -1, 17)], -1).flatten(1, 2)
    local = torch.nn.functional.pad(local, (0, 1), value=1.0)
    turn = (rotation[None, :, :, None] * cameras.camera_to_world[:, None, :3, :3]).sum(2)
    d = (local[:, :, None] * turn[:, None]).sum(-1)
    forward = torch.nn.functional.normalize(turn[:, ::2, 2] + 1e-6, dim=1)
    ahead = d[..., 0] * forward[:, None, 0] + d[..., 2] * forward[:, None, 1]
    aside = d[..., 0] * forward[:, None, 1] - d[..., 2] * forward[:, None, 0]
    spans = torch.atan2(aside, ahead).abs().amax(1) * 1.05 + 0.01
    # Views of the nadir or the zenith see all azimuths.
    spans = torch.where(ahead.amin(1) < 0.05, math.pi, spans.clamp(max=math.pi))
    columns = math.ceil(1.25 * max(cameras.width, cameras.height)) + 1
    ladder = torch.exp(torch.linspace(math.log(_NEAREST), math.log(_FARTHEST), _RUNGS, device=device))
    angle = torch.linspace(-1, 1, columns, device=device) * spans[:, None]
    across = forward[:, None, 0] * angle.cos() + forward[:, None, 1] * angle.sin()
    along = forward[:, None, 1] * angle.cos() - forward[:, None, 0] * angle.sin()
    heights = _profile_heights(terrain, origins, across, along, ladder)
    slopes = ((heights - origins[:, 1, None, None]) / ladder).cummin(-1).values
    return Horizons(slopes.flatten(), origins, forward, spans, columns, ladder)


def _profile_heights(terrain: Terrain, origins: Tensor, across: Tensor, along: Tensor, ladder: Tensor) -> Tensor:
    """Heights [view, azimuth, rung]."""
    x = origins[:, None, None, 0] + across[..., None] * ladder
    z = origins[:, None, None, 2] + along[..., None] * ladder
    return heights_at(terrain, x.flatten(), z.flatten()).view(x.shape)


def _first_rungs(horizons: Horizons, view: Tensor, d: Tensor, descent: Tensor) -> Tensor:
    """The earliest rung at which the profiles beside each ray come above it; the number of rungs where none does."""
    ahead = d[0] * horizons.forward[view, 0] + d[2] * horizons.forward[view, 1]
    aside = d[0] * horizons.forward[view, 1] - d[2] * horizons.forward[view, 0]
    column = (torch.atan2(aside, ahead) / horizons.spans[view] + 1) * ((horizons.columns - 1) / 2)
    column = column.long().clamp(0, horizons.columns - 2)
    first = torch.full_like(column, _RUNGS)
    for neighbour in (0, 1):
        row = (view * horizons.columns + column + neighbour) * _RUNGS
        low = torch.zeros_like(row)
        step = _RUNGS // 2
        # The number of rungs whose slope is above the ray's descent, bit by bit.
        while step:
            above = horizons.slopes[row + (low + step - 1)] > descent
            low = low + step * above
            step //= 2
        low = low + (horizons.slopes[row + low.clamp(max=_RUNGS - 1)] > descent) * (low == _RUNGS - 1)
        first = torch.minimum(first, low)
    return first


def terrain_hits(terrain: Terrain, horizons: Horizons, view: Tensor, d: Tensor) -> Tensor:
    """Distance in units of ``d`` at which rays from the eyes of their views meet the ground; infinite for none."""
    flat = (d[0] ** 2 + d[2] ** 2).sqrt().clamp(min=1e-6)
    descent = d[1] / flat
    rung = _first_rungs(horizons, view, d, descent)
    result = torch.full_like(flat, torch.inf)
    active = (rung < _RUNGS).nonzero()[:, 0]
    origin = horizons.origins[view].T

    def gaps(ray: Tensor, radius: Tensor) -> Tensor:
        """How far the ray is above the ground."""
        t = radius / flat[ray]
        x, z = origin[0][ray] + t * d[0][ray], origin[2][ray] + t * d[2][ray]
        return heights_at(terrain, x, z) - origin[1][ray] - t * d[1][ray]

    found: list[tuple[Tensor, ...]] = []
    rung = rung[active]
    # A ray may be below the ground a little before the profiles beside it: step back until it is above.
    steps = torch.cat([torch.zeros_like(horizons.ladder[:1]), horizons.ladder])
    gap_before = gaps(active, steps[rung])
    while len(behind := ((gap_before <= 0) & (rung > 0)).nonzero()[:, 0]):
        rung[behind] -= 1
        gap_before[behind] = gaps(active[behind], steps[rung[behind]])
    before = steps[rung]
    while len(active):
        radius = horizons.ladder[rung]
        gap = gaps(active, radius)
        met = gap <= 0
        found.append(tuple(values[met] for values in (active, before, radius, gap_before, gap)))
        rest = (~met & (rung < _RUNGS - 1)).nonzero()[:, 0]
        active, before, gap_before, rung = active[rest], radius[rest], gap[rest], rung[rest] + 1
    if not found:
        return result
    ray, near, far, above, below = (torch.cat(values) for values in zip(*found, strict=True))
    above = above.clamp(min=1e-7)
    kept = torch.zeros_like(far)
    for turn in range(_REFINEMENTS):
        middle = near + (far - near) * above / (above - below)
        gap = gaps(ray, middle)
        result[ray] = middle / flat[ray]
        inside = gap > 0
        # The Illinois rule: an end that stays for a second time counts half, so that both ends close in.
        above, below = (
            torch.where(inside, gap, torch.where(kept < 0, 0.5 * above, above)),
            torch.where(inside, torch.where(kept > 0, 0.5 * below, below), gap.clamp(max=-1e-12)),
        )
        near, far = torch.where(inside, middle, near), torch.where(inside, far, middle)
        kept = torch.where(inside, 1.0, -1.0)
        if turn >= 3:
            rest = (gap.abs() > 1e-6 * (1 + middle)).nonzero()[:, 0]
            ray, near, far, above, below, kept = (part[rest] for part in (ray, near, far, above, below, kept))
    return result
