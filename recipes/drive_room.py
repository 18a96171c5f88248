"""A small robot in a generated scene: MuJoCo moves it, the splats are its camera; color, depth and map as a video.

lyra generate examples/room.png -o scenes/room
python recipes/drive_room.py scenes/room -o drive.mp4
"""

import argparse
import importlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import torch

import lyra
from lyra.errors import MissingExtraError
from lyra.files import save_video
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.simulation.collider import Collider
from lyra.simulation.mesh import MeshOptions
from lyra.simulation.mujoco_model import ROBOT_RADIUS, camera_of, save_mjcf
from lyra.simulation.sensor import SceneSensor

SIZE = 192
"""Pixels of each picture's side."""
SECONDS, FPS = 10.0, 12
SHOWN = 6.0
"""Metres that are white in the depth picture."""


def draw_map(collider: Collider) -> tuple[torch.Tensor, np.ndarray, float]:
    """The collider from above: color [3, size, size], world position of its lower left corner, metres of its side."""
    points = collider.samples
    low, high = points[:, :2].min(0) - 0.3, points[:, :2].max(0) + 0.3
    side = float((high - low).max())
    cells = np.clip(((points[:, :2] - low) / side * SIZE).astype(int), 0, SIZE - 1)
    heights = np.full((SIZE, SIZE), -np.inf)
    np.maximum.at(heights, (SIZE - 1 - cells[:, 1], cells[:, 0]), points[:, 2])
    shade = np.where(np.isfinite(heights), 0.9 - 0.7 * np.clip(heights / 1.0, 0, 1), 1.0)
    return torch.from_numpy(shade).float().expand(3, -1, -1).clone(), low, side


def steer(collider: Collider, place: np.ndarray, heading: float) -> tuple[float, float]:
    """Speed in m/s and turn in rad/s: on where it is free, else towards the freer side."""
    angles = heading + np.radians([-40, 0, 40])
    rays = np.stack([-np.sin(angles), np.cos(angles), 0 * angles], -1)
    right, ahead, left = np.minimum(collider.cast(np.array([[*place, 0.35]]).repeat(3, 0), rays, 4.0), 4.0)
    if ahead < 3 * ROBOT_RADIUS + 0.2:
        return 0.0, 1.2 if left > right else -1.2
    return 0.5, 0.4 * float(np.clip(left - right, -1, 1))


def main() -> None:
    """Drives and films."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("scene", type=Path)
    arguments.add_argument("-o", "--out", type=Path, required=True)
    arguments.add_argument("--start", type=float, nargs=2, default=(0.0, 1.5))
    given = arguments.parse_args()
    try:
        mujoco: Any = importlib.import_module("mujoco")
    except ImportError:
        raise MissingExtraError("mujoco", "simulation", "driving") from None
    sensor = SceneSensor.of(lyra.Scene.load(given.scene).at(0.0), options=MeshOptions(triangles=12_000))
    model_path = save_mjcf(sensor.collider.parts(), given.out.with_suffix(""), robot=tuple(given.start))
    model = mujoco.MjModel.from_xml_path(str(model_path))
    data = mujoco.MjData(model)
    chart, low, side = draw_map(sensor.collider)
    lens = intrinsics_from_fov(70.0, SIZE, SIZE)[None]
    frames = []
    for _ in range(round(SECONDS * FPS)):
        place, heading = data.body("robot").xpos[:2].copy(), float(data.joint("yaw").qpos[0])
        speed, turn = steer(sensor.collider, place, heading)
        data.ctrl[:] = [-speed * math.sin(heading), speed * math.cos(heading), turn]
        mujoco.mj_step(model, data, round(1 / FPS / model.opt.timestep))
        pose = torch.from_numpy(camera_of(data.cam("eye").xpos, data.cam("eye").xmat)).float()[None]
        seen = sensor.observe(Cameras(pose, lens, SIZE, SIZE))
        depth = (seen.depth[0] / SHOWN).clamp(0, 1).expand(3, -1, -1)
        column, row = (int(value) for value in (place - low) / side * SIZE)
        chart[:, max(SIZE - 2 - row, 0) : SIZE - row + 1, max(column - 1, 0) : column + 2] = torch.tensor(
            [0.9, 0.3, 0.1]
        )[:, None, None]
        frames.append(torch.cat([seen.color[0], depth, chart], dim=-1))
    save_video(frames, given.out, fps=FPS)


if __name__ == "__main__":
    main()
