"""The CPU renderer: 16x16 tiles, compiled loops on as many threads as torch uses, differentiable.

Pictures and gradients are the same bytes on every run and for every number of threads.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from lyra.cameras import Cameras
from lyra.gaussians import Gaussians
from lyra.rendering import kernels, projection_kernels
from lyra.rendering.image import Rendering, over_background, stack_views
from lyra.rendering.projection import tangent_limits

# Numba's simplest thread pool aborts the process when two Python threads enter it at once (a viewer's do).
_POOL = threading.Lock()
_MOST_THREADS = numba.get_num_threads()


@contextmanager
def _threads() -> Iterator[int]:
    """Holds numba's thread pool and gives it as many threads as torch uses."""
    with _POOL:
        previous = numba.get_num_threads()
        count = min(torch.get_num_threads(), _MOST_THREADS)
        numba.set_num_threads(count)
        try:
            yield count
        finally:
            numba.set_num_threads(previous)


class _Accumulate(torch.autograd.Function):
    """Gaussians to red, green, blue, depth (sums) and alpha of one view."""

    @staticmethod
    def forward(ctx, camera: np.ndarray, near: float, height: int, width: int, *values: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        values = tuple(v.detach().contiguous() for v in values)
        means, scales, quaternions, opacities, colors = (v.numpy() for v in values)
        size = len(means)
        splats = np.empty((size, projection_kernels.FEATURES), np.float32)
        extents = np.empty((size, 2), np.float32)
        bounds, counts = np.empty((size, 4), np.int32), np.empty(size, np.int64)
        offsets = np.zeros(size + 1, np.int64)
        tiles_x, tiles_y = -(-width // kernels.TILE), -(-height // kernels.TILE)
        starts = np.zeros(tiles_x * tiles_y + 1, np.int64)
        reached = np.zeros(tiles_x * tiles_y, np.int64)
        image = np.zeros((5, height, width), np.float32)
        with _threads() as threads:
            projection_kernels.project_forward(
                means, scales, quaternions, opacities, colors, camera, near, splats, extents
            )
            kernels.find_tiles(splats, extents, height, width, bounds, counts)
            np.cumsum(counts, out=offsets[1:])
            owners, members = np.empty((2, offsets[-1]), np.int32)
            kernels.fill_tiles(bounds, offsets, tiles_x, threads, owners, members, starts)
            keys = splats[:, 9].copy().view(np.uint32)
            kernels.composite(splats, keys, bounds, owners, members, starts, threads, image, reached)
        result = torch.from_numpy(image)
        ctx.save_for_backward(*values[:3], result)
        ctx.work = (camera, splats, bounds, offsets, owners, members, starts, reached)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, image_gradient: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        means, scales, quaternions, image = ctx.saved_tensors
        camera, splats, bounds, offsets, owners, members, starts, reached = ctx.work
        pair_gradients = np.zeros((len(members), projection_kernels.FEATURES), np.float32)
        to_means, to_scales, to_quaternions = (torch.empty_like(t) for t in (means, scales, quaternions))
        to_rest = image.new_empty(len(splats), 4)
        with _threads() as threads:
            kernels.composite_backward(
                splats,
                bounds,
                owners,
                members,
                starts,
                threads,
                image.numpy(),
                reached,
                image_gradient.contiguous().numpy(),
                pair_gradients,
            )
            projection_kernels.project_backward(
                means.numpy(),
                scales.numpy(),
                quaternions.numpy(),
                camera,
                splats,
                pair_gradients,
                offsets,
                to_means.numpy(),
                to_scales.numpy(),
                to_quaternions.numpy(),
                to_rest.numpy(),
            )
        return None, None, None, None, to_means, to_scales, to_quaternions, to_rest[:, 0], to_rest[:, 1:]


def render_tiled(
    gaussians: Gaussians,
    cameras: Cameras,
    background: Float[Tensor, "3"] | None = None,
    near: float = 0.01,
) -> Rendering:
    """Renders as :func:`lyra.rendering.render` does, on the CPU in float32; cameras get no gradient.

    For its backward pass a view keeps about 65 bytes a Gaussian and 8 for each tile that a Gaussian touches
    (40 more while it runs).
    """
    with torch.autocast("cpu", enabled=False):
        gaussians = gaussians.to(torch.float32)
        values = [getattr(gaussians, field.name) for field in fields(Gaussians)]
        views = []
        for view in range(len(cameras)):
            image = _Accumulate.apply(_row(cameras, view), near, cameras.height, cameras.width, *values)
            views.append(image)
        image = stack_views(views, cameras.height, cameras.width, gaussians.means)
        return over_background(image, background)


def _row(cameras: Cameras, view: int) -> np.ndarray:
    """One camera as the numbers that ``projection_kernels`` expects."""
    pose = cameras.camera_to_world[view].detach().double()
    intrinsics = cameras.intrinsics[view].detach().double()
    low, high = tangent_limits(intrinsics, cameras.height, cameras.width)
    return torch.cat([pose[:3, :3].mT.flatten(), pose[:3, 3], intrinsics, low, high]).numpy()
