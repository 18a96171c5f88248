"""Pinhole cameras, their rays and Plücker maps.

Convention: OpenCV axes (x right, y down, z forward), ``camera_to_world`` 4x4, intrinsics ``(fx, fy, cx, cy)`` in
pixels, the centre of the top-left pixel at (0.5, 0.5). Everything here stays in float32 or better: at 1280 pixels
bfloat16 has a spacing of 4 pixels, which is why rays made in it are wrong.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Cameras:
    """A batch of pinhole cameras that share one image size."""

    camera_to_world: Float[Tensor, "*batch 4 4"]
    """Rigid transforms from camera to world, scene units."""
    intrinsics: Float[Tensor, "*batch 4"]
    """fx, fy, cx, cy in pixels."""
    height: int
    """Image height in pixels."""
    width: int
    """Image width in pixels."""

    def __post_init__(self) -> None:
        if {self.camera_to_world.dtype, self.intrinsics.dtype} & {torch.float16, torch.bfloat16}:
            raise TypeError("cameras are geometry: keep them in float32 or float64")

    def __len__(self) -> int:
        return self.camera_to_world.shape[0]

    def __getitem__(self, index: int | slice | Tensor | Sequence[int]) -> "Cameras":
        return replace(self, camera_to_world=self.camera_to_world[index], intrinsics=self.intrinsics[index])

    @property
    def world_to_camera(self) -> Float[Tensor, "*batch 4 4"]:
        """Inverse of ``camera_to_world``, using that it is rigid."""
        return invert_rigid(self.camera_to_world)

    @property
    def centers(self) -> Float[Tensor, "*batch 3"]:
        """Camera centres in world space."""
        return self.camera_to_world[..., :3, 3]

    def to(self, target: torch.device | torch.dtype | str) -> "Cameras":
        """Moves the tensors to a device or dtype."""
        return replace(self, camera_to_world=self.camera_to_world.to(target), intrinsics=self.intrinsics.to(target))

    def resized(self, height: int, width: int) -> "Cameras":
        """The same views at another image size; intrinsics scale with it."""
        scale = self.intrinsics.new_tensor([width / self.width, height / self.height] * 2)
        return replace(self, intrinsics=self.intrinsics * scale, height=height, width=width)

    def relative_to(self, origin: Float[Tensor, "4 4"]) -> "Cameras":
        """Expresses the cameras in the frame of ``origin`` (a camera_to_world), which becomes the identity."""
        return replace(self, camera_to_world=invert_rigid(origin) @ self.camera_to_world)


def through_lens(cameras: Cameras, lens: Float[Tensor, "4"]) -> Cameras:
    """Cameras whose first has another lens, and the others what that one is zoomed and shifted as they are."""
    own = cameras.intrinsics
    focal = lens[:2] * (own[:, :2] / own[0, :2])
    return replace(cameras, intrinsics=torch.cat([focal, lens[2:] + (own[:, 2:] - own[0, 2:])], -1))


def invert_rigid(transform: Float[Tensor, "*batch 4 4"]) -> Float[Tensor, "*batch 4 4"]:
    """Inverse of rotation-and-translation matrices, exact up to rounding."""
    rotation = transform[..., :3, :3].mT
    translation = -rotation @ transform[..., :3, 3:]
    upper = torch.cat([rotation, translation], dim=-1)
    return torch.cat([upper, transform[..., 3:, :]], dim=-2)


def concatenate_cameras(cameras: Sequence[Cameras]) -> Cameras:
    """Joins cameras of one image size along their first axis."""
    sizes = {(c.height, c.width) for c in cameras}
    if len(sizes) != 1:
        raise ValueError(f"cameras to be joined differ in image size: {sorted(sizes)}")
    return replace(
        cameras[0],
        camera_to_world=torch.cat([c.camera_to_world for c in cameras]),
        intrinsics=torch.cat([c.intrinsics for c in cameras]),
    )


def intrinsics_from_fov(fov_degrees: float, height: int, width: int) -> Float[Tensor, "4"]:
    """Centred intrinsics whose *shorter* image side spans ``fov_degrees``."""
    focal = 0.5 * min(height, width) / math.tan(math.radians(fov_degrees) / 2)
    return torch.tensor([focal, focal, width / 2, height / 2])


def pixel_rays(
    cameras: Cameras,
) -> tuple[Float[Tensor, "*batch height width 3"], Float[Tensor, "*batch height width 3"]]:
    """World-space rays through the pixel centres.

    Returns:
        Origins and unit directions. For rays on the 1/8 grid use ``pixel_rays(cameras.resized(h // 8, w // 8))``.

    Source: ``get_plucker_embedding_and_rays`` of Lyra, in full precision.
    """
    options = {"device": cameras.intrinsics.device, "dtype": cameras.intrinsics.dtype}
    v, u = torch.meshgrid(
        torch.arange(cameras.height, **options) + 0.5,
        torch.arange(cameras.width, **options) + 0.5,
        indexing="ij",
    )
    fx, fy, cx, cy = cameras.intrinsics[..., None, None, :].unbind(-1)
    x, y = (u - cx) / fx, (v - cy) / fy
    local = torch.stack([x, y, torch.ones_like(x)], dim=-1)
    directions = torch.einsum("...ij,...hwj->...hwi", cameras.camera_to_world[..., :3, :3], local)
    directions = directions / directions.norm(dim=-1, keepdim=True)
    origins = cameras.centers[..., None, None, :].expand_as(directions)
    return origins, directions


def project(
    points: Float[Tensor, "point 3"], cameras: Cameras
) -> tuple[Float[Tensor, "view point"], Float[Tensor, "view point"], Float[Tensor, "view point"]]:
    """Where world points lie in pictures.

    Args:
        points: In the cameras' world.
        cameras: One view axis.

    Returns:
        u (right) and v (down) in pixels and z-depth in scene units; only meaningful where z is positive.

    Source: ``project_points`` of GEN3C, whose small constant keeps points in the camera's plane finite.
    """
    with torch.autocast(points.device.type, enabled=False):
        transform = cameras.world_to_camera
        local = torch.einsum("tij,nj->tni", transform[:, :3, :3], points) + transform[:, None, :3, 3]
    x, y, z = local.unbind(-1)
    fx, fy, cx, cy = cameras.intrinsics[:, None, :].unbind(-1)
    return (fx * x + cx * z) / (z + 1e-7), (fy * y + cy * z) / (z + 1e-7), z


def look_up(
    u: Float[Tensor, "*point"], v: Float[Tensor, "*point"], z: Float[Tensor, "*point"], height: int, width: int
) -> tuple[Bool[Tensor, "*point"], tuple[Int[Tensor, "*point"], Int[Tensor, "*point"]]]:
    """Which projected points are inside a picture, and the row and column of the pixel that they fall on."""
    inside = (u >= 0) & (u < width) & (v >= 0) & (v < height) & (z > 0)
    row, column = (torch.where(inside, value, 0).long() for value in (v, u))
    return inside, (row, column)


def plucker_map(cameras: Cameras) -> Float[Tensor, "*batch 6 height width"]:
    """Plücker coordinates (o x d, d) of every pixel's ray, d of unit length."""
    origins, directions = pixel_rays(cameras)
    plucker = torch.cat([torch.linalg.cross(origins, directions), directions], dim=-1)
    return plucker.movedim(-1, -3)


def z_depth_factor(cameras: Cameras) -> Float[Tensor, "*batch height width"]:
    """Ray distance divided by z-depth for every pixel (at least 1)."""
    _, directions = pixel_rays(cameras)
    forward = cameras.camera_to_world[..., :3, 2]
    return 1 / torch.einsum("...hwi,...i->...hw", directions, forward)
