"""Parity with tensors that the official code made; every size and setting is read from the files.

The folder is named by LYRA_GOLDEN. By default it is ``golden`` beside this file, a subset that
``recipes/golden_subset.py`` made, and also ``../shared/golden`` beside the checkout where that is.
"""

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from conftest import GOLDEN_FOLDERS
from diffusers import EDMEulerScheduler
from published import save_torchscript
from safetensors import safe_open

from lyra.cache.occlusion import edge_mesh_depth, mask_occluded
from lyra.cache.warp import (
    PUBLISHED_WARP,
    CacheViews,
    EdgeFilter,
    WarpSettings,
    build_cache,
    reliable_depth,
    render_cache,
    unproject,
)
from lyra.files import load_ply
from lyra.geometry.cameras import Cameras, invert_rigid, pixel_rays, plucker_map
from lyra.geometry.gaussians import prune
from lyra.geometry.trajectories import trajectory
from lyra.models.convert.cosmos_tokenizer import convert_tokenizer
from lyra.models.convert.gen3c import convert_teacher
from lyra.models.convert.lyra_decoder import convert_decoder
from lyra.models.loading import load
from lyra.student.decoder import DecoderConfig, StudentInputs, activate_ray
from lyra.student.inputs import encode_time, frame_times
from lyra.teacher.conditioning import encode_buffers
from lyra.teacher.sampling import guide, precondition, sample_euler, schedule_sigmas
from lyra.tokenizer.cosmos import CosmosTokenizer
from lyra.tokenizer.tokenizer import LatentSpec
from lyra.training.losses import depth_loss

FOLDER = GOLDEN_FOLDERS[0]


@pytest.fixture(autouse=True, params=GOLDEN_FOLDERS, ids=lambda folder: f"in-{folder.parent.name}")
def _folder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sys.modules[__name__], "FOLDER", request.param)


class Golden:
    """One golden file: tensors by name, and the settings it was made with."""

    def __init__(self, name: str):
        path = FOLDER / f"{name}.safetensors"
        if not path.exists():
            pytest.skip(f"no {name} in {FOLDER}; set LYRA_GOLDEN")
        with safe_open(path, "pt") as file:
            self.tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            self.config = json.loads(file.metadata()["config"])

        self.is_subset: bool = self.config.pop("subset", False)

    def __getitem__(self, key: str) -> torch.Tensor:
        if self.is_subset and key not in self.tensors:
            pytest.skip(f"the shipped subset has no {key}; set LYRA_GOLDEN")
        return self.tensors[key]

    def weights(self) -> dict[str, torch.Tensor]:
        return {
            key.removeprefix("weights."): value for key, value in self.tensors.items() if key.startswith("weights.")
        }


def close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    assert actual.shape == expected.shape
    assert (actual.double() - expected.double()).abs().max() < tolerance


def relatively_close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    close(actual, expected, tolerance * expected.abs().max().item())


def test_trajectories():
    golden = Golden("trajectories")
    for name, distance in golden.config["dist"].items():
        close(trajectory(name, distance, golden.config["n"]), golden[f"w2c.{name}"], 1e-6)
        moved = trajectory(
            name,
            distance,
            golden.config["n2"],
            golden.config["center_depth2"],
            golden["input.initial_w2c"],
        )
        close(moved, golden[f"w2c_init.{name}"], 1e-6)
        close(invert_rigid(golden[f"w2c.{name}"]), golden[f"c2w.{name}"], 1e-6)


