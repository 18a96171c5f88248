"""The compiled loops of the CPU renderer: sort splats into tiles, composite them, and the derivative of that.

A splat is a row of ``ROW`` float32 numbers, one cache line: centre x, y; conic xx, xy, yy; opacity; red, green, blue;
depth; and the box of pixels that it can reach (left, top, right, bottom; exclusive; empty where it is not seen). A
*pair* is one splat in one tile. The pairs of a splat are numbered consecutively, so what its tiles add to its
gradient can be summed in a fixed order, whatever the number of threads.

A tile is 16 rows of 16 pixels, and a row of it is one vector (``lanes.py``). Its state is planes of one flat buffer.
Transmittance is stored negated once a pixel has ended: every later test on it then fails without a branch.

Tiles are numbered along the rows of the image. The kernels work on a run of tiles at a time, ``first`` to ``last``
(exclusive), so that the memory for pairs stays bounded however many there are.
"""

import math
from typing import no_type_check

import numba
import numpy as np

from lyra.rendering.lanes import LANES, any_of, both, exp2, load, magnitude, ramp, repeat, select, store, total
from lyra.rendering.projection import ALPHA_MAX, ALPHA_MIN, TRANSMITTANCE_MIN
from lyra.rendering.projection_kernels import FEATURES, ROW, share

# The tests' type-checking import hook must not wrap what numba compiles, hence ``no_type_check``. Numba's
# cache notices changes of this file alone: who changes a constant of ``projection.py`` touches this file too.
TILE = LANES
PLANE = TILE * TILE
CHUNK = 32
"""Splats of a tile that are fetched together; between chunks it is seen whether all pixels have ended."""
SINGLE = np.float32

_ALPHA_MIN = SINGLE(ALPHA_MIN)
_ALPHA_MAX = SINGLE(ALPHA_MAX)
_TRANSMITTANCE_MIN = SINGLE(TRANSMITTANCE_MIN)
_LOG2_E = SINGLE(1 / math.log(2))
# Beyond this no contribution counts, and 2 to its power is still an ordinary number.
_FAINTEST = SINGLE(-100)
_LN_2 = SINGLE(math.log(2))
_TWO = SINGLE(2)
_HALF = SINGLE(0.5)
_ZERO = SINGLE(0)
_ONE = SINGLE(1)

_inner = numba.njit(cache=True, error_model="numpy", inline="always")


@_inner
@no_type_check
def _box_of_tiles(splat):
    """First and last (exclusive) column and row of the tiles that a splat can reach."""
    left, top, right, bottom = int(splat[10]), int(splat[11]), int(splat[12]), int(splat[13])
    return left // TILE, top // TILE, (right + TILE - 1) // TILE, (bottom + TILE - 1) // TILE


@_inner
@no_type_check
def _run_of_tiles(row, x0, x1, tiles_x, first, last):
    """Those tiles of columns x0 to x1 in a row that lie in the run from first to last."""
    return max(row * tiles_x + x0, first), min(row * tiles_x + x1, last)


@numba.njit(nogil=True, cache=True)
@no_type_check
def count_members(splats, tiles_x, counts, part, parts):
    """Counts, for one share of the splats, how many fall into each tile: row ``part`` of ``counts``."""
    first, last = share(len(splats), part, parts)
    for n in range(first, last):
        x0, y0, x1, y1 = _box_of_tiles(splats[n])
        for row in range(y0, y1):
            for tile in range(row * tiles_x + x0, row * tiles_x + x1):
                counts[part, tile] += 1


@numba.njit(nogil=True, cache=True)
@no_type_check
def place_members(splats, tiles_x, first, last, places, members, part, parts):
    """Sorts one share of the splats into the tiles of a run, in the order of the splats.

    Args:
        splats: Rows.
        tiles_x: Tiles in a row of the image.
        first: First tile of the run.
        last: Its end.
        places: Where in ``members`` the first splat of each share goes in each tile of the run; advanced.
        members: Output: the splats of the run's first tile, then those of the next, and so on.
        part: Which share.
        parts: Of how many; the result does not depend on it.
    """
    begin, end = share(len(splats), part, parts)
    for n in range(begin, end):
        x0, y0, x1, y1 = _box_of_tiles(splats[n])
        for row in range(y0, y1):
            begin_tile, end_tile = _run_of_tiles(row, x0, x1, tiles_x, first, last)
            for tile in range(begin_tile, end_tile):
                members[places[part, tile - first]] = n
                places[part, tile - first] += 1


