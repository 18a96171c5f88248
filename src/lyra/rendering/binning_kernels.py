"""Compiled loops that put splats into an order in which the renderer's memory is read almost in sequence.

What takes long is not arithmetic but memory far apart. So the splats are stored tile by tile, by the tile that their
centre falls into (or is nearest to), and within a tile in the order of the Gaussians: what a tile composites then lies
together, whatever the order in which the Gaussians came. ``places[n]`` is where splat n is stored.

A *pair* is one splat in one tile that it can reach. Tiles are numbered along the rows of the image. What works on pairs
does a run of tiles at a time, ``first`` to ``last`` (exclusive), so that the memory for them stays bounded however many
there are.
"""

from typing import no_type_check

import numba
import numpy as np

from lyra.device.compiling import compiled
from lyra.rendering.lanes import LANES

# The tests' type-checking import hook must not wrap what numba compiles, hence ``no_type_check``.
_inner = numba.njit(error_model="numpy", inline="always")

TILE_ROWS, TILE_COLUMNS = 32, 4 * LANES


@_inner
@no_type_check
def share(total, part, parts):
    """First and last (exclusive) of the items that are the business of one of several threads."""
    return total * part // parts, total * (part + 1) // parts


@_inner
@no_type_check
def tile_of(x, y, tiles_x, tiles_y):
    """The tile at a pixel position, or the nearest one."""
    # Clamped as floats: one beyond an integer's range has no defined cast.
    column = int(min(max(x * (1 / TILE_COLUMNS), 0.0), tiles_x - 1.0))
    return int(min(max(y * (1 / TILE_ROWS), 0.0), tiles_y - 1.0)) * tiles_x + column


@_inner
@no_type_check
def box_of_tiles(splat):
    """First and last (exclusive) column and row of the tiles that a splat can reach."""
    left, top, right, bottom = int(splat[10]), int(splat[11]), int(splat[12]), int(splat[13])
    columns, rows = right + TILE_COLUMNS - 1, bottom + TILE_ROWS - 1
    return left // TILE_COLUMNS, top // TILE_ROWS, columns // TILE_COLUMNS, rows // TILE_ROWS


@_inner
@no_type_check
def tiles_before(splat, tile, tiles_x):
    """How many of the tiles that a splat can reach come before a tile."""
    x0, y0, x1, y1 = box_of_tiles(splat)
    row = tile // tiles_x
    whole = min(max(row - y0, 0), y1 - y0) * (x1 - x0)
    return whole + (min(max(tile - row * tiles_x - x0, 0), x1 - x0) if y0 <= row < y1 else 0)


@compiled(nogil=True)
@no_type_check
def place_members(boxes, places, tiles_x, first, last, ends, members, part, parts):
    """Sorts one share of the splats into the tiles of a run, in the order of the Gaussians.

    Args:
        boxes: First and last (exclusive) column and row of the tiles that each Gaussian's splat can reach.
        places: Where the splat of each Gaussian is stored.
        tiles_x: Tiles in a row of the image.
        first: First tile of the run.
        last: Its end.
        ends: Where in ``members`` the first splat of each share goes in each tile of the run; advanced.
        members: Output: the places of the splats of the run's first tile, then those of the next, and so on.
        part: Which share.
        parts: Of how many; the result does not depend on it.
    """
    begin, end = share(len(boxes), part, parts)
    for n in range(begin, end):
        x0, y0 = np.int64(boxes[n, 0]), np.int64(boxes[n, 1])
        x1, y1 = np.int64(boxes[n, 2]), np.int64(boxes[n, 3])
        for row in range(y0, y1):
            for tile in range(max(row * tiles_x + x0, first), min(row * tiles_x + x1, last)):
                members[ends[part, tile - first]] = places[n]
                ends[part, tile - first] += 1


@numba.njit
@no_type_check
def _sort_by_depth(members, depths, spare, keys, spare_keys):
    """Stable radix sort of one tile's splats by the bits of their (positive) depths, one byte at a time."""
    n = len(members)
    histogram = np.zeros((4, 256), np.int32)
    for i in range(n):
        key = depths[members[i]]
        keys[i] = key
        for byte in range(4):
            histogram[byte, (key >> np.uint32(8 * byte)) & np.uint32(255)] += 1
    source, target, source_keys, target_keys = members, spare, keys, spare_keys
    swaps = 0
    for byte in range(4):
        shift, counts = np.uint32(8 * byte), histogram[byte]
        if n == 0 or counts[(source_keys[0] >> shift) & np.uint32(255)] == n:
            continue  # All alike in this byte, as the highest ones mostly are.
        before = 0
        for b in range(256):
            here = counts[b]
            counts[b] = before
            before += here
        for i in range(n):
            key = source_keys[i]
            digit = (key >> shift) & np.uint32(255)
            place = counts[digit]
            counts[digit] = place + 1
            target[place] = source[i]
            target_keys[place] = key
        source, target, source_keys, target_keys = target, source, target_keys, source_keys
        swaps += 1
    if swaps % 2 == 1:
        for i in range(n):
            members[i] = spare[i]


@compiled(nogil=True)
@no_type_check
def sort_members(depths, members, starts, part, parts):
    """Sorts each tile's splats by depth, front to back, those of equal depth by number.

    Args:
        depths: Their bits as unsigned integers, which order as the depths do, since those are positive.
        members: From :func:`place_members`; sorted in place.
        starts: Where in ``members`` each tile of the run begins and, last, ends.
        part: Which share of the tiles; they are dealt in turn, since neighbours are about as full.
        parts: Of how many.
    """
    longest = 0
    for tile in range(part, len(starts) - 1, parts):
        longest = max(longest, starts[tile + 1] - starts[tile])
    spare = np.empty(longest, np.int32)
    keys, spare_keys = np.empty(longest, np.uint32), np.empty(longest, np.uint32)
    for tile in range(part, len(starts) - 1, parts):
        _sort_by_depth(members[starts[tile] : starts[tile + 1]], depths, spare, keys, spare_keys)


@compiled(nogil=True)
@no_type_check
def count_pairs(splats, tiles_x, first, last, counts, part, parts):
    """Counts, for one share of the stored splats, in how many tiles of a run each is."""
    begin, end = share(len(counts), part, parts)
    for place in range(begin, end):
        splat = splats[place]
        counts[place] = tiles_before(splat, last, tiles_x) - tiles_before(splat, first, tiles_x)


@compiled(nogil=True)
@no_type_check
def sum_pairs(pair_sums, offsets, sums, part, parts):
    """Adds to each stored splat's sums those of its pairs of a run, in the order of the tiles."""
    begin, end = share(len(sums), part, parts)
    for place in range(begin, end):
        for pair in range(offsets[place], offsets[place + 1]):
            for i in range(sums.shape[1]):
                sums[place, i] += pair_sums[pair, i]
