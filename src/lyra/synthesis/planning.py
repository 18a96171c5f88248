"""What a data set will hold, decided before any of it is made: ids, splits and places in shards."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from lyra.depth.pretrained import DEPTH_ANYTHING
from lyra.errors import LyraError
from lyra.files import sha256_file, write_atomically
from lyra.files.hub import fetch_folder
from lyra.files.strict_json import to_json
from lyra.models.model import Model
from lyra.synthesis.choices import SynthesisOptions
from lyra.synthesis.samples import BACKWARD, SPLITS, Split
from lyra.synthesis.sources import Source
from lyra.teacher import TeacherConfig

NOTE, FORMAT = "dataset.json", 1
_ID = 20
"""Hex digits of an id."""


@dataclass(frozen=True)
class Planned:
    """A sample that is to be made."""

    id: str
    source: Source
    split: Split
    seed: int
    shard: str
    """Name of its tar file."""


@dataclass(frozen=True)
class Maker:
    """Whose work the samples are: what every one of them is named after and notes of itself."""

    model: str
    checksums: dict[str, str]
    """SHA-256 of the files of the parts that imagine; of a model that was never saved one of all its numbers."""
    teacher: TeacherConfig

    @classmethod
    def of(cls, model: Model, teacher: TeacherConfig | None = None, estimator: str = "auto") -> "Maker":
        """The parts of a model that decide what it imagines.

        Args:
            model: Whose parts.
            teacher: How it is sampled; its own way when None.
            estimator: Of depth, as of ``choose_depth``.
        """
        parts = ("vae/", "transformer/", "depth/", "text/")
        used = {name: value for name, value in model.config.checksums.items() if name.startswith(parts)}
        used = used or {"weights": _digest(model)}
        if not (estimator == "model" or (estimator == "auto" and "depth" in model.parts)):
            files = sorted(fetch_folder(DEPTH_ANYTHING if estimator == "auto" else estimator).rglob("*.safetensors"))
            used = used | {f"estimator/{file.name}": sha256_file(file) for file in files}
        return cls(model.config.name, used, teacher or model.config.teacher)

    def notes(self) -> dict[str, Any]:
        """As JSON."""
        return json.loads(to_json(asdict(self)))


def _digest(model: Model) -> str:
    digest = hashlib.sha256()
    modules = (model.tokenizer, model.transformer, *([model.depth] if "depth" in model.parts else []))
    for module in modules:
        for tensor in module.state_dict().values():
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def plan_samples(sources: Sequence[Source], maker: Maker, options: SynthesisOptions) -> list[Planned]:
    """All samples in the order of the shards: by split, then by id."""
    drawn = [(source.split(options.held_out), sample_id(source, maker, options), source) for source in sources]
    planned = []
    for split in SPLITS:
        ordered = sorted((name, source) for side, name, source in drawn if side == split)
        for number, (name, source) in enumerate(ordered):
            shard = f"{split}-{number // options.per_shard:05d}.tar"
            planned.append(Planned(name, source, split, input_seed(source, options.seed), shard))
    return planned


def input_seed(source: Source, seed: int) -> int:
    """The seed of one input: another for each, so that no two move by the same distances."""
    return int(hashlib.sha256(f"seed/{seed}/{source.content}".encode()).hexdigest()[:8], 16)


def sample_id(source: Source, maker: Maker, options: SynthesisOptions) -> str:
    """Names a sample after what it is made of."""
    return _name(source, maker, options, list(options.trajectories))


def clip_ids(source: Source, maker: Maker, options: SynthesisOptions, names: Sequence[str]) -> dict[str, str]:
    """Names each clip after what it is made of: the same one in any data set has the same id."""
    return {name: _name(source, maker, options, name.removesuffix(BACKWARD), name.endswith(BACKWARD)) for name in names}


def _name(source: Source, maker: Maker, options: SynthesisOptions, *what: Any) -> str:
    made_of = [source.content, source.posed, maker.notes(), options.seed, options.movement, *what]
    return hashlib.sha256(to_json(made_of, sort_keys=True).encode()).hexdigest()[:_ID]


def provenance(planned: Planned, maker: Maker, options: SynthesisOptions) -> dict[str, Any]:
    """What a sample notes of where it comes from; neither paths nor times."""
    versions = {package: version(package) for package in ("lyra", "torch", "diffusers")}
    source = {"kind": planned.source.kind, "cameras": planned.source.posed}
    return {"source": source, "seed": options.seed, "movement": options.movement, **maker.notes(), "versions": versions}


def claim_folder(folder: Path, planned: Sequence[Planned], maker: Maker, options: SynthesisOptions) -> dict[str, Any]:
    """Notes what a folder will hold, or compares it with the note that is there.

    Raises:
        LyraError: it holds another data set.
    """
    inputs = hashlib.sha256("\n".join(item.id for item in planned).encode()).hexdigest()
    chosen = {field.name: getattr(options, field.name) for field in fields(options)}
    note = {"format": FORMAT, **maker.notes(), **chosen, "samples": len(planned), "inputs": inputs}
    text, path = to_json(note, indent=1) + "\n", folder / NOTE
    if not path.exists():
        with write_atomically(path) as temporary:
            temporary.write_text(text)
    elif path.read_text() != text:
        different = _differences(path, json.loads(text))
        raise LyraError(f"{folder} holds another data set (of other {different}): give another folder, or delete it")
    return json.loads(text)


def _differences(path: Path, wanted: dict[str, Any]) -> str:
    try:
        there = json.loads(path.read_text())
    except ValueError:
        return "bytes"
    names = {"checksums": "weights", "model": "models", "teacher": "sampling", "samples": "inputs"}
    found = [names.get(key, key) for key in wanted if there.get(key) != wanted[key]]
    return ", ".join(dict.fromkeys(found)) or "bytes"
