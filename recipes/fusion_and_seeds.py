"""Two questions about a model, answered on held-out worlds.

python recipes/fusion_and_seeds.py --model mini --scenes 8

Is fusion real: PSNR of the student at the far ends of all six trajectories, made of all six clips and of one alone.
Does the teacher draw: PSNR between two of its seeds, where the cache has points and in holes.
"""

import torch
import tyro
from tqdm import trange

import lyra
from lyra.cache.warp import view_cache
from lyra.engine.engine import Engine
from lyra.engine.paths import preset_paths
from lyra.evaluation import psnr
from lyra.evaluation.still_worlds import FIRST_HELD_OUT_SEED
from lyra.files.photos import Photo
from lyra.files.tables import print_rows
from lyra.geometry.cameras import Cameras, concatenate_cameras, intrinsics_from_fov
from lyra.models.model import Model
from lyra.scene.scene import Scene
from lyra.worlds import render_world, sample_world


def measure_scene(model: Model, seed: int) -> dict[str, float]:
    """The numbers of one world, in dB."""
    teacher = model.config.teacher
    world = sample_world(seed)
    intrinsics = intrinsics_from_fov(55.0, teacher.height, teacher.width)
    camera = Cameras(torch.eye(4)[None], intrinsics[None], teacher.height, teacher.width)
    image = render_world(world, camera)[0][0]
    engine = Engine(model)
    views, _ = engine.views([Photo.of(image)], fov=55.0)
    paths = preset_paths(0, teacher.frames, teacher.height, teacher.width)
    [clips] = engine.imagine(views, paths, quiet=True)
    far = concatenate_cameras([clip.cameras[-1:] for clip in clips])
    truth = render_world(world, far)[0]
    found = {
        f"student of {len(part)}": psnr(Scene.of(engine.decode([part], views), camera).render(far).color, truth)
        for part in (clips, clips[:1])
    }
    cache = views.cache(teacher.edges)
    [others] = engine.imagine(views, paths, seed=1, quiet=True)
    pairs: dict[str, list[float]] = {"covered": [], "holes": []}
    for clip, other in zip(clips, others, strict=True):
        covered = view_cache(cache, clip.cameras).masks[1:, :1] > 0
        first, second = engine.frames(clip)[1:], engine.frames(other)[1:]
        for name, mask in (("covered", covered), ("holes", ~covered)):
            if bool(mask.any()):
                pairs[name].append(psnr(first, second, mask))
    return found | {f"two seeds, {name}": sum(values) / len(values) for name, values in pairs.items()}


def main(model: str = "mini", scenes: int = 8, json: bool = False) -> None:
    """Prints means over scenes."""
    loaded = lyra.load(model)
    rows = [measure_scene(loaded, FIRST_HELD_OUT_SEED + index) for index in trange(scenes)]
    found = {name: [row[name] for row in rows if name in row] for name in rows[0]}
    print_rows([{"of": name, "psnr": sum(values) / len(values)} for name, values in found.items()], json)


if __name__ == "__main__":
    tyro.cli(main)
