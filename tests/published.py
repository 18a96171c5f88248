"""Fake published files: the key layout of the real ones, tiny sizes, random weights.

The names are written out here from the notes on the published networks, not derived from the converter's rules.
"""

from pathlib import Path

import torch
from torch import Tensor

State = dict[str, Tensor]


def fill(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> State:
    """Random weights, small enough for a network of them to stay in range; norms near one."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(shape, generator=generator) * (0.5 / max(1, shape[-1]) ** 0.5)
        + (1.0 if "norm" in name and name.endswith("weight") else 0.0)
        for name, shape in shapes.items()
    }


def teacher_state(
    width: int = 48, heads: int = 2, blocks: int = 2, channels: int = 16, text: int = 20, adaln: int = 8
) -> State:
    """GEN3C's ``model.pt``."""
    shapes: dict[str, tuple[int, ...]] = {
        "net.x_embedder.proj.1.weight": (width, (5 * channels + 2) * 4),
        "net.t_embedder.1.linear_1.weight": (width, width),
        "net.t_embedder.1.linear_2.weight": (3 * width, width),
        "net.affline_norm.weight": (width,),
        "net.extra_pos_embedder.pos_emb_t": (8, width),
        "net.extra_pos_embedder.pos_emb_h": (16, width),
        "net.extra_pos_embedder.pos_emb_w": (16, width),
        "net.final_layer.adaLN_modulation.1.weight": (adaln, width),
        "net.final_layer.adaLN_modulation.2.weight": (2 * width, adaln),
        "net.final_layer.linear.weight": (4 * channels, width),
    }
    for block in range(blocks):
        for part in range(3):
            inner = f"net.blocks.block{block}.blocks.{part}"
            shapes[f"{inner}.adaLN_modulation.1.weight"] = (adaln, width)
            shapes[f"{inner}.adaLN_modulation.2.weight"] = (3 * width, adaln)
            if part == 2:
                shapes[f"{inner}.block.layer1.weight"] = (4 * width, width)
                shapes[f"{inner}.block.layer2.weight"] = (width, 4 * width)
                continue
            source = text if part == 1 else width
            for name, size in (("q", width), ("k", source), ("v", source), ("out", width)):
                shapes[f"{inner}.block.attn.to_{name}.0.weight"] = (width, size)
            for name in "qk":
                shapes[f"{inner}.block.attn.to_{name}.1.weight"] = (width // heads,)
    state = fill(shapes)
    state["net.pos_embedder.seq"] = torch.arange(16.0)
    state["logvar.0.freqs"] = torch.ones(4)
    state["net.accum_iteration"] = torch.zeros(1)
    state["net.blocks.block0.blocks.0.block.attn.attn_op._extra_state"] = torch.zeros(4, dtype=torch.uint8)
    return state


def _patch_embed(name: str, width: int, inputs: int) -> dict[str, tuple[int, ...]]:
    vectors: dict[str, tuple[int, ...]] = {
        f"{name}.{end}": (width,) for end in ("proj.bias", "norm.weight", "norm.bias")
    }
    return {f"{name}.proj.weight": (width, inputs, 1, 2, 2), **vectors}


def _attention(name: str, width: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for layer, sizes in (("attn.qkv", (3, 1)), ("attn.proj", (1, 1)), ("mlp.fc1", (4, 1)), ("mlp.fc2", (1, 4))):
        shapes[f"{name}.{layer}.weight"] = (sizes[0] * width, sizes[1] * width)
        shapes[f"{name}.{layer}.bias"] = (sizes[0] * width,)
    for norm in ("norm1", "norm2"):
        shapes[f"{name}.{norm}.weight"] = shapes[f"{name}.{norm}.bias"] = (width,)
    return shapes


def _mamba(name: str, width: int, inner: int, state: int, heads: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        f"{name}.norm.weight": (width,),
        f"{name}.mamba.in_proj.weight": (2 * inner + 2 * state + heads, width),
        f"{name}.mamba.out_proj.weight": (width, inner),
    }
    for scan in range(2):
        part = f"{name}.mamba.mamba_scans.{scan}"
        shapes[f"{part}.conv1d.weight"] = (inner + 2 * state, 1, 4)
        shapes[f"{part}.conv1d.bias"] = (inner + 2 * state,)
        shapes[f"{part}.norm.weight"] = (inner,)
        shapes |= {f"{part}.{vector}": (heads,) for vector in ("A_log", "D", "dt_bias")}
    return shapes


def decoder_state(
    width: int = 64, depth: int = 4, every: int = 2, state: int = 8, dynamic: bool = False, channels: int = 16
) -> State:
    """Lyra's ``lyra_static.pt`` or, with ``dynamic``, ``lyra_dynamic.pt``; both hold time embeddings."""
    inner, heads = 2 * width, 2 * width // 64
    shapes: dict[str, tuple[int, ...]] = {
        "enc_norm.weight": (width,),
        "enc_norm.bias": (width,),
        "deconv.weight": (width, 12, 9, 2, 2),
        "deconv.bias": (12,),
    }
    for name, inputs in (("", channels), ("_plucker", 2 * channels), ("_time", channels)):
        shapes |= _patch_embed(f"patch{name}_embed", width, inputs)
    shapes |= _patch_embed("patch_time_embed_tgt", width, channels)
    for block in range(depth):
        name = f"enc_blocks.{block}"
        shapes |= _attention(name, width) if (block + 1) % every == 0 else _mamba(name, width, inner, state, heads)
    weights = fill(shapes, seed=1)
    if not dynamic:  # as initialised: nothing ever trains them
        for name in weights:
            if "time_embed" in name and "proj" in name:
                weights[name].zero_()
    return weights


def tokenizer_state(width: int = 8, levels: int = 3, blocks: int = 2, channels: int = 16) -> State:
    """Cosmos' ``autoencoder.jit``, all levels of one width; compression 8 in space and time."""
    convs: dict[str, tuple[int, ...]] = {
        "quant_conv": (channels, channels, 1, 1, 1),
        "post_quant_conv": (channels, channels, 1, 1, 1),
    }
    norms: list[str] = []
    for side, inputs, outputs, branch in (("encoder", 192, channels, "down"), ("decoder", channels, 192, "up")):
        convs |= _factorized(f"{side}.conv_in", width, inputs) | _factorized(f"{side}.conv_out", outputs, width)
        residual = [f"{side}.mid.block_{index}" for index in (1, 2)]
        residual += [
            f"{side}.{branch}.{level}.block.{block}"
            for level in range(levels)
            for block in range(blocks + (side == "decoder"))
        ]
        for name in residual:
            for index in (1, 2):
                norms.append(f"{name}.norm{index}")
                convs |= _factorized(f"{name}.conv{index}", width, width)
        for name in (f"{side}.mid.attn_1.0", f"{side}.mid.attn_1.1"):
            norms.append(f"{name}.norm")
            convs |= {f"{name}.{layer}": (width, width, 1, 1, 1) for layer in ("q", "k", "v", "proj_out")}
        norms.append(f"{side}.norm_out")
    space, time = (width, width, 1, 3, 3), (width, width, 3, 1, 1)
    samplers = (("encoder.down.0.downsample", space, time), (f"decoder.up.{levels - 2}.upsample", time, space))
    for name, first, second in samplers:
        convs |= {f"{name}.conv1": first, f"{name}.conv2": second, f"{name}.conv3": (width, width, 1, 1, 1)}
    shapes: dict[str, tuple[int, ...]] = {f"{name}.conv3d.weight": shape for name, shape in convs.items()}
    shapes |= {f"{name}.conv3d.bias": shape[:1] for name, shape in convs.items()}
    shapes |= {f"{name}.norm.{end}": (width,) for name in norms for end in ("weight", "bias")}
    state = fill(shapes, seed=2)
    for side in ("encoder.patcher3d", "decoder.unpatcher3d"):
        state[f"{side}.wavelets"] = torch.full((2,), 0.5**0.5)
        state[f"{side}._arange"] = torch.arange(2)
    state["encoder.patcher3d.patch_size_buffer"] = torch.tensor([4], dtype=torch.int32)
    return state


def _factorized(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.0": (outputs, inputs, 1, 3, 3), f"{name}.1": (outputs, outputs, 3, 1, 1)}


def save_torchscript(weights: State, path: Path) -> None:
    """A TorchScript archive whose modules hold the weights by their names, as the published one does."""
    root = torch.nn.Module()
    for name, tensor in weights.items():
        *parents, leaf = name.split(".")
        module = root
        for parent in parents:
            if not hasattr(module, parent):
                module.add_module(parent, torch.nn.Module())
            module = getattr(module, parent)
        module.register_buffer(leaf, tensor.clone())
    torch.jit.script(root).save(str(path))


def save_tokenizer_folder(folder: Path, latent_frames: int = 16) -> None:
    """The folder of ``Cosmos-Tokenize1-CV8x8x8-720p``."""
    folder.mkdir(parents=True, exist_ok=True)
    save_torchscript(tokenizer_state(), folder / "autoencoder.jit")
    generator = torch.Generator().manual_seed(3)
    mean = 0.1 * torch.randn(16, latent_frames, generator=generator)
    torch.save((mean, 0.5 + torch.rand(16, latent_frames, generator=generator)), folder / "mean_std.pt")
