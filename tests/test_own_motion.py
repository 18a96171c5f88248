"""What moves in front of a camera that moves: hand-made flows, and worlds whose movers are known."""

import sys

import pytest
import torch
import torch.nn.functional as F

from lyra.cache.warp import unproject
from lyra.errors import MissingExtraError
from lyra.geometry.cameras import Cameras, intrinsics_from_fov, project
from lyra.views.own_motion import choose_others, cut_out, find_movers, fit_affine, judge_flow, load_opencv, split_flow

HEIGHT, WIDTH = 96, 128


def sideways(count: int, step: float, turn: float = 0.0) -> Cameras:
    poses = torch.eye(4).repeat(count, 1, 1)
    for index in range(count):
        angle = torch.tensor(index * turn)
        poses[index, :3, :3] = torch.tensor([[angle.cos(), 0, angle.sin()], [0, 1, 0], [-angle.sin(), 0, angle.cos()]])
        poses[index, 0, 3] = index * step
    return Cameras(poses, intrinsics_from_fov(55.0, HEIGHT, WIDTH).expand(count, 4), HEIGHT, WIDTH)


def texture(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    layers = [
        F.interpolate(torch.rand(1, 3, *size, generator=generator), size=(HEIGHT, 2 * WIDTH), mode="bicubic")[0]
        for size in ((8, 20), (24, 60), (48, 120))
    ]
    return (0.1 + 0.8 * torch.stack(layers).mean(0)).clamp(0, 1)


def film(walks: float, count: int = 7, step: float = 0.06) -> tuple[torch.Tensor, torch.Tensor, Cameras, torch.Tensor]:
    """A wall at 2 and a board at 1 that goes so many units a picture to the right, seen by a camera that does."""
    cameras = sideways(count, step)
    lens = cameras.intrinsics[0]
    v, u = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    wall, board = texture(0), texture(1)
    pictures, depths, masks = [], [], []
    for index in range(count):
        x = (u - lens[2]) / lens[0] * 2 + index * step
        spot = torch.stack([x / 3, (v - lens[3]) / (HEIGHT / 2)], -1)
        picture = F.grid_sample(wall[None], spot[None], align_corners=False, padding_mode="reflection")[0]
        left = (u - lens[2]) / lens[0] + index * step - index * walks + 0.15
        inside = (left > 0) & (left < 0.3) & (v > 24) & (v < 80)
        own = torch.stack([left / 0.3 * 2 - 1, (v - 52) / 28], -1)
        shown = F.grid_sample(board[None], own[None], align_corners=False)[0]
        pictures.append(torch.where(inside, shown, picture))
        depths.append(torch.where(inside, 1.0, 2.0))
        masks.append(inside)
    return torch.stack(pictures), torch.stack(depths), cameras, torch.stack(masks)


def test_flow_of_depth_is_where_its_points_go():
    cameras = sideways(2, 0.1, 0.05)
    depth = 1 + torch.rand(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    turned, moved = split_flow(depth, cameras)
    u, _, _ = project(unproject(depth[None], cameras[:1]).reshape(-1, 3), cameras[1:])
    here = torch.stack([torch.arange(WIDTH) + 0.5] * HEIGHT)
    assert torch.allclose(moved[..., 0], u.reshape(HEIGHT, WIDTH) - here, atol=1e-3)
    # What is infinitely far flows as the camera turned alone.
    still = cameras.camera_to_world.clone()
    still[:, :3, 3] = 0
    alone = Cameras(still, cameras.intrinsics, HEIGHT, WIDTH)
    assert torch.allclose(turned, split_flow(depth, alone)[1], atol=1e-2)


def test_a_flow_is_judged_by_the_line_that_depth_allows():
    cameras = sideways(2, 0.1)
    depth, sure = torch.full((HEIGHT, WIDTH), 1.0), torch.ones(HEIGHT, WIDTH, dtype=torch.bool)
    _, moved = split_flow(depth, cameras)
    flow = moved.clone()
    flow[10:20, 10:20, 1] += 4  # across
    flow[10:20, 40:50, 0] *= 4  # much nearer than all around
    flow[10:20, 70:80, 0] *= 1.3  # a little nearer
    said = judge_flow(flow, sure, depth, cameras)
    assert (said[12:18, 12:18] == 1).all() and (said[12:18, 42:48] == 1).all()
    assert (said[12:18, 72:78] == -1).all() and (said[50:90, 10:120] == -1).all()
    # Depth that is wrong everywhere, and a camera that turned a little more, are not movement.
    wrong = judge_flow(3.5 * moved + torch.tensor([2.0, -3.0]), sure, depth, cameras)
    assert (wrong <= 0).all()
    nothing = judge_flow(flow, ~sure, depth, cameras)
    assert (nothing == 0).all()


def test_an_affine_flow_is_found_despite_what_disagrees():
    v, u = torch.meshgrid(torch.linspace(-1, 1, HEIGHT), torch.linspace(-1, 1, WIDTH), indexing="ij")
    true = torch.stack([1 + 2 * u, -0.5 + 0.3 * v - u], -1)
    noisy = true + 0.05 * torch.randn(true.shape, generator=torch.Generator().manual_seed(0))
    noisy[20:60, 30:80] += 12
    assert (fit_affine(noisy, torch.ones_like(u, dtype=torch.bool)) - true).abs().max() < 0.1
    assert (fit_affine(noisy, torch.zeros_like(u, dtype=torch.bool)) == 0).all()


def test_pictures_are_compared_with_those_from_far_enough_aside():
    depth = torch.ones(HEIGHT, WIDTH)
    assert choose_others(20, depth, sideways(41, 0.004)) == [8, 19, 21, 32]
    assert choose_others(20, depth, sideways(41, 0.2)) == [19, 21]
    assert choose_others(0, depth, sideways(3, 1e-6)) == [1, 2]


def test_a_board_that_walks_is_cut_out_and_one_that_stands_is_not():
    images, depth, cameras, true = film(walks=0.05)
    found = find_movers(images, depth, cameras)
    both = float((found & true).sum())
    assert both / float(true.sum()) > 0.85 and both / float(found.sum()) > 0.85
    images, depth, cameras, _ = film(walks=0.0)
    assert float(find_movers(images, depth, cameras).float().mean()) < 0.02


def test_what_goes_along_with_the_camera_is_told_by_its_depth():
    """It stays where it is in the picture, as what is infinitely far does, and is in front of the wall."""
    images, depth, cameras, true = film(walks=0.06)
    found = find_movers(images, depth, cameras)
    assert float((found & true).sum()) / float(true.sum()) > 0.85


def test_a_thing_of_one_color_is_cut_out_by_its_outline():
    image = 0.5 + 0.1 * texture(0)[:, :, :WIDTH]
    image[:, 30:70, 50:80] = torch.tensor([0.1, 0.2, 0.9])[:, None, None]
    evidence = torch.full((HEIGHT, WIDTH), -1.0)
    evidence[26:74, 46:84] = 0.0
    evidence[30:70, 50:80] = 1.0
    evidence[33:67, 53:77] = 0.0
    found = cut_out(load_opencv(), image, evidence)
    assert found[32:68, 52:78].all() and int(found.sum()) < 1.15 * 40 * 30
    assert not cut_out(load_opencv(), image, torch.full((HEIGHT, WIDTH), -1.0)).any()


def test_without_opencv_the_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(MissingExtraError, match="video"):
        load_opencv()


@pytest.mark.parametrize("left", [0, 3])
def test_where_nearly_nothing_stands_still_all_moves(left: int):
    """Too few pixels to tell what color stands still."""
    evidence = torch.ones(HEIGHT, WIDTH)
    evidence[0, :left] = -1.0
    assert cut_out(load_opencv(), texture(0)[:, :, :WIDTH], evidence).all()
