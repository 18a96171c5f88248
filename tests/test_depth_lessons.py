import math

import numpy as np
import pytest
import torch

from lyra.depth import DepthNet, DepthNetConfig
from lyra.depth.geometry import (
    align_log_depth,
    edge_error,
    normal_error,
    normals_from_depth,
    size_error,
    unbroken,
)
from lyra.training.depth_course import Course, label_photographs, teach
from lyra.training.depth_lessons import Lesson, LessonConfig, Pool, compare, crop, draw_lesson, lesson_loss
from lyra.training.depth_pictures import DepthPictures, decode_depth, encode_depth, load_pictures, save_views
from lyra.training.loop import LoopConfig
from lyra.worlds.map_views import View

FOCAL, CENTER = torch.tensor([40.0]), torch.tensor([[30.0, 18.0]])


def plane_depth(normal: tuple[float, float, float], distance: float, height: int = 40, width: int = 56) -> torch.Tensor:
    x = (torch.arange(width) + 0.5 - CENTER[0, 0]) / FOCAL
    y = (torch.arange(height) + 0.5 - CENTER[0, 1]) / FOCAL
    return distance / (normal[0] * x[None] + normal[1] * y[:, None] + normal[2])


@pytest.mark.parametrize("step", [1, 3, 9])
@pytest.mark.parametrize("scale", [1.0, 37.0])
def test_normals_of_a_plane_are_exact_at_any_step_and_scale(step: int, scale: float):
    normal = torch.nn.functional.normalize(torch.tensor([0.3, 0.25, 0.9]), dim=0)
    depth = plane_depth(tuple(normal.tolist()), 2 * scale)
    found = normals_from_depth(depth.log()[None], FOCAL, CENTER, step)
    assert (found[0] - normal[:, None, None]).abs().max() < 1e-4
    assert bool(unbroken(depth.log()[None], torch.ones(1, 40, 56, dtype=torch.bool), step).all())


def test_normal_error_is_zero_at_the_truth_and_falls_along_its_gradient():
    truth = plane_depth((0.3, 0.2, 0.9), 2.0).log()[None]
    valid = torch.ones_like(truth, dtype=torch.bool)
    assert normal_error(truth + 1.3, truth, valid, FOCAL, CENTER).item() < 1e-5
    ripple = 0.05 * torch.sin(torch.arange(56) * 0.7).expand(1, 40, 56)
    wrong = (truth + ripple).requires_grad_()
    error = normal_error(wrong, truth, valid, FOCAL, CENTER)
    (gradient,) = torch.autograd.grad(error, wrong)
    better = normal_error(wrong - 1e-2 * gradient / gradient.abs().max(), truth, valid, FOCAL, CENTER)
    worse = normal_error(wrong + 1e-2 * gradient / gradient.abs().max(), truth, valid, FOCAL, CENTER)
    assert error > 1e-3 and better < error < worse


def test_edges_between_things_say_nothing_about_normals():
    depth = plane_depth((0, 0, 1), 2.0)
    depth[:, 28:] = 3.0
    whole = unbroken(depth.log()[None], torch.ones(1, 40, 56, dtype=torch.bool), 3)[0]
    # Rows and columns begin three pixels inside.
    assert not whole[:, 28 - 3 - 3 : 28 + 3 - 3].any()
    assert whole[:, : 28 - 6].all() and whole[:, 28:].all()
    sky = torch.ones(1, 40, 56, dtype=torch.bool)
    sky[:, :10] = False
    assert not unbroken(plane_depth((0, 0, 1), 2.0).log()[None], sky, 1)[0, :10].any()


def test_size_and_edges_ignore_a_common_factor_and_count_jumps_more():
    truth = torch.zeros(1, 16, 16)
    truth[:, :, 8:] = 1
    valid = torch.ones_like(truth, dtype=torch.bool)
    same = align_log_depth(truth + 0.7, truth, valid)
    assert size_error(same, valid) < 1e-6 and edge_error(same, truth, valid) < 1e-6
    inside, across = torch.zeros_like(truth), torch.zeros_like(truth)
    inside[:, :, 4:] = 0.3
    across[:, :, 8:] = 0.3
    assert edge_error(across, truth, valid) > 1.2 * edge_error(inside, truth, valid)


