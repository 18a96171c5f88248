"""The projection of ``projection.py`` and its derivative as compiled loops over splats.

Torch needs some eighty passes over memory for it, which would be half of the CPU renderer's time. Each splat
is computed in float64 and rounded once, so long thin splats lose nothing. A splat is a row of ``ROW`` float32
numbers, one cache line: centre x, y; conic xx, xy, yy; opacity; red, green, blue; depth; and the box of pixels that it
can reach (left, top, right, bottom; exclusive; empty where it is not seen).

A camera is a tuple of float64 numbers: its x, y and z axes and its centre in world space; fx, fy, cx, cy; the lowest
x/z and y/z at which the perspective derivative is taken, and the highest; and the most pixels that a unit of length at
z = 1 can spread over by that derivative. As a tuple, since numba would read an array anew after every write to another.
"""

import math
from typing import no_type_check

import numba
import numpy as np

from lyra.device.compiling import compiled
from lyra.rendering.binning_kernels import box_of_tiles, share, tile_of
from lyra.rendering.lanes import prefetch
from lyra.rendering.projection import ALPHA_MIN, BLUR, FARTHEST, LARGEST_SPREAD

FEATURES = 10
"""What of a splat has a gradient."""
ROW = 16
AHEAD = 8
"""So many splats before its turn a row is fetched: the work on one is too long for the processor to look beyond it."""
_STEPS = 1000
_REACH = 2 * np.log(np.maximum(np.arange(1, _STEPS + 1) / _STEPS / ALPHA_MIN, 1)) * 1.001 + 1e-3
# Products and sums may be fused; NaN and infinity keep their meaning.
_inner = numba.njit(error_model="numpy", fastmath={"contract"})


@_inner
@no_type_check
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@_inner
@no_type_check
def _cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@_inner
@no_type_check
def _times(a, b):
    return a[0] * b[0], a[1] * b[1], a[2] * b[2]


@_inner
@no_type_check
def _mix(s, a, t, b):
    """The vector s a + t b."""
    return s * a[0] + t * b[0], s * a[1] + t * b[1], s * a[2] + t * b[2]


@_inner
@no_type_check
def _vector(rows, n):
    return np.float64(rows[n, 0]), np.float64(rows[n, 1]), np.float64(rows[n, 2])


@_inner
@no_type_check
def _part(camera, start):
    return camera[start], camera[start + 1], camera[start + 2]


@_inner
@no_type_check
def _local(mean, camera):
    """Position in the camera's axes."""
    center = _part(camera, 9)
    offset = (mean[0] - center[0], mean[1] - center[1], mean[2] - center[2])
    return _dot(offset, _part(camera, 0)), _dot(offset, _part(camera, 3)), _dot(offset, _part(camera, 6))


@_inner
@no_type_check
def _unit(quaternions, n):
    """The quaternion normalised, and one over its length (that taken as at least 1e-12)."""
    w, x = np.float64(quaternions[n, 0]), np.float64(quaternions[n, 1])
    y, z = np.float64(quaternions[n, 2]), np.float64(quaternions[n, 3])
    shrink = 1 / max(math.sqrt(w * w + x * x + y * y + z * z), 1e-12)
    return w * shrink, x * shrink, y * shrink, z * shrink, shrink


@_inner
@no_type_check
def _columns(w, x, y, z):
    """Columns of the rotation: the Gaussian's principal axes in world space."""
    return (
        (1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)),
        (2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)),
        (2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)),
    )


@_inner
@no_type_check
def _into(columns, row):
    """A world-space row vector in the Gaussian's own axes."""
    return _dot(columns[0], row), _dot(columns[1], row), _dot(columns[2], row)


@_inner
@no_type_check
def _derivative(tangent_x, tangent_y, inverse_z, camera):
    """World-space gradients of the pixel coordinates at the centre, or at the limit of the field of view."""
    along_x = min(max(tangent_x, camera[16]), camera[18])
    along_y = min(max(tangent_y, camera[17]), camera[19])
    forward = _part(camera, 6)
    scale_x, scale_y = camera[12] * inverse_z, camera[13] * inverse_z
    row_x = _mix(scale_x, _part(camera, 0), -scale_x * along_x, forward)
    row_y = _mix(scale_y, _part(camera, 3), -scale_y * along_y, forward)
    return row_x, row_y


@_inner
@no_type_check
def _seen(x, y, z, scale, camera, near):
    """Whether the splat is in front of the near plane and of a size that float32 can hold."""
    if not z > near:
        return False
    largest, farthest = LARGEST_SPREAD * z, FARTHEST * z
    focal = max(camera[12], camera[13])
    return (
        max(scale[0], scale[1], scale[2]) * camera[20] <= largest
        and focal * focal * (x * x + y * y + z * z) <= farthest * farthest
    )


