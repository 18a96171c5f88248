"""One scene, a few clips and views of worlds, and the smoke networks' fits to them, one term of a loss at a time.

What a fit is for is measured by code of its own (``gain`` functions return how much better it became), so that a term
with a wrong sign, or none at all, shows.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lyra.engine.engine import Engine
from lyra.files.clips import Clip
from lyra.geometry.cameras import Cameras, concatenate_cameras, intrinsics_from_fov
from lyra.geometry.gaussians import Gaussians
from lyra.geometry.sky import is_sky
from lyra.geometry.trajectories import TrajectoryName, trajectory_cameras
from lyra.models.model import Model
from lyra.models.recipe import SMOKE, create_model
from lyra.models.smoke import build_smoke_model
from lyra.rendering import render
from lyra.student.decoder import CONSIDERED
from lyra.student.moments import aim, show_at
from lyra.synthesis.imagined import SyntheticScene
from lyra.teacher.conditioning import Condition, condition_network
from lyra.teacher.residual import measure_spread, residual_space
from lyra.teacher.sampling import precondition, sample_euler, schedule_sigmas
from lyra.tokenizer.linear import LinearTokenizer, fit_linear_tokenizer
from lyra.tokenizer.tokenizer import encode_frames
from lyra.training.denoiser import DenoiserObjective, EncodedClips, channel_weights, denoiser_loss, encode_clips
from lyra.training.depth import DepthFrames, DepthObjective, depth_loss, render_frame
from lyra.training.losses import LossWeights
from lyra.training.moving_student import MomentObjective, MovingSet, moment_loss
from lyra.training.perceptual import FeatureDistance
from lyra.training.still_student import DecoderObjective, SceneSet, decoder_loss
from lyra.training.world_clips import WorldClip, render_world_clip
from lyra.views.views import Motion, Views
from lyra.worlds import render_moving_world, render_world, sample_moving_world, sample_world

TEACHER = SMOKE.teacher
FRAMES, SIDE = TEACHER.frames, TEACHER.height
LENS = intrinsics_from_fov(55.0, SIDE, SIDE)
PATHS: tuple[tuple[TrajectoryName, float], ...] = (("left", 0.25), ("up", 0.15), ("zoom_in", 0.4))


def train(module: nn.Module, loss: Callable[[int], tuple[Tensor, dict[str, float]]], steps: int, rate: float) -> None:
    """Plain Adam; the project's own loop has tests of its own."""
    optimizer = torch.optim.Adam(module.parameters(), rate)
    module.train()
    for step in range(steps):
        optimizer.zero_grad()
        loss(step)[0].backward()
        optimizer.step()
    module.eval()


# The depth network


@cache
def depth_frames() -> DepthFrames:
    """Eight views of worlds, ground and sky in each."""
    pairs = [render_frame(seed, 37) for seed in range(8)]
    return DepthFrames(torch.stack([image for image, _ in pairs]), torch.stack([depth for _, depth in pairs]))


def depth_measures(steps: int, gradient_weight: float, sky_weight: float) -> dict[str, float]:
    """AbsRel and differences of log depth between neighbours, both after the best factor, and how well the sky
    is told apart."""
    network = create_model(SMOKE).depth
    objective = DepthObjective(batch=8, gradient_weight=gradient_weight, sky_weight=sky_weight)
    train(network, lambda step: depth_loss(network, depth_frames(), objective, step), steps, 3e-3)
    frames = depth_frames()
    truth = frames.depth.float()
    images = F.interpolate(frames.images.float() / 255, size=(32, 32), mode="bicubic", antialias=True).clamp(0, 1)
    truth = F.interpolate(truth[:, None], size=(32, 32), mode="nearest")[:, 0]
    with torch.no_grad():
        log_depth, sky = network(images).unbind(1)
    ground = ~is_sky(truth)
    errors, steepness = [], []
    for ours, true, known in zip(log_depth, truth.log(), ground, strict=True):
        ours = ours - (ours - true)[known].median()
        errors.append(((ours - true)[known].exp() - 1).abs().mean())
        both = known[:, 1:] & known[:, :-1]
        steepness.append((ours.diff(dim=1) - true.diff(dim=1))[both].abs().mean())
    # How often a pixel of the sky is taken for sky sooner than one of the ground.
    above, below = sky[~ground][::7], sky[ground][::7]
    sooner = (above[:, None] > below[None]).float().mean()
    return {
        "absrel": float(torch.stack(errors).mean()),
        "gradient": float(torch.stack(steepness).mean()),
        "sky": float(sooner),
    }


