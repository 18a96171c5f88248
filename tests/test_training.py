"""The training loop resumes exactly; every part trains in a workspace that never sees a test seed."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import overfit
import pytest
import torch
from torch import Tensor, nn

import lyra.training.depth
import lyra.training.world_clips
import lyra.worlds.input_views
from lyra.engine.engine import Engine
from lyra.errors import LyraError
from lyra.evaluation.run_page import write_run_page
from lyra.evaluation.still_worlds import FIRST_HELD_OUT_SEED
from lyra.files.photos import Photo
from lyra.geometry.sky import is_sky
from lyra.geometry.trajectories import TRAJECTORY_NAMES, noise_generator
from lyra.models.recipe import SMOKE
from lyra.synthesis.imagined import imagine_scene
from lyra.synthesis.streaming import DataSet
from lyra.training import moving_student, still_student
from lyra.training.denoiser import DenoiserObjective
from lyra.training.depth import DepthObjective
from lyra.training.kept import keep_some
from lyra.training.loop import LOG, LoopConfig, Run, fit
from lyra.training.parts import (
    Workspace,
    synthesize_clips,
    train_decoder,
    train_denoiser,
    train_depth,
    train_tokenizer,
)
from lyra.training.report import find_parts, print_report
from lyra.training.run_checkpoints import digest_state, find_checkpoint, load_checkpoint
from lyra.training.still_student import DecoderObjective
from lyra.training.world_clips import FIRST_IMAGE_SEED
from lyra.worlds.input_views import FIRST_TRAINING_SEED, render_input_view

LOOP = LoopConfig(steps=6, learning_rate=1e-2, warmup=4, ema=0.9, checkpoint_every=1000, sample_every=1000)


def make_network(width: int = 8) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return nn.Sequential(nn.Linear(4, width), nn.GELU(), nn.Linear(width, 1))


def make_loss(network: nn.Module, stop_at: int | None = None) -> Callable[[int], tuple[Tensor, dict[str, float]]]:
    """Regression on data that the step's number draws; a kill in the middle if asked for."""

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        if step == stop_at:
            raise KeyboardInterrupt
        x = torch.randn(16, 4, generator=noise_generator(0, f"test/{step}"))
        value = (network(x) - x.sum(-1, keepdim=True).tanh()).square().mean()
        return value, {"double": 2 * value.item()}

    return loss


def train(folder: Path, config: LoopConfig = LOOP, stop_at: int | None = None) -> nn.Module:
    """What a fresh process would do."""
    network = make_network()
    fit(network, make_loss(network, stop_at), folder, config)
    return network


def log_of(folder: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (folder / LOG).read_text().splitlines()]
    for row in rows:
        del row["seconds"]
    return rows


def checkpoint_of(folder: Path) -> dict[str, Tensor]:
    stored = find_checkpoint(folder)
    assert stored is not None
    return load_checkpoint(stored)


def assert_same_run(first: Path, second: Path) -> None:
    assert log_of(first) == log_of(second)
    ours, theirs = (checkpoint_of(folder) for folder in (first, second))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert torch.equal(value, theirs[name]), name


def assert_same_weights(first: nn.Module, second: nn.Module) -> None:
    for name, value in first.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name


def test_a_run_in_two_legs_is_the_run_in_one(tmp_path: Path):
    whole = train(tmp_path / "whole")
    train(tmp_path / "legs", replace(LOOP, steps=3))
    assert len(log_of(tmp_path / "legs")) == 3
    resumed = train(tmp_path / "legs")
    assert [row["step"] for row in log_of(tmp_path / "legs")] == list(range(6))
    assert_same_run(tmp_path / "whole", tmp_path / "legs")
    assert_same_weights(whole, resumed)