def test_weak_labels_teach_sizes_alone():
    config = LessonConfig(batch=1)
    output = torch.zeros(1, 2, 32, 32, requires_grad=True)
    fine = (torch.rand(1, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.2 + 1).round(decimals=3)
    coarse = torch.where(torch.arange(32) < 16, 1.0, 3.0).expand(1, 32, 32)
    lens = torch.zeros(1), torch.zeros(1, 2)
    for depth, moved in (
        (fine - fine.reshape(4, 8, 4, 8).mean((1, 3)).repeat_interleave(8, 0).repeat_interleave(8, 1) + 1, False),
        (coarse, True),
    ):
        loss, details = compare(output, Lesson(torch.zeros(1, 3, 32, 32), depth, *lens, torch.tensor([False])), config)
        assert details["edges"] == details["normals"] == details["sky"] == 0
        assert (loss.item() > 0.05) == moved


def box_view(side: int = 96) -> View:
    ramp = np.linspace(0, 255, side).astype(np.uint8)
    image = np.stack(
        [np.tile(ramp, (side, 1)), np.tile(ramp[:, None], (1, side)), np.full((side, side), 90, np.uint8)], -1
    )
    rows = (np.arange(side) + 0.5 - side / 2) / 80
    depth = np.where(rows > 0.02, 1 / np.maximum(rows, 0.02), np.inf)[:, None].repeat(side, 1)
    return View(image, depth, 80.0)


def test_depth_survives_its_file_to_a_fiftieth_of_a_percent(tmp_path):
    view = box_view()
    save_views([view, view], tmp_path / "a.safetensors")
    save_views([], tmp_path / "b.safetensors")
    pictures = load_pictures([tmp_path / "a.safetensors", tmp_path / "b.safetensors"])
    assert len(pictures) == 2
    found, true = decode_depth(pictures.depth[0]), torch.from_numpy(view.depth).float()
    assert bool((found.isinf() == true.isinf()).all())
    known = true.isfinite()
    assert ((found - true).abs() / true)[known].max() < 2e-4


def test_a_crop_keeps_planes_plane_and_knows_its_lens():
    view = box_view()
    pictures = DepthPictures(
        torch.from_numpy(view.image).movedim(-1, 0)[None],
        encode_depth(torch.from_numpy(view.depth).float())[None],
        torch.tensor([view.focal]),
    )
    for seed in range(4):
        image, depth, focal, center = crop(pictures, 0, 64, 96, torch.Generator().manual_seed(seed))
        assert image.shape == (3, 64, 96) and depth.shape == (64, 96)
        y = (torch.arange(64) + 0.5 - center[1]) / focal
        known = (y > 0.12)[:, None] & depth.isfinite()
        assert known.any()
        height = depth * y[:, None]
        assert (height[known] - 1).abs().max() < 0.03


def tiny() -> DepthNet:
    torch.manual_seed(0)
    return DepthNet(DepthNetConfig(size=64, multiplier=0.25, width=8, max_width=16))


def test_lessons_lower_their_loss_and_raise_it_when_turned_round(tmp_path):
    save_views([box_view()], tmp_path / "rooms" / "training" / "a.safetensors")
    config = LessonConfig(batch=2, shapes=((64, 96), (64, 64)))
    course = Course(tmp_path)
    before = np.mean([lesson_loss(tiny(), course.pools(), config, step)[0].item() for step in range(100, 104)])
    network = tiny()
    loop = LoopConfig(steps=30, learning_rate=3e-3, warmup=1, ema=0.5)
    teach(network, course, tmp_path / "run", loop, config)
    with torch.no_grad():
        after = np.mean([lesson_loss(network, course.pools(), config, step)[0].item() for step in range(100, 104)])
    assert after < 0.8 * before
    # A leg that was cut short goes on to the same weights.
    first, second = tiny(), tiny()
    teach(first, course, tmp_path / "legs", LoopConfig(steps=12, learning_rate=3e-3, warmup=1, ema=0.5), config)
    teach(second, course, tmp_path / "legs", loop, config)
    for a, b in zip(network.parameters(), second.parameters(), strict=True):
        assert torch.equal(a, b)


def test_steps_depend_on_their_number_alone():
    pool = Pool(
        DepthPictures(
            torch.zeros(3, 3, 64, 64, dtype=torch.uint8), torch.zeros(3, 64, 64, dtype=torch.int16), torch.ones(3)
        ),
        1.0,
    )
    config = LessonConfig(batch=2, shapes=((32, 64), (64, 64)))
    draws = [draw_lesson([pool], config, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)]
    assert torch.equal(draws[0].image, draws[1].image)
    assert draws[0].image.shape != draws[2].image.shape or not torch.equal(draws[0].image, draws[2].image)


def test_predict_takes_any_shape_and_does_not_prefer_a_side():
    network = tiny().eval()
    image = torch.rand(3, 80, 190, generator=torch.Generator().manual_seed(1))
    prediction, mirrored = network.predict(image), network.predict(image.flip(-1))
    assert prediction.depth.shape == (80, 190) and bool(prediction.depth.isfinite().all())
    torch.testing.assert_close(prediction.depth, mirrored.depth.flip(-1), rtol=1e-4, atol=1e-5)
    assert math.isclose(prediction.depth[prediction.valid].median().item(), 1, rel_tol=1e-4)


def test_photographs_get_labels_of_the_weak_teacher(tmp_path):
    from PIL import Image

    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)).save(tmp_path / "a.png")
    assert label_photographs(tmp_path, lambda images: 1 + images[:, 0], tmp_path / "photographs") == 1  # pyright: ignore
    (pool,) = [pool for pool in _with_room(tmp_path).pools() if pool.weak]
    assert bool((pool.pictures.focal == 0).all()) and len(pool.pictures) > 1


def _with_room(folder) -> Course:
    save_views([box_view()], folder / "rooms" / "training" / "a.safetensors")
    return Course(folder)
