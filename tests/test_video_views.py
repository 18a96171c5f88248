"""What is known of a moving scene: its backdrop, what moves, and depth that is the same at all times.

The scenes are planes that are drawn by intersecting rays with them, so their depth is known.
"""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lyra.cache.warp import build_cache, render_cache
from lyra.depth import DepthPrediction
from lyra.errors import LyraError
from lyra.files.videos import Video
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.views.moving import estimate_video, find_backdrop
from lyra.views.views import Views

SIDE, FRAMES = 64, 9
NOISE = 0.02
"""Standard deviation of the sensor's noise: five 8-bit levels."""
NEAR, FAR = 1.0, 2.5
"""Depth of the square, and of the wall's left side; its right side is twice as far."""


def texture(seed: int, side: int = SIDE) -> Float[Tensor, "3 side side"]:
    """Noise of several sizes, in [0.1, 0.9]."""
    generator = torch.Generator().manual_seed(seed)
    layers = [
        F.interpolate(torch.rand(1, 3, cells, cells, generator=generator), size=(side, side), mode="bilinear")[0]
        for cells in (4, 16, side)
    ]
    return 0.1 + 0.8 * torch.stack(layers).mean(0)


def wall_depth() -> Float[Tensor, "height width"]:
    inverse = torch.linspace(1 / FAR, 0.5 / FAR, SIDE)
    return (1 / inverse).expand(SIDE, SIDE).clone()


def square_at(frame: int) -> tuple[slice, slice]:
    left = 4 + 5 * frame
    return slice(24, 40), slice(left, left + 14)


def moving_square(noise: float = NOISE, gain: float = 0.0) -> tuple[Video, Tensor, Tensor]:
    """A bright square that passes in front of a wall; with where it is, and the depth of every frame."""
    generator = torch.Generator().manual_seed(7)
    where = torch.zeros(FRAMES, SIDE, SIDE, dtype=torch.bool)
    frames = texture(0).repeat(FRAMES, 1, 1, 1)
    for index in range(FRAMES):
        where[index][square_at(index)] = True
        frames[index][:, *square_at(index)] = torch.tensor([0.95, 0.9, 0.1])[:, None, None]
    frames += noise * torch.randn(frames.shape, generator=generator)
    depth = torch.where(where, NEAR, wall_depth())
    return as_video(frames.clamp(0, 1)), where, depth


def as_video(frames: Tensor, cameras: Cameras | None = None) -> Video:
    side = frames.shape[-1]
    return Video(frames, 1.0, (side, side), (0, 0, side, side), "", cameras, ())


class Estimator:
    """Knows the depth of some pictures, up to a factor and a shift of its inverse that change from call to call."""

    def __init__(self, pictures: Tensor, depth: Tensor, spread: float = 2.0, shift: float = 0.0):
        self.pictures, self.depth, self.spread, self.shift = pictures, depth, spread, shift
        self.generator = torch.Generator().manual_seed(1)

    def predict(self, image: Float[Tensor, "3 height width"]) -> DepthPrediction:
        """The depth of the picture that is most like this one."""
        best = int((self.pictures - image).abs().mean((1, 2, 3)).argmin())
        factor = self.spread ** (2 * float(torch.rand((), generator=self.generator)) - 1)
        shift = self.shift * float(torch.rand((), generator=self.generator))
        depth = factor / (1 / self.depth[best] + shift)
        return DepthPrediction(depth, torch.ones_like(depth, dtype=torch.bool), None, False)


def interior(mask: Tensor, pixels: int) -> Tensor:
    """A mask without its rim."""
    return -F.max_pool2d(-mask.float()[:, None], 2 * pixels + 1, 1, pixels)[:, 0] > 0.5


def spread(mask: Tensor, pixels: int) -> Tensor:
    """A mask with its surroundings."""
    return F.max_pool2d(mask.float()[:, None], 2 * pixels + 1, 1, pixels)[:, 0] > 0.5


# What moves


def test_the_backdrop_is_what_is_behind_a_square_that_passes():
    video, _, _ = moving_square()
    backdrop, _ = find_backdrop(video.frames)
    # Every place is free most of the time.
    assert (backdrop - texture(0)).abs().mean() < NOISE
    assert (backdrop - texture(0)).abs().max() < 5 * NOISE


def test_moving_pixels_are_the_squares_despite_noise():
    video, where, _ = moving_square()
    _, moving = find_backdrop(video.frames)
    assert bool(moving[where].all())
    assert not bool(moving[~spread(where, 5)].any())


def test_nothing_moves_in_a_clip_of_noise_alone():
    frames = texture(0) + NOISE * torch.randn(FRAMES, 3, SIDE, SIDE)
    _, moving = find_backdrop(frames.clamp(0, 1))
    assert not bool(moving.any())


def test_still_is_what_nothing_ever_passes():
    video, where, depth = moving_square()
    views, _ = estimate_video(Estimator(video.frames, depth), video)
    ever = where.any(0)
    assert not bool(views.moves().still[ever].any())
    assert bool(views.moves().still[~spread(ever[None], 5)[0]].all())
    assert torch.equal(views.moves().still, ~views.moves().moving.any(0))
    assert views.is_still and len(views) == FRAMES and views.moves().seconds == 1.0


