"""What may be done with a scene that moves: times, slices, boxes, and its folder."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from lyra.errors import LyraError
from lyra.files import load_ply
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.dynamic import DynamicGaussians, join, separate, still
from lyra.geometry.gaussians import Gaussians, merge
from lyra.rendering import render
from lyra.scene.scene import Scene

NAMES = ("means", "scales", "quaternions", "opacities", "colors")


def random_gaussians(count: int, seed: int, x: float = 0.0) -> Gaussians:
    """Around a point two units ahead."""
    generator = torch.Generator().manual_seed(seed)
    return Gaussians(
        means=torch.randn(count, 3, generator=generator) * 0.3 + torch.tensor([x, 0.0, 2.0]),
        scales=torch.rand(count, 3, generator=generator) * 0.05 + 0.01,
        quaternions=F.normalize(torch.randn(count, 4, generator=generator), dim=-1),
        opacities=torch.rand(count, generator=generator) * 0.9 + 0.1,
        colors=torch.rand(count, 3, generator=generator),
    )


def moving_scene() -> DynamicGaussians:
    """Uneven times, and a moment that adds nothing."""
    moments = tuple(random_gaussians(count, 1 + count) for count in (40, 0, 70, 55))
    return DynamicGaussians(random_gaussians(100, 0), moments, torch.tensor([0.0, 0.2, 0.4, 1.0]), 2.0)


def still_scene() -> Scene:
    return Scene(random_gaussians(10, 0), camera())


def camera(side: int = 32) -> Cameras:
    return Cameras(torch.eye(4)[None], intrinsics_from_fov(55.0, side, side)[None], side, side)


def same(one: Gaussians, other: Gaussians) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in NAMES)


def test_a_moment_is_the_static_and_its_own():
    scene = moving_scene()
    assert len(scene) == 4
    for index, moment in enumerate(scene.moments):
        assert same(scene.moment(index), merge([scene.static, moment]))


@pytest.mark.parametrize(("time", "index"), [(0.0, 0), (0.09, 0), (0.11, 1), (0.31, 2), (0.69, 2), (0.71, 3), (1.0, 3)])
def test_a_time_is_its_nearest_moment(time, index):
    scene = moving_scene()
    assert scene.nearest(time) == index
    assert same(scene.at(time), scene.moment(index))


@pytest.mark.parametrize("time", [-0.01, 1.01, float("nan"), float("inf")])
def test_times_outside_of_the_scene_are_refused(time):
    with pytest.raises(LyraError, match="outside of the scene"):
        moving_scene().at(time)


def test_moments_and_times_must_fit():
    part = random_gaussians(3, 0)
    for moments, times in [((), []), ((part,), [0.0, 1.0]), ((part, part), [1.0, 0.0]), ((part, part), [0.5, 0.5])]:
        with pytest.raises(ValueError, match=r"moments at|ascend"):
            DynamicGaussians(part, moments, torch.tensor(times))


def test_a_slice_lasts_from_0_to_1_at_the_speed_that_it_had():
    scene = moving_scene()
    piece = scene.between(0.2, 1.0)
    assert torch.allclose(piece.times, torch.tensor([0.0, 0.25, 1.0]))
    assert piece.seconds == pytest.approx(1.6)
    for index in range(3):
        assert same(piece.moment(index), scene.moment(index + 1))
    whole = scene.between(0.0, 1.0)
    assert torch.equal(whole.times, scene.times) and whole.seconds == scene.seconds
    alone = scene.between(0.3, 0.5)
    assert len(alone) == 1 and same(alone.at(0.0), scene.moment(2)) and same(alone.at(1.0), scene.moment(2))
    for start, end in [(0.5, 0.9), (0.4, 0.2)]:
        with pytest.raises(LyraError, match="no moment"):
            scene.between(start, end)


def test_a_crop_holds_at_every_moment():
    scene = moving_scene()
    low, high = (-0.3, -0.2, 1.8), (0.1, 0.4, 2.5)
    cropped = scene.crop(low, high)
    assert torch.equal(cropped.times, scene.times) and cropped.seconds == scene.seconds
    for index in range(len(scene)):
        kept = [
            point
            for point in scene.moment(index).means.tolist()
            if all(least <= x <= most for least, x, most in zip(low, point, high, strict=True))
        ]
        assert 0 < len(kept) < len(scene.moment(index))
        assert cropped.moment(index).means.tolist() == kept
    with pytest.raises(LyraError, match="is empty"):
        scene.crop((0.0, 0.0, 1.0), (1.0, 0.0, 2.0))


def test_a_function_is_applied_to_all_parts():
    scene = moving_scene()
    doubled = scene.map(lambda part: part.map(lambda tensor: tensor * 2))
    for index in range(len(scene)):
        assert torch.equal(doubled.moment(index).means, 2 * scene.moment(index).means)


# Separating what stays


def series_of(moments: int = 4, count: int = 30) -> Gaussians:
    """The same Gaussians at all moments."""
    return random_gaussians(count, 5).map(lambda tensor: tensor.repeat(moments, *[1] * tensor.ndim))


def moments_of(series: Gaussians) -> list[Gaussians]:
    return [series.map(lambda tensor, index=index: tensor[index]) for index in range(len(series.means))]


def test_what_stays_is_stored_once():
    series = series_of()
    series.means[:, :5, 0] += torch.linspace(0, 1, 4)[:, None]
    series.opacities[1:, 5:8] = 0
    series.colors[2, 8] = 1 - series.colors[2, 8]
    changed = torch.arange(30) < 9
    assert torch.equal(still(series), ~changed)
    scene = separate(series, torch.linspace(0, 1, 4), 1.5)
    assert len(scene.static) == 21 and scene.seconds == 1.5
    assert [len(moment) for moment in scene.moments] == [9, 6, 6, 6]
    for index, whole in enumerate(moments_of(series)):
        there = whole.select(whole.opacities > 0)
        order = torch.cat([(~changed).nonzero()[:, 0], changed.nonzero()[:, 0]])
        expected = whole.select(order[whole.opacities[order] > 0])
        found = scene.moment(index)
        assert len(found) == len(there)
        for name in NAMES:
            assert torch.allclose(getattr(found, name), getattr(expected, name), atol=1e-6), name


def psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    return float(-10 * (one - other).square().mean().log10())


@pytest.mark.parametrize("change", ["noise", "growing", "turning", "shrinking one axis"])
def test_a_separated_scene_looks_like_the_series(change):
    series = series_of(4, 200)
    steps = torch.linspace(0, 1, 4)[:, None]
    if change == "noise":  # a small network's times change everything a little
        series = series.map(lambda tensor: tensor * (1 + 0.003 * torch.randn(tensor.shape)))
        assert still(series).float().mean() > 0.8
    elif change == "growing":
        series.scales[:] *= (1 + 2 * steps)[..., None]
    elif change == "turning":
        series.scales[..., 0] *= 6
        quarter = steps * torch.pi / 4
        series.quaternions[:] = torch.stack([quarter.cos(), 0 * steps, 0 * steps, quarter.sin()], dim=-1)
    else:
        series.scales[..., 1] *= 1 - 0.9 * steps
    scene = separate(series, torch.linspace(0, 1, 4), 1.0)
    for index, whole in enumerate(moments_of(series)):
        given = render(whole, camera(64)).color
        assert given.std() > 0.1
        assert psnr(render(scene.moment(index), camera(64)).color, given) >= 35


def test_opposite_quaternions_are_one_rotation():
    series = series_of()
    series.quaternions[1::2] *= -1
    scene = separate(series, torch.linspace(0, 1, 4), 1.0)
    assert len(scene.static) == 30
    assert torch.allclose(scene.static.quaternions, series.quaternions[0], atol=1e-6)


# Joining parts


def test_joined_parts_share_the_moment_between_them():
    static = random_gaussians(20, 0)
    first, second = (
        DynamicGaussians(static, tuple(random_gaussians(5, 10 * part + at) for at in range(3)), torch.linspace(0, 1, 3))
        for part in range(2)
    )
    whole = join([first, second], 3.0)
    assert torch.allclose(whole.times, torch.linspace(0, 1, 5)) and whole.seconds == 3.0
    expected = [*first.moments, *second.moments[1:]]
    for index, moment in enumerate(expected):
        assert same(whole.moment(index), merge([static, moment]))
    alone = join([first], 1.0)
    assert all(same(alone.moment(index), first.moment(index)) for index in range(3))


def test_what_only_a_later_part_shows_is_there_during_that_part():
    times = torch.linspace(0, 1, 3)
    here, there = random_gaussians(50, 0), random_gaussians(50, 1, x=3.0)
    nothing = random_gaussians(0, 2)
    first = DynamicGaussians(here, (nothing,) * 3, times)
    # The second shows the first's place again, a little displaced, and another one beside it.
    again = Gaussians(here.means + 1e-3, here.scales, here.quaternions, here.opacities, here.colors)
    second = DynamicGaussians(merge([again, there]), (nothing,) * 3, times)
    whole = join([first, second], 2.0)
    for index in range(5):
        means = whole.moment(index).means
        beside = means[means[:, 0] > 1.5]
        assert len(beside) == (50 if index > 2 else 0)
        # Nothing is there twice.
        assert len(means) - len(beside) == 50


# The scene around it


def test_a_dynamic_scenes_folder_comes_back_as_it_was(tmp_path: Path):
    scene = Scene.of_moments(moving_scene(), camera(), {"seed": 3})
    assert same(scene.gaussians, moving_scene().moment(0))
    scene.save(tmp_path)
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    frames = {f"frames/{index:04d}.ply" for index in range(4)}
    assert names == {"scene.ply", "scene.json", "dynamic.safetensors", *frames}
    back = Scene.load(tmp_path)
    assert back.dynamic is not None and scene.dynamic is not None
    assert back.provenance == {"seed": 3}
    assert torch.equal(back.input_camera.intrinsics, scene.input_camera.intrinsics)
    assert back.dynamic.seconds == 2.0 and torch.equal(back.dynamic.times, scene.dynamic.times)
    for index in range(4):
        assert same(back.dynamic.moment(index), scene.dynamic.moment(index))
        ply = load_ply(tmp_path / f"frames/{index:04d}.ply")
        assert torch.equal(ply.means, scene.dynamic.moment(index).means)
    assert torch.equal(load_ply(tmp_path / "scene.ply").means, scene.gaussians.means)


def test_a_still_scenes_folder_holds_no_moments(tmp_path: Path):
    still_scene().save(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"scene.ply", "scene.json"}
    assert Scene.load(tmp_path).dynamic is None


def test_a_scene_at_a_time_is_a_still_one():
    scene = Scene.of_moments(moving_scene(), camera(), {"seed": 3})
    at = scene.at(1.0)
    assert at.dynamic is None and same(at.gaussians, moving_scene().moment(3)) and at.provenance == {"seed": 3}
    with pytest.raises(LyraError, match="outside"):
        scene.at(2.0)
    assert same(still_scene().at(0.3).gaussians, still_scene().gaussians)


def test_a_part_of_a_scenes_time_and_of_its_space():
    scene = Scene.of_moments(moving_scene(), camera())
    later = scene.between(0.4, 1.0)
    assert later.dynamic is not None and len(later.dynamic) == 2
    assert same(later.gaussians, moving_scene().moment(2))
    low, high = (-0.3, -0.3, 1.5), (0.3, 0.3, 2.5)
    cropped = scene.crop(low, high)
    assert cropped.dynamic is not None and same(cropped.gaussians, cropped.dynamic.moment(0))
    assert len(cropped.gaussians) < len(scene.gaussians)
    with pytest.raises(LyraError, match="is still"):
        still_scene().between(0.0, 1.0)
    assert len(still_scene().crop((-9.0, -9.0, -9.0), (9.0, 9.0, 9.0)).gaussians) == 10
