"""The CPU renderer: 16x16 tiles, compiled loops on as many threads as torch uses, differentiable.

Pictures and gradients are the same bytes on every run and for every number of threads.
"""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from lyra.geometry.cameras import Cameras
from lyra.geometry.gaussians import Gaussians
from lyra.rendering import kernels, projection_kernels
from lyra.rendering.image import Rendering, over_background
from lyra.rendering.projection import tangent_limits

PAIRS_AT_ONCE = 2**24
"""A run of tiles has at most so many pairs of splat and tile, and at least one tile; a pair takes 4 bytes, 44 in the
backward pass."""


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


@dataclass(frozen=True)
class _View:
    """Splats as one camera sees them."""

    splats: np.ndarray
    """Rows, see ``projection_kernels``."""
    depths: np.ndarray
    height: int
    width: int

    @property
    def tiles_x(self) -> int:
        return -(-self.width // kernels.TILE)

    def runs(self) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """Members of each tile by share of the splats, and runs of tiles (first, last) of bounded pairs."""
        parts = torch.get_num_threads()
        counts = np.zeros((parts, self.tiles_x * -(-self.height // kernels.TILE)), np.int64)
        _in_parts(kernels.count_members, parts, self.splats, self.tiles_x, counts)
        ends, total = [0], counts.sum(0).cumsum()
        while ends[-1] < len(total):
            passed = total[ends[-1] - 1] if ends[-1] else 0
            ends.append(max(int(np.searchsorted(total, passed + PAIRS_AT_ONCE, "right")), ends[-1] + 1))
        return counts, list(pairwise(ends))

    def sort(self, counts: np.ndarray, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Splats tile by tile and front to back for a run of tiles, and where each tile's begin."""
        counts = counts[:, first:last]
        starts = np.concatenate([[0], counts.sum(0).cumsum()])
        places = starts[:-1] + counts.cumsum(0) - counts
        members = np.empty(starts[-1], np.int32)
        _in_parts(kernels.place_members, len(counts), self.splats, self.tiles_x, first, last, places, members)
        _in_parts(kernels.sort_members, 4 * len(counts), self.depths.view(np.uint32), members, starts)
        return members, starts


class _Accumulate(torch.autograd.Function):
    """Gaussians to red, green, blue, depth (sums) and alpha of each view."""

    @staticmethod
    def forward(ctx, cameras: Cameras, near: float, *values: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        values = tuple(v.detach().contiguous() for v in values)
        image = torch.empty(len(cameras), 5, cameras.height, cameras.width, dtype=torch.float32)
        ctx.rows = [_row(cameras, view) for view in range(len(cameras))]
        ctx.near, ctx.views = near, []
        for row, target in zip(ctx.rows, image.numpy(), strict=True):
            kept = _forward(_project(values, row, near, cameras.height, cameras.width), target)
            if any(ctx.needs_input_grad):
                ctx.views.append(kept)
        ctx.save_for_backward(*values[:3], image)
        return image

    @staticmethod
    @once_differentiable
    def backward(ctx, image_gradient: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        *values, image = ctx.saved_tensors
        slopes = image_gradient.contiguous().numpy()
        gradients = [torch.zeros_like(v) for v in values]
        rest = image.new_zeros(len(values[0]), 4)
        arrays = [t.numpy() for t in (*gradients, rest)]
        for row, kept, finished, slope in zip(ctx.rows, ctx.views, image.numpy(), slopes, strict=True):
            splat_gradients = _backward(kept, finished, slope)
            _in_parts(
                projection_kernels.project_backward,
                torch.get_num_threads(),
                *(*(v.numpy() for v in values), row, kept[0].splats, splat_gradients, *arrays),
            )
        return None, None, *gradients, rest[:, 0], rest[:, 1:]


NAMES = ("means", "scales", "quaternions", "opacities", "colors")
"""What is drawn, in the order of the kernels' arguments."""
_Kept = tuple[_View, tuple[np.ndarray, np.ndarray] | None, np.ndarray]
"""What the forward pass of a view keeps: its splats, their order where it is one run of tiles, and how many of its
splats each tile looked at."""


def _project(values: tuple[Tensor, ...], row: np.ndarray, near: float, height: int, width: int) -> _View:
    size, threads = len(values[0]), torch.get_num_threads()
    view = _View(np.empty((size, projection_kernels.ROW), np.float32), np.empty(size, np.float32), height, width)
    finite = np.ones(threads, np.bool_)
    arrays = [v.numpy() for v in values]
    _in_parts(
        projection_kernels.project_forward,
        threads,
        *(*arrays, row, near, height, width, view.splats, view.depths, finite),
    )
    if not finite.all():
        for name, array in zip(NAMES, arrays, strict=True):
            if not np.isfinite(array).all():
                raise ValueError(f"the Gaussians' {name} hold NaN or infinity")
    return view


def _forward(view: _View, image: np.ndarray) -> _Kept:
    counts, runs = view.runs()
    reached = np.zeros(counts.shape[1], np.int64)
    order = None
    for first, last in runs:
        order = view.sort(counts, first, last)
        # More parts than threads, since some tiles are fuller and some threads get less of a shared core.
        _in_parts(kernels.composite, 4 * torch.get_num_threads(), view.splats, *order, first, image, reached)
    return view, order if len(runs) == 1 else None, reached


def _sorted_runs(
    view: _View, order: tuple[np.ndarray, np.ndarray] | None, tiles: int
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """First tile, last tile, members and starts of each run: the order that was kept, or made anew."""
    if order is not None:
        yield 0, tiles, *order
        return
    counts, runs = view.runs()
    for first, last in runs:
        yield first, last, *view.sort(counts, first, last)


def _backward(kept: _Kept, image: np.ndarray, slopes: np.ndarray) -> np.ndarray:
    """Gradients of a view's splats, one row of ``FEATURES`` each."""
    view, order, reached = kept
    threads = torch.get_num_threads()
    gradients = np.zeros((len(view.splats), projection_kernels.FEATURES), np.float32)
    pairs_of = np.empty(len(view.splats), np.int64)
    for first, last, members, starts in _sorted_runs(view, order, len(reached)):
        _in_parts(kernels.count_pairs, threads, view.splats, view.tiles_x, first, last, pairs_of)
        offsets = np.concatenate([[0], pairs_of.cumsum()])
        pair_gradients = np.zeros((offsets[-1], projection_kernels.FEATURES), np.float32)
        _in_parts(
            kernels.composite_backward,
            4 * threads,
            *(view.splats, offsets, members, starts, first, image, reached, slopes, pair_gradients),
        )
        _in_parts(kernels.sum_pairs, threads, pair_gradients, offsets, gradients)
    return gradients


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
        values = [getattr(gaussians, name) for name in NAMES]
        return over_background(_Accumulate.apply(cameras, near, *values), background)


def _row(cameras: Cameras, view: int) -> np.ndarray:
    """One camera as the numbers that ``projection_kernels`` expects."""
    pose = cameras.camera_to_world[view].detach().double()
    intrinsics = cameras.intrinsics[view].detach().double()
    low, high = tangent_limits(intrinsics, cameras.height, cameras.width)
    return torch.cat([pose[:3, :3].mT.flatten(), pose[:3, 3], intrinsics, low, high]).numpy()
