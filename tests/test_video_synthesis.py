"""Clips of videos forward and backward, and the student's training on moments."""

from dataclasses import replace

import pytest
import torch

from lyra.engine.engine import Engine
from lyra.engine.paths import preset_paths
from lyra.geometry.dynamic import DynamicGaussians
from lyra.geometry.trajectories import TRAJECTORY_NAMES
from lyra.models.model import Model
from lyra.models.recipe import SMOKE
from lyra.student import GaussianDecoder
from lyra.student.moments import with_times
from lyra.synthesis.imagined import SyntheticScene
from lyra.synthesis.samples import Sample
from lyra.synthesis.streaming import DataSet
from lyra.tokenizer.tokenizer import encode_frames
from lyra.training.loop import LoopConfig
from lyra.training.moving_student import MomentObjective, MovingSet, moment_loss
from lyra.training.parts import Workspace, synthesize_clips, synthesize_moving, train_moments, train_tokenizer
from lyra.training.report import print_report
from lyra.training.still_student import DecoderObjective

PLAIN = MomentObjective(targets=2, sizes=(1,))


def engine_of(model: Model) -> Engine:
    return Engine(model, "cpu")


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    made = Workspace(
        tmp_path_factory.mktemp("workspace"), SMOKE, worlds=1, scenes=1, views=1, moving_views=1, close_ups=1, videos=1
    )
    train_tokenizer(made)
    synthesize_clips(made)
    synthesize_moving(made)
    return made


@pytest.fixture(scope="module")
def model(workspace: Workspace) -> Model:
    return workspace.load_model()


@pytest.fixture(scope="module")
def sample(workspace: Workspace) -> Sample:
    return DataSet(workspace.folder / "videos")[0]


@pytest.fixture(scope="module")
def scene(sample: Sample) -> SyntheticScene:
    return sample.scene


def test_a_scene_has_the_input_and_six_clips_each_way(scene: SyntheticScene):
    assert (len(scene.clips), len(scene.backward)) == (7, 6)
    torch.testing.assert_close(scene.clips[0].cameras.camera_to_world, torch.eye(4).expand(5, 4, 4))


def test_the_video_s_own_clip_shows_the_video(sample: Sample, scene: SyntheticScene, model: Model):
    assert list(sample.clips) == ["input", *TRAJECTORY_NAMES, *(f"{name}.backward" for name in TRAJECTORY_NAMES)]
    assert len(set(sample.clips.values())) == 13 and sample.moving
    again = encode_frames(model.tokenizer, scene.views.images)
    # Both pictures and latents were rounded.
    torch.testing.assert_close(scene.clips[0].latents, again, atol=0.02, rtol=0.01)


def test_every_clip_has_depth_that_begins_as_its_input(scene: SyntheticScene):
    assert [len(depth) for depth in (*scene.depth, *scene.backward_depth)] == [5] * 13
    for depth in scene.depth:
        assert torch.equal(depth[0], scene.views.depth[0])
    for depth in scene.backward_depth:
        assert torch.equal(depth[0], scene.views.depth[-1])


def test_a_video_reversed_twice_is_itself(scene: SyntheticScene):
    views = scene.views
    back = views.reversed()
    torch.testing.assert_close(back.images[0], views.images[-1])
    torch.testing.assert_close(back.depth[0], views.depth[-1])
    torch.testing.assert_close(back.reversed().images, views.images)


def test_backward_clips_begin_at_the_video_s_last_frame(scene: SyntheticScene, model: Model):
    data = MovingSet([scene], engine_of(model))
    # Turned forward again they are at the input camera when the video ends, and far from it when it begins.
    _, early = data.seen(0, 0, backward=True)
    _, late = data.seen(0, 4, backward=True)
    distance = [cameras.centers.norm(dim=-1) for cameras in (early, late)]
    assert distance[0][:6].max() == 0
    assert distance[1][6:].max() == 0
    assert distance[0][6:].median() > 0.05
    assert distance[1][:6].median() > 0.05
    # And they show its last frame there: the first latent frame is the given one.
    frames, _ = data.seen(0, 4, backward=True)
    error = (frames[6:] - scene.views.images[-1]).square().mean((1, 2, 3))
    assert float(error.max()) < 5e-3


def test_times_change_nothing_before_training_and_something_after(workspace: Workspace, scene: SyntheticScene):
    model = workspace.load_model()
    still = replace(model.decoder.config, time_conditioning=False)
    twin = type(model.decoder)(still)
    twin.load_state_dict({k: v for k, v in model.decoder.state_dict().items() if "time_embed" not in k})
    extended = with_times(twin)
    data = MovingSet([scene], engine_of(replace(model, decoder=extended)))
    loss, details = moment_loss(data.decoder, data, PLAIN, step=0)
    again, _ = moment_loss(data.decoder, data, PLAIN, step=0)
    assert loss.item() == again.item()
    assert {"psnr", "input_psnr", "depth"} <= details.keys()
    loss.backward()
    gradient = extended.target_time_embed.proj.weight.grad
    assert gradient is not None
    assert float(gradient.abs().max()) > 0


def test_a_student_of_fewer_gaussians_than_pixels_learns_and_is_measured(scene: SyntheticScene, model: Model):
    coarse = replace(model, decoder=GaussianDecoder(replace(model.decoder.config, splats_per_token=4)).eval())
    data = MovingSet([scene], engine_of(coarse))
    assert data.source(0).depth.shape == (5, 16, 16)
    loss, _ = moment_loss(data.decoder, data, PLAIN, step=0)
    assert bool(loss.isfinite())
    engine, size = engine_of(coarse), scene.views.images.shape[2:]
    paths = preset_paths(0, len(scene.views), *size)
    dynamic = engine.decode(engine.imagine(scene.views, paths), scene.views)
    assert isinstance(dynamic, DynamicGaussians)
    assert len(dynamic) == 5
    assert 0 < len(dynamic.moment(0)) <= 7 * 5 * 16 * 16


def test_the_augmentation_changes_what_is_compared(scene: SyntheticScene, model: Model):
    data = MovingSet([scene], engine_of(model))
    with_backward, _ = data.seen(0, 2, backward=True)
    without, _ = data.seen(0, 2, backward=False)
    assert (len(with_backward), len(without)) == (12, 6)
    torch.testing.assert_close(with_backward[:6], without)


def test_training_goes_on_from_the_still_student_and_is_reported(workspace: Workspace, capsys):
    before = workspace.load_model().decoder.state_dict()
    loop = LoopConfig(learning_rate=1e-3, steps=4, warmup=1)
    train_moments(workspace, loop, PLAIN, DecoderObjective(views=(2,), targets=2, sizes=(1,)))
    after = workspace.load_model().decoder.state_dict()
    assert any(not torch.equal(before[name], after[name]) for name in before)
    # Steps of moments and of still scenes log different numbers.
    print_report(workspace.folder / "moments", 2)
    shown = capsys.readouterr().out
    assert "input_psnr" in shown
    assert "alpha" in shown
