"""Where rays meet the objects of a world (``object_spans``).

Rays are columns of ``[3, ray]`` in the room frame, in an order in which neighbours are similar. Blocks of rays are
tested against bounding spheres and boxes together, and only the surviving (object, ray) pairs are intersected, so the
cost follows the picture rather than the number of objects.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from lyra.worlds.world import BOX, CYLINDER, ELLIPSOID, GABLE, PYRAMID, World

BLOCK = 16
"""Rays that are culled together."""
_ROOFS = {  # planes n.p <= offset that, with the unit box, bound a roof: (normal, offset)
    GABLE: (((0.0, -0.5, 1.0), 0.5), ((0.0, -0.5, -1.0), 0.5)),
    PYRAMID: (((0.0, -0.5, 1.0), 0.5), ((0.0, -0.5, -1.0), 0.5), ((1.0, -0.5, 0.0), 0.5), ((-1.0, -0.5, 0.0), 0.5)),
}


def length(vectors: Tensor) -> Tensor:
    """Euclidean length along the first axis; ``Tensor.norm`` is an order of magnitude slower there."""
    return (vectors * vectors).sum(0).sqrt()


def yawed(world: World, owner: Tensor, vectors: Tensor, sign: int = 1) -> Tensor:
    """Turns room vectors [3, ray] into the frame of each ray's object (``sign`` -1: back)."""
    yaw = world.yaws.index_select(0, owner)
    cos, sin = yaw.cos(), sign * yaw.sin()
    x, y, z = vectors
    return torch.stack([cos * x - sin * z, y, sin * x + cos * z])


