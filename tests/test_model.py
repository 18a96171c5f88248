"""Model folders: what is saved loads to the same model; damage is named."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKLCosmos

import lyra
from lyra.errors import LyraError
from lyra.files import save_tensors
from lyra.models.folder import Origin, add_part
from lyra.models.loading import load, save
from lyra.models.model import Model
from lyra.tokenizer.cosmos import CosmosTokenizer


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


def test_saving_leaves_the_model_as_it_is(smoke: Model, tmp_path: Path):
    before = {name: value.clone() for name, value in smoke.transformer.state_dict().items()}
    save(smoke, tmp_path / "model")
    after = smoke.transformer.state_dict()
    assert all(torch.equal(value, after[name]) and value.dtype == after[name].dtype for name, value in before.items())
    # That it would show: what was written is rounded.
    written = load(tmp_path / "model").transformer.state_dict()
    assert any(not torch.equal(value, written[name]) for name, value in before.items())


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


def test_a_folder_may_hold_some_of_the_parts(smoke: Model, tmp_path: Path):
    save(smoke, tmp_path / "whole")
    some = load(tmp_path / "whole", parts=["vae", "decoder"])
    assert some.parts == ("vae", "decoder")
    save(some, tmp_path / "some")
    assert sorted(path.name for path in (tmp_path / "some").iterdir()) == ["decoder", "lyra.json", "vae"]
    again = load(tmp_path / "some")
    assert again.parts == again.config.parts == ("vae", "decoder")
    replaced = replace(again, config=replace(again.config, name="other"))
    for use in (
        lambda: replaced.depth.predict(torch.zeros(3, 8, 8)),
        lambda: replaced.text["empty"],
        lambda: replaced.teacher,
        lambda: replaced.require("vae", "depth"),
        lambda: load(tmp_path / "some", parts=["depth"]),
    ):
        with pytest.raises(LyraError, match=r"has no (depth|text|transformer) .*(lyra convert|published_weights)"):
            use()


def test_a_missing_part_names_its_command(tmp_path: Path, smoke: Model):
    save(load_only(smoke, "vae", tmp_path / "a"), tmp_path / "b")
    with pytest.raises(LyraError, match=r"lyra convert lyra-decoder lyra_static\.pt -o DIR"):
        _ = load(tmp_path / "b").decoder.config
    with pytest.raises(LyraError, match=r"lyra convert gen3c model\.pt --tokenizer FOLDER -o DIR"):
        load(tmp_path / "b").transformer.parameters()


def load_only(model: Model, part: str, folder: Path) -> Model:
    save(model, folder)
    return load(folder, parts=[part])


def test_a_part_that_the_list_does_not_name_does_not_exist(smoke: Model, tmp_path: Path):
    save(load_only(smoke, "vae", tmp_path / "a"), tmp_path / "b")
    (tmp_path / "b/depth").mkdir()
    (tmp_path / "b/depth/config.json").write_text("{}")
    assert load(tmp_path / "b").parts == ("vae",)


def test_damage_is_looked_for_in_the_wanted_parts_alone(smoke: Model, tmp_path: Path):
    save(smoke, tmp_path)
    (tmp_path / "depth/model.safetensors").unlink()
    assert load(tmp_path, parts=["decoder"]).parts == ("decoder",)


def test_an_interrupted_part_leaves_the_model_as_it_was(smoke: Model, tmp_path: Path):
    save(smoke, tmp_path / "model")
    before = {path: path.read_bytes() for path in (tmp_path / "model").rglob("*") if path.is_file()}
    config = replace(smoke.config, checksums={})
    with pytest.raises(RuntimeError, match="cut"), add_part(tmp_path / "model", "decoder", config) as folder:
        (folder / "config.json").write_text("{}")
        raise RuntimeError("cut")
    assert {path: path.read_bytes() for path in (tmp_path / "model").rglob("*") if path.is_file()} == before


def test_a_part_is_added_beside_the_others(smoke: Model, tmp_path: Path):
    save(load_only(smoke, "vae", tmp_path / "a"), tmp_path / "b")
    with add_part(tmp_path / "b", "text", smoke.config, Origin("words.pt", "0" * 64, "CC0")) as folder:
        save_tensors(smoke.text, folder / "embeddings.safetensors")
    model = load(tmp_path / "b")
    assert model.parts == ("vae", "text")
    assert model.config.provenance == {"text": {"source": "words.pt", "sha256": "0" * 64, "licence": "CC0"}}
    assert torch.equal(model.text["empty"], smoke.text["empty"])


def test_a_folder_of_something_else_is_left_alone(smoke: Model, tmp_path: Path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(LyraError, match="no model"), add_part(tmp_path, "vae", smoke.config):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_half_precision_network_stays_as_it_is(smoke: Model, tmp_path: Path):
    model = load_only(smoke, "transformer", tmp_path / "a")
    model.transformer.bfloat16()
    save(replace(model, config=replace(model.config, precision="bfloat16")), tmp_path / "b")
    again = load(tmp_path / "b").transformer
    assert again.dtype == torch.bfloat16
    ours, theirs = model.transformer.state_dict(), again.state_dict()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)
    assert load(tmp_path / "b", precision=torch.float32).transformer.dtype == torch.float32
