"""Shards: plain tar files of samples that any reader of WebDataset opens, and an index that finds each sample in them.

The archive is USTAR without times, owners or padding that could differ: the same samples give the same bytes.
"""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lyra.errors import LyraError
from lyra.files import write_atomically
from lyra.files.atomic import explain_reading
from lyra.files.strict_json import to_json

_BLOCK = tarfile.BLOCKSIZE
_END = bytes(2 * _BLOCK)
"""What ends an archive."""


@dataclass(frozen=True)
class Entry:
    """Where a sample lies in its shard."""

    id: str
    offset: int
    """Of its first header, in bytes."""
    size: int
    """Of all its headers and files, in bytes."""
    sha256: str
    """Of these bytes."""


@dataclass(frozen=True)
class ShardIndex:
    """What a shard holds."""

    name: str
    """Of the tar file."""
    size: int
    """Of the tar file in bytes."""
    sha256: str
    """Of the tar file."""
    samples: tuple[Entry, ...]


class DamagedSampleError(LyraError):
    """A sample's bytes are not those that were written."""


def pack_files(key: str, files: Mapping[str, bytes]) -> bytes:
    """A piece of an archive: files named ``key.suffix``; pieces one after another, and an end, are an archive."""
    pieces = []
    for suffix, content in files.items():
        header = tarfile.TarInfo(f"{key}.{suffix}")
        header.size, header.mode = len(content), 0o644
        pieces += [header.tobuf(tarfile.USTAR_FORMAT), content, bytes(-len(content) % _BLOCK)]
    return b"".join(pieces)


def unpack_files(piece: bytes) -> tuple[str, dict[str, bytes]]:
    """Key and files of a piece by suffix.

    Raises:
        DamagedSampleError: it is none, or of several keys.
    """
    files: dict[str, bytes] = {}
    keys: set[str] = set()
    try:
        with tarfile.open(fileobj=io.BytesIO(piece + _END), mode="r:") as archive:
            for member in archive:
                key, _, suffix = member.name.partition(".")
                content = archive.extractfile(member)
                assert content is not None
                keys.add(key)
                files[suffix] = content.read()
    except (tarfile.TarError, AssertionError, EOFError) as error:
        raise DamagedSampleError(f"a piece of a shard is no archive ({error})") from error
    if len(keys) != 1:
        raise DamagedSampleError(f"a piece of a shard holds {len(keys)} samples")
    return keys.pop(), files


def write_shard(path: Path, pieces: Mapping[str, Path]) -> ShardIndex:
    """Joins pieces to a shard, then writes its index beside it: where that is, the shard is whole.

    Args:
        path: Of the tar file; the index has the suffix ``.json``.
        pieces: Files of ``pack_files`` by their keys, in the order of the shard.

    Raises:
        LyraError: a piece cannot be read, or the disk is full.
    """
    entries, offset, whole = [], 0, hashlib.sha256()
    with write_atomically(path) as temporary, temporary.open("wb") as file:
        for key, source in pieces.items():
            with explain_reading(source):
                content = source.read_bytes()
            file.write(content)
            whole.update(content)
            entries.append(Entry(key, offset, len(content), hashlib.sha256(content).hexdigest()))
            offset += len(content)
        file.write(_END)
        whole.update(_END)
    index = ShardIndex(path.name, offset + len(_END), whole.hexdigest(), tuple(entries))
    with write_atomically(path.with_suffix(".json")) as temporary:
        temporary.write_text(to_json(asdict(index), indent=1) + "\n")
    return index


def read_index(path: Path) -> ShardIndex:
    """Reads the index of a shard.

    Raises:
        LyraError: it is missing or damaged.
    """
    try:
        with explain_reading(path):
            content = json.loads(path.read_text())
        return ShardIndex(**{**content, "samples": tuple(Entry(**entry) for entry in content["samples"])})
    except (ValueError, KeyError, TypeError) as error:
        raise LyraError(f"{path} is damaged: take it from a copy, or make the data set anew") from error


def find_indices(folder: Path, split: str) -> list[Path]:
    """Indices of all finished shards of a split, in their order."""
    return sorted((folder / "shards").glob(f"{split}-*.json"))


def read_piece(shard: Path, entry: Entry) -> bytes:
    """The bytes of a sample.

    Raises:
        DamagedSampleError: they cannot be read, or are not those that were written.
    """
    try:
        with shard.open("rb") as file:
            file.seek(entry.offset)
            content = file.read(entry.size)
    except OSError as error:
        raise DamagedSampleError(f"{shard} cannot be read ({error.strerror or error})") from error
    if hashlib.sha256(content).hexdigest() != entry.sha256:
        raise DamagedSampleError(f"sample {entry.id} in {shard} is damaged")
    return content


def check_shard(folder: Path, index: ShardIndex) -> Sequence[str]:
    """What is wrong with a shard, one line each: nothing where its bytes are those that were written."""
    path = folder / "shards" / index.name
    try:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        size = path.stat().st_size
    except OSError as error:
        return [f"{index.name} cannot be read ({error.strerror or error})"]
    if (size, digest) == (index.size, index.sha256):
        return []
    damaged = list(_damaged(path, index.samples))
    return [f"{index.name} is damaged: {len(damaged)} of {len(index.samples)} samples ({', '.join(damaged)})"]


def _damaged(path: Path, entries: Sequence[Entry]) -> Iterator[str]:
    for entry in entries:
        try:
            read_piece(path, entry)
        except DamagedSampleError:
            yield entry.id