@numba.njit(cache=True)
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


@numba.njit(nogil=True, cache=True)
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


@_inner
@no_type_check
def _fetch(splats, members, first, count, left, top, near):
    """Copies splats of one tile side by side, in the tile's own coordinates, ready for the loops over its pixels.

    A row of ``near``: centre from the first pixel's centre; half the conic, negated, in powers of two; opacity; red,
    green, blue; depth; first and last (exclusive) row of pixels.
    """
    for i in range(count):
        splat = splats[members[first + i]]
        near[i, 0] = splat[0] - SINGLE(left) - _HALF
        near[i, 1] = splat[1] - SINGLE(top) - _HALF
        near[i, 2] = -_HALF * _LOG2_E * splat[2]
        near[i, 3] = -_LOG2_E * splat[3]
        near[i, 4] = -_HALF * _LOG2_E * splat[4]
        for feature in range(5, FEATURES):
            near[i, feature] = splat[feature]
        near[i, 10] = max(splat[11] - SINGLE(top), _ZERO)
        near[i, 11] = min(splat[13] - SINGLE(top), SINGLE(TILE))


@_inner
@no_type_check
def _start_tile(buffer, rows, columns):
    """Sets the transmittance plane: 1 inside the image, ended (negative) outside; the other planes to 0."""
    buffer[:] = _ZERO
    for y in range(TILE):
        for x in range(TILE):
            buffer[y * TILE + x] = _ONE if y < rows and x < columns else -_ONE


@_inner
@no_type_check
def _all_ended(buffer):
    for y in range(TILE):  # noqa: SIM110 (numba compiles no generators)
        if any_of(load(buffer, y * TILE) > _ZERO):
            return False
    return True


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _splat_forward(splat, buffer):
    """Composites one splat into the pixels of a tile."""
    mean_y = splat[1]
    xx, xy, yy = splat[2], splat[3], splat[4]
    opacity, red, green, blue, depth = splat[5], splat[6], splat[7], splat[8], splat[9]
    zero = repeat(_ZERO)
    dx = ramp() - splat[0]
    power_xx = dx * dx * xx
    for y in range(int(splat[10]), int(splat[11])):
        dy = SINGLE(y) - mean_y
        power = power_xx + (dx * (xy * dy) + yy * dy * dy)
        power = select(power > _FAINTEST, power, repeat(_FAINTEST))
        alpha = exp2(power) * opacity
        alpha = select(alpha > _ALPHA_MAX, repeat(_ALPHA_MAX), alpha)
        base = np.uint64(y * TILE)
        before = load(buffer, base)
        after = before - before * alpha
        seen = alpha >= _ALPHA_MIN
        counted = both(seen, after > _TRANSMITTANCE_MIN)
        weight = select(counted, alpha * before, zero)
        store(buffer, base, select(counted, after, select(seen, zero - magnitude(before), before)))
        plane = np.uint64(PLANE)
        store(buffer, base + plane, load(buffer, base + plane) + weight * red)
        plane = np.uint64(2 * PLANE)
        store(buffer, base + plane, load(buffer, base + plane) + weight * green)
        plane = np.uint64(3 * PLANE)
        store(buffer, base + plane, load(buffer, base + plane) + weight * blue)
        plane = np.uint64(4 * PLANE)
        store(buffer, base + plane, load(buffer, base + plane) + weight * depth)


