"""A model: the parts that turn a photo into Gaussians, and the folder that holds them.

The folder is laid out as diffusers lays out a pipeline; ``lyra.json`` names frames, resolution, sampling and licence
and holds a checksum of every other file::

    lyra.json  vae/  transformer/  scheduler/  text/  depth/  decoder/
"""

import json
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from diffusers import AutoencoderKLCosmos, CosmosTransformer3DModel, EDMEulerScheduler
from torch import Tensor, nn

from lyra.depth import DepthNet, DepthNetConfig
from lyra.errors import LyraError
from lyra.formats import load_tensors, save_tensors, sha256_file, write_atomically
from lyra.student.decoder import DecoderConfig, GaussianDecoder
from lyra.teacher import DiffusionTeacher, TeacherConfig
from lyra.tokenizer import CosmosTokenizer, LinearTokenizer

if TYPE_CHECKING:
    from lyra.scene import Scene

FORMAT = 1
BUNDLED = Path(__file__).parent / "models"


@dataclass(frozen=True)
class ModelConfig:
    """What ``lyra.json`` says of a model."""

    name: str
    licence: str
    teacher: TeacherConfig
    checksums: dict[str, str] = field(default_factory=dict)
    """SHA-256 of every file of the folder."""


@dataclass
class Model:
    """All parts of a model, on one device."""

    config: ModelConfig
    tokenizer: LinearTokenizer | CosmosTokenizer
    transformer: CosmosTransformer3DModel
    scheduler: EDMEulerScheduler
    text: dict[str, Tensor]
    """Embeddings "empty" and "negative", each [text_token text_channel]."""
    depth: DepthNet
    decoder: GaussianDecoder

    @property
    def teacher(self) -> DiffusionTeacher:
        """The parts that imagine clips, as one teacher."""
        return DiffusionTeacher(
            self.transformer,
            self.tokenizer,
            self.scheduler,
            self.text["empty"],
            self.text["negative"],
            self.config.teacher,
        )

    def generate(self, photo: Path | str, out: Path | str, **options) -> "Scene":
        """Photo to scene; see :func:`lyra.pipeline.generate`."""
        # The pipeline is the one room that knows all others, this class among them.
        from lyra.pipeline import GenerateOptions, generate

        return generate(self, Path(photo), Path(out), GenerateOptions(**options))


def load(name: str | Path) -> Model:
    """Loads a bundled model by name ("mini", "smoke") or any model by its folder.

    Raises:
        LyraError: there is no such model, or a file of it is missing or damaged.
    """
    if str(name) == "smoke":
        from lyra.smoke import build_smoke_model

        return build_smoke_model()
    folder = BUNDLED / str(name) if (BUNDLED / str(name) / "lyra.json").exists() else Path(name)
    if not (folder / "lyra.json").is_file():
        bundled = sorted(path.parent.name for path in BUNDLED.glob("*/lyra.json"))
        raise LyraError(
            f"unknown model {str(name)!r}: give one of {', '.join([*bundled, 'smoke'])}, or a folder with a lyra.json"
        )
    config = _read_config(folder)
    _verify_checksums(folder, config)
    try:
        scheduler: Any = EDMEulerScheduler.from_pretrained(folder / "scheduler", local_files_only=True)
        return Model(
            config=config,
            tokenizer=_load_tokenizer(folder / "vae"),
            transformer=CosmosTransformer3DModel.from_pretrained(
                folder / "transformer", torch_dtype=torch.float32, local_files_only=True, use_safetensors=True
            ).eval(),
            scheduler=scheduler,
            text={key: value.float() for key, value in load_tensors(folder / "text/embeddings.safetensors").items()},
            depth=load_module(DepthNet, DepthNetConfig, folder / "depth"),
            decoder=load_module(GaussianDecoder, DecoderConfig, folder / "decoder"),
        )
    except (OSError, RuntimeError, KeyError, TypeError, ValueError) as error:
        raise LyraError(f"model folder {folder} cannot be loaded: {' '.join(str(error).split())[:200]}") from error


def save(model: Model, folder: Path) -> None:
    """Writes a model's folder, weights in half precision, with the checksums of what was written, all or nothing."""
    new, old = folder.with_name(f".{folder.name}.new"), folder.with_name(f".{folder.name}.old")
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    _write_parts(model, new)
    # A kill between the two renames leaves both whole folders, the old one under its hidden name.
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _write_parts(model: Model, folder: Path) -> None:
    model.transformer.half().save_pretrained(folder / "transformer")
    model.transformer.float()
    _forget_origin(folder / "transformer/config.json")
    model.scheduler.save_pretrained(folder / "scheduler")
    _save_tokenizer(model.tokenizer, folder / "vae")
    save_tensors(model.text, folder / "text/embeddings.safetensors")
    save_module(model.depth, model.depth.config, folder / "depth")
    save_module(model.decoder, model.decoder.config, folder / "decoder")
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "lyra.json")
    content = {
        "format": FORMAT,
        "name": model.config.name,
        "licence": model.config.licence,
        "teacher": asdict(model.config.teacher),
        "checksums": {str(p.relative_to(folder)): sha256_file(p) for p in files},
    }
    with write_atomically(folder / "lyra.json") as path:
        path.write_text(json.dumps(content, indent=2) + "\n")


def _forget_origin(path: Path) -> None:
    # diffusers notes the folder that a part was loaded from, which is nobody's business and changes the checksum.
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


def _read_config(folder: Path) -> ModelConfig:
    try:
        content = json.loads((folder / "lyra.json").read_text())
        if content["format"] != FORMAT:
            raise LyraError(f"{folder / 'lyra.json'} has format {content['format']}; this version reads {FORMAT}")
        teacher = TeacherConfig(**content["teacher"])
        return ModelConfig(content["name"], content["licence"], teacher, content["checksums"])
    except (json.JSONDecodeError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise LyraError(f"{folder / 'lyra.json'} is damaged ({error!r}): fetch the model again") from error


def _verify_checksums(folder: Path, config: ModelConfig) -> None:
    for name, expected in config.checksums.items():
        path = folder / name
        if not path.is_file():
            raise LyraError(f"model file {path} is missing: fetch the model again")
        if sha256_file(path) != expected:
            raise LyraError(f"model file {path} is damaged (its SHA-256 is not the recorded one): fetch it again")


def _save_tokenizer(tokenizer: LinearTokenizer | CosmosTokenizer, folder: Path) -> None:
    if isinstance(tokenizer, CosmosTokenizer):
        tokenizer.vae.save_pretrained(folder)
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
