"""Two questions about a model, answered on held-out worlds.

python recipes/fusion_and_seeds.py --model mini --scenes 8

Is fusion real: PSNR of the student at the far ends of all six trajectories, made of all six clips and of one alone.
Does the teacher draw: PSNR between two of its seeds, where the cache has points and in holes.
"""

import torch
import tyro
from torch import Tensor
from tqdm import trange

import lyra
from lyra.cache.warp import DepthCache, render_cache
from lyra.depth import scene_depth
from lyra.engine.synthesis import imagine_clip, input_cache
from lyra.evaluation import psnr
from lyra.evaluation.still_worlds import FIRST_HELD_OUT_SEED, decode_clip, show_student
from lyra.files.clips import Clip
from lyra.geometry.cameras import Cameras, concatenate_cameras, intrinsics_from_fov
from lyra.geometry.trajectories import TRAJECTORY_NAMES
from lyra.models.model import Model
from lyra.teacher import TeacherRequest
from lyra.worlds import render_world, sample_world


def measure_scene(model: Model, seed: int) -> dict[str, float]:
    """The numbers of one world, in dB."""
    teacher = model.config.teacher
    world = sample_world(seed)
    intrinsics = intrinsics_from_fov(55.0, teacher.height, teacher.width)
    camera = Cameras(torch.eye(4)[None], intrinsics[None], teacher.height, teacher.width)
    image = render_world(world, camera)[0][0]
    depth = scene_depth(model.depth.predict(image))

    clips = [imagine_clip(model, image, depth, intrinsics, name, 0) for name in TRAJECTORY_NAMES]
    far = concatenate_cameras([clip.cameras[-1:] for clip in clips])
    truth = render_world(world, far)[0]
    found = {
        f"student of {len(part)}": psnr(show_student(model, image, depth, part, far), truth)
        for part in (clips, clips[:1])
    }
    cache = input_cache(image, depth, camera, teacher.edges)
    pairs: dict[str, list[float]] = {"covered": [], "holes": []}
    for clip, other in zip(clips, redraw(model, image, cache, clips), strict=True):
        covered = render_cache(cache, clip.cameras).masks[1:, :1] > 0
        first, second = decode_clip(model, clip)[1:], decode_clip(model, other)[1:]
        for name, mask in (("covered", covered), ("holes", ~covered)):
            if bool(mask.any()):
                pairs[name].append(psnr(first, second, mask))
    return found | {f"two seeds, {name}": sum(values) / len(values) for name, values in pairs.items()}


def redraw(model: Model, image: Tensor, cache: DepthCache, clips: list[Clip]) -> list[Clip]:
    """The same clips with other noise."""
    return [
        Clip(
            model.teacher.imagine(TeacherRequest(image * 2 - 1, cache, clip.cameras, 1, name)),
            clip.cameras,
        )
        for name, clip in zip(TRAJECTORY_NAMES, clips, strict=True)
    ]


def main(model: str = "mini", scenes: int = 8) -> None:
    """Prints means over scenes."""
    loaded = lyra.load(model)
    rows = [measure_scene(loaded, FIRST_HELD_OUT_SEED + index) for index in trange(scenes)]
    for name in rows[0]:
        values = [row[name] for row in rows if name in row]
        print(f"{name:>20} {sum(values) / len(values):.2f} dB")


if __name__ == "__main__":
    tyro.cli(main)
