"""The teacher: sampler against closed forms, and what its network is shown."""

import math
from dataclasses import replace

import pytest
import torch
from diffusers import EDMEulerScheduler
from torch import Tensor, nn

from lyra.cache.warp import DepthCache, EdgeFilter, build_cache, render_cache
from lyra.geometry.trajectories import trajectory_cameras
from lyra.models.model import Model
from lyra.models.smoke import build_smoke_model
from lyra.teacher import DiffusionTeacher, TeacherRequest, VideoTeacher
from lyra.teacher.sampling import AUGMENT_SIGMA, guide, precondition, sample_euler, schedule_sigmas

SHAPE = (1, 4, 3, 8, 8)


def make_schedule(steps: int) -> Tensor:
    return schedule_sigmas(EDMEulerScheduler(sigma_max=80.0, sigma_min=0.0002, sigma_data=0.5), steps).double()


def noise(seed: int, shape: tuple[int, ...] = SHAPE) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


class GaussianPrior:
    """The exact denoiser of independent normal data, and where its probability flow ends."""

    mean, deviation = 0.3, 0.7

    def denoise(self, x: Tensor, sigma: Tensor) -> Tensor:
        level = sigma.reshape(-1, 1, 1, 1, 1) ** 2
        return (self.deviation**2 * x + level * self.mean) / (self.deviation**2 + level)

    def end(self, start: Tensor, sigma: float) -> Tensor:
        return self.mean + (start - self.mean) * self.deviation / math.sqrt(self.deviation**2 + sigma**2)


def test_schedule_is_the_one_of_karras_with_zero_appended():
    sigmas = make_schedule(12)
    ramp = torch.linspace(0, 1, 12, dtype=torch.float64)
    expected = (80 ** (1 / 7) + ramp * (0.0002 ** (1 / 7) - 80 ** (1 / 7))) ** 7
    assert torch.allclose(sigmas[:-1], expected, rtol=1e-5)
    assert sigmas[-1] == 0


def test_many_steps_follow_the_flow_of_a_gaussian_prior_to_its_end():
    prior, start = GaussianPrior(), noise(0)
    expected = prior.end(start * math.sqrt(80**2 + 1), 80.0)[:, :, 1:]
    zero = torch.zeros_like(start)
    errors = [
        (sample_euler(prior.denoise, start, make_schedule(n), zero, zero)[:, :, 1:] - expected).abs().max().item()
        for n in (200, 400, 800)
    ]
    assert errors[-1] < 0.01
    # Euler is of first order.
    assert 1.8 < errors[0] / errors[1] < 2.2
    assert 1.8 < errors[1] / errors[2] < 2.2


def test_samples_of_a_gaussian_prior_have_its_mean_and_variance():
    prior, start = GaussianPrior(), noise(1, (8, 4, 5, 16, 16))
    zero = torch.zeros_like(start)
    samples = sample_euler(prior.denoise, start, make_schedule(600), zero, zero)[:, :, 1:]
    count = samples.numel()
    assert samples.mean().item() == pytest.approx(0.3, abs=4 * 0.7 / count**0.5 + 0.005)
    assert samples.std().item() == pytest.approx(0.7, abs=4 * 0.7 / (2 * count) ** 0.5 + 0.01)


def test_network_sees_the_first_frame_with_the_same_little_noise_at_every_step():
    first, augment, seen = noise(2), noise(3), []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append((sigma.item(), x[:, :, 0] / (sigma**2 + 0.25).sqrt()))
        return torch.zeros_like(x)

    sample_euler(denoise, noise(0), make_schedule(20), first, augment)
    expected = (first + AUGMENT_SIGMA * augment)[:, :, 0] / math.sqrt(AUGMENT_SIGMA**2 + 0.25)
    above = [x for sigma, x in seen if sigma > AUGMENT_SIGMA]
    assert len(above) == sum(make_schedule(20)[:-1] > AUGMENT_SIGMA)
    assert 0 < len(seen) - len(above) < 5
    for x in above:
        assert torch.allclose(x, expected, atol=1e-9)


def test_first_frame_is_kept_whatever_the_network_says_of_it():
    first, sigmas = noise(2), torch.tensor([80.0, 5.0, 0.4, 0.0], dtype=torch.float64)

    def garbage(x: Tensor, sigma: Tensor) -> Tensor:
        return x + 100 * sigma.reshape(-1, 1, 1, 1, 1)

    kept = sample_euler(garbage, noise(0), sigmas, first, noise(3))
    assert torch.allclose(kept[:, :, 0], first[:, :, 0], atol=1e-9)
    assert not torch.allclose(kept[:, :, 1:], first[:, :, 1:], atol=1)


