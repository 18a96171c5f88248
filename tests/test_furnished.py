import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lyra.errors import LyraError
from lyra.worlds.furnished import Furnisher
from lyra.worlds.furniture import FurnitureStore, read_obj
from lyra.worlds.lighting import close_corners, hang_lamp, light_surfaces
from lyra.worlds.maps import MapArchive
from lyra.worlds.rasterizing import Lens, find_surfaces, triangle_normals
from lyra.worlds.room_views import room_views

BOX = """mtllib box.mtl
v 0 0 0\nv 2 0 0\nv 2 4 0\nv 0 4 0\nv 0 0 1\nv 2 0 1\nv 2 4 1\nv 0 4 1
vt 0 0\nvt 1 0\nvt 1 1\nvt 0 1
usemtl wood
f 1/1 2/2 3/3 4/4\nf 5/1 6/2 7/3 8/4\nf -8 -7 -3 -4
usemtl pane
f 1 4 8 5
"""
MATERIALS = "newmtl wood\nKd 0.5 0.25 0.1\nmap_Kd wood.png\nnewmtl pane\nKd 1 1 1\nd 0.1\n"
ENTRY = """id#{n}=box{n}
name#{n}={name}
category#{n}={category}
model#{n}=/box/box.obj
width#{n}={width}
depth#{n}={depth}
height#{n}={height}
elevation#{n}={elevation}
doorOrWindow#{n}=false
"""


def png(color: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (16, 16), color).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def store(tmp_path: Path) -> FurnitureStore:
    kinds = ["Kitchen", "Miscellaneous", "Office", "Living room", "Bathroom", "Bedroom", "Characters"]
    sizes = [("Chair", 40, 50, 90, 0), ("Cup", 8, 9, 10, 0), ("Hood", 60, 30, 40, 150), ("Shelf", 80, 30, 180, 0)]
    entries = "".join(
        ENTRY.format(n=10 * i + j, name=name, category=kind, width=w, depth=d, height=h, elevation=e)
        for i, kind in enumerate(kinds)
        for j, (name, w, d, h, e) in enumerate(sizes)
    )
    with zipfile.ZipFile(tmp_path / "some.sh3f", "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", entries)
        archive.writestr("box/box.obj", BOX)
        archive.writestr("box/box.mtl", MATERIALS)
        archive.writestr("box/wood.png", png((120, 80, 40)))
    return FurnitureStore(tmp_path)


@pytest.fixture
def archive(tmp_path: Path) -> MapArchive:
    zipfile.ZipFile(tmp_path / "0maps.pk3", "w").close()
    with zipfile.ZipFile(tmp_path / "0textures.pk3", "w") as textures:
        for index, name in enumerate(("tex_a/plaster", "tex_a/wood", "tex_a/carpet", "tex_a/door001", "tex_pics/art")):
            textures.writestr(f"textures/{name}.png", png((50 * index, 200 - 40 * index, 90)))
    return MapArchive(tmp_path)


def test_a_model_stands_at_its_real_size_with_its_foot_at_the_origin(store: FurnitureStore, tmp_path: Path):
    entry = next(e for e in store.entries if e.name == "Shelf")
    model = store.model(entry)
    assert model is not None
    np.testing.assert_allclose(model.vertices.min((0, 1)), [-0.4, -1.8, -0.15], atol=1e-9)
    np.testing.assert_allclose(model.vertices.max((0, 1)), [0.4, 0, 0.15], atol=1e-9)
    # The pane lets light through and is left out; its front (+z in the file) faces the viewer (-z here).
    assert len(model.vertices) == 6
    np.testing.assert_allclose(model.vertices[2][:, 2], -0.15)
    with pytest.raises(LyraError, match="install"):
        FurnitureStore(tmp_path / "nowhere")


def test_obj_faces_count_from_either_end():
    vertices, uv, materials = read_obj(BOX)
    assert vertices.shape == (8, 3, 3) and materials == ["wood"] * 6 + ["pane"] * 2
    np.testing.assert_array_equal(vertices[4], [[0, 0, 0], [2, 0, 0], [2, 0, 1]])
    np.testing.assert_array_equal(uv[1], [[0, 0], [1, 1], [0, 1]])


def test_lamps_throw_shadows_and_corners_are_darker(store: FurnitureStore, archive: MapArchive):
    room = Furnisher(store, archive).furnish(0)
    mesh = room.mesh()
    place = np.array([room.width / 2, -room.height + 0.2, room.depth / 2])
    lens = Lens(np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]]), place + np.array([0, 0.05, 0]), 30.0, 64, 64)
    surfaces, normals = find_surfaces(mesh, lens), triangle_normals(mesh, lens)
    lamp = hang_lamp(mesh, place, np.ones(3))
    lit = light_surfaces(surfaces, normals, lens, [lamp], np.zeros(3))[..., 0]
    # The camera looks down from the lamp: it sees hardly any shadow, and light falls with the distance's square.
    level = (normals[surfaces.triangle] @ lens.rotation[:, 1] * -1 > 0.99) & (surfaces.depth > 0.3)
    assert (lit[level] > 0).mean() > 0.9
    side = Lens(lens.rotation, place + np.array([0.8, 0.05, 0.4]), 30.0, 64, 64)
    surfaces, normals = find_surfaces(mesh, side), triangle_normals(mesh, side)
    assert (light_surfaces(surfaces, normals, side, [lamp], np.zeros(3))[..., 0] == 0).any()
    open_sky = close_corners(surfaces.depth, surfaces.triangle, normals, side.focal)
    assert 0.2 <= open_sky.min() < 0.9 and open_sky.max() > 0.95


def test_views_of_a_room_are_whole_and_the_same_for_the_same_seed(store: FurnitureStore, archive: MapArchive):
    furnisher = Furnisher(store, archive)
    views = list(room_views(furnisher, 3, 2, side=64))
    again = list(room_views(furnisher, 3, 2, side=64))
    assert views and len(views) == len(again)
    for view, other in zip(views, again, strict=True):
        assert np.isfinite(view.depth).all() and view.depth.min() > 0.1 and view.depth.max() < 12
        assert view.image.std() > 5
        np.testing.assert_array_equal(view.image, other.image)
        np.testing.assert_array_equal(view.depth, other.depth)
