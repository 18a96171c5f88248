"""The list of everything that a finished data set holds, by which its copies are checked."""

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from lyra.errors import LyraError
from lyra.files import sha256_file, write_atomically
from lyra.files.atomic import explain_reading
from lyra.files.strict_json import to_json
from lyra.synthesis.samples import SPLITS
from lyra.synthesis.shards import ShardIndex, check_shard, find_indices, read_index

MANIFEST = "manifest.json"


def write_manifest(folder: Path, note: dict[str, Any], missing: Collection[str]) -> dict[str, Any]:
    """Writes and returns what a data set holds; it depends on inputs, model and options alone.

    Args:
        folder: Of the data set, all of whose shards are joined.
        note: What it was asked for.
        missing: Ids of samples that were set aside.

    Raises:
        LyraError: the disk is full, or an index is damaged.
    """
    shards = [
        {
            "name": index.name,
            "split": split,
            "size": index.size,
            "sha256": index.sha256,
            "index_sha256": sha256_file(path),
            "samples": [entry.id for entry in index.samples],
        }
        for split in SPLITS
        for path in find_indices(folder, split)
        for index in [read_index(path)]
    ]
    manifest = {"dataset": note, "shards": shards, "missing": sorted(missing)}
    with write_atomically(folder / MANIFEST) as path:
        path.write_text(to_json(manifest, indent=1) + "\n")
    return manifest


def read_manifest(folder: Path) -> dict[str, Any]:
    """Reads what ``write_manifest`` wrote.

    Raises:
        LyraError: there is none, or it is damaged.
    """
    path = folder / MANIFEST
    if not path.exists():
        raise LyraError(f"{folder} has no {MANIFEST}: it is no data set, or not finished (run lyra synthesize again)")
    try:
        with explain_reading(path):
            content = json.loads(path.read_text())
        return {key: content[key] for key in ("dataset", "shards", "missing")}
    except (ValueError, KeyError, TypeError) as error:
        raise LyraError(f"{path} is damaged: take it from a copy") from error


def check_data(folder: Path) -> list[str]:
    """What is wrong with a finished data set, one line each; nothing where every byte is what it was.

    Raises:
        LyraError: it has no manifest.
    """
    manifest, wrong = read_manifest(folder), []
    named = {shard["name"] for shard in manifest["shards"]}
    for shard in manifest["shards"]:
        path = folder / "shards" / shard["name"]
        index = path.with_suffix(".json")
        if not index.is_file() or sha256_file(index) != shard["index_sha256"]:
            wrong.append(f"{index.name} is missing or damaged")
            wrong += check_shard(folder, ShardIndex(shard["name"], shard["size"], shard["sha256"], ()))
        else:
            wrong += check_shard(folder, read_index(index))
    further = sorted(path.name for path in (folder / "shards").glob("*.tar") if path.name not in named)
    wrong += [f"{name} is not in the manifest" for name in further]
    samples = [sample for shard in manifest["shards"] for sample in shard["samples"]]
    if len(set(samples)) < len(samples):
        wrong.append(f"{len(samples) - len(set(samples))} samples are there twice")
    return wrong


def verify(folder: Path) -> dict[str, int]:
    """Checks a finished data set byte by byte.

    Returns:
        Numbers of its shards, samples and missing samples.

    Raises:
        LyraError: it is not finished, or something is damaged; the message counts and names what.
    """
    wrong = check_data(folder)
    if wrong:
        raise LyraError(
            f"{folder}: {'; '.join(wrong)}. Take it from a copy, or make it again: lyra synthesize with --repair"
        )
    manifest = read_manifest(folder)
    samples = sum(len(shard["samples"]) for shard in manifest["shards"])
    return {"shards": len(manifest["shards"]), "samples": samples, "missing": len(manifest["missing"])}
