"""How well cameras that were found agree with true ones, whose world has another origin, scale and axes."""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from lyra.geometry.cameras import Cameras


@dataclass(frozen=True)
class Similarity:
    """From one world to another: p becomes scale * rotation @ p + shift."""

    rotation: Float[Tensor, "3 3"]
    scale: float
    shift: Float[Tensor, "3"]

    def carry(self, cameras: Cameras) -> Cameras:
        """Cameras of the one world in the other."""
        poses = cameras.camera_to_world.double().clone()
        poses[:, :3, 3] = self.scale * poses[:, :3, 3] @ self.rotation.mT + self.shift
        poses[:, :3, :3] = self.rotation @ poses[:, :3, :3]
        return replace(cameras, camera_to_world=poses.to(cameras.camera_to_world.dtype))


@dataclass(frozen=True)
class CameraErrors:
    """Medians over cameras."""

    position: float
    """Distance as a share of the true path's length."""
    rotation: float
    """Degrees."""


def fit_similarity(source: Cameras, target: Cameras) -> Similarity:
    """The similarity that brings cameras nearest to others.

    The rotation is the mean of the cameras' own, so that cameras in a line, and two, fix it as well; scale and shift
    are the least squares of their places.

    Args:
        source: At least two, not all at one place.
        target: As many.
    """
    a, b = source.camera_to_world.double(), target.camera_to_world.double()
    left, _, right = torch.linalg.svd((b[:, :3, :3] @ a[:, :3, :3].mT).sum(0))
    sign = torch.diag(torch.tensor([1.0, 1.0, float(torch.sign(torch.linalg.det(left @ right)))]).double())
    rotation = left @ sign @ right
    turned = a[:, :3, 3] @ rotation.mT
    from_middle, to_middle = turned - turned.mean(0), b[:, :3, 3] - b[:, :3, 3].mean(0)
    scale = float((from_middle * to_middle).sum() / from_middle.square().sum())
    return Similarity(rotation, scale, b[:, :3, 3].mean(0) - scale * turned.mean(0))


def score_cameras(found: Cameras, true: Cameras) -> CameraErrors:
    """Errors after the best similarity.

    Args:
        found: In any world.
        true: In the order in which they were passed.
    """
    carried = fit_similarity(found, true).carry(found)
    a, b = carried.camera_to_world.double(), true.camera_to_world.double()
    length = b[:, :3, 3].diff(dim=0).norm(dim=-1).sum()
    traces = (a[:, :3, :3] * b[:, :3, :3]).sum((1, 2))
    angles = ((traces - 1) / 2).clamp(-1, 1).acos().rad2deg()
    return CameraErrors(float((a[:, :3, 3] - b[:, :3, 3]).norm(dim=-1).median() / length), float(angles.median()))