# Depth


def in_scene_units(depth: Tensor) -> Tensor:
    """The first picture's median is 1."""
    return depth / depth[0].median()


@pytest.mark.parametrize("shift", [0.0, 0.2])
def test_what_stays_has_one_depth_at_all_times(shift: float):
    video, _, truth = moving_square()
    estimator = Estimator(torch.cat([video.frames, texture(0)[None]]), torch.cat([truth, wall_depth()[None]]), 2.0, 0.0)
    estimator.shift = shift
    views, _ = estimate_video(estimator, video)
    assert bool((views.depth[:, views.moves().still] == views.depth[:1, views.moves().still]).all())
    assert torch.equal(views.depth[0][views.moves().still], views.moves().backdrop_depth[views.moves().still])
    assert views.depth[0].median() == pytest.approx(1, rel=0.05)


def test_depth_is_the_truth_whatever_the_estimators_factors_are():
    video, where, truth = moving_square()
    estimator = Estimator(torch.cat([video.frames, texture(0)[None]]), torch.cat([truth, wall_depth()[None]]), 3.0)
    views, _ = estimate_video(estimator, video)
    expected = in_scene_units(truth)
    error = (views.depth / expected).log().abs()
    assert error[:, views.moves().still].mean() < 0.03
    # What moves is as near as it is, at every time.
    inside = interior(where, 2)
    for index in range(FRAMES):
        assert error[index][inside[index]].mean() < 0.06, index
        assert bool((views.depth[index] <= views.moves().backdrop_depth + 1e-6).all())
    assert (
        views.moves().backdrop_depth / in_scene_units(torch.cat([truth[:1], wall_depth()[None]]))[1]
    ).log().abs().mean() < 0.03


def test_a_clip_in_which_everything_changes_still_has_depth():
    frames = torch.stack([texture(seed) for seed in range(5)])
    estimator = Estimator(frames, wall_depth().repeat(5, 1, 1))
    views, _ = estimate_video(estimator, as_video(frames))
    assert not bool(views.moves().still.any())
    assert bool(views.depth.isfinite().all()) and bool((views.depth > 0).all())
    error = (views.depth / in_scene_units(wall_depth()[None])).log().abs()
    assert error.mean() < 0.1


def test_sky_stays_far_away():
    video, _, truth = moving_square()

    class Sky(Estimator):
        def predict(self, image: Tensor) -> DepthPrediction:
            found = super().predict(image)
            found.valid[:16] = False
            return found

    views, _ = estimate_video(Sky(video.frames, truth), video)
    assert bool((views.depth[:, :12] > 99).all())
    assert views.depth[:, 20:].max() < 10


def test_a_frame_without_any_depth_is_told():
    video, _, truth = moving_square()

    class Blind(Estimator):
        calls = 0

        def predict(self, image: Tensor) -> DepthPrediction:
            found = super().predict(image)
            self.calls += 1
            return found if self.calls < 3 else DepthPrediction(found.depth, found.valid & False, None, False)

    with pytest.raises(LyraError, match="no depth can be found in a frame"):
        estimate_video(Blind(video.frames, truth), video)


def test_the_field_of_view_is_the_users_or_55_degrees():
    video, _, truth = moving_square()
    views, fov = estimate_video(Estimator(video.frames, truth), video, 40.0)
    assert fov == {"degrees": 40.0, "source": "option"}
    assert torch.allclose(views.cameras.intrinsics, intrinsics_from_fov(40.0, SIDE, SIDE))
    _, fov = estimate_video(Estimator(video.frames, truth), video)
    assert fov == {"degrees": 55.0, "source": "default"}


# The file, and parts


