"""Builds the reference of the public API from the docstrings: ``make docs``."""

import importlib
import sys
import warnings
from pathlib import Path

import pdoc
import pdoc.render

import lyra

PUBLIC = (
    "lyra",
    "lyra.errors",
    "lyra.geometry.cameras",
    "lyra.geometry.trajectories",
    "lyra.geometry.gaussians",
    "lyra.geometry.dynamic",
    "lyra.worlds.briefs",
    "lyra.worlds.commissions",
    "lyra.files",
    "lyra.files.clips",
    "lyra.files.photos",
    "lyra.files.videos",
    "lyra.export.splat_files",
    "lyra.device.memory",
    "lyra.rendering",
    "lyra.scene.scene",
    "lyra.scene.film",
    "lyra.cache.warp",
    "lyra.cache.occlusion",
    "lyra.depth",
    "lyra.depth.pretrained",
    "lyra.tokenizer.tokenizer",
    "lyra.tokenizer.linear",
    "lyra.tokenizer.cosmos",
    "lyra.tokenizer.tiling",
    "lyra.teacher",
    "lyra.teacher.sampling",
    "lyra.teacher.wan",
    "lyra.student",
    "lyra.student.mamba2",
    "lyra.student.selective_scan",
    "lyra.views.views",
    "lyra.models.model",
    "lyra.models.loading",
    "lyra.models.smoke",
    "lyra.engine.engine",
    "lyra.engine.paths",
    "lyra.engine.shots",
    "lyra.generate.generator",
    "lyra.generate.options",
    "lyra.synthesis.choices",
    "lyra.synthesis.production",
    "lyra.synthesis.samples",
    "lyra.synthesis.sources",
    "lyra.synthesis.streaming",
    "lyra.viewer.page",
    "lyra.simulation.mesh",
    "lyra.simulation.sensor",
    "lyra.simulation.collider",
    "lyra.simulation.driving",
)
"""What a user of the library may rely on; the rest is the inside of the house."""


def public_objects(name: str) -> dict[str, object]:
    """What a public module offers: what it names in ``__all__``, else what it defines, by name."""
    module = importlib.import_module(name)
    if hasattr(module, "__all__"):
        return {key: getattr(module, key) for key in module.__all__}
    own = {key: value for key, value in vars(module).items() if getattr(value, "__module__", "") == name}
    return {key: value for key, value in own.items() if callable(value) and not key.startswith("_")}


def build(folder: Path) -> None:
    """Writes a page a module and an index.

    Args:
        folder: Where to.

    Raises:
        Warning: pdoc finds something that it cannot resolve.
    """
    for name in lyra.__all__:  # they are loaded when they are first asked for, and pdoc does not ask
        getattr(lyra, name)
    pdoc.render.configure(docformat="google", show_source=False, footer_text="lyra")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", module="pdoc")
        pdoc.pdoc(*PUBLIC, output_directory=folder)


if __name__ == "__main__":
    build(Path(sys.argv[1]))
