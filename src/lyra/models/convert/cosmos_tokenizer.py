"""``lyra convert cosmos-tokenizer``: the published Cosmos tokenizer to the ``vae/`` part of a model."""

import hashlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLCosmos
from torch import Tensor

from lyra.errors import LyraError
from lyra.files import load_tensors, save_tensors
from lyra.models.convert.checkpoints import check_digest, load_weights
from lyra.models.convert.names import TOKENIZER_IGNORED, check_fit, count_ignored, rename_tokenizer
from lyra.models.convert.published import LICENCE, fresh_config
from lyra.models.convert.torchscript import read_torchscript
from lyra.models.folder import Origin, add_part
from lyra.models.loading import forget_origin

WEIGHTS = "diffusion_pytorch_model.safetensors"


@dataclass(frozen=True)
class _Published:
    state: dict[str, Tensor]
    """In diffusers' names."""
    config: dict[str, Any]
    mean: Tensor
    std: Tensor
    digests: tuple[str, ...]


def convert_tokenizer(source: Path, out: Path, sha256: str | None = None) -> None:
    """Writes a published tokenizer as a model's ``vae/``, in the precision it has.

    Args:
        source: Folder of ``Cosmos-Tokenize1-CV8x8x8-720p`` (``autoencoder.jit``, or ``encoder.jit`` and
            ``decoder.jit``, with ``mean_std.pt``), or a diffusers ``vae/`` folder. TorchScript is read as data; none
            of its code is run.
        out: The model's folder; other parts in it stay.
        sha256: What the SHA-256 of the file with the weights must be, where it is known; of several files, of their
            digests in the order shown.

    Raises:
        LyraError: the folder holds neither form, or its weights do not fit.
    """
    if not source.is_dir():
        raise LyraError(f"{source} is no folder: give the folder of the Cosmos tokenizer")
    published = _read_diffusers(source) if (source / "config.json").is_file() and _is_diffusers(source) else (
        _read_torchscript(source)
    )  # fmt: skip
    digest = _joint_digest(published.digests)
    if sha256 is not None and digest != sha256.lower().strip():
        raise LyraError(f"the weights in {source} have SHA-256 {digest}, not {sha256}: other files, or damaged")
    with torch.device("meta"):
        vae: Any = AutoencoderKLCosmos(**published.config)
    expected = {key: value.shape for key, value in vae.state_dict().items()}
    # What the network makes itself, its wavelets, is in no checkpoint of ours.
    check_fit(expected, published.state)
    with add_part(out, "vae", fresh_config(), Origin(source.name, digest, LICENCE)) as folder:
        vae.save_config(folder)
        forget_origin(folder / "config.json")
        save_tensors(published.state, folder / WEIGHTS)
        save_tensors({"mean": published.mean, "std": published.std}, folder / "statistics.safetensors")
    print(f"tokenizer: {len(published.state)} keys used", file=sys.stderr)


def _joint_digest(digests: tuple[str, ...]) -> str:
    return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def _is_diffusers(source: Path) -> bool:
    try:
        return json.loads((source / "config.json").read_text()).get("_class_name") == "AutoencoderKLCosmos"
    except (ValueError, AttributeError):
        return False


def _read_diffusers(source: Path) -> _Published:
    config = {k: v for k, v in json.loads((source / "config.json").read_text()).items() if not k.startswith("_")}
    mean, std = (config.pop(f"latents_{name}", None) for name in ("mean", "std"))
    if mean is None or std is None:
        raise LyraError(f"{source / 'config.json'} has no latents_mean and latents_std: give the published folder")
    channels = config.get("latent_channels", 16)
    statistics = [torch.tensor(values).reshape(channels, -1) for values in (mean, std)]
    path = source / WEIGHTS
    digest = check_digest(path, None)
    return _Published(load_tensors(path), _without_statistics(config), statistics[0], statistics[1], (digest,))


def _read_torchscript(source: Path) -> _Published:
    whole, halves = source / "autoencoder.jit", (source / "encoder.jit", source / "decoder.jit")
    files = (whole,) if whole.is_file() else halves
    if not all(file.is_file() for file in files):
        raise LyraError(
            f"{source} holds no tokenizer: give a folder with autoencoder.jit, with encoder.jit and decoder.jit, "
            "or a diffusers vae"
        )
    state: dict[str, Tensor] = {}
    digests = []
    for file in files:
        digests.append(check_digest(file, None))
        state.update(read_torchscript(file))
    try:
        config = infer_tokenizer_config(state)
    except (KeyError, ValueError) as error:
        raise LyraError(f"{files[0]} is no Cosmos video tokenizer with continuous latents: {error}") from error
    mean, std = _read_statistics(source / "mean_std.pt", config["latent_channels"])
    levels = len(config["decode_block_out_channels"]) - 1
    renamed = rename_tokenizer(state, levels)
    print(f"{count_ignored(state, TOKENIZER_IGNORED)} keys known to be unused", file=sys.stderr)
    return _Published(renamed, config, mean, std, tuple(digests))


def _read_statistics(path: Path, channels: int) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation per channel and latent frame."""
    if not path.is_file():
        raise LyraError(f"{path} is missing: it holds the latents' mean and deviation, fetch it with the tokenizer")
    check_digest(path, None)
    content = load_weights(path)
    pair = [content.get("mean"), content.get("std")] if isinstance(content, Mapping) else content
    tensors = [t.float().reshape(channels, -1) for t in pair if isinstance(t, Tensor)] if pair else []
    if len(tensors) != 2 or tensors[0].shape != tensors[1].shape:
        raise LyraError(f"{path} holds no pair of tensors (mean, standard deviation)")
    mean, std = tensors
    if not bool((std > 0).all()):
        raise LyraError(f"{path} holds a standard deviation that is not positive")
    return mean, std


def infer_tokenizer_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Arguments of ``AutoencoderKLCosmos`` from the shapes of the published weights (published names)."""

    def level_width(part: str, level: int) -> int:
        return state[f"{part}.{level}.block.0.conv1.0.conv3d.weight"].shape[0]

    first = state["encoder.conv_in.0.conv3d.weight"]
    levels = 1 + max(int(key.split(".")[2]) for key in state if key.startswith("encoder.down."))
    blocks = 1 + max(int(key.split(".")[4]) for key in state if key.startswith("encoder.down.0.block."))
    patch = round((first.shape[1] / 3) ** (1 / 3))
    downs = {
        name: sum(f"encoder.down.{i}.downsample.{conv}.conv3d.weight" in state for i in range(levels))
        for name, conv in (("spatial", "conv1"), ("temporal", "conv2"))
    }
    up = [level_width("decoder.up", level) for level in range(levels)]
    return _without_statistics(
        {
            "latent_channels": state["quant_conv.conv3d.weight"].shape[0],
            "encoder_block_out_channels": (first.shape[0], *(level_width("encoder.down", i) for i in range(levels))),
            "decode_block_out_channels": (*up, state["decoder.conv_in.0.conv3d.weight"].shape[0]),
            "attention_resolutions": (32,),
            "resolution": 1024,
            "num_layers": blocks,
            "patch_size": patch,
            "patch_type": "haar",
            "spatial_compression_ratio": patch * 2 ** downs["spatial"],
            "temporal_compression_ratio": patch * 2 ** downs["temporal"],
        }
    )


def _without_statistics(config: dict[str, Any]) -> dict[str, Any]:
    # They are kept beside the network, per channel and frame, where the teacher and the student find them.
    return {**config, "latents_mean": None, "latents_std": None}
