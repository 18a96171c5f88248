"""The CPU renderer: 16x16 tiles, compiled loops on all of torch's threads, differentiable.

Results and gradients are the same bytes on every run and for every number of threads.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numba
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from lyra.cameras import Cameras
from lyra.gaussians import Gaussians
from lyra.rendering import kernels
from lyra.rendering.image import Rendering, white
from lyra.rendering.projection import faintest_exponent, project

# Numba's simplest thread pool aborts the process when two Python threads enter it at once (a viewer does).
_POOL = threading.Lock()


@contextmanager
def _threads() -> Iterator[int]:
    """Holds numba's thread pool and gives it as many threads as torch uses."""
    with _POOL:
        previous = numba.get_num_threads()
        count = max(1, min(torch.get_num_threads(), numba.config.NUMBA_NUM_THREADS))
        numba.set_num_threads(count)
        try:
            yield count
        finally:
            numba.set_num_threads(previous)


class _Composite(torch.autograd.Function):
    """Splats (rows of ``kernels.FEATURES``) to red, green, blue, depth (sums) and alpha."""

    @staticmethod
    def forward(ctx, splats: Tensor, spreads: Tensor, height: int, width: int) -> Tensor:  # pyright: ignore
        splats = splats.contiguous()
        reach = faintest_exponent(splats[:, 5]).numpy()
        rows, size = splats.numpy(), len(splats)
        bounds, counts = np.empty((size, 4), np.int32), np.empty(size, np.int64)
        offsets = np.zeros(size + 1, np.int64)
        tiles_x, tiles_y = -(-width // kernels.TILE), -(-height // kernels.TILE)
        starts = np.zeros(tiles_x * tiles_y + 1, np.int64)
        reached = np.zeros(tiles_x * tiles_y, np.int64)
        image = np.zeros((5, height, width), np.float32)
        keys = np.ascontiguousarray(rows[:, 9]).view(np.uint32)
        with _threads() as threads:
            kernels.find_tiles(rows, spreads.contiguous().numpy(), reach, height, width, bounds, counts)
            np.cumsum(counts, out=offsets[1:])
            owners, members = np.empty((2, offsets[-1]), np.int32)
            kernels.fill_tiles(bounds, offsets, tiles_x, tiles_y, threads, owners, members, starts)
            kernels.composite(rows, keys, bounds, owners, members, starts, threads, image, reached)
        image = torch.from_numpy(image)
        ctx.save_for_backward(splats, image)
        ctx.work = (bounds, offsets, owners, members, starts, reached)
        return image

    @staticmethod
    @once_differentiable
    def backward(ctx, image_gradient: Tensor):  # pyright: ignore
        splats, image = ctx.saved_tensors
        bounds, offsets, owners, members, starts, reached = ctx.work
        gradients = torch.empty_like(splats)
        pair_gradients = np.zeros((len(members), kernels.FEATURES), np.float32)
        with _threads() as threads:
            kernels.composite_backward(
                *(splats.numpy(), bounds, owners, members, starts, threads, image.numpy(), reached),
                image_gradient.contiguous().numpy(),
                pair_gradients,
            )
            kernels.sum_pairs(pair_gradients, offsets, gradients.numpy())
        return gradients, None, None, None


def render_tiled(
    gaussians: Gaussians, cameras: Cameras, background: Float[Tensor, "3"] | None = None, near: float = 0.01
) -> Rendering:
    """Renders as :func:`lyra.rendering.render` does, on the CPU in float32.

    Each view keeps about 60 bytes a splat and 8 a splat and tile for its backward pass.
    """
    background = white(gaussians.means).float() if background is None else background.float()
    with torch.autocast("cpu", enabled=False):
        gaussians = gaussians.to(torch.float32)
        views = [_accumulate(gaussians, cameras, view, near) for view in range(len(cameras))]
        image = (
            torch.stack(views) if views else gaussians.means.new_zeros(0, 5, cameras.height, cameras.width)
        )
        return Rendering.composite(image[:, :3], image[:, 3], image[:, 4], background)


def _accumulate(
    gaussians: Gaussians, cameras: Cameras, view: int, near: float
) -> Float[Tensor, "5 height width"]:
    """Red, green, blue, depth and alpha summed over the Gaussians of one view."""
    height, width = cameras.height, cameras.width
    splats = project(gaussians, cameras.camera_to_world[view], cameras.intrinsics[view], height, width, near)
    opacities, colors = gaussians.opacities, gaussians.colors
    if len(splats.index) < len(gaussians):
        opacities, colors = opacities[splats.index], colors[splats.index]
    rows = torch.cat(
        [splats.means, splats.conics, opacities[:, None], colors, splats.depths[:, None]], dim=-1
    )
    image = _Composite.apply(rows, splats.spreads, height, width)
    assert isinstance(image, Tensor)
    return image
