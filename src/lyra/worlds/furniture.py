"""Furniture of Sweet Home 3D: catalogues of OBJ models at their real size.

The files are those of the Debian package ``sweethome3d-furniture`` (CC-BY, CC0 and Free Art, by model). They are
rendered for training; neither they nor renderings of them are part of lyra.
"""

import io
import posixpath
import re
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int
from PIL import Image

from lyra.errors import LyraError
from lyra.worlds.meshes import mip_chain

_LARGEST_FILE = 700_000
"""Bytes of an OBJ file; what is larger (mostly trees) would take most of the time."""
_LARGEST_TEXTURE = 256
_CLEAR = 0.6
"""Materials that let more light through than this are left out."""


@dataclass(frozen=True)
class Furniture:
    """A catalogue's entry."""

    name: str
    category: str
    path: str
    """Of the OBJ file in its catalogue."""
    size: tuple[float, float, float]
    """Metres across, up and deep; the front looks along -z of a camera that faces the back (see ``Model``)."""
    elevation: float
    """Metres above the floor where it hangs; 0 where it stands."""
    top: float | None
    """Height in metres above its foot at which things can stand on it."""
    opening: bool
    """Door or window, in a wall."""
    rotation: Float[np.ndarray, "3 3"]
    catalogue: Path


@dataclass(frozen=True)
class Model:
    """Triangles of a piece of furniture in the axes of cameras (y down), its foot at y = 0, its middle at x = z = 0.

    Its back is at the far side (+z).
    """

    vertices: Float[np.ndarray, "triangle 3 3"]
    uv: Float[np.ndarray, "triangle 3 2"]
    material: Int[np.ndarray, "triangle"]
    tints: Float[np.ndarray, "material 3"]
    pictures: list[list[np.ndarray] | None]
    """Mip levels of each material's texture."""


class FurnitureStore:
    """All catalogues of a folder.

    Raises:
        LyraError: there are none.
    """

    def __init__(self, folder: Path):
        paths = sorted(folder.glob("*.sh3f"))
        if not paths:
            raise LyraError(f"no *.sh3f in {folder}: install sweethome3d-furniture (Debian)")
        self._archives = {path: zipfile.ZipFile(path) for path in paths}
        self.entries = [entry for path in paths for entry in self._entries(path)]
        self._models: dict[tuple[Path, str], Model | None] = {}

    def _entries(self, path: Path) -> list[Furniture]:
        archive = self._archives[path]
        text = archive.read("PluginFurnitureCatalog.properties").decode("latin1")
        numbered: dict[str, dict[str, str]] = defaultdict(dict)
        for key, number, value in re.findall(r"^(\w+)#(\d+)=(.*)$", text, re.MULTILINE):
            numbered[number][key] = value.strip()
        names, found = set(archive.namelist()), []
        for fields in numbered.values():
            model = fields.get("model", "").lstrip("/")
            if model not in names or archive.getinfo(model).file_size > _LARGEST_FILE:
                continue
            width, height, depth = (float(fields[key]) / 100 for key in ("width", "height", "depth"))
            drop = float(fields.get("dropOnTopElevation", height * 100)) / 100
            rotation = np.array([float(x) for x in fields.get("modelRotation", "1 0 0 0 1 0 0 0 1").split()])
            found.append(
                Furniture(
                    fields["name"],
                    fields.get("category", ""),
                    model,
                    (width, height, depth),
                    float(fields.get("elevation", 0)) / 100,
                    drop if drop > 0 else None,
                    fields.get("doorOrWindow") == "true",
                    rotation.reshape(3, 3),
                    path,
                )
            )
        return found

    def model(self, entry: Furniture) -> Model | None:
        """The triangles of an entry at its real size, or None where its file cannot be read."""
        key = (entry.catalogue, entry.path)
        if key not in self._models:
            try:
                self._models[key] = read_model(self._archives[entry.catalogue], entry)
            except (ValueError, IndexError, KeyError, OSError):
                self._models[key] = None
        return self._models[key]


