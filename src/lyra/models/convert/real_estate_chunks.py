"""pixelSplat's chunks of RealEstate10K, which are pickles, as the data set's own text and pictures."""

import re
from pathlib import Path
from typing import Any

import torch

from lyra.errors import LyraError
from lyra.files import write_atomically
from lyra.models.convert.checkpoints import load_weights

_NAME = re.compile(r"[0-9A-Za-z_-]{1,64}")


def convert_chunk(file: Path, out: Path) -> list[str]:
    """Writes ``OUT/SCENE.txt`` and ``OUT/SCENE/TIME.jpg`` of every scene of a chunk; what is there already stays.

    The pictures are the chunk's own JPEGs, byte for byte.

    Args:
        file: ``000000.torch`` and so on: a list of scenes with "key", "url", "timestamps", "cameras" (fx fy cx cy in
            sizes of the picture, two zeros, world_to_camera row by row) and "images".
        out: Folder for the scenes.

    Returns:
        The scenes' names.

    Raises:
        LyraError: the file is missing or no such chunk.

    Source: ``dataset_re10k.py`` and ``convert_re10k.py`` of pixelSplat.
    """
    content: Any = load_weights(file)
    if not isinstance(content, list):
        raise LyraError(f"{file} is no chunk of RealEstate10K: give pixelSplat's .torch file")
    return [_write_scene(file, scene, out) for scene in content]


def _write_scene(file: Path, scene: Any, out: Path) -> str:
    try:
        name, cameras, images = scene["key"], scene["cameras"], scene["images"]
        times = [str(int(time)) for time in scene["timestamps"]]
        fine = cameras.shape == (len(times), 18) and len(images) == len(times) and _NAME.fullmatch(name)
        fine = fine and all(image.dtype == torch.uint8 for image in images)
    except (KeyError, TypeError, ValueError, AttributeError):
        fine, name, cameras, images, times = False, "", torch.empty(0), [], []
    if not fine:
        raise LyraError(f"{file} has a scene that is none of pixelSplat's: download the chunk again")
    for time, image in zip(times, images, strict=True):
        path = out / name / f"{time}.jpg"
        if not path.exists():
            with write_atomically(path) as temporary:
                temporary.write_bytes(image.numpy().tobytes())
    rows = [
        " ".join([time, *(repr(value) for value in row)]) for time, row in zip(times, cameras.tolist(), strict=True)
    ]
    address = str(scene.get("url") or "https://none").split()[0]
    with write_atomically(out / f"{name}.txt") as temporary:
        temporary.write_text("\n".join([address if address.startswith("http") else f"https://{address}", *rows]) + "\n")
    return name
