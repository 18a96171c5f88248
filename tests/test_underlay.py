"""The layer behind a surface: no gap shows from nearby, and nothing sticks out at an edge."""

import torch

from lyra.geometry.cameras import Cameras, intrinsics_from_fov, pixel_rays
from lyra.geometry.gaussians import Gaussians, merge
from lyra.rendering import render
from lyra.student.surface import lie_on_surface, surface_normals
from lyra.student.underlay import find_blocks, keep_most_opaque, lay_under

SIZE = 32


def camera(size: int = SIZE, forward: float = 0.0) -> Cameras:
    pose = torch.eye(4)[None].clone()
    pose[0, 2, 3] = forward
    return Cameras(pose, intrinsics_from_fov(50.0, size, size)[None], size, size)


def surface(depth: torch.Tensor, spread: float = 0.25) -> tuple[Gaussians, Gaussians]:
    """One small Gaussian a pixel, colored by columns, and the layer behind."""
    view = camera()
    origins, rays = pixel_rays(view)
    distance = depth / rays[0, :, :, 2]
    points = origins + distance[None, ..., None] * rays
    normals = surface_normals(points)
    quaternions, cosine = lie_on_surface(normals, rays)
    angle = 1 / view.intrinsics[0, 0]
    width = spread * distance * angle
    stretch = 1 / cosine.clamp(min=1 / 3)
    scales = torch.stack([stretch[0] * width, width, width], dim=-1)
    columns = torch.linspace(0.2, 0.8, SIZE).expand(SIZE, SIZE)
    gaussians = Gaussians(
        means=points.reshape(1, -1, 3),
        scales=scales.reshape(1, -1, 3),
        quaternions=quaternions.reshape(1, -1, 4),
        opacities=torch.full((1, SIZE * SIZE), 0.99),
        colors=columns.flatten()[None, :, None].expand(-1, -1, 3),
    )
    cells = torch.arange(SIZE * SIZE)
    members = find_blocks(cells, distance[None, None], 2)
    starts = origins.expand_as(points).reshape(-1, 3)
    under = lay_under(gaussians, starts, normals.reshape(-1, 3), angle.expand(SIZE * SIZE), members)
    return gaussians.map(lambda tensor: tensor[0]), under.map(lambda tensor: tensor[0])


def slanted() -> torch.Tensor:
    """A floor-like plane: far at the top, near at the bottom."""
    _, rays = pixel_rays(camera())
    return 1 / (0.45 + 0.4 * rays[0, :, :, 1] / rays[0, :, :, 2])


def test_the_layer_is_one_gaussian_a_block_behind_the_surface_and_of_its_color():
    gaussians, under = surface(slanted())
    assert len(under) == (SIZE // 2) ** 2
    blocks = gaussians.means.norm(dim=-1).reshape(SIZE // 2, 2, SIZE // 2, 2).amax((1, 3)).flatten()
    assert bool((under.means.norm(dim=-1) > blocks).all())
    means = gaussians.colors.reshape(SIZE // 2, 2, SIZE // 2, 2, 3).mean((1, 3)).reshape(-1, 3)
    torch.testing.assert_close(under.colors, means)
    torch.testing.assert_close(under.opacities, torch.full_like(under.opacities, 0.99))


def test_from_nearby_no_gap_shows_between_small_gaussians():
    """A plane at distance 2 seen from distance 1, at twice the size: pixels are a quarter of a Gaussian's cell."""
    gaussians, under = surface(torch.full((SIZE, SIZE), 2.0))
    close = camera(2 * SIZE, forward=1.0)
    alone, both = (
        render(part, close, torch.ones(3)).alpha[0, 8:-8, 8:-8] for part in (gaussians, merge([gaussians, under]))
    )
    assert float(alone.min()) < 0.5
    assert float(both.min()) > 0.97


def test_the_picture_itself_stays_as_it_is():
    for depth in (torch.full((SIZE, SIZE), 2.0), slanted()):
        gaussians, under = surface(depth, spread=0.35)
        pictures = [
            render(part, camera(), torch.full((3,), 0.5)).color for part in (gaussians, merge([gaussians, under]))
        ]
        inside = (pictures[0] - pictures[1])[..., 3:-3, 3:-3]
        assert float(inside.square().mean().sqrt()) < 0.02


def test_the_layer_ends_before_an_edge_and_at_what_has_no_gaussian():
    depth = torch.full((SIZE, SIZE), 3.0)
    depth[8:24, 8:24] = 1.0
    _, under = surface(depth)
    # Nothing within two cells of the nearer square's border.
    near = under.means[under.means[:, 2] < 2]
    lens = camera().intrinsics[0]
    columns = near[:, 0] / near[:, 2] * lens[0] + lens[2]
    assert len(near)
    assert float(columns.min()) > 10
    assert float(columns.max()) < 22
    cells = torch.arange(SIZE * SIZE)
    without = cells[cells != 5 * SIZE + 5]
    whole, less = (find_blocks(part, torch.ones(1, 1, SIZE, SIZE), 2) for part in (cells, without))
    assert len(whole) - len(less) == 1
    assert bool((less < len(without)).all())


def test_it_follows_the_gaussians_in_every_target_and_passes_gradients():
    gaussians, _ = surface(slanted())
    twice = gaussians.map(lambda tensor: torch.stack([tensor, tensor]))
    colors = torch.stack([gaussians.colors, 1 - gaussians.colors]).requires_grad_()
    twice = Gaussians(twice.means, twice.scales, twice.quaternions, twice.opacities, colors)
    members = find_blocks(torch.arange(SIZE * SIZE), torch.ones(1, 1, SIZE, SIZE), 2)
    zero = torch.zeros(SIZE * SIZE, 3)
    under = lay_under(twice, zero, zero, torch.full((SIZE * SIZE,), 0.03), members)
    torch.testing.assert_close(under.colors[1], 1 - under.colors[0])
    under.colors.sum().backward()
    assert colors.grad is not None
    torch.testing.assert_close(colors.grad, torch.full_like(colors, 0.25))


def test_what_is_pruned_leaves_no_surface_without_its_layer():
    """All as opaque: by opacity alone the layer, which comes last, would go before any of the surface."""
    cells = torch.arange(SIZE * SIZE)
    blocks = find_blocks(cells, torch.full((1, 1, SIZE, SIZE), 2.0), 2)
    for opacities in (torch.full((len(cells) + len(blocks),), 0.99), torch.rand(len(cells) + len(blocks))):
        opacities[len(cells) :] = opacities[: len(cells)][blocks].amin(1)
        count = len(opacities) * 3 // 4
        kept = keep_most_opaque(opacities, blocks, count)
        assert len(kept) <= count and torch.equal(kept, kept.unique())
        surface = kept[kept < len(cells)]
        gone = sorted(set(cells.tolist()) - set(surface.tolist()))
        assert opacities[surface].min() >= opacities[gone].max()
        behind = (kept[kept >= len(cells)] - len(cells)).tolist()
        whole = [n for n, block in enumerate(blocks.tolist()) if set(block) <= set(surface.tolist())]
        assert behind == whole[: len(behind)] and len(behind) >= min(len(whole), count - len(surface))
    assert len(keep_most_opaque(torch.rand(10), cells.new_empty(0, 1), 4)) == 4
