"""Self-distillation data: the teacher imagines clips of single images, stored one file a scene.

Nothing but the image enters: depth is predicted, and no other view of the scene is ever seen.
"""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from tqdm import tqdm

from lyra.cache.warp import DepthCache, EdgeFilter, WarpSettings, build_cache
from lyra.depth import scene_depth
from lyra.errors import LyraError
from lyra.files import load_tensors, save_tensors, write_atomically
from lyra.files.clips import Clip
from lyra.geometry.cameras import Cameras, intrinsics_from_fov
from lyra.geometry.trajectories import TRAJECTORY_NAMES, TrajectoryName, draw_distance, trajectory_cameras
from lyra.models.model import Model
from lyra.teacher import TeacherRequest


@dataclass(frozen=True)
class SyntheticScene:
    """One image and the clips that the teacher imagined around it."""

    image: Float[Tensor, "3 height width"]
    """In [0, 1]."""
    depth: Float[Tensor, "height width"]
    """Predicted z-depth, scene units."""
    clips: tuple[Clip, ...]

    def cache(self, edges: EdgeFilter) -> DepthCache:
        """The image's points, from which every clip was conditioned."""
        return input_cache(self.image, self.depth, self.clips[0].cameras[:1], edges)


def input_cache(
    image: Float[Tensor, "3 height width"],
    depth: Float[Tensor, "height width"],
    camera: Cameras,
    edges: EdgeFilter,
    warp: WarpSettings | None = None,
) -> DepthCache:
    """The cache of one input view; ``image`` in [0, 1], one camera."""
    return build_cache(image[None] * 2 - 1, depth[None], camera, edges, warp)


def imagine_clip(
    model: Model,
    image: Float[Tensor, "3 height width"],
    depth: Float[Tensor, "height width"],
    intrinsics: Float[Tensor, "4"],
    name: TrajectoryName,
    seed: int,
    movement: float = 1.0,
) -> Clip:
    """Runs the teacher along one of the six trajectories.

    Args:
        model: Whose teacher and frames.
        image: Input view in [0, 1], at the model's size.
        depth: Its z-depth in scene units.
        intrinsics: Its fx, fy, cx, cy in pixels.
        name: Which trajectory.
        seed: Of the distance and the noise; both also depend on the name.
        movement: Factor on the paper's distance ranges.
    """
    teacher = model.config.teacher
    distance = draw_distance(name, seed, movement)
    cameras = trajectory_cameras(name, distance, teacher.frames, intrinsics, *image.shape[1:])
    cache = input_cache(image, depth, cameras[:1], teacher.edges, teacher.warp)
    latents = model.teacher.imagine(TeacherRequest(image * 2 - 1, cache, cameras, seed, name))
    return Clip(latents, cameras)


def synthesize(
    model: Model,
    images: Iterable[tuple[int, UInt8[Tensor, "3 height width"]]],
    folder: Path,
    fov: float = 55.0,
) -> list[Path]:
    """Imagines six clips for every (seed, image) that ``folder`` lacks; returns one path a scene.

    Each file is written whole or not at all, so a killed run goes on where it stopped.

    Raises:
        LyraError: ``folder`` holds clips of another teacher, tokenizer or depth network.
    """
    claim_folder(model, folder)
    paths = []
    for seed, image in tqdm(images, desc="synthesize"):
        path = folder / f"{seed:07d}.safetensors"
        paths.append(path)
        if path.exists():
            continue
        picture = image.float() / 255
        intrinsics = intrinsics_from_fov(fov, *picture.shape[1:])
        depth = scene_depth(model.depth.predict(picture))
        clips = [imagine_clip(model, picture, depth, intrinsics, name, seed) for name in TRAJECTORY_NAMES]
        tensors = {
            "image": image,
            "depth": depth.half(),
            "latents": torch.stack([clip.latents for clip in clips]).half(),
            "camera_to_world": torch.stack([clip.cameras.camera_to_world for clip in clips]),
            "intrinsics": intrinsics,
        }
        save_tensors(tensors, path)
    return paths


def claim_folder(model: Model, folder: Path) -> None:
    """Notes which weights the clips are made with, or compares with the note."""
    parts = ("vae/", "transformer/", "depth/", "text/")
    used = {name: value for name, value in model.config.checksums.items() if name.startswith(parts)}
    identity = json.dumps({"checksums": used, "teacher": asdict(model.config.teacher)}, indent=2, sort_keys=True)
    note = folder / "model.json"
    if not note.exists():
        with write_atomically(note) as path:
            path.write_text(identity)
    elif note.read_text() != identity:
        raise LyraError(f"{folder} holds clips of other weights: delete it, or use another workspace")


def load_scene_clips(path: Path) -> SyntheticScene:
    """Reads one file that ``synthesize`` wrote."""
    tensors = load_tensors(path)
    height, width = tensors["image"].shape[1:]
    clips = tuple(
        Clip(latents, Cameras(pose, tensors["intrinsics"].expand(len(pose), 4), height, width))
        for latents, pose in zip(tensors["latents"].float(), tensors["camera_to_world"], strict=True)
    )
    return SyntheticScene(tensors["image"].float() / 255, tensors["depth"].float(), clips)
