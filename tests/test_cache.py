"""The 3D cache on scenes whose new views are known in closed form."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lyra.cache.warp import (
    PUBLISHED_WARP,
    CacheViews,
    DepthCache,
    EdgeFilter,
    WarpSettings,
    build_cache,
    fill_holes,
    reliable_depth,
    render_cache,
)
from lyra.geometry.cameras import Cameras
from lyra.geometry.sky import MAX_DEPTH

HEIGHT, WIDTH, FOCAL = 16, 24, 20.0


def cameras_at(*positions: tuple[float, float, float]) -> Cameras:
    poses = torch.eye(4).repeat(len(positions), 1, 1)
    poses[:, :3, 3] = torch.tensor(positions)
    intrinsics = torch.tensor([FOCAL, FOCAL, WIDTH / 2, HEIGHT / 2]).expand(len(positions), 4)
    return Cameras(poses, intrinsics, HEIGHT, WIDTH)


EDGES = EdgeFilter()
HOME = cameras_at((0.0, 0.0, 0.0))


def random_image(seed: int = 0) -> torch.Tensor:
    return torch.rand(1, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def plane(depth: float) -> torch.Tensor:
    return torch.full((1, HEIGHT, WIDTH), depth)


def view(cache: DepthCache, *positions: tuple[float, float, float], **settings) -> CacheViews:
    return render_cache(cache, cameras_at(*positions), WarpSettings(**settings))


@pytest.mark.parametrize("depth", [1.0, 2.0, 5.0])
@pytest.mark.parametrize(("columns", "rows"), [(3, 0), (-4, 0), (0, 2), (2, -3)])
def test_a_plane_seen_from_the_side_shifts_by_focal_times_movement_over_depth(depth: float, columns: int, rows: int):
    image = random_image()
    cache = build_cache(image, plane(depth), HOME, EDGES)
    # The camera moves right and down, so the picture moves left and up.
    views = view(cache, (-columns * depth / FOCAL, -rows * depth / FOCAL, 0.0))
    expected = torch.roll(image, (rows, columns), (2, 3))[0]
    landed = torch.roll(torch.ones(HEIGHT, WIDTH), (rows, columns), (0, 1)).bool()
    landed[: max(rows, 0)], landed[:, : max(columns, 0)] = False, False
    if rows < 0:
        landed[rows:] = False
    if columns < 0:
        landed[:, columns:] = False
    assert torch.allclose(views.images[0, 0][:, landed], expected[:, landed], atol=1e-4)
    assert torch.allclose(views.depth[0, 0][landed], torch.tensor(depth), atol=1e-5)
    assert views.masks[0, 0][landed].min() == 1
    # Rounding may leak a trace into the first pixel of the uncovered border, not beyond.
    border = torch.nn.functional.max_pool2d(landed[None].float(), 3, 1, 1)[0] == 0
    assert (views.masks[0, 0][border] == 0).all()
    assert (views.images[0, 0][:, border] == -1).all()


def test_a_shift_by_half_a_pixel_averages_neighbours():
    image = random_image()
    views = view(build_cache(image, plane(1.0), HOME, EDGES), (0.5 / FOCAL, 0.0, 0.0))
    expected = (image[0, :, :, :-1] + image[0, :, :, 1:]) / 2
    assert torch.allclose(views.images[0, 0, :, :, :-1], expected, atol=1e-4)


def test_stepping_towards_a_plane_magnifies_about_the_principal_point():
    ramp = torch.linspace(-1, 1, WIDTH).expand(1, 3, HEIGHT, WIDTH)
    views = view(build_cache(ramp, plane(1.0), HOME, EDGES), (0.0, 0.0, 0.25))
    # At depth 0.75 a pixel of the new view sees 0.75 of its offset from the middle.
    offset = torch.arange(WIDTH) + 0.5 - WIDTH / 2
    expected = 0.75 * offset * 2 / (WIDTH - 1)
    hit = views.masks[0, 0, 8] > 0
    assert torch.allclose(views.images[0, 0, 0, 8][hit], expected[hit], atol=0.5 * 2 / (WIDTH - 1))
    assert torch.allclose(views.depth[0, 0][views.masks[0, 0] > 0], torch.tensor(0.75), atol=1e-6)


@pytest.mark.parametrize("published", [False, True])
def test_identity_camera_reproduces_the_image(published: bool):
    image = random_image()
    depth = (1 + 0.01 * torch.arange(WIDTH)).expand(1, HEIGHT, WIDTH)
    settings = PUBLISHED_WARP if published else WarpSettings()
    views = render_cache(build_cache(image, depth, HOME, None, settings), HOME, settings)
    assert torch.allclose(views.images[0], image, atol=1e-3)
    assert torch.allclose(views.depth[0], depth, atol=1e-4)
    assert views.masks.min() == 1


def test_views_do_not_depend_on_where_the_world_is():
    image, depth = random_image(), plane(2.0)
    depth[:, :, 12:] = 1.93
    path = cameras_at((0.13, 0.05, 0.0), (0.0, 0.0, -0.3))
    angle = torch.tensor(0.7)
    world = torch.eye(4)
    world[0, 0] = world[2, 2] = angle.cos()
    world[0, 2], world[2, 0] = angle.sin(), -angle.sin()
    world[:3, 3] = torch.tensor([1.0, -2.0, 0.5])
    moved = [Cameras(world @ c.camera_to_world, c.intrinsics, HEIGHT, WIDTH) for c in (HOME, path)]
    here = render_cache(build_cache(image, depth, HOME, None), path)
    there = render_cache(build_cache(image, depth, moved[0], None), moved[1])
    assert (here.masks != there.masks).float().mean() < 0.02
    both = ((here.masks + there.masks) == 2)[:, :, None].expand_as(here.images)
    assert ((here.images - there.images)[both].abs() > 1e-3).float().mean() < 0.01


def test_the_nearer_point_wins():
    image, depth = torch.full((1, 3, HEIGHT, WIDTH), -0.5), plane(2.0)
    image[:, :, :, 12:15], depth[:, :, 12:15] = 0.5, 1.0
    views = view(build_cache(image, depth, HOME, None), (4 / FOCAL, 0.0, 0.0))
    # Near columns 12 to 14 move by 4 pixels to 8 to 10, where far columns 10 to 12 also land, 2 pixels from home.
    assert torch.allclose(views.images[0, 0, :, :, 8:11], torch.tensor(0.5), atol=1e-5)
    assert torch.allclose(views.depth[0, 0, :, 8:11], torch.tensor(1.0), atol=1e-5)
    assert torch.allclose(views.images[0, 0, :, :, 2:7], torch.tensor(-0.5), atol=1e-5)


def test_points_behind_the_camera_leave_holes():
    views = view(build_cache(random_image(), plane(1.0), HOME, EDGES), (0.0, 0.0, 2.0))
    assert views.masks.max() == 0
    assert (views.images == -1).all()
    assert (views.depth == 0).all()


def test_pixels_at_depth_edges_are_dropped_and_others_kept():
    depth = plane(1.0)
    depth[:, :, 12:] = 3.0
    reliable = build_cache(random_image(), depth, HOME, EDGES).reliable[0]
    # A 5-wide window sees the step from columns 10 to 13.
    assert not reliable[:, 10:14].any()
    assert reliable[:, :10].all()
    assert reliable[:, 14:].all()
    assert build_cache(random_image(), depth, HOME, None).reliable.all()


def test_reliability_is_free_of_scale_and_rejects_zero():
    depth = 1 + torch.rand(2, 20, 20, generator=torch.Generator().manual_seed(0)) * 0.055
    reliable = reliable_depth(depth, EDGES)
    assert 0.05 < reliable[:, 3:-3, 3:-3].float().mean() < 0.95
    assert torch.equal(reliable_depth(8 * depth, EDGES), reliable)
    assert not reliable_depth(torch.zeros(1, 20, 20), EDGES).any()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e6])
def test_invalid_and_far_depth_goes_to_the_far_clamp(bad: float):
    depth = plane(1.0)
    depth[:, :, 16:] = bad
    cache = build_cache(random_image(), depth, HOME, EDGES)
    assert cache.points.isfinite().all()
    assert torch.equal(cache.points[0, :, 16:, 2], torch.full((HEIGHT, 8), MAX_DEPTH))
    views = view(cache, (0.0, 0.0, 0.0), depth_weight=50.0)
    for tensor in (views.images, views.masks, views.depth):
        assert tensor.isfinite().all()


def test_negative_depth_is_never_splatted():
    cache = build_cache(random_image(), plane(-1.0), HOME, None)
    assert render_cache(cache, HOME).masks.max() == 0


def test_two_buffers_stay_apart():
    images = torch.cat([random_image(1), random_image(2)])
    depth = torch.cat([plane(1.0), plane(2.0)])
    sources, path = cameras_at((0.0, 0.0, 0.0), (0.2, 0.0, 0.0)), cameras_at((0.1, 0.0, 0.0), (0.3, 0.1, 0.0))
    both = render_cache(build_cache(images, depth, sources, EDGES), path)
    for index in range(2):
        one = slice(index, index + 1)
        alone = render_cache(build_cache(images[one], depth[one], sources[one], EDGES), path)
        for name in ("images", "masks", "depth"):
            assert torch.equal(getattr(both, name)[:, one], getattr(alone, name))


def test_a_frame_does_not_depend_on_its_neighbours():
    cache = build_cache(random_image(), plane(1.0), HOME, EDGES)
    path = cameras_at((0.1, 0.0, 0.0), (0.0, 0.0, -3.0), (0.0, 0.1, 0.2))
    whole = render_cache(cache, path)
    for index in range(3):
        assert torch.equal(render_cache(cache, path[index : index + 1]).images[0], whole.images[index])


shapes = st.tuples(st.integers(2, 33), st.integers(2, 33))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(shapes, st.floats(0.02, 1), st.integers(0, 1000))
def test_filled_holes_keep_what_is_known(shape: tuple[int, int], share: float, seed: int):
    generator = torch.Generator().manual_seed(seed)
    values = torch.rand(2, 3, *shape, generator=generator) * 4 - 6
    masks = (torch.rand(2, *shape, generator=generator) < share).float()
    known = (masks > 0)[:, None].expand_as(values)
    filled = fill_holes(values, masks)
    assert torch.equal(filled[known], values[known])
    # What lies under a hole plays no part.
    assert torch.equal(filled, fill_holes(torch.where(known, values, 77.0), masks))


def assert_fill_within_range(height: int, width: int, masks: torch.Tensor) -> None:
    values = torch.rand(1, 1, height, width, generator=torch.Generator().manual_seed(0)) - 6
    known = values[masks[:, None] > 0]
    filled = fill_holes(values, masks)
    assert filled.min() >= known.min() - 1e-5
    assert filled.max() <= known.max() + 1e-5
    constant = fill_holes(torch.full_like(values, -3.7), masks)
    assert torch.allclose(constant, torch.tensor(-3.7), atol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 17), (32, 32), (15, 13), (128, 128)])
def test_filled_values_lie_within_the_range_of_the_known(height: int, width: int):
    sparse = (torch.rand(1, height, width, generator=torch.Generator().manual_seed(1)) < 0.05).float()
    corner = torch.zeros(1, height, width)
    corner[:, :2, :2] = 1
    for masks in (sparse, corner):
        assert_fill_within_range(height, width, masks)


@pytest.mark.parametrize(("height", "width"), [(2, 16), (32, 8), (11, 20), (1, 7)])
def test_filled_values_lie_within_the_range_of_the_known_in_oblong_images(height: int, width: int):
    corner = torch.zeros(1, height, width)
    corner[:, :2, :2] = 1
    assert_fill_within_range(height, width, corner)
