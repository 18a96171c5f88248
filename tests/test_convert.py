"""Published weights: renaming is strict, files are data, and parts gather in one folder."""

import hashlib
import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from published import decoder_state, save_tokenizer_folder, save_torchscript, teacher_state, tokenizer_state
from torch import nn

from lyra.errors import LyraError
from lyra.files import load_tensors
from lyra.models.convert.cosmos_tokenizer import convert_tokenizer
from lyra.models.convert.gen3c import convert_teacher
from lyra.models.convert.lyra_decoder import convert_decoder
from lyra.models.convert.names import (
    DECODER_RULES,
    TRANSFORMER_IGNORED,
    TRANSFORMER_RULES,
    load_strictly,
    rename,
    rename_tokenizer,
)
from lyra.models.convert.torchscript import read_torchscript
from lyra.models.loading import load
from lyra.student import DecoderConfig

ONE = torch.ones(1)


def make_module() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))


def weights() -> dict[str, torch.Tensor]:
    return {name: torch.full_like(value, 0.5) for name, value in make_module().state_dict().items()}


def test_fitting_weights_are_loaded():
    module = make_module()
    load_strictly(module, weights())
    assert all((value == 0.5).all() for value in module.state_dict().values())


def extra(state: dict[str, torch.Tensor]) -> None:
    state["2.weight"] = ONE


def missing(state: dict[str, torch.Tensor]) -> None:
    del state["1.bias"]