@numba.njit(nogil=True, cache=True)
@no_type_check
def composite(splats, members, starts, first, image, reached, part, parts):
    """Composites the tiles of a run front to back.

    Args:
        splats: Rows.
        members: The splats tile by tile, each tile's sorted by depth.
        starts: Where in ``members`` each tile of the run begins and, last, ends.
        first: The run's first tile.
        image: Output (5, height, width): red, green, blue and depth summed with their weights, and alpha.
        reached: Output: how many of its splats each tile of the image looked at before all its pixels had ended.
        part: Which share of the tiles.
        parts: Of how many.
    """
    _, height, width = image.shape
    tiles_x = (width + TILE - 1) // TILE
    buffer = np.empty(5 * PLANE, np.float32)
    near = np.empty((CHUNK, ROW), np.float32)
    for tile in range(part, len(starts) - 1, parts):
        left, top = (first + tile) % tiles_x * TILE, (first + tile) // tiles_x * TILE
        rows, columns = min(TILE, height - top), min(TILE, width - left)
        here = members[starts[tile] : starts[tile + 1]]
        _start_tile(buffer, rows, columns)
        done = 0
        while done < len(here):
            count = min(CHUNK, len(here) - done)
            _fetch(splats, here, done, count, left, top, near)
            for i in range(count):
                _splat_forward(near[i], buffer)
            done += count
            if _all_ended(buffer):
                break
        reached[first + tile] = done
        for y in range(rows):
            for x in range(columns):
                i = y * TILE + x
                image[4, top + y, left + x] = _ONE - abs(buffer[i])
                for channel in range(4):
                    image[channel, top + y, left + x] = buffer[i + (channel + 1) * PLANE]


@numba.njit(cache=True, error_model="numpy")
@no_type_check
def _splat_backward(splat, buffer, gradient):
    """Sums one splat's gradient over the pixels of a tile and moves the tile's state behind it.

    Planes of ``buffer``: transmittance; the five gradients of the image; and what is still to come of their
    product with the image. That rest, divided by 1 - alpha, is what the splat takes from those behind it.
    """
    mean_y = splat[1]
    xx, xy, yy = splat[2], splat[3], splat[4]
    opacity, red, green, blue, depth = splat[5], splat[6], splat[7], splat[8], splat[9]
    zero = repeat(_ZERO)
    dx = ramp() - splat[0]
    power_xx = dx * dx * xx
    sum_red = sum_green = sum_blue = sum_depth = sum_1 = sum_y = sum_yy = zero
    for y in range(int(splat[10]), int(splat[11])):
        dy = SINGLE(y) - mean_y
        power = power_xx + (dx * (xy * dy) + yy * dy * dy)
        power = select(power > _FAINTEST, power, repeat(_FAINTEST))
        raw = exp2(power) * opacity
        capped = raw > _ALPHA_MAX
        alpha = select(capped, repeat(_ALPHA_MAX), raw)
        base = np.uint64(y * TILE)
        before = load(buffer, base)
        after = before - before * alpha
        seen = alpha >= _ALPHA_MIN
        counted = both(seen, after > _TRANSMITTANCE_MIN)
        weight = select(counted, alpha * before, zero)
        store(buffer, base, select(counted, after, select(seen, zero - magnitude(before), before)))
        to_red = load(buffer, base + np.uint64(PLANE))
        to_green = load(buffer, base + np.uint64(2 * PLANE))
        to_blue = load(buffer, base + np.uint64(3 * PLANE))
        to_depth = load(buffer, base + np.uint64(4 * PLANE))
        value = load(buffer, base + np.uint64(5 * PLANE))
        value = value + to_red * red + to_green * green + to_blue * blue + to_depth * depth
        rest = load(buffer, base + np.uint64(6 * PLANE)) - weight * value
        store(buffer, base + np.uint64(6 * PLANE), rest)
        sum_red = sum_red + weight * to_red
        sum_green = sum_green + weight * to_green
        sum_blue = sum_blue + weight * to_blue
        sum_depth = sum_depth + weight * to_depth
        # With respect to the exponent; a capped opacity does not move.
        slope = weight * value - alpha * rest / (_ONE - alpha)
        slope = select(capped, zero, select(counted, slope, zero))
        sum_1 = sum_1 + slope
        sum_y = sum_y + slope * dy
        sum_yy = sum_yy + slope * (dy * dy)
    to_x, to_y = total(sum_1 * dx), total(sum_y)
    gradient[0] = -_LN_2 * (_TWO * xx * to_x + xy * to_y)
    gradient[1] = -_LN_2 * (xy * to_x + _TWO * yy * to_y)
    gradient[2] = -_HALF * total(sum_1 * dx * dx)
    gradient[3] = -total(sum_y * dx)
    gradient[4] = -_HALF * total(sum_yy)
    gradient[5] = total(sum_1) / opacity
    gradient[6], gradient[7], gradient[8] = total(sum_red), total(sum_green), total(sum_blue)
    gradient[9] = total(sum_depth)


