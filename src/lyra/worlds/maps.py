"""Maps of the game UFO:AI: houses, streets and farms with lifelike textures and stored light, as meshes.

The files are those of the Debian packages ``ufoai-maps`` and ``ufoai-textures`` (GPL-2+; textures CC-BY and CC-BY-SA).
They are rendered for training; neither they nor renderings of them are part of lyra.

A file is ``IBSP``, a version and 17 lumps (offset, length). 32 units are about one metre, z points up. A face's
texture position is ``point . axis + offset`` in texels; its stored light has one luxel every 2^n texels, red, green,
blue and a direction of 3 bytes each.
"""

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from lyra.errors import LyraError
from lyra.worlds.meshes import UNLIT, Mesh, Textures, build_textures, mip_chain

UNITS_PER_METRE = 32
_KEPT = 400
"""Textures in memory."""
_SKIPPED = 0x4 | 0x80 | 0x100 | 0x200
"""Sky, nodraw, hint, skip."""
_GLASS = 0x10 | 0x20
"""Panes are left out: what lies behind them is what one sees."""
_ENTITIES, _VERTICES, _TEXTURES, _FACES, _NIGHT, _DAY, _EDGES, _SURFACE_EDGES = 0, 2, 5, 6, 7, 8, 11, 12
_TEXTURE = np.dtype([("axes", "<f4", (2, 4)), ("flags", "<u4"), ("value", "<u4"), ("name", "S32")])
_FACE = np.dtype(
    [("plane", "<u2"), ("side", "<i2"), ("edge", "<i4"), ("edges", "<i2"), ("texture", "<i2"), ("light", "<i4", (2,))]
)


@dataclass(frozen=True)
class MapFile:
    """A map's faces, as the file has them."""

    name: str
    vertices: np.ndarray
    textures: np.ndarray
    faces: np.ndarray
    edges: np.ndarray
    surface_edges: np.ndarray
    light: tuple[bytes, bytes]
    """Night and day."""
    spawns: Float[np.ndarray, "spawn 3"]
    """Places to stand on, metres, in the axes of cameras."""

    @property
    def texture_names(self) -> list[str]:
        """As the file writes them, without folder and ending."""
        return [name.split(b"\0")[0].decode("latin1") for name in self.textures["name"].tolist()]


def held_out(name: str) -> bool:
    """Whether a map is one of the tenth that training never sees."""
    return zlib.crc32(name.encode()) % 10 == 0


def read_map(content: bytes, name: str) -> MapFile:
    """A map from its file's content.

    Raises:
        LyraError: the content is not such a file.
    """
    if content[:4] != b"IBSP" or len(content) < 8 + 17 * 8:
        raise LyraError(f"{name} is not a map of UFO:AI (IBSP)")
    lumps = [content[at : at + length] for at, length in struct.iter_unpack("<2i", content[8 : 8 + 17 * 8])]
    try:
        return MapFile(
            name,
            np.frombuffer(lumps[_VERTICES], "<f4").reshape(-1, 3),
            np.frombuffer(lumps[_TEXTURES], _TEXTURE),
            np.frombuffer(lumps[_FACES], _FACE),
            np.frombuffer(lumps[_EDGES], "<u2").reshape(-1, 2),
            np.frombuffer(lumps[_SURFACE_EDGES], "<i4"),
            (lumps[_NIGHT], lumps[_DAY]),
            _spawns(lumps[_ENTITIES].decode("latin1")),
        )
    except ValueError as error:
        raise LyraError(f"{name} is damaged: {error}") from error


def _spawns(entities: str) -> np.ndarray:
    places = []
    for entity in entities.split("}"):
        fields = dict(
            line.strip()[1:-1].split('" "', 1) for line in entity.splitlines() if line.count('"') == 4 and '" "' in line
        )
        if fields.get("classname", "").startswith("info_") and "origin" in fields:
            places.append([float(x) for x in fields["origin"].split()])
    return to_camera_axes(np.array(places, np.float64).reshape(-1, 3))


def to_camera_axes(points: np.ndarray) -> np.ndarray:
    """Metres, y down, from the map's units with z up."""
    return np.stack([points[..., 0], -points[..., 2], points[..., 1]], -1) / UNITS_PER_METRE


