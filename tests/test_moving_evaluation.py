"""Scores of moving scenes: hand-made frames against values worked out in float64, and the baselines."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from lyra.engine.engine import Engine
from lyra.errors import LyraError
from lyra.evaluation.moving_scores import MovingScores, MovingTruth, dynamic_baselines, film_truth, flicker, still_runs
from lyra.evaluation.moving_worlds import WALK, DynamicOptions, choose_views, evaluate_dynamic, film, stand, walk
from lyra.evaluation.scores import fill_with_mean, warp_input
from lyra.geometry.cameras import Cameras, concatenate_cameras, intrinsics_from_fov
from lyra.geometry.trajectories import trajectory_cameras
from lyra.models.smoke import build_smoke_model
from lyra.student import GaussianDecoder
from lyra.teacher import TeacherConfig
from lyra.worlds import moving_pixels, render_moving_world, sample_moving_world

SIZE = 32


def cameras(views: int, size: int = SIZE) -> Cameras:
    """The input camera again and again."""
    pose = torch.eye(4).expand(views, 4, 4)
    return Cameras(pose, intrinsics_from_fov(55.0, size, size).expand(views, 4), size, size)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def test_scores_are_those_worked_out_by_hand():
    scores = MovingScores(None)
    expected: dict[str, list[float]] = {"psnr": [], "ssim": [], "psnr_moving": [], "psnr_still": []}
    for scene in range(2):
        color, frames = random(3, 3, SIZE, SIZE, seed=scene), random(3, 3, SIZE, SIZE, seed=9 + scene) * 1.2 - 0.1
        moving = random(3, SIZE, SIZE, seed=20 + scene) > 0.6 + 0.3 * scene
        scores.add(MovingTruth(color, moving, cameras(3), torch.tensor([0.0, 0.5, 1.0])), {"noise": frames})
        truth, made = color.double().numpy(), frames.double().numpy().clip(0, 1)
        error = (made - truth) ** 2
        expected["psnr"] += [-10 * math.log10(view.mean()) for view in error]
        expected["ssim"] += [
            structural_similarity(
                a, b, channel_axis=0, data_range=1, gaussian_weights=True, sigma=1.5, win_size=11,
                use_sample_covariance=False, full=True,
            )[1][:, 5:-5, 5:-5].mean()
            for a, b in zip(made, truth, strict=True)
        ]  # fmt: skip
        mask = np.broadcast_to(moving.numpy()[:, None], error.shape)
        expected["psnr_moving"].append(-10 * math.log10(error[mask].mean()))
        expected["psnr_still"].append(-10 * math.log10(error[~mask].mean()))
    truth_row, row = scores.rows()
    for name, values in expected.items():
        assert row[name] == pytest.approx(np.mean(values), abs=1e-3), name
    assert row["method"] == "noise"
    assert row["perceptual"] is None
    assert truth_row["method"] == "truth"
    assert truth_row["psnr"] is None
    json.dumps(scores.rows())


def test_rows_have_these_keys_and_a_missing_mask_counts_for_nothing():
    color, still = random(2, 3, SIZE, SIZE), torch.zeros(2, SIZE, SIZE, dtype=torch.bool)
    scores = MovingScores(None)
    scores.add(MovingTruth(color, still, cameras(2), torch.tensor([0.0, 1.0])), {"truth again": color})
    row = scores.rows()[1]
    assert set(row) == {"method", "psnr", "ssim", "perceptual", "psnr_moving", "psnr_still", "flicker"}
    assert row["psnr_moving"] is None
    assert row["psnr_still"] == pytest.approx(100)
    scores.add(MovingTruth(color, ~still, cameras(2), torch.tensor([0.0, 1.0])), {"truth again": 0 * color})
    row = scores.rows()[1]
    assert row["psnr_still"] == pytest.approx(100)
    assert row["psnr_moving"] == pytest.approx(-10 * math.log10(color.double().square().mean().item()), abs=1e-4)
    with pytest.raises(ValueError, match="truth"):
        scores.add(MovingTruth(color, still, cameras(2), torch.tensor([0.0, 1.0])), {"truth": color})


def test_a_constant_clip_does_not_flicker():
    frame = random(3, SIZE, SIZE)
    frames = frame.expand(5, -1, -1, -1)
    assert flicker(frames, frames, cameras(5), torch.linspace(0, 1, 5)) == 0


def test_flicker_of_noise_is_counted_where_the_truth_is_still():
    times = torch.linspace(0, 1, 6)
    truth = random(3, SIZE, SIZE).expand(6, -1, -1, -1).clone()
    truth[2, 1, 4:10, 5:20] += 0.2  # something passes here: one channel and one time are enough
    truth[4, :, 20:22] += 0.9 / 255  # less than a level: still
    frames = truth + 0.05 * (random(*truth.shape, seed=3) - 0.5)
    still = np.ones((SIZE, SIZE), dtype=bool)
    still[4:10, 5:20] = False
    steps = np.abs(np.diff(frames.double().numpy().clip(0, 1), axis=0))[..., still]
    assert flicker(frames, truth, cameras(6), times) == pytest.approx(255 * steps.mean(), rel=1e-5)
    own = flicker(truth, truth, cameras(6), times)
    # Two rows of the image change twice by 0.9 levels in five steps.
    assert own == pytest.approx(0.9 * 2 * 2 * SIZE / (5 * still.sum()), rel=1e-3)


def test_flicker_goes_by_time_and_by_camera():
    still, moved = cameras(1), trajectory_cameras("left", 0.2, 2, intrinsics_from_fov(55.0, SIZE, SIZE), SIZE, SIZE)[1:]
    views = concatenate_cameras([still, moved, still, moved, still, moved[:0]])
    times = torch.tensor([0.5, 0.1, 0.0, 0.9, 1.0])
    assert still_runs(views, times) == [[2, 0, 4], [1, 3]]
    values = torch.tensor([10.0, 0.0, 20.0, 7.0, 11.0]) / 255
    frames = values[:, None, None, None].expand(5, 3, SIZE, SIZE)
    # 20 -> 10 -> 11 and 0 -> 7.
    assert flicker(frames, 0 * frames, views, times) == pytest.approx((10 + 1 + 7) / 3, rel=1e-5)
    assert flicker(frames[:2], frames[:2], views[:2], times[:2]) is None


def test_truth_counts_the_frozen_movers_as_moving():
    world = sample_moving_world(11)
    k = intrinsics_from_fov(55.0, 48, 48)
    path = trajectory_cameras("right", 0.2, 3, k, 48, 48)
    views = concatenate_cameras([path, path[2:]])
    times = torch.tensor([0.0, 0.4, 1.0, 0.0])
    truth = film_truth(world, views, times, frozen_at=0.0)
    color, _, now = render_moving_world(world, views, times)
    then = moving_pixels(world, views, torch.zeros(4))
    assert torch.equal(truth.color, color)
    assert torch.equal(truth.moving, now | then)
    assert torch.equal(truth.moving[3], now[3])
    assert truth.moving[2].sum() > now[2].sum()
    # A frozen scene, the truth of one time, is right elsewhere but for shadows, and wrong there.
    frozen, _, _ = render_moving_world(world, views, torch.zeros(4))
    scores = MovingScores(None)
    scores.add(truth, {"frozen": frozen})
    row = scores.rows()[1]
    assert float(row["psnr_moving"] or 0) + 6 < float(row["psnr_still"] or 0)


def test_baselines_take_the_frame_of_the_time():
    world, size = sample_moving_world(11), 48
    source = cameras(5, size)
    color, depth, _ = render_moving_world(world, source, torch.linspace(0, 1, 5))
    views = trajectory_cameras("left", 0.2, 4, intrinsics_from_fov(55.0, size, size), size, size)
    times = torch.tensor([0.0, 1.0, 0.26, 1.0])
    methods = dynamic_baselines(color, depth, source, views, times)
    assert set(methods) == {"cache", "cache-nearest", "repeat"}
    assert torch.equal(methods["repeat"], color[[0, 4, 1, 4]])
    warped, covered = warp_input(color[4], depth[4], source[:1], views[[3]])
    assert torch.allclose(methods["cache"][3], fill_with_mean(warped, covered)[0])
    assert torch.allclose(methods["cache-nearest"][3][:, covered[0]], warped[0][:, covered[0]])
    scores = MovingScores(None)
    scores.add(film_truth(world, views, times), methods)
    rows = {str(row["method"]): row for row in scores.rows()}
    assert float(rows["cache"]["psnr_still"] or 0) > float(rows["repeat"]["psnr_still"] or 0)


def test_a_student_of_single_moments_is_refused():
    smoke = build_smoke_model()
    paper = GaussianDecoder(replace(smoke.decoder.config, geometry="ray"))
    with pytest.raises(LyraError, match="one moment at a time"):
        evaluate_dynamic(Engine(replace(smoke, decoder=paper), "cpu"), DynamicOptions(scenes=1))


def test_views_go_along_with_a_camera_that_walks():
    config = TeacherConfig(height=SIZE, width=SIZE, frames=5)
    options = DynamicOptions(on_path=(1, 3), at_end=(0.0, 0.5))
    source = walk("left", config)
    assert float(source.centers.diff(dim=0).norm(dim=-1).sum()) == pytest.approx(WALK, rel=0.25)
    standing, times = choose_views(options, stand(config))
    walking, again = choose_views(options, source)
    assert torch.equal(times, again)
    for index, time in enumerate(times.tolist()):
        own = source.camera_to_world[round(time * 4)]
        assert torch.allclose(walking.camera_to_world[index], own @ standing.camera_to_world[index], atol=1e-6)


def test_a_film_of_a_standing_camera_is_not_posed():
    config = TeacherConfig(height=SIZE, width=SIZE, frames=5)
    posed, frames, depth = film(sample_moving_world(11), stand(config), 1.0)
    assert posed.video.cameras is None and torch.equal(posed.video.frames, frames)
    assert torch.equal(frames * 255, (frames * 255).round())
    assert depth.shape == (5, SIZE, SIZE)