def misshapen(state: dict[str, torch.Tensor]) -> None:
    state["0.weight"] = torch.ones(2, 1)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (extra, r"1 not known \['2.weight'\]"),
        (missing, r"1 keys missing \['1.bias'\]"),
        (misshapen, r"1 of another shape \['0.weight'\]"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_change_nothing(damage, message: str):
    module, state = make_module(), weights()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    damage(state)
    with pytest.raises(LyraError, match=message):
        load_strictly(module, state)
    assert all(torch.equal(value, before[name]) for name, value in module.state_dict().items())


def test_two_keys_on_one_name_are_refused():
    with pytest.raises(LyraError, match="another key has taken"):
        rename({"enc_norm.weight": ONE, "norm.weight": ONE}, DECODER_RULES, r"^$")


def test_ignored_keys_go_and_unknown_ones_stay_to_be_refused():
    state = {"logvar.0.weight": ONE, "net.accum_iteration": ONE, "net.a._extra_state": ONE, "net.surprise": ONE}
    assert list(rename(state, TRANSFORMER_RULES, TRANSFORMER_IGNORED)) == ["surprise"]


@pytest.mark.parametrize(
    ("published", "ours"),
    [
        ("net.x_embedder.proj.1.weight", "patch_embed.proj.weight"),
        ("net.t_embedder.1.linear_2.weight", "time_embed.t_embedder.linear_2.weight"),
        ("net.affline_norm.weight", "time_embed.norm.weight"),
        ("net.extra_pos_embedder.pos_emb_h", "learnable_pos_embed.pos_emb_h"),
        ("net.blocks.block7.blocks.1.block.attn.to_k.0.weight", "transformer_blocks.7.attn2.to_k.weight"),
        ("net.blocks.block7.blocks.0.block.attn.to_q.1.weight", "transformer_blocks.7.attn1.norm_q.weight"),
        ("net.blocks.block7.blocks.0.block.attn.to_out.0.weight", "transformer_blocks.7.attn1.to_out.0.weight"),
        ("net.blocks.block27.blocks.2.block.layer1.weight", "transformer_blocks.27.ff.net.0.proj.weight"),
        ("net.blocks.block27.blocks.2.block.layer2.weight", "transformer_blocks.27.ff.net.2.weight"),
        ("net.blocks.block3.blocks.2.adaLN_modulation.1.weight", "transformer_blocks.3.norm3.linear_1.weight"),
        ("net.final_layer.adaLN_modulation.2.weight", "norm_out.linear_2.weight"),
        ("net.final_layer.linear.weight", "proj_out.weight"),
    ],
)
def test_transformer_names_are_those_of_the_table(published: str, ours: str):
    """The table is that of the project's notes on GEN3C, not the rules'."""
    assert list(rename({published: ONE}, TRANSFORMER_RULES, TRANSFORMER_IGNORED)) == [ours]


def test_up_blocks_of_the_tokenizer_are_counted_from_the_other_end():
    state = {f"decoder.up.{level}.block.0.norm1.norm.weight": torch.tensor(level) for level in range(3)}
    renamed = rename_tokenizer(state, levels=3)
    assert {name: int(value) for name, value in renamed.items()} == {
        f"decoder.up_blocks.{2 - level}.resnets.0.norm1.norm.weight": level for level in range(3)
    }
    down = rename_tokenizer({"encoder.down.1.block.0.norm1.norm.weight": ONE}, levels=3)
    assert list(down) == ["encoder.down_blocks.1.resnets.0.norm1.norm.weight"]


def save_decoder(path: Path, **options: Any) -> Path:
    torch.save({"module": decoder_state(**options), "global_steps": 7}, path)
    return path


@pytest.mark.parametrize("wrap", [lambda s: s, lambda s: {"state_dict": s}, lambda s: {"model": {"module": s}}])
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
def test_a_decoder_loads_from_any_usual_wrapping(tmp_path: Path, wrap, prefix: str):
    torch.save(wrap({prefix + key: value for key, value in decoder_state().items()}), tmp_path / "weights.pt")
    config = convert_decoder(tmp_path / "weights.pt", tmp_path / "model")
    decoder = load(tmp_path / "model").decoder
    assert decoder.config == config == DecoderConfig(width=64, depth=4, attention_every=2, heads=1, state=8)
    assert torch.equal(decoder.head.weight, decoder_state()["deconv.weight"])


@pytest.mark.parametrize(
    ("name", "dynamic", "kind", "expected"),
    [
        ("a.pt", False, "auto", False),
        ("a.pt", True, "auto", True),
        ("lyra_static.pt", True, "auto", False),
        ("lyra_dynamic.pt", False, "auto", True),
        ("lyra_static.pt", True, "dynamic", True),
        ("a.pt", True, "static", False),
    ],
)
def test_time_is_read_by_dynamic_decoders_alone(tmp_path: Path, name: str, dynamic: bool, kind: Any, expected: bool):
    config = convert_decoder(save_decoder(tmp_path / name, dynamic=dynamic), tmp_path / "model", kind=kind)
    assert config.time_conditioning == expected
    assert load(tmp_path / "model").decoder.config.time_conditioning == expected


def test_a_decoder_without_time_cannot_be_dynamic(tmp_path: Path):
    state = {key: value for key, value in decoder_state().items() if "time" not in key}
    torch.save(state, tmp_path / "a.pt")
    assert not convert_decoder(tmp_path / "a.pt", tmp_path / "model").time_conditioning
    with pytest.raises(LyraError, match="no time embeddings"):
        convert_decoder(tmp_path / "a.pt", tmp_path / "model", kind="dynamic")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.update({"surprise.weight": ONE}), "not known"),
        (lambda s: s.pop("enc_norm.bias"), "keys missing"),
        (lambda s: s.update({"enc_norm.bias": ONE}), "another shape"),
        (lambda s: s.pop("deconv.weight"), "no decoder checkpoint"),
    ],
)
def test_a_decoder_that_does_not_fit_is_refused_and_leaves_the_old_one(tmp_path: Path, change, message: str):
    convert_decoder(save_decoder(tmp_path / "good.pt"), tmp_path / "model")
    before = (tmp_path / "model/lyra.json").read_bytes()
    state = decoder_state()
    change(state)
    torch.save(state, tmp_path / "bad.pt")
    with pytest.raises(LyraError, match=message):
        convert_decoder(tmp_path / "bad.pt", tmp_path / "model")
    assert (tmp_path / "model/lyra.json").read_bytes() == before
    assert load(tmp_path / "model").parts == ("decoder",)


