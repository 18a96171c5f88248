"""Where ``make scene`` puts the scene of an input: a folder of its name, which two inputs never share.

python -m lyra.generate.scene_names photo.jpg
"""

import json
import sys
from itertools import count
from pathlib import Path

from lyra.errors import LyraError
from lyra.files.atomic import sha256_file

FOLDER = Path("scenes")


def choose_folder(source: Path, folder: Path = FOLDER) -> Path:
    """``folder/NAME``, or ``folder/NAME-2`` and so on where that holds the scene of another input.

    Raises:
        LyraError: the input cannot be read.
    """
    digest = sha256_file(_first_picture(source))
    name = source.stem or "scene"
    candidates = (folder / (name if number == 1 else f"{name}-{number}") for number in count(1))
    return next(place for place in candidates if _is_free_for(place, digest))


def _first_picture(source: Path) -> Path:
    """What a run is told by: of posed photos the first."""
    if source.suffix.lower() != ".json":
        return source
    from lyra.files.poses import load_posed_images

    return load_posed_images(source)[0][0]


def _is_free_for(place: Path, digest: str) -> bool:
    if not place.exists():
        return True
    if not place.is_dir():
        return False
    try:
        return json.loads((place / "clips/run.json").read_text())["input_sha256"] == digest
    except FileNotFoundError:
        return not any(place.iterdir())
    except (OSError, ValueError, KeyError, TypeError):
        return False


if __name__ == "__main__":
    try:
        print(choose_folder(Path(sys.argv[1])))
    except LyraError as problem:
        sys.exit(f"lyra: {problem}")
