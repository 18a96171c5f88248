"""Sizes of the models that the project trains itself, and how to make one from nothing."""

from dataclasses import dataclass, replace

import torch
from diffusers import CosmosTransformer3DModel, EDMEulerScheduler

from lyra.depth import DepthNet, DepthNetConfig
from lyra.models.folder import ModelConfig
from lyra.models.model import Model
from lyra.student.decoder import DecoderConfig, GaussianDecoder
from lyra.teacher import TeacherConfig
from lyra.tokenizer.linear import LinearTokenizer
from lyra.tokenizer.tokenizer import LatentSpec

LICENCE = "Apache-2.0"


@dataclass(frozen=True)
class TransformerSize:
    """Size of the teacher's network; its input layout is GEN3C's."""

    heads: int
    head_channels: int
    layers: int
    patch: int
    """Latent cells of one token's side."""
    adaln: int
    max_size: tuple[int, int, int]
    """Largest latent frames, rows and columns."""
    text_channels: int = 32


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the shape of a model."""

    name: str
    teacher: TeacherConfig
    latent: LatentSpec
    transformer: TransformerSize
    depth: DepthNetConfig
    decoder: DecoderConfig
    residual: bool = False
    """The teacher denoises the difference to the cache's latents; see ``lyra.teacher.residual``."""
    seed: int = 0


MINI = Recipe(
    name="mini",
    teacher=TeacherConfig(
        frames=17,
        height=128,
        width=128,
        fps=8.0,
        steps=1,
        guidance=0.0,
        max_buffers=1,
        edge_window=3,
        edge_threshold=0.15,
        foreground_masking=False,
    ),
    latent=LatentSpec(channels=24, temporal=4, spatial=4),
    transformer=TransformerSize(heads=6, head_channels=64, layers=4, patch=4, adaln=64, max_size=(8, 64, 64)),
    depth=DepthNetConfig(),
    decoder=DecoderConfig(
        width=256,
        depth=8,
        attention_every=8,
        heads=4,
        state=64,
        latent_channels=24,
        token_patch=4,
        splats_per_token=16,
        splat_frames=1,
        time_conditioning=True,
        geometry="cache",
        near=0.1,
        far=100.0,
        opacity_shift=0.0,
        base_scale=0.27,
        max_stretch=3.0,
        novelty=5.0,
        keep=0.2,
        most=600_000,
        smooth=8,
        underlay=2,
        least_scale=0.0,
    ),
    residual=True,
)
"""128 x 128, 17 frames; one Gaussian a pixel of latent frames that shows something new, and one behind every four."""

SMOKE = Recipe(
    name="smoke",
    teacher=TeacherConfig(
        frames=5, height=32, width=32, fps=8.0, steps=2, guidance=1.0, edge_window=3, edge_threshold=0.5
    ),
    latent=LatentSpec(channels=16, temporal=4, spatial=4),
    transformer=TransformerSize(heads=2, head_channels=24, layers=2, patch=2, adaln=8, max_size=(4, 16, 16)),
    depth=DepthNetConfig(size=32, multiplier=0.25, width=8, max_width=16),
    decoder=replace(
        MINI.decoder,
        width=32,
        depth=2,
        attention_every=2,
        heads=2,
        state=16,
        latent_channels=16,
        token_patch=2,
        splats_per_token=8,
        # At 32 pixels a layer behind would lie far behind, and a window for smoothing is half the picture.
        base_scale=0.5,
        smooth=0,
        underlay=0,
        least_scale=-8.0,
    ),
)
"""For tests: random weights, seconds."""


def create_model(recipe: Recipe) -> Model:
    """A model with random weights; its tokenizer is not fitted."""
    with torch.random.fork_rng():
        torch.manual_seed(recipe.seed)
        size, latent = recipe.transformer, recipe.latent
        transformer = CosmosTransformer3DModel(
            in_channels=latent.channels * (1 + 2 * recipe.teacher.max_buffers) + 2,
            out_channels=latent.channels,
            num_attention_heads=size.heads,
            attention_head_dim=size.head_channels,
            num_layers=size.layers,
            text_embed_dim=size.text_channels,
            adaln_lora_dim=size.adaln,
            max_size=size.max_size,
            patch_size=(1, size.patch, size.patch),
            rope_scale=(1.0, 1.0, 1.0),
            # The padding channel is part of our input layout: torchvision, which diffusers would resize it with,
            # is not needed then.
            concat_padding_mask=False,
            extra_pos_embed_type="learnable",
        )
        return Model(
            config=ModelConfig(recipe.name, LICENCE, recipe.teacher),
            tokenizer=LinearTokenizer(
                latent.channels, latent.temporal, latent.spatial, latent.latent_frames(recipe.teacher.frames)
            ).eval(),
            transformer=transformer.eval(),
            scheduler=EDMEulerScheduler(sigma_max=80.0, sigma_min=0.0002, sigma_data=0.5),
            text={key: torch.zeros(1, size.text_channels) for key in ("empty", "negative")},
            depth=DepthNet(recipe.depth).eval(),
            decoder=GaussianDecoder(recipe.decoder).eval(),
        )
