"""Photos of a posed capture as if nobody had posed them.

python recipes/unposed_capture.py FOLDER
python recipes/unposed_capture.py FOLDER --cameras-only

First the cameras of all photos, found and compared with those of ``transforms.json`` after a similarity fit. Then
scenes of a few of them, without their cameras, and of the first alone, seen from where all the others were taken (their
true cameras carried to the scene by those few): PSNR in dB. The scene of one photo has the scale that suits it best.
"""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import tyro
from torch import Tensor
from tyro.conf import Positional

import lyra
from lyra.capture import find_cameras
from lyra.evaluation.camera_scores import Similarity, fit_similarity, score_cameras
from lyra.evaluation.metrics import psnr
from lyra.files import save_image
from lyra.files.photos import load_posed_photos
from lyra.files.poses import load_posed_images
from lyra.files.strict_json import to_json
from lyra.files.tables import format_table
from lyra.geometry.cameras import Cameras
from lyra.scene.scene import Scene
from lyra.views.views import Views

SCALES = (0.4, 0.5, 0.63, 0.8, 1.0, 1.25, 1.6, 2.0, 2.5)
"""That the scene of one photo is tried at."""


def compare_cameras(folder: Path, width: int) -> dict[str, Any]:
    shape = load_posed_images(folder / "transforms.json")[0][1].shown_lens()
    photos, true = load_posed_photos(folder / "transforms.json", round(width * shape.height / shape.width), width)
    began = time.monotonic()
    found = find_cameras([photo.image for photo in photos])
    if found is None:
        sys.exit("no cameras were found")
    errors = score_cameras(found.cameras, true[list(found.placed)])
    return {
        **{"photos": len(photos), "posed": len(found.placed), "seconds": time.monotonic() - began},
        **{"points": len(found.points), "error, pixels": found.error},
        **{"position, % of the path": 100 * errors.position, "rotation, degrees": errors.rotation},
        "focal length": float(found.cameras.intrinsics[0, 0]),
        "true focal length": float(true.intrinsics[0, 0]),
    }


def make_scene(pictures: list[Path], out: Path, size: int) -> tuple[Scene, Views]:
    scene = lyra.load("mini").generate(pictures, out, size=size)
    return scene, Views.load(out / "clips/input.safetensors")


def show(scene: Scene, cameras: Cameras) -> Tensor:
    return torch.cat([scene.render(cameras[[index]]).color for index in range(len(cameras))]).clamp(0, 1)


def score(frames: Tensor, truth: Tensor) -> float:
    return sum(psnr(a, b) for a, b in zip(frames, truth, strict=True)) / len(truth)


def main(
    folder: Positional[Path],
    first: int = 8,
    every: int = 5,
    count: int = 6,
    size: int = 512,
    cameras_only: bool = False,
    sheet: Path | None = None,
    json: bool = False,
) -> None:
    picked = [first + every * index for index in range(count)]
    scenes = [] if cameras_only else compare_scenes(folder, picked, size, sheet)
    cameras = [compare_cameras(folder, 1024)]
    if json:
        print(to_json({"rows": cameras, "scenes": scenes}))
        return
    print(format_table(cameras))
    print(format_table(scenes) if scenes else "")


def compare_scenes(folder: Path, picked: list[int], size: int, sheet: Path | None) -> list[dict[str, Any]]:
    paths = [path for path, _ in load_posed_images(folder / "transforms.json")]
    with tempfile.TemporaryDirectory() as temporary:
        scene, views = make_scene([paths[index] for index in picked], Path(temporary) / "several", size)
        alone, _ = make_scene([paths[picked[0]]], Path(temporary) / "one", size)
    height, width = views.images.shape[2:]
    photos, true = load_posed_photos(folder / "transforms.json", height, width)
    others = [index for index in range(len(photos)) if index not in picked]
    truth = torch.stack([photos[index].image for index in others])
    print(
        "cameras of the few:",
        score_cameras(views.cameras, true[picked]),
        scene.provenance["timings"],
        alone.provenance["timings"],
        file=sys.stderr,
    )
    to_scene = fit_similarity(true[picked], views.cameras)
    several = show(scene, to_scene.carry(true[others]))
    best = -1.0, several
    for factor in SCALES:
        scaled = Similarity(to_scene.rotation, factor * to_scene.scale, factor * to_scene.shift)
        # The scene of one photo has its own first camera at the origin.
        frames = show(alone, scaled.carry(true[others]))
        best = max(best, (score(frames, truth), frames), key=lambda pair: pair[0])
    near = [row for row, index in enumerate(others) if min(picked) < index < max(picked)]
    rows = [
        {
            "scene of": name,
            f"{len(others)} others, dB": score(frames, truth),
            f"the {len(near)} between, dB": score(frames[near], truth[near]),
        }
        for name, frames in ((f"{len(picked)} photos", several), ("one photo", best[1]))
    ]
    if sheet is not None:
        shown = near[:: max(1, len(near) // 6)][:6]
        save_image(
            torch.cat([torch.cat([group[at] for at in shown], -1) for group in (truth, several, best[1])], -2), sheet
        )
    return rows


if __name__ == "__main__":
    tyro.cli(main)
