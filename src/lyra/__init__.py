"""lyra: a photo becomes a 3D Gaussian-splat scene.

model = lyra.load("mini")
scene = model.generate("photo.jpg", "out")
rendering = scene.render(cameras)
"""

import os

# torch's OpenMP threads otherwise spin while they wait, which on shared cores makes small operations 100 times slower.
# It is read when torch is first imported, hence here.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from lyra.cameras import Cameras
from lyra.errors import LyraError
from lyra.gaussians import Gaussians
from lyra.model import Model, load
from lyra.rendering import Rendering, render
from lyra.scene import Scene

__all__ = ["Cameras", "Gaussians", "LyraError", "Model", "Rendering", "Scene", "load", "render"]
