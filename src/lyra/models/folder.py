"""A model's folder on disk: ``lyra.json``, and parts that are added whole or not at all.

A part is a subfolder. ``lyra.json`` decides which parts there are: one that it lists no file of does not exist.
"""

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lyra.errors import LyraError
from lyra.files import sha256_file, write_atomically
from lyra.teacher import TeacherConfig
from lyra.views.sizes import SizeRange

FORMAT = 1
PART_COMMANDS = {
    "vae": "lyra convert cosmos-tokenizer FOLDER -o DIR",
    "transformer": "lyra convert gen3c model.pt --tokenizer FOLDER -o DIR",
    "scheduler": "lyra convert gen3c model.pt --tokenizer FOLDER -o DIR",
    "text": "lyra generate --text-encoder T5 does (docs/published_weights.md)",
    "depth": "or go without, lyra generate --depth depth-anything (docs/published_weights.md)",
    "decoder": "lyra convert lyra-decoder lyra_static.pt -o DIR",
}
"""Every part a model can have, and what makes it from published files."""


@dataclass(frozen=True)
class ModelConfig:
    """What ``lyra.json`` says of a model."""

    name: str
    licence: str
    teacher: TeacherConfig
    checksums: dict[str, str] = field(default_factory=dict)
    """SHA-256 of every file of the folder."""
    provenance: dict[str, dict[str, str]] = field(default_factory=dict)
    """By part: the published file it was made from ("source"), its "sha256" and its "licence"."""
    precision: str = "float32"
    """Type in which the teacher's network is held in memory."""
    sizes: SizeRange | None = None
    """At which sizes it works beside the teacher's own; at that alone when None."""

    @property
    def parts(self) -> tuple[str, ...]:
        """Parts that the folder holds."""
        return tuple(part for part in PART_COMMANDS if _files_of(part, self.checksums))


@dataclass(frozen=True)
class Origin:
    """Where a converted part came from."""

    source: str
    """Name of the published file or folder."""
    sha256: str
    licence: str


def _files_of(part: str, checksums: Mapping[str, str]) -> list[str]:
    return [name for name in checksums if name.startswith(f"{part}/")]


def missing_part_error(part: str, name: str) -> LyraError:
    """What to say where a part is needed that a model does not have."""
    return LyraError(f"model {name!r} has no {part} ({part}/): make it first, {PART_COMMANDS[part]}")


def read_config(folder: Path) -> ModelConfig:
    """Reads ``lyra.json``.

    Raises:
        LyraError: it is damaged, or of a later format.
    """
    path = folder / "lyra.json"
    try:
        content = json.loads(path.read_text())
        if content["format"] != FORMAT:
            raise LyraError(f"{path} has format {content['format']}; this version reads {FORMAT}")
        return ModelConfig(
            name=content["name"],
            licence=content["licence"],
            teacher=TeacherConfig.from_json(content["teacher"]),
            checksums=dict(content["checksums"]),
            provenance=dict(content.get("provenance", {})),
            precision=content.get("precision", "float32"),
            sizes=_read_sizes(content.get("sizes")),
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise LyraError(f"{path} is damaged ({error!r}): fetch the model again") from error


def _read_sizes(content: dict[str, Any] | None) -> SizeRange | None:
    if content is None:
        return None
    first, last = content["trained"]
    return SizeRange(**{**content, "trained": (first, last)})


def write_config(folder: Path, config: ModelConfig) -> None:
    """Writes ``lyra.json``."""
    content: dict[str, Any] = {
        "format": FORMAT,
        "name": config.name,
        "licence": config.licence,
        "teacher": asdict(config.teacher),
    }
    if config.precision != "float32":
        content["precision"] = config.precision
    if config.sizes is not None:
        content["sizes"] = asdict(config.sizes)
    if config.provenance:
        content["provenance"] = config.provenance
    content["checksums"] = dict(sorted(config.checksums.items()))
    with write_atomically(folder / "lyra.json") as path:
        path.write_text(json.dumps(content, indent=2) + "\n")


def checksum_files(folder: Path, below: str = "") -> dict[str, str]:
    """SHA-256 of every file of a model's folder, or of one part of it, by its path in the folder."""
    files = sorted(p for p in (folder / below).rglob("*") if p.is_file() and p != folder / "lyra.json")
    return {str(p.relative_to(folder)): sha256_file(p) for p in files}


def verify_checksums(folder: Path, config: ModelConfig, parts: Iterable[str]) -> None:
    """Compares the files of some parts with what ``lyra.json`` says of them.

    Raises:
        LyraError: a file is missing or differs.
    """
    wanted = tuple(f"{part}/" for part in parts)
    for name, expected in config.checksums.items():
        if not name.startswith(wanted):
            continue
        path = folder / name
        if not path.is_file():
            raise LyraError(f"model file {path} is missing: fetch the model again")
        if sha256_file(path) != expected:
            raise LyraError(f"model file {path} is damaged (its SHA-256 is not the recorded one): fetch it again")


@contextmanager
def add_part(
    folder: Path, part: str, fresh: ModelConfig, origin: Origin | None = None, precision: str | None = None
) -> Iterator[Path]:
    """Yields an empty folder that becomes one part of a model when the block ends without an error.

    A part of that name is replaced; other parts stay. Killed at any time, the model is left with the old part, the
    new one or none of that name, never with half of one.

    Args:
        folder: The model's folder; made where there is none.
        part: One of ``PART_COMMANDS``.
        fresh: What a new ``lyra.json`` says; an existing one keeps its name, licence and sampling.
        origin: The published file that the part is made from.
        precision: What ``lyra.json`` says from now on of the type in which the teacher's network is held.

    Raises:
        LyraError: the folder holds something else, or cannot be written to.
    """
    if part not in PART_COMMANDS:
        raise ValueError(f"{part!r} is no part of a model: one of {', '.join(PART_COMMANDS)}")
    config = _claim(folder, fresh)
    new, old = folder / f".{part}.new", folder / f".{part}.old"
    for leftover in (new, old):
        shutil.rmtree(leftover, ignore_errors=True)
    new.mkdir(parents=True)
    try:
        yield new
        # Read again: a part may have been added meanwhile inside the block.
        config = _claim(folder, fresh)
        config = replace(config, precision=precision or config.precision)
        others = {name: value for name, value in config.checksums.items() if not name.startswith(f"{part}/")}
        provenance = {key: value for key, value in config.provenance.items() if key != part}
        sums = {f"{part}/{name}": value for name, value in checksum_files(new).items()}
        write_config(folder, replace(config, checksums=others, provenance=provenance))
        if (folder / part).exists():
            (folder / part).rename(old)
        new.rename(folder / part)
        if origin is not None:
            provenance[part] = asdict(origin)
        write_config(folder, replace(config, checksums={**others, **sums}, provenance=provenance))
    finally:
        for leftover in (new, old):
            shutil.rmtree(leftover, ignore_errors=True)


def _claim(folder: Path, fresh: ModelConfig) -> ModelConfig:
    if folder.exists() and not folder.is_dir():
        raise LyraError(f"{folder} is a file: give a folder for the model")
    if (folder / "lyra.json").is_file():
        return read_config(folder)
    if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise LyraError(f"{folder} holds something that is no model (no lyra.json): give another folder")
    return replace(fresh, checksums={}, provenance={})