@_inner
@no_type_check
def _is_finite(mean, scale, quaternions, opacity, colors, n):
    """Whether every number of a Gaussian is finite; their sum times zero is zero then, else NaN."""
    sum_here = mean[0] + mean[1] + mean[2] + scale[0] + scale[1] + scale[2] + opacity
    sum_here += np.float64(quaternions[n, 0]) + quaternions[n, 1] + quaternions[n, 2] + quaternions[n, 3]
    sum_here += np.float64(colors[n, 0]) + colors[n, 1] + colors[n, 2]
    return sum_here * 0.0 == 0.0


@_inner
@no_type_check
def _reach(opacity):
    """Square of the number of standard deviations at which a splat falls to the faintest alpha, and a little more."""
    # What is seen is decided at the pixel; a logarithm for each would be a fifth of the projection.
    if opacity < 1:
        return _REACH[int(opacity * _STEPS)]
    return 2 * math.log(opacity / ALPHA_MIN) * 1.001 + 1e-3


@_inner
@no_type_check
def _fill_box(splat, extent_x, extent_y, height, width):
    """Writes the box of pixels whose centres, at +0.5, are within the extents of the splat's centre."""
    # Clamped as floats: one beyond an integer's range has no defined cast.
    left = max(math.ceil(splat[0] - extent_x - 0.5), 0.0)
    top = max(math.ceil(splat[1] - extent_y - 0.5), 0.0)
    right = min(math.floor(splat[0] + extent_x - 0.5) + 1, np.float64(width))
    bottom = min(math.floor(splat[1] + extent_y - 0.5) + 1, np.float64(height))
    if left < right and top < bottom:
        splat[10], splat[11], splat[12], splat[13] = left, top, right, bottom
    else:
        splat[10:14] = 0


@compiled(nogil=True, error_model="numpy", fastmath={"contract"})
@no_type_check
def locate(means, camera, near, tiles_x, tiles_y, homes, counts, part, parts):
    """Finds the tile that each centre falls into or is nearest to, and counts them for one share of the Gaussians.

    What is not in front of the near plane, or NaN, goes to one more tile behind the last.
    """
    first, last = share(len(means), part, parts)
    for n in range(first, last):
        x, y, z = _local(_vector(means, n), camera)
        home = tiles_x * tiles_y
        if z > near:
            inverse = 1 / z
            pixel_x, pixel_y = camera[12] * x * inverse + camera[14], camera[13] * y * inverse + camera[15]
            if not (math.isnan(pixel_x) or math.isnan(pixel_y)):
                home = tile_of(pixel_x, pixel_y, tiles_x, tiles_y)
        homes[n] = home
        counts[part, home] += 1


@compiled(nogil=True, error_model="numpy", fastmath={"contract"})
@no_type_check
def project_forward(
    means,
    scales,
    quaternions,
    opacities,
    colors,
    camera,
    near,
    height,
    width,
    places,
    ends,
    splats,
    depths,
    boxes,
    counts,
    finite,
    part,
    parts,
):
    """Fills ``splats`` and ``depths``; a Gaussian that cannot be seen becomes a row of zeros.

    ``places`` holds the home of each Gaussian (:func:`locate`) and receives where its splat is stored, from ``ends``,
    where in ``splats`` the next of each home goes. ``boxes`` receives, in the order of the Gaussians, the tiles that
    each can reach, and ``counts[part]`` how many can reach each tile. ``finite[part]`` becomes false where a number of
    this share's Gaussians is NaN or infinite.
    """
    first, last = share(len(means), part, parts)
    for n in range(first, last):
        mean, scale = _vector(means, n), _vector(scales, n)
        x, y, z = _local(mean, camera)
        opacity = np.float64(opacities[n])
        if not _is_finite(mean, scale, quaternions, opacity, colors, n):
            finite[part] = False
        if n + AHEAD < last:
            prefetch(splats, np.uint64(ends[part, places[n + AHEAD]] * ROW))
        place = ends[part, places[n]]
        ends[part, places[n]] += 1
        places[n] = place
        splat = splats[place]
        if opacity < ALPHA_MIN or not _seen(x, y, z, scale, camera, near):
            splat[:] = 0
            boxes[n, :] = 0
            continue
        qw, qx, qy, qz, _ = _unit(quaternions, n)
        columns = _columns(qw, qx, qy, qz)
        inverse_z = 1 / z
        tangent_x, tangent_y = x * inverse_z, y * inverse_z
        row_x, row_y = _derivative(tangent_x, tangent_y, inverse_z, camera)
        row_x, row_y = _times(_into(columns, row_x), scale), _times(_into(columns, row_y), scale)
        xx, xy, yy = _dot(row_x, row_x), _dot(row_x, row_y), _dot(row_y, row_y)
        normal = _cross(row_x, row_y)
        inverse = 1 / (_dot(normal, normal) + BLUR * (xx + yy) + BLUR * BLUR)
        splat[0] = camera[12] * tangent_x + camera[14]
        splat[1] = camera[13] * tangent_y + camera[15]
        splat[2], splat[3], splat[4] = (yy + BLUR) * inverse, -xy * inverse, (xx + BLUR) * inverse
        splat[5] = opacities[n]
        splat[6], splat[7], splat[8] = colors[n, 0], colors[n, 1], colors[n, 2]
        splat[9] = depths[place] = z
        reach = _reach(opacity)
        _fill_box(splat, math.sqrt(reach * (xx + BLUR)), math.sqrt(reach * (yy + BLUR)), height, width)
        x0, y0, x1, y1 = box_of_tiles(splat)
        boxes[n, 0], boxes[n, 1], boxes[n, 2], boxes[n, 3] = x0, y0, x1, y1
        for row in range(y0, y1):
            for column in range(x0, x1):
                counts[part, row, column] += 1


