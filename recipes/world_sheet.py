"""A sheet of procedural worlds: for each, the input view, its inverse depth and the last view of a trajectory.

python recipes/world_sheet.py /tmp/worlds.png --first 0 --count 24
"""

from pathlib import Path

import torch
import tyro

from lyra.files import save_image
from lyra.geometry.cameras import intrinsics_from_fov
from lyra.geometry.trajectories import DISTANCE_RANGES, TRAJECTORY_NAMES, trajectory_cameras
from lyra.worlds import INPUT_FOV, describe_world, render_world, sample_world


def world_sheet(out: Path, /, first: int = 0, count: int = 24, size: int = 160, columns: int = 4) -> None:
    """Writes the sheet and prints the captions in reading order; ``size`` is a picture's side in pixels."""
    rows = []
    for seed in range(first, first + count):
        world, name = sample_world(seed), TRAJECTORY_NAMES[seed % len(TRAJECTORY_NAMES)]
        intrinsics = intrinsics_from_fov(INPUT_FOV, size, size)
        path = trajectory_cameras(name, DISTANCE_RANGES[name][1], 17, intrinsics, size, size)
        color, depth = render_world(world, path[torch.tensor([0, 12 if name == "clockwise" else 16])])
        near = (0.5 / depth[0]).clamp(max=1).expand(3, -1, -1)
        rows.append(torch.cat([color[0], near, color[1]], 2))
        print(f"{seed:6d} {describe_world(world)}")
    rows += [torch.zeros_like(rows[0])] * (-count % columns)
    sheet = torch.cat([torch.cat(rows[i : i + columns], 2) for i in range(0, len(rows), columns)], 1)
    save_image(sheet, out)


if __name__ == "__main__":
    tyro.cli(world_sheet)
