"""Which frames of a capture are given, which are asked for, and the way of the teacher's camera past all of them."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from lyra.engine.paths import CameraPath, resample_cameras
from lyra.errors import LyraError
from lyra.files.atomic import explain_reading
from lyra.geometry.cameras import Cameras

AHEAD, BACK = "ahead", "back"
"""Names of the two ways from the input frame: on in the film, and back in it."""


@dataclass(frozen=True)
class Itinerary:
    """Numbers of a capture's frames."""

    inputs: tuple[int, ...]
    """What a model is given; the first is the input view."""
    targets: tuple[int, ...]
    """What it is asked for, in order."""
    ways: tuple[tuple[str, tuple[int, ...]], ...]
    """By name, the frames that the teacher's camera passes one after another, each beginning at the input view."""


def plan_itinerary(count: int, inputs: Sequence[int], stride: int | None, most: int) -> Itinerary:
    """The capture's own path from the input view, on and back in the film.

    Args:
        count: Frames of the capture.
        inputs: Frames that are given.
        stride: Every how many frames are asked for; the least that leaves at most ``most`` when None.
        most: Frames at most.

    Raises:
        LyraError: there is no such frame, one is given twice, or nothing is left to ask for.
    """
    check_frames(count, inputs)
    first = inputs[0]
    step = stride or max(1, math.ceil((count - len(inputs)) / most))
    ahead = [first, *range(first + step, count, step)]
    back = [first, *range(first - step, -1, -step)]
    if stride is not None and len(ahead) + len(back) - 2 > most:
        # What is nearest to the input view; an equal share of both ways, what one leaves over for the other.
        half = most // 2
        on = min(len(ahead) - 1, max(half, most - len(back) + 1))
        ahead, back = ahead[: on + 1], back[: most - on + 1]
    targets = tuple(sorted(i for i in {*ahead, *back} if i not in inputs))
    if not targets:
        raise LyraError("no frame is left to compare with: give fewer input frames, or a smaller stride")
    ways = tuple((name, tuple(way)) for name, way in ((AHEAD, ahead), (BACK, back)) if len(way) > 1)
    return Itinerary(tuple(inputs), targets, ways)


def indexed_itinerary(count: int, contexts: Sequence[int], targets: Sequence[int], steps: int) -> Itinerary:
    """That of an evaluation index: given and asked frames by number, and the true way from the first past all of them.

    Args:
        count: Frames of the capture.
        contexts: Frames that are given.
        targets: Frames that are asked for.
        steps: Of the way at most, besides those frames.

    Raises:
        LyraError: there is no such frame, or one is both given and asked for.
    """
    check_frames(count, [*contexts, *targets])
    named = {*contexts, *targets}
    first, low, high = contexts[0], min(named), max(named)
    gap = max(1, math.ceil((high - low) / steps))
    passed = sorted(named | set(range(low, high + 1, gap)))
    ahead = [i for i in passed if i >= first]
    back = [i for i in passed[::-1] if i <= first]
    ways = tuple((name, tuple(way)) for name, way in ((AHEAD, ahead), (BACK, back)) if len(way) > 1)
    return Itinerary(tuple(contexts), tuple(sorted(targets)), ways)


def check_frames(count: int, frames: Sequence[int]) -> None:
    """Refuses frames that are not there, and the same one twice.

    Raises:
        LyraError: one is.
    """
    outside = [i for i in frames if not 0 <= i < count]
    if outside:
        raise LyraError(f"there is no frame {outside[0]}: the capture has frames 0 to {count - 1}")
    if len(set(frames)) < len(frames):
        raise LyraError("a frame is named twice: an input frame cannot be given or asked for again")


def read_index(path: Path) -> dict[str, tuple[tuple[int, ...], tuple[int, ...]]]:
    """Frames given and asked for by scene, of an evaluation index as pixelSplat and MVSplat write it.

    Scenes that the index itself leaves out (null) are left out.

    Raises:
        LyraError: the file is missing or something else.

    Source: ``evaluation_index_re10k.json`` of pixelSplat, ``{"scene": {"context": [..], "target": [..]}}``.
    """
    with explain_reading(path):
        data = path.read_bytes()
    try:
        content = json.loads(data)
        return {
            name: (tuple(map(int, entry["context"])), tuple(map(int, entry["target"])))
            for name, entry in content.items()
            if entry is not None
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise LyraError(f'{path} is no evaluation index: give {{"scene": {{"context": [], "target": []}}}}') from None


def lay_path(name: str, cameras: Cameras, length: int) -> tuple[CameraPath, list[int]]:
    """A path through some cameras in whole clips, with further cameras between them where they are farthest apart.

    Args:
        name: Of the path.
        cameras: The first at the input view; in scene units.
        length: Frames of a clip.

    Returns:
        The path, and where on it the cameras are.
    """
    clips = math.ceil((len(cameras) - 1) / (length - 1))
    spare = clips * (length - 1) - (len(cameras) - 1)
    steps = _spread(_distances(cameras), spare)
    parts, places = [cameras[:1]], [0]
    for index, count in enumerate(steps):
        pair = cameras[index : index + 2]
        between = resample_cameras(pair, count + 1)[1:-1]
        parts += [between, pair[1:]]
        places.append(places[-1] + count)
    poses, lenses = (torch.cat([getattr(part, key) for part in parts]) for key in ("camera_to_world", "intrinsics"))
    return CameraPath(name, replace(cameras, camera_to_world=poses, intrinsics=lenses)), places


def _distances(cameras: Cameras) -> list[float]:
    """From camera to camera, scene units and radians added up."""
    poses = cameras.camera_to_world.double()
    moved = cameras.centers.double().diff(dim=0).norm(dim=-1)
    return (moved + turned(poses[:-1, :3, :3], poses[1:, :3, :3])).tolist()


def turned(first: Tensor, second: Tensor) -> Tensor:
    """Angles between rotations, radians."""
    trace = (first * second).sum((-1, -2))
    return ((trace - 1) / 2).clamp(-1, 1).acos()


def _spread(distances: list[float], spare: int) -> list[int]:
    """Steps of each stretch, so that the longest step is as short as it can be."""
    steps = [1] * len(distances)
    for _ in range(spare):
        longest = max(range(len(steps)), key=lambda i: distances[i] / steps[i])
        steps[longest] += 1
    return steps
