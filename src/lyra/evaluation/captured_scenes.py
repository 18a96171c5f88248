"""A model on a capture: one picture or some of it in, the others' cameras asked for, compared with what was filmed.

The protocol, after what Lyra's authors say of theirs (nv-tlabs/lyra#28, which follows Wonderland's): the teacher is
given the capture's own path, the student's scene is rendered at the true cameras. Where the capture's unit is unknown
it is searched on one frame near the input view, which is then not asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from itertools import takewhile
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from lyra.cache.warp import build_cache, render_cache
from lyra.depth import scene_depth
from lyra.engine.engine import Engine
from lyra.engine.paths import CameraPath, split_path
from lyra.engine.shots import Shelf
from lyra.errors import LyraError
from lyra.evaluation.itinerary import Itinerary, lay_path, turned
from lyra.evaluation.scores import TrueViews, fill_with_mean, fill_with_nearest, visible_from
from lyra.evaluation.stages import Stages
from lyra.files.posed_folders import Capture, CapturedViews, load_views
from lyra.geometry.cameras import Cameras
from lyra.geometry.gaussians import Gaussians
from lyra.geometry.sky import is_sky
from lyra.rendering import render
from lyra.views.still import find_pose_unit
from lyra.views.views import Views

NEAR, SHARE = 8, 40
"""The unit is searched on one of so many frames before and after the input view, or, of a long film, on one of a
fortieth of it."""
TURNED_LESS = 0.12
"""Radians that it is turned against the input view, at most, where there is such a one: of three starts in a real
capture, all that turned less than this agreed on its unit, and some that turned more did not."""


class Unit(NamedTuple):
    """Scene units of one unit of the capture."""

    value: float
    source: str
    """"frames" (several input views), "depth" (measured at the input view) or "search"."""
    frame: int | None
    """Which frame it was searched on."""


@dataclass(frozen=True)
class ShownCapture:
    """What was filmed, what each method shows in its place, and how it came to that."""

    truth: TrueViews
    methods: Mapping[str, Float[Tensor, "view 3 height width"]]
    targets: tuple[int, ...]
    """Numbers of the frames."""
    baselines: Float[Tensor, "view"]
    """Distance to the nearest input camera over the input view's median depth."""
    unit: Unit
    lost: int
    """Frames that the teacher's camera did not come to; its last picture stands for them."""
    depth: Mapping[str, Float[Tensor, "view height width"]]
    """Where depth was measured: ``true`` (capture's unit, 0 where unknown), the depth network's and the student's."""
    input: Float[Tensor, "3 height width"]


def show_capture(
    engine: Engine, capture: Capture, itinerary: Itinerary, seed: int = 0, stages: Stages | None = None
) -> ShownCapture:
    """Every method's picture of a capture's frames.

    Args:
        engine: At the shape that is compared.
        capture: With at least the itinerary's frames.
        itinerary: What is given, asked for and passed.
        seed: Of the teacher's noise.
        stages: Where time and memory are noted.

    Raises:
        LyraError: a frame is missing or damaged.
    """
    stages = stages or Stages()
    passed = [i for _, way in itinerary.ways for i in way]
    tried = search_frame(capture, itinerary.inputs[0]) if len(itinerary.inputs) == 1 else None
    numbers = list(dict.fromkeys([*itinerary.inputs, *itinerary.targets, *passed]))
    if tried is not None and tried not in numbers:
        numbers.append(tried)
    with stages("read"):
        loaded = load_views(capture, numbers, engine.config.height, engine.config.width)
    place = {number: index for index, number in enumerate(numbers)}
    given = list(range(len(itinerary.inputs)))
    with stages("depth and unit"):
        views, _ = engine.views([loaded.photos[i] for i in given], loaded.cameras[given])
        unit = find_unit(views, loaded, len(given), tried, place)
    poses = loaded.cameras.camera_to_world.clone()
    poses[:, :3, 3] *= unit.value
    cameras = replace(loaded.cameras, camera_to_world=poses)
    targets = [number for number in itinerary.targets if number != unit.frame]
    if not targets:
        raise LyraError(f"{capture.folder}: the only other frame tells the unit, none is left: give more frames")
    picks = [place[number] for number in targets]
    with stages("teacher"):
        frames, clips, lost = film(engine, views, itinerary, cameras, place, seed)
    with stages("student"):
        gaussians = engine.decode([clips], views)
        assert isinstance(gaussians, Gaussians)
    asked = cameras[picks]
    with stages("render"):
        rendering = render(gaussians, asked)
    with stages("baselines"):
        simple = view_baselines(views, asked)
    methods = {
        "student": rendering.color.clamp(0, 1),
        "teacher": torch.stack([frames[number] for number in targets]),
        **simple,
    }
    depth = {}
    if loaded.depth is not None:
        depth["true"] = loaded.depth[picks]
        depth["student"] = torch.where(rendering.alpha > 0.5, rendering.depth, 0.0)
        depth["network"] = torch.stack([_predict(engine, loaded.photos[i].image) for i in picks])
    visible = see_visible(views, asked, loaded, place[itinerary.inputs[0]], picks, unit.value)
    truth = TrueViews(loaded.images[picks], asked, visible)
    distance = torch.cdist(asked.centers, cameras.centers[given]).amin(1)
    return ShownCapture(
        truth, methods, tuple(targets), distance, unit, len(lost & set(targets)), depth, views.images[0]
    )