def test_last_steps_leave_the_first_frame_to_the_network():
    first, zero = noise(2), torch.zeros(SHAPE, dtype=torch.float64)
    # Denoisers that leave x alone near the end, and one that does not.
    settled = sample_euler(lambda x, sigma: x, noise(0), make_schedule(20), first, zero)
    assert torch.allclose(settled[:, :, 0], first[:, :, 0], atol=0.01)
    emptied = sample_euler(lambda x, sigma: torch.zeros_like(x), noise(0), make_schedule(20), first, zero)
    assert torch.allclose(emptied, zero, atol=1e-12)


def test_frames_after_the_first_do_not_read_the_given_latents():
    prior, zero = GaussianPrior(), torch.zeros(SHAPE, dtype=torch.float64)
    first, other = noise(2), noise(2)
    other[:, :, 1:] = 55.0
    a, b = (sample_euler(prior.denoise, noise(0), make_schedule(9), known, zero) for known in (first, other))
    assert torch.equal(a, b)


def test_preconditioned_perfect_network_is_the_exact_denoiser():
    prior, x = GaussianPrior(), noise(0)
    for level in (0.01, 0.5, 30.0):
        sigma = torch.tensor([level], dtype=torch.float64)
        times = []

        def network(scaled: Tensor, time: Tensor, level: float = level, times: list = times) -> Tensor:
            # F = (D - c_skip x) / c_out, solved for at the x that c_in came from.
            times.append(time)
            total = math.sqrt(level**2 + 0.25)
            original = scaled * total
            exact = prior.denoise(original, torch.tensor([level], dtype=torch.float64))
            return (exact - original * 0.25 / total**2) / (0.5 * level / total)

        assert torch.allclose(precondition(network)(level * x, sigma), prior.denoise(level * x, sigma), atol=1e-9)
        assert times[0].item() == pytest.approx(0.25 * math.log(level))


def test_guidance_zero_is_one_call_and_one_is_two():
    calls = []

    def network(name: str, value: float):
        def call(x: Tensor, time: Tensor) -> Tensor:
            calls.append(name)
            return value * x

        return call

    x, time = noise(0), torch.zeros(1)
    for guidance, expected_calls, factor in ((0.0, ["c"], 3.0), (1.0, ["c", "u"], 5.0), (2.5, ["c", "u"], 8.0)):
        calls.clear()
        output = guide(network("c", 3.0), network("u", 1.0), guidance)(x, time)
        assert sorted(calls) == expected_calls
        assert torch.allclose(output, factor * x)


@pytest.fixture(scope="module")
def model() -> Model:
    model = build_smoke_model()
    generator = torch.Generator().manual_seed(0)
    assert isinstance(model.tokenizer.statistics.mean, Tensor)
    model.tokenizer.statistics.mean.copy_(0.1 * torch.randn(16, 2, generator=generator))
    model.tokenizer.statistics.std.copy_(0.5 + torch.rand(16, 2, generator=generator))
    model.text["negative"] = torch.randn(1, model.text["empty"].shape[1], generator=generator)
    # diffusers starts with zero output, which would hide what the network is given.
    with torch.no_grad():
        for parameter in model.transformer.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    return model


def make_request(buffers: int = 1, seed: int = 3, name: str = "left") -> TeacherRequest:
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(buffers, 3, 32, 32, generator=generator) * 2 - 1
    cameras = trajectory_cameras("left", 0.3, 5, torch.tensor([30.0, 30.0, 16.0, 16.0]), 32, 32)
    depth = torch.full((buffers, 32, 32), 1.2)
    cache: DepthCache = build_cache(images, depth, cameras[:buffers], EdgeFilter(3, 0.5))
    return TeacherRequest(images[0], cache, cameras, seed, name)


class RecordingTransformer(nn.Module):
    """Keeps what it is called with; says nothing."""

    def __init__(self):
        super().__init__()
        self.calls: list[tuple[Tensor, Tensor, Tensor, float]] = []

    def forward(self, x: Tensor, time: Tensor, text: Tensor, fps: float, return_dict: bool) -> tuple[Tensor]:
        assert not return_dict
        self.calls.append((x, time, text, fps))
        return (torch.zeros_like(x[:, :16]),)


