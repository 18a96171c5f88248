"""The CPU renderer: 16x16 tiles, compiled loops on as many threads as torch uses, differentiable.

Pictures and gradients are the same bytes on every run and for every number of threads.
"""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from functools import lru_cache

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


@lru_cache(maxsize=4)
def _pool(process: int, threads: int) -> ThreadPoolExecutor:
    """Threads for the kernels; a forked child has none of its parent's, hence the process in the key."""
    return ThreadPoolExecutor(threads, thread_name_prefix=f"render-{process}")


def _in_parts(kernel: Callable[..., None], parts: int, *arguments: object) -> None:
    """Runs a kernel, which releases the GIL, on every part of its work.

    Not numba's own parallel loops: their OpenMP threads spin while they wait, which costs dearly when another
    process wants the cores; some of their pools cannot be entered from two threads or do not survive a fork.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        for part in range(parts):
            kernel(*arguments, part, parts)
        return
    pool = _pool(os.getpid(), threads)
    for work in [pool.submit(kernel, *arguments, part, parts) for part in range(parts)]:
        work.result()


class _Accumulate(torch.autograd.Function):
    """Gaussians to red, green, blue, depth (sums) and alpha of one view."""

    @staticmethod
    def forward(ctx, camera: np.ndarray, near: float, height: int, width: int, *values: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        values = tuple(v.detach().contiguous() for v in values)
        gaussians = [v.numpy() for v in values]
        size, threads = len(values[0]), torch.get_num_threads()
        splats = np.empty((size, projection_kernels.FEATURES), np.float32)
        extents = np.empty((size, 2), np.float32)
        bounds, counts = np.empty((size, 4), np.int32), np.empty(size, np.int64)
        _in_parts(projection_kernels.project_forward, threads, *gaussians, camera, near, splats, extents)
        _in_parts(kernels.find_tiles, threads, splats, extents, height, width, bounds, counts)

        offsets = np.concatenate([[0], counts.cumsum()])
        tiles_x, tiles_y = -(-width // kernels.TILE), -(-height // kernels.TILE)
        places = np.zeros((threads, tiles_x * tiles_y), np.int64)
        _in_parts(kernels.count_members, threads, bounds, offsets, tiles_x, places)
        starts = np.concatenate([[0], places.sum(0).cumsum()])
        places = starts[:-1] + places.cumsum(0) - places
        owners, members = np.empty((2, offsets[-1]), np.int32)
        _in_parts(kernels.place_members, threads, bounds, offsets, tiles_x, places, owners, members)

        keys = splats[:, 9].copy().view(np.uint32)
        reached = np.zeros(tiles_x * tiles_y, np.int64)
        image = np.zeros((5, height, width), np.float32)
        pairs = (bounds, owners, members, starts)
        # More parts than threads, since some tiles are fuller and some threads get less of a shared core.
        _in_parts(kernels.composite, 4 * threads, splats, keys, *pairs, image, reached)
        result = torch.from_numpy(image)
        ctx.save_for_backward(*values[:3], result)
        ctx.work = (camera, splats, offsets, pairs, reached)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx, image_gradient: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        *values, image = ctx.saved_tensors
        camera, splats, offsets, pairs, reached = ctx.work
        threads = torch.get_num_threads()
        pair_gradients = np.zeros((offsets[-1], projection_kernels.FEATURES), np.float32)
        slopes = image_gradient.contiguous().numpy()
        _in_parts(
            kernels.composite_backward,
            4 * threads,
            *(splats, *pairs, image.numpy(), reached, slopes, pair_gradients),
        )
        gradients = [torch.empty_like(v) for v in values]
        rest = image.new_empty(len(splats), 4)
        _in_parts(
            projection_kernels.project_backward,
            threads,
            *(v.numpy() for v in values),
            *(camera, splats, pair_gradients, offsets),
            *(g.numpy() for g in (*gradients, rest)),
        )
        return None, None, None, None, *gradients, rest[:, 0], rest[:, 1:]


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