def test_the_rate_rises_stays_and_falls(tmp_path: Path):
    network = make_network()
    config = replace(LOOP, steps=10, warmup=2, cooldown=4)
    run, loss, rates = Run(network, tmp_path, config), make_loss(network), []
    for step in range(10):
        run.advance(loss(step)[0])
        rates.append(run.optimizer.param_groups[0]["lr"] / config.learning_rate)
    assert rates == pytest.approx([0.5, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


@pytest.mark.parametrize("stop_at", [1, 2, 5])
def test_a_killed_run_goes_on_from_its_last_checkpoint_as_if_it_had_not_been(tmp_path: Path, stop_at: int):
    config = replace(LOOP, checkpoint_every=2)
    whole = train(tmp_path / "whole", config)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "killed", config, stop_at)
    if stop_at == 1:
        # Without a checkpoint the run begins anew, and so does its log.
        (tmp_path / "killed" / LOG).unlink()
    resumed = train(tmp_path / "killed", config)
    assert_same_run(tmp_path / "whole", tmp_path / "killed")
    assert_same_weights(whole, resumed)


def test_a_run_killed_before_its_first_checkpoint_logs_no_step_twice(tmp_path: Path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop_at=1)
    train(tmp_path)
    assert [row["step"] for row in log_of(tmp_path)] == list(range(6))


def test_a_log_line_cut_by_the_kill_does_not_stop_the_resume(tmp_path: Path):
    train(tmp_path, replace(LOOP, steps=3))
    with (tmp_path / LOG).open("a") as log:
        log.write('{"step": 3, "lo')
    train(tmp_path)
    assert [row["step"] for row in log_of(tmp_path)] == list(range(6))


def test_training_learns_and_leaves_the_average_in_evaluation_mode(tmp_path: Path):
    network = train(tmp_path, replace(LOOP, steps=60))
    losses = [row["loss"] for row in log_of(tmp_path)]
    assert sum(losses[-10:]) < 0.7 * sum(losses[:10])
    assert not network.training
    tensors = checkpoint_of(tmp_path)
    for name, parameter in network.named_parameters():
        assert torch.equal(parameter, tensors[f"ema/{name}"])
        assert not torch.equal(parameter, tensors[f"model/{name}"])


def test_the_average_is_the_weighted_mean_of_all_weights(tmp_path: Path):
    history = []
    network = make_network()
    inner = make_loss(network)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        history.append(network[0].weight.detach().double().clone())  # pyright: ignore[reportIndexIssue, reportArgumentType]
        return inner(step)

    fit(network, loss, tmp_path, LOOP)
    history.append(checkpoint_of(tmp_path)["model/0.weight"].double())
    average = history[0]
    for step, weight in enumerate(history[1:], start=1):
        decay = min(0.9, step / (step + 10))
        average = decay * average + (1 - decay) * weight
    assert torch.allclose(network.state_dict()["0.weight"].double(), average, atol=1e-6)


def test_no_minutes_stop_cleanly_with_a_checkpoint(tmp_path: Path):
    network = train(tmp_path, replace(LOOP, minutes=0.0))
    assert log_of(tmp_path) == []
    assert int(checkpoint_of(tmp_path)["step"]) == 0
    assert_same_weights(network, make_network())
    # And the run can go on from there.
    assert_same_weights(train(tmp_path), train(tmp_path.parent / f"{tmp_path.name}-whole"))


def test_a_finished_run_is_left_as_it_is(tmp_path: Path):
    network = train(tmp_path)
    before = digest_state(checkpoint_of(tmp_path))
    again = train(tmp_path)
    assert digest_state(checkpoint_of(tmp_path)) == before
    assert len(log_of(tmp_path)) == 6
    assert_same_weights(network, again)


def test_a_checkpoint_of_another_network_is_refused(tmp_path: Path):
    train(tmp_path)
    before = digest_state(checkpoint_of(tmp_path))
    other = nn.Linear(4, 1)
    with pytest.raises(LyraError, match="another network"):
        fit(other, make_loss(other), tmp_path, LOOP)
    assert digest_state(checkpoint_of(tmp_path)) == before


def test_a_checkpoint_of_another_width_is_refused(tmp_path: Path):
    train(tmp_path)
    wider = make_network(width=9)
    with pytest.raises(LyraError, match="another network"):
        fit(wider, make_loss(wider), tmp_path, LOOP)


def make_broken(network: nn.Module, broken: range):
    inner = make_loss(network)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        value, details = inner(step)
        return (value * float("nan") if step in broken else value), details

    return loss


def test_a_step_whose_gradient_is_not_finite_is_left_out(tmp_path: Path):
    network = make_network()
    fit(network, make_broken(network, range(2, 4)), tmp_path, replace(LOOP, checkpoint_every=1))
    assert len(log_of(tmp_path)) == LOOP.steps
    tensors = checkpoint_of(tmp_path)
    assert int(tensors["step"]) == LOOP.steps
    assert all(value.isfinite().all() for value in tensors.values())
    assert all(parameter.isfinite().all() for parameter in network.parameters())


def test_a_training_without_finite_gradients_stops(tmp_path: Path):
    network = make_network()
    endless = replace(LOOP, steps=100, checkpoint_every=1)
    with pytest.raises(RuntimeError, match="diverged"):
        fit(network, make_broken(network, range(2, 100)), tmp_path, endless)
    assert all(parameter.isfinite().all() for parameter in network.parameters())


def test_prepared_scenes_are_kept_as_far_as_memory_allows():
    made: list[int] = []

    def prepare(index: int) -> tuple[Tensor, list[Tensor]]:
        made.append(index)
        return torch.zeros(100), [torch.zeros(25)]  # 500 bytes

    get = keep_some(prepare, budget=1000)
    assert [len(get(index)[0]) for index in (0, 1, 0, 2, 0)] == [100] * 5
    assert made == [0, 1, 2]  # what was used longest ago went first
    get(1)
    assert made == [0, 1, 2, 1]
    small = keep_some(prepare, budget=1)
    assert small(7) is small(7)  # at least the last


@pytest.mark.parametrize("kind", [still_student, moving_student])
def test_sets_of_scenes_keep_no_more_than_the_budget(kind, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kind, "keep_some", partial(keep_some, budget=1))
    _, data = overfit.still_set() if kind is still_student else overfit.moving_set()
    fresh = type(data)([data.scenes[0]] * 2, data.engine)
    first = fresh.inputs(0)
    assert fresh.inputs(0) is first
    fresh.inputs(1)
    assert fresh.inputs(0) is not first


def test_samples_show_the_average_and_do_not_disturb_the_run(tmp_path: Path):
    train(tmp_path / "plain", replace(LOOP, sample_every=2))
    network, seen = make_network(), []

    def sample() -> Tensor:
        seen.append((network.training, torch.is_grad_enabled()))
        return torch.full((3, 4, 4), 0.5)

    fit(network, make_loss(network), tmp_path / "sampled", replace(LOOP, sample_every=2), sample)
    assert_same_run(tmp_path / "plain", tmp_path / "sampled")
    assert set(seen) == {(False, False)}
    names = {path.name for path in (tmp_path / "sampled" / "samples").iterdir()}
    assert names == {"0000002.png", "0000004.png", "0000006.png"}


def test_the_report_needs_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(LyraError, match="no log"):
        find_parts(tmp_path)
    train(tmp_path)
    assert find_parts(tmp_path) == [tmp_path]
    print_report(tmp_path, 3)
    assert "loss" in capsys.readouterr().out


def test_a_run_is_one_page_that_needs_nothing(tmp_path: Path):
    with pytest.raises(LyraError, match="no log"):
        write_run_page(tmp_path)
    network = make_network()
    fit(network, make_loss(network), tmp_path / "part", LOOP, lambda: torch.rand(3, 8, 16))
    seen = {"step": 6, "psnr": 12.5, "gaussians": 40.0, "opacity": 0.4, "opacities": [2] * 20}
    (tmp_path / "part/validation.jsonl").write_text(json.dumps(seen) + "\n")
    (tmp_path / "result.json").write_text(json.dumps({"rows": [{"method": "student", "psnr": 21.25}], "note": "dB"}))
    # A data set beside it has a log of its own, of samples and not of steps.
    (tmp_path / "data").mkdir()
    (tmp_path / "data/dataset.json").write_text("{}")
    (tmp_path / "data" / LOG).write_text('{"id": "a", "seconds": 1.0, "worker": "b"}\n')
    for folder in (tmp_path, tmp_path / "part"):
        page = write_run_page(folder).read_text()
        assert ("21.25" in page) == (folder == tmp_path)
        for title in ("Loss", "Norm of the gradient", "Steps a second", "Validation", "Pictures", "Summary"):
            assert title in page
        assert "12.5" in page and page.count("<svg") == 4 and "data:image/jpeg;base64," in page
        outside = [link for link in re.findall(r'(?:src|href)="([^"]+)"', page) if not link.startswith("data:")]
        assert outside == []


TWO = replace(LOOP, steps=2)


@pytest.fixture(scope="module")
def drawn_seeds() -> list[int]:
    """Seeds of all worlds that this module's trainings draw."""
    return []


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory, drawn_seeds: list[int]):
    """A workspace whose tokenizer is fitted and whose worlds are rendered."""
    workspace = Workspace(
        tmp_path_factory.mktemp("workspace"), SMOKE, worlds=2, scenes=2, views=2, moving_views=1, close_ups=1
    )
    original = lyra.training.world_clips.sample_world

    def recorded(seed: int):
        drawn_seeds.append(seed)
        return original(seed)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(lyra.training.world_clips, "sample_world", recorded)
        patch.setattr(lyra.training.depth, "sample_world", recorded)
        patch.setattr(lyra.worlds.input_views, "sample_world", recorded)
        train_tokenizer(workspace, worlds=2)
        yield workspace