# The denoiser


@cache
def world_clips() -> list[WorldClip]:
    return [render_world_clip(seed, 0, FRAMES, SIDE, SIDE, 55.0) for seed in range(2)]


@cache
def fitted_tokenizer() -> LinearTokenizer:
    """Of the smoke model, fitted to the clips here."""
    tokenizer = build_smoke_model().tokenizer
    assert isinstance(tokenizer, LinearTokenizer)
    fit_linear_tokenizer([clip.signal() for clip in world_clips()], tokenizer)
    latents = torch.cat([tokenizer.encode(clip.signal()) for clip in world_clips()])
    tokenizer.statistics.mean.copy_(latents.mean((0, 3, 4)))
    tokenizer.statistics.std.copy_(latents.std((0, 3, 4)).clamp(min=1e-3))
    return tokenizer


def fresh_model() -> Model:
    return replace(create_model(SMOKE), tokenizer=fitted_tokenizer())


def denoised_psnr(steps: int, residual: bool) -> float:
    """PSNR of the last imagined frames against those of the clips, both from latents."""
    model = fresh_model()
    teacher = model.config.teacher
    if residual:
        unit = (1.0,) * model.tokenizer.spec.channels
        encoded = encode_clips(world_clips(), model.tokenizer, replace(teacher, spread=(unit, unit)))
        suggested = encoded.buffers[:, : model.tokenizer.spec.channels]
        teacher = replace(teacher, spread=measure_spread(encoded.latents, suggested, encoded.covered))
    clips = encode_clips(world_clips(), model.tokenizer, teacher)
    text, weights = model.text["empty"], channel_weights(model.tokenizer)
    objective = DenoiserObjective(batch=4)

    def loss(step: int) -> tuple[Tensor, dict[str, float]]:
        return denoiser_loss(model.transformer, clips, text, weights, teacher, objective, step)

    train(model.transformer, loss, steps, 5e-3)
    return _sampled_psnr(model, clips, teacher)


@torch.no_grad()
def _sampled_psnr(model: Model, clips: EncodedClips, teacher) -> float:
    latents, buffers = clips.latents.float(), clips.buffers.float()
    space = residual_space(buffers, clips.covered.float(), teacher.spread) if teacher.spread is not None else None
    first = torch.zeros_like(latents)
    first[:, :, 0] = (latents if space is None else space.of(latents))[:, :, 0]
    condition = Condition(first, buffers, model.text["empty"].expand(len(latents), 1, -1))
    network = precondition(condition_network(model.transformer, condition, teacher.fps))
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(3))
    sigmas = schedule_sigmas(model.scheduler, 4)
    imagined = sample_euler(network, noise, sigmas, condition.first_frame, torch.zeros_like(first))
    imagined = imagined if space is None else space.restore(imagined)
    ours, truth = (model.tokenizer.decode(model.tokenizer.denormalize(z))[:, :, 1:] for z in (imagined, latents))
    return psnr(ours / 2, truth / 2)


def psnr(one: Tensor, other: Tensor) -> float:
    return float(-10 * (one - other).square().mean().log10())


# The student


def _scene_cameras(name: TrajectoryName, distance: float, unit: float) -> tuple[Cameras, Cameras]:
    """A path in scene units, and in those of the world."""
    cameras = trajectory_cameras(name, distance, FRAMES, LENS, SIDE, SIDE)
    poses = cameras.camera_to_world.clone()
    poses[:, :3, 3] *= unit
    return cameras, replace(cameras, camera_to_world=poses)


