"""Cameras of a film: it stands, turns or moves, told from its pictures; the truth is what rendered them."""

import math
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from lyra.capture.film_cameras import FilmCameras, between, choose_keys, find_film_cameras, find_movers
from lyra.capture.standing import find_shifts, stands, to_gray
from lyra.capture.turning import Pair, fit_turn
from lyra.errors import LyraError, MissingExtraError
from lyra.evaluation.camera_scores import score_cameras
from lyra.files.videos import Video
from lyra.geometry.cameras import Cameras, intrinsics_from_fov, project
from lyra.views.posed_video import pose_video
from lyra.worlds import render_moving_world, sample_moving_world

HEIGHT, WIDTH, COUNT = 180, 320, 9


def turned(yaw: float, pitch: float = 0.0) -> Tensor:
    a, b = torch.tensor(yaw), torch.tensor(pitch)
    around = torch.tensor([[a.cos(), 0, a.sin()], [0, 1, 0], [-a.sin(), 0, a.cos()]])
    return around @ torch.tensor([[1, 0, 0], [0, b.cos(), -b.sin()], [0, b.sin(), b.cos()]])


def walk(count: int = COUNT, height: int = HEIGHT, width: int = WIDTH, fov: float = 55.0) -> Cameras:
    """Sideways and a little forward, swaying as a hand does."""
    poses = torch.eye(4).repeat(count, 1, 1)
    for index, share in enumerate(np.linspace(0, 1, count)):
        poses[index, :3, :3] = turned(0.04 * math.sin(4 * share), 0.02 * math.sin(7 * share))
        poses[index, :3, 3] = torch.tensor([0.25 * share, 0.015 * math.sin(9 * share), 0.04 * share])
    return Cameras(poses, intrinsics_from_fov(fov, height, width).expand(count, 4), height, width)


