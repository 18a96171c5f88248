"""Text embeddings by a tiny T5 of the real classes."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from tokenizers.models import Unigram
from tokenizers.pre_tokenizers import Metaspace
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast, T5Config, T5EncoderModel

import lyra
from lyra.device.memory import DeviceOptions
from lyra.errors import LyraError
from lyra.models.loading import save
from lyra.models.preflight import load_checked
from lyra.models.smoke import build_smoke_model
from lyra.models.text import embed_texts, takes_text

WORDS = ("▁a", "▁room", "▁red", "▁blue", "▁", "s", "e", "r", "o", "m")


def make_encoder(folder: Path, channels: int = 32) -> Path:
    tokenizer = Tokenizer(
        Unigram([("<pad>", 0.0), ("</s>", 0.0), ("<unk>", -9.0), *((w, -float(i + 1)) for i, w in enumerate(WORDS))], 2)
    )
    tokenizer.pre_tokenizer = Metaspace()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.post_processor = TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])  # pyright: ignore
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", eos_token="</s>", unk_token="<unk>"
    )
    wrapped.save_pretrained(folder / "tokenizer")
    torch.manual_seed(1)
    config = T5Config(vocab_size=16, d_model=channels, d_kv=8, d_ff=64, num_layers=2, num_heads=4)
    T5EncoderModel(config).save_pretrained(folder / "text_encoder")
    return folder


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> Path:
    return make_encoder(tmp_path_factory.mktemp("t5"))


def test_embeddings_are_the_encoder_s_and_zero_behind_the_end(encoder: Path):
    embedded = embed_texts(str(encoder), ["a red room", ""], tokens=12)
    assert embedded.shape == (2, 12, 32)
    # "a red room" is three words and the end, "" the end alone.
    assert (embedded[0, :4].abs().sum(-1) > 0).all()
    assert (embedded[0, 4:] == 0).all()
    assert (embedded[1, 1:] == 0).all()
    ids = torch.tensor([[3, 5, 4, 1]])
    with torch.no_grad():
        expected = T5EncoderModel.from_pretrained(encoder / "text_encoder")(ids).last_hidden_state[0]
    assert torch.allclose(embedded[0, :4], expected, atol=1e-5)


def test_long_texts_are_cut(encoder: Path):
    assert embed_texts(str(encoder), ["a red room " * 50], tokens=8).shape == (1, 8, 32)


def test_what_is_no_encoder_is_refused(tmp_path: Path, encoder: Path):
    (tmp_path / "text_encoder").mkdir()
    with pytest.raises(LyraError, match="holds no text_encoder"):
        embed_texts(str(tmp_path), ["a"])
    pickled = tmp_path / "pickled"
    (pickled / "text_encoder").mkdir(parents=True)
    (pickled / "tokenizer").symlink_to(encoder / "tokenizer")
    (pickled / "text_encoder/config.json").write_text((encoder / "text_encoder/config.json").read_text())
    torch.save(load_file(encoder / "text_encoder/model.safetensors"), pickled / "text_encoder/pytorch_model.bin")
    with pytest.raises(LyraError, match="holds no text_encoder"):
        embed_texts(str(pickled), ["a"])


def test_a_folder_without_text_gets_it_once(tmp_path: Path, encoder: Path):
    model = build_smoke_model()
    save(model, tmp_path / "model")
    config = json.loads((tmp_path / "model/lyra.json").read_text())
    config["checksums"] = {k: v for k, v in config["checksums"].items() if not k.startswith("text/")}
    (tmp_path / "model/text/embeddings.safetensors").unlink()
    (tmp_path / "model/text").rmdir()
    (tmp_path / "model/lyra.json").write_text(json.dumps(config))
    assert "text" not in lyra.load(tmp_path / "model").parts
    loaded = load_checked(str(tmp_path / "model"), DeviceOptions(device="cpu"), 1, str(encoder))
    assert loaded.text["empty"].shape == loaded.text["negative"].shape == (512, 32)
    assert not torch.equal(loaded.text["empty"], loaded.text["negative"])
    assert takes_text(loaded.text)
    before = (tmp_path / "model/text/embeddings.safetensors").stat().st_mtime_ns
    load_checked(str(tmp_path / "model"), DeviceOptions(device="cpu"), 1, str(encoder))
    assert (tmp_path / "model/text/embeddings.safetensors").stat().st_mtime_ns == before


def test_models_of_this_project_take_no_text():
    assert not takes_text(build_smoke_model().text)
