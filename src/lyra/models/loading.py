"""A model from its folder, and back into one."""

import copy
import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import torch
from diffusers import AutoencoderKLCosmos, CosmosTransformer3DModel, EDMEulerScheduler
from diffusers.utils import logging as diffusers_logging
from torch import nn

from lyra.depth import DepthNet, DepthNetConfig
from lyra.errors import LyraError
from lyra.files import load_tensors, save_tensors, write_atomically
from lyra.files.hub import fetch_folder
from lyra.models.folder import (
    ModelConfig,
    checksum_files,
    missing_part_error,
    read_config,
    verify_checksums,
    write_config,
)
from lyra.models.model import FIELDS, MissingPart, Model
from lyra.models.smoke import build_smoke_model
from lyra.student.decoder import DecoderConfig, GaussianDecoder
from lyra.tokenizer.cosmos import CosmosTokenizer
from lyra.tokenizer.linear import LinearTokenizer

BUNDLED = Path(__file__).parent
"""Holds the folders of the models that come with the package."""


def load(name: str | Path, parts: Sequence[str] | None = None, precision: torch.dtype | None = None) -> Model:
    """Loads a bundled model by name ("mini", "smoke"), any model by its folder, or one of the hub at a pinned commit.

    Args:
        name: Which model: a bundled one's name, a folder, or ``owner/name@commit``.
        parts: Load these parts alone, of vae, transformer, scheduler, text, depth and decoder; every part that is
            there when None. Others are then missing parts.
        precision: Type of the teacher's network in memory; what ``lyra.json`` says when None. Everything else is
            float32.

    Raises:
        LyraError: there is no such model, a part that was asked for is not there, or a file of it is missing or
            damaged.
    """
    if str(name) == "smoke":
        return build_smoke_model()
    folder = find_folder(name)
    if not (folder / "lyra.json").is_file():
        bundled = sorted(path.parent.name for path in BUNDLED.glob("*/lyra.json"))
        raise LyraError(
            f"unknown model {str(name)!r}: give one of {', '.join([*bundled, 'smoke'])}, or a folder with a lyra.json"
        )
    config = read_config(folder)
    wanted = config.parts if parts is None else tuple(parts)
    for part in wanted:
        if part not in config.parts:
            raise missing_part_error(part, config.name)
    verify_checksums(folder, config, wanted)
    try:
        loaded = {part: _load_part(folder / part, config, precision) for part in wanted}
    except (OSError, RuntimeError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise LyraError(f"model folder {folder} cannot be loaded: {' '.join(str(error).split())[:200]}") from error
    fields: dict[str, Any] = {field: loaded.get(part, MissingPart(part, config.name)) for part, field in FIELDS.items()}
    return Model(config, **fields)


def load_parts(name: str | Path, needed: Sequence[str], wanted: Sequence[str] = ()) -> Model:
    """Loads some parts of a model: those that are needed, and those wanted that are there.

    Raises:
        LyraError: as ``load``.
    """
    if str(name) == "smoke":
        return load(name)
    folder = find_folder(name)
    there = read_config(folder).parts if (folder / "lyra.json").is_file() else ()
    return load(name, parts=[*needed, *(part for part in wanted if part in there)])


def find_folder(name: str | Path) -> Path:
    """The folder of a model that is bundled, lies on this machine or on the hub (then it is fetched).

    Raises:
        LyraError: the hub cannot be reached.
    """
    bundled = BUNDLED / str(name)
    if (bundled / "lyra.json").exists():
        return bundled
    return fetch_folder(str(name)) if "@" in str(name) and not Path(name).exists() else Path(name)


def _load_part(folder: Path, config: ModelConfig, precision: torch.dtype | None) -> Any:
    match folder.name:
        case "vae":
            return _load_tokenizer(folder)
        case "transformer":
            # Our commands have bars of their own.
            diffusers_logging.disable_progress_bar()
            # In the wanted type from the start, shard by shard: never two copies of a large network.
            return CosmosTransformer3DModel.from_pretrained(
                folder,
                torch_dtype=precision or getattr(torch, config.precision),
                local_files_only=True,
                use_safetensors=True,
            ).eval()
        case "scheduler":
            return EDMEulerScheduler.from_pretrained(folder, local_files_only=True)
        case "text":
            return {key: value.float() for key, value in load_tensors(folder / "embeddings.safetensors").items()}
        case "depth":
            return load_module(DepthNet, DepthNetConfig, folder)
        case _:
            return load_module(GaussianDecoder, DecoderConfig, folder)


def save(model: Model, folder: Path) -> None:
    """Writes a model's folder with the checksums of what was written, all or nothing; float32 weights go in half."""
    new, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    for part in model.parts:
        _save_part(model, part, new / part)
    write_config(new, replace(model.config, checksums=checksum_files(new)))
    # A kill between the two renames leaves both whole folders, the old one under its hidden name.
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _save_part(model: Model, part: str, folder: Path) -> None:
    match part:
        case "vae":
            save_tokenizer(model.tokenizer, folder)
        case "transformer":
            if model.transformer.dtype == torch.float32:
                # Files that fit through narrow channels, between the legs of a training too.
                half = copy.deepcopy(model.transformer).half()
                half.save_pretrained(folder, max_shard_size=_SMALL_SHARD)
            else:
                model.transformer.save_pretrained(folder)
            forget_origin(folder / "config.json")
        case "scheduler":
            model.scheduler.save_pretrained(folder)
        case "text":
            save_tensors(model.text, folder / "embeddings.safetensors")
        case "depth":
            save_module(model.depth, model.depth.config, folder)
        case "decoder":
            save_module(model.decoder, model.decoder.config, folder)


_SMALL_SHARD = "14MB"
"""Of the networks that the project trains itself."""


def forget_origin(path: Path) -> None:
    """Takes the folder that a part was loaded from, which diffusers notes, out of its config."""
    # It is nobody's business and changes the checksum.
    content = json.loads(path.read_text())
    content.pop("_name_or_path", None)
    path.write_text(json.dumps(content, indent=2, sort_keys=True) + "\n")


Module = TypeVar("Module", bound=nn.Module)


def save_module(module: nn.Module, config: Any, folder: Path) -> None:
    """A part of ours: its config as JSON, its weights in half precision."""
    weights = {
        key: value.detach().half().contiguous() if value.is_floating_point() else value
        for key, value in module.state_dict().items()
    }
    save_tensors(weights, folder / "model.safetensors")
    with write_atomically(folder / "config.json") as path:
        path.write_text(json.dumps(asdict(config), indent=2) + "\n")


def load_module(module_class: type[Module], config_class: type, folder: Path) -> Module:
    """Loads what ``save_module`` wrote, strictly, to float32."""
    config = config_class(**json.loads((folder / "config.json").read_text()))
    module = module_class(config)
    module.load_state_dict(load_tensors(folder / "model.safetensors"))
    return module.float().eval()


def save_tokenizer(tokenizer: LinearTokenizer | CosmosTokenizer, folder: Path) -> None:
    """Writes a tokenizer's part of a model."""
    if isinstance(tokenizer, CosmosTokenizer):
        tokenizer.vae.save_pretrained(folder)
        forget_origin(folder / "config.json")
        save_tensors(dict(tokenizer.statistics.state_dict()), folder / "statistics.safetensors")
        return
    spec = tokenizer.spec
    content = {
        "_class_name": "LinearTokenizer",
        "channels": spec.channels,
        "temporal": spec.temporal,
        "spatial": spec.spatial,
        "latent_frames": tokenizer.statistics.mean.shape[1],
    }
    # The bases are small, and everything behind them inherits their rounding: they stay in full precision.
    save_tensors(dict(tokenizer.state_dict()), folder / "model.safetensors")
    with write_atomically(folder / "config.json") as path:
        path.write_text(json.dumps(content, indent=2) + "\n")


def _load_tokenizer(folder: Path) -> LinearTokenizer | CosmosTokenizer:
    content = json.loads((folder / "config.json").read_text())
    if content.pop("_class_name") == "LinearTokenizer":
        linear = LinearTokenizer(**content)
        linear.load_state_dict(load_tensors(folder / "model.safetensors"))
        return linear.eval()
    vae = AutoencoderKLCosmos.from_pretrained(
        folder, torch_dtype=torch.float32, local_files_only=True, use_safetensors=True
    )
    statistics = load_tensors(folder / "statistics.safetensors")
    cosmos = CosmosTokenizer(vae.eval(), latent_frames=statistics["mean"].shape[1])
    cosmos.statistics.load_state_dict(statistics)
    return cosmos.eval()
