"""Model folders: what is saved loads to the same model; damage is named."""

import json
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLCosmos

import lyra
from lyra.errors import LyraError
from lyra.model import Model, load, save
from lyra.tokenizer import CosmosTokenizer


@pytest.fixture(scope="module")
def smoke() -> Model:
    return lyra.load("smoke")


def test_a_saved_model_loads_with_the_same_weights(smoke: Model, tmp_path: Path):
    save(smoke, tmp_path)
    again = load(tmp_path)
    assert again.config.teacher == smoke.config.teacher
    assert again.decoder.config == smoke.decoder.config
    for part in ("transformer", "depth", "decoder"):
        ours, theirs = getattr(smoke, part).state_dict(), getattr(again, part).state_dict()
        assert ours.keys() == theirs.keys()
        # Half precision on disk.
        assert all(torch.equal(ours[key].half().float(), theirs[key]) for key in ours)
    video = torch.rand(1, 3, 5, 32, 32) * 2 - 1
    assert torch.equal(smoke.tokenizer.encode(video), again.tokenizer.encode(video))
    # Saving twice gives the same bytes.
    first = json.loads((tmp_path / "lyra.json").read_text())
    save(again, tmp_path / "again")
    assert json.loads((tmp_path / "again/lyra.json").read_text()) == first


def test_a_cosmos_tokenizer_is_saved_with_its_statistics(smoke: Model, tmp_path: Path):
    vae = AutoencoderKLCosmos(
        latent_channels=16,
        encoder_block_out_channels=(8, 8, 8, 8),
        decode_block_out_channels=(8, 8, 8, 8),
        attention_resolutions=(8,),
        resolution=64,
        latents_mean=None,
        latents_std=None,
    ).eval()
    tokenizer = CosmosTokenizer(vae, latent_frames=3)
    tokenizer.statistics.mean.copy_(torch.rand(16, 3))
    tokenizer.statistics.std.copy_(torch.rand(16, 3) + 0.5)
    save(Model(**{**vars(smoke), "tokenizer": tokenizer}), tmp_path)
    again = load(tmp_path).tokenizer
    assert isinstance(again, CosmosTokenizer)
    assert again.spec == tokenizer.spec
    video = torch.rand(1, 3, 9, 32, 32) * 2 - 1
    with torch.no_grad():
        assert torch.allclose(
            again.normalize(again.encode(video)), tokenizer.normalize(tokenizer.encode(video)), atol=1e-5
        )


@pytest.mark.parametrize("name", ["decoder/model.safetensors", "depth/config.json", "lyra.json"])
def test_a_damaged_file_is_named(smoke: Model, tmp_path: Path, name: str):
    save(smoke, tmp_path)
    content = bytearray((tmp_path / name).read_bytes())
    content[len(content) // 2] ^= 0xFF
    (tmp_path / name).write_bytes(content)
    with pytest.raises(LyraError, match=Path(name).name):
        load(tmp_path)


def test_a_missing_file_is_named(smoke: Model, tmp_path: Path):
    save(smoke, tmp_path)
    (tmp_path / "depth/model.safetensors").unlink()
    with pytest.raises(LyraError, match=r"depth/model\.safetensors is missing"):
        load(tmp_path)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(LyraError, match="smoke"):
        load("nothere")
