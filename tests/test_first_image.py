"""The first image by a real text-to-image pipeline of diffusers, tiny and random."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, EDMEulerScheduler, StableDiffusionPipeline, UNet2DConditionModel
from safetensors.torch import load_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from lyra.errors import LyraError
from lyra.files.hub import _PINNED
from lyra.teacher.first_image import DEFAULT_IMAGE_MODEL, ImageModel, draw_first_image


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("pipeline")
    torch.manual_seed(0)
    letters = [*"aroomed", *(f"{letter}</w>" for letter in "aroomed"), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(dict.fromkeys(letters))}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=16)
    text = CLIPTextConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=16,
    )
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=8,
        in_channels=4,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        attention_head_dim=2,
    )
    # diffusers' annotations are narrower than what it takes.
    vae_settings: dict[str, Any] = {
        "block_out_channels": (8, 8),
        "norm_num_groups": 8,
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
        "latent_channels": 4,
    }
    parts: dict[str, Any] = {
        "vae": AutoencoderKL(**vae_settings),
        "text_encoder": CLIPTextModel(text),
        "tokenizer": tokenizer,
        "unet": unet,
        "scheduler": DDIMScheduler(clip_sample=False),
        "safety_checker": None,
        "feature_extractor": None,
    }
    made = StableDiffusionPipeline(**parts, requires_safety_checker=False)
    made.save_pretrained(folder / "saved", safe_serialization=True)
    return folder / "saved"


def draw(folder: Path, prompt: str = "a red room", seed: int = 0) -> torch.Tensor:
    return draw_first_image(prompt, ImageModel(str(folder), steps=2, area=64 * 64), 32, 48, seed)


def test_a_prompt_becomes_a_picture_of_about_the_model_s_shape(pipeline: Path):
    image = draw(pipeline)
    # 64 x 64 pixels at 2:3 are 52 x 78; sides are multiples of 32.
    assert image.shape == (3, 64, 64) or image.shape == (3, 64, 96)
    assert image.min() >= 0
    assert image.max() <= 1
    assert image.std() > 0


def test_the_seed_and_the_prompt_decide_it(pipeline: Path):
    image = draw(pipeline)
    assert torch.equal(draw(pipeline), image)
    assert not torch.equal(draw(pipeline, seed=1), image)
    assert not torch.equal(draw(pipeline, prompt="a"), image)


def test_what_is_no_pipeline_is_refused(tmp_path: Path):
    with pytest.raises(LyraError, match="no pipeline that diffusers can load"):
        draw(tmp_path)
    EDMEulerScheduler().save_pretrained(tmp_path / "scheduler")
    with pytest.raises(LyraError, match="no pipeline that diffusers can load"):
        draw(tmp_path / "scheduler")


def test_pickled_weights_are_not_read(pipeline: Path, tmp_path: Path):
    shutil.copytree(pipeline, tmp_path / "copy")
    weights = tmp_path / "copy/unet/diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    with pytest.raises(LyraError, match="no pipeline that diffusers can load"):
        draw(tmp_path / "copy")


def test_the_default_is_pinned():
    assert _PINNED.match(DEFAULT_IMAGE_MODEL.source)