def read_obj(text: str) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Triangles [triangle 3 3], texture positions [triangle 3 2] and the material of each, as an OBJ file has them."""
    points: list[list[float]] = []
    texels: list[list[float]] = [[0.0, 0.0]]
    corners: list[tuple[int, int, int]] = []
    places: list[tuple[int, int, int]] = []
    materials: list[str] = []
    material = ""
    for line in text.splitlines():
        words = line.split()
        if not words:
            continue
        kind = words[0]
        if kind == "v":
            points.append([float(x) for x in words[1:4]])
        elif kind == "vt":
            texels.append([float(x) for x in words[1:3]])
        elif kind == "usemtl":
            material = words[1] if len(words) > 1 else ""
        elif kind == "f":
            corner = [_corner(word, len(points), len(texels)) for word in words[1:]]
            for k in range(1, len(corner) - 1):
                fan = corner[0], corner[k], corner[k + 1]
                corners.append(tuple(c[0] for c in fan))  # pyright: ignore[reportArgumentType]
                places.append(tuple(c[1] for c in fan))  # pyright: ignore[reportArgumentType]
                materials.append(material)
    return np.array(points)[np.array(corners)], np.array(texels)[np.array(places)], materials


def _corner(word: str, points: int, texels: int) -> tuple[int, int]:
    fields = word.split("/")
    point = int(fields[0])
    texel = int(fields[1]) if len(fields) > 1 and fields[1] else 0
    return point - 1 if point > 0 else points + point, texel if texel >= 0 else texels + texel


def read_model(archive: zipfile.ZipFile, entry: Furniture) -> Model:
    """A model of a catalogue at its real size.

    Raises:
        ValueError: the file is damaged or shows nothing.
    """
    text = archive.read(entry.path).decode("latin1")
    vertices, uv, names = read_obj(text)
    library = _materials(archive, posixpath.dirname(entry.path), text)
    kinds = sorted(set(names))
    number = {name: index for index, name in enumerate(kinds)}
    material = np.array([number[name] for name in names], np.int32)
    tints, pictures, kept = [], [], []
    for name in kinds:
        found = library.get(name, {})
        path = found.get("map_Kd")
        tints.append([1.0, 1.0, 1.0] if path else found.get("Kd", [0.7, 0.7, 0.7]))
        pictures.append(_picture(archive, path) if path else None)
        kept.append(found.get("d", 1.0) > 1 - _CLEAR)
    vertices = vertices @ entry.rotation.T
    low, high = vertices.min((0, 1)), vertices.max((0, 1))
    extent = (high - low).clip(min=1e-6)
    # Across, up, front to the viewer becomes across, down, away: half a turn about x.
    place = (vertices - [(low[0] + high[0]) / 2, low[1], (low[2] + high[2]) / 2]) / extent * entry.size
    place = place * [1, -1, -1]
    shown = np.array(kept)[material]
    if not shown.any():
        raise ValueError("nothing can be seen")
    uv = uv * [1, -1]
    return Model(place[shown], uv[shown], material[shown], np.array(tints, np.float64), pictures)


def _materials(archive: zipfile.ZipFile, folder: str, text: str) -> dict[str, dict]:
    """Colors (``Kd``), textures (``map_Kd``) and opacity (``d``) of an OBJ file's materials."""
    found: dict[str, dict] = {}
    for library in re.findall(r"^mtllib\s+(.+?)\s*$", text, re.MULTILINE):
        path = posixpath.join(folder, library)
        if path not in archive.NameToInfo:
            continue
        current: dict = {}
        for line in archive.read(path).decode("latin1").splitlines():
            words = line.split()
            if len(words) < 2:
                continue
            if words[0] == "newmtl":
                current = found.setdefault(words[1], {})
            elif words[0] == "Kd":
                current["Kd"] = [float(x) for x in words[1:4]]
            elif words[0] == "d":
                current["d"] = float(words[-1])
            elif words[0] == "map_Kd":
                picture = posixpath.join(folder, words[-1])
                if picture in archive.NameToInfo:
                    current["map_Kd"] = picture
    return found


def _picture(archive: zipfile.ZipFile, path: str) -> list[np.ndarray]:
    with Image.open(io.BytesIO(archive.read(path))) as image:
        return mip_chain(np.asarray(image.convert("RGBA")), _LARGEST_TEXTURE)
