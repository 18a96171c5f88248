"""Finds out which nouns mean a thing that the worlds can draw: hyponyms in WordNet, written to the package.

    apt-get download wordnet-base && dpkg -x wordnet-base*.deb DIR
    recipes/words.py DIR/usr/share/wordnet

WordNet 3.0 (Princeton University) may be used, copied and distributed with its copyright notice, which stands in
``docs/weights.md``. A word counts by its most frequent sense alone: "bank" is no slope.
"""

import gzip
import json
import re
from collections import defaultdict
from pathlib import Path

import tyro

from lyra.worlds.nouns import ANCHORS, NOUNS_FILE


def read_index(path: Path) -> dict[str, list[int]]:
    """Offsets of a noun's senses, the most frequent first."""
    found = {}
    for line in path.read_text().splitlines():
        if line.startswith(" "):
            continue
        parts = line.split()
        count = int(parts[2])
        found[parts[0]] = [int(offset) for offset in parts[-count:]]
    return found


def read_hyponyms(path: Path) -> dict[int, list[int]]:
    """Synsets below each synset, instances apart."""
    found = defaultdict(list)
    for line in path.read_text(encoding="latin-1").splitlines():
        if not line.startswith(" "):
            offset = int(line[:8])
            for target in re.findall(r" ~ (\d{8}) n", line):
                found[offset].append(int(target))
    return found


def main(folder: tyro.conf.Positional[Path], out: Path = NOUNS_FILE) -> None:
    """Writes the nouns.

    Args:
        folder: With ``index.noun``, ``data.noun``, ``index.verb`` and ``index.adj``.
        out: JSON, compressed: a thing's name, and its nouns in one line.
    """
    index, below = read_index(folder / "index.noun"), read_hyponyms(folder / "data.noun")
    meaning: dict[int, str] = {}
    # "Guard" and "native" say what somebody does or how something is, more often than who is there.
    others = set(read_index(folder / "index.verb")) | set(read_index(folder / "index.adj"))
    # What is named later is drawn in its own way: a wardrobe is no mere piece of furniture.
    for name, anchors in ANCHORS.items():
        for anchor in anchors:
            word, _, sense = anchor.partition(".")
            waiting = [index[word][int(sense or 1) - 1]]
            while waiting:
                offset = waiting.pop()
                if meaning.get(offset) != name:
                    meaning[offset] = name
                    waiting += below[offset]
    nouns = defaultdict(list)
    for word, senses in index.items():
        # A Latin name, a number or a saint is no word of a prompt.
        name = meaning.get(senses[0])
        if name == "person" and word in others:
            continue
        if name is not None and re.fullmatch(r"[a-z]+([_-][a-z]+){0,2}", word):
            nouns[name].append(word.replace("_", " ").replace("-", " "))
    lines = {name: " | ".join(sorted(set(words))) for name, words in sorted(nouns.items())}
    out.write_bytes(gzip.compress(json.dumps(lines, indent=0).encode(), mtime=0))
    print({name: len(words) for name, words in nouns.items()}, out.stat().st_size, "bytes")


if __name__ == "__main__":
    tyro.cli(main)
