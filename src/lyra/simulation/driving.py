"""A wheeled robot that drives to a goal in a scene, as a gymnasium environment."""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped, UInt8

from lyra.errors import LyraError, MissingExtraError
from lyra.simulation.sensor import SceneSensor, robot_cameras
from lyra.simulation.walker import Walker

try:
    import gymnasium
except ImportError as error:
    raise MissingExtraError("gymnasium", "simulation", "a robot's environment") from error

EYE = 0.45
"""Metres of the camera above the robot's foot."""
SPEED, TURN = 0.15, 0.4
"""Metres and radians of the fastest step."""
FARTHEST = 100.0
"""Metres that are told."""
ARRIVED = 0.25
"""Metres from the goal that count as there."""


Observed = dict[str, Shaped[np.ndarray, "..."]]


class SceneDrive(gymnasium.Env[Any, np.ndarray]):
    """Observation: ``rgb`` (uint8), ``depth`` (metres, 0 where nothing is seen), ``goal`` (metres, and radians to the
    left). Action: speed and turn, each in [-1, 1]. Reward: metres nearer to the goal, 1 at the goal, -0.1 when it bumps
    into something, -0.005 a step. An episode ends at the goal, and is cut off after ``steps``.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012 (gymnasium's own form)

    def __init__(self, sensor: SceneSensor, height: int = 120, width: int = 160, steps: int = 200):
        self.sensor, self.height, self.width, self.steps = sensor, height, width, steps
        self.render_mode = "rgb_array"
        box = gymnasium.spaces.Box
        self.observation_space = gymnasium.spaces.Dict(
            {
                "rgb": box(0, 255, (height, width, 3), np.uint8),
                "depth": box(0, FARTHEST, (height, width), np.float32),
                "goal": box(np.array([0, -np.pi], np.float32), np.array([FARTHEST, np.pi], np.float32)),
            }
        )
        self.action_space = box(-1, 1, (2,), np.float32)
        self._free = self._find_free()

    def _find_free(self) -> np.ndarray:
        """Places where the robot can stand on ground that was seen."""
        collider = self.sensor.collider
        low, high = collider.mesh.vertices[:, :2].min(0), collider.mesh.vertices[:, :2].max(0)
        grid = np.stack(np.meshgrid(*(np.arange(a, b, 0.15) for a, b in zip(low, high, strict=True))), -1).reshape(
            -1, 2
        )
        heights, seen = collider.ground_height(grid, 0.3)
        grid = grid[seen & (np.abs(heights) < 0.2)]
        walkers = [Walker.at(collider, x, y, height=0.6) for x, y in grid]
        free = np.array([walker.place for walker in walkers if walker.stands(collider)]).reshape(-1, 2)
        if len(free) < 2:
            raise LyraError("the scene has no free ground to drive on")
        return free

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observed, dict[str, Any]]:
        """Puts the robot and its goal on free ground."""
        super().reset(seed=seed)
        start, goal = self._free[self.np_random.choice(len(self._free), 2, replace=False)]
        self.robot = Walker.at(self.sensor.collider, *start, height=0.6)
        self.goal, self.yaw, self.count = goal, float(self.np_random.uniform(-0.5, 0.5)), 0
        return self._observe(), {}

    def step(self, action: Float[np.ndarray, "2"]) -> tuple[Observed, float, bool, bool, dict[str, Any]]:
        """Turns, then drives; returns what gymnasium asks for, with ``bumped`` in the last."""
        speed, turn = np.clip(np.asarray(action, np.float64), -1, 1)
        before = float(np.linalg.norm(self.goal - self.robot.place))
        self.yaw = (self.yaw + TURN * turn + np.pi) % (2 * np.pi) - np.pi
        way = SPEED * speed * np.array([-np.sin(self.yaw), np.cos(self.yaw)])
        self.robot, bumped = self.robot.moved(self.sensor.collider, way)
        after = float(np.linalg.norm(self.goal - self.robot.place))
        arrived = after < ARRIVED
        self.count += 1
        reward = before - after + float(arrived) - 0.1 * bumped - 0.005
        return self._observe(), reward, arrived, self.count >= self.steps, {"bumped": bumped}

    def render(self) -> UInt8[np.ndarray, "height width 3"]:
        """The camera's picture."""
        return self._observe()["rgb"]

    def _observe(self) -> Observed:
        eye = torch.tensor([[*self.robot.place, self.robot.foot + EYE]], dtype=torch.float32)
        seen = self.sensor.observe(robot_cameras(eye, torch.tensor([self.yaw]), self.height, self.width))
        x, y = self.goal - self.robot.place
        bearing = (np.arctan2(-x, y) - self.yaw + np.pi) % (2 * np.pi) - np.pi
        return {
            "rgb": (seen.color[0].movedim(0, -1) * 255).round().to(torch.uint8).numpy(),
            "depth": seen.depth[0].clamp(max=FARTHEST).numpy(),
            "goal": np.array([np.hypot(x, y), bearing], np.float32),
        }