@cache
def still_set() -> tuple[Model, SceneSet]:
    """A world as a scene of the teacher's would be, with true pictures and depth."""
    model = fresh_model()
    world = sample_world(1)
    camera = Cameras(torch.eye(4)[None], LENS[None], SIDE, SIDE)
    image, depth = render_world(world, camera)
    unit = float(depth[~is_sky(depth)].median())
    depth = torch.where(is_sky(depth), depth, depth / unit)
    clips = []
    for name, distance in PATHS:
        cameras, there = _scene_cameras(name, distance, unit)
        clips.append(Clip(encode_frames(model.tokenizer, render_world(world, there)[0]).float(), cameras))
    scene = SyntheticScene(Views(image, depth, camera), tuple(clips))
    return model, SceneSet([scene], Engine(model, "cpu"))


@cache
def moving_set() -> tuple[Model, MovingSet]:
    """The same of a moving world."""
    model = fresh_model()
    world, times = sample_moving_world(1), torch.linspace(0, 1, FRAMES)
    cameras = Cameras(torch.eye(4).expand(FRAMES, 4, 4), LENS.expand(FRAMES, 4), SIDE, SIDE)
    images, depth, moving = render_moving_world(world, cameras, times)
    unit = float(depth[0][~is_sky(depth[0])].median())
    depth = torch.where(is_sky(depth), depth, depth / unit)
    motion = Motion(moving, ~moving.any(0), images.median(0).values, depth.median(0).values, 0.5)
    views = Views(images, depth, cameras, motion)
    clips = [Clip(encode_frames(model.tokenizer, images).float(), cameras)]
    backward = []
    for name, distance in PATHS:
        path, there = _scene_cameras(name, distance, unit)
        for order, found in ((times, clips), (times.flip(0), backward)):
            pictures = render_moving_world(world, there, order)[0]
            found.append(Clip(encode_frames(model.tokenizer, pictures).float(), path))
    return model, MovingSet([SyntheticScene(views, tuple(clips), tuple(backward))], Engine(model, "cpu"))


ONLY = {
    name: replace(LossWeights(color=0.0, perceptual=0.0, depth=0.0, opacity=0.0), **{name: 1.0})
    for name in ("color", "depth", "opacity", "perceptual")
}


@cache
def features() -> FeatureDistance:
    return FeatureDistance()


def _disturbed(decoder: nn.Module) -> nn.Module:
    """A student that has something to learn: its distances, colors and sizes are off, each by an amount of its own."""
    with torch.no_grad():
        bias = decoder.head.bias  # pyright: ignore[reportAttributeAccessIssue]
        bias.copy_(torch.tensor([0.0, 0.3, -0.3, 0.3, 0.5, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0]))  # pyright: ignore
    return decoder


def student_measures(name: str, steps: int, moving: bool) -> dict[str, float]:
    """After a fit to one term alone: PSNR, error of ranks of depth, mean opacity, distance of edges and features."""
    data = (moving_set() if moving else still_set())[1]
    decoder = data.engine.model.decoder
    fresh = _disturbed(create_model(SMOKE).decoder)
    decoder.load_state_dict(fresh.state_dict())
    if isinstance(data, MovingSet):
        aims = MomentObjective(weights=ONLY[name], sizes=(1,))
        train(decoder, lambda step: moment_loss(data.decoder, data, aims, step, features()), steps, 1e-2)
    else:
        goal = DecoderObjective(weights=ONLY[name], sizes=(1,), views=(3,), targets=4)
        train(decoder, lambda step: decoder_loss(decoder, data, goal, step, features()), steps, 1e-2)
    gaussians = _moment(data, 2) if isinstance(data, MovingSet) else _still(data)
    return measure(gaussians, *_truth(moving))


@torch.no_grad()
def _still(data: SceneSet) -> Gaussians:
    return data.engine.model.decoder(data.inputs(0)).map(lambda tensor: tensor[0])


@torch.no_grad()
def _moment(data: MovingSet, moment: int) -> Gaussians:
    inputs = data.inputs(0)
    shown = show_at(inputs, data.source(0), [moment], data.engine.tokenizer.spec.temporal)
    candidates = (shown[0] > CONSIDERED).flatten().nonzero()[:, 0]
    aimed = aim(inputs, [moment], shown, data.engine.tokenizer)
    return data.decoder.at_cells(aimed, candidates).map(lambda tensor: tensor[0])


