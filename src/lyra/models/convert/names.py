"""Published weights' names to ours.

Every map is strict: a key is used, or it is in the list of ignored ones, or it is an error. Nothing here opens files.
"""

import re
from collections.abc import Iterable, Mapping, Sequence

from torch import Tensor, nn

from lyra.errors import LyraError

Rules = Iterable[tuple[str, str]]

NOTHING = r"(?!)"
"""Ignored keys where there are none: matches no name."""

DECODER_RULES: Rules = (
    (r"^patch_embed\.", "latent_embed."),
    (r"^patch_plucker_embed\.", "plucker_embed."),
    (r"^patch_time_embed_tgt\.", "target_time_embed."),
    (r"^patch_time_embed\.", "source_time_embed."),
    (r"^enc_blocks\.(\d+)\.mamba\.mamba_scans\.(\d)\.", r"blocks.\1.scans.\2."),
    (r"^enc_blocks\.(\d+)\.mamba\.", r"blocks.\1."),
    (r"^enc_blocks\.", "blocks."),
    (r"^enc_norm\.", "norm."),
    (r"^deconv\.", "head."),
)
"""Lyra's ``LatentRecon`` to ``GaussianDecoder``."""

DECODER_STATIC_IGNORED = r"^patch_time_embed(_tgt)?\."
"""Time embeddings that the static checkpoint holds and never uses."""

TRANSFORMER_RULES: Rules = (
    (r"^net\.", ""),
    (r"^x_embedder\.proj\.1\.", "patch_embed.proj."),
    (r"^t_embedder\.1\.", "time_embed.t_embedder."),
    (r"^affline_norm\.", "time_embed.norm."),
    (r"^extra_pos_embedder\.", "learnable_pos_embed."),
    (r"^blocks\.block(\d+)\.blocks\.0\.block\.attn\.", r"transformer_blocks.\1.attn1."),
    (r"^blocks\.block(\d+)\.blocks\.1\.block\.attn\.", r"transformer_blocks.\1.attn2."),
    (r"^blocks\.block(\d+)\.blocks\.2\.block\.layer1\.", r"transformer_blocks.\1.ff.net.0.proj."),
    (r"^blocks\.block(\d+)\.blocks\.2\.block\.layer2\.", r"transformer_blocks.\1.ff.net.2."),
    (r"^blocks\.block(\d+)\.blocks\.0\.adaLN_modulation\.", r"transformer_blocks.\1.norm1.linear_"),
    (r"^blocks\.block(\d+)\.blocks\.1\.adaLN_modulation\.", r"transformer_blocks.\1.norm2.linear_"),
    (r"^blocks\.block(\d+)\.blocks\.2\.adaLN_modulation\.", r"transformer_blocks.\1.norm3.linear_"),
    (r"\.to_([qkv])\.0\.weight$", r".to_\1.weight"),
    (r"\.to_([qk])\.1\.weight$", r".norm_\1.weight"),
    (r"^final_layer\.adaLN_modulation\.", "norm_out.linear_"),
    (r"^final_layer\.linear\.", "proj_out."),
)
"""GEN3C's network to diffusers' ``CosmosTransformer3DModel``."""

TRANSFORMER_IGNORED = r"^logvar\.|^net\.pos_embedder\.|^conditioner\.|^net\.accum_|_extra_state$"

TOKENIZER_RULES: Rules = (
    (r"\.down\.(\d+)\.block\.", r".down_blocks.\1.resnets."),
    (r"\.down\.(\d+)\.downsample\.", r".down_blocks.\1.downsamplers.0."),
    (r"\.up\.(\d+)\.block\.", r".up_blocks.\1.resnets."),
    (r"\.up\.(\d+)\.upsample\.", r".up_blocks.\1.upsamplers.0."),
    (r"\.mid\.block_1\.", ".mid_block.resnets.0."),
    (r"\.mid\.block_2\.", ".mid_block.resnets.1."),
    (r"\.mid\.attn_1\.0\.", ".mid_block.attentions.0."),
    (r"\.mid\.attn_1\.1\.", ".mid_block.temp_attentions.0."),
    (r"\.([qkv])\.conv3d\.", r".to_\1."),
    (r"\.proj_out\.conv3d\.", ".to_out.0."),
    (r"\.nin_shortcut\.conv3d\.", ".conv_shortcut."),
    (r"\.0\.conv3d\.", ".conv_s."),
    (r"\.1\.conv3d\.", ".conv_t."),
    (r"\.conv3d\.", "."),
)
"""Cosmos' tokenizer to diffusers' ``AutoencoderKLCosmos``; see ``rename_tokenizer`` for the order of up blocks."""

TOKENIZER_IGNORED = r"patcher3d\.(wavelets|_arange|patch_size_buffer)$"


def rename(state: Mapping[str, Tensor], rules: Rules, ignored: str) -> dict[str, Tensor]:
    """Applies every rule to every key in order, after dropping the keys that match ``ignored``.

    Raises:
        LyraError: two keys fall on one name.
    """
    renamed: dict[str, Tensor] = {}
    for key, tensor in state.items():
        if re.search(ignored, key):
            continue
        new = key
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        if new in renamed:
            raise LyraError(f"checkpoint key {key!r} falls on {new!r}, which another key has taken")
        renamed[new] = tensor
    return renamed


def rename_tokenizer(state: Mapping[str, Tensor], levels: int) -> dict[str, Tensor]:
    """The tokenizer's keys; upstream counts its decoder's up blocks from the output, diffusers from the input."""
    renamed = rename(state, TOKENIZER_RULES, TOKENIZER_IGNORED)
    pattern = re.compile(r"\.up_blocks\.(\d+)\.")
    return {
        pattern.sub(lambda match: f".up_blocks.{levels - 1 - int(match[1])}.", key): tensor
        for key, tensor in renamed.items()
    }


def count_ignored(state: Mapping[str, object], ignored: str) -> int:
    """Keys that ``rename`` drops."""
    return sum(bool(re.search(ignored, key)) for key in state)


def check_fit(expected: Mapping[str, Sequence[int]], state: Mapping[str, object]) -> None:
    """Compares a state dict with the names and shapes that a network has.

    Raises:
        LyraError: keys are missing, left over, of another shape or no tensors; the message names the first of each.
    """
    missing, extra = sorted(expected.keys() - state.keys()), sorted(state.keys() - expected.keys())
    shapes = sorted(
        key for key in expected.keys() & state.keys() if tuple(expected[key]) != getattr(state[key], "shape", None)
    )
    if missing or extra or shapes:
        raise LyraError(
            f"checkpoint does not fit: {len(missing)} keys missing {missing[:2]}, {len(extra)} not known "
            f"{extra[:2]}, {len(shapes)} of another shape {shapes[:2]}"
        )


def load_strictly(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Loads a state dict of which every key must fit; see ``check_fit``."""
    check_fit({key: value.shape for key, value in module.state_dict().items()}, state)
    module.load_state_dict(dict(state))
