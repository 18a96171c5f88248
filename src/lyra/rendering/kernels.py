"""The compiled loops of the CPU renderer: sort splats into tiles, composite them, and the derivative of that.

A splat is a row of float32 numbers: centre x, y; conic xx, xy, yy; opacity; red, green, blue; depth. A *pair*
is one splat in one tile. The pairs of a splat are numbered consecutively, so what its tiles add to its
gradient can be summed in a fixed order, whatever the number of threads.

Inside a tile the loop runs over splats and, for each, over the pixels it covers, eight at a time. Work arrays
of a tile are planes of one flat buffer, each row padded to ``STRIDE`` pixels, so that eight can start anywhere.
Transmittance is stored negated once a pixel has ended: every later test on it then fails without a branch.
"""

from typing import no_type_check

import numba
import numpy as np

from lyra.rendering.projection import ALPHA_MAX, ALPHA_MIN, TRANSMITTANCE_MIN
from lyra.rendering.projection_kernels import share

# The tests' type-checking import hook must not wrap what numba compiles, hence ``no_type_check``. Numba's
# cache notices changes of this file alone: who changes a constant of ``projection.py`` touches this file too.
TILE = 16
LANES = 8
STRIDE = TILE + LANES
PLANE = TILE * STRIDE
SINGLE = np.float32
# Sums may be reordered and multiplications fused, but NaN and infinity keep their meaning.
MATH = {"contract", "reassoc", "nsz", "arcp"}

_ALPHA_MIN = np.float32(ALPHA_MIN)
_ALPHA_MAX = np.float32(ALPHA_MAX)
_TRANSMITTANCE_MIN = np.float32(TRANSMITTANCE_MIN)
_HALF = np.float32(0.5)
_ZERO = np.float32(0)
_ONE = np.float32(1)


@numba.njit(inline="always")
@no_type_check
def _exp(x):
    """Exponential for x in [-8, 0], 4e-7 relative: a polynomial of x / 16, squared four times; vectorizes."""
    u = max(x, np.float32(-8)) * np.float32(1 / 16)
    p = np.float32(1 / 720)
    p = p * u + np.float32(1 / 120)
    p = p * u + np.float32(1 / 24)
    p = p * u + np.float32(1 / 6)
    p = p * u + _HALF
    p = p * u + _ONE
    p = p * u + _ONE
    p *= p
    p *= p
    p *= p
    return p * p


