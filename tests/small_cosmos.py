"""The published tokenizer's class at a size for tests."""

import torch
from diffusers import AutoencoderKLCosmos

from lyra.tokenizer.cosmos import CosmosTokenizer


def small_cosmos(latent_frames: int = 3, layers: int = 1) -> CosmosTokenizer:
    """Always the same random weights."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae = AutoencoderKLCosmos(
            latent_channels=4,
            encoder_block_out_channels=(8,) * 4,
            decode_block_out_channels=(8,) * 4,
            attention_resolutions=(8,),
            resolution=64,
            num_layers=layers,
            patch_size=4,
            patch_type="haar",
            spatial_compression_ratio=8,
            temporal_compression_ratio=8,
            latents_mean=None,
            latents_std=None,
        )
    return CosmosTokenizer(vae.eval(), latent_frames)
