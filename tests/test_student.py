"""The student: what a decoder's Gaussians must be, streamed or whole."""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from lyra.cache.warp import DepthCache, EdgeFilter, build_cache
from lyra.files.clips import Clip
from lyra.geometry.cameras import Cameras, intrinsics_from_fov, pixel_rays
from lyra.geometry.gaussians import Gaussians, matrix_from_quaternion, prune
from lyra.geometry.trajectories import TRAJECTORY_NAMES, TrajectoryName, trajectory_cameras
from lyra.models.recipe import MINI
from lyra.student import DecoderConfig, GaussianDecoder, StudentInputs, decode_scene, prepare_student_inputs
from lyra.student.decoder import CONSIDERED, activate_cache, activate_ray, count_gaussians, share_kept
from lyra.student.inputs import splat_frame_indices
from lyra.tokenizer.linear import LinearTokenizer
from lyra.tokenizer.tokenizer import LatentSpec

NAMES = [f.name for f in fields(Gaussians) if f.name != "harmonics"]
SMALL = DecoderConfig(
    width=32,
    depth=2,
    attention_every=2,
    heads=2,
    state=8,
    splats_per_token=8,
    splat_frames=1,
    geometry="cache",
    far=100.0,
    opacity_shift=0.0,
    keep=1.0,
)
PAPER = DecoderConfig(width=32, depth=2, attention_every=2, heads=2, state=8, splat_frames=4)