def assert_same(one: Views, other: Views) -> None:
    for name in ("images", "depth"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    for name in ("moving", "still", "backdrop", "backdrop_depth"):
        assert torch.equal(getattr(one.moves(), name), getattr(other.moves(), name)), name
    assert torch.equal(one.cameras.camera_to_world, other.cameras.camera_to_world)
    assert torch.equal(one.cameras.intrinsics, other.cameras.intrinsics)
    assert (one.cameras.height, one.cameras.width) == (other.cameras.height, other.cameras.width)
    assert one.moves().seconds == other.moves().seconds


@pytest.fixture(scope="module")
def views() -> Views:
    video, _, truth = moving_square()
    return estimate_video(Estimator(video.frames, truth), video)[0]


def test_views_come_back_from_their_file_as_they_were(views: Views, tmp_path: Path):
    views.save(tmp_path / "input.safetensors")
    assert_same(Views.load(tmp_path / "input.safetensors"), views)
    # Whoever reads a still scene's input finds the first picture there.
    still = Views.load(tmp_path / "input.safetensors")
    assert torch.equal(still.images[0], views.images[0]) and torch.equal(still.depth[0], views.depth[0])


def test_a_still_scenes_file_is_refused(views: Views, tmp_path: Path):
    Views(views.images[:1], views.depth[:1], views.cameras[:1]).save(tmp_path / "input.safetensors")
    with pytest.raises(LyraError, match="not of a video"):
        Views.load(tmp_path / "input.safetensors").moves()


def test_a_part_keeps_the_whole_videos_backdrop(views: Views):
    part = views.part(4, 5)
    assert len(part) == 5 and part.moves().seconds == pytest.approx(0.5)
    assert torch.equal(part.images, views.images[4:]) and torch.equal(part.depth, views.depth[4:])
    assert torch.equal(part.moves().moving, views.moves().moving[4:]) and torch.equal(
        part.moves().still, views.moves().still
    )
    assert torch.equal(part.moves().backdrop, views.moves().backdrop) and torch.equal(
        part.moves().backdrop_depth, views.moves().backdrop_depth
    )
    assert torch.equal(part.cameras.camera_to_world, views.cameras.camera_to_world[4:])
    assert_same(views.part(0, FRAMES), views)


# A camera that moves


def walk(frames: int, step: float) -> Cameras:
    """To the right, turning a little."""
    poses = torch.eye(4).repeat(frames, 1, 1)
    angles = torch.linspace(0, 0.1, frames)
    poses[:, 0, 0] = poses[:, 2, 2] = angles.cos()
    poses[:, 0, 2], poses[:, 2, 0] = angles.sin(), -angles.sin()
    poses[:, 0, 3] = step * torch.arange(frames)
    return Cameras(poses, intrinsics_from_fov(55.0, SIDE, SIDE).repeat(frames, 1), SIDE, SIDE)


def see_plane(cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Pictures and z-depth of a textured plane, slanted, whose median depth from the first camera is about 1."""
    normal, offset = F.normalize(torch.tensor([0.3, 0.1, -1.0]), dim=0), -1.0
    v, u = torch.meshgrid(torch.arange(SIDE) + 0.5, torch.arange(SIDE) + 0.5, indexing="ij")
    pattern = F.interpolate(texture(3, 48)[None], size=(192, 192), mode="bilinear")
    pictures, depths = [], []
    for pose, (fx, fy, cx, cy) in zip(cameras.camera_to_world, cameras.intrinsics.tolist(), strict=True):
        local = torch.stack([(u - cx) / fx, (v - cy) / fy, torch.ones_like(u)], dim=-1)
        rays = local @ pose[:3, :3].T
        depth = (offset - pose[:3, 3] @ normal) / (rays @ normal)
        points = pose[:3, 3] + depth[..., None] * rays
        pictures.append(F.grid_sample(pattern, points[None, ..., :2] / 1.5, align_corners=False)[0])
        depths.append(depth)
    return torch.stack(pictures), torch.stack(depths)


@pytest.mark.parametrize("unit", [1.0, 5.0])
def test_with_a_moving_camera_depth_is_consistent_over_time(unit: float):
    cameras = walk(6, 0.05)
    pictures, truth = see_plane(cameras)
    given = Cameras(cameras.camera_to_world.clone(), cameras.intrinsics, SIDE, SIDE)
    given.camera_to_world[:, :3, 3] *= unit  # poses come in any unit
    views, fov = estimate_video(Estimator(pictures, truth, spread=3.0), as_video(pictures, given))
    assert fov["source"] == "camera file" and fov["degrees"] == pytest.approx(55, abs=0.01)
    # Nothing moves but the camera, though no pixel shows one thing throughout.
    assert not views.is_still and views.moves().moving.float().mean() < 0.1 and not bool(views.moves().still.any())
    scale = float(truth[0].median())
    assert torch.allclose(views.cameras.centers * scale, cameras.centers, atol=0.03)
    assert torch.allclose(views.cameras.camera_to_world[:, :3, :3], cameras.camera_to_world[:, :3, :3], atol=1e-6)
    error = (views.depth * scale / truth).log().abs()
    assert error.mean() < 0.05 and error[-1].mean() < 0.08
    # The last frame's points, seen from the first camera, lie where that one sees them.
    last = build_cache(views.images[-1:] * 2 - 1, views.depth[-1:], views.cameras[-1:], None)
    seen = render_cache(last, views.cameras[:1])
    hit = seen.masks[0, 0] > 0
    assert hit.float().mean() > 0.5
    assert (seen.depth[0, 0] / views.depth[0]).log().abs()[hit].mean() < 0.08


def test_a_camera_that_is_given_and_stands_still_has_no_backdrop_but_a_depth():
    pictures, truth = see_plane(walk(1, 0.0)[[0] * 5])
    views, _ = estimate_video(Estimator(pictures, truth), as_video(pictures, walk(1, 0.0)[[0] * 5]))
    error = (views.depth * truth[0].median() / truth).log().abs()
    assert error.mean() < 0.03


def test_a_camera_that_jumps_out_of_sight_is_told():
    cameras = walk(3, 0.0)
    cameras.camera_to_world[1] = torch.diag(torch.tensor([-1.0, 1, -1, 1]))
    pictures, truth = see_plane(walk(3, 0.01))
    with pytest.raises(LyraError, match="frame 1 shows nothing"):
        estimate_video(Estimator(pictures, truth), as_video(pictures, cameras))
