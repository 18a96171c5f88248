"""A model: the parts that turn a photo into Gaussians, and the folder that holds them.

The folder is laid out as diffusers lays out a pipeline; ``lyra.json`` names frames, resolution, sampling and licence
and holds a checksum of every other file. It may hold only some of the parts::

    lyra.json  vae/  transformer/  scheduler/  text/  depth/  decoder/
"""

import json
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Never, NoReturn

import torch
from diffusers import AutoencoderKLCosmos, CosmosTransformer3DModel, EDMEulerScheduler
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn

from lyra.depth import DepthNet, DepthNetConfig
from lyra.errors import LyraError
from lyra.files import load_tensors, save_tensors, write_atomically
from lyra.models.folder import (
    FORMAT,
    PART_COMMANDS,
    ModelConfig,
    checksum_files,
    missing_part_error,
    read_config,
    verify_checksums,
    write_config,
)
from lyra.student.decoder import DecoderConfig, GaussianDecoder
from lyra.teacher import DiffusionTeacher
from lyra.tokenizer.tokenizer import CosmosTokenizer, LinearTokenizer

if TYPE_CHECKING:
    from lyra.scene.scene import Scene

__all__ = ["BUNDLED", "FORMAT", "MissingPart", "Model", "ModelConfig", "load", "load_module", "save", "save_module"]

BUNDLED = Path(__file__).parent
_FIELDS = {part: "tokenizer" if part == "vae" else part for part in PART_COMMANDS}


class MissingPart:
    """Stands where a model has no such part; any use of it raises the LyraError that says how to make it."""

    def __init__(self, part: str, model: str):
        self._part, self._model = part, model

    def _refuse(self, *_: object, **__: object) -> NoReturn:
        raise missing_part_error(self._part, self._model)

    __call__ = __getitem__ = __iter__ = __len__ = __contains__ = _refuse

    def __getattr__(self, name: str) -> NoReturn:
        # Python itself asks for special names, and takes this error for an answer.
        if name.startswith("__"):
            raise AttributeError(name)
        self._refuse()


# Type checkers need not know: whoever uses a part that is not there gets the error, and no value.
if TYPE_CHECKING:
    Missing = Never
else:
    Missing = MissingPart


@dataclass
class Model:
    """All parts of a model, on one device; a part that the folder does not hold is a ``MissingPart``."""

    config: ModelConfig
    tokenizer: LinearTokenizer | CosmosTokenizer | Missing
    transformer: CosmosTransformer3DModel | Missing
    scheduler: EDMEulerScheduler | Missing
    text: dict[str, Tensor] | Missing
    """Embeddings "empty" and "negative", each [text_token text_channel]."""
    depth: DepthNet | Missing
    decoder: GaussianDecoder | Missing

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of the parts that are there: of vae, transformer, scheduler, text, depth and decoder."""
        return tuple(part for part, name in _FIELDS.items() if not isinstance(getattr(self, name), MissingPart))

    def require(self, *parts: str) -> None:
        """Checks before any work that some parts are there.

        Raises:
            LyraError: one is not; the message names it and the command that makes it.
        """
        for part in parts:
            if part not in self.parts:
                raise missing_part_error(part, self.config.name)

    @property
    def teacher(self) -> DiffusionTeacher:
        """The parts that imagine clips, as one teacher."""
        self.require("vae", "transformer", "scheduler", "text")
        return DiffusionTeacher(
            self.transformer,
            self.tokenizer,
            self.scheduler,
            self.text["empty"],
            self.text["negative"],
            self.config.teacher,
        )

    def generate(self, photo: Path | str | None, out: Path | str, **options) -> "Scene":
        """Photo, video or text to scene; see :func:`lyra.generate.pipeline.generate`."""
        # The pipeline is the one room that knows all others, this class among them.
        from lyra.generate.pipeline import generate
        from lyra.generate.runs import GenerateOptions

        return generate(self, None if photo is None else Path(photo), Path(out), GenerateOptions(**options))


def load(name: str | Path, parts: Sequence[str] | None = None, precision: torch.dtype | None = None) -> Model:
    """Loads a bundled model by name ("mini", "smoke") or any model by its folder.

    Args:
        name: Which model.
        parts: Load these parts alone, of vae, transformer, scheduler, text, depth and decoder; every part that is
            there when None. Others are then missing parts.
        precision: Type of the teacher's network in memory; what ``lyra.json`` says when None. Everything else is
            float32.

    Raises:
        LyraError: there is no such model, a part that was asked for is not there, or a file of it is missing or
            damaged.
    """
    if str(name) == "smoke":
        from lyra.models.smoke import build_smoke_model

        return build_smoke_model()
    folder = BUNDLED / str(name) if (BUNDLED / str(name) / "lyra.json").exists() else Path(name)
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
    fields: dict[str, Any] = {
        field: loaded.get(part, MissingPart(part, config.name)) for part, field in _FIELDS.items()
    }
    return Model(config, **fields)


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
            full = model.transformer.dtype == torch.float32
            if full:
                # Files that fit through narrow channels, between the legs of a training too.
                model.transformer.half().save_pretrained(folder, max_shard_size=_SMALL_SHARD)
                model.transformer.float()
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


def save_module(module: nn.Module, config, folder: Path) -> None:
    """A part of ours: its config as JSON, its weights in half precision."""
    weights = {
        key: value.detach().half().contiguous() if value.is_floating_point() else value
        for key, value in module.state_dict().items()
    }
    save_tensors(weights, folder / "model.safetensors")
    with write_atomically(folder / "config.json") as path:
        path.write_text(json.dumps(asdict(config), indent=2) + "\n")


def load_module(module_class, config_class, folder: Path):
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
