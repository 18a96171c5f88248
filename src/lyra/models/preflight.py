"""What a model will take, said before it is loaded (from its folder) or before it runs (from its parts)."""

import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from torch import nn

from lyra.device.memory import (
    DeviceOptions,
    Needs,
    NetworkSizes,
    Placement,
    Stage,
    estimate_needs,
    find_memory,
    plan,
    stored_numbers,
    weight_bytes,
)
from lyra.device.ranks import Ranks
from lyra.errors import LyraError
from lyra.models.folder import read_config
from lyra.models.loading import find_folder, load
from lyra.models.model import Model
from lyra.models.text import add_standard_text
from lyra.teacher import TeacherConfig

_PART_MODULES = {"vae": "tokenizer", "transformer": "transformer", "depth": "depth", "decoder": "decoder"}


def needs_of_model(model: Model, clips: int, moving: bool = False, config: TeacherConfig | None = None) -> Needs:
    """Needs of a loaded model for a scene of so many clips."""
    there = {part: getattr(model, name) for part, name in _PART_MODULES.items() if part in model.parts}
    configs: dict[str, Mapping[str, Any]] = {}
    if "transformer" in there:
        configs["transformer"] = dict(there["transformer"].config)
    if "vae" in there:
        vae = getattr(there["vae"], "vae", None)
        configs["vae"] = asdict(there["vae"].spec) if vae is None else dict(vae.config)
    if "decoder" in there:
        configs["decoder"] = asdict(there["decoder"].config)
    parts = {part: weight_bytes(module) for part, module in there.items()}
    size = _element_size(there.get("transformer"))
    sizes = _sizes(config or model.config.teacher, configs, parts, size, clips)
    if moving:
        # What pruning keeps is held at every moment of a chunk.
        share = configs.get("decoder", {}).get("keep", 1.0) * sizes.frames
        sizes = replace(sizes, gaussians=round(sizes.gaussians * max(1.0, share)))
    return estimate_needs(sizes)


def _element_size(module: object) -> int:
    parameter = next(module.parameters(), None) if isinstance(module, nn.Module) else None
    return 4 if parameter is None else parameter.element_size()


def needs_of_folder(folder: Path, clips: int) -> Needs:
    """Needs of a model's folder, from its configs and the headers of its safetensors files alone.

    Raises:
        LyraError: the folder is damaged.
    """
    config = read_config(folder)
    size = 4 if config.precision == "float32" else 2
    configs, parts = {}, {}
    for part in _PART_MODULES:
        if part not in config.parts:
            continue
        try:
            configs[part] = json.loads((folder / part / "config.json").read_text())
        except (OSError, ValueError) as error:
            raise LyraError(f"{folder / part / 'config.json'} is damaged: fetch the model again") from error
        parts[part] = stored_numbers(folder / part) * (size if part == "transformer" else 4)
    return estimate_needs(_sizes(config.teacher, configs, parts, size, clips))


def _sizes(
    teacher: TeacherConfig,
    configs: Mapping[str, Mapping[str, Any]],
    parts: Mapping[str, int],
    element_size: int,
    clips: int,
) -> NetworkSizes:
    vae, transformer, decoder = (configs.get(part, {}) for part in ("vae", "transformer", "decoder"))
    spatial = vae.get("spatial", vae.get("spatial_compression_ratio", 8))
    temporal = vae.get("temporal", vae.get("temporal_compression_ratio", 8))
    cells = (1 + (teacher.frames - 1) // temporal) * (teacher.height // spatial) * (teacher.width // spatial)
    patch = transformer.get("patch_size", (1, 2, 2))
    student_cells = decoder.get("token_patch", 2) ** 2
    widest = max(*vae.get("encoder_block_out_channels", [0])[:1], *vae.get("decode_block_out_channels", [0])[:1])
    grid = max(1, spatial * decoder.get("token_patch", 2) // decoder.get("splats_per_token", 2)) ** 2
    return NetworkSizes(
        frames=teacher.frames,
        height=teacher.height,
        width=teacher.width,
        tokens=cells // (patch[0] * patch[1] * patch[2]),
        hidden=transformer.get("num_attention_heads", 0) * transformer.get("attention_head_dim", 0),
        element_size=element_size,
        tokenizer_channels=widest,
        tokenizer_stride=vae.get("patch_size", 4),
        student_tokens=clips * cells // student_cells,
        student_channels=decoder.get("width", 0),
        gaussians=clips * teacher.frames * teacher.height * teacher.width // grid,
        parts=parts,
    )


def check_folder(folder: Path, wish: DeviceOptions, clips: int) -> Placement:
    """Refuses a model that will not fit, before any of it is loaded.

    Raises:
        LyraError: it will not fit, or is damaged.
    """
    needs = needs_of_folder(folder, clips)
    if wish.eight_bit:
        needs = halve_teacher(needs)
    return plan(needs, find_memory(wish.device), wish, clips)


def load_checked(
    name: str, wish: DeviceOptions, clips: int, text_encoder: str | None = None, ranks: Ranks | None = None
) -> Model:
    """Loads a model after a look at what it takes; a folder without ``text/`` gets it from a text encoder first.

    Raises:
        LyraError: as ``lyra.load``, or it will not fit.
    """
    folder, ranks = find_folder(name), ranks or Ranks()
    if (folder / "lyra.json").is_file():
        placement = check_folder(folder, wish, clips)
        if text_encoder is not None and ranks.first and add_standard_text(folder, text_encoder, placement.device):
            print(
                f"note: embeddings of no text and of the negative prompt are now in {folder / 'text'}", file=sys.stderr
            )
        ranks.wait()
    return load(name)


def halve_teacher(needs: Needs) -> Needs:
    """Needs with the teacher's weights in 8 bits instead of 16."""
    weights = dict(needs.weights)
    weights["transformer"] = weights.get("transformer", 0) // 2
    return Needs(weights, needs.stages, needs.pixels)


def with_teacher(needs: Needs, folder: Path, element_size: int) -> Needs:
    """Needs with the networks of another teacher's pipeline in place of the model's, by its files' headers.

    What they work in is taken for what the model's own teacher would.

    Args:
        needs: Of the model.
        folder: Of a diffusers pipeline; needs stay as they are where it is none.
        element_size: Bytes of one of its numbers once it is loaded.
    """
    if not (folder / "transformer").is_dir():
        return needs
    numbers = {part: stored_numbers(folder / part) for part in ("transformer", "text_encoder", "vae")}
    weights = {**needs.weights, "transformer": element_size * numbers["transformer"]}
    # Its other parts have names of their own beside the model's.
    weights |= {f"teacher's {part}": element_size * numbers[part] for part in ("text_encoder", "vae")}
    stages = (*needs.stages, *(Stage(f"teacher's {part}", 0) for part in ("text_encoder", "vae")))
    return Needs(weights, stages, needs.pixels)
