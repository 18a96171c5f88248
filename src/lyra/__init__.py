"""lyra: a photo becomes a 3D Gaussian-splat scene, a video a 4D one.

model = lyra.load("mini")
scene = model.generate("photo.jpg")
rendering = scene.render(scene.input_camera)
"""

import importlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

# torch's OpenMP threads otherwise spin while they wait, which on shared cores makes small operations 100 times slower.
# It is read when torch is first imported, hence here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from lyra.errors import LyraError

if TYPE_CHECKING:
    from lyra.generate.generator import Generator
    from lyra.geometry.cameras import Cameras
    from lyra.geometry.gaussians import Gaussians
    from lyra.rendering import Rendering, render
    from lyra.scene.scene import Scene

__all__ = ["Cameras", "Gaussians", "LyraError", "Rendering", "Scene", "load", "render"]

_ROOMS = {
    "Cameras": "lyra.geometry.cameras",
    "Gaussians": "lyra.geometry.gaussians",
    "Rendering": "lyra.rendering",
    "Scene": "lyra.scene.scene",
    "render": "lyra.rendering",
}


def __getattr__(name: str) -> Any:
    """Loads what is asked for when it is first asked for: torch takes seconds, in which Ctrl-C is to end quietly."""
    if name not in _ROOMS:
        raise AttributeError(f"module 'lyra' has no attribute {name!r}")
    globals()[name] = value = getattr(importlib.import_module(_ROOMS[name]), name)
    return value


def load(name: str | Path) -> "Generator":
    """Loads a model: a bundled one by name ("mini", "smoke"), one by its folder, or ``owner/name@commit`` of the hub.

    Raises:
        LyraError: there is no such model, or a file of it is missing or damaged.
    """
    # Late: diffusers takes seconds to import, which cameras, Gaussians and rendering do not need.
    from lyra.generate.generator import Generator

    return Generator.load(name)