@_inner
@no_type_check
def _tiles_before(splat, tile, tiles_x):
    """How many of the tiles that a splat can reach come before a tile."""
    x0, y0, x1, y1 = _box_of_tiles(splat)
    row = tile // tiles_x
    whole = min(max(row - y0, 0), y1 - y0) * (x1 - x0)
    return whole + (min(max(tile - row * tiles_x - x0, 0), x1 - x0) if y0 <= row < y1 else 0)


@numba.njit(nogil=True, cache=True)
@no_type_check
def count_pairs(splats, tiles_x, first, last, counts, part, parts):
    """Counts, for one share of the splats, in how many tiles of a run each is."""
    begin, end = share(len(splats), part, parts)
    for n in range(begin, end):
        counts[n] = _tiles_before(splats[n], last, tiles_x) - _tiles_before(splats[n], first, tiles_x)


@numba.njit(nogil=True, cache=True)
@no_type_check
def composite_backward(
    splats, offsets, members, starts, first, image, reached, image_gradient, pair_gradients, part, parts
):
    """Gradient of :func:`composite` with respect to each pair's splat; arguments as there.

    The tiles are walked front to back once more: what lies behind a splat is the finished pixel less what has
    been passed, so nothing of the forward pass has to be kept per pixel but the image. ``offsets`` holds the first
    pair of every splat.
    """
    _, height, width = image.shape
    tiles_x = (width + TILE - 1) // TILE
    buffer = np.empty(7 * PLANE, np.float32)
    near = np.empty((CHUNK, ROW), np.float32)
    gradients = np.empty((CHUNK, FEATURES), np.float32)
    slots = np.empty(CHUNK, np.int64)
    for tile in range(part, len(starts) - 1, parts):
        left, top = (first + tile) % tiles_x * TILE, (first + tile) // tiles_x * TILE
        rows, columns = min(TILE, height - top), min(TILE, width - left)
        _start_tile(buffer, rows, columns)
        for y in range(rows):
            for x in range(columns):
                i = y * TILE + x
                rest = _ZERO
                for channel in range(5):
                    slope = image_gradient[channel, top + y, left + x]
                    buffer[i + (channel + 1) * PLANE] = slope
                    rest += slope * image[channel, top + y, left + x]
                buffer[i + 6 * PLANE] = rest
        here = members[starts[tile] : starts[tile] + reached[first + tile]]
        for done in range(0, len(here), CHUNK):
            count = min(CHUNK, len(here) - done)
            _fetch(splats, here, done, count, left, top, near)
            # Reads and writes of memory far apart are kept out of the long loop: only then do they overlap.
            for i in range(count):
                n = here[done + i]
                before = _tiles_before(splats[n], first + tile, tiles_x) - _tiles_before(splats[n], first, tiles_x)
                slots[i] = offsets[n] + before
            for i in range(count):
                _splat_backward(near[i], buffer, gradients[i])
            for i in range(count):
                for feature in range(FEATURES):
                    pair_gradients[slots[i], feature] = gradients[i, feature]


@numba.njit(nogil=True, cache=True)
@no_type_check
def sum_pairs(pair_gradients, offsets, gradients, part, parts):
    """Adds to each splat's gradient its pairs of a run, in the order of the tiles."""
    begin, end = share(len(gradients), part, parts)
    for n in range(begin, end):
        for pair in range(offsets[n], offsets[n + 1]):
            for feature in range(FEATURES):
                gradients[n, feature] += pair_gradients[pair, feature]