def test_rays_and_time():
    golden = Golden("rays_time")
    height, width = golden.config["size"]
    cameras = Cameras(golden["input.c2w"][0].double(), golden["input.intrinsics"][0].double(), height, width)
    relative = cameras.relative_to(cameras.camera_to_world[0])
    close(relative.camera_to_world, golden["output.c2w_relative"][0], 1e-5)
    expected = golden["output.plucker"][0]
    assert golden.is_subset or len(expected) == len(cameras)
    close(plucker_map(cameras)[: len(expected)], expected, 1e-5)
    _, step_y, step_x = golden.config["patch_size_out_factor"]
    origins, directions = pixel_rays(cameras.resized(height // step_y, width // step_x))
    close(origins.movedim(-1, 1), golden["output.rays_o"][0], 1e-5)
    close(directions.movedim(-1, 1), golden["output.rays_d"][0], 1e-5)
    times = frame_times(golden.config["times"])
    close(encode_time(times), golden["output.time_source"], 1e-6)
    target = times[golden["input.target_frame"].long()]
    close(encode_time(target), golden["output.time_target"], 1e-6)


def test_gaussian_activation():
    golden = Golden("gaussian_activation")
    config = DecoderConfig(
        near=golden.config["dnear"],
        far=float(golden.config["dfar"]),
        max_scale=golden.config["gaussian_scale_cap"],
        distance_shift=golden.config["pre_sigmoid_distance_shift"],
    )
    raw, origins, directions = (golden[f"input.{name}"].double() for name in ("raw", "rays_o", "rays_d"))
    gaussians = activate_ray(raw, origins, directions, config)
    expected = golden["output.gaussians"].double()
    ours = flat_gaussians(gaussians)
    assert ((ours - expected).abs() / expected.abs().clamp(min=1e-3)).max() < 1e-6 * 10


def flat_gaussians(gaussians) -> torch.Tensor:
    """Upstream's column order: xyz, opacity, scale, quaternion, color."""
    return torch.cat(
        [
            gaussians.means,
            gaussians.opacities[..., None],
            gaussians.scales,
            gaussians.quaternions,
            gaussians.colors,
        ],
        dim=-1,
    )


def test_losses():
    golden = Golden("losses")

    def every_frame(name: str) -> torch.Tensor:
        """Of all scenes of the batch: losses are means over all."""
        return golden[name].flatten(0, 1)[:, 0]

    prediction, truth = every_frame("input.pred_depths"), every_frame("input.gt_depths")
    valid = truth > 0
    assert torch.equal(valid, every_frame("mid.valid_mask").bool())
    everywhere = every_frame("input.gt_depths_all_valid")
    ours = depth_loss(prediction, everywhere, torch.ones_like(everywhere, dtype=torch.bool))
    close(ours, golden["output.depth_loss_all_valid"][0], 1e-6)
    # Deliberate deviation: upstream's median and mean count invalid pixels; ours takes the valid ones.
    ours = depth_loss(prediction, truth, valid)
    close(ours, golden["aux.depth_loss_valid_median_valid_mean"][0], 1e-6)
    mse = F.mse_loss(golden["input.pred_images"], golden["input.gt_images"])
    close(mse, golden["output.mse"][0], 1e-6)
    opacity = golden["input.opacity"]
    close(opacity.mean(), golden["output.opacity_intended"][0], 1e-6)
    # Deliberate deviation: upstream applies the sigmoid a second time.
    close(torch.sigmoid(opacity).mean(), golden["output.opacity_upstream"][0], 1e-6)


@pytest.mark.parametrize("name", ["lyra_decoder_static", "lyra_decoder_dynamic"])
def test_decoder(name: str, tmp_path: Path):
    golden = Golden(name)
    c = golden.config
    path = tmp_path / f"{name.replace('_decoder', '')}.pt"
    torch.save({"module": all_blocks(golden), "global_steps": 3}, path)
    kind = "dynamic" if c["use_time_embedding"] else "static"
    convert_decoder(path, tmp_path / "model", kind=kind, heads=c["heads"])
    decoder = load(tmp_path / "model").decoder
    # Sizes are inferred from the weights alone, geometry is the paper's.
    assert decoder.config == DecoderConfig(
        width=c["dim"],
        depth=c["depth"],
        attention_every=c["index"],
        heads=c["heads"],
        state=c["d_state"],
        latent_channels=c["latent_channels"],
        token_patch=c["patch_size"],
        splats_per_token=c["patch_size"] * c["latent_spat_compression"] // c["patch_size_out_factor"][1],
        splat_frames=c["latent_time_compression"] // c["patch_size_out_factor"][0],
        time_conditioning=c["use_time_embedding"],
        near=c["dnear"],
        far=float(c["dfar"]),
        max_scale=c["gaussian_scale_cap"],
        distance_shift=c["pre_sigmoid_distance_shift"],
    )
    inputs = decoder_inputs(golden)
    with torch.no_grad():
        tokens = decoder.embed(inputs)
        close(tokens, golden["mid.embed"], 1e-4)
        for index, block in enumerate(decoder.blocks):
            known = golden.tensors.get(f"mid.block_{index:02d}")
            if not golden.is_subset:
                tokens = block(tokens)
            elif known is not None and f"weights.enc_blocks.{index}.norm.weight" in golden.tensors:
                tokens = block(golden["mid.embed"])
            elif known is not None and f"weights.enc_blocks.{index}.attn.qkv.weight" in golden.tensors:
                tokens = block(golden[f"mid.block_{index - 1:02d}"])
            elif known is not None:
                tokens = known
            if known is not None:
                close(tokens, known, 1e-4)
        if golden.is_subset and "mid.trunk" not in golden.tensors:
            return  # the rest is the static decoder's
        close(decoder.norm(tokens), golden["mid.trunk"], 1e-4)
        decoder.blocks, decoder.embed = torch.nn.ModuleList(), lambda inputs: tokens
        raw = decoder.raw_gaussians(inputs).flatten(0, 1).movedim(-1, 1)
        close(raw, golden["mid.head"], 1e-4)
        gaussians = decoder(inputs)
    ours, expected = flat_gaussians(gaussians), golden["output.gaussians"]
    relatively_close(ours[..., :3], expected[..., :3], 1e-5)
    close(ours[..., 3:], expected[..., 3:], 1e-4)
    keep = int(len(gaussians) * (1 - c["prune_ratio"]))
    kept = {tuple(row) for row in flat_gaussians(prune(gaussians, keep))[0].tolist()}
    same = [tuple(row) in kept for row in ours[0][golden["output.prune_indices"][0].long()].tolist()]
    # Opacities of neighbours at the cut can differ by 1e-7.
    assert sum(same) >= keep - 2


def all_blocks(golden: Golden) -> dict[str, torch.Tensor]:
    """The weights; where a subset lacks a block, those of another of its kind, which nothing is compared with."""
    weights = golden.weights()
    if not golden.is_subset:
        return weights
    # What both decoders have stands in the static one's file.
    weights = Golden("lyra_decoder_static").weights() | weights
    attention = golden.config["attention_block_indices"]
    for index in range(golden.config["depth"]):
        like = attention[0] if index in attention else 0
        for name in [name for name in weights if name.startswith(f"enc_blocks.{like}.")]:
            weights.setdefault(name.replace(f".{like}.", f".{index}.", 1), weights[name])
    return weights


def decoder_inputs(golden: Golden) -> StudentInputs:
    views, dynamic = golden.config["views"], golden.config["use_time_embedding"]

    def per_view(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.unflatten(1, (views, -1)).transpose(2, 3)

    latents = per_view(golden["input.latents"])
    if "input.rays_o" in golden.tensors:
        rays = [golden[f"input.{key}"].unflatten(1, (views, -1)).movedim(3, -1) for key in ("rays_o", "rays_d")]
    else:
        rays = [torch.zeros(*latents.shape[:2], 1, 1, 1, 3)] * 2
    return StudentInputs(
        latents=latents,
        plucker=per_view(golden["input.plucker_latents"]),
        ray_origins=rays[0],
        ray_directions=rays[1],
        pixel_angle=torch.ones(rays[0].shape[:3]),
        times=golden["input.time_latents"].transpose(1, 2) if dynamic else None,
    )


def test_transformer(tmp_path: Path):
    golden = Golden("gen3c_dit")
    c = golden.config
    torch.save(golden.weights(), tmp_path / "model.pt")
    convert_teacher(tmp_path / "model.pt", tmp_path / "model", precision="float32", shard_bytes=100_000)
    assert len(list((tmp_path / "model/transformer").glob("*.safetensors"))) > 2
    network = load(tmp_path / "model").transformer
    config: Any = network.config
    assert config.num_layers == c["num_blocks"]
    assert config.in_channels == c["in_channels"] + 1  # the padding mask is one of our own layout
    assert config.mlp_ratio == c["mlp_ratio"]
    assert list(config.max_size) == c["max"]
    x = golden["input.x"]
    layout = torch.cat(
        [x, golden["input.condition_mask"], golden["input.pose_latent"], torch.zeros_like(x[:, :1])], dim=1
    )
    for key, fps in (("output.y", c["fps"]), ("output.y_fps2", c["fps2"])):
        with torch.no_grad():
            y = network(layout, golden["input.timestep"], golden["input.crossattn_emb"], fps=fps, return_dict=False)[0]
        close(y, golden[key], 5e-5)


class PooledTokenizer:
    """The stand-in tokenizer of the sampler's golden: pooled frames, channels repeated."""

    spec = LatentSpec(channels=16, temporal=8, spatial=8)

    def encode(self, video: torch.Tensor) -> torch.Tensor:
        groups = [video[:, :, :1], *video[:, :, 1:].split(8, dim=2)]
        pooled = torch.stack([F.avg_pool2d(group.mean(2), 8) for group in groups], dim=2)
        channel = torch.arange(16)
        return pooled[:, channel % 3] * (1 + 0.05 * channel)[:, None, None, None]

    def normalize(self, latents: torch.Tensor) -> torch.Tensor:
        return 0.5 * latents

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError

    def denormalize(self, latents: torch.Tensor) -> torch.Tensor:
        return 2 * latents


def test_sampler():
    golden = Golden("gen3c_sampler")
    c = golden.config
    scheduler = EDMEulerScheduler(
        sigma_max=c["sigma_max"], sigma_min=c["sigma_min"], sigma_data=c["sigma_data"], rho=c["rho"]
    )
    first_frame_mask = torch.zeros_like(golden["input.noise"][:, :1])
    first_frame_mask[:, :, 0] = 1

    def network(pose: torch.Tensor, text: torch.Tensor):
        def call(x: torch.Tensor, time: torch.Tensor) -> torch.Tensor:
            camera = pose.mean(1, keepdim=True)
            time = time.reshape(-1, 1, 1, 1, 1)
            return torch.tanh(0.7 * x + 0.3 * time + 0.5 * first_frame_mask + 0.2 * camera + text.mean())

        return call

    pose = golden["condition.pose_latent"]
    for steps in c["steps"]:
        sigmas = schedule_sigmas(scheduler, steps)
        # The golden's scheduler computed the ramp in float32, today's in float64.
        assert torch.allclose(sigmas, golden[f"steps{steps}.sigmas"], rtol=1e-6, atol=1e-6)
        for guidance in c["guidances"]:
            prefix = f"steps{steps}.g{guidance:g}"
            states: dict[int, torch.Tensor] = {}
            output = sample_euler(
                precondition(
                    guide(
                        network(pose, golden["input.text_emb"]),
                        network(torch.zeros_like(pose), golden["input.neg_text_emb"]),
                        guidance,
                    )
                ),
                golden["input.noise"],
                sigmas,
                golden["input.cond_latent"],
                golden["input.aug_noise"],
                on_step=states.__setitem__,
            )
            close(output, golden[f"{prefix}.output"], 2e-5)
            for step, state in states.items():
                if f"{prefix}.x_after_step_{step:02d}" in golden.tensors:
                    relatively_close(state, golden[f"{prefix}.x_after_step_{step:02d}"], 2e-5)


@pytest.mark.parametrize("suffix", ["", "_n2"])
def test_condition_encoding(suffix: str):
    golden = Golden("gen3c_sampler")
    images = golden["input.condition_state" + suffix][0]
    masks = golden["input.condition_state_mask" + suffix][0, :, :, 0]
    views = CacheViews(images, masks, torch.zeros_like(masks))
    ours = encode_buffers(PooledTokenizer(), views, golden.config["frame_buffer_max"])
    close(ours, golden["condition.pose_latent" + suffix], 1e-5)


def test_tokenizer(tmp_path: Path):
    golden = Golden("cosmos_vae")
    c = golden.config
    save_torchscript(golden.weights(), tmp_path / "autoencoder.jit")
    torch.save((golden["norm.mean"].flatten(), golden["norm.std"].flatten()), tmp_path / "mean_std.pt")
    convert_tokenizer(tmp_path, tmp_path / "model")
    tokenizer = load(tmp_path / "model").tokenizer
    assert isinstance(tokenizer, CosmosTokenizer)
    assert tokenizer.spec == LatentSpec(c["latent_channels"], c["temporal_compression"], c["spatial_compression"])
    with torch.no_grad():
        latent = tokenizer.encode(golden["input.video"])
        relatively_close(latent, golden["output.latent"], 1e-5)
        relatively_close(tokenizer.encode(golden["input.video"][:, :, :1]), golden["output.latent_frame0"], 1e-5)
        relatively_close(tokenizer.decode(golden["output.latent"]), golden["output.decoded"], 1e-5)
        relatively_close(tokenizer.decode(golden["output.latent"][:, :, :1]), golden["output.decoded_frame0"], 1e-5)
    relatively_close(tokenizer.normalize(golden["output.latent"]), golden["norm.latent_normalised"], 1e-5)
    saved = golden["lyra.saved_latents"]
    raw = tokenizer.denormalize(saved).transpose(1, 2).flatten(0, 1)
    relatively_close(raw, golden["lyra.decoder_latents"], 1e-5)


def intrinsics_vector(matrix: torch.Tensor) -> torch.Tensor:
    return torch.stack([matrix[..., 0, 0], matrix[..., 1, 1], matrix[..., 0, 2], matrix[..., 1, 2]], dim=-1)


def warp_setup(golden: Golden) -> tuple[Cameras, Cameras]:
    height, width = golden.config["size"]
    intrinsics = intrinsics_vector(golden["input.intrinsics"])
    source = Cameras(invert_rigid(golden["input.w2c"]), intrinsics, height, width)
    targets = invert_rigid(golden["input.target_w2c"][0])
    return source, Cameras(targets, intrinsics.expand(len(targets), 4), height, width)


@pytest.mark.parametrize("name", ["cache_plain", "cache_filtered", "cache_lyra", "warp_single"])
def test_forward_warp(name: str):
    golden = Golden("forward_warp")
    source, targets = warp_setup(golden)
    settings = WarpSettings(pixel_center=0.0) if name == "warp_single" else PUBLISHED_WARP
    cache = build_cache(
        golden["input.image"],
        golden["input.depth"][:, 0],
        source,
        edges=EdgeFilter() if name in ("cache_filtered", "cache_lyra") else None,
        settings=settings,
    )
    views = render_cache(cache, targets, settings)
    if name == "cache_lyra":
        views = mask_occluded(cache, views, targets, settings)
    stable = golden[f"aux.stable_{name}"][0, :, 0].bool()
    assert torch.equal(views.masks[:, 0][stable], golden[f"{name}.mask"][0, :, 0][stable])
    images = (views.images[:, 0] - golden[f"{name}.image"][0]).movedim(1, -1)[stable]
    assert images.abs().max() < 3e-4
    if f"{name}.depth" in golden.tensors:
        expected = golden[f"{name}.depth"].reshape(views.depth[:, 0].shape)
        assert (views.depth[:, 0] - expected)[stable].abs().max() < 1e-3


def test_edge_mesh():
    golden = Golden("forward_warp")
    source, targets = warp_setup(golden)
    cache = build_cache(
        golden["input.image"], golden["input.depth"][:, 0], source, EdgeFilter(), settings=PUBLISHED_WARP
    )
    mesh = edge_mesh_depth(cache, 0, targets[:1], PUBLISHED_WARP, golden.config["mesh_downsample"])
    assert torch.equal(mesh > 0, golden["mid.mesh_ray_distance_t0"] > 0)


def test_warp_geometry():
    golden = Golden("forward_warp")
    source, targets = warp_setup(golden)
    depth = golden["mid.depth_clamped"][:, 0]
    close(unproject(depth, source, pixel_center=0.0), golden["mid.world_points"], 1e-4)
    assert torch.equal(reliable_depth(depth, EdgeFilter()), golden["mid.reliable_mask"][:, 0].bool())
    depths = golden["input.reliability_depth"][:, 0]
    assert torch.equal(reliable_depth(depths, EdgeFilter()), golden["reliability.mask"][:, 0].bool())
    assert torch.equal(reliable_depth(depths, EdgeFilter(3, 0.2)), golden["reliability.mask_w3_t02"][:, 0].bool())
    # The project's own pixel centres are the same warp with the principal point moved by half a pixel.
    half = torch.tensor([0.0, 0.0, 0.5, 0.5])
    ours = WarpSettings(frames_per_normalization=2)
    moved = [Cameras(c.camera_to_world, c.intrinsics + half, c.height, c.width) for c in (source, targets)]
    views = render_cache(build_cache(golden["input.image"], depth, moved[0], None, ours), moved[1], ours)
    stable = golden["aux.stable_cache_plain"][0, :, 0].bool()
    assert (views.masks[:, 0] == golden["cache_plain.mask"][0, :, 0])[stable].float().mean() > 0.999


def test_ply_example():
    golden = Golden("ply_example")
    ours = flat_gaussians(load_ply(FOLDER / "ply_example.ply"))
    expected = golden["input.gaussians"][0].clone()
    expected[:, 3].clamp_(1e-6, 1 - 1e-6)
    expected[:, 4:7] += 1e-8
    close(ours, expected, 1e-5)
