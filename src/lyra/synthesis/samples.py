"""A sample of a data set: one input with its clips, as files in memory."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float, Shaped
from safetensors import SafetensorError
from safetensors.torch import load as load_bytes
from safetensors.torch import save as to_bytes
from torch import Tensor

from lyra.errors import LyraError
from lyra.files.clips import Clip
from lyra.files.strict_json import to_json
from lyra.geometry.cameras import Cameras
from lyra.synthesis.imagined import SyntheticScene, pack_views, unpack_views

Split = Literal["train", "held-out"]
SPLITS: tuple[Split, ...] = ("train", "held-out")
BACKWARD = ".backward"
"""Ends the names of clips of a video that runs backward."""


@dataclass(frozen=True)
class Sample:
    """One input, the clips imagined of it and where they come from."""

    id: str
    """Digest of content, seed, model and trajectories."""
    content: str
    """SHA-256 of the input's file, or of the text that stands for it."""
    split: Split
    caption: str
    """What the input shows, in words; empty where nobody said."""
    scene: SyntheticScene
    clips: dict[str, str]
    """Ids of the clips by name, in the order of ``scene.clips`` and then of ``scene.backward``, whose names end in
    ``.backward``."""
    provenance: dict[str, Any]
    """Model and checksums, seed, sampling, versions."""

    @property
    def moving(self) -> bool:
        """Whether the input is a video."""
        return self.scene.views.motion is not None


def encode_sample(sample: Sample) -> dict[str, bytes]:
    """The files of a sample by what follows its id; the same sample gives the same bytes."""
    notes = {
        "id": sample.id,
        "content": sample.content,
        "split": sample.split,
        "caption": sample.caption,
        "clips": sample.clips,
        "provenance": sample.provenance,
    }
    files = {
        "json": (to_json(notes, indent=1) + "\n").encode(),
        "views.safetensors": _to_bytes(pack_views(sample.scene.views)),
    }
    scene = sample.scene
    depths = (*scene.depth, *scene.backward_depth) or (None,) * len(sample.clips)
    for name, clip, depth in zip(sample.clips, (*scene.clips, *scene.backward), depths, strict=True):
        tensors = {
            "latents": clip.latents.half(),
            "camera_to_world": clip.cameras.camera_to_world.float(),
            "intrinsics": clip.cameras.intrinsics.float(),
        }
        tensors |= {} if depth is None else {"depth": depth.half()}
        files[f"{name}.safetensors"] = _to_bytes(tensors)
    return files


def _to_bytes(tensors: Mapping[str, Shaped[Tensor, "..."]]) -> bytes:
    # Cloned, since the library writes no two tensors that share memory.
    return to_bytes({name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()})


def decode_sample(files: Mapping[str, bytes]) -> Sample:
    """Reads what ``encode_sample`` made.

    Raises:
        LyraError: a file is missing or damaged.
    """
    try:
        notes = json.loads(files["json"])
        views = unpack_views(load_bytes(files["views.safetensors"]))
        size = views.images.shape[2:]
        clips: dict[bool, list[Clip]] = {False: [], True: []}
        depths: dict[bool, list[Float[Tensor, "time height width"]]] = {False: [], True: []}
        for name in notes["clips"]:
            tensors, backward = load_bytes(files[f"{name}.safetensors"]), name.endswith(BACKWARD)
            cameras = Cameras(tensors["camera_to_world"], tensors["intrinsics"], *size)
            clips[backward].append(Clip(tensors["latents"].float(), cameras))
            depths[backward] += [tensors["depth"].float()] if "depth" in tensors else []
        scene = SyntheticScene(
            views, tuple(clips[False]), tuple(clips[True]), tuple(depths[False]), tuple(depths[True])
        )
        named = {key: notes[key] for key in ("id", "content", "split", "caption", "clips", "provenance")}
        return Sample(scene=scene, **named)
    except (KeyError, ValueError, TypeError, SafetensorError, RuntimeError) as error:
        raise LyraError(f"a sample is damaged ({error!r}): lyra synthesize --verify names its shard") from error