def texture(height: int, width: int, seed: int = 0) -> Float[Tensor, "3 height width"]:
    generator = torch.Generator().manual_seed(seed)
    sizes = ((12, 20), (40, 70), (height // 2, width // 2))
    layers = [
        F.interpolate(torch.rand(1, 3, *size, generator=generator), size=(height, width), mode="bicubic")[0]
        for size in sizes
    ]
    return (0.1 + 0.8 * torch.stack(layers).mean(0)).clamp(0, 1)


def look_around(angles: Float[Tensor, "time"], focal: float, zooms: Float[Tensor, "time"]) -> Tensor:
    """A wall of sky, so far away that only turning is seen, with a bar that passes in front."""
    far = texture(2 * HEIGHT, 2 * WIDTH)
    v, u = torch.meshgrid(torch.arange(HEIGHT) + 0.5, torch.arange(WIDTH) + 0.5, indexing="ij")
    pictures = []
    for index, (angle, zoom) in enumerate(zip(angles.tolist(), zooms.tolist(), strict=True)):
        f = focal * zoom
        rays = torch.stack([(u - WIDTH / 2) / f, (v - HEIGHT / 2) / f, torch.ones_like(u)], -1) @ turned(angle).T
        spot = focal * rays[..., :2] / rays[..., 2:] / torch.tensor([WIDTH, HEIGHT])
        pictures.append(F.grid_sample(far[None], spot[None], align_corners=False)[0])
        left = 20 + 24 * index
        pictures[-1][:, 60:140, left : left + 30] = torch.tensor([0.9, 0.1, 0.1])[:, None, None]
    return torch.stack(pictures)


# A camera that stands


def test_shifts_of_patches_are_those_of_the_picture():
    picture = texture(HEIGHT, WIDTH).mean(0)
    for right, down in ((0, 0), (3, -2), (-5, 4)):
        shift, known = find_shifts(picture, torch.roll(picture, (down, right), (0, 1)))
        assert known.float().mean() > 0.5
        assert torch.allclose(shift[known].median(0).values, torch.tensor([right, down]).float(), atol=0.2)


def test_a_camera_stands_despite_noise_flicker_and_what_passes():
    generator = torch.Generator().manual_seed(0)
    frames = texture(HEIGHT, WIDTH).repeat(7, 1, 1, 1)
    for index in range(7):
        frames[index, :, 40:140, 30 * index : 30 * index + 60] = texture(100, 60, 1)
        frames[index] *= 1 - 0.02 * (index % 3)
    frames += 0.02 * torch.randn(frames.shape, generator=generator)
    found = find_film_cameras(list(frames))
    assert found.motion == "stands" and found.cameras is None
    posed = pose_video(Video.of(frames, 1.0))
    assert posed.video.cameras is None and "stands" in posed.notes[0]


def test_a_camera_that_shifts_by_a_pixel_does_not_stand():
    wide = texture(HEIGHT, WIDTH + 16)
    frames = torch.stack([wide[:, :, index : index + WIDTH] for index in range(0, 9, 2)])
    assert not stands(to_gray(list(frames)))
    assert choose_keys(to_gray(list(frames))) == [0, 1, 2, 3, 4]


def test_without_pycolmap_a_moving_camera_names_the_extra(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    wide = texture(HEIGHT, WIDTH + 40)
    with pytest.raises(MissingExtraError, match="poses"):
        find_film_cameras([wide[:, :, index : index + WIDTH] for index in range(0, 40, 8)])


# One that turns


def test_a_turn_is_told_from_matches_with_some_wrong():
    generator = np.random.default_rng(0)
    focal, zoom, rotation = 300.0, 1.1, turned(0.1, -0.03).double().numpy()
    a = generator.uniform(-150, 150, (200, 2))
    rays = np.concatenate([a / focal, np.ones((200, 1))], 1) @ rotation.T
    b = zoom * focal * rays[:, :2] / rays[:, 2:] + 0.2 * generator.standard_normal((200, 2))
    b[:40] += generator.uniform(10, 40, (40, 2))
    turn = fit_turn(Pair(0, 1, a, b), focal, 1.0)
    assert turn.zoom == pytest.approx(zoom, abs=2e-3)
    assert np.abs(turn.rotation - rotation).max() < 2e-3
    assert not turn.inside[:40].any() and turn.inside[40:].mean() > 0.95


def test_a_camera_that_turns_and_zooms_is_told_so():
    pytest.importorskip("pycolmap", reason="needs the extra poses")
    angles, zooms = torch.linspace(0, 0.2, 6), torch.linspace(1, 1.15, 6)
    focal = 0.5 * HEIGHT / math.tan(math.radians(55) / 2)
    found = find_film_cameras(list(look_around(angles, focal, zooms)), focal, fixed=True)
    assert found.motion == "turns" and found.cameras is not None
    for index, angle in enumerate(angles.tolist()):
        difference = found.cameras.camera_to_world[index, :3, :3] @ turned(angle).T
        assert math.degrees(math.acos(min(1, (float(difference.trace()) - 1) / 2))) < 0.5
    assert torch.allclose(found.cameras.intrinsics[:, 0] / focal, zooms, atol=0.01)
    assert not bool(found.cameras.centers.any())
    assert any("zooms" in note for note in found.notes)


# One that moves


@pytest.fixture(scope="module")
def walked() -> tuple[Tensor, Tensor, Cameras]:
    """Pictures of a world in which things move, what moves, and the true cameras."""
    pytest.importorskip("pycolmap", reason="needs the extra poses")
    cameras = walk()
    color, _, moving = render_moving_world(sample_moving_world(60_000), cameras, torch.linspace(0, 1, COUNT), 1)
    return (color * 255).round() / 255, moving, cameras


@pytest.fixture(scope="module")
def found(walked) -> FilmCameras:
    return find_film_cameras(list(walked[0]))


def test_cameras_of_a_moving_world_are_those_that_filmed_it(walked, found: FilmCameras):
    assert found.motion == "moves" and found.cameras is not None
    errors = score_cameras(found.cameras, walked[2])
    assert errors.position < 0.01 and errors.rotation < 0.5


def test_points_stand_still(walked, found: FilmCameras):
    assert found.capture is not None and found.cameras is not None
    u, v, _ = project(found.capture.points, found.cameras[list(found.keys)])
    inside = found.capture.seen & (u >= 0) & (u < WIDTH) & (v >= 0) & (v < HEIGHT)
    moving = torch.stack(
        [walked[1][key][v[row].long().clamp(0, HEIGHT - 1), u[row].long().clamp(0, WIDTH - 1)]
         for row, key in enumerate(found.keys)]
    )  # fmt: skip
    assert moving[inside].float().mean() < 0.05


def test_frames_that_were_not_compared_lie_smoothly_between():
    true = walk(17)
    keys = [0, 3, 5, 8, 12, 16]
    filled = between(replace(true[keys]), keys, 17)
    errors = score_cameras(filled, true)
    assert errors.position < 0.01 and errors.rotation < 0.3
    assert torch.allclose(filled.camera_to_world[keys], true.camera_to_world[keys], atol=1e-6)


def test_movers_are_where_most_matches_disagree():
    generator = np.random.default_rng(1)
    places = [generator.uniform(0, 160, (400, 2)) for _ in range(4)]
    thing = [(place < 60).all(1) for place in places]
    numbers = np.stack([np.arange(400)] * 2, 1)
    matches = {(a, b): numbers for a in range(4) for b in range(a + 1, 4)}
    agreeing = {pair: numbers[~thing[pair[0]] & ~thing[pair[1]]] for pair in matches}
    moving = find_movers(places, matches, agreeing, 160, 160)
    inner = [(place < 40).all(1) for place in places]
    outer = [(place > 100).any(1) for place in places]
    assert all(found[part].mean() > 0.7 for found, part in zip(moving, inner, strict=True))
    assert all(found[part].mean() < 0.5 for found, part in zip(moving, outer, strict=True))


def test_a_film_that_hangs_on_nothing_is_told():
    pytest.importorskip("pycolmap", reason="needs the extra poses")
    with pytest.raises(LyraError, match=r"cannot be found.*--cameras"):
        find_film_cameras([texture(HEIGHT, WIDTH, seed) for seed in range(4)])


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(60_000, 60_008))
@pytest.mark.parametrize("fov", [45.0, 55.0, 68.0])
def test_cameras_of_held_out_worlds(seed: int, fov: float):
    cameras = walk(17, 216, 384, fov)
    color, _, _ = render_moving_world(sample_moving_world(seed), cameras, torch.linspace(0, 1, 17))
    found = find_film_cameras(list(color))
    assert found.cameras is not None
    errors = score_cameras(found.cameras, cameras)
    assert errors.position < 0.01 and errors.rotation < 0.5
