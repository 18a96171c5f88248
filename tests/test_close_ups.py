"""Close-ups: the same bytes of a seed, one large thing in the middle, on a floor, before what is behind it."""

import functools

import pytest
import torch
from torch import Tensor

from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.sky import MAX_DEPTH
from lyra.training.depth import FIRST_CLOSE_UP_SEED, render_frame
from lyra.worlds import World, render_world, sample_close_up
from lyra.worlds.world import CYLINDER, ELLIPSOID

SEEDS = range(12)
SIZE = 64


@functools.cache
def close_up(seed: int) -> tuple[World, Tensor, Tensor]:
    world = sample_close_up(seed)
    camera = Cameras(torch.eye(4)[None], intrinsics_from_fov(50.0, SIZE, SIZE)[None], SIZE, SIZE)
    color, depth = render_world(world, camera)
    return world, color[0], depth[0]


def test_a_seed_gives_the_same_bytes_and_seeds_differ():
    again = sample_close_up(3)
    world, color, _ = close_up(3)
    assert torch.equal(world.centers, again.centers) and torch.equal(world.atlas, again.atlas)
    assert not torch.equal(color, close_up(4)[1])


@pytest.mark.parametrize("seed", SEEDS)
def test_views_are_exposed_and_indoors(seed: int):
    _, color, depth = close_up(seed)
    assert bool(depth.isfinite().all()) and depth.min() > 0.03 and depth.max() < 0.5 * MAX_DEPTH
    assert 0.08 < color.mean() < 0.92 and color.std() > 0.03


@pytest.mark.parametrize("seed", SEEDS)
def test_parts_are_round_where_they_must_be_and_touch_no_camera(seed: int):
    world, _, _ = close_up(seed)
    centers, halves = world.centers.double(), world.half_sizes.double()
    upright = world.kinds == CYLINDER
    torch.testing.assert_close(halves[upright, 0], halves[upright, 2])
    assert bool((halves > 0).all()) and bool((world.kinds <= ELLIPSOID + CYLINDER).all())
    # The input camera, at the origin, is within nothing: conservatively, in no part's ball.
    assert bool((centers.norm(dim=1) > 0.5 * halves.norm(dim=1)).all())


def test_something_stands_out_from_the_background():
    """Of an empty room the nearest thing in the middle is the wall: in most close-ups it is far nearer."""
    nearer = []
    for seed in SEEDS:
        _, _, depth = close_up(seed)
        middle, edges = depth[SIZE // 4 : -SIZE // 4, SIZE // 4 : -SIZE // 4], depth[: SIZE // 4]
        nearer.append(float(middle.quantile(0.1)) < 0.8 * float(edges.quantile(0.9)))
    assert sum(nearer) >= 9


def test_training_draws_close_ups_from_their_own_seeds():
    seed = FIRST_CLOSE_UP_SEED + 1
    image, depth = render_frame(seed, SIZE)
    again, _ = render_frame(seed, SIZE)
    assert torch.equal(image, again) and image.dtype == torch.uint8
    assert depth.shape == (SIZE, SIZE) and bool((depth < MAX_DEPTH).all())
