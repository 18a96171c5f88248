"""How many observations a second a robot's camera gives."""

import math
import time

import torch
import torch.nn.functional as F

from lyra.bench.measure import median_seconds
from lyra.geometry.gaussians import Gaussians
from lyra.rendering import render
from lyra.simulation.sensor import NEAR, robot_cameras

GAUSSIANS = 200_000
HEIGHT, WIDTH = 120, 160
VIEWS = 8
"""Cameras that observe at once."""


def corridor(count: int = GAUSSIANS, seed: int = 0) -> Gaussians:
    """Floor, walls and end of a corridor of 4 x 8 m, in view of a camera at its mouth, pixel-sized as a student's."""
    generator = torch.Generator().manual_seed(seed)
    u, v = torch.rand(2, count, generator=generator)
    # Denser near the camera, as pixels make them.
    y = 1.2 * (8 / 1.2) ** v
    side = torch.randint(4, (count,), generator=generator)
    across = (u - 0.5) * 4
    up = u * 2.2 - 0.6
    reach = (y * math.tan(math.radians(30))).clamp(max=2.0)
    floor = torch.stack([across.clamp(-1, 1) * reach, y, torch.full_like(y, -0.6).clamp(min=-0.55)], -1)
    left = torch.stack([-reach, y, up * reach / 2], -1)
    right = torch.stack([reach, y, up * reach / 2], -1)
    end = torch.stack([across, torch.full_like(y, 8.0), up], -1)
    means = torch.stack([floor, left, right, end])[side, torch.arange(count)]
    return Gaussians(
        means=means,
        scales=0.006 * means[:, 1:2] * (0.5 + torch.rand(count, 3, generator=generator)),
        quaternions=F.normalize(torch.randn(count, 4, generator=generator), dim=-1),
        opacities=0.3 + 0.7 * torch.rand(count, generator=generator),
        colors=torch.rand(count, 3, generator=generator),
    )


def measure() -> list[dict]:
    """Rows of :func:`lyra.bench.measure.print_rows`."""
    gaussians = corridor()
    rows = []
    for views in (1, VIEWS):
        cameras = robot_cameras(torch.zeros(views, 3), 0.02 * torch.arange(views), HEIGHT, WIDTH)
        began = time.process_time()
        with torch.no_grad():
            seconds = median_seconds(lambda cameras=cameras: render(gaussians, cameras, near=NEAR), 9)
        processor = (time.process_time() - began) / 10
        rows.append(
            {
                "gaussians": len(gaussians),
                "height": HEIGHT,
                "width": WIDTH,
                "views": views,
                "threads": torch.get_num_threads(),
                "observations_per_second": views / seconds,
                # What a shared machine's other work does not change.
                "processor_ms": 1000 * processor / views,
            }
        )
    return rows
