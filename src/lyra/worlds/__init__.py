"""Seeded, endless textured rooms, ray traced in plain torch with exact depth.

A seed becomes a world (``sample_world``), and a world with cameras becomes colors and z-depth (``render_world``).
``world`` says what a world is; ``textures``, ``tracing`` and ``sampling`` build on it, each importing only from those
before it.
"""

from lyra.worlds.sampling import describe_world, sample_world
from lyra.worlds.tracing import render_world
from lyra.worlds.world import INPUT_FOV, World

__all__ = ["INPUT_FOV", "World", "describe_world", "render_world", "sample_world"]
