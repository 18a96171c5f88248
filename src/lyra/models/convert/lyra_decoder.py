"""``lyra convert lyra-decoder``: the published 3DGS decoder to the ``decoder/`` part of a model."""

import json
import re
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from lyra.errors import LyraError
from lyra.files import save_tensors, write_atomically
from lyra.models.convert.checkpoints import read_checkpoint
from lyra.models.convert.names import DECODER_RULES, DECODER_STATIC_IGNORED, NOTHING, check_fit, count_ignored, rename
from lyra.models.convert.published import fresh_config, origin_of
from lyra.models.folder import add_part
from lyra.student.decoder import DecoderConfig, GaussianDecoder

SceneKind = Literal["auto", "static", "dynamic"]
HEAD_CHANNELS = 64


def convert_decoder(
    path: Path, out: Path, sha256: str | None = None, kind: SceneKind = "auto", heads: int | None = None
) -> DecoderConfig:
    """Writes a published decoder checkpoint as a model's ``decoder/``, in the precision it has.

    Args:
        path: ``lyra_static.pt`` or ``lyra_dynamic.pt``.
        out: The model's folder; other parts in it stay.
        sha256: What the file's SHA-256 must be, where it is known.
        kind: Whether the decoder is conditioned on time; see ``is_dynamic``.
        heads: Attention heads, which shapes do not tell; 64 channels a head when None.

    Returns:
        The decoder's config, inferred from the shapes.

    Raises:
        LyraError: the file is not such a checkpoint, or a key of it is neither used nor known to be unused.
    """
    checkpoint = read_checkpoint(path, sha256)
    dynamic = is_dynamic(checkpoint.state, path.name, kind)
    ignored = NOTHING if dynamic else DECODER_STATIC_IGNORED
    state = rename(checkpoint.state, DECODER_RULES, ignored)
    try:
        config = infer_decoder_config(state, dynamic, heads)
    except (KeyError, IndexError, ZeroDivisionError, ValueError) as error:
        raise LyraError(f"{path} is no decoder checkpoint of Lyra: {error}") from error
    with torch.device("meta"):
        expected = {key: value.shape for key, value in GaussianDecoder(config).state_dict().items()}
    check_fit(expected, state)
    print(
        f"{'dynamic' if dynamic else 'static'} decoder: {len(state)} keys used, "
        f"{count_ignored(checkpoint.state, ignored)} known to be unused, "
        f"{len(checkpoint.left_out)} entries beside the weights left out",
        file=sys.stderr,
    )
    with add_part(out, "decoder", fresh_config(), origin_of(checkpoint)) as folder:
        save_tensors(state, folder / "model.safetensors")
        with write_atomically(folder / "config.json") as file:
            file.write_text(json.dumps(asdict(config), indent=2) + "\n")
    return config


def is_dynamic(state: Mapping[str, Tensor], name: str, kind: SceneKind) -> bool:
    """Whether a published decoder reads times.

    Static checkpoints hold the time embeddings as well, zero as they were initialised, so that their presence alone
    does not tell: when ``kind`` is "auto" the file's name does, and else whether their weights are other than zero.
    """
    weights = [value for key, value in state.items() if re.match(r"patch_time_embed(_tgt)?\.proj\.weight$", key)]
    if kind == "dynamic" and len(weights) < 2:
        raise LyraError(f"{name} has no time embeddings: it is a static decoder")
    if kind != "auto" or len(weights) < 2:
        return kind == "dynamic"
    if ("static" in name) != ("dynamic" in name):
        return "dynamic" in name
    return any(bool(value.any()) for value in weights)


def infer_decoder_config(state: Mapping[str, Tensor], dynamic: bool, heads: int | None) -> DecoderConfig:
    """Size of a decoder from the shapes of its weights (our names)."""
    width, channels, _, patch, _ = state["latent_embed.proj.weight"].shape
    depth = 1 + max(int(key.split(".")[1]) for key in state if key.startswith("blocks."))
    attention = sorted(int(key.split(".")[1]) for key in state if re.match(r"blocks\.\d+\.attn\.qkv\.weight$", key))
    every = attention[0] + 1 if attention else depth + 1
    if attention != [index for index in range(depth) if (index + 1) % every == 0]:
        raise LyraError(f"attention blocks at {attention} are not evenly spaced, which this decoder cannot be")
    first = next(index for index in range(depth) if index not in attention)
    scan = f"blocks.{first}.scans.0"
    inner = state[f"blocks.{first}.out_proj.weight"].shape[1]
    _, _, frames, side, _ = state["head.weight"].shape
    return DecoderConfig(
        width=width,
        depth=depth,
        attention_every=every,
        heads=heads or max(1, width // HEAD_CHANNELS),
        state=(state[f"{scan}.conv1d.weight"].shape[0] - inner) // 2,
        latent_channels=channels,
        token_patch=patch,
        splats_per_token=side,
        splat_frames=max(1, frames - 1),
        time_conditioning=dynamic,
    )
