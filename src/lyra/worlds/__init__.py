"""Seeded, endless textured worlds, ray traced in plain torch with exact depth.

A seed becomes a room, a table top, a street, a landscape or a building (``sample_world``), and a world with cameras
becomes colors and z-depth (``render_world``); things move in it with ``sample_moving_world`` and
``render_moving_world``. ``world`` says what a world is; ``patterns`` and ``textures`` paint it; ``intersections``,
``terrain`` and ``tracing`` render it; ``drawing``, ``rooms``, ``outdoors``, ``streets``, ``landscapes`` and
``sampling`` make it up, ``close_ups`` one large thing; ``movers``, ``placing`` and ``motion`` set it in motion. Each
imports only from those before it.
"""

from lyra.worlds.close_ups import sample_close_up
from lyra.worlds.draws import describe_world, sample_world
from lyra.worlds.motion import MovingWorld, moving_pixels, render_moving_world, sample_moving_world
from lyra.worlds.tracing import render_world
from lyra.worlds.world import INPUT_FOV, Sky, Terrain, World, WorldKind

__all__ = [
    "INPUT_FOV",
    "MovingWorld",
    "Sky",
    "Terrain",
    "World",
    "WorldKind",
    "describe_world",
    "moving_pixels",
    "render_moving_world",
    "render_world",
    "sample_close_up",
    "sample_moving_world",
    "sample_world",
]
