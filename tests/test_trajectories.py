"""The six trajectories and the fly-through as paths in space."""

from typing import Any

import pytest
import torch

from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.trajectories import (
    DISTANCE_RANGES,
    TRAJECTORY_NAMES,
    TrajectoryName,
    draw_distance,
    fly_through,
    noise_generator,
    trajectory,
    trajectory_cameras,
)

INTRINSICS = intrinsics_from_fov(55.0, 32, 32)
HEADINGS = {
    "left": [-1.0, 0, 0],
    "right": [1.0, 0, 0],
    "up": [0, -1.0, 0],
    "zoom_out": [0, 0, -1.0],
    "zoom_in": [0, 0, 1.0],
}


def cameras_of(name: TrajectoryName, distance: float = 0.3, frames: int = 17) -> Cameras:
    return trajectory_cameras(name, distance, frames, INTRINSICS, 32, 32)


def rotations_are_proper(poses: torch.Tensor) -> bool:
    rotation = poses[:, :3, :3].double()
    identity = torch.eye(3).double().expand_as(rotation)
    return torch.allclose(rotation @ rotation.mT, identity, atol=1e-6) and bool((torch.linalg.det(rotation) > 0).all())


@pytest.mark.parametrize("name", TRAJECTORY_NAMES)
def test_trajectories_start_at_the_input_camera_and_are_rigid(name: TrajectoryName):
    cameras = cameras_of(name)
    assert torch.allclose(cameras.camera_to_world[0], torch.eye(4), atol=1e-7)
    assert rotations_are_proper(cameras.camera_to_world)
    assert torch.allclose(cameras.intrinsics, INTRINSICS.expand(17, 4))


@pytest.mark.parametrize("name", HEADINGS)
def test_linear_trajectories_move_evenly_by_their_distance(name: TrajectoryName):
    distance, frames = 0.3, 17
    centers = cameras_of(name, distance, frames).centers
    # The published matrix has minus the position, not the rotated one: lengths are exact, directions nearly.
    reach = centers.norm(dim=-1)
    assert torch.allclose(reach, distance * torch.arange(frames) / frames, atol=1e-6)
    heading = centers[1:] @ torch.tensor(HEADINGS[name]) / reach[1:]
    assert heading.min() > 0.95


def test_clockwise_circles_twice_and_returns():
    centers = cameras_of("clockwise", 0.5, 33).centers
    assert torch.allclose(centers[-1], centers[0], atol=1e-6)
    assert torch.allclose(centers[16], centers[0], atol=1e-6)
    assert centers.norm(dim=-1).max() <= 0.5 * 2 * 0.15 + 1e-6


def test_trajectory_continues_from_another_camera():
    start = trajectory("left", 0.3, 9)[5]
    path = trajectory("up", 0.2, 9, initial_world_to_camera=start)
    assert torch.allclose(path[0], start, atol=1e-6)
    assert torch.allclose(path, trajectory("up", 0.2, 9) @ start, atol=1e-6)


@pytest.mark.parametrize("name", TRAJECTORY_NAMES)
def test_trajectories_scale_with_the_depth_of_their_centre(name: TrajectoryName):
    near, far = trajectory(name, 0.3, 9, 1.0), trajectory(name, 0.3, 9, 4.0)
    assert torch.allclose(near[:, :3, :3], far[:, :3, :3], atol=1e-6)
    assert torch.allclose(4 * near[:, :3, 3], far[:, :3, 3], atol=1e-6)


@pytest.mark.parametrize("name", TRAJECTORY_NAMES)
def test_drawn_distances_fill_their_range(name: TrajectoryName):
    low, high = DISTANCE_RANGES[name]
    drawn = [draw_distance(name, seed) for seed in range(200)]
    assert low <= min(drawn) < low + 0.1 * (high - low)
    assert high - 0.1 * (high - low) < max(drawn) <= high
    assert sum(drawn) / 200 == pytest.approx((low + high) / 2, abs=0.1 * (high - low))


def test_distance_depends_on_seed_and_name_only():
    alone = {name: draw_distance(name, 5) for name in TRAJECTORY_NAMES}
    torch.manual_seed(123)
    torch.rand(17)
    again = {name: draw_distance(name, 5) for name in reversed(TRAJECTORY_NAMES)}
    assert alone == again
    # Names of one range draw apart, and so do seeds.
    assert alone["left"] != alone["right"]
    assert alone["left"] != draw_distance("left", 6)
    assert draw_distance("left", 5, 2.0) == pytest.approx(2 * alone["left"])


def test_drawing_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    draw_distance("up", 1)
    noise_generator(1, "x")
    assert torch.equal(torch.rand(3), expected)


def test_noise_streams_are_reproducible_and_apart():
    def noise(seed: int, stream: str) -> torch.Tensor:
        return torch.randn(64, generator=noise_generator(seed, stream))

    assert torch.equal(noise(3, "a"), noise(3, "a"))
    assert not torch.equal(noise(3, "a"), noise(3, "b"))
    assert not torch.equal(noise(3, "a"), noise(4, "a"))
    assert not torch.equal(noise(1, "1/a"), noise(11, "a"))


@pytest.mark.parametrize("frames", [60, 240])
def test_fly_through_is_closed_and_smooth(frames: int):
    poses = fly_through(0.3, frames, INTRINSICS, 32, 32).camera_to_world
    assert torch.allclose(poses[0], torch.eye(4), atol=1e-6)
    assert rotations_are_proper(poses)
    closed = torch.cat([poses, poses[:1]])
    steps = closed.diff(dim=0)
    lengths = steps[:, :3, 3].norm(dim=-1)
    # The last step back to the start is one among others, and none jumps.
    assert lengths[-1] <= lengths.max() * 1.001
    assert lengths.max() < 2 * 3.14159 * 0.3 * 1.3 / frames
    turns = steps[:, :3, :3].flatten(1).norm(dim=-1)
    assert turns.max() < 4 * lengths.max()


def test_fly_through_stays_inside_the_covered_region_and_looks_forward():
    for distance in (0.2, 0.3):
        cameras = fly_through(distance, 120, INTRINSICS, 32, 32)
        x, y, z = cameras.centers.unbind(-1)
        # "left", "right", "up" and the zooms reach `distance` from the input view along each axis.
        assert x.abs().max() <= distance
        assert y.abs().max() <= distance
        assert z.min() >= -distance
        assert z.max() <= 1.3 * distance
        forward = cameras.camera_to_world[:, :3, 2]
        assert forward[:, 2].min() > 0.9
        target = torch.tensor([0.0, 0.0, 1.0]) - cameras.centers
        assert torch.allclose(forward, target / target.norm(dim=-1, keepdim=True), atol=1e-6)


def test_unknown_names_are_refused():
    # The import hook's types refuse the name before the function's own check does.
    name: Any = "sideways"
    with pytest.raises((ValueError, TypeError)) as caught:
        trajectory(name, 0.3, 9)
    assert "sideways" in str(caught.value)


@pytest.mark.parametrize("frames", [1, 0])
def test_paths_of_fewer_than_two_frames_are_refused(frames: int):
    with pytest.raises(ValueError, match="at least 2 frames"):
        trajectory("left", 0.3, frames)