class Surprise:
    """What a checkpoint must not hold; building it would run code."""

    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


def test_code_in_a_checkpoint_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"module": decoder_state(), "args": Surprise()}, "bad.pt")
    with pytest.raises(LyraError, match="could run code"):
        convert_decoder(Path("bad.pt"), Path("model"))
    assert not Path("ran").exists()
    assert not Path("model").exists()


def test_in_memory_files_of_quantisation_state_are_ignored(tmp_path: Path):
    state: dict[str, Any] = dict(teacher_state())
    state["net.blocks.block1.blocks.0.block.attn.attn_op._extra_state"] = io.BytesIO(b"state")
    torch.save(state, tmp_path / "model.pt")
    convert_teacher(tmp_path / "model.pt", tmp_path / "model")
    assert load(tmp_path / "model").parts == ("transformer", "scheduler")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "0 bytes"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "LFS pointer"),
        (b"PK\x03\x04 cut off", "no torch checkpoint"),
        (b"<html>not found</html>", "no torch checkpoint|could run code"),
    ],
)
def test_files_that_are_no_checkpoint_are_named(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "lyra_static.pt").write_bytes(content)
    with pytest.raises(LyraError, match=message):
        convert_decoder(tmp_path / "lyra_static.pt", tmp_path / "model")


def test_the_digest_is_compared(tmp_path: Path, capsys: pytest.CaptureFixture):
    path = save_decoder(tmp_path / "a.pt")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    convert_decoder(path, tmp_path / "model", sha256=digest.upper())
    assert digest in capsys.readouterr().err
    content = json.loads((tmp_path / "model/lyra.json").read_text())
    assert content["provenance"]["decoder"]["sha256"] == digest
    assert "NVIDIA" in content["provenance"]["decoder"]["licence"]
    with pytest.raises(LyraError, match="another file"):
        convert_decoder(path, tmp_path / "other", sha256="0" * 64)
    assert not (tmp_path / "other").exists()


def test_all_published_parts_gather_in_one_folder(tmp_path: Path):
    torch.save({key: value.bfloat16() for key, value in teacher_state().items()}, tmp_path / "model.pt")
    save_tokenizer_folder(tmp_path / "tokenizer")
    out = tmp_path / "gen3c"
    convert_decoder(save_decoder(tmp_path / "lyra_static.pt"), out)
    convert_teacher(tmp_path / "model.pt", out, tmp_path / "tokenizer", shard_bytes=30_000)
    index = json.loads((out / "transformer/diffusion_pytorch_model.safetensors.index.json").read_text())
    shards = set(index["weight_map"].values())
    assert len(shards) > 3
    assert index["metadata"]["total_size"] == sum(2 * p.numel() for p in load(out).transformer.parameters())
    model = load(out)
    assert model.parts == ("vae", "transformer", "scheduler", "decoder")
    assert model.config.parts == model.parts
    assert model.config.teacher.published_warp
    weight = teacher_state()["net.blocks.block1.blocks.1.block.attn.to_k.0.weight"].bfloat16()
    assert torch.equal(model.transformer.state_dict()["transformer_blocks.1.attn2.to_k.weight"], weight)
    assert load(out, parts=["transformer"], precision=torch.float32).transformer.dtype == torch.float32
    mean, std = torch.load(tmp_path / "tokenizer/mean_std.pt", weights_only=True)
    assert torch.equal(model.tokenizer.statistics.mean, mean)
    assert torch.equal(model.tokenizer.statistics.std, std)
    latents = torch.randn(1, 16, 2, 4, 4)
    expected = (latents - mean[:, :2, None, None]) / std[:, :2, None, None] * 0.5
    assert torch.allclose(model.tokenizer.normalize(latents), expected, atol=1e-6)
    video = torch.rand(1, 3, 9, 32, 32) * 2 - 1
    with torch.no_grad():
        encoded = model.tokenizer.encode(video)
        assert encoded.shape == (1, 16, 2, 4, 4)
        assert model.tokenizer.decode(encoded).shape == video.shape
        layout = torch.randn(1, 82, 2, 4, 4, dtype=torch.bfloat16)
        text = torch.zeros(1, 3, 20, dtype=torch.bfloat16)
        result = model.transformer(layout, torch.ones(1, dtype=torch.bfloat16), text, fps=24, return_dict=False)[0]
    assert result.shape == (1, 16, 2, 4, 4)
    assert result.isfinite().all()


