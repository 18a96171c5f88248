"""The compiled loops of the CPU renderer that take most of its time: compositing splats, and the derivative of that.

A splat is a row of ``ROW`` float32 numbers, one cache line: centre x, y; conic xx, xy, yy; opacity; red, green, blue;
depth; and the box of pixels that it can reach (left, top, right, bottom; exclusive; empty where it is not seen). A
*pair* is one splat in one tile. The pairs of a splat are numbered consecutively, so what its tiles add to its
gradient can be summed in a fixed order, whatever the number of threads.

A row of a tile is several vectors long (``lanes.py``), and a splat's first vector begins where its box does: most need
one vector a row, wherever they lie. The state of a tile is one flat buffer: for each row of pixels, one row for each
of several planes, so that all that is needed at a pixel is at fixed distances. Transmittance is stored negated once a
pixel has ended: every later test on it then fails without a branch.
"""

import math
from typing import no_type_check

import numba
import numpy as np

from lyra.device.compiling import compiled
from lyra.rendering.binning_kernels import TILE_COLUMNS, TILE_ROWS, tiles_before
from lyra.rendering.lanes import (
    LANES,
    any_of,
    exp2,
    load,
    magnitude,
    prefetch,
    ramp,
    repeat,
    select,
    store,
    total,
    totals,
)
from lyra.rendering.projection import ALPHA_MAX, ALPHA_MIN, TRANSMITTANCE_MIN
from lyra.rendering.projection_kernels import FEATURES, ROW

# The tests' type-checking import hook must not wrap what numba compiles, hence ``no_type_check``.
_STRIDE = 5 * TILE_COLUMNS
_BACKWARD_STRIDE = 7 * TILE_COLUMNS
"""Numbers from one row of a tile to the next, in the forward pass and in the backward pass."""
CHUNK = 32
"""Splats of a tile that are fetched together; between chunks it is seen whether all pixels have ended."""
SINGLE = np.float32

_ALPHA_MIN = SINGLE(ALPHA_MIN)
_ALPHA_MAX = SINGLE(ALPHA_MAX)
_TRANSMITTANCE_MIN = SINGLE(TRANSMITTANCE_MIN)
_LOG2_E = SINGLE(1 / math.log(2))
# Beyond this no contribution counts, and 2 to its power is still an ordinary number.
_FAINTEST = SINGLE(-100)
_HALF = SINGLE(0.5)
_ZERO = SINGLE(0)
_ONE = SINGLE(1)

_inner = numba.njit(error_model="numpy", inline="always")