@_inner
@no_type_check
def _footprint_backward(splat, gradient, row_x, row_y):
    """From the gradient of the conic to those of the two rows whose products are the covariance."""
    xx, yy = _dot(row_x, row_x), _dot(row_y, row_y)
    normal = _cross(row_x, row_y)
    inverse = 1 / (_dot(normal, normal) + BLUR * (xx + yy) + BLUR * BLUR)
    to_xx, to_xy, to_yy = np.float64(gradient[2]), np.float64(gradient[3]), np.float64(gradient[4])
    conic_xx, conic_yy = (yy + BLUR) * inverse, (xx + BLUR) * inverse
    conic_xy = -_dot(row_x, row_y) * inverse
    to_area = -(to_xx * conic_xx + to_xy * conic_xy + to_yy * conic_yy) * inverse
    var_x = 2 * (to_yy * inverse + BLUR * to_area)
    var_y = 2 * (to_xx * inverse + BLUR * to_area)
    covariance = -to_xy * inverse
    to_row_x = _mix(1.0, _mix(var_x, row_x, covariance, row_y), 2 * to_area, _cross(row_y, normal))
    to_row_y = _mix(1.0, _mix(var_y, row_y, covariance, row_x), 2 * to_area, _cross(normal, row_x))
    return to_row_x, to_row_y


@_inner
@no_type_check
def _center_backward(tangent_x, tangent_y, inverse_z, camera, gradient, row_x, row_y, to_row_x, to_row_y):
    """From the gradients of the pixel position, of the depth and of the derivative's rows to the centre's."""
    forward = _part(camera, 6)
    to_tangent_x, to_tangent_y = camera[12] * gradient[0], camera[13] * gradient[1]
    if camera[16] < tangent_x < camera[18]:
        to_tangent_x -= camera[12] * inverse_z * _dot(to_row_x, forward)
    if camera[17] < tangent_y < camera[19]:
        to_tangent_y -= camera[13] * inverse_z * _dot(to_row_y, forward)
    along = _dot(to_row_x, row_x) + _dot(to_row_y, row_y) + to_tangent_x * tangent_x + to_tangent_y * tangent_y
    to_x, to_y, to_z = to_tangent_x * inverse_z, to_tangent_y * inverse_z, gradient[9] - along * inverse_z
    return _mix(1.0, _mix(to_x, _part(camera, 0), to_y, _part(camera, 3)), to_z, forward)


@_inner
@no_type_check
def _quaternion_backward(w, x, y, z, shrink, a, b, c):
    """From the gradients of the rotation's columns to that of the quaternion before it was normalised."""
    to_w = 2 * (z * (a[1] - b[0]) + y * (c[0] - a[2]) + x * (b[2] - c[1]))
    to_x = 2 * (y * (b[0] + a[1]) + z * (c[0] + a[2]) + w * (b[2] - c[1]) - 2 * x * (b[1] + c[2]))
    to_y = 2 * (x * (b[0] + a[1]) + z * (c[1] + b[2]) + w * (c[0] - a[2]) - 2 * y * (a[0] + c[2]))
    to_z = 2 * (x * (c[0] + a[2]) + y * (c[1] + b[2]) + w * (a[1] - b[0]) - 2 * z * (a[0] + b[1]))
    along = w * to_w + x * to_x + y * to_y + z * to_z
    return (
        (to_w - w * along) * shrink,
        (to_x - x * along) * shrink,
        (to_y - y * along) * shrink,
        (to_z - z * along) * shrink,
    )


