"""Renaming of published weights is strict."""

import pytest
import torch
from torch import nn

from lyra.convert.names import (
    DECODER_RULES,
    TRANSFORMER_IGNORED,
    TRANSFORMER_RULES,
    load_strictly,
    rename,
    rename_tokenizer,
)
from lyra.errors import LyraError

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