def make_recorder(model: Model, guidance: float = 1.0, **settings) -> tuple[DiffusionTeacher, RecordingTransformer]:
    recorder = RecordingTransformer()
    teacher = DiffusionTeacher(
        recorder,
        model.tokenizer,
        model.scheduler,
        model.text["empty"],
        model.text["negative"],
        replace(model.config.teacher, guidance=guidance, **settings),
    )
    return teacher, recorder


def encoded(model: Model, signal: Tensor) -> Tensor:
    """Normalized latents of one signal [time 3 height width]."""
    tokenizer = model.tokenizer
    return tokenizer.normalize(tokenizer.encode(signal.movedim(0, 1)[None]))


def still_cache(request: TeacherRequest) -> DepthCache:
    assert isinstance(request.cache, DepthCache)
    return request.cache


@pytest.mark.parametrize("buffers", [1, 2])
def test_order_of_the_input_channels(model: Model, buffers: int):
    teacher, recorder = make_recorder(model)
    request = make_request(buffers)
    teacher.imagine(request)
    conditional, unconditional = recorder.calls[0][0], recorder.calls[1][0]
    assert conditional.shape == (1, 82, 2, 8, 8)
    mask = torch.zeros(1, 1, 2, 8, 8)
    mask[:, :, 0] = 1
    views = render_cache(still_cache(request), request.cameras)
    for x in (conditional, unconditional):
        assert torch.equal(x[:, 16:17], mask)
        assert (x[:, 81:] == 0).all()
    for buffer in range(2):
        image, hole = (conditional[:, 17 + 32 * buffer + 16 * part :][:, :16] for part in range(2))
        if buffer < buffers:
            assert torch.allclose(image, encoded(model, views.images[:, buffer]), atol=1e-5)
            signal = (2 * views.masks[:, buffer] - 1)[:, None].expand(-1, 3, -1, -1)
            assert torch.allclose(hole, encoded(model, signal), atol=1e-5)
        else:
            # Missing buffers are zero latents, not encoded black.
            assert (image == 0).all()
            assert (hole == 0).all()
    assert (unconditional[:, 17:81] == 0).all()
    first = encoded(model, request.image[None]) / 0.5
    assert torch.allclose(conditional[:, :16, :1], first, atol=0.02)
    assert torch.equal(unconditional[:, :16], conditional[:, :16])
    assert not torch.allclose(conditional[:, :16, 1:], torch.zeros(()), atol=0.1)


@pytest.mark.parametrize(("guidance", "passes"), [(0.0, 1), (1.0, 2)])
def test_passes_texts_times_and_fps_of_a_clip(model: Model, guidance: float, passes: int):
    teacher, recorder = make_recorder(model, guidance)
    teacher.imagine(make_request())
    steps = model.config.teacher.steps
    assert len(recorder.calls) == passes * steps
    sigmas = make_schedule(steps)
    for index, (_, time, text, fps) in enumerate(recorder.calls):
        assert fps == model.config.teacher.fps
        assert time.item() == pytest.approx(0.25 * math.log(sigmas[index // passes]), abs=1e-5)
        assert torch.equal(text[0], model.text["negative" if index % passes else "empty"])


def test_more_buffers_than_the_teacher_takes_are_refused(model: Model):
    teacher, _ = make_recorder(model)
    with pytest.raises(ValueError, match="3 cache buffers"):
        teacher.imagine(make_request(buffers=3))
    teacher, _ = make_recorder(model, max_buffers=1)
    with pytest.raises(ValueError, match="2 cache buffers"):
        teacher.imagine(make_request(buffers=2))


def test_the_seed_and_the_name_decide_the_clip(model: Model):
    teacher = model.teacher
    assert isinstance(teacher, VideoTeacher)
    clip = teacher.imagine(make_request())
    assert clip.shape == (16, 2, 8, 8)
    assert clip.dtype == torch.float32
    assert clip.isfinite().all()
    torch.manual_seed(99)
    assert torch.equal(teacher.imagine(make_request()), clip)
    for other in (make_request(seed=4), make_request(name="right")):
        assert not torch.allclose(teacher.imagine(other)[:, 1:], clip[:, 1:], atol=1e-2)


def test_the_cache_and_guidance_change_the_clip(model: Model):
    request = make_request()
    clip = model.teacher.imagine(request)
    known = still_cache(request)
    hidden = replace(known, reliable=torch.zeros_like(known.reliable))
    blind = replace(request, cache=hidden)
    assert not torch.allclose(model.teacher.imagine(blind), clip, atol=1e-3)
    unguided = replace(model, config=replace(model.config, teacher=replace(model.config.teacher, guidance=0.0)))
    assert not torch.allclose(unguided.teacher.imagine(request), clip, atol=1e-3)
