"""Speed and memory of the CPU renderer on random Gaussians of about a pixel."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from tqdm import tqdm

from lyra.bench.measure import median_seconds, run_isolated
from lyra.device.memory import peak_memory_mb
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.gaussians import Gaussians

Backend = Literal["cpu", "deferred", "oracle"]
"""The fast renderer, the same with deferred backward, and the plain torch renderer that both are tested against."""
ROWS: tuple[tuple[Backend, int, int, int, int, int], ...] = (
    *(
        ("cpu", *size, 1, threads)
        for size in ((50_000, 176, 320), (100_000, 352, 640), (500_000, 352, 640), (1_000_000, 704, 1280))
        for threads in (1, 2)
    ),
    ("cpu", 10_000_000, 704, 1280, 1, 2),
    *((backend, 120_000, 128, 128, views, 2) for backend in ("cpu", "deferred") for views in (2, 8, 32, 128)),
    *((backend, 2_000, 88, 160, 1, 2) for backend in ("cpu", "oracle")),
    *((backend, 10_000, 176, 320, 1, 2) for backend in ("cpu", "oracle")),
)
"""Backend, Gaussians, height, width, views, threads."""
ORACLE_LIMIT = 50_000_000
"""Pairs of pixel and Gaussian from which on the oracle's graph does not fit: its forward pass alone is measured."""


def measure() -> list[dict[str, Any]]:
    """The rows of ``lyra bench render``, medians in milliseconds; a row that did not finish says why.

    ``backward_ms`` is forward plus backward less forward. ``oracle_ratio`` is how many times as long as this row the
    oracle took for the same, forward.
    """
    names = ("backend", "gaussians", "height", "width", "views", "threads")
    rows: list[dict[str, Any]] = [
        dict(zip(names, row, strict=True)) | run_isolated(_measure, *row)
        for row in tqdm(ROWS, desc="bench render", unit="row")
    ]
    for row in rows:
        for oracle in rows:
            same = all(row[name] == oracle[name] for name in names[1:])
            if same and row["backend"] == "cpu" and oracle["backend"] == "oracle" and "forward_ms" in oracle:
                row["oracle_ratio"] = oracle["forward_ms"] / row["forward_ms"]
    return rows


def random_scene(count: int, height: int, width: int, views: int = 1, seed: int = 0) -> tuple[Gaussians, Cameras]:
    """Gaussians evenly over the first view's image, 1 to 3 scene units deep, standard deviation 0.5 to 1.5 pixels."""
    generator = torch.Generator().manual_seed(seed)
    intrinsics = intrinsics_from_fov(60.0, height, width)
    poses = torch.eye(4).repeat(views, 1, 1)
    poses[:, 0, 3] = torch.linspace(0, 0.2, views)
    z = 1 + 2 * torch.rand(count, 1, generator=generator)
    pixels = torch.rand(count, 2, generator=generator) * torch.tensor([width, height])
    gaussians = Gaussians(
        means=torch.cat([(pixels - intrinsics[2:]) / intrinsics[:2] * z, z], dim=-1),
        scales=(0.5 + torch.rand(count, 3, generator=generator)) * z / intrinsics[0],
        quaternions=F.normalize(torch.randn(count, 4, generator=generator), dim=-1),
        opacities=torch.rand(count, generator=generator),
        colors=torch.rand(count, 3, generator=generator),
    )
    return gaussians, Cameras(poses, intrinsics.repeat(views, 1), height, width)


def _measure(backend: Backend, count: int, height: int, width: int, views: int, threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    gaussians, cameras = random_scene(count, height, width, views)
    renderer = _renderer(backend)
    repeats = 21 if count * views <= 100_000 else 7
    if backend == "oracle" or count * views > 1_000_000:
        repeats = 3

    def forward() -> None:
        with torch.no_grad():
            renderer(gaussians, cameras)

    if backend == "oracle" and count * height * width > ORACLE_LIMIT:
        return {"forward_ms": 1000 * median_seconds(forward, 1, warmup=0), "peak_memory_mb": peak_memory_mb()}
    slope = torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1)).expand(views, -1, -1, -1)

    def both() -> None:
        leaves = gaussians.map(lambda t: t.detach().requires_grad_())
        renderer(leaves, cameras).color.backward(slope)

    forward_ms = 1000 * median_seconds(forward, repeats)
    both_ms = 1000 * median_seconds(both, repeats)
    return {
        "forward_ms": forward_ms,
        "backward_ms": both_ms - forward_ms,
        "forward_backward_ms": both_ms,
        "peak_memory_mb": peak_memory_mb(),
    }


def _renderer(backend: Backend) -> Any:
    match backend:
        case "cpu":
            from lyra.rendering.tiled import render_tiled

            return render_tiled
        case "deferred":
            from lyra.rendering.deferred import render_deferred

            return render_deferred
        case "oracle":
            from lyra.rendering.oracle import render_oracle

            return render_oracle
