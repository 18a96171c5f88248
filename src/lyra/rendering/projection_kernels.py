"""The projection of ``projection.py`` and its derivative as compiled loops over splats.

Torch needs some eighty passes over memory for it, which would be half of the CPU renderer's time. Each splat
is computed in float64 and rounded once, so long thin splats lose nothing. A splat is a row of ``ROW`` float32
numbers, one cache line: centre x, y; conic xx, xy, yy; opacity; red, green, blue; depth; and the box of pixels that it
can reach (left, top, right, bottom; exclusive; empty where it is not seen).

A camera is 20 float64 numbers: its x, y and z axes and its centre in world space; fx, fy, cx, cy; the lowest
x/z and y/z at which the perspective derivative is taken, and the highest.
"""

import math
from typing import no_type_check

import numba
import numpy as np

from lyra.rendering.projection import ALPHA_MIN, BLUR, FARTHEST, LARGEST_SPREAD

FEATURES = 10
"""What of a splat has a gradient."""
ROW = 16
_inner = numba.njit(cache=True, error_model="numpy")


@_inner
@no_type_check
def share(total, part, parts):
    """First and last (exclusive) of the items that are the business of one of several threads."""
    return total * part // parts, total * (part + 1) // parts


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
    """The quaternion normalised, and its length (at least 1e-12)."""
    w, x = np.float64(quaternions[n, 0]), np.float64(quaternions[n, 1])
    y, z = np.float64(quaternions[n, 2]), np.float64(quaternions[n, 3])
    length = max(math.sqrt(w * w + x * x + y * y + z * z), 1e-12)
    return w / length, x / length, y / length, z / length, length


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
def _derivative(x, y, z, camera):
    """World-space gradients of the pixel coordinates at the centre, or at the limit of the field of view."""
    along_x = min(max(x / z, camera[16]), camera[18])
    along_y = min(max(y / z, camera[17]), camera[19])
    forward = _part(camera, 6)
    scale_x, scale_y = camera[12] / z, camera[13] / z
    row_x = _mix(scale_x, _part(camera, 0), -scale_x * along_x, forward)
    row_y = _mix(scale_y, _part(camera, 3), -scale_y * along_y, forward)
    return row_x, row_y


@_inner
@no_type_check
def _seen(x, y, z, scale, camera, near):
    """Whether the splat is in front of the near plane and of a size that float32 can hold."""
    if not z > near:
        return False
    focal = max(camera[12], camera[13])
    steep_x, steep_y = max(abs(camera[16]), abs(camera[18])), max(abs(camera[17]), abs(camera[19]))
    bound = max(scale[0], scale[1], scale[2]) * focal * math.sqrt(1 + steep_x * steep_x + steep_y * steep_y)
    return bound <= LARGEST_SPREAD * z and focal * math.sqrt(x * x + y * y + z * z) <= FARTHEST * z


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


@numba.njit(nogil=True, cache=True, error_model="numpy")
@no_type_check
def project_forward(
    means, scales, quaternions, opacities, colors, camera, near, height, width, splats, depths, finite, part, parts
):
    """Fills ``splats`` and ``depths``; a Gaussian that cannot be seen becomes a row of zeros.

    ``finite[part]`` becomes false where a number of this share's Gaussians is NaN or infinite.
    """
    first, last = share(len(means), part, parts)
    for n in range(first, last):
        mean, scale = _vector(means, n), _vector(scales, n)
        x, y, z = _local(mean, camera)
        opacity = np.float64(opacities[n])
        if not _is_finite(mean, scale, quaternions, opacity, colors, n):
            finite[part] = False
        splat = splats[n]
        if opacity < ALPHA_MIN or not _seen(x, y, z, scale, camera, near):
            splat[:] = 0
            depths[n] = 0
            continue
        qw, qx, qy, qz, _ = _unit(quaternions, n)
        columns = _columns(qw, qx, qy, qz)
        row_x, row_y = _derivative(x, y, z, camera)
        row_x, row_y = _times(_into(columns, row_x), scale), _times(_into(columns, row_y), scale)
        xx, xy, yy = _dot(row_x, row_x), _dot(row_x, row_y), _dot(row_y, row_y)
        normal = _cross(row_x, row_y)
        inverse = 1 / (_dot(normal, normal) + BLUR * (xx + yy) + BLUR * BLUR)
        splat[0] = camera[12] * x / z + camera[14]
        splat[1] = camera[13] * y / z + camera[15]
        splat[2], splat[3], splat[4] = (yy + BLUR) * inverse, -xy * inverse, (xx + BLUR) * inverse
        splat[5] = opacities[n]
        splat[6], splat[7], splat[8] = colors[n, 0], colors[n, 1], colors[n, 2]
        splat[9] = depths[n] = z
        # Where it falls to the faintest alpha, and a little more: what is seen is decided at the pixel.
        radius = math.sqrt(2 * max(math.log(opacity / ALPHA_MIN), 0.0)) * 1.0001 + 1e-3
        _fill_box(splat, radius * math.sqrt(xx + BLUR), radius * math.sqrt(yy + BLUR), height, width)


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
def _center_backward(x, y, z, camera, gradient, row_x, row_y, to_row_x, to_row_y):
    """From the gradients of the pixel position, of the depth and of the derivative's rows to the centre's."""
    forward = _part(camera, 6)
    tangent_x, tangent_y = x / z, y / z
    to_tangent_x, to_tangent_y = camera[12] * gradient[0], camera[13] * gradient[1]
    if camera[16] < tangent_x < camera[18]:
        to_tangent_x -= camera[12] / z * _dot(to_row_x, forward)
    if camera[17] < tangent_y < camera[19]:
        to_tangent_y -= camera[13] / z * _dot(to_row_y, forward)
    to_z = gradient[9] - (_dot(to_row_x, row_x) + _dot(to_row_y, row_y)) / z
    to_z -= (to_tangent_x * tangent_x + to_tangent_y * tangent_y) / z
    to_x, to_y = to_tangent_x / z, to_tangent_y / z
    return _mix(1.0, _mix(to_x, _part(camera, 0), to_y, _part(camera, 3)), to_z, forward)


