"""Landscapes: a height field with trees, rocks and water (``draw_landscape``). The unit is about the view's depth."""

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.random import Generator
from torch import Tensor

from lyra.worlds.drawing import Draft, camera_rotation, tensor
from lyra.worlds.outdoors import add_tree, draw_sky, open_room
from lyra.worlds.patterns import TEXTURE_SIZE, noise
from lyra.worlds.terrain import heights_at
from lyra.worlds.world import BOX, ELLIPSOID, Terrain, World

_SIZE, _EXTENT = 320, 250.0


def _noise_at(rng: Generator, power: float, period: float, x: Tensor, z: Tensor) -> Tensor:
    """Noise of unit deviation that repeats after ``period``, bilinear."""
    field = torch.from_numpy(noise(rng, power)).flatten()
    u, v = x / period * TEXTURE_SIZE, z / period * TEXTURE_SIZE
    column, row = u.floor(), v.floor()
    du, dv = u - column, v - row
    columns, rows = column.long() & (TEXTURE_SIZE - 1), (row.long() & (TEXTURE_SIZE - 1)) * TEXTURE_SIZE
    right, below = (columns + 1) & (TEXTURE_SIZE - 1), (rows + TEXTURE_SIZE) & (TEXTURE_SIZE * TEXTURE_SIZE - 1)
    upper = field[rows + columns] * (1 - du) + field[rows + right] * du
    lower = field[below + columns] * (1 - du) + field[below + right] * du
    return upper + dv * (lower - upper)


