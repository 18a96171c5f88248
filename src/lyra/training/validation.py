"""Fixed scenes that no training reads, looked at while a student learns: the teacher's frames beside the student's."""

import json
from dataclasses import replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from lyra.engine.engine import Engine
from lyra.errors import LyraError
from lyra.files.strict_json import to_json
from lyra.geometry.gaussians import Gaussians
from lyra.models.model import Model
from lyra.rendering import render
from lyra.student import GaussianDecoder
from lyra.synthesis.imagined import SyntheticScene
from lyra.synthesis.streaming import DataSet
from lyra.training.curves import Curves
from lyra.training.loop import LOG

SCENES = 4
"""Held-out scenes that are looked at."""
BINS = 20
"""Of the histogram of opacities in [0, 1]."""
VALIDATION = "validation.jsonl"


class Validation:
    """What a student makes of the first held-out scenes, written to ``validation.jsonl`` and TensorBoard."""

    def __init__(
        self,
        model: Model,
        student: GaussianDecoder,
        data: DataSet,
        folder: Path,
        moving: bool = False,
        curves: Curves | None = None,
    ):
        """Reads the scenes.

        Args:
            model: Whose tokenizer decodes the clips.
            student: Looked at with the weights that it has then.
            data: Of training; its held-out part is read, where it has one.
            folder: Of the run.
            moving: Whether the scenes are videos.
            curves: Also told.
        """
        self.student, self.folder, self.moving, self.curves = student, folder, moving, curves
        self.engine = Engine(replace(model, decoder=student), "cpu")
        self.scenes: list[SyntheticScene] = []
        try:
            held_out = DataSet(data.folder, "held-out")
        except LyraError:
            return
        self.scenes = [held_out[index].scene for index in range(min(SCENES, len(held_out)))]

    def _count_steps(self) -> int:
        """Steps that are done, by the log."""
        log = self.folder / LOG
        return len(log.read_text().splitlines()) if log.exists() else 0

    @torch.no_grad()
    def show(self) -> Float[Tensor, "3 height width"]:
        """Looks at all scenes; returns the picture: a row a scene, pairs of teacher and student."""
        step = self._count_steps()
        rows, errors, opacities, kept = [], [], [torch.zeros(0)], 0
        self.student.eval()
        for scene in self.scenes:
            gaussians, views = self._decode(scene)
            cells = []
            for truth, shown in views:
                errors.append((shown.clamp(0, 1) - truth).square().mean().clamp(min=1e-10))
                cells += [truth, shown.clamp(0, 1)]
            rows.append(torch.cat(cells, dim=-1))
            opacities.append(gaussians.opacities)
            kept += len(gaussians)
        if not rows:
            return torch.ones(3, 8, 8)
        spread = torch.cat(opacities)
        numbers = {
            "psnr": float((-10 * torch.stack(errors).log10()).mean()),
            "gaussians": kept / len(rows),
            "opacity": float(spread.mean()),
        }
        histogram = torch.histc(spread.float(), BINS, 0.0, 1.0)
        row = {"step": step, **numbers, "opacities": [int(count) for count in histogram.tolist()]}
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / VALIDATION).open("a") as file:
            file.write(to_json(row) + "\n")
        picture = torch.cat(rows, dim=-2)
        if self.curves is not None:
            self.curves.show(step, picture, spread, numbers)
        return picture

    def _decode(self, scene: SyntheticScene) -> tuple[Gaussians, list[tuple[Tensor, Tensor]]]:
        """Gaussians, and pairs of the teacher's and the student's picture: of photos, late frames of three clips."""
        if self.moving:
            return self._decode_moment(scene)
        gaussians = self.engine.decode([list(scene.clips)], scene.views)
        assert isinstance(gaussians, Gaussians)
        pairs = []
        for clip in (scene.clips[index] for index in (0, 3, 4) if index < len(scene.clips)):
            shown = render(gaussians, clip.cameras[-1:]).color[0]
            pairs.append((self.engine.frames(clip)[-1], shown))
        return gaussians, pairs

    def _decode_moment(self, scene: SyntheticScene) -> tuple[Gaussians, list[tuple[Tensor, Tensor]]]:
        middle = len(scene.views) // 2
        if self.student.config.geometry == "cache":
            dynamic = self.engine.decode([list(scene.clips)], scene.views)
            assert not isinstance(dynamic, Gaussians)
            gaussians = dynamic.at(float(dynamic.times[middle]))
        else:
            time = middle / max(1, len(scene.views) - 1)
            gaussians = self.engine.decode([list(scene.clips[1:])], None, time)
            assert isinstance(gaussians, Gaussians)
        pairs = []
        for clip in scene.clips[1:4]:
            shown = render(gaussians, clip.cameras[middle : middle + 1]).color[0]
            pairs.append((self.engine.frames(clip)[middle], shown))
        return gaussians, pairs


def read_validation(folder: Path) -> list[dict]:
    """The lines of ``validation.jsonl``, the last of each step: a run that went on looks again."""
    path = folder / VALIDATION
    if not path.is_file():
        return []
    rows = {}
    for line in path.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            row = json.loads(line)
            rows[row["step"]] = row
    return [rows[step] for step in sorted(rows)]