def test_a_tokenizer_of_two_halves_and_of_diffusers_is_the_same(tmp_path: Path):
    save_tokenizer_folder(tmp_path / "whole")
    convert_tokenizer(tmp_path / "whole", tmp_path / "a")
    halves = tmp_path / "halves"
    halves.mkdir()
    (tmp_path / "whole/mean_std.pt").rename(halves / "mean_std.pt")
    state = tokenizer_state()
    for name, keep in (("encoder", ("encoder.", "quant_")), ("decoder", ("decoder.", "post_"))):
        save_torchscript({k: v for k, v in state.items() if k.startswith(keep)}, halves / f"{name}.jit")
    convert_tokenizer(halves, tmp_path / "b")
    # A diffusers folder keeps the statistics in its config.
    published = tmp_path / "published"
    shutil.copytree(tmp_path / "a/vae", published)
    statistics = load_tensors(published / "statistics.safetensors")
    config = json.loads((published / "config.json").read_text())
    config |= {f"latents_{name}": statistics[name].flatten().tolist() for name in ("mean", "std")}
    (published / "config.json").write_text(json.dumps(config))
    convert_tokenizer(published, tmp_path / "c")
    first = {path.name: path.read_bytes() for path in (tmp_path / "a/vae").iterdir()}
    for other in ("b", "c"):
        assert {path.name: path.read_bytes() for path in (tmp_path / other / "vae").iterdir()} == first


def test_a_tokenizer_without_statistics_is_refused(tmp_path: Path):
    save_tokenizer_folder(tmp_path / "tokenizer")
    (tmp_path / "tokenizer/mean_std.pt").unlink()
    with pytest.raises(LyraError, match=r"mean_std\.pt is missing"):
        convert_tokenizer(tmp_path / "tokenizer", tmp_path / "model")
    with pytest.raises(LyraError, match="holds no tokenizer"):
        convert_tokenizer(tmp_path, tmp_path / "model")


def test_torchscript_is_read_as_traced_and_as_scripted_modules_hold_it(tmp_path: Path):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval().bfloat16()
    x = torch.zeros(1, 3, 8, 8, dtype=torch.bfloat16)
    archives: list[Any] = [torch.jit.trace(module, x), torch.jit.script(module)]
    for archive in archives:
        archive.save(str(tmp_path / "a.jit"))
        tensors = read_torchscript(tmp_path / "a.jit")
        assert all(torch.equal(tensors[key], value) for key, value in module.state_dict().items())


def test_code_in_a_torchscript_archive_is_refused_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("bad.jit", "w") as archive:
        archive.writestr("bad/data.pkl", pickle.dumps(Surprise()))
    with pytest.raises(LyraError, match="refused"):
        read_torchscript(Path("bad.jit"))
    assert not Path("ran").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"text"])
def test_what_is_no_torchscript_is_named(tmp_path: Path, content: bytes):
    (tmp_path / "a.jit").write_bytes(content)
    with pytest.raises(LyraError, match="no TorchScript archive"):
        read_torchscript(tmp_path / "a.jit")


def test_the_command_line_converts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from lyra.cli import main as cli

    path = save_decoder(tmp_path / "lyra_static.pt")
    monkeypatch.setattr("sys.argv", ["lyra", "convert", "lyra-decoder", str(path), "-o", str(tmp_path / "model")])
    cli.main()
    assert load(tmp_path / "model").parts == ("decoder",)
