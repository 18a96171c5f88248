"""Gaussians at many moments: which belong to a moment, and what decoding many moments must keep to.

The scene is a wall and, nearer, a square that passes in front of it; the camera stands still.
"""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

import lyra.student.moments
from lyra.files.clips import Clip
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.dynamic import DynamicGaussians, separate
from lyra.geometry.gaussians import Gaussians, merge
from lyra.geometry.trajectories import trajectory_cameras
from lyra.models.smoke import build_smoke_model
from lyra.rendering import render
from lyra.student.decoder import BaseSurface, GaussianDecoder, StudentInputs
from lyra.student.inputs import frame_times, prepare_student_inputs, splat_stride
from lyra.student.moments import (
    Source,
    aim,
    at_every_frame,
    decode_moments,
    show_at,
    shrink_source,
    with_times,
)
from lyra.student.surface import is_hidden
from lyra.views.views import Motion, Views

SIDE, FRAMES, KEY = 32, 5, 4
NEAR, FAR = 1.0, 2.0
NAMES = ("means", "scales", "quaternions", "opacities", "colors")


def square(frame: int) -> Tensor:
    """Where the square is."""
    where = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    where[10:20, 2 + 5 * frame : 9 + 5 * frame] = True
    return where


def cameras(frames: int = FRAMES) -> Cameras:
    return Cameras(
        torch.eye(4).repeat(frames, 1, 1), intrinsics_from_fov(55.0, SIDE, SIDE).repeat(frames, 1), SIDE, SIDE
    )


def make_views() -> Views:
    moving = torch.stack([square(frame) for frame in range(FRAMES)])
    wall = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0)) * 0.6
    images = torch.where(moving[:, None], torch.tensor([0.9, 0.8, 0.1])[:, None, None], wall)
    depth = torch.where(moving, NEAR, FAR)
    behind = torch.full((SIDE, SIDE), FAR)
    return Views(images, depth, cameras(), Motion(moving, ~moving.any(0), wall, behind, 0.5))


def make_source() -> Source:
    views = make_views()
    return Source(views.depth, views.moves().moving, views.moves().still, views.cameras)


@pytest.fixture(scope="module")
def smoke():
    return build_smoke_model()


def make_inputs(smoke, decoder: GaussianDecoder) -> StudentInputs:
    """The input video and two trajectories, whose clips are noise."""
    views, generator = make_views(), torch.Generator().manual_seed(1)
    with torch.no_grad():
        first = smoke.tokenizer.encode((views.images * 2 - 1).movedim(0, 1)[None])
    clips = [Clip(smoke.tokenizer.normalize(first)[0], views.cameras)]
    for name in ("left", "up"):
        path = trajectory_cameras(name, 0.3, FRAMES, views.cameras.intrinsics[0], SIDE, SIDE)
        clips.append(Clip(0.5 * torch.randn(clips[0].latents.shape, generator=generator), path))
    return prepare_student_inputs(clips, smoke.tokenizer, decoder.config, views.cache(None))


@pytest.fixture(scope="module")
def decoder(smoke) -> GaussianDecoder:
    return at_every_frame(smoke.decoder, smoke.tokenizer.spec.temporal)


@pytest.fixture(scope="module")
def inputs(smoke, decoder: GaussianDecoder) -> StudentInputs:
    return make_inputs(smoke, decoder)


@pytest.fixture(scope="module")
def source(smoke, decoder: GaussianDecoder) -> Source:
    return shrink_source(make_source(), splat_stride(smoke.tokenizer.spec, decoder.config))


@pytest.fixture(scope="module")
def shown(inputs: StudentInputs, source: Source) -> Tensor:
    return show_at(inputs, source, range(FRAMES), KEY)


def base_of(inputs: StudentInputs) -> BaseSurface:
    assert inputs.base is not None
    return inputs.base


# What is hidden


def is_hidden_at(points: Tensor, source: Source, frame: int) -> Tensor:
    return is_hidden(points, source.depth[frame], source.cameras[frame : frame + 1])


def point_at(column: float, row: float, depth: float) -> Tensor:
    """A point that the camera sees at a pixel."""
    fx, fy, cx, cy = intrinsics_from_fov(55.0, SIDE, SIDE).tolist()
    return torch.tensor([[(column - cx) / fx * depth, (row - cy) / fy * depth, depth]])