@cache
def _truth(moving: bool) -> tuple[Tensor, Tensor, Cameras]:
    """Pictures and depth of the world itself, from the ends of all paths (of the moment in the middle, if it moves)."""
    colors, depths, poses = [], [], []
    for name, distance in PATHS:
        camera = Cameras(torch.eye(4)[None], LENS[None], SIDE, SIDE)
        if moving:
            depth = render_moving_world(sample_moving_world(1), camera, torch.zeros(1))[1]
        else:
            depth = render_world(sample_world(1), camera)[1]
        unit = float(depth[~is_sky(depth)].median())
        cameras, there = _scene_cameras(name, distance, unit)
        at = 2 if moving else FRAMES - 1
        one = there[at : at + 1]
        if moving:
            color, depth, _ = render_moving_world(sample_moving_world(1), one, torch.tensor([0.5]))
        else:
            color, depth = render_world(sample_world(1), one)
        colors.append(color)
        depths.append(depth)
        poses.append(cameras[at : at + 1])
    return torch.cat(colors), torch.cat(depths), concatenate_cameras(poses)


@torch.no_grad()
def measure(gaussians: Gaussians, truth: Tensor, depth: Tensor, cameras: Cameras) -> dict[str, float]:
    rendering = render(gaussians, cameras)
    ground = ~is_sky(depth)
    # How far the order of pixels by depth is from the true one (1 minus Spearman's correlation).
    disorder = [1 - _ranks(a[m]) @ _ranks(b[m]) for a, b, m in zip(rendering.depth, depth, ground, strict=True)]
    encoder = features().encoder
    pairs = zip(encoder(rendering.color.clamp(0, 1), 3), encoder(truth, 3), strict=True)
    cosine = [1 - F.cosine_similarity(a, b).mean() for a, b in pairs]
    return {
        "color": psnr(rendering.color, truth),
        "depth": float(torch.stack(disorder).mean()),
        "opacity": float(gaussians.opacities.mean()),
        "perceptual": float(torch.stack(cosine).mean()),
    }


def _ranks(values: Tensor) -> Tensor:
    ranks = values.argsort().argsort().float()
    ranks = ranks - ranks.mean()
    return ranks / ranks.norm()


# What each term is for

STEPS = {"depth": 40, "denoiser": 40, "still": 15, "moving": 30}


@cache
def _before(what: str) -> dict[str, float]:
    """The measures of a network that has not learned."""
    if what == "depth":
        return depth_measures(0, 0.0, 0.0)
    return student_measures("color", 0, what == "moving")


@cache
def _after(gradient_weight: float) -> dict[str, float]:
    """Those of a depth network that has; without its gradient term, and with much of it."""
    return depth_measures(STEPS["depth"], gradient_weight, 5.0)


def check_depth_error() -> None:
    assert _after(0.0)["absrel"] < 0.8 * _before("depth")["absrel"]


def check_depth_gradient() -> None:
    """More weight on it, less error of it: the other terms do not do its work."""
    assert _after(40.0)["gradient"] < 0.95 * _after(0.0)["gradient"]


def check_depth_sky() -> None:
    assert _after(0.0)["sky"] > max(0.7, _before("depth")["sky"] + 0.1)


def check_denoiser(residual: bool = False) -> None:
    assert denoised_psnr(STEPS["denoiser"], residual) > denoised_psnr(0, residual) + 2


def check_denoiser_of_residuals() -> None:
    check_denoiser(residual=True)


def check_student(kind: str, term: str) -> None:
    before = _before(kind)[term]
    after = student_measures(term, STEPS[kind], kind == "moving")[term]
    # A student starts at the cache's depth: there is less to be won of it than of the others.
    share = 0.95 if term == "depth" else 0.9
    assert after > before + 1 if term == "color" else after < share * before


CHECKS: dict[str, Callable[[], None]] = {
    "depth error": check_depth_error,
    "depth gradient": check_depth_gradient,
    "depth sky": check_depth_sky,
    "denoiser": check_denoiser,
    "denoiser of residuals": check_denoiser_of_residuals,
    **{f"{kind} {term}": partial(check_student, kind, term) for kind in ("still", "moving") for term in ONLY},
}


def forget() -> None:
    """What networks have learned."""
    _after.cache_clear()
