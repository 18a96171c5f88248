"""lyra: a photo becomes a 3D Gaussian-splat scene.

    model = lyra.load("mini")
    scene = model.generate("photo.jpg", "out")
    rendering = scene.render(cameras)
"""

from lyra.cameras import Cameras
from lyra.errors import LyraError
from lyra.gaussians import Gaussians
from lyra.model import Model, load
from lyra.rendering import Rendering, render
from lyra.scene import Scene

__all__ = ["Cameras", "Gaussians", "LyraError", "Model", "Rendering", "Scene", "load", "render"]