@_inner
@no_type_check
def _from_sums(splat, sums):
    """From sums over pixels to the gradient of a splat: centre, conic, opacity, color, depth.

    The sums are those of the gradient of the exponent (in powers of two) times dx, dy, dx dx, dx dy, dy dy and 1,
    where (dx, dy) is the pixel less the centre; then of what red, green, blue and depth got.
    """
    xx, xy, yy = np.float64(splat[2]), np.float64(splat[3]), np.float64(splat[4])
    x, y = np.float64(sums[0]), np.float64(sums[1])
    return (
        *(xx * x + xy * y, xy * x + yy * y),
        *(-0.5 * sums[2], -1.0 * sums[3], -0.5 * sums[4]),
        *(np.float64(sums[5]) / splat[5], sums[6] * 1.0, sums[7] * 1.0, sums[8] * 1.0, sums[9] * 1.0),
    )


@compiled(nogil=True, error_model="numpy", fastmath={"contract"})
@no_type_check
def project_backward(
    means,
    scales,
    quaternions,
    camera,
    splats,
    places,
    boxes,
    pair_sums,
    offsets,
    to_means,
    to_scales,
    to_quaternions,
    to_rest,
    part,
    parts,
):
    """Adds up each splat's pairs, carries their gradient back through the projection and adds it to its Gaussian's.

    ``pair_sums`` holds the sums of the splat at a place from ``offsets[place]`` on; ``to_rest`` receives the gradients
    of opacity, red, green and blue.
    """
    first, last = share(len(means), part, parts)
    sums = np.empty(FEATURES, np.float32)
    for n in range(first, last):
        if n + 2 * AHEAD < last:
            prefetch(offsets, np.uint64(places[n + 2 * AHEAD]))
        if n + AHEAD < last:
            ahead = places[n + AHEAD]
            prefetch(splats, np.uint64(ahead * ROW))
            prefetch(pair_sums, np.uint64(offsets[ahead] * FEATURES))
        if boxes[n, 2] == 0:
            continue
        place = places[n]
        sums[:] = 0
        for pair in range(offsets[place], offsets[place + 1]):
            for i in range(FEATURES):
                sums[i] += pair_sums[pair, i]
        gradient = _from_sums(splats[place], sums)
        mean, scale = _vector(means, n), _vector(scales, n)
        x, y, z = _local(mean, camera)
        inverse_z = 1 / z
        tangent_x, tangent_y = x * inverse_z, y * inverse_z
        qw, qx, qy, qz, shrink = _unit(quaternions, n)
        columns = _columns(qw, qx, qy, qz)
        row_x, row_y = _derivative(tangent_x, tangent_y, inverse_z, camera)
        own_x, own_y = _into(columns, row_x), _into(columns, row_y)
        to_own_x, to_own_y = _footprint_backward(splats[place], gradient, _times(own_x, scale), _times(own_y, scale))
        to_scale = _mix(1.0, _times(to_own_x, own_x), 1.0, _times(to_own_y, own_y))
        to_own_x, to_own_y = _times(to_own_x, scale), _times(to_own_y, scale)
        to_row_x = _mix(1.0, _mix(to_own_x[0], columns[0], to_own_x[1], columns[1]), to_own_x[2], columns[2])
        to_row_y = _mix(1.0, _mix(to_own_y[0], columns[0], to_own_y[1], columns[1]), to_own_y[2], columns[2])
        to_mean = _center_backward(
            *(tangent_x, tangent_y, inverse_z, camera, gradient, row_x, row_y, to_row_x, to_row_y)
        )
        to_quaternion = _quaternion_backward(
            *(qw, qx, qy, qz, shrink),
            _mix(to_own_x[0], row_x, to_own_y[0], row_y),
            _mix(to_own_x[1], row_x, to_own_y[1], row_y),
            _mix(to_own_x[2], row_x, to_own_y[2], row_y),
        )
        for i in range(3):
            to_means[n, i] += to_mean[i]
            to_scales[n, i] += to_scale[i]
        for i in range(4):
            to_quaternions[n, i] += to_quaternion[i]
            to_rest[n, i] += gradient[5 + i]
