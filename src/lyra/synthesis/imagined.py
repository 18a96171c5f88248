"""Self-distillation: the teacher imagines clips of single photos and of videos.

Nothing but the input enters: depth is predicted, and no other view of the scene is ever seen. A video enters forward
and backward. Turned forward again, the clips of the second kind are far from the input camera while time is early: the
paper's augmentation. Their poses are turned as well, which its published code forgets.
"""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from tqdm import tqdm

from lyra.engine.engine import Engine
from lyra.engine.paths import preset_paths
from lyra.errors import LyraError
from lyra.files import load_tensors, save_tensors, write_atomically
from lyra.files.clips import Clip
from lyra.files.photos import Photo
from lyra.files.videos import Video
from lyra.geometry.cameras import Cameras
from lyra.models.model import Model
from lyra.tokenizer.tokenizer import Tokenizer, encode_frames
from lyra.views.views import Views


@dataclass(frozen=True)
class SyntheticScene:
    """One input and the clips that the teacher imagined around it."""

    views: Views
    clips: tuple[Clip, ...]
    """One a trajectory; of a video its own clip before them."""
    backward: tuple[Clip, ...] = ()
    """Of a video: one a trajectory, of the video run backward, as imagined: their first frame is the video's last."""
    depth: tuple[Float[Tensor, "time height width"], ...] = ()
    """Of each of ``clips``: z-depth in scene units, consistent over the clip and with its cameras; sky is at
    ``MAX_DEPTH``. On every so many-th pixel of the frames where those are large. Empty where there is none."""
    backward_depth: tuple[Float[Tensor, "time height width"], ...] = ()
    """The same of ``backward``."""


def synthesize(
    engine: Engine,
    inputs: Iterable[tuple[int, Float[Tensor, "time 3 height width"]]],
    folder: Path,
    fov: float = 55.0,
) -> list[Path]:
    """Imagines the clips of every (seed, pictures) that ``folder`` lacks; returns one path a scene.

    Args:
        engine: Whose teacher and depth.
        inputs: A photo (one picture) or a video from a still camera (as many as a clip has), in [0, 1], of the model's
            size. Lazily made: those that are there already are not looked at.
        folder: Of the files; each is written whole or not at all, so a killed run goes on where it stopped.
        fov: Of the inputs, degrees of the shorter side.

    Raises:
        LyraError: ``folder`` holds clips of another teacher, tokenizer or depth network.
    """
    claim_folder(engine.model, folder)
    paths = []
    for seed, frames in tqdm(inputs, desc="synthesize"):
        path = folder / f"{seed:07d}.safetensors"
        paths.append(path)
        if not path.exists():
            save_scene_clips(imagine_scene(engine, frames, seed, fov), path)
    return paths


def imagine_scene(
    engine: Engine, frames: Float[Tensor, "time 3 height width"], seed: int, fov: float = 55.0
) -> SyntheticScene:
    """The clips of one photo or video; see ``synthesize``."""
    config = engine.config
    moving = len(frames) > 1
    source = Video.of(frames, (len(frames) - 1) / config.fps) if moving else [Photo.of(frames[0])]
    views, _ = engine.views(source, fov=fov)
    paths = preset_paths(seed, config.frames, *frames.shape[2:])
    [clips] = engine.imagine(views, paths, seed, quiet=True)
    if not moving:
        return SyntheticScene(views, tuple(clips))
    [[_, *backward]] = engine.imagine(views.reversed(), paths, seed + 1, quiet=True)
    return SyntheticScene(views, tuple(clips), tuple(backward))


def claim_folder(model: Model, folder: Path) -> None:
    """Notes which weights the clips are made with, or compares with the note.

    Raises:
        LyraError: it holds clips of others.
    """
    parts = ("vae/", "transformer/", "depth/", "text/")
    used = {name: value for name, value in model.config.checksums.items() if name.startswith(parts)}
    # A model that was never saved has no checksums of files.
    used = used or {"weights": _digest(model)}
    identity = json.dumps({"checksums": used, "teacher": asdict(model.config.teacher)}, indent=2, sort_keys=True)
    note = folder / "model.json"
    if not note.exists():
        with write_atomically(note) as path:
            path.write_text(identity)
    elif note.read_text() != identity:
        raise LyraError(f"{folder} holds clips of other weights: delete it, or use another workspace")


def _digest(model: Model) -> str:
    digest = hashlib.sha256()
    for module in (model.tokenizer, model.transformer, model.depth):
        for tensor in module.state_dict().values():
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def save_scene_clips(scene: SyntheticScene, path: Path) -> None:
    """Writes a scene: pictures in 8 bits, depth and latents in 16; of its clips those that the teacher made."""
    tensors = pack_views(scene.views)
    made = scene.clips if scene.views.motion is None else scene.clips[1:]
    for name, clips in (("forward", made), ("backward", scene.backward)):
        if clips:
            tensors[f"{name}.latents"] = torch.stack([clip.latents for clip in clips]).half()
            tensors[f"{name}.camera_to_world"] = torch.stack([clip.cameras.camera_to_world for clip in clips])
    save_tensors(tensors, path)


def pack_views(views: Views) -> dict[str, Shaped[Tensor, "..."]]:
    """An input as it is stored: pictures in 8 bits, depth in 16."""
    tensors = views.tensors()
    for name, tensor in tensors.items():
        last = name.rpartition(".")[2]
        if last in ("image", "images", "backdrop"):
            tensors[name] = (tensor * 255).round().to(torch.uint8)
        elif last in ("depth", "backdrop_depth"):
            tensors[name] = tensor.half()
    return tensors


def unpack_views(tensors: dict[str, Shaped[Tensor, "..."]]) -> Views:
    """Reads what ``pack_views`` made."""
    wide = {torch.uint8: 255.0, torch.float16: 1.0}
    return Views.from_tensors(
        {name: t.float() / wide[t.dtype] if t.dtype in wide else t for name, t in tensors.items()}
    )


def load_scene_clips(path: Path, tokenizer: Tokenizer) -> SyntheticScene:
    """Reads what ``save_scene_clips`` wrote; a video's own clip is made anew."""
    tensors = load_tensors(path)
    stored = {name: tensor for name, tensor in tensors.items() if not name.startswith(("forward.", "backward."))}
    views = unpack_views(stored)

    def clips(name: str) -> Sequence[Clip]:
        size = views.images.shape[2:]
        poses, latents = tensors[f"{name}.camera_to_world"], tensors[f"{name}.latents"].float()
        lens = views.cameras.intrinsics[:1].expand(poses.shape[1], 4)
        return [Clip(z, Cameras(pose, lens, *size)) for z, pose in zip(latents, poses, strict=True)]

    forward = tuple(clips("forward"))
    if views.motion is None:
        return SyntheticScene(views, forward)
    first = Clip(encode_frames(tokenizer, views.images).float(), views.cameras)
    return SyntheticScene(views, (first, *forward), tuple(clips("backward")))
