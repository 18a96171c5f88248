"""The CPU renderer: 32x32 tiles, compiled loops on as many threads as torch uses, differentiable.

Pictures and gradients are the same bytes on every run and for every number of threads.
"""

import os
from collections.abc import Callable
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
from lyra.rendering import binning_kernels, kernels, projection_kernels
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
    """Rows, see ``projection_kernels``, in the order of ``binning_kernels``."""
    depths: np.ndarray
    """Of the splats, in the same order."""
    places: np.ndarray
    """Where each Gaussian's splat is."""
    boxes: np.ndarray
    """First and last (exclusive) column and row of the tiles that each Gaussian can reach."""
    counts: np.ndarray
    """Members of each tile by share of the Gaussians."""
    tiles_x: int

    def runs(self) -> list[tuple[int, int]]:
        """Runs of tiles (first, last) of bounded pairs."""
        ends, total = [0], self.counts.sum(0).cumsum()
        while ends[-1] < len(total):
            passed = total[ends[-1] - 1] if ends[-1] else 0
            ends.append(max(int(np.searchsorted(total, passed + PAIRS_AT_ONCE, "right")), ends[-1] + 1))
        return list(pairwise(ends))

    def sort(self, first: int, last: int) -> tuple[np.ndarray, np.ndarray]:
        """Splats tile by tile and front to back for a run of tiles, and where each tile's begin."""
        counts = self.counts[:, first:last]
        starts, ends = _places(counts)
        members = np.empty(starts[-1], np.int32)
        arguments = (self.boxes, self.places, self.tiles_x, first, last, ends, members)
        _in_parts(binning_kernels.place_members, len(counts), *arguments)
        _in_parts(binning_kernels.sort_members, 4 * len(counts), self.depths.view(np.uint32), members, starts)
        return members, starts


def _places(counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of counts by share and bin: where each bin begins and, last, ends; and where each share's part of it does."""
    starts = np.concatenate([[0], counts.sum(0).cumsum()])
    return starts, starts[:-1] + counts.cumsum(0) - counts


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
            view = kept[0]
            _in_parts(
                projection_kernels.project_backward,
                torch.get_num_threads(),
                *(*(v.numpy() for v in values), row, view.splats, view.places, view.boxes),
                *(*_backward(kept, finished, slope), *arrays),
            )
        return None, None, *gradients, rest[:, 0], rest[:, 1:]


NAMES = ("means", "scales", "quaternions", "opacities", "colors")
"""What is drawn, in the order of the kernels' arguments."""
_Kept = tuple[_View, tuple[np.ndarray, np.ndarray] | None, np.ndarray]
"""What the forward pass of a view keeps: its splats, their order where it is one run of tiles, and how many of its
splats each tile looked at."""


def _project(values: tuple[Tensor, ...], row: tuple[float, ...], near: float, height: int, width: int) -> _View:
    size, threads = len(values[0]), torch.get_num_threads()
    tiles_x, tiles_y = -(-width // binning_kernels.TILE_COLUMNS), -(-height // binning_kernels.TILE_ROWS)
    arrays = [v.numpy() for v in values]
    places = np.empty(size, np.int32)
    homes = np.zeros((threads, tiles_y * tiles_x + 1), np.int64)
    _in_parts(projection_kernels.locate, threads, arrays[0], row, near, tiles_x, tiles_y, places, homes)
    splats, depths = _lines(size), np.empty(size, np.float32)
    boxes = np.empty((size, 4), np.int32)
    counts = np.zeros((threads, tiles_y, tiles_x), np.int64)
    finite = np.ones(threads, np.bool_)
    _in_parts(
        projection_kernels.project_forward,
        threads,
        *(*arrays, row, near, height, width, places, _places(homes)[1], splats, depths, boxes, counts, finite),
    )
    if not finite.all():
        for name, array in zip(NAMES, arrays, strict=True):
            if not np.isfinite(array).all():
                raise ValueError(f"the Gaussians' {name} hold NaN or infinity")
    return _View(splats, depths, places, boxes, counts.reshape(threads, -1), tiles_x)


def _lines(count: int) -> np.ndarray:
    """Rows for splats, each of them one cache line."""
    row = projection_kernels.ROW
    numbers = np.empty((count + 1) * row, np.float32)
    skip = -numbers.ctypes.data % (4 * row) // 4
    return numbers[skip : skip + count * row].reshape(count, row)


def _forward(view: _View, image: np.ndarray) -> _Kept:
    runs = view.runs()
    reached = np.zeros(view.counts.shape[1], np.int64)
    order = None
    for first, last in runs:
        order = view.sort(first, last)
        # More parts than threads, since some tiles are fuller and some threads get less of a shared core.
        _in_parts(kernels.composite, 4 * torch.get_num_threads(), view.splats, *order, first, image, reached)
    return view, order if len(runs) == 1 else None, reached


def _backward(kept: _Kept, image: np.ndarray, slopes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of a view's pairs, splat by splat, and where those of each begin and, last, end.

    Where it takes several runs, their sums are added up to a single one of each splat.
    """
    view, order, reached = kept
    if order is not None:
        return _run_backward(view, 0, len(reached), order, image, reached, slopes)
    sums = np.zeros((len(view.splats), projection_kernels.FEATURES), np.float32)
    for first, last in view.runs():
        pairs = _run_backward(view, first, last, view.sort(first, last), image, reached, slopes)
        _in_parts(binning_kernels.sum_pairs, torch.get_num_threads(), *pairs, sums)
    return sums, np.arange(len(sums) + 1)


def _run_backward(
    view: _View,
    first: int,
    last: int,
    order: tuple[np.ndarray, np.ndarray],
    image: np.ndarray,
    reached: np.ndarray,
    slopes: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`_backward`, for one run of tiles."""
    threads = torch.get_num_threads()
    pairs_of = np.empty(len(view.splats), np.int64)
    _in_parts(binning_kernels.count_pairs, threads, view.splats, view.tiles_x, first, last, pairs_of)
    offsets = np.concatenate([[0], pairs_of.cumsum()])
    pair_sums = np.zeros((offsets[-1], projection_kernels.FEATURES), np.float32)
    _in_parts(
        kernels.composite_backward,
        4 * threads,
        *(view.splats, offsets, *order, first, image, reached, slopes, pair_sums),
    )
    return pair_sums, offsets


def render_tiled(
    gaussians: Gaussians,
    cameras: Cameras,
    background: Float[Tensor, "3"] | None = None,
    near: float = 0.01,
) -> Rendering:
    """Renders as :func:`lyra.rendering.render` does, on the CPU in float32; cameras get no gradient.

    For its backward pass a view keeps about 90 bytes a Gaussian and 4 for each tile that a Gaussian touches
    (40 more while it runs).
    """
    with torch.autocast("cpu", enabled=False):
        gaussians = gaussians.to(torch.float32)
        values = [getattr(gaussians, name) for name in NAMES]
        return over_background(_Accumulate.apply(cameras, near, *values), background)


def _row(cameras: Cameras, view: int) -> tuple[float, ...]:
    """One camera as the numbers that ``projection_kernels`` expects."""
    pose = cameras.camera_to_world[view].detach().double()
    intrinsics = cameras.intrinsics[view].detach().double()
    low, high = tangent_limits(intrinsics, cameras.height, cameras.width)
    spread = intrinsics[:2].amax() * torch.maximum(low.abs(), high.abs()).square().sum().add(1).sqrt()
    return tuple(torch.cat([pose[:3, :3].mT.flatten(), pose[:3, 3], intrinsics, low, high, spread[None]]).tolist())
