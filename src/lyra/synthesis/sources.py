"""What a data set is made of: photos, videos, prompts, worlds, and clips that others have imagined."""

import hashlib
import json
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from tqdm import tqdm

from lyra.errors import LyraError
from lyra.files import sha256_file
from lyra.files.atomic import explain_reading
from lyra.files.held_out import HELD_OUT
from lyra.files.kinds import VIDEO_SUFFIXES, is_video
from lyra.files.published_clips import DECODING_ORDER, find_samples, is_published_data
from lyra.files.transforms import PICTURE_SUFFIXES
from lyra.synthesis.choices import FORMS
from lyra.synthesis.samples import Split
from lyra.worlds.input_views import FIRST_TRAINING_SEED

Kind = Literal["photo", "video", "prompt", "world", "moving_world", "clips"]
_WORLDS = re.compile(r"(?P<kind>world|moving_world)s:(?P<first>\d+)-(?P<last>\d+)")
_KEYS = {"photo", "video", "prompt", "world", "moving_world", "caption", "cameras"}


@dataclass(frozen=True)
class Source:
    """One input."""

    kind: Kind
    place: str
    """A file, the prompt, the seed of a world, or folder and sample of published clips."""
    content: str
    """SHA-256 of the file's bytes or of the text: what the input is, wherever it lies."""
    caption: str = ""
    """What it shows, in words."""
    cameras: str | None = None
    """Camera file of a video."""
    posed: str = ""
    """SHA-256 of that file."""

    def split(self, share: float) -> Split:
        """On which side of the data the input is, for ever: decided by what it is, not by where or when it came.

        Args:
            share: Of inputs that are held out. The project's own test files and worlds always are.
        """
        tests = self.content in HELD_OUT
        tests |= self.kind in ("world", "moving_world") and int(self.place) < FIRST_TRAINING_SEED
        drawn = int(hashlib.sha256(f"split/{self.content}".encode()).hexdigest()[:8], 16) / 2**32
        return "held-out" if tests or drawn < share else "train"


def find_inputs(spec: str, allow_pickle: bool = False) -> list[Source]:
    """All inputs that a SPEC names, each once, in the order of their content.

    A text beside a photo or video (``NAME.txt``) is its caption; of a prompt it is the prompt. Poses in ViPE's folders
    beside a video (``rgb/NAME.mp4``, ``pose/NAME.npz``) are its cameras.

    Args:
        spec: See ``FORMS``.
        allow_pickle: Read the published data set's latents, which are pickled; see ``lyra.files.published_clips``.

    Raises:
        LyraError: it names nothing, or a file of it is missing or no such file.
    """
    worlds = _WORLDS.fullmatch(spec)
    path = Path(spec)
    if worlds:
        kind: Any = worlds["kind"]
        seeds = range(int(worlds["first"]), int(worlds["last"]) + 1)
        found: Iterable[Source] = (_text(kind, str(seed)) for seed in seeds)
    elif path.is_dir():
        found = _of_published(path, allow_pickle) if is_published_data(path) else _of_folder(path)
    elif path.suffix.lower() == ".jsonl":
        found = _of_lines(path)
    elif path.suffix.lower() == ".txt":
        with explain_reading(path):
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        found = (_text("prompt", line.strip()) for line in lines if line.strip() and not line.startswith("#"))
    else:
        raise LyraError(f"{spec} names no inputs: give {FORMS}")
    once = {(source.content, source.posed): source for source in found}
    if not once:
        raise LyraError(f"{spec} holds no inputs: give {FORMS}")
    return [once[key] for key in sorted(once)]


def _text(kind: Literal["prompt", "world", "moving_world"], text: str) -> Source:
    digest = hashlib.sha256(f"{kind}/{text}".encode()).hexdigest()
    return Source(kind, text, digest, text if kind == "prompt" else "")


def _file(path: Path, cameras: Path | None = None) -> Source:
    source = Source("video" if is_video(path) else "photo", str(path), sha256_file(path))
    beside = path.parent.parent / "pose" / f"{path.stem}.npz"
    if source.kind == "video" and cameras is None and path.parent.name == "rgb" and beside.is_file():
        cameras = beside
    if cameras is not None:
        source = replace(source, cameras=str(cameras), posed=sha256_file(cameras))
    words = path.with_suffix(".txt")
    if not words.is_file():
        return source
    with explain_reading(words):
        return replace(source, caption=" ".join(words.read_text(encoding="utf-8", errors="replace").split()))


def _of_folder(folder: Path) -> Iterable[Source]:
    kinds = {*PICTURE_SUFFIXES, *VIDEO_SUFFIXES}
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in kinds and path.is_file())
    return (_file(path) for path in tqdm(files, desc="inputs", unit="file", disable=len(files) < 100))


def _of_published(root: Path, allow_pickle: bool) -> Iterable[Source]:
    if not allow_pickle:
        raise LyraError(
            f"the latents in {root} are Python pickles: if you trust where they come from, give --allow-pickle "
            "(a restricted reader that builds arrays alone)"
        )
    if (root / "6").is_dir():
        raise LyraError(
            f"{root} is the published set of moving scenes, whose input videos it lacks: give its own videos, or the "
            "set of still scenes"
        )
    for sample in find_samples(root):
        whole = hashlib.sha256()
        for view in DECODING_ORDER:
            for part in (f"latent/{sample}.pkl", f"pose/{sample}.npz", f"intrinsics/{sample}.npz"):
                file = root / str(view) / part
                whole.update(sha256_file(file).encode() if (root / str(view)).is_dir() else b"-")
        yield Source("clips", str(root / sample), whole.hexdigest())


def _of_lines(path: Path) -> Iterable[Source]:
    with explain_reading(path):
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            content = json.loads(line)
            if not isinstance(content, dict) or set(content) - _KEYS:
                raise ValueError(f"an object with some of {', '.join(sorted(_KEYS))} is wanted")
            yield _of_line(content, path.parent)
        except (ValueError, TypeError) as error:
            raise LyraError(f"{path}, line {number}: {error}") from error


def _of_line(content: dict[str, Any], folder: Path) -> Source:
    ways: dict[str, Callable[[Any], Source]] = {
        "photo": lambda name: _file(folder / name),
        "video": lambda name: _file(folder / name, folder / content["cameras"] if "cameras" in content else None),
        "prompt": lambda text: _text("prompt", text.strip()),
        "world": lambda seed: _text("world", str(int(seed))),
        "moving_world": lambda seed: _text("moving_world", str(int(seed))),
    }
    named = [way for way in ways if way in content]
    if len(named) != 1:
        raise ValueError(f"names {len(named)} inputs, one of {', '.join(ways)} is wanted")
    source = ways[named[0]](content[named[0]])
    caption = content.get("caption", source.caption)
    return replace(source, caption=str(caption))