@_inner
@no_type_check
def _fetch(splats, members, first, count, left, top, near, spans):
    """Copies splats of one tile side by side, in the tile's own coordinates, ready for the loops over its pixels.

    A row of ``near``: centre from the first pixel's centre; half the conic, negated, in powers of two; opacity; red,
    green, blue; depth. A row of ``spans``: first and last (exclusive) row of pixels; first column, and last (exclusive)
    such that whole vectors lie between them.
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
        spans[i, 0] = max(int(splat[11]) - top, 0)
        spans[i, 1] = min(int(splat[13]) - top, TILE_ROWS)
        column, end = max(int(splat[10]) - left, 0), min(int(splat[12]) - left, TILE_COLUMNS)
        width = (end - column + LANES - 1) // LANES * LANES
        column = min(column, TILE_COLUMNS - width)
        spans[i, 2], spans[i, 3] = column, column + width
    # The next ones, meanwhile.
    for i in range(first + count, min(first + 2 * count, len(members))):
        prefetch(splats, np.uint64(members[i] * ROW))


@_inner
@no_type_check
def _start_tile(buffer, stride, rows, columns):
    """Sets the transmittance plane: 1 inside the image, ended (negative) outside; the other planes to 0."""
    buffer[:] = _ZERO
    for y in range(TILE_ROWS):
        for x in range(TILE_COLUMNS):
            buffer[y * stride + x] = _ONE if y < rows and x < columns else -_ONE


@_inner
@no_type_check
def _all_ended(buffer, stride):
    for y in range(TILE_ROWS):
        for x in range(0, TILE_COLUMNS, LANES):
            if any_of(load(buffer, y * stride + x) > _ZERO):
                return False
    return True


@numba.njit(error_model="numpy")
@no_type_check
def _splat_forward(splat, span, buffer):
    """Composites one splat into the pixels of a tile."""
    mean_y = splat[1]
    xx, xy, yy = splat[2], splat[3], splat[4]
    opacity, red, green, blue, depth = splat[5], splat[6], splat[7], splat[8], splat[9]
    zero = repeat(_ZERO)
    for column in range(span[2], span[3], LANES):
        dx = ramp() + (SINGLE(column) - splat[0])
        power_xx, power_x = dx * dx * xx, dx * xy
        for y in range(span[0], span[1]):
            dy = repeat(SINGLE(y) - mean_y)
            power = power_xx + (power_x + dy * yy) * dy
            power = select(power > _FAINTEST, power, repeat(_FAINTEST))
            alpha = exp2(power) * opacity
            alpha = select(alpha > _ALPHA_MAX, repeat(_ALPHA_MAX), alpha)
            alpha = select(alpha >= _ALPHA_MIN, alpha, zero)
            base = np.uint64(y * _STRIDE + column)
            before = load(buffer, base)
            weight = alpha * before
            after = before - weight
            goes_on = after > _TRANSMITTANCE_MIN
            weight = select(goes_on, weight, zero)
            store(buffer, base, select(goes_on, after, zero - magnitude(before)))
            place = base + np.uint64(TILE_COLUMNS)
            store(buffer, place, load(buffer, place) + weight * red)
            place = base + np.uint64(2 * TILE_COLUMNS)
            store(buffer, place, load(buffer, place) + weight * green)
            place = base + np.uint64(3 * TILE_COLUMNS)
            store(buffer, place, load(buffer, place) + weight * blue)
            place = base + np.uint64(4 * TILE_COLUMNS)
            store(buffer, place, load(buffer, place) + weight * depth)


@compiled(nogil=True)
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
    tiles_x = (width + TILE_COLUMNS - 1) // TILE_COLUMNS
    buffer = np.empty(TILE_ROWS * _STRIDE, np.float32)
    near, spans = np.empty((CHUNK, ROW), np.float32), np.empty((CHUNK, 4), np.int64)
    for tile in range(part, len(starts) - 1, parts):
        left, top = (first + tile) % tiles_x * TILE_COLUMNS, (first + tile) // tiles_x * TILE_ROWS
        rows, columns = min(TILE_ROWS, height - top), min(TILE_COLUMNS, width - left)
        here = members[starts[tile] : starts[tile + 1]]
        _start_tile(buffer, _STRIDE, rows, columns)
        done = 0
        while done < len(here):
            count = min(CHUNK, len(here) - done)
            _fetch(splats, here, done, count, left, top, near, spans)
            for i in range(count):
                _splat_forward(near[i], spans[i], buffer)
            done += count
            if _all_ended(buffer, _STRIDE):
                break
        reached[first + tile] = done
        for y in range(rows):
            for x in range(columns):
                i = y * _STRIDE + x
                image[4, top + y, left + x] = _ONE - abs(buffer[i])
                for channel in range(4):
                    image[channel, top + y, left + x] = buffer[i + (channel + 1) * TILE_COLUMNS]


@numba.njit(error_model="numpy")
@no_type_check
def _splat_backward(splat, span, buffer, sums):
    """Sums one splat's gradient over the pixels of a tile and moves the tile's state behind it.

    The splat's gradient is linear in what is summed; ``_from_sums`` in ``projection_kernels`` makes it of that, once a
    splat.

    Planes of ``buffer``: transmittance; the five gradients of the image; and what is still to come of their
    product with the image. That rest, divided by 1 - alpha, is what the splat takes from those behind it.
    """
    mean_y = splat[1]
    xx, xy, yy = splat[2], splat[3], splat[4]
    opacity, red, green, blue, depth = splat[5], splat[6], splat[7], splat[8], splat[9]
    zero = repeat(_ZERO)
    sum_red = sum_green = sum_blue = sum_depth = all_1 = all_x = all_y = all_xx = all_xy = all_yy = zero
    for column in range(span[2], span[3], LANES):
        dx = ramp() + (SINGLE(column) - splat[0])
        power_xx, power_x = dx * dx * xx, dx * xy
        sum_1 = sum_y = zero
        for y in range(span[0], span[1]):
            dy = repeat(SINGLE(y) - mean_y)
            power = power_xx + (power_x + dy * yy) * dy
            power = select(power > _FAINTEST, power, repeat(_FAINTEST))
            raw = exp2(power) * opacity
            alpha = select(raw > _ALPHA_MAX, repeat(_ALPHA_MAX), raw)
            alpha = select(alpha >= _ALPHA_MIN, alpha, zero)
            base = np.uint64(y * _BACKWARD_STRIDE + column)
            before = load(buffer, base)
            weight = alpha * before
            after = before - weight
            goes_on = after > _TRANSMITTANCE_MIN
            weight = select(goes_on, weight, zero)
            store(buffer, base, select(goes_on, after, zero - magnitude(before)))
            to_red = load(buffer, base + np.uint64(TILE_COLUMNS))
            to_green = load(buffer, base + np.uint64(2 * TILE_COLUMNS))
            to_blue = load(buffer, base + np.uint64(3 * TILE_COLUMNS))
            to_depth = load(buffer, base + np.uint64(4 * TILE_COLUMNS))
            value = load(buffer, base + np.uint64(5 * TILE_COLUMNS))
            value = value + to_red * red + to_green * green + to_blue * blue + to_depth * depth
            rest = load(buffer, base + np.uint64(6 * TILE_COLUMNS)) - weight * value
            store(buffer, base + np.uint64(6 * TILE_COLUMNS), rest)
            sum_red = sum_red + weight * to_red
            sum_green = sum_green + weight * to_green
            sum_blue = sum_blue + weight * to_blue
            sum_depth = sum_depth + weight * to_depth
            # With respect to the exponent; a capped opacity does not move.
            slope = weight * value - alpha * rest / (_ONE - alpha)
            slope = select(raw > _ALPHA_MAX, zero, select(goes_on, slope, zero))
            sum_1 = sum_1 + slope
            slope = slope * dy
            sum_y = sum_y + slope
            all_yy = all_yy + slope * dy
        all_1, all_y, all_xy = all_1 + sum_1, all_y + sum_y, all_xy + sum_y * dx
        sum_1 = sum_1 * dx
        all_x, all_xx = all_x + sum_1, all_xx + sum_1 * dx
    store(sums, np.uint64(0), totals(all_x, all_y, all_xx, all_xy, all_yy, all_1, sum_red, sum_green))
    sums[8], sums[9] = total(sum_blue), total(sum_depth)


@compiled(nogil=True)
@no_type_check
def composite_backward(splats, offsets, members, starts, first, image, reached, image_gradient, pair_sums, part, parts):
    """Sums over pixels from which the gradient of each pair's splat is made; arguments as in :func:`composite`.

    The tiles are walked front to back once more: what lies behind a splat is the finished pixel less what has
    been passed, so nothing of the forward pass has to be kept per pixel but the image. ``offsets`` holds the first
    pair of every splat.
    """
    _, height, width = image.shape
    tiles_x = (width + TILE_COLUMNS - 1) // TILE_COLUMNS
    buffer = np.empty(TILE_ROWS * _BACKWARD_STRIDE, np.float32)
    near, spans = np.empty((CHUNK, ROW), np.float32), np.empty((CHUNK, 4), np.int64)
    sums = np.empty((CHUNK, FEATURES), np.float32)
    slots = np.empty(CHUNK, np.int64)
    for tile in range(part, len(starts) - 1, parts):
        left, top = (first + tile) % tiles_x * TILE_COLUMNS, (first + tile) // tiles_x * TILE_ROWS
        rows, columns = min(TILE_ROWS, height - top), min(TILE_COLUMNS, width - left)
        _start_tile(buffer, _BACKWARD_STRIDE, rows, columns)
        for y in range(rows):
            for x in range(columns):
                i = y * _BACKWARD_STRIDE + x
                rest = _ZERO
                for channel in range(5):
                    slope = image_gradient[channel, top + y, left + x]
                    buffer[i + (channel + 1) * TILE_COLUMNS] = slope
                    rest += slope * image[channel, top + y, left + x]
                buffer[i + 6 * TILE_COLUMNS] = rest
        here = members[starts[tile] : starts[tile] + reached[first + tile]]
        for done in range(0, len(here), CHUNK):
            count = min(CHUNK, len(here) - done)
            _fetch(splats, here, done, count, left, top, near, spans)
            # Reads and writes of memory far apart are kept out of the long loop: only then do they overlap.
            for i in range(count):
                n = here[done + i]
                before = tiles_before(splats[n], first + tile, tiles_x) - tiles_before(splats[n], first, tiles_x)
                slots[i] = offsets[n] + before
                prefetch(pair_sums, np.uint64(slots[i] * FEATURES))
            for i in range(count):
                _splat_backward(near[i], spans[i], buffer, sums[i])
            for i in range(count):
                for feature in range(FEATURES):
                    pair_sums[slots[i], feature] = sums[i, feature]