@pytest.mark.parametrize(
    ("column", "row", "depth", "hidden"),
    [
        (25.5, 26.5, FAR, False),  # on the wall
        (25.5, 26.5, 0.7 * FAR, False),  # in front of it
        (25.5, 26.5, 1.5 * FAR, True),  # behind it
        (5.5, 14.5, FAR, True),  # on the wall, behind the square
        (5.5, 14.5, NEAR, False),  # on the square
        (5.5, 14.5, 1.5 * NEAR, True),  # between both
        (5.5, 14.5, 0.5 * NEAR, False),  # in front of the square
        (-0.5, 14.5, NEAR, True),  # out of view on each side
        (SIDE + 0.5, 14.5, NEAR, True),
        (14.5, -0.5, NEAR, True),
        (14.5, SIDE + 0.5, NEAR, True),
        (14.5, 14.5, -1.0, True),  # behind the camera
    ],
)
def test_a_point_is_hidden_where_the_input_does_not_see_it(column, row, depth, hidden):
    assert is_hidden_at(point_at(column, row, depth), make_source(), 0).tolist() == [hidden]


def test_what_is_hidden_follows_the_square():
    for frame in range(FRAMES):
        for at in range(FRAMES):
            behind = point_at(5.5 + 5 * at, 14.5, FAR)
            assert bool(is_hidden_at(behind, make_source(), frame)) == (frame == at)


def test_sky_is_hidden_by_everything_but_sky():
    source = make_source()
    sky = replace(source, depth=torch.full_like(source.depth, 100.0))
    sky.depth[:, :, :10] = FAR
    for column, hidden in ((5.5, True), (9.5, True), (10.5, False), (20.5, False)):
        assert bool(is_hidden_at(point_at(column, 14.5, 99.0), sky, 0)) == hidden


def test_hiding_goes_by_the_frames_own_camera():
    source = make_source()
    poses = source.cameras.camera_to_world.clone()
    poses[1, 0, 3] = 50.0
    away = replace(source, cameras=replace(source.cameras, camera_to_world=poses))
    on_the_wall = point_at(25.5, 26.5, FAR)
    assert [bool(is_hidden_at(on_the_wall, away, frame)) for frame in range(3)] == [False, True, False]


# Which belong to a moment


def test_what_stays_is_shown_at_every_moment_from_the_first_picture(shown: Tensor, source: Source):
    still = source.still
    assert 0.2 < still.float().mean() < 0.9
    assert bool((shown[:, 0, 0][:, still] == 1).all())
    # Once: the later pictures of the same place add nothing.
    assert bool((shown[:, 0, 1:][:, :, still] == 0).all())


def test_what_moves_is_shown_at_its_own_moment_only(shown: Tensor, source: Source):
    for target in range(FRAMES):
        for frame in range(FRAMES):
            there = shown[target, 0, frame][source.moving[frame]]
            assert bool((there == (1 if frame == target else 0)).all()), (target, frame)


def test_a_moments_own_picture_is_whole(shown: Tensor, source: Source):
    """What is not shown of it is shown by the first picture."""
    for target in range(FRAMES):
        own, first = shown[target, 0, target], shown[target, 0, 0]
        assert bool(((own == 1) | ((first == 1) & source.still)).all())


def test_trajectories_add_what_the_input_does_not_show(shown: Tensor, inputs: StudentInputs):
    covered = base_of(inputs).covered[0]
    for target in range(FRAMES):
        own = shown[target, 1:, target]
        assert torch.allclose(own, 1 - covered[1:, target])
        # At other moments: only what was added there, from every fourth frame, and only where it is hidden.
        others = shown[target, 1:].clone()
        others[:, target] = 0
        assert bool((others <= 1 - covered[1:] + 1e-6).all())
        assert bool((others[:, [frame for frame in range(FRAMES) if frame % KEY]] == 0).all())


def test_what_lasts_is_hidden_from_the_input_at_that_moment(shown: Tensor, inputs: StudentInputs, source: Source):
    base = base_of(inputs)
    points = inputs.ray_origins[0] + base.distance[0][..., None] * inputs.ray_directions[0]
    lasting = 0
    for target in range(FRAMES):
        others = shown[target].clone()
        others[:, target] = 0
        others[0, 0][source.still] = 0
        for view, frame, row, column in (others > 0).nonzero().tolist():
            assert is_hidden_at(points[view, frame, row, column][None], source, target).item()
            lasting += 1
    assert lasting > 20


def test_with_a_moving_camera_every_frame_is_shown_whole_at_its_own_moment(inputs: StudentInputs, source: Source):
    moving = replace(source, moving=torch.ones_like(source.moving), still=torch.zeros_like(source.still))
    shown = show_at(inputs, moving, range(FRAMES), KEY)
    for target in range(FRAMES):
        assert bool((shown[target, 0, target] == 1).all())