@numba.njit(nogil=True, cache=True)
@no_type_check
def find_tiles(splats, extents, height, width, bounds, counts, part, parts):
    """Finds the pixels (left, top, right, bottom; exclusive) each splat can reach, and in how many tiles."""
    first, last = share(len(splats), part, parts)
    for n in range(first, last):
        counts[n] = 0
        if not extents[n, 0] > 0:
            continue
        # Pixel centres are at +0.5. Clamped as floats: a float beyond an integer's range has no defined cast.
        left = max(np.ceil(splats[n, 0] - extents[n, 0] - _HALF), _ZERO)
        top = max(np.ceil(splats[n, 1] - extents[n, 1] - _HALF), _ZERO)
        right = min(np.floor(splats[n, 0] + extents[n, 0] - _HALF), SINGLE(width - 1))
        bottom = min(np.floor(splats[n, 1] + extents[n, 1] - _HALF), SINGLE(height - 1))
        if left > right or top > bottom:
            continue
        bounds[n, 0], bounds[n, 1] = int(left), int(top)
        bounds[n, 2], bounds[n, 3] = int(right) + 1, int(bottom) + 1
        across = int(right) // TILE - int(left) // TILE + 1
        counts[n] = across * (int(bottom) // TILE - int(top) // TILE + 1)


@numba.njit(nogil=True, cache=True)
@no_type_check
def count_members(bounds, offsets, tiles_x, counts, part, parts):
    """Counts, for one share of the splats, how many fall into each tile: row ``part`` of ``counts``."""
    first, last = share(len(bounds), part, parts)
    for n in range(first, last):
        if offsets[n + 1] > offsets[n]:
            for ty in range(bounds[n, 1] // TILE, (bounds[n, 3] - 1) // TILE + 1):
                for tx in range(bounds[n, 0] // TILE, (bounds[n, 2] - 1) // TILE + 1):
                    counts[part, ty * tiles_x + tx] += 1


@numba.njit(nogil=True, cache=True)
@no_type_check
def place_members(bounds, offsets, tiles_x, places, owners, members, part, parts):
    """Sorts the pairs of one share of the splats into the tiles, in the order of the splats.

    Args:
        bounds: Pixel boxes from :func:`find_tiles`.
        offsets: First pair of every splat and, last, the number of pairs.
        tiles_x: Tiles in a row of the image.
        places: Where in ``members`` the first pair of each share goes in each tile; advanced by the call.
        owners: Output: the splat of every pair.
        members: Output: the pairs of tile 0, then those of tile 1, and so on.
        part: Which share.
        parts: Of how many; the result does not depend on it.
    """
    first, last = share(len(bounds), part, parts)
    for n in range(first, last):
        pair = offsets[n]
        if offsets[n + 1] > pair:
            for ty in range(bounds[n, 1] // TILE, (bounds[n, 3] - 1) // TILE + 1):
                for tx in range(bounds[n, 0] // TILE, (bounds[n, 2] - 1) // TILE + 1):
                    tile = ty * tiles_x + tx
                    owners[pair] = n
                    members[places[part, tile]] = pair
                    places[part, tile] += 1
                    pair += 1


@numba.njit(cache=True)
@no_type_check
def _sort_by_depth(pairs, owners, keys, spare_pairs, keys_here, spare_keys):
    """Stable radix sort of one tile's pairs by the bits of their (positive) depth, one byte at a time."""
    n = len(pairs)
    for i in range(n):
        keys_here[i] = keys[owners[pairs[i]]]
    histogram = np.empty(257, np.int64)
    source, target, source_keys, target_keys = pairs, spare_pairs, keys_here, spare_keys
    for shift in (0, 8, 16, 24):
        histogram[:] = 0
        for i in range(n):
            histogram[((source_keys[i] >> shift) & 255) + 1] += 1
        for b in range(256):
            histogram[b + 1] += histogram[b]
        for i in range(n):
            byte = (source_keys[i] >> shift) & 255
            place = histogram[byte]
            histogram[byte] = place + 1
            target[place] = source[i]
            target_keys[place] = source_keys[i]
        source, target, source_keys, target_keys = target, source, target_keys, source_keys
    # Four passes: the result is back in ``pairs``.


@numba.njit(inline="always")
@no_type_check
def _start_tile(buffer, rows, columns):
    """Sets the transmittance plane: 1 inside the image, ended (negative) in the padding and outside."""
    for y in range(TILE):
        for x in range(STRIDE):
            buffer[y * STRIDE + x] = _ONE if y < rows and x < columns else -_ONE


@numba.njit(inline="always")
@no_type_check
def _all_ended(buffer):
    largest = -_ONE
    for i in range(PLANE):
        largest = max(largest, buffer[i])
    return largest <= _ZERO


@numba.njit(cache=True, fastmath=MATH, error_model="numpy")
@no_type_check
def _splat_forward(splat, buffer, left, top, x0, x1, y0, y1):
    """Composites one splat into pixels x0..x1, y0..y1 of the tile whose corner is (left, top)."""
    mean_x, mean_y = splat[0], splat[1]
    xx, xy, yy = -_HALF * splat[2], -splat[3], -_HALF * splat[4]
    opacity, red, green, blue, depth = splat[5], splat[6], splat[7], splat[8], splat[9]
    for y in range(y0, y1):
        dy = SINGLE(top + y) + _HALF - mean_y
        row_yy, row_xy = yy * dy * dy, xy * dy
        for x in range(x0, x1, LANES):
            base = np.uint64(y * STRIDE + x)
            dx0 = SINGLE(left + x) + _HALF - mean_x
            for j in range(LANES):
                i = base + np.uint64(j)
                dx = dx0 + SINGLE(j)
                alpha = min(opacity * _exp(xx * dx * dx + row_xy * dx + row_yy), _ALPHA_MAX)
                before = buffer[i]
                after = before * (_ONE - alpha)
                seen = alpha >= _ALPHA_MIN
                counted = seen & (after > _TRANSMITTANCE_MIN)
                weight = alpha * before if counted else _ZERO
                buffer[i] = after if counted else (-abs(before) if seen else before)
                buffer[i + np.uint64(PLANE)] += weight * red
                buffer[i + np.uint64(2 * PLANE)] += weight * green
                buffer[i + np.uint64(3 * PLANE)] += weight * blue
                buffer[i + np.uint64(4 * PLANE)] += weight * depth


@numba.njit(nogil=True, cache=True)
@no_type_check
def composite(splats, keys, bounds, owners, members, starts, image, reached, part, parts):
    """Composites tiles front to back.

    Args:
        splats: A row of ten numbers each.
        keys: Bits of the depths as unsigned integers; they order as the depths do, since those are positive.
        bounds: Pixel boxes from :func:`find_tiles`.
        owners: The splat of every pair.
        members: The pairs tile by tile; on return each tile's are sorted by depth.
        starts: Where in ``members`` each tile begins.
        image: Output (5, height, width): red, green, blue and depth summed with their weights, and alpha.
        reached: Output: how many of its pairs each tile looked at before all its pixels had ended.
        part: Which share of the tiles; they are dealt in turn, since neighbours are about as full.
        parts: Of how many.
    """
    _, height, width = image.shape
    tiles_x = (width + TILE - 1) // TILE
    tiles = len(starts) - 1
    longest = 0
    for tile in range(part, tiles, parts):
        longest = max(longest, starts[tile + 1] - starts[tile])
    buffer = np.zeros(5 * PLANE, np.float32)
    spare_pairs = np.empty(longest, np.int32)
    keys_here = np.empty(longest, np.uint32)
    spare_keys = np.empty(longest, np.uint32)
    for tile in range(part, tiles, parts):
        left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        rows, columns = min(TILE, height - top), min(TILE, width - left)
        pairs = members[starts[tile] : starts[tile + 1]]
        _sort_by_depth(pairs, owners, keys, spare_pairs, keys_here, spare_keys)
        buffer[:] = _ZERO
        _start_tile(buffer, rows, columns)
        done = 0
        for pair in pairs:
            n = owners[pair]
            x0, x1 = max(bounds[n, 0] - left, 0), min(bounds[n, 2] - left, TILE)
            y0, y1 = max(bounds[n, 1] - top, 0), min(bounds[n, 3] - top, TILE)
            _splat_forward(splats[n], buffer, left, top, x0, x1, y0, y1)
            done += 1
            if done % 32 == 0 and _all_ended(buffer):
                break
        reached[tile] = done
        for y in range(rows):
            for x in range(columns):
                i = y * STRIDE + x
                image[4, top + y, left + x] = _ONE - abs(buffer[i])
                for channel in range(4):
                    image[channel, top + y, left + x] = buffer[i + (channel + 1) * PLANE]


@numba.njit(cache=True, fastmath=MATH, error_model="numpy")
@no_type_check
def _splat_backward(splat, buffer, left, top, x0, x1, y0, y1, gradient):
    """Sums one splat's gradient over pixels x0..x1, y0..y1 of a tile and moves the tile's state behind it.

    Planes of ``buffer``: transmittance; the five gradients of the image; and what is still to come of their
    product with the image. That rest, divided by 1 - alpha, is what the splat takes from those behind it.
    """
    mean_x, mean_y = splat[0], splat[1]
    xx, xy, yy = -_HALF * splat[2], -splat[3], -_HALF * splat[4]
    opacity, red, green, blue, depth = splat[5], splat[6], splat[7], splat[8], splat[9]
    sum_red = sum_green = sum_blue = sum_depth = _ZERO
    sum_1 = sum_x = sum_y = sum_xx = sum_xy = sum_yy = _ZERO
    for y in range(y0, y1):
        dy = SINGLE(top + y) + _HALF - mean_y
        row_yy, row_xy = yy * dy * dy, xy * dy
        row_1 = row_x = _ZERO
        for x in range(x0, x1, LANES):
            base = np.uint64(y * STRIDE + x)
            dx0 = SINGLE(left + x) + _HALF - mean_x
            for j in range(LANES):
                i = base + np.uint64(j)
                dx = dx0 + SINGLE(j)
                raw = opacity * _exp(xx * dx * dx + row_xy * dx + row_yy)
                alpha = min(raw, _ALPHA_MAX)
                before = buffer[i]
                after = before * (_ONE - alpha)
                seen = alpha >= _ALPHA_MIN
                counted = seen & (after > _TRANSMITTANCE_MIN)
                weight = alpha * before if counted else _ZERO
                buffer[i] = after if counted else (-abs(before) if seen else before)
                to_red, to_green = buffer[i + np.uint64(PLANE)], buffer[i + np.uint64(2 * PLANE)]
                to_blue, to_depth = buffer[i + np.uint64(3 * PLANE)], buffer[i + np.uint64(4 * PLANE)]
                value = to_red * red + to_green * green + to_blue * blue + to_depth * depth
                value += buffer[i + np.uint64(5 * PLANE)]
                rest = buffer[i + np.uint64(6 * PLANE)] - weight * value
                buffer[i + np.uint64(6 * PLANE)] = rest
                sum_red += weight * to_red
                sum_green += weight * to_green
                sum_blue += weight * to_blue
                sum_depth += weight * to_depth
                # With respect to the exponent; a capped opacity does not move.
                slope = weight * value - alpha * rest / (_ONE - alpha)
                slope = slope if counted & (raw <= _ALPHA_MAX) else _ZERO
                row_1 += slope
                row_x += slope * dx
                sum_xx += slope * dx * dx
        sum_1 += row_1
        sum_x += row_x
        sum_y += row_1 * dy
        sum_xy += row_x * dy
        sum_yy += row_1 * dy * dy
    gradient[0] = splat[2] * sum_x + splat[3] * sum_y
    gradient[1] = splat[3] * sum_x + splat[4] * sum_y
    gradient[2] = -_HALF * sum_xx
    gradient[3] = -sum_xy
    gradient[4] = -_HALF * sum_yy
    gradient[5] = sum_1 / opacity
    gradient[6], gradient[7], gradient[8], gradient[9] = sum_red, sum_green, sum_blue, sum_depth


@numba.njit(nogil=True, cache=True)
@no_type_check
def composite_backward(
    splats, bounds, owners, members, starts, image, reached, image_gradient, pair_gradients, part, parts
):
    """Gradient of :func:`composite` with respect to each pair's splat; arguments as there.

    The tiles are walked front to back once more: what lies behind a splat is the finished pixel less what has
    been passed, so nothing of the forward pass has to be kept per pixel but the image.
    """
    _, height, width = image.shape
    tiles_x = (width + TILE - 1) // TILE
    buffer = np.zeros(7 * PLANE, np.float32)
    for tile in range(part, len(starts) - 1, parts):
        left, top = (tile % tiles_x) * TILE, (tile // tiles_x) * TILE
        rows, columns = min(TILE, height - top), min(TILE, width - left)
        buffer[:] = _ZERO
        _start_tile(buffer, rows, columns)
        for y in range(rows):
            for x in range(columns):
                i = y * STRIDE + x
                rest = _ZERO
                for channel in range(5):
                    slope = image_gradient[channel, top + y, left + x]
                    buffer[i + (channel + 1) * PLANE] = slope
                    rest += slope * image[channel, top + y, left + x]
                buffer[i + 6 * PLANE] = rest
        for pair in members[starts[tile] : starts[tile] + reached[tile]]:
            n = owners[pair]
            x0, x1 = max(bounds[n, 0] - left, 0), min(bounds[n, 2] - left, TILE)
            y0, y1 = max(bounds[n, 1] - top, 0), min(bounds[n, 3] - top, TILE)
            _splat_backward(splats[n], buffer, left, top, x0, x1, y0, y1, pair_gradients[pair])