def roof_planes(kind: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Normals [plane, 3] and offsets [plane] of a roof's slopes in the unit box."""
    normals, offsets = zip(*_ROOFS[kind], strict=True)
    return torch.tensor(normals).to(like), torch.tensor(offsets).to(like)


def _slab_span(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave the slabs |p| <= 1 of all rows at once."""
    inverse = 1 / torch.where(d == 0, 1e-9, d)
    a, b = (-1 - o) * inverse, (1 - o) * inverse
    return torch.minimum(a, b).amax(0), torch.maximum(a, b).amin(0)


def _ball_span(o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave the unit ball (a disc, with two rows); near is infinite where they miss."""
    squared = (d * d).sum(0).clamp(min=1e-12)
    closest = -(o * d).sum(0) / squared
    gap = o + closest * d  # the difference of squares, rather than a discriminant: float32 is enough for it
    reach = (1 - (gap * gap).sum(0)) / squared
    root = reach.clamp(min=0).sqrt()
    return torch.where(reach > 0, closest - root, torch.inf), closest + root


def _spans(kind: int, o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave unit primitives; near > far where they miss."""
    if kind == ELLIPSOID:
        return _ball_span(o, d)
    if kind == CYLINDER:
        near, far = _slab_span(o[1:2], d[1:2])
        low, high = _ball_span(o[::2], d[::2])
        return torch.maximum(low, near), torch.minimum(high, far)
    near, far = _slab_span(o, d)
    if kind == BOX:
        return near, far
    for normal, offset in zip(*roof_planes(kind, o), strict=True):
        rate, room = (normal[:, None] * d).sum(0), offset - (normal[:, None] * o).sum(0)
        t = room / torch.where(rate == 0, 1e-9, rate)
        near = torch.where(rate < 0, torch.maximum(near, t), near)
        far = torch.where(rate > 0, torch.minimum(far, t), far)
    return near, far


def blocks_of(rays: Tensor) -> Tensor:
    """Groups of neighbouring columns [3, block, BLOCK]; the last one is filled up with its last column."""
    missing = -rays.shape[1] % BLOCK
    if missing:
        rays = torch.cat([rays, rays[:, -1:].expand(-1, missing)], 1)
    return rays.view(3, -1, BLOCK)


def rays_of(block: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Rays of the given blocks: (row of ``block``, ray), without the fill of the last block."""
    ray = block[:, None] * BLOCK + torch.arange(BLOCK, device=block.device)
    row, column = (ray < count).nonzero(as_tuple=True)
    return row, ray[row, column]


def _candidates(world: World, o: Tensor, d: Tensor) -> tuple[Tensor, Tensor]:
    """(object, block) pairs of which some ray may meet the object's bounding box."""
    directions = blocks_of(d / length(d))
    axis = directions.mean(-1)
    axis = axis / length(axis).clamp(min=1e-6)
    bend = length(directions - axis[..., None]).amax(-1) * 1.001 + 1e-6
    if o.shape[1] > 1:
        starts = blocks_of(o)
        start = starts.mean(-1)
        spread = length(starts - start[..., None]).amax(-1) * 1.001
    else:
        start, spread = o.expand(-1, axis.shape[1]), torch.zeros_like(bend)
    radii = 1.01 * world.half_sizes.norm(dim=1)[:, None] + spread
    c = world.centers[..., None]
    toward = [c[:, i] - start[i] for i in range(3)]
    along = toward[0] * axis[0] + toward[1] * axis[1] + toward[2] * axis[2]
    apart = (toward[0] ** 2 + toward[1] ** 2 + toward[2] ** 2 - along**2).clamp(min=0)
    # A point of the sphere is at most along + radius ahead; a ray bends off the axis by at most bend a unit length.
    reach = radii + 1.5 * bend * (along + radii).clamp(min=0)
    owner, block = ((apart <= reach**2) & (along + radii >= 0) | (bend > 0.6)).nonzero(as_tuple=True)
    # The box, grown by spread + t * bend around the axis at t: six linear bounds on t.
    half = world.half_sizes.T[:, owner] * 1.0001 + 1e-6 + spread[block]
    p = yawed(world, owner, start[:, block] - world.centers[owner].T)
    v = yawed(world, owner, axis[:, block])
    b = bend[block]
    low, high = torch.zeros_like(b), torch.full_like(b, torch.inf)
    for sign in (1, -1):
        rate, room = sign * v - b, half - sign * p
        t = room / torch.where(rate.abs() < 1e-9, 1e-9, rate)
        high = torch.minimum(high, torch.where(rate > 0, t, torch.inf).amin(0))
        low = torch.maximum(low, torch.where(rate < 0, t, -torch.inf).amax(0))
    keep = low <= high
    return owner[keep], block[keep]


def object_spans(world: World, o: Tensor, d: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor]]:
    """Yields, per kind, (object, ray, near, far) of the pairs whose ray may meet the object; near > far: it misses."""
    owners, blocks = _candidates(world, o, d)
    for kind in (BOX, ELLIPSOID, CYLINDER, GABLE, PYRAMID):
        chosen = (world.kinds[owners] == kind).nonzero()[:, 0]
        if not len(chosen):
            continue
        row, ray = rays_of(blocks[chosen], d.shape[1])
        owner = owners[chosen][row]
        source = o.index_select(1, ray) if o.shape[1] > 1 else o
        inverse = 1 / world.half_sizes[owner].T
        local_o = yawed(world, owner, source - world.centers[owner].T) * inverse
        local_d = yawed(world, owner, d.index_select(1, ray)) * inverse
        near, far = _spans(kind, local_o, local_d)
        yield owner, ray, near, far


def box_gaps(world: World, points: Tensor) -> Tensor:
    """Distance [object, point] of points [point, 3], room frame, from the objects' yawed bounding boxes; 0 inside."""
    count = len(points)
    owner = torch.arange(len(world.kinds), device=points.device).repeat_interleave(count)
    p = yawed(world, owner, points.repeat(len(world.kinds), 1).T - world.centers[owner].T)
    return length((p.abs() - world.half_sizes[owner].T).clamp(min=0)).view(-1, count)