def test_targets_are_the_same_alone_and_among_others(inputs: StudentInputs, source: Source, shown: Tensor):
    for target in range(FRAMES):
        assert torch.equal(show_at(inputs, source, [target], KEY)[0], shown[target])


def test_the_source_is_shrunk_without_losing_what_moves():
    source = make_source()
    small = shrink_source(source, 4)
    assert small.depth.shape == (FRAMES, 8, 8) and (small.cameras.height, small.cameras.width) == (8, 8)
    for row in range(8):
        for column in range(8):
            block = (..., slice(4 * row, 4 * row + 4), slice(4 * column, 4 * column + 4))
            assert torch.equal(small.moving[:, row, column], source.moving[block].flatten(1).any(1))
            assert bool(small.still[row, column]) == bool(source.still[block].all())
            assert source.depth[block].min() - 1e-5 <= small.depth[:, row, column].min()
            assert small.depth[:, row, column].max() <= source.depth[block].max() + 1e-5
    assert shrink_source(source, 1) is source


# Decoding


def series_of(smoke, decoder, inputs, source, monkeypatch: pytest.MonkeyPatch, batch: int = 2) -> Gaussians:
    """The Gaussians at every moment, pruned but not yet separated."""
    found: list[Gaussians] = []

    def catch(series: Gaussians, times: Tensor, seconds: float) -> DynamicGaussians:
        found.append(series)
        return separate(series, times, seconds)

    with monkeypatch.context() as patch:
        patch.setattr(lyra.student.moments, "separate", catch)
        decode_moments(decoder, inputs, source, smoke.tokenizer, 0.5, batch)
    return found[0]


def assert_close(one: Gaussians, other: Gaussians) -> None:
    for name in NAMES:
        torch.testing.assert_close(getattr(one, name), getattr(other, name), atol=1e-5, rtol=1e-4)


def test_times_in_batches_are_the_times_one_by_one(smoke, decoder, inputs, source, monkeypatch):
    alone = series_of(smoke, decoder, inputs, source, monkeypatch, batch=1)
    assert alone.means.shape[0] == FRAMES
    for batch in (2, 5):
        assert_close(series_of(smoke, decoder, inputs, source, monkeypatch, batch), alone)


def test_a_series_is_what_the_decoder_says_of_those_places(smoke, decoder, inputs, source, shown, monkeypatch):
    """Against the decoder's own whole answer at each moment, which knows nothing of candidates."""
    whole = replace(decoder.config, keep=1.0)
    every = at_every_frame(decoder, 1)
    every.config = whole
    series = series_of(smoke, every, inputs, source, monkeypatch)
    for target in range(FRAMES):
        with torch.no_grad():
            answer = decoder(aim(inputs, [target], shown[target : target + 1], smoke.tokenizer))
        there = answer.opacities[0] > 0.02
        found = series.opacities[target] > 0.02
        assert_close(
            series.map(lambda tensor, target=target, found=found: tensor[target][found]),
            answer.map(lambda tensor, there=there: tensor[0][there]),
        )


def test_pruning_is_pooled_over_time(smoke, decoder, inputs, source, monkeypatch):
    every, few = (at_every_frame(decoder, 1) for _ in range(2))
    every.config, few.config = (replace(decoder.config, keep=keep) for keep in (1.0, 0.05))
    unpruned = series_of(smoke, every, inputs, source, monkeypatch)
    pruned = series_of(smoke, few, inputs, source, monkeypatch)
    cells = base_of(inputs).distance[0].numel()
    assert len(pruned) == round(0.05 * cells) < len(unpruned)
    # The same places at all times, chosen by their strongest moment.
    strongest = unpruned.opacities.amax(0)
    threshold = strongest.sort(descending=True).values[len(pruned) - 1]
    assert pruned.opacities.amax(0).min() >= threshold - 1e-6
    kept = {tuple(point) for point in pruned.means[0].tolist()}
    for target in range(FRAMES):
        match = [tuple(point) in kept for point in unpruned.means[0].tolist()]
        rows = {tuple(point) for point in unpruned.means[target][torch.tensor(match)].tolist()}
        assert rows == {tuple(point) for point in pruned.means[target].tolist()}


def psnr(one: Tensor, other: Tensor) -> float:
    return float(-10 * (one - other).square().mean().log10())


