"""What a robot's camera sees in a scene, and what its body touches. World: x right, y forward, z up, metres."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lyra.export.usd import UPRIGHT
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.gaussians import Gaussians, transform
from lyra.rendering import render
from lyra.scene.scene import Scene
from lyra.simulation.collider import Collider, to_world
from lyra.simulation.mesh import MeshOptions, mesh_shots
from lyra.simulation.surfaces import scene_cameras, shoot
from lyra.simulation.survey import KEY, Survey, survey

NEAR = 0.05
"""Metres before which the camera sees nothing."""
_PLAIN = MeshOptions()


@dataclass(frozen=True)
class Observation:
    """Pictures of several cameras at once."""

    color: Float[Tensor, "view 3 height width"]
    """sRGB in [0, 1]."""
    depth: Float[Tensor, "view height width"]
    """z-depth in metres; 0 where it is not valid."""
    valid: Bool[Tensor, "view height width"]
    """Where the scene shows a surface."""


@dataclass(frozen=True)
class SceneSensor:
    """A scene for a robot: its Gaussians and its collider, both in the world."""

    gaussians: Gaussians
    collider: Collider

    @classmethod
    def of(cls, scene: Scene, found: Survey | None = None, options: MeshOptions = _PLAIN) -> "SceneSensor":
        """Makes the collider of a still scene, with the survey of its ``scene.json`` or a new one.

        Raises:
            LyraError: the scene shows no surface.
            MissingExtraError: a package of the extra ``mesh`` is not installed.
        """
        shots = shoot(scene.gaussians, scene_cameras(scene, options.size))
        if found is None:
            stored = scene.provenance.get(KEY)
            found = Survey.from_json(stored) if stored else survey(shots)
        mesh = to_world(mesh_shots(shots, options, found.ground), found)
        return cls(place(scene.gaussians, found), Collider(mesh))

    @torch.no_grad()
    def observe(self, cameras: Cameras) -> Observation:
        """What cameras in the world see; see :func:`robot_cameras`."""
        views = render(self.gaussians, cameras, near=NEAR)
        valid = views.alpha > 0.5
        return Observation(views.color.clamp(0, 1), torch.where(valid, views.depth, 0), valid)


def place(gaussians: Gaussians, found: Survey) -> Gaussians:
    """A scene's Gaussians in the world."""
    return transform(found.level(gaussians), UPRIGHT.to(gaussians.means), gaussians.means.new_zeros(3))


def robot_cameras(
    positions: Float[Tensor, "view 3"],
    yaws: Float[Tensor, "view"],
    height: int = 120,
    width: int = 160,
    fov: float = 70.0,
    pitch: float = 0.0,
) -> Cameras:
    """Level cameras in the world.

    Args:
        positions: Of their centres, metres.
        yaws: Where they look, radians to the left of y (forward).
        height: Of the picture in pixels.
        width: Of the picture in pixels.
        fov: Of the shorter side, degrees.
        pitch: Radians by which they look up.
    """
    cos, sin, zero = yaws.cos(), yaws.sin(), torch.zeros_like(yaws)
    flat = torch.stack([-sin, cos, zero], dim=-1)
    up = torch.tensor([0.0, 0.0, 1.0]).expand_as(flat)
    forward = math.cos(pitch) * flat + math.sin(pitch) * up
    right = torch.stack([cos, sin, zero], dim=-1)
    pose = torch.eye(4).repeat(len(positions), 1, 1)
    pose[:, :3, :3] = torch.stack([right, torch.linalg.cross(forward, right), forward], dim=-1)
    pose[:, :3, 3] = positions
    return Cameras(pose, intrinsics_from_fov(fov, height, width).expand(len(positions), 4), height, width)