def _predict(engine: Engine, image: Tensor) -> Tensor:
    with engine.placement.hosting(engine.estimator):
        return scene_depth(engine.estimator.predict(image))


def find_unit(views: Views, loaded: CapturedViews, given: int, tried: int | None, place: Mapping[int, int]) -> Unit:
    """The capture's unit: of several input views theirs, else by measured depth, else searched on one frame.

    Args:
        views: The input views with their depth.
        loaded: The capture's, the input views first.
        given: How many input views.
        tried: The frame that the unit is searched on, where nothing else tells it.
        place: Of frames in ``loaded``.
    """
    if given > 1:
        own = loaded.cameras.centers[:given].norm(dim=-1).max().item()
        return Unit(views.cameras.centers.norm(dim=-1).max().item() / own if own > 1e-9 else 1.0, "frames", None)
    if loaded.depth is not None:
        known = (loaded.depth[0] > 0) & ~is_sky(views.depth[0])
        if bool(known.any()):
            return Unit((views.depth[0][known].median() / loaded.depth[0][known].median()).item(), "depth", None)
    assert tried is not None
    index = [place[tried]]
    return Unit(find_pose_unit(views, loaded.images[index], loaded.cameras[index]), "search", tried)


def search_frame(capture: Capture, first: int) -> int:
    """Of the frames next to the input view the one that moved most before the camera turned away, by cameras alone.

    What comes back after it turned away is not asked: by then it may be anywhere.
    """
    reach = max(NEAR, len(capture) // SHARE)
    around = range(max(0, first - reach), min(len(capture), first + reach + 1))
    poses = {index: torch.from_numpy(capture.camera(index)[1].pose) for index in around}

    def angle(index: int) -> float:
        return turned(poses[index][:3, :3], poses[first][:3, :3]).item()

    near: list[int] = []
    for way in (range(first + 1, first + reach + 1), range(first - 1, first - reach - 1, -1)):
        near += takewhile(lambda index: index in poses and angle(index) < TURNED_LESS, way)
    if not near:
        return min((i for i in (first - 1, first + 1) if i in poses), key=angle)
    return max(near, key=lambda index: (poses[index][:3, 3] - poses[first][:3, 3]).norm().item())


def film(
    engine: Engine, views: Views, itinerary: Itinerary, cameras: Cameras, place: Mapping[int, int], seed: int
) -> tuple[dict[int, Float[Tensor, "3 height width"]], list, set[int]]:
    """The teacher's clips along the capture's own path.

    Returns:
        Its picture of each frame on the way, all clips, and the frames that it did not come to, since nothing known
        was in sight any more.
    """
    length = engine.config.frames
    laid = {name: lay_path(name, cameras[[place[number] for number in way]], length) for name, way in itinerary.ways}
    shelf = Shelf()
    paths = {name: path for name, (path, _) in laid.items()}
    while True:
        try:
            [clips] = engine.imagine(views, list(paths.values()), seed, shelf, quiet=True)
            break
        except LyraError:
            # A path that leaves what is known ends in the middle: its first clips are on the shelf, and are kept.
            finished = {name: _count_finished(path, views, shelf, length) for name, path in paths.items()}
            cut = [name for name, (done, whole) in finished.items() if 0 < done < whole]
            if not cut:
                raise
            paths[cut[0]] = _shortened(paths[cut[0]], finished[cut[0]][0], length)
    frames: dict[int, Tensor] = {}
    lost: set[int] = set()
    taken = 0
    for name, way in itinerary.ways:
        count = (len(paths[name].cameras) - 1) // (length - 1)
        shown = [engine.frames(clip) for clip in clips[taken : taken + count]]
        taken += count
        film_frames = torch.cat([shown[0], *(part[1:] for part in shown[1:])])
        for number, at in zip(way, laid[name][1], strict=True):
            frames[number] = film_frames[min(at, len(film_frames) - 1)]
            lost |= {number} if at >= len(film_frames) else set()
    return frames, clips, lost


def _count_finished(path: CameraPath, views: Views, shelf: Shelf, length: int) -> tuple[int, int]:
    names = list(split_path(path, views.cameras.intrinsics[0], length))
    return sum(name in shelf for name in names), len(names)


def _shortened(path: CameraPath, clips: int, length: int) -> CameraPath:
    return replace(path, cameras=path.cameras[: clips * (length - 1) + 1])


def view_baselines(views: Views, cameras: Cameras) -> dict[str, Float[Tensor, "view 3 height width"]]:
    """What needs no generative model: the cache with its holes filled in two ways, planes, the nearest input view."""
    warped, covered = warp_views(views, cameras)
    solid = ~is_sky(views.depth)
    middle = [d[s].median() if bool(s.any()) else d.median() for d, s in zip(views.depth, solid, strict=True)]
    planes = torch.stack([value.expand(views.depth.shape[1:]) for value in middle])
    flat, flat_covered = warp_views(replace(views, depth=planes), cameras)
    nearest = torch.cdist(cameras.centers, views.cameras.centers).argmin(1)
    return {
        "cache": fill_with_mean(warped, covered),
        "cache-nearest": fill_with_nearest(warped, covered),
        "plane": fill_with_nearest(flat, flat_covered),
        "repeat": views.images[nearest],
    }


def warp_views(
    views: Views, cameras: Cameras
) -> tuple[Float[Tensor, "view 3 height width"], Bool[Tensor, "view height width"]]:
    """The input views' pixels moved by their depths, the nearest where several land, and where any do."""
    seen = render_cache(build_cache(views.images * 2 - 1, views.depth, views.cameras, None), cameras)
    masks = seen.masks > 0
    front = torch.where(masks, seen.depth, torch.inf).argmin(1)
    images = seen.images.gather(1, front[:, None, None].expand(-1, 1, 3, -1, -1))[:, 0]
    return images / 2 + 0.5, masks.any(1)


def see_visible(
    views: Views, cameras: Cameras, loaded: CapturedViews, first: int, picks: list[int], unit: float
) -> Bool[Tensor, "view height width"]:
    """Which pixels the input views see: by measured depth, and where there is none by where their pixels land."""
    _, landed = warp_views(views, cameras)
    if loaded.depth is None or len(views) > 1:
        return landed
    true = loaded.depth * unit
    known = true[picks] > 0
    # Where the input view has no measured depth its predicted one stands.
    own = torch.where(true[first] > 0, true[first], views.depth[0])
    there = visible_from(own, views.cameras, true[picks].clamp(min=1e-6), cameras)
    return torch.where(known, there, landed)


def describe(shown: ShownCapture) -> dict[str, Any]:
    """How a capture was shown, for JSON."""
    return {"unit": shown.unit._asdict(), "lost_frames": shown.lost, "targets": list(shown.targets)}