def test_still_ones_are_stored_once_and_look_as_before(smoke, decoder, inputs, source, monkeypatch):
    series = series_of(smoke, decoder, inputs, source, monkeypatch)
    dynamic = decode_moments(decoder, inputs, source, smoke.tokenizer, 0.5)
    assert torch.equal(dynamic.times, frame_times(FRAMES)) and dynamic.seconds == 0.5
    side_view = trajectory_cameras("left", 0.2, FRAMES, cameras().intrinsics[0], SIDE, SIDE)
    for target in range(FRAMES):
        whole = series.map(lambda tensor, target=target: tensor[target])
        stored = merge([dynamic.static, dynamic.moments[target]])
        for view in (cameras(1), side_view[target : target + 1]):
            given = render(whole, view).color
            assert given.std() > 0.05
            assert psnr(render(stored, view).color, given) >= 35
    shown_at_once = (series.opacities[0] > 2 / 255).sum()
    assert len(dynamic.static) > 0.3 * shown_at_once
    stored_in_all = len(dynamic.static) + sum(len(moment) for moment in dynamic.moments)
    assert stored_in_all < 0.8 * FRAMES * shown_at_once


# Times


def test_times_that_say_nothing_change_nothing(smoke, decoder, inputs, source, monkeypatch):
    plain = GaussianDecoder(replace(decoder.config, time_conditioning=False)).eval()
    missing, unexpected = plain.load_state_dict(decoder.state_dict(), strict=False)
    assert not missing and all("time" in name for name in unexpected)
    timed = with_times(plain)
    assert timed.config.time_conditioning
    assert_close(
        series_of(smoke, timed, inputs, source, monkeypatch), series_of(smoke, plain, inputs, source, monkeypatch)
    )


def with_loud_times(decoder: GaussianDecoder) -> GaussianDecoder:
    timed = GaussianDecoder(decoder.config).eval()
    timed.load_state_dict(decoder.state_dict())
    with torch.no_grad():
        generator = torch.Generator().manual_seed(2)
        for embed in (timed.source_time_embed, timed.target_time_embed):
            embed.proj.weight.copy_(torch.randn(embed.proj.weight.shape, generator=generator))
            embed.norm.weight.fill_(3)
    return timed


def test_a_decoder_that_has_learned_times_answers_each_target_in_its_own_way(
    smoke, decoder, inputs, source, shown, monkeypatch
):
    timed = with_loud_times(decoder)
    candidates = torch.arange(200)
    # Nothing but the target differs.
    same = shown[:1].expand(FRAMES, *shown.shape[1:])
    answer = timed.at_cells(aim(inputs, range(FRAMES), same, smoke.tokenizer), candidates)
    for target in range(1, FRAMES):
        assert (answer.colors[target] - answer.colors[0]).abs().max() > 1e-3
    alone = timed.at_cells(aim(inputs, [3], same[:1], smoke.tokenizer), candidates)
    assert_close(alone.map(lambda tensor: tensor[0]), answer.map(lambda tensor: tensor[3]))
    one_by_one = series_of(smoke, timed, inputs, source, monkeypatch, batch=1)
    assert_close(series_of(smoke, timed, inputs, source, monkeypatch, batch=3), one_by_one)


def test_a_decoder_without_a_base_surface_is_not_aimed(smoke, inputs, shown):
    with pytest.raises(ValueError, match="cache geometry"):
        aim(replace(inputs, base=None), [0], shown[:1], smoke.tokenizer)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA GPU")
def test_a_decoder_on_a_gpu_makes_the_same_moments(smoke, inputs: StudentInputs, source: Source):
    alone = at_every_frame(build_smoke_model().decoder, smoke.tokenizer.spec.temporal)
    expected = decode_moments(alone, inputs, source, smoke.tokenizer, 0.5)
    found = decode_moments(alone.to("cuda"), inputs, source, smoke.tokenizer, 0.5)
    assert found.static.means.device.type == "cpu"
    assert torch.allclose(found.moment(3).means.mean(0), expected.moment(3).means.mean(0), atol=1e-3)


def test_only_what_the_decoder_reads_goes_to_its_device(smoke, decoder, inputs, source, monkeypatch):
    """Which Gaussians belong to a moment is found on the CPU, wherever the decoder is; each pass is moved to it."""
    moved, to = [], StudentInputs.to
    monkeypatch.setattr(StudentInputs, "to", lambda self, device: moved.append((str(device), self)) or to(self, device))
    decode_moments(decoder, inputs, source, smoke.tokenizer, 0.5, batch=2)
    assert len(moved) == -(-FRAMES // 2)
    assert all(device == "cpu" and given.times is not None and given.base.shown is not None for device, given in moved)
