"""``lyra convert gen3c``: the published teacher to the ``transformer/`` and ``scheduler/`` parts of a model."""

import json
import math
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from diffusers import CosmosTransformer3DModel, EDMEulerScheduler
from torch import Tensor

from lyra.errors import LyraError
from lyra.files import save_tensors, write_atomically
from lyra.models.convert.checkpoints import read_checkpoint
from lyra.models.convert.cosmos_tokenizer import convert_tokenizer
from lyra.models.convert.names import TRANSFORMER_IGNORED, TRANSFORMER_RULES, check_fit, count_ignored, rename
from lyra.models.convert.published import fresh_config, origin_of
from lyra.models.folder import add_part
from lyra.models.loading import forget_origin

Precision = Literal["bfloat16", "float16", "float32"]
STEM = "diffusion_pytorch_model"
SHARD_BYTES = 2 << 30
BUFFERS = 2
"""Cache buffers of the published model; each is an image and a mask in latents."""


def convert_teacher(
    path: Path,
    out: Path,
    tokenizer: Path | None = None,
    sha256: str | None = None,
    precision: Precision = "bfloat16",
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Writes GEN3C's network as a model's ``transformer/`` and its noise schedule as ``scheduler/``.

    The checkpoint is memory-mapped and written shard by shard, so that no more than one shard is in memory.

    Args:
        path: ``model.pt`` of GEN3C-Cosmos-7B.
        out: The model's folder; other parts in it stay.
        tokenizer: Folder of the Cosmos tokenizer, converted first; not needed where the model has a ``vae/``.
        sha256: What the SHA-256 of ``path`` must be, where it is known.
        precision: Type that the weights are stored and held in; the published model runs in bfloat16.
        shard_bytes: Size of one file.

    Raises:
        LyraError: the file is not such a checkpoint, or a key of it is neither used nor known to be unused.
    """
    checkpoint = read_checkpoint(path, sha256)
    state = rename(checkpoint.state, TRANSFORMER_RULES, TRANSFORMER_IGNORED)
    try:
        config = infer_transformer_config(state)
    except (KeyError, IndexError, ValueError, ZeroDivisionError, AttributeError) as error:
        raise LyraError(f"{path} is no checkpoint of GEN3C: {error}") from error
    with torch.device("meta"):
        network: Any = CosmosTransformer3DModel(**config)
    check_fit({key: value.shape for key, value in network.state_dict().items()}, state)
    ignored = count_ignored(checkpoint.state, TRANSFORMER_IGNORED)
    print(f"teacher: {len(state)} keys used, {ignored} known to be unused", file=sys.stderr)
    if tokenizer is not None:
        convert_tokenizer(tokenizer, out)
    fresh, origin = fresh_config(precision), origin_of(checkpoint)
    with add_part(out, "scheduler", fresh, origin) as folder:
        EDMEulerScheduler(sigma_max=80.0, sigma_min=0.0002, sigma_data=0.5).save_pretrained(folder)
    with add_part(out, "transformer", fresh, origin, precision=precision) as folder:
        network.save_config(folder)
        forget_origin(folder / "config.json")
        write_shards(state, folder, getattr(torch, precision), shard_bytes)


def infer_transformer_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of ``CosmosTransformer3DModel`` from the shapes of GEN3C's weights (diffusers' names).

    The padding mask is a channel of our own input layout, so that it counts as one of the network's.
    """
    width, inputs = state["patch_embed.proj.weight"].shape
    outputs = state["proj_out.weight"].shape[0]
    # Per latent cell the input has (1 + 2 buffers) times the output's channels, condition mask and padding.
    cells = (inputs - (1 + 2 * BUFFERS) * outputs) // 2
    side = math.isqrt(cells)
    if cells < 1 or side * side != cells or inputs % cells or outputs % cells:
        raise ValueError(
            f"{inputs} inputs and {outputs} outputs of a patch are not GEN3C's layout of {BUFFERS} buffers"
        )
    head = state["transformer_blocks.0.attn1.norm_q.weight"].shape[0]
    sizes = [state[f"learnable_pos_embed.pos_emb_{axis}"].shape[0] for axis in "thw"]
    return {
        "in_channels": inputs // cells,
        "out_channels": outputs // cells,
        "num_attention_heads": width // head,
        "attention_head_dim": head,
        "num_layers": 1 + max(int(key.split(".")[1]) for key in state if key.startswith("transformer_blocks.")),
        "mlp_ratio": state["transformer_blocks.0.ff.net.0.proj.weight"].shape[0] / width,
        "text_embed_dim": state["transformer_blocks.0.attn2.to_k.weight"].shape[1],
        "adaln_lora_dim": state["transformer_blocks.0.norm1.linear_1.weight"].shape[0],
        "max_size": (sizes[0], sizes[1] * side, sizes[2] * side),
        "patch_size": (1, side, side),
        "rope_scale": (2.0, 1.0, 1.0),
        "concat_padding_mask": False,
        "extra_pos_embed_type": "learnable",
    }


def write_shards(state: Mapping[str, Tensor], folder: Path, dtype: torch.dtype, shard_bytes: int) -> None:
    """Writes weights as diffusers' sharded safetensors, one shard in memory at a time."""
    shards = list(plan_shards(state, dtype, shard_bytes))
    names = [f"{STEM}-{i + 1:05d}-of-{len(shards):05d}.safetensors" for i in range(len(shards))]
    if len(shards) == 1:
        names = [f"{STEM}.safetensors"]
    total = 0
    for name, keys in zip(names, shards, strict=True):
        tensors = {key: state[key].to(dtype) for key in keys}
        total += sum(tensor.nbytes for tensor in tensors.values())
        save_tensors(tensors, folder / name)
        print(f"wrote {name}", file=sys.stderr)
    if len(shards) > 1:
        weights = {key: name for name, keys in zip(names, shards, strict=True) for key in keys}
        index = {"metadata": {"total_size": total}, "weight_map": dict(sorted(weights.items()))}
        with write_atomically(folder / f"{STEM}.safetensors.index.json") as path:
            path.write_text(json.dumps(index, indent=2) + "\n")


def plan_shards(state: Mapping[str, Tensor], dtype: torch.dtype, shard_bytes: int) -> Iterator[list[str]]:
    """Keys of each shard, blocks in order, so that a block's weights lie together."""

    def order(key: str) -> tuple[int, str]:
        block = re.match(r"transformer_blocks\.(\d+)\.", key)
        return (int(block[1]) if block else -1, key)

    keys: list[str] = []
    size = 0
    for key in sorted(state, key=order):
        needed = state[key].numel() * dtype.itemsize
        if keys and size + needed > shard_bytes:
            yield keys
            keys, size = [], 0
        keys.append(key)
        size += needed
    yield keys
