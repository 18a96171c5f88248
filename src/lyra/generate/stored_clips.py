"""``lyra decode``: stored clips to a scene, by the student alone."""

import json
import re
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from lyra.device.memory import peak_memory_mb
from lyra.engine.engine import Engine
from lyra.errors import LyraError
from lyra.files.clips import Clip, load_clip
from lyra.files.published_clips import find_samples, is_published_data, load_published_clips
from lyra.geometry.gaussians import Gaussians
from lyra.models.model import Model
from lyra.scene.scene import Scene
from lyra.views.views import Views

PARTS = ("vae", "decoder")
"""What decoding needs of a model."""
FURTHER = ("depth",)
"""What it takes where the model has it: to see past the photo at the ends of long paths."""


@dataclass(frozen=True)
class DecodeOptions:
    """What a user decides about decoding."""

    sample: str | None = None
    """Of a published data set: which sample; the first when None."""
    allow_pickle: bool = False
    """Of a published data set: read its pickled latents, by a restricted reader."""
    time: float | None = None
    """Of a dynamic decoder: the moment to show, in [0, 1]; 0 when None."""

    def __post_init__(self) -> None:
        if self.time is not None and not 0 <= self.time <= 1:
            raise LyraError(f"a time of {self.time} is not possible: give 0 (the first frame) to 1 (the last)")


@dataclass(frozen=True)
class StoredClips:
    """Clips of one scene as they lie on a disk."""

    names: list[str]
    clips: list[Clip]
    views: Views | None
    """The input's, where they are stored."""


def decode_folder(engine: Engine, source: Path, out: Path, options: DecodeOptions | None = None) -> Scene:
    """Decodes stored clips and writes ``scene.ply`` and ``scene.json``.

    Args:
        engine: Of a model with a tokenizer and a decoder; a depth network where clips follow each other.
        source: A scene's folder or its ``clips/``, as ``lyra generate`` writes them; or a published data set's.
        out: Folder of the scene; new or empty.
        options: Sample, time and so on.

    Raises:
        LyraError: there are no clips, they do not suit the decoder, or ``out`` is taken.
    """
    options = options or DecodeOptions()
    model = engine.model
    model.require(*PARTS)
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise LyraError(f"{out} is not empty: give another folder")
    stored = load_stored(source, options)
    cached = model.decoder.config.geometry == "cache"
    if cached and stored.views is not None and stored.views.motion is not None:
        raise LyraError(f"{source} holds the clips of a video: lyra generate VIDEO -o FOLDER --resume decodes them")
    began = time.monotonic()
    target = _target_time(model, options)
    print(f"decoding {len(stored.clips)} clips: {', '.join(stored.names)}", file=sys.stderr)
    check_fit(model, stored.clips, source)
    if cached and stored.views is None:
        raise LyraError(
            f"the decoder of model {model.config.name!r} needs the input view's depth, and {source} has no "
            "input.safetensors: give another model"
        )
    gaussians = engine.decode([stored.clips], stored.views if cached else None, target)
    assert isinstance(gaussians, Gaussians)
    camera = stored.clips[0].cameras
    camera = camera.relative_to(camera.camera_to_world[0])[:1]
    provenance = {
        "format": 1,
        "model": {
            "name": model.config.name,
            "licence": model.config.licence,
            "checksums": {k: v for k, v in model.config.checksums.items() if k.startswith(("vae/", "decoder/"))},
        },
        "clips": {"source": source.name, "names": stored.names, "sample": options.sample, "time": target},
        "gaussians": len(gaussians),
        "timings": {"student": round(time.monotonic() - began, 3)},
        "peak_memory_mb": peak_memory_mb(),
        "packages": {name: version(name) for name in ("lyra", "torch", "diffusers", "numpy")},
    }
    scene = Scene(gaussians, camera, provenance)
    scene.save(out)
    return scene


def load_stored(source: Path, options: DecodeOptions) -> StoredClips:
    """Finds and reads the clips of a scene's folder, or of one sample of a published data set.

    Raises:
        LyraError: there are none, or one is damaged.
    """
    if not source.is_dir():
        raise LyraError(f"{source} is no folder: give a scene's clips/ or a data set's folder")
    if is_published_data(source):
        samples = find_samples(source)
        sample = options.sample or next(iter(samples), None)
        if sample is None or sample not in samples:
            raise LyraError(f"{source} has no sample {sample!r}: give one of {', '.join(samples[:5]) or 'none'}")
        clips = load_published_clips(source, sample, options.allow_pickle)
        return StoredClips([f"{sample}/{i}" for i in range(len(clips))], clips, None)
    folder = source / "clips" if (source / "clips").is_dir() else source
    paths = _in_order(folder, [path.parent for path in folder.glob("*/clip.safetensors")])
    if not paths:
        raise LyraError(
            f"{source} holds no clips: give a scene's clips/ (CLIP/clip.safetensors) or a data set's folder"
        )
    view = folder / "input.safetensors"
    return StoredClips(
        [path.name for path in paths],
        [load_clip(path / "clip.safetensors") for path in paths],
        Views.load(view) if view.is_file() else None,
    )


def _in_order(folder: Path, clips: Sequence[Path]) -> list[Path]:
    """In the run's order of trajectories, which the result depends on; parts of a long path by their number."""
    try:
        names = json.loads((folder / "run.json").read_text())["options"]["trajectories"]
    except (OSError, ValueError, KeyError, TypeError):
        names = []

    def place(path: Path) -> tuple[int, int, str]:
        found = [i for i, name in enumerate(names) if re.fullmatch(re.escape(name) + r"(_\d\d+)?", path.name)]
        return (found[0] if found else len(names), len(path.name), path.name)

    return sorted(clips, key=place)


def check_fit(model: Model, clips: Sequence[Clip], source: Path) -> None:
    """Compares clips with each other and with the model's tokenizer.

    Raises:
        LyraError: they are of different shapes, or of another tokenizer.
    """
    spec, first = model.tokenizer.spec, clips[0]
    for clip in clips:
        if clip.latents.shape != first.latents.shape or len(clip.cameras) != len(first.cameras):
            raise LyraError(f"the clips in {source} differ in length or size: decode them apart")
    channels, frames, height, width = first.latents.shape
    cameras = first.cameras
    expected = (spec.channels, spec.spatial * height, spec.spatial * width, 1 + spec.temporal * (frames - 1))
    if (channels, cameras.height, cameras.width, len(cameras)) != expected:
        raise LyraError(
            f"the clips in {source} ({channels} channels, {len(cameras)} frames of {cameras.height}x{cameras.width}) "
            f"are not of the tokenizer of model {model.config.name!r}: give --model"
        )
    if height % model.decoder.config.token_patch or width % model.decoder.config.token_patch:
        raise LyraError(f"latents of {height}x{width} do not divide into the decoder's patches: crop the videos")


def _target_time(model: Model, options: DecodeOptions) -> float | None:
    config = model.decoder.config
    if config.time_conditioning and config.geometry == "ray":
        return options.time or 0.0
    if options.time is not None:
        raise LyraError(f"the decoder of model {model.config.name!r} is static: leave out --time")
    return None