class MapArchive:
    """The two archives of the packages.

    Args:
        folder: Where ``0maps.pk3`` and ``0textures.pk3`` lie, ``/usr/share/games/ufoai/base`` where installed.

    Raises:
        LyraError: the archives are not there.
    """

    def __init__(self, folder: Path):
        paths = [folder / "0maps.pk3", folder / "0textures.pk3"]
        for path in paths:
            if not path.is_file():
                raise LyraError(f"{path} is not there: install ufoai-maps and ufoai-textures (Debian)")
        self.maps, self.pictures = (zipfile.ZipFile(path) for path in paths)
        self._pictures: dict[str, tuple[tuple[int, int], list[np.ndarray]]] = {}

    @cached_property
    def names(self) -> list[str]:
        """All maps, for example ``maps/farm/f_road_v.bsp``."""
        return sorted(name for name in self.maps.namelist() if name.endswith(".bsp"))

    @cached_property
    def _files(self) -> dict[str, str]:
        return {
            name.rsplit(".", 1)[0].lower().removeprefix("textures/"): name
            for name in self.pictures.namelist()
            if name.lower().endswith((".png", ".jpg", ".tga"))
        }

    @property
    def texture_names(self) -> list[str]:
        """All textures' names but those of bumps and gloss."""
        return sorted(name for name in self._files if not name.endswith(("_nm", "_sm", "_gm")))

    def picture(self, name: str) -> tuple[tuple[int, int], list[np.ndarray]]:
        """A texture's width and height, and its mip levels [height width 4]; gray where there is none of that name."""
        if name not in self._pictures:
            path = self._files.get(name.lower())
            image = Image.new("RGBA", (64, 64), (128, 128, 128))
            if path is not None:
                with Image.open(io.BytesIO(self.pictures.read(path))) as file:
                    image = file.convert("RGBA")
            if len(self._pictures) > _KEPT:
                self._pictures.clear()
            self._pictures[name] = (image.size, mip_chain(np.asarray(image)))
        return self._pictures[name]

    def load(self, name: str, daylight: bool = True) -> tuple[Mesh, np.ndarray]:
        """A map's mesh with its stored light of night or day, and its spawn points [spawn 3]."""
        file = read_map(self.maps.read(name), name)
        pictures = {texture: self.picture(texture) for texture in file.texture_names}
        index = {texture: number for number, texture in enumerate(pictures)}
        textures = build_textures([levels for _, levels in pictures.values()])
        sizes = np.array([pictures[texture][0] for texture in file.texture_names], np.float64)
        number = np.array([index[texture] for texture in file.texture_names], np.int32)
        return map_mesh(file, sizes, number, textures, daylight), file.spawns


def map_mesh(
    file: MapFile,
    sizes: Float[np.ndarray, "texture 2"],
    number: Int[np.ndarray, "texture"],
    textures: Textures,
    daylight: bool = True,
) -> Mesh:
    """The faces one can see, as fans of triangles.

    Args:
        file: The map.
        sizes: Width and height of each of the file's textures in texels.
        number: Which of ``textures`` each of the file's textures is.
        textures: What the faces are painted with.
        daylight: Which of the two stored lights.
    """
    light = file.light[daylight]
    luxels = np.frombuffer(light[1 : 1 + (len(light) - 1) // 6 * 6], np.uint8).reshape(-1, 6)[:, :3]
    spacing = 1 << (light[0] if light else 4)
    parts: dict[str, list] = {key: [] for key in ("v", "uv", "texture", "surface", "offset", "size", "luxel")}
    for surface, face in enumerate(file.faces):
        record: Any = file.textures[face["texture"]]
        name = record["name"].split(b"\0")[0]
        if int(record["flags"]) & (_SKIPPED | _GLASS) or face["edges"] < 3 or name.startswith(b"tex_common/"):
            continue
        signed = file.surface_edges[face["edge"] : face["edge"] + face["edges"]]
        edges: Any = file.edges
        points: Any = file.vertices[np.where(signed >= 0, edges[abs(signed), 0], edges[abs(signed), 1])]
        axes = record["axes"].astype(np.float64)
        texel = points.astype(np.float64) @ axes[:, :3].T + axes[:, 3]
        low, high = np.floor(texel.min(0) / spacing), np.ceil(texel.max(0) / spacing)
        size = (high - low + 1).astype(int)
        offset = (int(face["light"][int(daylight)]) - 1) // 6 if face["light"][int(daylight)] > 0 else UNLIT
        if offset + size.prod() > len(luxels):
            offset = UNLIT
        fan = np.array([(0, k, k + 1) for k in range(1, len(points) - 1)])
        parts["v"].append(to_camera_axes(points)[fan])
        parts["uv"].append((texel / sizes[face["texture"]])[fan])
        parts["luxel"].append((texel / spacing - low)[fan])
        for key, value in (
            ("texture", number[face["texture"]]),
            ("surface", surface),
            ("offset", offset),
            ("size", size),
        ):
            parts[key] += [value] * len(fan)
    if not parts["v"]:
        raise LyraError(f"{file.name} shows nothing")
    count = len(parts["surface"])
    return Mesh(
        np.concatenate(parts["v"]).astype(np.float32),
        np.concatenate(parts["uv"]).astype(np.float32),
        np.array(parts["texture"], np.int32),
        np.ones((count, 3), np.float32),
        np.array(parts["surface"], np.int32),
        np.ascontiguousarray(luxels),
        np.array(parts["offset"], np.int64),
        np.array(parts["size"], np.int32),
        np.concatenate(parts["luxel"]).astype(np.float32),
        textures,
    )