@_inner
@no_type_check
def _quaternion_backward(w, x, y, z, length, a, b, c):
    """From the gradients of the rotation's columns to that of the quaternion before it was normalised."""
    to_w = 2 * (z * (a[1] - b[0]) + y * (c[0] - a[2]) + x * (b[2] - c[1]))
    to_x = 2 * (y * (b[0] + a[1]) + z * (c[0] + a[2]) + w * (b[2] - c[1]) - 2 * x * (b[1] + c[2]))
    to_y = 2 * (x * (b[0] + a[1]) + z * (c[1] + b[2]) + w * (c[0] - a[2]) - 2 * y * (a[0] + c[2]))
    to_z = 2 * (x * (c[0] + a[2]) + y * (c[1] + b[2]) + w * (a[1] - b[0]) - 2 * z * (a[0] + b[1]))
    along = w * to_w + x * to_x + y * to_y + z * to_z
    return (
        (to_w - w * along) / length,
        (to_x - x * along) / length,
        (to_y - y * along) / length,
        (to_z - z * along) / length,
    )


@numba.njit(nogil=True, cache=True, error_model="numpy")
@no_type_check
def project_backward(
    means,
    scales,
    quaternions,
    camera,
    splats,
    gradients,
    to_means,
    to_scales,
    to_quaternions,
    to_rest,
    part,
    parts,
):
    """Carries each splat's gradient back through the projection and adds it to those of its Gaussian.

    ``to_rest`` receives the gradients of opacity, red, green and blue.
    """
    first, last = share(len(means), part, parts)
    for n in range(first, last):
        if splats[n, 12] == 0:
            continue
        gradient = gradients[n]
        mean, scale = _vector(means, n), _vector(scales, n)
        x, y, z = _local(mean, camera)
        qw, qx, qy, qz, length = _unit(quaternions, n)
        columns = _columns(qw, qx, qy, qz)
        row_x, row_y = _derivative(x, y, z, camera)
        own_x, own_y = _into(columns, row_x), _into(columns, row_y)
        to_own_x, to_own_y = _footprint_backward(splats[n], gradient, _times(own_x, scale), _times(own_y, scale))
        to_scale = _mix(1.0, _times(to_own_x, own_x), 1.0, _times(to_own_y, own_y))
        to_own_x, to_own_y = _times(to_own_x, scale), _times(to_own_y, scale)
        to_row_x = _mix(1.0, _mix(to_own_x[0], columns[0], to_own_x[1], columns[1]), to_own_x[2], columns[2])
        to_row_y = _mix(1.0, _mix(to_own_y[0], columns[0], to_own_y[1], columns[1]), to_own_y[2], columns[2])
        to_mean = _center_backward(x, y, z, camera, gradient, row_x, row_y, to_row_x, to_row_y)
        to_quaternion = _quaternion_backward(
            *(qw, qx, qy, qz, length),
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