def make_clips(
    count: int = 2,
    latent_frames: int = 2,
    size: tuple[int, int] = (32, 32),
    temporal: int = 4,
    seed: int = 0,
    channels: int = 16,
) -> list[Clip]:
    generator = torch.Generator().manual_seed(seed)
    names: Sequence[TrajectoryName] = TRAJECTORY_NAMES[:count]
    frames = 1 + temporal * (latent_frames - 1)
    intrinsics = intrinsics_from_fov(55.0, *size)
    return [
        Clip(
            0.5 * torch.randn(channels, latent_frames, size[0] // 4, size[1] // 4, generator=generator),
            trajectory_cameras(name, 0.3, frames, intrinsics, *size),
        )
        for name in names
    ]


def make_cache(clips: list[Clip], seed: int = 0) -> DepthCache:
    camera = clips[0].cameras[:1]
    generator = torch.Generator().manual_seed(seed)
    image = torch.rand(1, 3, camera.height, camera.width, generator=generator) * 2 - 1
    depth = (1 + 0.02 * torch.arange(camera.width)).expand(1, camera.height, camera.width)
    return build_cache(image, depth, camera, EdgeFilter(3, 0.5))


def make_tokenizer(temporal: int = 4, channels: int = 16) -> LinearTokenizer:
    tokenizer = LinearTokenizer(channels, temporal, 4, 2)
    generator = torch.Generator().manual_seed(0)
    for basis in (tokenizer.first_basis, tokenizer.later_basis):
        orthogonal, _ = torch.linalg.qr(torch.randn(basis.shape, generator=generator))
        basis.copy_(2 * orthogonal)
    return tokenizer


def make_inputs(config: DecoderConfig, clips: list[Clip] | None = None, temporal: int = 4) -> StudentInputs:
    clips = clips or make_clips(temporal=temporal)
    tokenizer = make_tokenizer(temporal, config.latent_channels)
    return prepare_student_inputs(clips, tokenizer, config, make_cache(clips))


COUNTS = [
    (SMALL, 2, 2, (32, 32), 4),
    (replace(SMALL, splats_per_token=4), 3, 2, (32, 48), 4),
    (replace(SMALL, splats_per_token=2, splat_frames=2), 1, 3, (16, 32), 4),
    (replace(SMALL, token_patch=4, splats_per_token=16, splat_frames=4), 2, 2, (32, 32), 4),
    (PAPER, 2, 3, (32, 16), 4),
    (replace(PAPER, splat_frames=8), 2, 2, (16, 16), 8),
    (replace(PAPER, splat_frames=1, token_patch=1, splats_per_token=1), 6, 2, (16, 16), 4),
]


@pytest.mark.parametrize(("config", "views", "latent_frames", "size", "temporal"), COUNTS)
@torch.no_grad()
def test_tokens_and_gaussians_are_as_many_as_the_config_says(
    config: DecoderConfig, views: int, latent_frames: int, size: tuple[int, int], temporal: int
):
    clips = make_clips(views, latent_frames, size, temporal)
    inputs, decoder = make_inputs(config, clips, temporal), GaussianDecoder(config)
    cells = (size[0] // 4 // config.token_patch) * (size[1] // 4 // config.token_patch)
    assert decoder.embed(inputs).shape == (1, views * latent_frames * cells, 32)
    frames = 1 + config.splat_frames * (latent_frames - 1)
    gaussians = decoder(inputs)
    assert len(gaussians) == views * frames * cells * config.splats_per_token**2
    for name in NAMES:
        assert getattr(gaussians, name).isfinite().all()
        assert getattr(gaussians, name).dtype == torch.float32
    assert (gaussians.scales > 0).all()
    assert torch.allclose(gaussians.quaternions.norm(dim=-1), torch.ones(1, len(gaussians)), atol=1e-5)
    for bounded in (gaussians.opacities, gaussians.colors):
        assert bounded.min() >= 0
        assert bounded.max() <= 1


@torch.no_grad()
def test_mini_considers_what_is_new_alone_and_without_novelty_all():
    config = replace(MINI.decoder, width=32, depth=1, state=8, underlay=0)
    teacher = MINI.teacher
    size, channels = (teacher.height, teacher.width), MINI.latent.channels
    clips = make_clips(6, MINI.latent.latent_frames(teacher.frames), size, channels=channels)
    inputs = make_inputs(config, clips)
    gaussians = GaussianDecoder(config)(inputs)
    assert inputs.base is not None
    assert len(gaussians) == int((inputs.base.fresh > CONSIDERED).sum()) >= teacher.height * teacher.width
    every = replace(config, novelty=0.0)
    assert len(GaussianDecoder(every)(inputs)) == inputs.base.fresh.numel() == count_gaussians(every, inputs)


def test_gaussians_are_placed_at_the_first_frame_and_evenly_after_it():
    spec = LatentSpec(16, 8, 8)
    for count, expected in ((1, [0, 8, 16]), (2, [0, 4, 8, 12, 16]), (8, list(range(17)))):
        assert splat_frame_indices(17, spec, replace(PAPER, splat_frames=count)) == expected
    with pytest.raises(ValueError, match="does not divide"):
        splat_frame_indices(17, spec, replace(PAPER, splat_frames=3))


@torch.no_grad()
def test_zero_raw_channels_are_exactly_the_base_surface():
    config = replace(SMALL, opacity_shift=-0.7)
    inputs, decoder = make_inputs(config), GaussianDecoder(config)
    for parameter in decoder.head.parameters():
        torch.nn.init.zeros_(parameter)
    gaussians, base = decoder(inputs), inputs.base
    assert base is not None
    distance = base.distance[..., None]
    means = inputs.ray_origins + distance * inputs.ray_directions
    assert torch.allclose(gaussians.means, means.flatten(1, -2), atol=1e-6)
    assert torch.equal(gaussians.colors, base.color.flatten(1, -2))
    width = (0.3 * distance * inputs.pixel_angle[..., None, None, None]).flatten(1, -2)
    cosine = (base.normals * inputs.ray_directions).sum(-1, keepdim=True).abs().flatten(1, -2)
    length = width / cosine.clamp(min=1 / config.max_stretch)
    assert torch.allclose(gaussians.scales, torch.cat([length, width, width], dim=-1), rtol=1e-5)
    thin = matrix_from_quaternion(gaussians.quaternions)[..., 2]
    assert torch.allclose((thin * base.normals.flatten(1, -2)).sum(-1).abs(), torch.ones(1), atol=1e-5)
    assert torch.allclose(gaussians.opacities, torch.sigmoid(torch.tensor(-0.7)))


@torch.no_grad()
def test_base_surface_of_a_flat_wall_lies_on_the_wall():
    clips = make_clips(6)
    camera = clips[0].cameras[:1]
    cache = build_cache(torch.zeros(1, 3, 32, 32), torch.full((1, 32, 32), 1.5), camera, EdgeFilter(3, 0.5))
    inputs = prepare_student_inputs(clips, make_tokenizer(), SMALL, cache)
    base = inputs.base
    assert base is not None
    points = inputs.ray_origins + base.distance[..., None] * inputs.ray_directions
    covered = base.covered == 1
    assert covered.float().mean() > 0.5
    # A pixel at the rim is splatted from one side: it is off by up to one pixel's change of depth.
    error = (points[..., 2] - 1.5).abs()[covered]
    assert error.mean() < 1e-3
    assert error.max() < 0.02
    # Filled holes of a wall that turns away are only nearly on it.
    assert (points[..., 2] - 1.5).abs().max() < 0.15


@pytest.mark.parametrize("config", [SMALL, PAPER])
@torch.no_grad()
def test_gaussians_lie_on_their_rays_between_near_and_far(config: DecoderConfig):
    config = replace(config, near=0.9, far=1.3)
    clips = make_clips()
    decoder = GaussianDecoder(config)
    # A wild head reaches both limits.
    for name, parameter in decoder.head.named_parameters():
        parameter.normal_(std=float(name == "weight"))
    gaussians = decoder(make_inputs(config, clips))
    stride = 4 * config.token_patch // config.splats_per_token
    parts = []
    for clip in clips:
        view: Cameras = clip.cameras[:: 4 // config.splat_frames]
        parts.append([t.flatten(0, 2) for t in pixel_rays(view.resized(32 // stride, 32 // stride))])
    origins, directions = (torch.cat([part[i] for part in parts]) for i in range(2))
    offset = gaussians.means[0] - origins
    reach = (offset * directions).sum(-1)
    assert (offset - reach[:, None] * directions).abs().max() < 1e-5
    assert reach.min() >= 0.9 - 1e-5
    assert reach.max() <= 1.3 + 1e-5
    assert reach.std() > 0.05


def stack(first: Any, second: Any) -> Any:
    """Two scenes as one batch, field by field."""
    if first is None:
        return None
    if isinstance(first, torch.Tensor):
        return torch.cat([first, second])
    return replace(first, **{f.name: stack(getattr(first, f.name), getattr(second, f.name)) for f in fields(first)})


@pytest.mark.parametrize("config", [SMALL, PAPER])
@torch.no_grad()
def test_scenes_of_a_batch_are_decoded_alone(config: DecoderConfig):
    decoder = GaussianDecoder(config)
    scenes = [make_inputs(config, make_clips(seed=seed)) for seed in (1, 2)]
    for order in (scenes, scenes[::-1]):
        together = decoder(stack(*order))
        for index, scene in enumerate(order):
            alone = decoder(scene)
            for name in NAMES:
                assert torch.allclose(getattr(together, name)[index], getattr(alone, name)[0], atol=1e-5)


def moved_clips(clips: list[Clip]) -> list[Clip]:
    """The same clips in a world that is turned and shifted."""
    world = torch.eye(4)
    world[0, 0] = world[1, 1] = 0.0
    world[0, 1], world[1, 0] = -1.0, 1.0
    world[:3, 3] = torch.tensor([1.0, 2.0, 3.0])
    return [Clip(c.latents, replace(c.cameras, camera_to_world=world @ c.cameras.camera_to_world)) for c in clips]


def test_student_inputs_live_in_the_frame_of_the_first_camera():
    clips = make_clips()
    here, there = (prepare_student_inputs(c, make_tokenizer(), PAPER) for c in (clips, moved_clips(clips)))
    for name in ("latents", "plucker", "ray_origins", "ray_directions", "pixel_angle"):
        assert torch.allclose(getattr(there, name), getattr(here, name), atol=1e-5)
    assert torch.equal(here.ray_origins[0, :, 0], torch.zeros_like(here.ray_origins[0, :, 0]))


def test_a_pixel_is_as_wide_as_its_own_frames_lens_says():
    """Through a zoom the Gaussians of the last frame are as much smaller as their pixels."""
    clips = make_clips(1)
    cameras = clips[0].cameras
    zoom = torch.linspace(1, 4, len(cameras))[:, None] * torch.tensor([1.0, 1.0, 0.0, 0.0])
    zoom[:, 2:] = 1
    zoomed = [replace(clips[0], cameras=replace(cameras, intrinsics=cameras.intrinsics * zoom))]
    for config in (PAPER, SMALL):
        plain, wide = (
            prepare_student_inputs(c, make_tokenizer(), config, make_cache(clips)).pixel_angle for c in (clips, zoomed)
        )
        ratio = (plain / wide)[0, 0]
        assert ratio[0] == pytest.approx(1) and ratio[-1] == pytest.approx(4, rel=1e-4)


def test_base_surface_lives_in_the_frame_of_the_first_camera():
    clips = make_clips()
    here, there = (
        prepare_student_inputs(c, make_tokenizer(), SMALL, make_cache(c)) for c in (clips, moved_clips(clips))
    )
    assert here.base is not None
    assert there.base is not None
    assert torch.allclose(there.base.distance, here.base.distance, atol=0.01)


@torch.no_grad()
def test_time_conditioning_is_demanded_and_shared_by_the_views():
    config = replace(PAPER, time_conditioning=True)
    decoder, inputs = GaussianDecoder(config), make_inputs(PAPER)
    with pytest.raises(ValueError, match="no times"):
        decoder(inputs)
    times = torch.randn(1, 16, 3, 8, 8)
    silent = decoder.embed(replace(inputs, times=times))
    # Zero initialised: a static decoder that learns time starts where it was.
    plain = GaussianDecoder(PAPER)
    plain.load_state_dict({k: v for k, v in decoder.state_dict().items() if "time" not in k})
    assert torch.allclose(plain.embed(inputs), silent)
    for embed in (decoder.source_time_embed, decoder.target_time_embed):
        torch.nn.init.normal_(embed.proj.weight)
    change = (decoder.embed(replace(inputs, times=times)) - silent)[0].unflatten(0, (2, -1))
    assert change.abs().max() > 0.1
    assert torch.allclose(change[0], change[1], atol=1e-5)


def test_cache_geometry_demands_a_cache_and_a_base():
    clips = make_clips()
    with pytest.raises(ValueError, match="needs the scene's depth cache"):
        prepare_student_inputs(clips, make_tokenizer(), SMALL)
    with pytest.raises(ValueError, match="no base surface"):
        GaussianDecoder(SMALL)(replace(make_inputs(SMALL, clips), base=None))


@pytest.mark.parametrize(
    "settings", [{"near": 0.0}, {"near": 2.0, "far": 1.0}, {"near": -1.0}, {"keep": 0.0}, {"keep": 1.2}]
)
def test_impossible_configs_are_refused(settings: dict[str, float]):
    with pytest.raises(ValueError, match=r"near|keep"):
        replace(PAPER, **settings)


@pytest.mark.parametrize("keep", [0.2, 0.37, 1.0])
@torch.no_grad()
def test_pruning_keeps_the_most_opaque_share(keep: float):
    config = replace(PAPER, keep=keep)
    decoder, inputs = GaussianDecoder(config), make_inputs(config)
    every, kept = decoder(inputs), decode_scene(decoder, inputs)
    assert len(kept) == round(keep * len(every))
    assert kept.means.ndim == 2
    if keep < 1:
        threshold = every.opacities[0].sort(descending=True).values[len(kept) - 1]
        assert kept.opacities.min() == threshold
    else:
        assert torch.allclose(kept.means, every.means[0], atol=1e-5)


@pytest.mark.parametrize(("views", "share"), [(1, 0.6), (2, 0.3), (6, 0.1), (9, 0.1)])
def test_few_clips_keep_as_many_gaussians_as_six_would(views: int, share: float):
    """Of the small student; the paper's keeps its share of any number."""
    assert share_kept(replace(SMALL, keep=0.1), views) == pytest.approx(share)
    assert share_kept(replace(SMALL, keep=0.4), 1) == 1.0
    assert share_kept(replace(PAPER, keep=0.1), views) == 0.1


@pytest.mark.parametrize("kind", ["small", "paper"])
def test_every_parameter_learns(kind: str):
    config = SMALL if kind == "small" else PAPER
    decoder = GaussianDecoder(config)
    # Norms of the zero-initialised embeddings answer zero, so what comes before them waits for one step of theirs.
    with torch.no_grad():
        for parameter in decoder.parameters():
            if not parameter.any():
                parameter.add_(0.1 * torch.randn(parameter.shape))
    gaussians = decoder(make_inputs(config))
    torch.stack([getattr(gaussians, name).square().sum() for name in NAMES]).sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().max() > 1e-8, name


@pytest.mark.parametrize("keep", [0.2, 1.0])
@torch.no_grad()
def test_streamed_is_whole(keep: float):
    config = replace(PAPER, keep=keep)
    decoder, inputs = GaussianDecoder(config), make_inputs(config, make_clips(4))
    whole = decoder(inputs).map(lambda tensor: tensor[0])
    if keep < 1:
        whole = prune(whole, round(keep * len(whole)))
    streamed = decode_scene(decoder, inputs)
    for name in NAMES:
        assert torch.allclose(getattr(streamed, name), getattr(whole, name), atol=1e-5)


@torch.no_grad()
def test_gaussians_of_equal_opacity_are_kept_in_their_order():
    config = replace(PAPER, keep=0.3)
    decoder, inputs = GaussianDecoder(config), make_inputs(config, make_clips(3))
    for parameter in decoder.head.parameters():
        torch.nn.init.zeros_(parameter)
    every, kept = decoder(inputs), decode_scene(decoder, inputs)
    assert torch.equal(kept.means, every.means[0, : len(kept)])


@pytest.mark.parametrize("config", [SMALL, PAPER])
def test_recomputing_changes_no_gradient(config: DecoderConfig):
    decoder, inputs = GaussianDecoder(config).double(), to_double(make_inputs(config))
    gradients = []
    for recompute in (False, True):
        decoder.zero_grad()
        gaussians = decoder(inputs, recompute=recompute)
        torch.stack([getattr(gaussians, name).square().sum() for name in NAMES]).sum().backward()
        gradients.append([parameter.grad.clone() for parameter in decoder.parameters()])  # pyright: ignore
    for ours, truth in zip(*gradients, strict=True):
        assert torch.allclose(ours, truth, rtol=1e-9, atol=1e-12)


def to_double(inputs: Any) -> Any:
    if isinstance(inputs, torch.Tensor):
        return inputs.double()
    if not hasattr(inputs, "__dataclass_fields__"):
        return inputs
    return replace(inputs, **{f.name: to_double(getattr(inputs, f.name)) for f in fields(inputs)})


def test_rays_and_positions_are_exact_at_1280_pixels():
    single = trajectory_cameras("clockwise", 0.5, 3, intrinsics_from_fov(55.0, 704, 1280), 704, 1280)
    grid = single.resized(88, 160)
    exact = pixel_rays(Cameras(grid.camera_to_world.double(), grid.intrinsics.double(), 88, 160))
    rays = pixel_rays(grid)
    raw = torch.randn(3, 88, 160, 12, generator=torch.Generator().manual_seed(0))
    ours = activate_ray(raw, *rays, DecoderConfig()).means
    truth = activate_ray(raw.double(), *exact, DecoderConfig()).means
    assert (rays[1] - exact[1]).abs().max() < 1e-6
    assert ((ours - truth).norm(dim=-1) / truth.norm(dim=-1)).max() < 1e-5
    # Half precision in the network leaves the geometry alone: what it predicts is cast before it meets the rays.
    decoder, inputs = GaussianDecoder(PAPER), make_inputs(PAPER)
    with torch.autocast("cpu", torch.bfloat16):
        gaussians = decoder(inputs)
    assert gaussians.means.dtype == gaussians.scales.dtype == torch.float32


def test_plucker_maps_do_not_depend_on_how_many_frames_are_made_at_once(monkeypatch: pytest.MonkeyPatch):
    whole = make_inputs(PAPER).plucker
    monkeypatch.setattr("lyra.student.inputs.PLUCKER_PIXELS", 1)
    assert torch.allclose(make_inputs(PAPER).plucker, whole, atol=1e-6)


def test_novelty_tells_what_none_before_shows_from_what_the_input_view_shows():
    inputs = make_inputs(SMALL)
    assert inputs.base is not None
    quiet, loud = (activate_cache(torch.zeros(*inputs.base.covered.shape, 12), inputs, c) for c in
                   (SMALL, replace(SMALL, novelty=3.0)))  # fmt: skip
    change = loud.opacities - quiet.opacities
    assert torch.equal(change > 0, inputs.base.novel == 1)


def test_what_the_input_view_shows_is_not_shown_again_by_another_view():
    """Along an edge of depth the cache has lost its points and the teacher invents; the photo itself is there."""
    lens = intrinsics_from_fov(55.0, 32, 32)
    still, moved = (trajectory_cameras("left", distance, 5, lens, 32, 32) for distance in (0.0, 0.6))
    clips = [Clip(torch.zeros(16, 2, 8, 8), cameras) for cameras in (still, still, moved)]
    depth = torch.full((1, 32, 32), 2.0)
    depth[:, 8:24, 8:24] = 1.0
    cache = build_cache(torch.zeros(1, 3, 32, 32), depth, still[:1], EdgeFilter(3, 0.05))
    base = prepare_student_inputs(clips, make_tokenizer(), SMALL, cache).base
    assert base is not None
    assert 0.05 < 1 - base.covered[0, 1].mean() < 0.5
    assert base.novel[0, 1].sum() == 0
    # What is seen behind the square and past the picture's side is new.
    assert 0.05 < base.novel[0, 2, -1].mean() < 0.6


@torch.no_grad()
def test_a_decoder_lays_a_layer_behind_what_it_considers_and_keeps_to_the_least_scale():
    config = replace(MINI.decoder, width=32, depth=1, state=8, underlay=0, smooth=0, least_scale=-8.0)
    clips = make_clips(2, 2, (32, 32), channels=MINI.latent.channels)
    torch.manual_seed(0)
    decoder = GaussianDecoder(config).eval()
    # Loud enough that scales go both ways.
    for parameter in decoder.head.parameters():
        parameter.mul_(100)
    inputs = make_inputs(config, clips)
    surface = decoder(inputs)
    decoder.config = replace(config, underlay=2)
    both = decoder(inputs)
    count = len(surface)
    assert count < len(both) <= count + count // 4
    for name in NAMES:
        torch.testing.assert_close(getattr(both, name)[:, :count], getattr(surface, name))
    decoder.config = replace(config, least_scale=0.0)
    bounded = decoder(inputs)
    changed = (bounded.scales - surface.scales).abs().amax(-1) > 0
    assert bool(changed.any()) and not bool(changed.all())
    assert bool((bounded.scales >= surface.scales).all())