def _elevation(rng: Generator, x: Tensor, z: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """Height above the camera's foot point before water, and a broad noise for soils."""
    broad = _noise_at(rng, 1.9, 11.0, x, z)
    relief = rng.uniform(0.03, 0.25) * broad * (radius / (0.5 + radius))
    relief += rng.uniform(0.002, 0.012) * _noise_at(rng, 0.9, 2.3, x, z) * (0.3 + radius.clamp(max=4))
    height = math.exp(rng.uniform(math.log(0.8), math.log(18.0)))
    begin = math.exp(rng.uniform(math.log(1.2), math.log(12.0)))
    peaks = _noise_at(rng, 1.75, rng.uniform(60, 140), x, z)
    ridged = (1.2 - peaks.abs()) if rng.random() < 0.6 else peaks.clamp(min=-0.6) + 0.3
    rise = ((radius - begin) / (2 * begin)).clamp(0, 1)
    rise = rise * rise * (3 - 2 * rise)
    # A valley stays open ahead, in a random direction.
    valley = rng.uniform(-0.8, 0.8)
    off = (torch.atan2(x, z) - valley).abs()
    rise = rise * (1 - rng.uniform(0, 0.9) * torch.exp(-((off / 0.35) ** 2)))
    tilt = rng.normal(0, 0.05) * x + rng.normal(-0.02, 0.06) * z
    tilt = tilt * torch.exp(-radius / 20)
    return relief + height * rise * ridged + tilt, broad


def draw_terrain(
    draft: Draft, sun: np.ndarray, eye: float, soil: str | None = None, water_share: float | None = None
) -> Terrain:
    """Heights, soils by height and slope, water in the lowest places, and baked shadows.

    Args:
        draft: Takes the textures.
        sun: Unit vector to it.
        eye: Height of the camera over the ground under it.
        soil: The main one; drawn when None.
        water_share: Share of the land ahead that lies under water, 0 for none; drawn when None.
    """
    rng = draft.rng
    stretch = 1.0
    density = (_SIZE - 1) / 2 / math.asinh(_EXTENT / stretch)
    line = stretch * torch.sinh((torch.arange(_SIZE) - (_SIZE - 1) / 2) / density)
    z, x = torch.meshgrid(line, line, indexing="ij")
    radius = torch.sqrt(x * x + z * z)
    up, broad = _elevation(rng, x, z, radius)
    up = up - up[_SIZE // 2 - 1 : _SIZE // 2 + 1, _SIZE // 2 - 1 : _SIZE // 2 + 1].mean()
    ahead = (z > 0.5) & (x.abs() < z)
    water = torch.zeros_like(up)
    wet, share = rng.random() < 0.4, 0.0
    if wet or water_share:
        share = rng.uniform(0.1, 0.5)
    if water_share is not None:
        wet, share = water_share > 0, water_share
    if wet:
        level = min(float(torch.quantile(up[ahead & (radius < 30)], share)), -0.03)
        water = (up < level).float()
        up = up.clamp(min=level)
        draft.things.append("water")
    y = eye - up
    next_x, next_z = torch.roll(y, -1, 1), torch.roll(y, -1, 0)
    corners = torch.stack([y, next_x, next_z, torch.roll(next_x, -1, 0)], -1).view(-1, 4)
    slope_x, slope_z = (torch.gradient(y, spacing=(line,), dim=axis)[0] for axis in (1, 0))
    steep = torch.sqrt(slope_x**2 + slope_z**2)
    main = str(rng.choice(["grass", "grass", "grass", "sand", "snow"]))
    main = soil or main
    textures = [draft.texture(main), draft.texture("rock"), draft.texture("sand rock" if main != "sand" else "grass")]
    rough = 0.15 * _noise_at(rng, 0.8, 5.0, x, z)
    rock = ((steep + rough - rng.uniform(0.3, 0.6)) / 0.15).clamp(0, 1)
    patches = ((_noise_at(rng, 1.3, 6.0, x, z) - rng.uniform(0.2, 1.5)) / 0.25).clamp(0, 1)
    tone = 0.18 * _noise_at(rng, 1.4, 40.0, x, z) + 0.12 * broad
    if rng.random() < 0.4:  # a path that winds away from the camera
        bend = rng.uniform(0.1, 0.6) * torch.sin(z / rng.uniform(0.6, 2.5) + rng.uniform(0, 6)) + rng.normal(0, 0.4) * z
        patches = torch.maximum(patches, (2 - (x - bend).abs() / rng.uniform(0.03, 0.12)).clamp(0, 1) * (z > -1))
    terrain = Terrain(
        corners=corners.float(),
        ground=torch.zeros(_SIZE * _SIZE, 8),
        stretch=torch.tensor(stretch),
        density=torch.tensor(density).float(),
        textures=torch.tensor(textures),
    )
    lit = 1 - _shade_of_hills(y, x, z, sun, terrain)
    ground = torch.stack([slope_x, slope_z, lit, tone, rock * (1 - water), patches * (1 - water), water, 0 * water], -1)
    return replace(terrain, ground=ground.view(-1, 8).float())


def _shade_of_hills(y: Tensor, x: Tensor, z: Tensor, sun: np.ndarray, terrain: Terrain) -> Tensor:
    """Share of the sun [row, column] that hills keep from each node."""
    flat = math.hypot(sun[0], sun[2])
    result = torch.zeros_like(y)
    for step in torch.exp(torch.linspace(math.log(0.08), math.log(40.0), 14)).tolist():
        hill = heights_at(terrain, (x + step * sun[0] / flat).flatten(), (z + step * sun[2] / flat).flatten())
        above = y + step * sun[1] / flat - hill.view_as(y)
        result = torch.maximum(result, (0.5 + above / (0.02 + 0.05 * step)).clamp(0, 1))
    return result


def draw_landscape(rng: Generator) -> World:
    """Open country: plains, hills or mountains, with trees and rocks."""
    draft = Draft(rng)
    eye = math.exp(rng.uniform(math.log(0.13), math.log(0.8)))
    pitch = rng.normal(0.06 + 0.2 * eye, 0.1)
    main_period = rng.uniform(0.4, 1.2)
    draft.paint("grass", period=main_period, tint=1.0)
    draft.surfaces *= 6
    sky, sun, fill = draw_sky(draft, (40.0, 1500.0))
    terrain = draw_terrain(draft, sun[0], eye)
    names = [draft.textures[int(index)][0] for index in terrain.textures]
    height = math.exp(rng.uniform(math.log(0.12), math.log(0.8)))
    clusters = rng.uniform(-1, 1, (3, 2))
    for _ in range(int(rng.integers(2, 24))):
        far = math.exp(rng.uniform(math.log(0.9), math.log(14)))
        angle = rng.uniform(-0.65, 0.65)
        if rng.random() < 0.5:
            angle = 0.5 * clusters[rng.integers(3), 0] + rng.normal(0, 0.08)
        x, z = far * math.sin(angle), far * math.cos(angle)
        y = float(heights_at(terrain, tensor([x]), tensor([z])))
        size = height * rng.uniform(0.6, 1.3)
        add_tree(draft, x, y + 0.03 * size, z, size)
    for _ in range(int(rng.integers(4, 18))):
        far, angle = math.exp(rng.uniform(math.log(0.6), math.log(6))), rng.uniform(-0.6, 0.6)
        x, z = far * math.sin(angle), far * math.cos(angle)
        y = float(heights_at(terrain, tensor([x]), tensor([z])))
        draft.group += 1
        half = 0.08 * math.exp(rng.normal(-0.3, 0.7)) * rng.uniform(0.6, 1.3, 3)
        kind = ELLIPSOID if rng.random() < 0.8 else BOX
        draft.add(kind, (x, y - 0.3 * half[1], z), half, rng.uniform(0, 3), "rock", period=6 * half[0])
    draft.things = [f"{names[0]} and {names[1]}", *draft.things]
    rotation = camera_rotation(rng.uniform(-0.3, 0.3), pitch, rng.normal(0, 0.02))
    return draft.finish("landscape", rotation, open_room(1e4), sun, fill, sky, terrain)
