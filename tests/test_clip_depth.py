"""Depth of clips against worlds whose depth is known: right, consistent, indifferent to each estimate's own scale."""

from dataclasses import dataclass
from functools import cache

import pytest
import torch
from torch import Tensor

from lyra.cache.warp import EdgeFilter, build_cache, render_cache
from lyra.depth import DepthPrediction, scene_depth
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.sky import MAX_DEPTH, is_sky
from lyra.geometry.trajectories import TrajectoryName, trajectory_cameras
from lyra.synthesis.clip_depth import align_frames, thin
from lyra.worlds import render_world, sample_world

SIZE, FRAMES = 64, 9
EDGES = EdgeFilter(3, 0.15)


@dataclass
class Estimator:
    """Knows each frame's depth, but tells it in a scale, an offset and with bends of its own."""

    frames: Tensor
    depth: Tensor
    asked: list[int]

    def predict(self, image: Tensor) -> DepthPrediction:
        index = int((self.frames - image).abs().flatten(1).amax(1).argmin())
        self.asked.append(index)
        generator = torch.Generator().manual_seed(index)
        scale, offset = (0.3 + 3 * torch.rand(2, generator=generator)).tolist()
        coarse = torch.randn(1, 1, 3, 3, generator=generator)
        bend = torch.nn.functional.interpolate(coarse, size=self.depth.shape[1:], mode="bilinear", align_corners=True)
        true = self.depth[index]
        told = 1 / (scale / true + 0.1 * offset) * (0.05 * bend[0, 0]).exp()
        return DepthPrediction(told, ~is_sky(true), None, metric=False)


@cache
def film(seed: int, path: TrajectoryName, distance: float = 0.4) -> tuple[Tensor, Tensor, Cameras]:
    """Frames, exact depth in scene units and cameras of a world."""
    lens = intrinsics_from_fov(55.0, SIZE, SIZE)
    one = Cameras(torch.eye(4)[None], lens[None], SIZE, SIZE)
    _, first = render_world(sample_world(seed), one)
    unit = first[~is_sky(first)].median()
    cameras = trajectory_cameras(path, distance, FRAMES, lens, SIZE, SIZE)
    moved = cameras.camera_to_world.clone()
    moved[:, :3, 3] *= unit
    color, depth = render_world(sample_world(seed), Cameras(moved, cameras.intrinsics, SIZE, SIZE))
    depth = torch.where(is_sky(depth), torch.full_like(depth, MAX_DEPTH), depth / unit)
    return color, depth, cameras


def error(depth: Tensor, truth: Tensor) -> float:
    """Mean difference of inverse depth; that of the input's median is 1."""
    return float((1 / depth - 1 / truth).abs().mean())


def known_of(frames: Tensor, depth: Tensor, cameras: Cameras) -> Tensor:
    cache = build_cache(frames[:1] * 2 - 1, depth[:1], cameras[:1], EDGES)
    seen = render_cache(cache, cameras)
    known = torch.where(seen.masks[:, 0] > 0, seen.depth[:, 0], torch.inf)
    known[0] = depth[0]
    return known


@pytest.mark.parametrize("every", [1, 4])
@pytest.mark.parametrize(("seed", "path"), [(110_003, "right"), (110_008, "right")])
def test_estimates_of_any_scale_become_the_world_s_depth(seed: int, path: TrajectoryName, every: int):
    frames, truth, cameras = film(seed, path)
    estimator = Estimator(frames, truth, [])
    found = align_frames(estimator, frames, cameras, known_of(frames, truth, cameras), every, EDGES)
    assert estimator.asked == list(range(1, FRAMES)) if every == 1 else [4, 8]
    by_itself = torch.stack([scene_depth(estimator.predict(frame)) for frame in frames])
    assert error(found, truth) < 0.015 and error(found, truth) < 0.5 * error(by_itself, truth)
    assert ((found - truth).abs() / truth).median() < 0.005
    assert torch.equal(found[0], truth[0])


@pytest.mark.parametrize("every", [1, 4])
def test_frames_agree_with_each_other_through_their_cameras(every: int):
    frames, truth, cameras = film(110_003, "right")
    found = align_frames(Estimator(frames, truth, []), frames, cameras, known_of(frames, truth, cameras), every, EDGES)
    apart = []
    for depth in (found, truth):
        cache = build_cache(frames[-1:] * 2 - 1, depth[-1:], cameras[-1:], EDGES)
        seen = render_cache(cache, cameras[4:5])
        both = (seen.masks[0, 0] > 0) & ~is_sky(seen.depth[0, 0]) & ~is_sky(depth[4])
        apart.append(float((seen.depth[0, 0] / depth[4]).log().abs()[both].median()))
    assert apart[0] < 0.01 and apart[0] < 5 * apart[1] + 0.005


def test_what_an_estimate_contradicts_is_not_taken_from_the_cache():
    """Where the clip shows something else than the input's points, its own depth counts."""
    frames, truth, cameras = film(110_003, "right")
    known = known_of(frames, truth, cameras)
    wrong = known.clone()
    wrong[1:, 20:30, 20:30] = truth[1:, 20:30, 20:30] * 3
    found = align_frames(Estimator(frames, truth, []), frames, cameras, wrong, 1, EDGES)
    assert error(found[1:, 20:30, 20:30], truth[1:, 20:30, 20:30]) < 0.05


def test_a_frame_without_any_estimate_keeps_what_is_known():
    class Blind:
        def predict(self, image: Tensor) -> DepthPrediction:
            return DepthPrediction(torch.ones(SIZE, SIZE), torch.zeros(SIZE, SIZE, dtype=torch.bool), None, False)

    frames, truth, cameras = film(110_003, "right")
    known = known_of(frames, truth, cameras)
    found = align_frames(Blind(), frames, cameras, known, 4, EDGES)
    there = known.isfinite()
    assert bool(found.isfinite().all()) and torch.equal(found[there], known[there].clamp(max=MAX_DEPTH))


def test_large_frames_keep_every_so_many_th_pixel():
    depth = torch.arange(704 * 1280, dtype=torch.float32).reshape(1, 704, 1280)
    small = thin(depth)
    assert small.shape == (1, 176, 320) and small[0, 3, 5] == depth[0, 14, 22]
    assert torch.equal(thin(depth[:, :128, :128]), depth[:, :128, :128])
