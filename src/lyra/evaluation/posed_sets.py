"""A model on folders of posed pictures: all methods' errors, over all frames and by how far their cameras moved."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from lyra.engine.engine import Engine
from lyra.errors import LyraError
from lyra.evaluation.captured_scenes import ShownCapture, describe, show_capture
from lyra.evaluation.depth_scores import score_depth
from lyra.evaluation.gallery import Gallery
from lyra.evaluation.itinerary import Itinerary, indexed_itinerary, plan_itinerary, read_index
from lyra.evaluation.scores import Values, find_scores, mean_rows
from lyra.evaluation.stages import Stages
from lyra.files.posed_folders import Capture, find_captures
from lyra.models.model import Model
from lyra.views.sizes import fit_shape

BINS = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8, math.inf)
"""Distances from the nearest input camera over the input view's median depth, at which frames are told apart."""


@dataclass(frozen=True)
class PosedOptions:
    """What is asked of a capture."""

    input_frame: tuple[int, ...] = (0,)
    """Numbers of the frames that are given, the input view first."""
    stride: int | None = None
    """Every how many frames are asked for; as many as leave no more than ``most`` when None."""
    most: int = 24
    """Frames that are asked for at most, of each capture."""
    index: Path | None = None
    """Evaluation index (pixelSplat's JSON) in place of the above: scenes, their given and asked frames."""
    size: int | None = None
    """Pixels of the longer side; 256 when None."""
    seed: int = 0
    """Of the teacher's noise."""


LONGER = 256
"""Pixels of the longer side at which captures are compared, where nothing else is said."""


@torch.no_grad()
def evaluate_posed(
    model: Model,
    folder: Path,
    options: PosedOptions = PosedOptions(),
    device: str = "auto",
    gallery: Gallery | None = None,
    stages: Stages | None = None,
) -> tuple[dict[str, Any], Values, list[ShownCapture]]:
    """Student, teacher and baselines on one capture, or on all captures of a folder.

    Args:
        model: All parts.
        folder: A capture, or a folder of captures.
        options: What is given and asked for.
        device: Where the networks run.
        gallery: Where pictures are kept for a report.
        stages: Where time and memory are noted.

    Returns:
        ``frames``, ``rows`` (one a method), ``by_baseline`` (the same by distance), ``captures`` (layout, shape, unit)
        and, where it was measured, ``depth``; every number that went into them; and what was shown.

    Raises:
        LyraError: there is no capture, or one is damaged.
    """
    stages = stages or Stages()
    jobs = list(plan_captures(folder, options, model.config.teacher.frames - 1))
    scores, shown, facts = find_scores(), [], []
    for capture, itinerary in tqdm(jobs, desc="captures", disable=len(jobs) < 2):
        with Engine(model, device, config=shape_of(model, capture, itinerary, options.size)) as engine:
            one = show_capture(engine, capture, itinerary, options.seed, stages)
            shape = [engine.config.width, engine.config.height]
        with stages("scores"):
            scores.add(one.truth, one.methods)
        if gallery is not None:
            labels = [f"frame {i}, {d:.2f} away" for i, d in zip(one.targets, one.baselines.tolist(), strict=True)]
            gallery.add(capture.name, one.input, one.truth.color, one.methods, labels)
        shown.append(one)
        facts.append(
            {"name": capture.name, "layout": capture.layout, "input": list(itinerary.inputs), "size": shape}
            | describe(one)
        )
    result: dict[str, Any] = {"frames": sum(len(one.targets) for one in shown), "rows": scores.rows()}
    depth = score_depths(shown)
    if depth is not None:
        result["depth"] = depth
    result |= {"by_baseline": split_by_baseline(scores.values, shown), "captures": facts}
    return result, scores.values, shown


def plan_captures(folder: Path, options: PosedOptions, steps: int) -> Sequence[tuple[Capture, Itinerary]]:
    """What is asked of each capture; all of it is checked before any network works.

    Raises:
        LyraError: a frame is not there, or the index names no capture of the folder.
    """
    captures = find_captures(folder)
    if options.index is None:
        return [(c, plan_itinerary(len(c), options.input_frame, options.stride, options.most)) for c in captures]
    index = read_index(options.index)
    known = [capture for capture in captures if capture.name in index]
    if not known:
        raise LyraError(f"{options.index} names none of the captures in {folder}: give the index of this data set")
    return [(capture, indexed_itinerary(len(capture), *index[capture.name], steps)) for capture in known]


def shape_of(model: Model, capture: Capture, itinerary: Itinerary, size: int | None):
    """The teacher's config at the input view's shape.

    Raises:
        LyraError: the model does not work at this size.
    """
    config, sizes = model.config.teacher, model.config.sizes
    if sizes is None:
        if size not in (None, max(config.height, config.width)):
            raise LyraError(f"model {model.config.name!r} works at {config.width}x{config.height}: leave out --size")
        return config
    longer = size or min(LONGER, sizes.photo)
    sizes.check(longer)
    lens = capture.camera(itinerary.inputs[0])[1].shown_lens()
    return config.at_size(*fit_shape(round(lens.width), round(lens.height), longer, sizes.multiple))


def split_by_baseline(values: Values, shown: Sequence[ShownCapture]) -> list[dict[str, Any]]:
    """Rows of the frames whose cameras moved equally far; masked errors belong to whole scenes and are left out."""
    found = []
    for low, high in pairwise(BINS):
        inside = [(one.baselines >= low) & (one.baselines < high) for one in shown]
        count = int(sum(mask.sum() for mask in inside))
        if count:
            picked = {
                method: {
                    name: [
                        [v for v, keep in zip(scene, mask.tolist(), strict=True) if keep] if scene else []
                        for scene, mask in zip(row[name], inside, strict=True)
                    ]
                    for name in ("psnr", "ssim", "perceptual", "lpips")
                    if name in row
                }
                for method, row in values.items()
            }
            found.append({"from": low, "to": high, "frames": count, "rows": mean_rows(picked)})
    return found


def score_depths(shown: Sequence[ShownCapture]) -> dict[str, float] | None:
    """Errors of the depth network on the asked frames, each by itself, and of the student's scene in their place.

    Returns:
        ``absrel`` and ``within_1_25`` after the medians are made equal, ``absrel_affine`` after the best affine map of
        inverse depth; ``student_absrel`` and ``student_within_1_25``. None where no depth was measured.
    """
    rows: list[dict[str, float]] = []
    for one in shown:
        for true, network, student in zip(*(one.depth.get(k, ()) for k in ("true", "network", "student")), strict=True):
            known = true > 0
            if int(known.sum()) < 16:
                continue
            own = score_depth(network, true, known)
            there = known & (student > 0)
            scene = score_depth(student, true, there) if int(there.sum()) >= 16 else None
            rows.append(
                {"absrel": own.relative, "within_1_25": own.within, "absrel_affine": own.affine}
                | ({"student_absrel": scene.relative, "student_within_1_25": scene.within} if scene else {})
            )
    if not rows:
        return None
    names = dict.fromkeys(name for row in rows for name in row)
    columns: Mapping[str, list[float]] = {name: [row[name] for row in rows if name in row] for name in names}
    return {name: sum(numbers) / len(numbers) for name, numbers in columns.items()}