@pytest.fixture(scope="module")
def clips(workspace: Workspace) -> Path:
    assert synthesize_clips(workspace).complete
    return workspace.folder / "clips"


def assert_trained(workspace: Workspace, part: str, before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
    rows = log_of(workspace.folder / part)
    assert [row["step"] for row in rows] == [0, 1]
    assert any(not torch.equal(before[name], after[name]) for name in before)
    assert list((workspace.folder / part / "samples").glob("*.png"))
    # What the folder holds is the average, in half precision.
    average = checkpoint_of(workspace.folder / part)
    for name, value in after.items():
        if f"ema/{name}" in average:
            assert torch.equal(value, average[f"ema/{name}"].half().float()), name


def test_the_fitted_tokenizer_halves_the_deviation_of_world_clips(workspace: Workspace):
    model = workspace.load_model()
    signals = torch.cat([clip.signal() for clip in workspace.world_clips()])
    latents = model.tokenizer.encode(signals)
    normalized = model.tokenizer.normalize(latents)
    assert normalized.std((0, 3, 4)).sub(0.5).abs().max() < 0.02
    assert normalized.mean((0, 3, 4)).abs().max() < 0.02
    assert (model.tokenizer.decode(latents) - signals).square().mean() < 0.2 * signals.var()


def test_the_depth_network_trains(workspace: Workspace):
    before = workspace.load_model().depth.state_dict()
    train_depth(workspace, TWO, DepthObjective(batch=2))
    assert_trained(workspace, "depth", before, workspace.load_model().depth.state_dict())


def test_the_denoiser_trains(workspace: Workspace):
    before = workspace.load_model().transformer.state_dict()
    train_denoiser(workspace, TWO, DenoiserObjective(batch=2))
    assert_trained(workspace, "denoiser", before, workspace.load_model().transformer.state_dict())


def test_the_denoiser_of_residuals_trains_and_samples(workspace: Workspace, tmp_path: Path):
    small = replace(workspace, folder=tmp_path, recipe=replace(SMOKE, residual=True))
    (tmp_path / "worlds").symlink_to(workspace.folder / "worlds")
    train_tokenizer(small, worlds=2)
    spread = small.load_model().config.teacher.spread
    assert spread is not None
    # The cache says more where it has points.
    assert sum(spread[0]) < sum(spread[1])
    before = small.load_model().transformer.state_dict()
    train_denoiser(small, TWO, DenoiserObjective(batch=2))
    model = small.load_model()
    assert_trained(small, "denoiser", before, model.transformer.state_dict())
    assert model.config.teacher.spread == spread
    image = render_input_view(FIRST_IMAGE_SEED, 32, 32).float() / 255
    engine = Engine(model, "cpu")
    clip = imagine_scene(engine, engine.views([Photo.of(image)], fov=55.0)[0], 0).clips[0]
    first = model.tokenizer.normalize(model.tokenizer.encode(image[None, :, None] * 2 - 1))[0, :, 0]
    assert clip.latents.isfinite().all()
    assert (clip.latents[:, 0] - first).abs().max() < 0.1


def test_the_decoder_trains(workspace: Workspace, clips: Path):
    before = workspace.load_model().decoder.state_dict()
    train_decoder(workspace, TWO, DecoderObjective(targets=2))
    assert_trained(workspace, "decoder", before, workspace.load_model().decoder.state_dict())


def test_the_decoder_needs_clips(tmp_path: Path):
    with pytest.raises(LyraError, match="run lyra synthesize first"):
        train_decoder(Workspace(tmp_path, SMOKE, worlds=1, scenes=1), TWO)


def test_synthetic_scenes_hold_six_clips_of_one_image(workspace: Workspace, clips: Path):
    samples = DataSet(clips)
    assert len(samples) == 2 and all(samples[index].split == "train" for index in range(2))
    images = {source.content: render_input_view(int(source.place), 32, 32) for source in workspace.images()}
    for sample in (samples[index] for index in range(2)):
        scene = sample.scene
        assert tuple(sample.clips) == TRAJECTORY_NAMES and len(scene.clips) == len(TRAJECTORY_NAMES)
        depth = scene.views.depth[0]
        assert torch.equal((scene.views.images[0] * 255).round().to(torch.uint8), images[sample.content])
        assert depth[~is_sky(depth)].median().item() == pytest.approx(1, abs=1e-3)
        for clip in scene.clips:
            assert torch.allclose(clip.cameras.camera_to_world[0], torch.eye(4), atol=1e-6)
            assert clip.latents.isfinite().all()


def test_test_seeds_never_enter_training(workspace: Workspace, clips: Path, drawn_seeds: list[int]):
    assert drawn_seeds
    assert min(drawn_seeds) >= FIRST_TRAINING_SEED
    assert FIRST_HELD_OUT_SEED + 10_000 < FIRST_TRAINING_SEED
    # Clips and views are of one range, the teacher's single images of another.
    learned = {seed for seed in drawn_seeds if seed < FIRST_IMAGE_SEED}
    assert learned == set(range(FIRST_TRAINING_SEED, FIRST_TRAINING_SEED + 2))
    assert set(drawn_seeds) - learned == set(range(FIRST_IMAGE_SEED, FIRST_IMAGE_SEED + 2))


def test_training_draws_nothing_from_the_global_generator(workspace: Workspace, tmp_path: Path):
    runs = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        copy = replace(workspace, folder=tmp_path / str(seed))
        copy.folder.mkdir()
        for folder in ("worlds", "views"):
            (copy.folder / folder).symlink_to(workspace.folder / folder)
        train_tokenizer(copy, worlds=1)
        train_depth(copy, TWO, DepthObjective(batch=2))
        runs.append(log_of(copy.folder / "depth"))
    assert runs[0] == runs[1]
