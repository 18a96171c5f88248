"""A scene, still or dynamic: Gaussians, the input camera they were made from, and where they came from."""

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from lyra.errors import LyraError
from lyra.export.splat_files import load_splats
from lyra.files import load_ply, save_ply, write_atomically
from lyra.files.atomic import explain_writing
from lyra.files.moving_splats import load_dynamic, save_dynamic, save_frames
from lyra.files.strict_json import to_json
from lyra.geometry.cameras import Cameras
from lyra.geometry.dynamic import DynamicGaussians, crop
from lyra.geometry.gaussians import Gaussians
from lyra.rendering import Rendering, render
from lyra.scene.foreign import find_camera

PLY = "scene.ply"
PROVENANCE = "scene.json"
DYNAMIC = "dynamic.safetensors"


@dataclass(frozen=True)
class Scene:
    """What ``generate`` returns and a scene folder holds."""

    gaussians: Gaussians
    """In the input camera's frame: x right, y down, z forward, the view's median depth at 1."""
    input_camera: Cameras
    """One view, the identity but for a PLY from elsewhere."""
    provenance: dict[str, Any] = field(default_factory=dict)
    """Model and its checksums, seed, input, cameras, timings, package versions: the content of ``scene.json``."""
    dynamic: DynamicGaussians | None = None
    """All moments of a scene that moves; ``gaussians`` are its first moment's."""
    unit: float = 1.0
    """How far ahead of the input camera its middle is, which films turn around; 1 but for a PLY from elsewhere."""

    @classmethod
    def of(cls, gaussians: Gaussians | DynamicGaussians, input_camera: Cameras) -> "Scene":
        """A scene of what a student made, still or dynamic."""
        if isinstance(gaussians, DynamicGaussians):
            return cls.of_moments(gaussians, input_camera)
        return cls(gaussians, input_camera)

    def told(self, provenance: dict[str, Any]) -> "Scene":
        """The same scene with its provenance."""
        return replace(self, provenance=provenance)

    def to(self, target: torch.device | str) -> "Scene":
        """The same scene on another device."""
        dynamic = None if self.dynamic is None else self.dynamic.to(target)
        return replace(
            self, gaussians=self.gaussians.to(target), input_camera=self.input_camera.to(target), dynamic=dynamic
        )

    @classmethod
    def of_moments(
        cls, dynamic: DynamicGaussians, input_camera: Cameras, provenance: dict[str, Any] | None = None
    ) -> "Scene":
        """A dynamic scene."""
        return cls(dynamic.moment(0), input_camera, provenance or {}, dynamic)

    def at(self, time: float) -> "Scene":
        """The still scene at a time in [0, 1]; a still scene is the same at all times.

        Raises:
            LyraError: the time is outside.
        """
        if self.dynamic is None:
            return self
        return replace(self, gaussians=self.dynamic.at(time), dynamic=None)

    def between(self, start: float, end: float) -> "Scene":
        """A dynamic scene's moments from one time to another; they then last from 0 to 1.

        Raises:
            LyraError: the scene is still, or has no moment there.
        """
        if self.dynamic is None:
            raise LyraError("the scene is still: it has no times to choose from")
        return Scene.of_moments(self.dynamic.between(start, end), self.input_camera, self.provenance)

    def crop(self, low: Sequence[float], high: Sequence[float]) -> "Scene":
        """The Gaussians whose centres lie in a box; lowest and highest x, y, z in scene units.

        Raises:
            LyraError: the box is empty.
        """
        if self.dynamic is None:
            return replace(self, gaussians=crop(self.gaussians, low, high))
        return Scene.of_moments(self.dynamic.crop(low, high), self.input_camera, self.provenance)

    def render(
        self, cameras: Cameras, background: Float[Tensor, "3"] | None = None, time: float | None = None
    ) -> Rendering:
        """Color, depth and alpha at some cameras; see :func:`lyra.rendering.render`.

        Args:
            cameras: One view axis, on the scene's device.
            background: sRGB behind the scene, white if none is given.
            time: Of a dynamic scene: the moment that is shown, in [0, 1].

        Raises:
            LyraError: the scene is dynamic and there is no time, or the time is outside.
        """
        if self.dynamic is not None:
            if time is None:
                raise LyraError("the scene moves: say which moment, scene.render(cameras, time=0.0), or take scene.at")
            return render(self.dynamic.at(time), cameras, background)
        return render(self.gaussians, cameras, background)

    def save(self, folder: Path | str) -> None:
        """Writes ``scene.ply`` and ``scene.json``; of a dynamic scene also ``dynamic.safetensors`` and ``frames/``, one
        PLY a moment.

        ``scene.ply`` is the first moment that shows anything: readers refuse an empty one. What another scene has left
        in the folder of these files, and beside a still scene its ``scene.4dgs``, is removed at the end.

        Raises:
            LyraError: the folder cannot be written to.
        """
        folder = Path(folder)
        save_ply(self._shown(), folder / PLY)
        if self.dynamic is not None:
            save_frames(self.dynamic, folder)
            save_dynamic(self.dynamic, folder / DYNAMIC)
        with write_atomically(folder / PROVENANCE) as path:
            path.write_text(to_json({**self.provenance, "input_camera": self._camera_json()}, indent=2) + "\n")
        self._remove_others(folder)

    def _shown(self) -> Gaussians:
        """The first moment at which anything is there."""
        if self.dynamic is None or len(self.gaussians):
            return self.gaussians
        first = next((i for i, moment in enumerate(self.dynamic.moments) if len(moment)), 0)
        return self.dynamic.moment(first)

    def _remove_others(self, folder: Path) -> None:
        """Removes another scene's files that this one does not have."""
        moments = 0 if self.dynamic is None else len(self.dynamic)
        frames = (folder / "frames").glob("[0-9]*.ply")
        others = [path for path in frames if path.stem.isdecimal() and int(path.stem) >= moments]
        if self.dynamic is None:
            others += [folder / DYNAMIC, folder / "scene.4dgs"]
        with explain_writing(folder):
            for path in others:
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it is not there, or holds something else
            if not moments:
                (folder / "frames").rmdir()

    def _camera_json(self) -> dict[str, Any]:
        camera = self.input_camera
        unit = {} if self.unit == 1 else {"unit": self.unit}
        return {
            **unit,
            "camera_to_world": camera.camera_to_world[0].tolist(),
            "intrinsics": camera.intrinsics[0].tolist(),
            "height": camera.height,
            "width": camera.width,
        }

    @classmethod
    def load(cls, path: Path | str) -> "Scene":
        """Reads a scene folder, or a file of splats: then with the camera that is stored with it, or one that sees it.

        Raises:
            LyraError: there is no scene there, or it is damaged.
        """
        path = Path(path)
        if path.is_file():
            gaussians = load_splats(path)
            camera, unit = find_camera(path, gaussians)
            return cls(gaussians, camera, unit=unit)
        if not (path / PROVENANCE).is_file():
            raise LyraError(f"{path} holds no finished scene (no {PROVENANCE}): give a folder that generate wrote")
        try:
            provenance = json.loads((path / PROVENANCE).read_text())
            content = provenance.pop("input_camera")
            camera = Cameras(
                torch.tensor(content["camera_to_world"])[None],
                torch.tensor(content["intrinsics"])[None],
                content["height"],
                content["width"],
            )
            unit = float(content.get("unit", 1.0))
        except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
            raise LyraError(f"{path / PROVENANCE} is damaged ({error}): generate the scene again") from error
        if (path / DYNAMIC).is_file():
            return cls.of_moments(load_dynamic(path / DYNAMIC), camera, provenance)
        return cls(load_ply(path / PLY), camera, provenance, unit=unit)
